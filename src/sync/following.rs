//! What is known of a user who syncs, carried on from one sync to the next: the rooms that they are in, and what is unread
//! there. Where messages are all that happens, what is known then is known now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_core::filter::Ignored;
use hearth_storage::{Message, SyncPage, Unread, unread::DEFAULT_CLASS};

/// Who has more unread threads in a room asks the database each time.
const MOST_THREADS: usize = 100;

/// The rooms that a user is in, and what is unread there.
pub(super) struct Following {
    /// Sorted.
    pub(super) rooms: Vec<i64>,
    /// Whose messages they don't want to see.
    pub(super) ignored: Arc<Ignored>,
    state: Mutex<State>,
}

struct State {
    /// It is all so at this position.
    as_of: i64,
    /// By room, in the order of the rooms; `None` where it is not known.
    unread: Vec<Option<Unread>>,
}

impl Following {
    /// Nobody knows anything of this user.
    pub(super) fn nothing() -> Self {
        Self { rooms: Vec::new(), ignored: Arc::default(), state: Mutex::new(State { as_of: 0, unread: Vec::new() }) }
    }

    /// What a page of all changes after `since` tells, and what was known before and is not changed by it.
    pub(super) fn new(page: &SyncPage, since: Option<i64>, before: Option<&Self>) -> Self {
        let mut rooms = page.following.clone();
        rooms.sort_unstable();
        let mut unread: Vec<Option<Unread>> = vec![None; rooms.len()];
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
                unread[i] = (room.unread.len() <= MOST_THREADS).then(|| room.unread.clone());
            }
        }
        Self { rooms, ignored: Arc::clone(&page.ignored), state: Mutex::new(State { as_of: page.head, unread }) }
    }

    pub(super) fn as_of(&self) -> i64 {
        self.state().as_of
    }

    /// These messages are all that happened up to `top`, since [`Self::as_of`] or before.
    pub(super) fn went_on(&self, user: &str, messages: &[Message], top: i64) {
        let mut state = self.state();
        let as_of = state.as_of;
        for message in messages.iter().filter(|m| m.pos > as_of) {
            let Ok(i) = self.rooms.binary_search(&message.room_sn) else { continue };
            let (Some(counted), Some(unread)) = (&message.counted, &mut state.unread[i]) else { continue };
            let sender = message.pdu.sender.as_str();
            if sender != user && !self.ignored.holds(sender) {
                unread.add(&counted.thread, counted.of(DEFAULT_CLASS, user));
                if unread.len() > MOST_THREADS {
                    state.unread[i] = None;
                }
            }
        }
        state.as_of = as_of.max(top);
    }

    /// What is unread in a room; `None` if that takes a look at the database.
    pub(super) fn unread(&self, room_sn: i64) -> Option<Unread> {
        let i = self.rooms.binary_search(&room_sn).ok()?;
        self.state().unread.get(i)?.clone()
    }

    /// About what it takes.
    pub(super) fn bytes(&self) -> usize {
        let known = self.state().unread.iter().flatten().map(|unread| unread.len() * 96).sum::<usize>();
        256 + self.ignored.size() + self.rooms.len() * (8 + size_of::<Option<Unread>>()) + known
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
