//! What the tests are told in.
//!
//! ```ignore
//! each_backend! {
//!     async fn a_message_is_seen(given: Given) {
//!         let server = given.server().await;
//!         server.get("/_matrix/client/versions").await.ok();
//!     }
//! }
//! ```

#![allow(dead_code, reason = "words that the next test will want")]

pub mod backend;
pub mod browser;
pub mod bucket;
pub mod client;
pub mod gateway;
pub mod people;
pub mod program;
pub mod provider;
pub mod server;
pub mod site;
pub mod wire;

pub use backend::Given;
pub(crate) use backend::{each_backend, each_store};
pub use client::{Http, Reply};
pub use server::Server;
