//! Rooms whose history forks: events that were made elsewhere arrive by the door that other servers will use, and what the
//! people here are shown is looked at after each.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod house;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use hearth::{
    api::Services,
    app::{self, Deps},
    bus::LocalBus,
    service::{
        rooms::{CreateRoom, Join, Message, Preset, Txn},
        shape::Reader,
        timeline::PageWish,
    },
    sync::{SlidingWish, StateWish, SyncWish},
};
use hearth_core::{
    auth,
    clock::{Rng as _, SeededRng},
    event::{Draft, Pdu, build},
    keys::Signer,
    room_version::RoomVersion,
};
use hearth_storage::{
    Direction,
    Status::{self, Accepted, Rejected, SoftFailed},
    Storage,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, UInt,
    events::TimelineEventType, serde::Raw,
};
use serde_json::{Map, Value, json, value::to_raw_value};

use self::{
    house::{Fork, House, Room},
    watch::Watcher,
};
use crate::support::{Given, each_backend};

const VERSIONS: [RoomVersionId; 3] = [RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12];
const MOST: u64 = 100;

type Key = (String, String);
type State = BTreeMap<Key, OwnedEventId>;

fn user(name: &str) -> OwnedUserId {
    format!("@{name}:test.example").try_into().unwrap()
}

fn key(kind: &str, state_key: &str) -> Key {
    (kind.to_owned(), state_key.to_owned())
}

/// What Bob may change. The level at which the room is closed is named, so that it is no other.
fn levels_of_events() -> Value {
    json!({ "m.room.power_levels": 50, "m.room.tombstone": 50 })
}

fn member(name: &str) -> Key {
    key("m.room.member", user(name).as_str())
}

fn field(event: &Raw<impl Sized>, name: &str) -> Option<String> {
    event.get_field::<String>(name).unwrap()
}

fn id_of(event: &Raw<impl Sized>) -> OwnedEventId {
    field(event, "event_id").unwrap().try_into().unwrap()
}

fn key_of(event: &Raw<impl Sized>) -> Option<Key> {
    Some((field(event, "type")?, field(event, "state_key")?))
}

fn state_of<T>(events: &[Raw<T>]) -> State {
    events.iter().map(|event| (key_of(event).unwrap(), id_of(event))).collect()
}

/// The story in rooms of each version.
macro_rules! in_rooms {
    ($($(#[$meta:meta])* async fn $name:ident($room:ident: Room) $body:block)*) => {
        each_backend! { $(
            $(#[$meta])*
            async fn $name(given: Given) {
                async fn story($room: &Room<'_>) $body

                let house = House::on(given).await;
                for version in &VERSIONS {
                    story(&house.room(version).await).await;
                }
                house.stop().await;
            }
        )* }
    };
}

in_rooms! {
    async fn two_forks_meet(room: Room) {
        let (mut a, mut b) = (room.fork().await, room.fork().await);
        let hello = room.message(&mut a, "bob", "hello");
        let topic = room.topic(&mut b, "alice", "tea");
        room.receives(&hello, Accepted).await;
        room.receives(&topic, Accepted).await;
        assert_eq!(room.tips().await, BTreeSet::from([hello.event_id.clone(), topic.event_id.clone()]));
        assert_eq!(room.state().await[&key("m.room.topic", "")], topic.event_id);
        room.goes_on().await;
        // Something that builds on the past only is one more end, and hides nothing.
        let late = room.message(&mut a, "bob", "late");
        room.receives(&late, Accepted).await;
        assert_eq!(room.tips().await.len(), 2);
        assert_eq!(room.state().await[&key("m.room.topic", "")], topic.event_id);
        room.goes_on().await;
    }

    async fn three_forks_meet_in_an_event_from_elsewhere(room: Room) {
        let (mut a, mut b, mut c) = (room.fork().await, room.fork().await, room.fork().await);
        let topic = room.topic(&mut a, "bob", "tea");
        let name = room.made(&mut b, "alice", "m.room.name", Some(""), &json!({ "name": "Kitchen" }));
        let odd = room.made(&mut c, "bob", "org.example.odd", Some("x"), &json!({ "odd": true }));
        for pdu in [&odd, &topic, &name] {
            room.receives(pdu, Accepted).await;
        }
        assert_eq!(room.tips().await.len(), 3);
        let mut met = Fork::meeting(&[&a, &b, &c]);
        let message = room.message(&mut met, "bob", "here we all are");
        room.receives(&message, Accepted).await;
        assert_eq!(room.tips().await, BTreeSet::from([message.event_id.clone()]));
        let state = room.state().await;
        for (key, pdu) in
            [(key("m.room.topic", ""), &topic), (key("m.room.name", ""), &name), (key("org.example.odd", "x"), &odd)]
        {
            assert_eq!(state[&key], pdu.event_id);
        }
        room.goes_on().await;
    }

    async fn three_forks_meet_in_an_event_of_ours(room: Room) {
        let start = room.fork().await;
        for name in ["a", "b", "c"] {
            let pdu = room.made(&mut start.clone(), "bob", "org.example.odd", Some(name), &json!({}));
            room.receives(&pdu, Accepted).await;
        }
        assert_eq!(room.tips().await.len(), 3);
        room.goes_on().await;
        assert_eq!(room.state().await.keys().filter(|(kind, _)| kind == "org.example.odd").count(), 3);
    }

    async fn of_two_topics_the_younger_stays(room: Room) {
        for younger_first in [false, true] {
            let (mut a, mut b) = (room.fork().await, room.fork().await);
            let older = room.topic(&mut a, "alice", "older");
            let younger = room.topic(&mut b, "bob", "younger");
            let order = if younger_first { [&younger, &older] } else { [&older, &younger] };
            for pdu in order {
                room.receives(pdu, Accepted).await;
            }
            assert_eq!(room.state().await[&key("m.room.topic", "")], younger.event_id);
            room.goes_on().await;
            assert_eq!(room.state().await[&key("m.room.topic", "")], younger.event_id);
        }
    }

    async fn a_merge_makes_an_old_event_current(room: Room) {
        let (mut a, mut b) = (room.fork().await, room.fork().await);
        let hers = room.topic(&mut a, "alice", "hers");
        let his = room.topic(&mut b, "bob", "his");
        room.receives(&hers, Accepted).await;
        room.receives(&his, Accepted).await;
        let topic = key("m.room.topic", "");
        assert_eq!(room.state().await[&topic], his.event_id);
        room.watch("alice").await;

        // Alice, who doesn't know of his topic, bans Bob: where the forks meet he could not set it.
        let ban = room.membership(&mut a, "alice", "bob", "ban");
        let since = room.watchers.lock().unwrap()["alice"].since.clone();
        assert_eq!(room.house.services.rooms.receive(&room.id, Arc::clone(&ban)).await.unwrap(), Accepted);
        let part = room.part(&room.sync("alice", since.as_deref()).await);
        assert_eq!(part.timeline, [(ban.event_id.clone(), Some(member("bob")))]);
        assert_eq!(part.state, State::from([(topic.clone(), hers.event_id.clone())]), "old, and current again");
        room.all_agree(&ban).await;
        let state = room.state().await;
        assert_eq!((&state[&topic], &state[&member("bob")]), (&hers.event_id, &ban.event_id));
        room.goes_on().await;

        // A token from before all that is told the outcome, too.
        let part = room.part(&room.sync("bob", None).await);
        assert!(part.timeline.iter().any(|(id, _)| *id == ban.event_id), "who was banned sees it");
    }

    async fn a_merge_takes_state_away(room: Room) {
        // Bob sets a key that was not there before; the ban, which is older in the graph, takes it away again.
        let (mut a, mut b) = (room.fork().await, room.fork().await);
        let odd = room.made(&mut b, "bob", "org.example.odd", Some(""), &json!({}));
        room.receives(&odd, Accepted).await;
        assert!(room.state().await.contains_key(&key("org.example.odd", "")));
        let (accepted, unstable) = (room.slides(true, None).await, room.slides(false, None).await);
        let ban = room.membership(&mut a, "alice", "bob", "ban");
        assert_eq!(room.house.services.rooms.receive(&room.id, Arc::clone(&ban)).await.unwrap(), Accepted);
        assert!(!room.state().await.contains_key(&key("org.example.odd", "")), "it is not there");
        // Sliding sync, as it was accepted, has a word for that.
        let gone = json!({ "type": "org.example.odd", "state_key": "" });
        let told = room.slides(true, Some(accepted.0)).await.1;
        assert!(told.contains(&gone) && told.iter().all(|event| *event == gone || event.get("content").is_some()), "{told:?}");
        assert!(!room.slides(true, None).await.1.contains(&gone), "who begins never knew of it");
        let told = room.slides(false, Some(unstable.0)).await.1;
        assert!(!told.is_empty() && told.iter().all(|event| event.get("content").is_some()), "{told:?}");
        let part = room.part(&room.sync("alice", None).await);
        assert!(!part.state.contains_key(&key("org.example.odd", "")));
        room.watch("alice").await;
        room.goes_on().await;
    }

    async fn a_ban_stands_against_a_join_on_another_fork(room: Room) {
        for (name, ban_first) in [("carol", false), ("dora", true)] {
            let (mut a, mut b) = (room.fork().await, room.fork().await);
            let ban = room.membership(&mut a, "alice", name, "ban");
            let join = room.membership(&mut b, name, name, "join");
            let words = room.message(&mut b, name, "I am in");
            if ban_first {
                room.receives(&ban, Accepted).await;
                room.receives(&join, SoftFailed).await;
            } else {
                room.receives(&join, Accepted).await;
                room.all_watch(&[if name == "carol" { "carol" } else { "dora" }]).await;
                room.receives(&ban, Accepted).await;
            }
            room.receives(&words, SoftFailed).await;
            assert_eq!(room.state().await[&member(name)], ban.event_id);
            // Who knew nothing of the ban goes on there; that it builds on what was refused is no fault.
            let answer = room.message(&mut b, "bob", "welcome");
            room.receives(&answer, Accepted).await;
            assert_eq!(room.state().await[&member(name)], ban.event_id);
            room.goes_on().await;
            assert_eq!(room.state().await[&member(name)], ban.event_id);
        }
    }

    async fn a_ban_silences_on_every_fork(room: Room) {
        room.joins("carol").await;
        room.all_watch(&["alice", "carol"]).await;
        let (mut a, mut b) = (room.fork().await, room.fork().await);
        let before = room.message(&mut b, "carol", "before");
        room.receives(&before, Accepted).await;
        let ban = room.membership(&mut a, "bob", "carol", "ban");
        room.receives(&ban, Accepted).await;
        let late = room.message(&mut b, "carol", "after");
        room.receives(&late, SoftFailed).await;
        let against = room.message(&mut a, "carol", "against the state before it");
        room.receives(&against, Rejected).await;
        let back = room.membership(&mut a, "carol", "carol", "join");
        room.receives(&back, Rejected).await;
        let on_rejected = room.message(&mut a, "carol", "by an auth event that was rejected");
        room.receives(&on_rejected, Rejected).await;
        assert_eq!(room.state().await[&member("carol")], ban.event_id);
        assert!(room.timeline("carol").contains(&before.event_id));
        assert!(room.timeline("carol").contains(&ban.event_id), "who was banned is told");
        room.goes_on().await;
    }

    async fn of_two_changes_of_power_the_mightier_stays(room: Room) {
        for hers_first in [false, true] {
            let (mut a, mut b) = (room.fork().await, room.fork().await);
            let hers = room.levels(&mut a, "alice", &[("bob", 0)]);
            let his = room.levels(&mut b, "bob", &[("bob", 50), ("carol", 50)]);
            let topic = room.topic(&mut b, "bob", "mine");
            if hers_first {
                room.receives(&hers, Accepted).await;
                room.receives(&his, SoftFailed).await;
                room.receives(&topic, SoftFailed).await;
            } else {
                room.receives(&his, Accepted).await;
                room.receives(&topic, Accepted).await;
                room.receives(&hers, Accepted).await;
            }
            let state = room.state().await;
            assert_eq!(state[&key("m.room.power_levels", "")], hers.event_id);
            assert_ne!(state.get(&key("m.room.topic", "")), Some(&topic.event_id), "without power no topic");
            room.goes_on().await;
            // And back, for the other order.
            let mut again = room.fork().await;
            let back = room.levels(&mut again, "alice", &[("bob", 50)]);
            room.receives(&back, Accepted).await;
        }
    }

    async fn what_was_refused_once_stays_refused(room: Room) {
        let (mut a, mut b) = (room.fork().await, room.fork().await);
        let ban = room.membership(&mut a, "alice", "carol", "ban");
        room.receives(&ban, Accepted).await;
        let soft = room.membership(&mut b, "carol", "carol", "join");
        room.receives(&soft, SoftFailed).await;
        let bad = room.message(&mut a, "carol", "no");
        room.receives(&bad, Rejected).await;
        for (pdu, status) in [(&ban, Accepted), (&soft, SoftFailed), (&bad, Rejected)] {
            room.receives(pdu, status).await;
        }
        // What builds on a rejected event is judged without it.
        let mut on_bad = a.clone();
        let fine = room.message(&mut on_bad, "bob", "fine");
        room.receives(&fine, Accepted).await;
        assert_eq!(fine.prev_events, [bad.event_id.clone()]);
        room.goes_on().await;
    }

    async fn what_was_refused_is_no_news(room: Room) {
        let mut fork = room.fork().await;
        let since = room.sync("alice", None).await.next_batch;
        let refused = room.message(&mut fork, "carol", "not in the room");
        room.receives(&refused, Rejected).await;
        for limit in [0, 1] {
            let page = room.sync_at_most(limit, "alice", Some(&since)).await;
            assert!(page.rooms.join.is_empty(), "of at most {limit} events: {page:?}");
        }
    }

    async fn what_builds_on_nothing_known_is_not_taken(room: Room) {
        let mut fork = room.fork().await;
        let unknown = room.message(&mut fork, "bob", "never came");
        let child = room.message(&mut fork, "bob", "its child");
        assert!(room.house.services.rooms.receive(&room.id, Arc::clone(&child)).await.is_err());
        let other = room.house.room(&room.version.id).await;
        let elsewhere = other.fork().await;
        let mut mixed = room.fork().await;
        mixed.tips = elsewhere.tips;
        let foreign = room.message(&mut mixed, "bob", "of another room");
        assert!(room.house.services.rooms.receive(&room.id, Arc::clone(&foreign)).await.is_err());
        room.receives(&unknown, Accepted).await;
        room.receives(&child, Accepted).await;
        assert_eq!(room.tips().await, BTreeSet::from([child.event_id.clone()]));
    }

    async fn whatever_comes_in_whatever_order(room: Room) {
        // A chance that is the same in every run, for each version another.
        let chance = SeededRng::new(room.version.id.as_str().parse().unwrap());
        let pick = |of: usize| {
            let mut bytes = [0; 2];
            chance.fill(&mut bytes);
            usize::from(u16::from_le_bytes(bytes)) % of
        };
        room.joins("carol").await;
        room.all_watch(&["carol"]).await;
        let mut accepted = 0;
        for _ in 0..3 {
            let mut forks = vec![room.fork().await; 3];
            for n in 0..14 {
                let at = pick(forks.len());
                let mut fork = match pick(6) {
                    0 => Fork::meeting(&[&forks[at], &forks[(at + 1) % 3]]),
                    _ => forks[at].clone(),
                };
                let (who, whom) = (["alice", "bob", "carol"][pick(3)], ["bob", "carol"][pick(2)]);
                let pdu = match pick(7) {
                    0 | 1 => room.message(&mut fork, who, &n.to_string()),
                    2 => room.topic(&mut fork, who, &n.to_string()),
                    3 => room.membership(&mut fork, who, whom, ["ban", "leave"][pick(2)]),
                    4 => room.membership(&mut fork, whom, whom, "join"),
                    5 => room.levels(&mut fork, ["alice", "bob"][pick(2)], &[(whom, [0, 50, 75][pick(3)])]),
                    _ => room.made(&mut fork, who, "org.example.odd", Some(&n.to_string()), &json!({ "n": n })),
                };
                let status = room.comes(&pdu).await;
                accepted += usize::from(status == Accepted);
                if status != Rejected {
                    forks[at] = fork;
                }
            }
            room.goes_on().await;
        }
        assert!(accepted > 10, "it was not all refused: {accepted}");
    }
}
