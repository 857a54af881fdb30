//! What can go wrong in storage.

/// Storage's own result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Expected outcomes (a taken name, an unknown token) are values in an operation's `Out`; these are the rest.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else was quicker: load again, decide again, store again.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// The queue is full or the database is away: trying later may help.
    #[error("storage is not available: {0}")]
    Unavailable(String),
    /// An SQL statement failed.
    #[error("{stmt}: {message}")]
    Sql { stmt: &'static str, message: String },
    /// What is stored is not what this code would have stored.
    #[error("stored data is not as expected: {0}")]
    Corrupt(String),
    /// An operation broke a rule of the engine, or panicked: a bug, and nothing of it is stored.
    #[error("internal: {0}")]
    Internal(String),
    /// The schema on disk and the one in this binary do not go together.
    #[error("migration: {0}")]
    Migration(String),
}

impl From<Error> for hearth_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Unavailable(why) => Self::unavailable(why),
            other => Self::internal(other),
        }
    }
}

/// What is stored can't be read.
pub(crate) fn corrupt(e: impl std::fmt::Display) -> Error {
    Error::Corrupt(e.to_string())
}
