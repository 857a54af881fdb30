//! What is known of a user who syncs, carried on from one sync to the next: the rooms that they are in, and what is unread
//! there. Where messages are all that happens, what is known then is known now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_core::{filter::Ignored, push::Counts};
use hearth_storage::{
    Message, SyncPage, Unread,
    unread::{DEFAULT_CLASS, MAIN},
};

use super::keys::KeysLeft;
use crate::service::presence::MOST_MEMBERS;

/// Of a room with more unread threads only their sum is known, and who asks for threads asks the database each time.
const MOST_THREADS: usize = 100;

/// About what one takes.
const THREAD_BYTES: usize = 96;

/// The rooms that a user is in, and what is unread there.
pub(super) struct Following {
    /// Sorted.
    pub(super) rooms: Vec<i64>,
    /// Those of them with few members. Sorted.
    pub(super) small: Vec<i64>,
    /// Whose messages they don't want to see.
    pub(super) ignored: Arc<Ignored>,
    pub(super) keys: KeysLeft,
    state: Mutex<State>,
}

struct State {
    /// It is all so at this position.
    as_of: i64,
    /// By room, in the order of the rooms; `None` where it is not known.
    unread: Vec<Option<Known>>,
    /// How many threads came since it was last weighed.
    grown: usize,
}

/// What is unread in a room.
#[derive(Clone)]
struct Known {
    unread: Unread,
    /// The threads are not told apart.
    summed: bool,
}

impl Known {
    fn new(unread: Unread) -> Self {
        if unread.len() > MOST_THREADS {
            return Self { unread: unread.summed(), summed: true };
        }
        Self { unread, summed: false }
    }

    fn add(&mut self, thread: &str, counts: Counts) {
        self.unread.add(if self.summed { MAIN } else { thread }, counts);
        if self.unread.len() > MOST_THREADS {
            *self = Self::new(std::mem::take(&mut self.unread));
        }
    }
}

impl Following {
    /// Nobody knows anything of this user.
    pub(super) fn nothing() -> Self {
        Self {
            rooms: Vec::new(),
            small: Vec::new(),
            ignored: Arc::default(),
            keys: KeysLeft::default(),
            state: Mutex::new(State { as_of: 0, unread: Vec::new(), grown: 0 }),
        }
    }

    /// What a page of all changes after `since` tells, and what was known before and is not changed by it.
    pub(super) fn new(page: &SyncPage, since: Option<i64>, before: Option<&Self>, keys: KeysLeft) -> Self {
        let mut rooms = page.following.clone();
        rooms.sort_unstable();
        let sizes = page.following.iter().zip(&page.sizes);
        let mut small: Vec<i64> = sizes.filter(|(_, size)| **size <= MOST_MEMBERS).map(|(sn, _)| *sn).collect();
        small.sort_unstable();
        let mut unread: Vec<Option<Known>> = vec![None; rooms.len()];
        if let Some(before) = before {
            let known = before.state();
            let changes_all = |(kind, _): &(String, _)| kind == "m.ignored_user_list" || kind == "m.push_rules";
            let connects = since.is_some_and(|since| since <= known.as_of) && known.as_of <= page.head;
            if connects && !page.account_data.iter().any(changes_all) {
                for (sn, known) in before.rooms.iter().zip(&known.unread) {
                    if let (Ok(i), false) = (rooms.binary_search(sn), page.moved.contains(sn)) {
                        unread[i].clone_from(known);
                    }
                }
            }
        }
        for room in &page.joined {
            if let Ok(i) = rooms.binary_search(&room.room.room_sn) {
                unread[i] = Some(Known::new(room.unread.clone()));
            }
        }
        Self {
            rooms,
            small,
            ignored: Arc::clone(&page.ignored),
            keys,
            state: Mutex::new(State { as_of: page.head, unread, grown: 0 }),
        }
    }

    pub(super) fn as_of(&self) -> i64 {
        self.state().as_of
    }

    /// These messages are all that happened up to `top`, since [`Self::as_of`] or before. Whether it has become so much
    /// larger that whoever keeps it should weigh it again.
    pub(super) fn went_on(&self, user: &str, messages: &[Message], top: i64) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let as_of = state.as_of;
        for message in messages.iter().filter(|m| m.pos > as_of) {
            let Ok(i) = self.rooms.binary_search(&message.room_sn) else { continue };
            let (Some(counted), Some(known)) = (&message.counted, &mut state.unread[i]) else { continue };
            let sender = message.pdu.sender.as_str();
            if sender != user && !self.ignored.holds(sender) {
                let before = known.unread.len();
                known.add(&counted.thread, counted.of(DEFAULT_CLASS, user));
                state.grown += known.unread.len().saturating_sub(before);
            }
        }
        state.as_of = as_of.max(top);
        let grows = state.grown >= MOST_THREADS;
        if grows {
            state.grown = 0;
        }
        grows
    }

    /// What is unread in a room, with its threads told apart or not; `None` if that takes a look at the database.
    pub(super) fn unread(&self, room_sn: i64, apart: bool) -> Option<Unread> {
        let i = self.rooms.binary_search(&room_sn).ok()?;
        let state = self.state();
        let known = state.unread.get(i)?.as_ref()?;
        (!known.summed || !apart).then(|| known.unread.clone())
    }

    /// About what it takes. It may be [`MOST_THREADS`] threads more before it is weighed again.
    pub(super) fn bytes(&self) -> usize {
        let known = self.state().unread.iter().flatten().map(|known| known.unread.len() * THREAD_BYTES).sum::<usize>();
        let rooms = self.rooms.len() * (16 + size_of::<Option<Known>>());
        256 + self.ignored.size() + self.keys.bytes() + rooms + known
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_threads_the_sum_is_known() {
        let one = Counts { notify: 1, highlight: 0 };
        let mut known = Known::new(Unread::default());
        for n in 0..MOST_THREADS {
            known.add(&format!("$root{n}"), one);
        }
        assert_eq!((known.summed, known.unread.len()), (false, MOST_THREADS));
        known.add(MAIN, one);
        known.add("$another", one);
        assert_eq!((known.summed, known.unread.len()), (true, 1));
        assert_eq!(known.unread.all().notify, 102);
        let following = Following {
            rooms: vec![7],
            small: Vec::new(),
            ignored: Arc::default(),
            keys: KeysLeft::default(),
            state: Mutex::new(State { as_of: 0, unread: vec![Some(known)], grown: 0 }),
        };
        assert_eq!(following.unread(7, false).map(|unread| unread.all().notify), Some(102));
        assert_eq!(following.unread(7, true), None);
    }
}
