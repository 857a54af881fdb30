//! Is this process alive, and should it be sent requests?

use futures_util::future::BoxFuture;

/// Something that has to be in order before this process should be sent requests: the database, the migrations, a worker.
pub trait Ready: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// The error says what is missing, in words that may be shown to anybody.
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}
