//! The state of a room: how it is kept at each event, and what becomes of it where forks meet.

pub mod resolve;
pub mod trie;
