//! What the server does. Nothing here knows HTTP.

pub mod session;
