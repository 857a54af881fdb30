//! The newest commits of this process, in memory: so that those who follow the stream closely need not ask the database
//! what they are woken for.
//!
//! Messages are here themselves. Of any other change only is here whom it concerns, so that they know to ask. Where a
//! commit does not follow on the one before, another process wrote between: all that was before is forgotten.

use std::{
    collections::VecDeque,
    sync::{PoisonError, RwLock},
};

use hearth_storage::{Committed, Message, Wake};

/// Bytes of messages that are kept.
const MAX_BYTES: usize = 16 << 20;
/// Who is further behind asks the database.
const MOST_LOOKED_AT: usize = 4_096;

#[derive(Default)]
pub struct Journal(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    /// All changes after this position, up to `top`, are here.
    floor: i64,
    top: i64,
    /// By position.
    entries: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    pos: i64,
    what: What,
}

enum What {
    Message(Message),
    /// Something else that a sync may show.
    Other(Wake),
}

/// What somebody has not seen.
pub struct News {
    /// Up to here there is nothing else.
    pub top: i64,
    /// In the order of the stream; those before `since` that came after `as_of` are among them.
    pub messages: Vec<Message>,
}

impl Journal {
    /// After `since`, for a user who was in `rooms` (sorted) at position `as_of`. `None` if it takes the database to tell.
    pub fn after(&self, since: i64, as_of: i64, user: &str, rooms: &[i64]) -> Option<News> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = since.min(as_of);
        if from < entries.floor || since.max(as_of) > entries.top {
            return None;
        }
        let start = entries.entries.partition_point(|e| e.pos <= from);
        if entries.entries.len() - start > MOST_LOOKED_AT {
            return None;
        }
        let mut messages = Vec::new();
        for entry in entries.entries.range(start..) {
            match &entry.what {
                What::Message(m) => {
                    if rooms.binary_search(&m.room_sn).is_ok() {
                        messages.push(m.clone());
                    }
                }
                What::Other(Wake::Room(room)) if rooms.binary_search(room).is_err() => {}
                What::Other(Wake::User(other)) if **other != *user => {}
                What::Other(_) => return None,
            }
        }
        Some(News { top: entries.top, messages })
    }

    /// Whether it tells of all up to `pos`, or another process may have written there what is not known here yet.
    pub fn reaches(&self, pos: i64) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).top >= pos
    }

    /// Whether it is known that nothing of the user's own has changed after `as_of`: they are in the rooms of then.
    pub fn is_silent_about(&self, user: &str, as_of: i64) -> bool {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let start = entries.entries.partition_point(|e| e.pos <= as_of);
        let about = |entry: &Entry| matches!(&entry.what, What::Other(Wake::User(other)) if **other == *user);
        as_of >= entries.floor
            && entries.entries.len() - start <= MOST_LOOKED_AT
            && !entries.entries.range(start..).any(about)
    }

    pub(super) fn committed(&self, commit: &Committed) {
        if commit.last < commit.first {
            return;
        }
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if commit.last <= entries.top {
            // The head was read before we were told of this: what others wrote after it is not here.
            return;
        }
        if commit.first != entries.top + 1 {
            entries.restart(commit.first - 1);
        }
        for message in &commit.messages {
            entries.push(message.pos, What::Message(message.clone()));
        }
        for wake in &commit.wakes {
            if !matches!(wake, Wake::Queue(_)) {
                entries.push(commit.last, What::Other(wake.clone()));
            }
        }
        entries.top = commit.last;
        while entries.bytes > MAX_BYTES {
            let Some(oldest) = entries.entries.pop_front() else { break };
            entries.bytes -= oldest.what.bytes();
            entries.floor = oldest.pos;
        }
    }

    /// The stream is at `pos`, by what others did.
    pub(super) fn moved_to(&self, pos: i64) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if pos > entries.top {
            entries.restart(pos);
        }
    }
}

impl Entries {
    fn restart(&mut self, floor: i64) {
        self.entries.clear();
        (self.floor, self.top, self.bytes) = (floor, floor, 0);
    }

    fn push(&mut self, pos: i64, what: What) {
        self.bytes += what.bytes();
        self.entries.push_back(Entry { pos, what });
    }
}

impl What {
    /// About what it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(m) => 1_024 + 2 * m.pdu.json.len(),
            Self::Other(_) => 128,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_core::{event::Pdu, room_version::RoomVersion};
    use ruma::{RoomVersionId, event_id, room_id};

    use super::*;

    fn text() -> Arc<Pdu> {
        let json = r#"{"sender":"@a:x","type":"m.room.message","content":{},"origin_server_ts":1,"prev_events":[],
            "auth_events":[],"depth":1}"#;
        let version = RoomVersion::get(&RoomVersionId::V11).expect("a version that is held");
        let pdu = Pdu::parse(json.into(), event_id!("$e").to_owned(), room_id!("!r:x").to_owned(), version);
        Arc::new(pdu.expect("an event"))
    }

    fn commit(first: i64, last: i64, rooms: &[(i64, i64)], wakes: &[Wake]) -> Committed {
        let message = |(pos, room_sn): &(i64, i64)| Message {
            pos: *pos,
            sn: *pos,
            room_sn: *room_sn,
            pdu: text(),
            sent_by: None,
            counted: None,
        };
        Committed { first, last, wakes: wakes.to_vec(), messages: rooms.iter().map(message).collect() }
    }

    fn seen(journal: &Journal, since: i64, as_of: i64, rooms: &[i64]) -> Option<(i64, Vec<i64>)> {
        let news = journal.after(since, as_of, "@me:x", rooms)?;
        Some((news.top, news.messages.iter().map(|m| m.pos).filter(|pos| *pos > since).collect()))
    }

    #[test]
    fn messages_of_followed_rooms_are_told() {
        let journal = Journal::default();
        journal.moved_to(10);
        journal.committed(&commit(11, 14, &[(11, 1), (12, 2), (14, 1)], &[]));
        assert_eq!(seen(&journal, 10, 10, &[1, 3]), Some((14, vec![11, 14])));
        assert_eq!(seen(&journal, 11, 10, &[1, 3]), Some((14, vec![14])));
        assert_eq!(seen(&journal, 14, 10, &[1]), Some((14, vec![])));
        assert_eq!(seen(&journal, 9, 10, &[1]), None, "not here");
        assert_eq!(seen(&journal, 15, 10, &[1]), None, "not here yet");
        assert_eq!(seen(&journal, 10, 15, &[1]), None, "what the user is in now may be otherwise than then");
    }

    #[test]
    fn any_other_change_sends_those_whom_it_concerns_to_the_database() {
        let journal = Journal::default();
        journal.committed(&commit(1, 2, &[(1, 1)], &[Wake::Room(2), Wake::User("@other:x".into()), Wake::Queue("q")]));
        assert_eq!(seen(&journal, 0, 0, &[1]), Some((2, vec![1])));
        assert_eq!(seen(&journal, 0, 0, &[1, 2]), None);
        assert_eq!(seen(&journal, 2, 2, &[1, 2]), Some((2, vec![])));
        assert_eq!(seen(&journal, 2, 0, &[1, 2]), None, "the rooms may be others since");
        journal.committed(&commit(3, 3, &[], &[Wake::User("@me:x".into())]));
        assert_eq!(seen(&journal, 2, 2, &[1]), None);
    }

    #[test]
    fn a_gap_is_noticed() {
        let journal = Journal::default();
        journal.committed(&commit(1, 2, &[(1, 1)], &[]));
        journal.committed(&commit(4, 4, &[(4, 1)], &[]));
        assert_eq!(seen(&journal, 2, 2, &[1]), None, "3 was somebody else's");
        assert_eq!(seen(&journal, 3, 3, &[1]), Some((4, vec![4])));
        journal.moved_to(4);
        assert_eq!(seen(&journal, 3, 3, &[1]), Some((4, vec![4])), "known");
        journal.moved_to(6);
        assert_eq!(seen(&journal, 4, 4, &[1]), None);
        assert_eq!(seen(&journal, 6, 6, &[1]), Some((6, vec![])));
        assert!(journal.reaches(6) && !journal.reaches(7));
    }

    #[test]
    fn word_of_a_commit_may_come_after_that_of_what_followed() {
        let journal = Journal::default();
        journal.moved_to(10);
        // We committed 11, others 12 and 13, and the head was read before we were told of our own.
        journal.moved_to(13);
        journal.committed(&commit(11, 11, &[(11, 1)], &[]));
        assert_eq!(seen(&journal, 11, 11, &[1]), None, "12 and 13 are not here");
        assert_eq!(seen(&journal, 10, 10, &[1]), None);
        assert_eq!(seen(&journal, 13, 13, &[1]), Some((13, vec![])));
        journal.committed(&commit(14, 14, &[(14, 1)], &[]));
        assert_eq!(seen(&journal, 13, 13, &[1]), Some((14, vec![14])));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let journal = Journal::default();
        for pos in 1..=40_000 {
            journal.committed(&commit(pos, pos, &[(pos, 1)], &[]));
        }
        let (floor, bytes) = {
            let entries = journal.0.read().expect("not poisoned");
            (entries.floor, entries.bytes)
        };
        assert!(bytes <= MAX_BYTES && floor > 0);
        assert_eq!(seen(&journal, floor - 1, 40_000, &[1]), None);
        assert_eq!(seen(&journal, 39_999, 39_999, &[1]), Some((40_000, vec![40_000])));
    }
}
