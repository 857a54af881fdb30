//! The word that the server is stopping.

use tokio_util::sync::CancellationToken;

/// Said once, heard by everybody who waits: a long poll answers at once with what it has, a worker takes no new work.
///
/// ```
/// # async fn wait(shutdown: hearth::shutdown::Shutdown, news: impl Future<Output = ()>) {
/// tokio::select! {
///     () = shutdown.said() => {}
///     () = news => {}
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn say(&self) {
        self.0.cancel();
    }

    pub fn is_said(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves once the server is stopping; at once if it already is.
    pub async fn said(&self) {
        self.0.cancelled().await;
    }
}
