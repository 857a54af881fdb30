//! What a file is, and what is made of it: decisions about bytes that strangers sent.

pub mod headers;
pub mod preview;
pub mod sniff;
pub mod thumbnail;
