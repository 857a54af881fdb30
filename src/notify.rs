//! From commits to those who wait for them.
//!
//! A wake says "look again", never what changed: a lost one costs a poll of the head, not an event. A waiter subscribes
//! *before* it reads, so nothing falls between its read and its wait.

mod journal;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use hearth_storage::{CommitSink, Committed, Wake};
use tokio::sync::{Notify, mpsc};

pub use self::journal::Journal;

/// Who waits for what, in this process.
#[derive(Default)]
pub struct Notifier {
    waiters: Mutex<HashMap<Wake, HashMap<u64, Arc<Notify>>>>,
    next_id: AtomicU64,
}

impl Notifier {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits for any of `keys`. What is woken from now on is noticed, even before [`Subscription::woken`] is called.
    pub fn subscribe(self: &Arc<Self>, keys: impl IntoIterator<Item = Wake>) -> Subscription {
        let mut subscription = Subscription {
            notifier: Arc::clone(self),
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            keys: Vec::new(),
            notify: Arc::default(),
        };
        subscription.also(keys);
        subscription
    }

    /// Wakes those who wait for any of these.
    pub fn wake<'a>(&self, wakes: impl IntoIterator<Item = &'a Wake>) {
        let waiters = self.lock();
        for wake in wakes {
            for notify in waiters.get(wake).into_iter().flat_map(HashMap::values) {
                notify.notify_one();
            }
        }
    }

    /// Wakes everybody: what changed is too much to tell.
    pub fn wake_all(&self) {
        for notify in self.lock().values().flat_map(HashMap::values) {
            notify.notify_one();
        }
    }

    /// How many wait for news of a user: the long polls.
    pub fn waiting(&self) -> usize {
        self.lock().iter().filter(|(wake, _)| matches!(wake, Wake::User(_))).map(|(_, waiters)| waiters.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Wake, HashMap<u64, Arc<Notify>>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter. Unsubscribes when it is dropped.
pub struct Subscription {
    notifier: Arc<Notifier>,
    id: u64,
    keys: Vec<Wake>,
    notify: Arc<Notify>,
}

impl Subscription {
    /// Waits for these, too.
    pub fn also(&mut self, keys: impl IntoIterator<Item = Wake>) {
        let mut waiters = self.notifier.lock();
        for key in keys {
            if waiters.entry(key.clone()).or_default().insert(self.id, Arc::clone(&self.notify)).is_none() {
                self.keys.push(key);
            }
        }
    }

    /// Returns at the first wake since the subscription was made or this last returned.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiters = self.notifier.lock();
        for key in &self.keys {
            if let Some(of_key) = waiters.get_mut(key) {
                of_key.remove(&self.id);
                if of_key.is_empty() {
                    waiters.remove(key);
                }
            }
        }
    }
}

/// Up to where this process knows the stream without a gap: from its own commits, and from following the head.
#[derive(Default)]
pub struct Known {
    pos: AtomicI64,
    pub journal: Journal,
}

impl Known {
    pub fn pos(&self) -> i64 {
        self.pos.load(Ordering::SeqCst)
    }

    pub fn raise_to(&self, pos: i64) {
        self.journal.moved_to(pos);
        self.pos.fetch_max(pos, Ordering::SeqCst);
    }

    /// A commit of our own: it counts if nobody else's came between.
    fn committed(&self, commit: &Committed) {
        self.journal.committed(commit);
        if commit.last >= commit.first {
            let _ = self.pos.compare_exchange(commit.first - 1, commit.last, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

/// The engine's side: takes commits without blocking the engine's thread.
pub struct Sink {
    commits: mpsc::UnboundedSender<Committed>,
    known: Arc<Known>,
}

impl Sink {
    /// The sink for the engine, and what is to be run by [`dispatch`].
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Committed>, Arc<Known>) {
        // Unbounded, but as long as the commits of some milliseconds: the writer is what limits it.
        let (commits, receiver) = mpsc::unbounded_channel();
        let known = Arc::new(Known::default());
        (Arc::new(Self { commits, known: Arc::clone(&known) }), receiver, known)
    }
}

impl CommitSink for Sink {
    fn committed(&self, commit: Committed) {
        self.known.committed(&commit);
        // Fails only when the server stops.
        let _ = self.commits.send(commit);
    }
}

/// Hands commits to the waiters until the engine is gone.
pub async fn dispatch(
    mut commits: mpsc::UnboundedReceiver<Committed>,
    notifier: Arc<Notifier>,
    bus: Arc<dyn crate::bus::Bus>,
) {
    while let Some(commit) = commits.recv().await {
        notifier.wake(&commit.wakes);
        let mut rooms: Vec<Wake> = commit.messages.iter().map(|m| Wake::Room(m.room_sn)).collect();
        rooms.sort_unstable();
        rooms.dedup();
        notifier.wake(&rooms);
        if commit.last >= commit.first {
            bus.publish(crate::bus::Hint { pos: commit.last });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_wake_between_subscribe_and_wait_is_not_lost() {
        let notifier = Notifier::new();
        let waiter = notifier.subscribe([Wake::Room(1), Wake::Room(2)]);
        let other = notifier.subscribe([Wake::Room(3)]);
        notifier.wake(&[Wake::Room(2)]);
        assert!(waiter.woken().now_or_never().is_some());
        assert!(waiter.woken().now_or_never().is_none(), "one wake, one return");
        assert!(other.woken().now_or_never().is_none());
    }

    #[test]
    fn who_is_dropped_waits_no_more() {
        let notifier = Notifier::new();
        drop(notifier.subscribe([Wake::Room(1)]));
        assert!(notifier.lock().is_empty());
    }

    #[test]
    fn known_stops_at_a_gap() {
        let known = Known::default();
        let commit = |first, last| Committed { first, last, wakes: Vec::new(), messages: Vec::new() };
        known.committed(&commit(1, 3));
        assert_eq!(known.pos(), 3);
        known.committed(&commit(5, 6));
        assert_eq!(known.pos(), 3, "4 was somebody else's");
        known.raise_to(6);
        known.committed(&commit(7, 7));
        assert_eq!(known.pos(), 7);
    }
}
