//! A bounded queue between the callers and the engine's threads.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::error::{Error, Result};

pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// Held by a thread that serves the queue. When it ends, be it by a panic, callers get errors and wait for nobody.
pub(super) struct Serving<T>(pub(super) Arc<Queue<T>>);

impl<T> Drop for Serving<T> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::new(State { items: VecDeque::new(), closed: false }), arrived: Condvar::new(), capacity }
    }

    /// Never waits.
    pub(super) fn push(&self, item: T) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Unavailable("storage is closed".into()));
        }
        if state.items.len() >= self.capacity {
            return Err(Error::Unavailable("too much is waiting".into()));
        }
        state.items.push_back(item);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for work, then takes up to `max` into `into`; how many are left waiting, or `None` once the queue is closed
    /// and empty.
    pub(super) fn take(&self, max: usize, into: &mut Vec<T>) -> Option<usize> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let n = state.items.len().min(max);
        into.extend(state.items.drain(..n));
        Some(state.items.len())
    }

    /// No more work is taken in; what is queued stays.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Closes, and drops what is queued: whoever waits for it gets an error.
    fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        let items = std::mem::take(&mut state.items);
        drop(state);
        self.arrived.notify_all();
        drop(items);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of ours panics while it holds the lock, and the state is whole at each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
