//! Hearth, a Matrix homeserver.
//!
//! ```text
//! main → cli → app → { api, worker } → sync → service → notify → { bus, federation } → storage → core
//! ```
//!
//! Imports go only in the direction of the arrows; `tests/layers.rs` holds them to it. `config`, `telemetry`,
//! `shutdown` and `http_client` lie at the bottom: they know nothing of the rest, and everything above may use them.

pub mod api;
pub mod app;
pub mod bus;
pub mod cli;
pub mod config;
pub mod http_client;
pub mod notify;
pub mod service;
pub mod shutdown;
pub mod sync;
pub mod telemetry;
pub mod worker;
