//! Keys that are given out once, and whose devices changed.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::{
    clock::{Rng as _, SeededRng},
    e2ee::OneTimeKey,
};

use super::{
    rooms::{Room, beginning, membership},
    *,
};
use crate::{
    accounts::{Accounts as _, NewUser},
    follow::Follow as _,
    keys::{Claim, Claimed, DeviceLists, KeyCounts, KeyUpload, Keys as _, Uploaded},
    rooms::Rooms as _,
    sessions::{Ending, Sessions as _, tests::session},
};

const USERS: [&str; 4] = ["@alice:x", "@bob:x", "@carol:x", "@dave:x"];

fn key(algorithm: &str, id: &str) -> OneTimeKey {
    OneTimeKey { algorithm: algorithm.to_owned(), key_id: id.to_owned(), json: format!("{{\"key\":\"{id}\"}}") }
}

fn claim(user: &str, device: &str) -> Claim {
    Claim { user_id: user.to_owned(), device_id: device.to_owned(), algorithm: "a".to_owned() }
}

impl Store {
    async fn has(&self, user: &str, token: u8) {
        let new = NewUser { user_id: user.to_owned(), password_hash: None, admin: false, created_ms: 1 };
        self.register(new, Some(session("D", token)), None).await.unwrap();
    }

    async fn uploads(&self, user: &str, one_time: &[&str], fallback: Option<&str>) -> Uploaded {
        let upload = KeyUpload {
            user_id: user.to_owned(),
            device_id: "D".to_owned(),
            device_keys: None,
            one_time: one_time.iter().map(|id| key("a", id)).collect(),
            fallback: fallback.map(|id| key("a", id)).into_iter().collect(),
            most: (20, 2),
        };
        self.upload_keys(upload).await.unwrap()
    }

    async fn publishes(&self, user: &str, json: &str) {
        let upload = KeyUpload {
            user_id: user.to_owned(),
            device_id: "D".to_owned(),
            device_keys: Some(json.to_owned()),
            ..KeyUpload::default()
        };
        assert_eq!(self.upload_keys(upload).await.unwrap(), Uploaded::Done(KeyCounts::default()));
    }

    async fn claims(&self, user: &str) -> Option<String> {
        let claimed = self.claim_keys(vec![claim(user, "D")]).await.unwrap();
        claimed.into_iter().map(|claimed| claimed.key_id).next()
    }
}

#[test]
fn keys_are_given_out_by_their_age() {
    each_backend(|store| async move {
        store.has("@a:x", 1).await;
        store.uploads("@a:x", &["9", "8"], Some("last")).await;
        store.uploads("@a:x", &["1"], None).await;
        assert_eq!(store.uploads("@a:x", &["1", "8", "9"], Some("last")).await, store.uploads("@a:x", &[], None).await);
        for expected in ["8", "9", "1", "last", "last"] {
            assert_eq!(store.claims("@a:x").await.as_deref(), Some(expected));
        }
        assert_eq!(store.uploads("@a:x", &[], Some("last")).await, Uploaded::Done(KeyCounts::default()), "it is used");
        assert_eq!(store.claim_keys(vec![claim("@a:x", "E"), claim("@b:x", "D")]).await.unwrap(), []);
        assert_eq!(store.uploads("@b:x", &["1"], None).await, Uploaded::NoDevice);
    });
}

#[test]
fn an_upload_is_taken_whole_or_not_at_all() {
    each_backend(|store| async move {
        store.has("@a:x", 1).await;
        let before = store.uploads("@a:x", &["1"], None).await;
        let mut upload = KeyUpload {
            user_id: "@a:x".to_owned(),
            device_id: "D".to_owned(),
            device_keys: Some("{}".to_owned()),
            one_time: vec![key("a", "0"), OneTimeKey { json: "{}".to_owned(), ..key("a", "1") }],
            fallback: vec![key("a", "F")],
            most: (20, 2),
        };
        let head = store.head().await.unwrap();
        assert_eq!(store.upload_keys(upload.clone()).await.unwrap(), Uploaded::Differs("a:1".to_owned()));
        upload.one_time = (0..20).map(|n| key("b", &n.to_string())).collect();
        assert_eq!(store.upload_keys(upload.clone()).await.unwrap(), Uploaded::TooMany);
        upload.one_time.clear();
        upload.fallback = ["a", "b", "c"].map(|algorithm| key(algorithm, "F")).to_vec();
        assert_eq!(store.upload_keys(upload).await.unwrap(), Uploaded::TooMany);
        assert_eq!(store.uploads("@a:x", &[], None).await, before);
        assert_eq!(store.published_keys(vec!["@a:x".to_owned()], "@a:x").await.unwrap().devices, []);
        assert!(store.changes_after(head, 9).await.unwrap().wakes.is_empty());
    });
}

#[test]
fn each_key_goes_to_one_of_many_who_ask_at_once() {
    each_backend(|store| async move {
        store.has("@a:x", 1).await;
        let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        store.uploads("@a:x", &ids.iter().map(String::as_str).collect::<Vec<_>>(), None).await;
        let claims = join_all((0..30).map(|_| store.claims("@a:x"))).await;
        let given: BTreeSet<String> = claims.iter().flatten().cloned().collect();
        assert_eq!((claims.iter().flatten().count(), given.len()), (20, 20));
    });
}

/// Two processes on one database.
#[cfg(feature = "postgres")]
#[test]
fn each_key_goes_to_one_of_many_processes() {
    crate::testing::on_postgres(|store| async move {
        store.has("@a:x", 1).await;
        let other = store.beside().await;
        let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        store.uploads("@a:x", &ids.iter().map(String::as_str).collect::<Vec<_>>(), Some("last")).await;
        let both = (0..40).map(|n| if n % 2 == 0 { &store } else { &other }).map(|store| store.claims("@a:x"));
        let mut given: Vec<String> = join_all(both).await.into_iter().flatten().collect();
        given.retain(|id| id != "last");
        assert_eq!((given.len(), given.iter().collect::<BTreeSet<_>>().len()), (20, 20));
    });
}

/// However much is asked for, it is so many statements; on Postgres, where each is a round trip.
#[cfg(feature = "postgres")]
#[test]
fn many_are_asked_for_in_as_many_statements_as_one() {
    crate::testing::on_postgres(|store| async move {
        let users: Vec<String> = (0..50).map(|n| format!("@u{n}:x")).collect();
        for (user, n) in users.iter().zip(1..) {
            store.has(user, n).await;
            store.publishes(user, "{}").await;
            store.uploads(user, &["1", "2"], Some("last")).await;
        }
        let statements = |of: &str| store.work().get(of).map_or(0, |work| work.statements);
        let asked = async |users: &[String]| {
            let before = statements("published_keys");
            let published = store.published_keys(users.to_vec(), "@u0:x").await.unwrap();
            assert_eq!(published.devices.len(), users.len());
            statements("published_keys") - before
        };
        assert_eq!(asked(&users).await, asked(&users[..1]).await);
        let claimed = async |users: &[String]| {
            let before = statements("claim_keys");
            let claims = users.iter().map(|user| claim(user, "D")).collect();
            let claimed: Vec<Claimed> = store.claim_keys(claims).await.unwrap();
            assert_eq!(claimed.len(), users.len());
            statements("claim_keys") - before
        };
        assert_eq!(claimed(&users[..10]).await, claimed(&users[10..11]).await);
    });
}

#[test]
fn a_change_of_devices_wakes_rooms_and_never_their_members() {
    each_backend(|store| async move {
        let room = Room::new(store.numbers(4).await, "a");
        let (commit, room) = room.commit(room.sn, &beginning("@a:x"));
        store.persist(commit).await.unwrap();
        let (commit, _) = room.commit(store.numbers(1).await, &[membership("@b:x", "@b:x", "join")]);
        store.persist(commit).await.unwrap();
        store.has("@a:x", 1).await;
        store.sink.take();
        let head = store.head().await.unwrap();
        store.publishes("@a:x", "{}").await;
        let expected: BTreeSet<Wake> = [Wake::Room(room.sn), Wake::User("@a:x".into())].into();
        let woken = || store.sink.take().into_iter().flat_map(|c| c.wakes).collect::<BTreeSet<Wake>>();
        assert_eq!(woken(), expected);
        let followed = store.changes_after(head, 9).await.unwrap().wakes;
        assert_eq!(followed.into_iter().collect::<BTreeSet<_>>(), expected, "other processes hear of it as well");

        store.uploads("@a:x", &["1"], None).await;
        let me: BTreeSet<Wake> = [Wake::User("@a:x".into())].into();
        assert_eq!(woken(), me);
        let head = store.head().await.unwrap();
        store.claims("@a:x").await.unwrap();
        assert_eq!(woken(), me);
        assert_eq!(store.changes_after(head, 9).await.unwrap().wakes.into_iter().collect::<BTreeSet<_>>(), me);
        let head = store.head().await.unwrap();
        assert_eq!(store.claims("@a:x").await, None);
        assert_eq!((store.head().await.unwrap(), woken()), (head, BTreeSet::new()), "nothing is no news");

        let ending = Ending { at_ms: 1, job_id: "j".to_owned() };
        store.end_all_sessions("@a:x", ending).await.unwrap();
        assert!(woken().is_superset(&expected));
        assert_eq!(store.published_keys(vec!["@a:x".to_owned()], "@b:x").await.unwrap().devices, []);
    });
}

/// Who is with whom at each position, and when whose devices changed: as simply as can be.
#[derive(Default)]
struct History {
    /// By position, who is in which room.
    rooms: BTreeMap<i64, BTreeSet<(usize, usize)>>,
    devices: BTreeMap<i64, usize>,
}

impl History {
    fn share(&self, a: usize, b: usize, at: i64) -> bool {
        let Some((_, rooms)) = self.rooms.range(..=at).next_back() else { return false };
        rooms.iter().any(|(room, user)| *user == a && rooms.contains(&(*room, b)))
    }

    /// Whether what somebody is told is neither too little nor too much.
    fn judges(&self, me: usize, (since, now): (i64, i64), told: &DeviceLists) {
        for (user, name) in USERS.iter().enumerate() {
            let changed = told.changed.iter().any(|u| u == name);
            let left = told.left.iter().any(|u| u == name);
            let devices = self.devices.range(since + 1..).any(|(_, of)| *of == user);
            let what = format!("{name} for {} from {since} to {now}: {told:?}", USERS[me]);
            if user == me {
                assert_eq!((changed, left), (devices, false), "{what}");
                continue;
            }
            let positions =
                std::iter::once(since).chain(self.rooms.keys().copied().filter(|pos| (since + 1..=now).contains(pos)));
            let (mut apart, mut together) = (false, false);
            for pos in positions {
                let shares = self.share(me, user, pos);
                (apart, together) = (apart | !shares, together | shares);
            }
            if self.share(me, user, now) {
                assert!(!left && (changed || !devices && !apart), "{what}");
            } else {
                assert!(!changed && left >= self.share(me, user, since) && left <= together, "{what}");
            }
        }
    }
}

#[test]
fn who_met_and_who_parted_is_told_from_any_position() {
    each_backend(|store| async move {
        let mut history = History::default();
        let mut rooms = Vec::new();
        for (n, name) in ["a", "b"].into_iter().enumerate() {
            let room = Room::new(store.numbers(4).await, name);
            let (commit, room) = room.commit(room.sn, &beginning(USERS[n]));
            store.persist(commit).await.unwrap();
            rooms.push(room);
        }
        let mut there: BTreeSet<(usize, usize)> = [(0, 0), (1, 1)].into();
        for (user, n) in USERS.into_iter().zip(1..) {
            store.has(user, n).await;
        }
        history.rooms.insert(store.head().await.unwrap(), there.clone());
        let rng = SeededRng::new(7);
        let random = |below: usize| {
            let mut bytes = [0; 4];
            rng.fill(&mut bytes);
            u32::from_le_bytes(bytes) as usize % below
        };
        for turn in 0..60 {
            let user = random(USERS.len());
            if random(3) == 0 {
                store.publishes(USERS[user], &format!("{{\"n\":{turn}}}")).await;
                history.devices.insert(store.head().await.unwrap(), user);
            } else {
                let room = random(rooms.len());
                let is_in = there.contains(&(room, user));
                let becomes =
                    if is_in { ["leave", "join", "ban"][random(3)] } else { ["join", "join", "invite"][random(3)] };
                let made = membership(USERS[user], USERS[user], becomes);
                let (commit, after) = rooms[room].commit(store.numbers(1).await, &[made]);
                store.persist(commit).await.unwrap();
                rooms[room] = after;
                if becomes == "join" {
                    there.insert((room, user));
                } else {
                    there.remove(&(room, user));
                }
                history.rooms.insert(store.head().await.unwrap(), there.clone());
            }
            let now = store.head().await.unwrap();
            for (me, name) in USERS.iter().enumerate() {
                let since = now - random(12) as i64;
                let since = since.max(*history.rooms.keys().next().unwrap());
                history.judges(me, (since, now), &store.device_lists(name, since).await.unwrap());
            }
        }
    });
}
