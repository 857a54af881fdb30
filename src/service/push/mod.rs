//! Whom an event notifies.

mod changes;
mod compiled;
mod touched;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_core::{
    Result,
    push::{CalledBy, Concern, Counts, DEFAULT_CLASS, Names, Rules, Subject},
};
use hearth_storage::{Notice, Storage};
use ruma::{OwnedServerName, OwnedUserId, UserId};

pub use self::touched::Touched;
use changes::Changes;
use compiled::Compiled;

/// So many users whom an event mentions, the first that it names, have counts of their own for it; and as many whose name
/// is in its text. Each is written. To all others it is a message like any: who means more people means the room.
const MOST_NAMED: usize = 100;
/// So many members who changed their rules are told of one event what others are not. To all others it is what it is to
/// their class.
const MOST_TOUCHED: usize = 1_000;

/// Judges events by the push rules of those who will read them.
pub struct Push {
    /// Whose users are ours, and counted for.
    server: OwnedServerName,
    storage: Arc<dyn Storage>,
    changes: Changes,
    compiled: Compiled,
}

impl Push {
    pub fn new(server: OwnedServerName, storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { server, storage, changes: Changes::default(), compiled: Compiled::default() })
    }

    /// Somebody may have changed their rules: looks who did.
    pub async fn look(&self) -> Result<()> {
        self.changes.look(&*self.storage).await.map(drop)
    }

    /// Up to where it is known who changed their rules.
    pub(super) async fn heard(&self) -> Result<i64> {
        self.changes.top(&*self.storage).await
    }

    /// Who changed theirs since; `None` if it takes the database to tell.
    pub(super) fn changed_after(&self, pos: i64) -> Option<Vec<OwnedUserId>> {
        self.changes.after(pos)
    }

    /// The user's rules, ready to be asked, by what is stored of them.
    pub(super) fn rules(&self, user: &UserId, stored: Option<&str>) -> Result<Arc<Rules>> {
        self.compiled.get(user, stored.unwrap_or_default())
    }

    /// What an event counts in a room with these members who changed their rules, whose members have these names.
    pub fn notice(&self, subject: &Subject, sender: &UserId, touched: &Touched, names: Option<&Names>) -> Notice {
        let base = subject.by_default();
        let mut notice = Notice { place: subject.place().clone(), ..Notice::default() };
        add(&mut notice.classes, DEFAULT_CLASS.to_owned(), base);
        let mut by_class = BTreeMap::from([(DEFAULT_CLASS, base)]);
        for (class, rules) in touched.classes() {
            let counts = rules.counts_for_all(subject);
            add(&mut notice.classes, class.to_owned(), counts - base);
            by_class.insert(class, counts);
        }

        let mut concerned: BTreeSet<OwnedUserId> =
            touched.listening().chain(subject.is_about()).map(UserId::to_owned).collect();
        let mentioned = subject.mentioned().into_iter().filter(|user| user.server_name() == self.server);
        let mentioned: Vec<OwnedUserId> = mentioned.take(MOST_NAMED).collect();
        let untouched = ids(mentioned.iter().filter(|user| touched.get(user).is_none()));
        concerned.extend(mentioned);
        if !untouched.is_empty() {
            add(&mut notice.own, untouched, subject.by_default_if(Concern::mention()) - base);
        }
        let called = subject.text().zip(names).map(|(text, names)| names.called_in(text)).unwrap_or_default();
        for by in [CalledBy::DisplayName, CalledBy::Localpart] {
            let users = called.iter().filter(|(user, how)| *how == by && user != sender).map(|(user, _)| user);
            let users: Vec<OwnedUserId> = users.take(MOST_NAMED).cloned().collect();
            let untouched = ids(users.iter().filter(|user| touched.get(user).is_none()));
            concerned.extend(users);
            if !untouched.is_empty() {
                add(&mut notice.own, untouched, subject.by_default_if(Concern::call(by)) - base);
            }
        }

        let mut beyond = BTreeMap::<(i64, i64), Vec<String>>::new();
        let mut most = MOST_TOUCHED;
        for user in concerned.iter().filter(|user| *user != sender) {
            let Some(member) = touched.get(user) else { continue };
            let concern = subject.concern(user, names.and_then(|names| names.display_name(user)));
            let of_class = by_class.get(member.class.as_str()).copied().unwrap_or(base);
            let more = member.rules.counts(subject, concern) - of_class;
            if !more.is_none() && most > 0 {
                most -= 1;
                beyond.entry((more.notify, more.highlight)).or_default().push(user.to_string());
            }
        }
        let beyond = beyond.into_iter();
        notice.own.extend(beyond.map(|((notify, highlight), users)| (users, Counts { notify, highlight })));
        notice
    }
}

fn ids<'a>(users: impl Iterator<Item = &'a OwnedUserId>) -> Vec<String> {
    users.map(ToString::to_string).collect()
}

fn add<T>(to: &mut Vec<(T, Counts)>, whom: T, counts: Counts) {
    if !counts.is_none() {
        to.push((whom, counts));
    }
}
