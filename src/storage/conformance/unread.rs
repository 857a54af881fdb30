//! Unread counts: what totals and differences give is what counting event by event gives.

use hearth_core::push::{Counts, DEFAULT_CLASS, Place};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::json;

use super::{
    rooms::{Made, Room, beginning, membership, message, state},
    *,
};
use crate::{
    AccountDataChange, Notice, Receipt, Redaction, Scope, Unread, account_data::AccountData as _,
    ephemeral::Receipts as _, rooms::Rooms as _,
};

pub(super) const USERS: [&str; 4] = ["@alice:x", "@bob:x", "@carol:x", "@dave:x"];
/// Those of push rules; the first is that of the untouched ones.
const CLASSES: [&str; 3] = ["", "quiet", "loud"];
/// Where an event goes: the main timeline, the thread of an early event, or where some event is.
const THREADS: usize = 3;

pub(super) fn counts(notify: i64, highlight: i64) -> Counts {
    Counts { notify, highlight }
}

fn notice(place: Place, by_default: Counts, own: &[(&str, Counts)]) -> Notice {
    let classes = if by_default.is_none() { vec![] } else { vec![(DEFAULT_CLASS.to_owned(), by_default)] };
    Notice { place, classes, own: own.iter().map(|(user, c)| (vec![(*user).to_owned()], *c)).collect() }
}

impl Store {
    /// Stores one event that counts; its id.
    pub(super) async fn counts(&self, room: &mut Room, made: Made, notice: Notice) -> String {
        let (mut commit, after) = room.commit(self.numbers(1).await, &[made]);
        commit.events[0].notice = notice;
        let id = commit.events[0].pdu.event_id.to_string();
        self.persist(commit).await.unwrap();
        *room = after;
        id
    }

    async fn redacts(&self, room: &mut Room, sender: &'static str, target: &str) {
        let made = Made { key: None, ..state(sender, "m.room.redaction", "", json!({})) };
        let (mut commit, after) = room.commit(self.numbers(1).await, &[made]);
        commit.redactions = vec![Redaction {
            redaction_sn: commit.events[0].sn,
            redaction_id: commit.events[0].pdu.event_id.to_string(),
            target_id: target.to_owned(),
            redacted_json: Some(json!({ "type": "m.room.message", "sender": sender, "content": {} }).to_string()),
        }];
        self.persist(commit).await.unwrap();
        *room = after;
    }

    pub(super) async fn reads(&self, room: &Room, user: &str, (receipt_type, thread): (&str, &str), event_id: &str) {
        let receipt = Receipt {
            room_sn: room.sn,
            user_id: user.to_owned(),
            receipt_type: receipt_type.to_owned(),
            thread: thread.to_owned(),
            event_id: event_id.to_owned(),
            ts: 1,
        };
        self.set_receipt(receipt).await.unwrap();
    }

    async fn ignores(&self, user: &str, whom: &[&str]) {
        let list: BTreeMap<_, _> = whom.iter().map(|user| (*user, json!({}))).collect();
        let change = AccountDataChange {
            user_id: user.to_owned(),
            scope: Scope::Global,
            kind: "m.ignored_user_list".to_owned(),
            content: Some(json!({ "ignored_users": list }).to_string()),
            expects: None,
            quota: None,
        };
        self.set_account_data(change).await.unwrap();
    }

    /// By room, what the first sync of a user shows.
    pub(super) async fn unread_of(&self, user: &str) -> BTreeMap<i64, Unread> {
        self.syncs(user, None).await.joined.into_iter().map(|part| (part.room.room_sn, part.unread)).collect()
    }
}

#[test]
fn what_is_unread_is_a_difference_of_totals() {
    each_backend(|store| async move {
        let [alice, bob, carol, _] = USERS;
        let mut room = store.makes_room("a").await;
        store.counts(&mut room, message(alice, "before"), notice(Place::Main, counts(1, 0), &[])).await;
        store.says(&mut room, &[membership(bob, bob, "join"), membership(carol, carol, "join")]).await;
        let root = store.counts(&mut room, message(alice, "root"), notice(Place::Main, counts(1, 0), &[])).await;
        let in_thread = || Place::Thread(root.as_str().try_into().unwrap());
        let to_bob = [(bob, counts(0, 1)), ("@nobody:x", counts(0, 1))];
        let answer =
            store.counts(&mut room, message(carol, "answer"), notice(in_thread(), counts(1, 0), &to_bob)).await;
        let reaction = Place::With(answer.as_str().try_into().unwrap());
        let second = store.counts(&mut room, message(alice, "beside it"), notice(reaction, counts(1, 0), &[])).await;
        store.counts(&mut room, message(bob, "own"), notice(Place::Main, counts(1, 0), &[])).await;
        let last = store.counts(&mut room, message(alice, "last"), notice(Place::Main, counts(1, 1), &[])).await;

        let sn = room.sn;
        let unread = async |user| store.unread_of(user).await.remove(&sn).unwrap();
        let threads = |unread: &Unread| unread.threads().map(|(t, c)| (t.to_owned(), c)).collect::<Vec<_>>();
        let seen = unread(bob).await;
        assert_eq!((seen.main(), seen.all()), (counts(2, 1), counts(4, 2)), "neither what was before nor their own");
        assert_eq!(threads(&seen), [(root.clone(), counts(2, 1))]);
        assert_eq!(unread(carol).await.all(), counts(4, 1), "the mention is Bob's");

        store.reads(&room, bob, ("m.read", &root), &answer).await;
        assert_eq!(threads(&unread(bob).await), [(root.clone(), counts(1, 0))]);
        assert_eq!(unread(bob).await.main(), counts(2, 1), "read in the thread only");
        store.reads(&room, bob, ("m.read.private", "main"), &last).await;
        assert_eq!(unread(bob).await.all(), counts(1, 0));
        store.redacts(&mut room, alice, &second).await;
        assert_eq!(unread(bob).await.all(), counts(0, 0), "what is redacted is nothing to read");
        assert_eq!(unread(carol).await.all(), counts(3, 1));
        store.ignores(carol, &[alice]).await;
        assert_eq!(unread(carol).await.all(), counts(1, 0), "Bob's, and nothing is taken off twice");
        store.ignores(carol, &[]).await;
        store.reads(&room, carol, ("m.read", ""), &last).await;
        assert!(unread(carol).await.all().is_none());
        store.reads(&room, carol, ("m.read.private", ""), "$unheard_of").await;
        store.reads(&room, carol, ("m.read", ""), "$unheard_of").await;
        assert!(unread(carol).await.all().is_none(), "who reads what is not here has read what is");
    });
}

/// How many rows there are, wherever a message could leave one.
struct Rows;

impl Query for Rows {
    const NAME: &'static str = "test_rows";
    type Out = i64;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<i64> {
        let stmt = crate::tx::Stmt::new(
            "test_rows",
            "SELECT (SELECT COUNT(*) FROM events) + (SELECT COUNT(*) FROM push_totals)
                + (SELECT COUNT(*) FROM push_threads) + (SELECT COUNT(*) FROM push_redacted)
                + (SELECT COUNT(*) FROM receipts) + (SELECT COUNT(*) FROM memberships)
                + (SELECT COUNT(*) FROM membership_changes) + (SELECT COUNT(*) FROM transactions)
                + (SELECT COUNT(*) FROM device_lists) + (SELECT COUNT(*) FROM outbox)",
        );
        tx.query_one(stmt, &[]).await?.get(0)
    }
}

#[test]
fn a_message_is_as_many_rows_for_many_members_as_for_few() {
    each_backend(|store| async move {
        let alice = USERS[0];
        let mut added = Vec::new();
        for (name, members) in [("a", 2), ("b", 50)] {
            let mut room = store.makes_room(name).await;
            let joins = (0..members).map(|n| membership(alice, &format!("@member{n}:x"), "join"));
            store.says(&mut room, &joins.collect::<Vec<_>>()).await;
            let before = store.read(Rows).await.unwrap();
            store.counts(&mut room, message(alice, "to all"), notice(Place::Main, counts(1, 0), &[])).await;
            added.push(store.read(Rows).await.unwrap() - before);
        }
        assert!(added[0] > 0 && added[0] == added[1], "{added:?}");
    });
}

#[test]
fn the_same_receipt_again_is_nothing_new() {
    each_backend(|store| async move {
        let [alice, bob, ..] = USERS;
        let mut room = store.makes_room("a").await;
        let mut other = store.makes_room("b").await;
        store.says(&mut room, &[membership(bob, bob, "join")]).await;
        let plain = || notice(Place::Main, counts(1, 0), &[]);
        let first = store.counts(&mut room, message(alice, "first"), plain()).await;
        let elsewhere = store.counts(&mut other, message(alice, "elsewhere"), plain()).await;
        let last = store.counts(&mut room, message(alice, "last"), plain()).await;
        let sn = room.sn;
        let unread = async || store.unread_of(bob).await.remove(&sn).unwrap().all().notify;
        let head = async || store.head().await.unwrap();
        for kind in ["m.read", "m.read.private"] {
            store.reads(&room, bob, (kind, ""), &first).await;
            let before = head().await;
            store.reads(&room, bob, (kind, ""), &first).await;
            assert_eq!(head().await, before, "{kind} again");
            store.reads(&room, bob, (kind, ""), &elsewhere).await;
            assert_eq!(head().await, before, "{kind} of an event of another room");
            store.reads(&room, bob, (kind, "main"), &first).await;
            assert!(head().await > before, "{kind} in another thread");
        }
        assert_eq!(unread().await, 1);
        // What was not here when it was read, and then comes.
        let made = message(alice, "heard of before it came");
        let (mut commit, after) = room.commit(store.numbers(1).await, &[made]);
        commit.events[0].notice = plain();
        let early = commit.events[0].pdu.event_id.to_string();
        store.reads(&room, bob, ("m.read", ""), &early).await;
        store.persist(commit).await.unwrap();
        room = after;
        assert_eq!(unread().await, 2);
        store.reads(&room, bob, ("m.read", ""), &early).await;
        assert_eq!(unread().await, 0);
        store.reads(&room, bob, ("m.read", ""), &last).await;
        assert_eq!(unread().await, 0, "it never goes back");
    });
}

#[test]
fn a_thread_grows_from_an_event_of_its_room() {
    each_backend(|store| async move {
        let [alice, bob, ..] = USERS;
        let mut room = store.makes_room("a").await;
        let mut other = store.makes_room("b").await;
        store.says(&mut room, &[membership(bob, bob, "join")]).await;
        let within = |root: &str| notice(Place::Thread(root.try_into().unwrap()), counts(1, 0), &[]);
        let elsewhere = store.counts(&mut other, message(alice, "elsewhere"), Notice::default()).await;
        let root = store.counts(&mut room, message(alice, "root"), Notice::default()).await;
        let answer = store.counts(&mut room, message(alice, "answer"), within(&root)).await;
        for (n, place) in ["$nothing", "$made_up", &elsewhere, &answer].into_iter().enumerate() {
            let text = ["one", "two", "three", "four"][n];
            store.counts(&mut room, message(alice, text), within(place)).await;
        }
        let seen = store.unread_of(bob).await.remove(&room.sn).unwrap();
        assert_eq!(seen.threads().collect::<Vec<_>>(), [(root.as_str(), counts(2, 0))]);
        assert_eq!(seen.main(), counts(3, 0), "where there is no root, there is no thread");
    });
}

#[derive(Clone, Debug)]
enum Action {
    Say {
        room: usize,
        user: usize,
        place: usize,
        by_default: (i64, i64),
        /// For each class but the first, how much more or less.
        beyond: [(i64, i64); 2],
        own: Vec<(usize, i64, i64)>,
    },
    Class {
        user: usize,
        elsewhere: usize,
        rooms: [Option<usize>; 2],
    },
    Read {
        room: usize,
        user: usize,
        private: bool,
        thread: usize,
        event: usize,
    },
    Redact {
        room: usize,
        event: usize,
    },
    Member {
        room: usize,
        user: usize,
        join: bool,
    },
    Ignore {
        user: usize,
        whom: Vec<usize>,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let of_room = 0..2_usize;
    let user = 0..USERS.len();
    let own = prop::collection::vec((user.clone(), 0..2_i64, 0..2_i64), 0..2);
    let class = 0..CLASSES.len();
    let beyond = [(-1..2_i64, -1..2_i64), (-1..2_i64, -1..2_i64)];
    prop_oneof![
        6 => (of_room.clone(), user.clone(), 0..THREADS + 9, (0..2_i64, 0..2_i64), beyond, own).prop_map(
            |(room, user, place, by_default, beyond, own)| Action::Say { room, user, place, by_default, beyond, own }),
        1 => (user.clone(), class.clone(), [prop::option::of(class.clone()), prop::option::of(class)]).prop_map(
            |(user, elsewhere, rooms)| Action::Class { user, elsewhere, rooms }),
        3 => (of_room.clone(), user.clone(), any::<bool>(), 0..THREADS + 1, any::<usize>()).prop_map(
            |(room, user, private, thread, event)| Action::Read { room, user, private, thread, event }),
        1 => (of_room.clone(), any::<usize>()).prop_map(|(room, event)| Action::Redact { room, event }),
        1 => (of_room, user.clone(), any::<bool>()).prop_map(|(room, user, join)| Action::Member { room, user, join }),
        1 => (user.clone(), prop::collection::vec(user, 0..3)).prop_map(|(user, whom)| Action::Ignore { user, whom }),
    ]
}

/// An event as the judge remembers it.
struct Said {
    id: String,
    sender: usize,
    thread: String,
    counts: Notice,
    redacted: bool,
    /// Those who were in the room.
    here: Vec<usize>,
    /// Of which class everybody was.
    classes: [&'static str; 4],
}

/// A room as the judge counts it, event by event.
struct Judge {
    room: Room,
    said: Vec<Said>,
    /// Of each member, how many events there were when they joined.
    joined: BTreeMap<usize, usize>,
    /// Of each user, type and thread, how many events were read.
    read: BTreeMap<(usize, bool, String), usize>,
}

impl Judge {
    fn unread(&self, user: usize, ignored: &[usize]) -> Unread {
        let mut unread = Unread::default();
        let read = |thread: &str| {
            let read = [false, true].map(|private| self.read.get(&(user, private, thread.to_owned())));
            read.into_iter().flatten().copied().max().unwrap_or(0)
        };
        for (i, said) in self.said.iter().enumerate() {
            let base = self.joined[&user].max(read("")).max(read(&said.thread));
            if i < base || said.redacted || said.sender == user || ignored.contains(&said.sender) {
                continue;
            }
            let id = USERS[user];
            let own = said.counts.own.iter().filter(|(users, _)| users[0] == id && said.here.contains(&user));
            let classes = said.counts.classes.iter().filter(|(c, _)| c.is_empty() || c == said.classes[user]);
            let all = classes.map(|(_, c)| *c).chain(own.map(|(_, c)| *c));
            unread.add(&said.thread, all.fold(Counts::NONE, |a, b| a + b));
        }
        unread
    }
}

struct World<'a> {
    store: &'a Store,
    rooms: Vec<Judge>,
    ignored: BTreeMap<usize, Vec<usize>>,
    /// By user and room.
    classes: [[&'static str; 2]; 4],
}

impl World<'_> {
    async fn act(&mut self, action: &Action) {
        let store = self.store;
        match action {
            Action::Class { user, elsewhere, rooms } => {
                let ids = self.rooms.iter().map(|judge| judge.room.id.clone()).collect::<Vec<_>>();
                let own = |n: usize| rooms[n].map(|class| (ids[n].as_str(), CLASSES[class]));
                let named: Vec<_> = (0..2).filter_map(own).collect();
                store.classes(USERS[*user], CLASSES[*elsewhere], &named).await;
                self.classes[*user] = rooms.map(|class| CLASSES[class.unwrap_or(*elsewhere)]);
            }
            Action::Say { room, user, place, by_default, beyond, own } => {
                let judge = &mut self.rooms[*room];
                if !judge.joined.contains_key(user) {
                    return;
                }
                let named = |i: usize| judge.said.get(i).map(|said| said.id.clone());
                let (place, thread) = match place {
                    0..THREADS => match named(*place) {
                        // What is in a thread is the root of no other.
                        Some(root) => {
                            let outer = judge.said[*place].thread.clone();
                            let thread = if outer == "main" { root.clone() } else { outer };
                            (Place::Thread(root.as_str().try_into().unwrap()), thread)
                        }
                        None => (Place::Main, "main".to_owned()),
                    },
                    i => match judge.said.get(*i) {
                        Some(other) => (Place::With(other.id.as_str().try_into().unwrap()), other.thread.clone()),
                        None => (Place::Main, "main".to_owned()),
                    },
                };
                let own: BTreeMap<&str, Counts> = own.iter().map(|(u, n, h)| (USERS[*u], counts(*n, *h))).collect();
                let own: Vec<_> = own.into_iter().filter(|(_, c)| !c.is_none()).collect();
                let mut notice = notice(place, counts(by_default.0, by_default.1), &own);
                let beyond =
                    CLASSES[1..].iter().zip(beyond).map(|(class, (n, h))| ((*class).to_owned(), counts(*n, *h)));
                notice.classes.extend(beyond.filter(|(_, c)| !c.is_none()));
                let counts = notice;
                let id = store.counts(&mut judge.room, message(USERS[*user], "hi"), counts.clone()).await;
                let here = judge.joined.keys().copied().collect();
                let classes = self.classes.map(|of| of[*room]);
                judge.said.push(Said { id, sender: *user, thread, counts, redacted: false, here, classes });
            }
            Action::Read { room, user, private, thread, event } => {
                let judge = &mut self.rooms[*room];
                let Some(at) = event.checked_rem(judge.said.len()) else { return };
                let thread = match thread {
                    0 => String::new(),
                    1 => "main".to_owned(),
                    i => judge.said.get(i - 2).map_or_else(String::new, |said| said.id.clone()),
                };
                let kind = if *private { "m.read.private" } else { "m.read" };
                store.reads(&judge.room, USERS[*user], (kind, &thread), &judge.said[at].id).await;
                let read = judge.read.entry((*user, *private, thread)).or_default();
                *read = (*read).max(at + 1);
            }
            Action::Redact { room, event } => {
                let judge = &mut self.rooms[*room];
                let Some(at) = event.checked_rem(judge.said.len()) else { return };
                store.redacts(&mut judge.room, USERS[0], &judge.said[at].id).await;
                judge.said[at].redacted = true;
            }
            Action::Member { room, user, join } => {
                let judge = &mut self.rooms[*room];
                let to = if *join { "join" } else { "leave" };
                store.says(&mut judge.room, &[membership(USERS[*user], USERS[*user], to)]).await;
                match join {
                    true => drop(judge.joined.entry(*user).or_insert(judge.said.len())),
                    false => drop(judge.joined.remove(user)),
                }
            }
            Action::Ignore { user, whom } => {
                let names: Vec<&str> = whom.iter().map(|user| USERS[*user]).collect();
                store.ignores(USERS[*user], &names).await;
                self.ignored.insert(*user, whom.clone());
            }
        }
    }

    async fn agrees(&self) -> Result<(), TestCaseError> {
        for (user, name) in USERS.iter().enumerate() {
            let told = self.store.unread_of(name).await;
            for (at, judge) in self.rooms.iter().enumerate().filter(|(_, judge)| judge.joined.contains_key(&user)) {
                let ignored = self.ignored.get(&user).cloned().unwrap_or_default();
                let counted = judge.unread(user, &ignored);
                let shown = |unread: &Unread| {
                    let threads = unread.threads().filter(|(_, c)| !c.is_none());
                    (unread.main(), threads.map(|(t, c)| (t.to_owned(), c)).collect::<Vec<_>>())
                };
                prop_assert_eq!(told[&judge.room.sn].class(), self.classes[user][at]);
                prop_assert_eq!(shown(&told[&judge.room.sn]), shown(&counted), "{} in {}", name, judge.room.id);
            }
        }
        Ok(())
    }
}

#[test]
fn differences_are_what_counting_gives() {
    each_backend(|store| async move {
        let runtime = tokio::runtime::Handle::current();
        let mut runner = TestRunner::new(Config { cases: 30, failure_persistence: None, ..Config::default() });
        let count = std::cell::Cell::new(0);
        let case = |actions: Vec<Action>| {
            runtime.block_on(async {
                count.set(count.get() + 1);
                let classes = [[""; 2]; 4];
                let mut world = World { store: &store, rooms: vec![], ignored: BTreeMap::new(), classes };
                for user in USERS {
                    store.ignores(user, &[]).await;
                    store.classes(user, "", &[]).await;
                }
                for name in ["a", "b"] {
                    let mut room = Room::new(store.numbers(1).await, &format!("{name}{}", count.get()));
                    store.says(&mut room, &beginning(USERS[0])).await;
                    let joined = BTreeMap::from([(0, 0)]);
                    world.rooms.push(Judge { room, said: vec![], joined, read: BTreeMap::new() });
                }
                for action in &actions {
                    world.act(action).await;
                }
                world.agrees().await
            })
        };
        let verdict = tokio::task::block_in_place(|| runner.run(&prop::collection::vec(action(), 1..60), case));
        verdict.unwrap_or_else(|failure| panic!("{failure}"));
    });
}
