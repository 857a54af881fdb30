//! Storage: what the server keeps, as operations on a database.
//!
//! One trait an aggregate, whose methods are whole domain operations: one method, one transaction, one sentence. The
//! operations are written once, over [`tx::Tx`], and two engines run them: SQLite and Postgres.

mod error;
mod tx;

pub use error::{Error, Result};
pub use tx::{Answer, CommitSink, Committed, Wake};
