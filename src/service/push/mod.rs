//! Whom an event notifies.

use std::sync::Arc;

use hearth_core::push::{CalledBy, Concern, Counts, Names, Subject};
use hearth_storage::{Notice, unread::DEFAULT_CLASS};
use ruma::{OwnedServerName, UserId};

/// So many users whom an event mentions, the first that it names, have counts of their own for it; and as many whose name
/// is in its text. Each is written. To all others it is a message like any: who means more people means the room.
const MOST_NAMED: usize = 100;

/// Judges events by the push rules of those who will read them.
pub struct Push {
    /// Whose users are ours, and counted for.
    server: OwnedServerName,
}

impl Push {
    pub fn new(server: OwnedServerName) -> Arc<Self> {
        Arc::new(Self { server })
    }

    /// What an event counts in a room whose members have these names.
    pub fn notice(&self, subject: &Subject, sender: &UserId, names: Option<&Names>) -> Notice {
        let base = subject.by_default();
        let mut notice = Notice { place: subject.place().clone(), ..Notice::default() };
        add(&mut notice.classes, DEFAULT_CLASS.to_owned(), base);

        let mentioned = subject.mentioned().into_iter().filter(|user| user.server_name() == self.server);
        let mentioned: Vec<String> = mentioned.map(|user| user.to_string()).take(MOST_NAMED).collect();
        if !mentioned.is_empty() {
            add(&mut notice.own, mentioned, subject.by_default_if(Concern::mention()) - base);
        }
        let called = subject.text().zip(names).map(|(text, names)| names.called_in(text)).unwrap_or_default();
        for by in [CalledBy::DisplayName, CalledBy::Localpart] {
            let users = called.iter().filter(|(user, how)| *how == by && user != sender);
            let users: Vec<String> = users.map(|(user, _)| user.to_string()).take(MOST_NAMED).collect();
            if !users.is_empty() {
                add(&mut notice.own, users, subject.by_default_if(Concern::call(by)) - base);
            }
        }
        notice
    }
}

fn add<T>(to: &mut Vec<(T, Counts)>, whom: T, counts: Counts) {
    if !counts.is_none() {
        to.push((whom, counts));
    }
}
