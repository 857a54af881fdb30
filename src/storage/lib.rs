//! Storage: what the server keeps, as operations on a database.
//!
//! One trait an aggregate, whose methods are whole domain operations: one method, one transaction, one sentence. The
//! operations are written once, over [`tx::Tx`], and two engines run them: SQLite and Postgres.

pub mod account_data;
pub mod accounts;
mod error;
pub mod filters;
mod outbox;
pub mod profiles;
pub mod sessions;
pub mod transactions;
mod tx;

pub use error::{Error, Result};
pub use tx::{Answer, CommitSink, Committed, Wake};
pub trait Storage:
    accounts::Accounts
    + sessions::Sessions
    + profiles::Profiles
    + account_data::AccountData
    + filters::Filters
    + transactions::Transactions
    + Send
    + Sync
    + 'static
{
}
pub(crate) struct Sql<E: tx::Engine>(pub(crate) E);
