//! What is known of a user who syncs, carried on from one sync to the next: the rooms that they are in, and what is unread
//! there. Where messages are all that happens, what is known then is known now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_core::{filter::Ignored, push::Counts};
use hearth_storage::{Message, SyncPage, Unread, UnreadNow, unread::MAIN};

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
    /// Messages up to here are counted.
    up_to: i64,
}

impl Known {
    fn new(unread: Unread, up_to: i64) -> Self {
        if unread.len() > MOST_THREADS {
            return Self { unread: unread.summed(), summed: true, up_to };
        }
        Self { unread, summed: false, up_to }
    }

    fn add(&mut self, thread: &str, counts: Counts) {
        self.unread.add(if self.summed { MAIN } else { thread }, counts);
        if self.unread.len() > MOST_THREADS {
            *self = Self::new(std::mem::take(&mut self.unread), self.up_to);
        }
    }
}

/// What is known of a room's unread messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    As(Unread),
    Unknown,
    /// Not of each of its threads.
    InSum,
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
                unread[i] = Some(Known::new(room.unread.clone(), page.head));
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
            if message.pos > known.up_to && sender != user && !self.ignored.holds(sender) {
                let before = known.unread.len();
                let counts = counted.of(known.unread.class(), user);
                known.add(&counted.thread, counts);
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

    /// What was found to be unread in these rooms, where it was not known yet.
    pub(super) fn learn(&self, rooms: &[i64], found: &UnreadNow) {
        let mut state = self.state();
        if found.head < state.as_of {
            // What came between was counted already, where it was known of what.
            return;
        }
        for sn in rooms {
            if let Ok(i) = self.rooms.binary_search(sn)
                && state.unread[i].is_none()
            {
                state.unread[i] = Some(Known::new(found.rooms.get(sn).cloned().unwrap_or_default(), found.head));
            }
        }
    }

    /// What is unread in a room, with its threads told apart or not.
    pub(super) fn unread(&self, room_sn: i64, apart: bool) -> Counted {
        let Ok(i) = self.rooms.binary_search(&room_sn) else { return Counted::InSum };
        match &self.state().unread[i] {
            None => Counted::Unknown,
            Some(known) if known.summed && apart => Counted::InSum,
            Some(known) => Counted::As(known.unread.clone()),
        }
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
    use std::collections::HashMap;

    use hearth_core::{event::Pdu, push::DEFAULT_CLASS, room_version::RoomVersion};
    use hearth_storage::unread::Counted as Notice;
    use ruma::{RoomVersionId, event_id, room_id};

    use super::*;

    /// A text that counts.
    fn message(pos: i64, room_sn: i64) -> Message {
        let json = r#"{"sender":"@a:x","type":"m.room.message","content":{},"origin_server_ts":1,"prev_events":[],
            "auth_events":[],"depth":1}"#;
        let version = RoomVersion::get(&RoomVersionId::V11).expect("a version that is held");
        let pdu = Pdu::parse(json.into(), event_id!("$e").to_owned(), room_id!("!r:x").to_owned(), version);
        let pdu = Arc::new(pdu.expect("an event"));
        let one = Counts { notify: 1, highlight: 0 };
        let counted =
            Notice { thread: MAIN.to_owned(), classes: vec![(DEFAULT_CLASS.to_owned(), one)], own: Vec::new() };
        Message { pos, sn: pos, room_sn, pdu, sent_by: None, counted: Some(Arc::new(counted)) }
    }

    #[test]
    fn of_too_many_threads_the_sum_is_known() {
        let one = Counts { notify: 1, highlight: 0 };
        let mut known = Known::new(Unread::default(), 0);
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
        let Counted::As(unread) = following.unread(7, false) else { panic!("it is known") };
        assert_eq!(unread.all().notify, 102);
        assert_eq!(following.unread(7, true), Counted::InSum);
    }

    #[test]
    fn what_is_learned_later_counts_no_message_twice_and_leaves_none_out() {
        let following = Following {
            rooms: vec![7, 8],
            small: Vec::new(),
            ignored: Arc::default(),
            keys: KeysLeft::default(),
            state: Mutex::new(State { as_of: 10, unread: vec![None, None], grown: 0 }),
        };
        let one = |pos| message(pos, 7);
        following.went_on("@me:x", &[one(11)], 11);
        assert_eq!(following.unread(7, false), Counted::Unknown);
        let found = |head, notify| {
            let mut unread = Unread::default();
            unread.add(MAIN, Counts { notify, highlight: 0 });
            UnreadNow { head, rooms: HashMap::from([(7, unread)]) }
        };
        following.learn(&[7], &found(10, 4));
        assert_eq!(following.unread(7, false), Counted::Unknown, "11 would be missing");
        following.learn(&[7, 8], &found(12, 6));
        following.went_on("@me:x", &[one(12), one(13)], 13);
        let Counted::As(unread) = following.unread(7, false) else { panic!("it is known") };
        assert_eq!(unread.all().notify, 7, "12 was among those found");
        assert_eq!(following.unread(8, false), Counted::As(Unread::default()));
    }
}
