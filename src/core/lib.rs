//! Pure Matrix: what an event is, who may do what, what the state of a room is.
//!
//! Nothing here knows a runtime, a database or HTTP. Time and chance come in as arguments.

pub mod clock;
pub mod error;

pub use error::{Error, Kind, Result};
