//! How many looks there are at once: in all, and for one user, so that whoever links to what is slow keeps only their own
//! waiting.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use ruma::{OwnedUserId, UserId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

const AT_ONCE: usize = 16;
const AT_ONCE_OF_USER: usize = 4;
/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Who was here lately. If it is forgotten that somebody has looks under way, they may have some more.
const USERS: u64 = 10_000;

pub(super) struct Turns {
    all: Arc<Semaphore>,
    users: Cache<OwnedUserId, Arc<Semaphore>>,
}

/// A look that is somebody's, until it is dropped.
pub(super) struct Turn {
    _of_user: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), users: Cache::new(USERS) }
    }
}

impl Turns {
    /// None: it did not come in time.
    pub(super) async fn wait(&self, user: &UserId) -> Option<Turn> {
        let own = self.users.get_with(user.to_owned(), || Arc::new(Semaphore::new(AT_ONCE_OF_USER)));
        let all = Arc::clone(&self.all);
        let both = async {
            let of_user = own.acquire_owned().await.ok()?;
            let of_all = all.acquire_owned().await.ok()?;
            Some(Turn { _of_user: of_user, _of_all: of_all })
        };
        timeout(PATIENCE, both).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_many_waits_for_their_own() {
        let turns = Turns::default();
        let (alice, bob) = (user_id!("@alice:x"), user_id!("@bob:x"));
        let mut hers = Vec::new();
        for _ in 0..AT_ONCE_OF_USER {
            hers.push(turns.wait(alice).await.expect("a turn"));
        }
        assert!(turns.wait(alice).await.is_none());
        assert!(turns.wait(bob).await.is_some());
        hers.pop();
        assert!(turns.wait(alice).await.is_some());
    }
}
