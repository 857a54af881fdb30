//! Unread counts, by subtraction: what had been counted now, less what had been counted where somebody has read up to.
//!
//! An event that counts adds to running totals of its thread, and of its sender there, for each class of push rules that
//! tells of it: rows by class, none by member. Everybody is told what the class of the untouched rules is; who has others
//! is of a class besides, whose rows say how much more or less that is; and only those who are told something else yet
//! have rows of their own, in the class that is their id. What a member has sent is subtracted, and what those sent whom
//! they ignore.

pub(crate) mod count;
pub(crate) mod read;

use std::collections::{BTreeMap, HashMap};

use hearth_core::push::{Counts, DEFAULT_CLASS, Place};

pub(crate) use self::{
    count::{Addition, count, count_all, kept, redacted},
    read::unread,
};
use crate::{
    Result,
    tx::{Reads, args, statements},
};

/// The timeline of a room without its threads.
pub const MAIN: &str = "main";

statements! {
    THREAD_OF = "SELECT thread FROM events WHERE event_id = $1 AND room_sn = $2";
    ROOTS = "SELECT event_id, room_sn, thread FROM events WHERE event_id = ANY($1)";
}

/// What an event counts, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    pub place: Place,
    /// What it counts for everybody, in the class of the untouched rules; and for each other class, what it counts there
    /// beyond that.
    pub classes: Vec<(String, Counts)>,
    /// For users who are told something else, what that is beyond what their class is told. Those who are not in the
    /// room may be among them.
    pub own: Vec<(Vec<String>, Counts)>,
}

impl Notice {
    /// Once it is known which thread it is in; `None` if it counts nothing.
    pub(crate) fn counted(&self, thread: Option<String>) -> Option<Counted> {
        let counts = !(self.classes.is_empty() && self.own.is_empty());
        let thread = thread.unwrap_or_else(|| MAIN.to_owned());
        counts.then(|| Counted { thread, classes: self.classes.clone(), own: self.own.clone() })
    }

    /// Whether [`count_all`] can count it among others: it names its thread, and tells nobody something of their own.
    pub(crate) fn is_plain(&self) -> bool {
        self.own.is_empty() && !matches!(self.place, Place::With(_))
    }

    /// The root that it names.
    pub(crate) fn root(&self) -> Option<&str> {
        match &self.place {
            Place::Thread(root) => Some(root.as_str()),
            Place::Main | Place::With(_) => None,
        }
    }
}

/// The same of an event that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its root, or `main`.
    pub thread: String,
    pub classes: Vec<(String, Counts)>,
    pub own: Vec<(Vec<String>, Counts)>,
}

impl Counted {
    /// What it counts for a user of this class.
    pub fn of(&self, class: &str, user: &str) -> Counts {
        let class = self.classes.iter().filter(|(c, _)| c == DEFAULT_CLASS || c == class).map(|(_, counts)| *counts);
        let own = self.own.iter().filter(|(users, _)| users.iter().any(|u| u == user)).map(|(_, counts)| *counts);
        class.chain(own).fold(Counts::NONE, |all, counts| all + counts)
    }
}

/// What somebody has not read in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// A thread without any is left out.
    threads: BTreeMap<String, Counts>,
    /// By which class of rules they are told what comes next.
    class: String,
}

impl Unread {
    pub fn add(&mut self, thread: &str, counts: Counts) {
        if counts.is_none() {
            return;
        }
        match self.threads.get_mut(thread) {
            Some(known) => {
                *known += counts;
                if known.is_none() {
                    self.threads.remove(thread);
                }
            }
            None => {
                self.threads.insert(thread.to_owned(), counts);
            }
        }
    }

    pub fn class(&self) -> &str {
        &self.class
    }

    /// Of the timeline without its threads.
    pub fn main(&self) -> Counts {
        self.threads.get(MAIN).copied().unwrap_or_default()
    }

    pub fn threads(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.threads.iter().filter(|(thread, _)| *thread != MAIN).map(|(thread, counts)| (thread.as_str(), *counts))
    }

    /// Of all of the room.
    pub fn all(&self) -> Counts {
        self.threads.values().fold(Counts::NONE, |all, counts| all + *counts)
    }

    /// The same without the threads apart.
    pub fn summed(&self) -> Self {
        let mut summed = Self { class: self.class.clone(), ..Self::default() };
        summed.add(MAIN, self.all());
        summed
    }

    /// How many threads have something unread.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }
}

/// Of the events that are taken for roots of threads, those that are here: their room, and the thread they are in.
pub(crate) struct Roots(HashMap<String, (i64, Option<String>)>);

impl Roots {
    pub(crate) async fn of<R: Reads>(tx: &mut R, named: Vec<String>) -> Result<Self> {
        let mut roots = HashMap::new();
        if !named.is_empty() {
            for mut row in tx.query(ROOTS, args![named]).await? {
                roots.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
            }
        }
        Ok(Self(roots))
    }

    /// What [`thread_of`] says of a plain event.
    pub(crate) fn thread<'a>(&'a self, room_sn: i64, notice: &'a Notice) -> Option<&'a str> {
        let root = notice.root()?;
        let (room, outer) = self.0.get(root)?;
        (*room == room_sn).then(|| outer.as_deref().unwrap_or(root))
    }
}

/// The root of the thread that an event belongs to; `None` for the main timeline.
pub(crate) async fn thread_of<R: Reads>(tx: &mut R, room_sn: i64, place: &Place) -> Result<Option<String>> {
    match place {
        Place::Main => Ok(None),
        // What is in a thread can't be the root of another; what is not here can't be the root of any, or whoever writes
        // could make threads without end out of nothing.
        Place::Thread(root) => match tx.query_opt(THREAD_OF, args![root.as_str(), room_sn]).await? {
            Some(mut row) => Ok(Some(row.get::<Option<String>>(0)?.unwrap_or_else(|| root.to_string()))),
            None => Ok(None),
        },
        Place::With(other) => match tx.query_opt(THREAD_OF, args![other.as_str(), room_sn]).await? {
            Some(mut row) => row.get(0),
            None => Ok(None),
        },
    }
}
