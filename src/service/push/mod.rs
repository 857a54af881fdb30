//! Whom an event notifies.

use std::sync::Arc;

use hearth_core::{
    Result,
    event::Pdu,
    power::Power,
    push::{Counts, Subject},
};
use hearth_storage::{Notice, unread::DEFAULT_CLASS};
use ruma::OwnedServerName;

/// Judges events by the push rules of those who will read them.
pub struct Push {
    /// Whose users are ours, and counted for.
    server: OwnedServerName,
}

impl Push {
    pub fn new(server: OwnedServerName) -> Arc<Self> {
        Arc::new(Self { server })
    }

    /// What an event counts in a room of so many joined members. `power`: what its sender may do, if that matters.
    pub fn notice(&self, pdu: &Pdu, joined: i64, power: impl FnOnce() -> Result<Option<Power>>) -> Result<Notice> {
        let mut subject = Subject::new(pdu, &pdu.room_id, joined)?;
        if subject.mentions_room()
            && let Some(power) = power()?
        {
            subject.set_power(power.push_context());
        }
        let base = subject.by_default();
        let mut notice = Notice { place: subject.place().clone(), ..Notice::default() };
        add(&mut notice.classes, DEFAULT_CLASS.to_owned(), base);

        let mentioned = subject.mentioned().into_iter().filter(|user| user.server_name() == self.server);
        let mentioned: Vec<String> = mentioned.map(|user| user.to_string()).collect();
        if !mentioned.is_empty() {
            add(&mut notice.own, mentioned, subject.by_default_if_mentioned() - base);
        }
        Ok(notice)
    }
}

fn add<T>(to: &mut Vec<(T, Counts)>, whom: T, counts: Counts) {
    if !counts.is_none() {
        to.push((whom, counts));
    }
}
