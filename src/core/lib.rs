//! Pure Matrix: what an event is, who may do what, what the state of a room is.
//!
//! Nothing here knows a runtime, a database or HTTP. Time and chance come in as arguments.

pub mod auth;
pub mod canonical;
pub mod clock;
pub mod e2ee;
pub mod error;
pub mod event;
pub mod filter;
pub mod ids;
#[cfg(feature = "signing")]
pub mod keys;
pub mod limits;
#[cfg(feature = "media")]
pub mod media;
pub mod power;
pub mod probe;
pub mod push;
pub mod relation;
pub mod room_version;
pub mod sliding;
pub mod state;
pub mod token;
pub mod visibility;

#[cfg(all(test, feature = "signing"))]
pub(crate) mod testing;

pub use error::{Error, Kind, Result};
