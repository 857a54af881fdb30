//! Rooms whose history forks: events that were made elsewhere arrive by the door that other servers will use, and what the
//! people here are shown is looked at after each.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

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
    sync::SyncWish,
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

/// A server without sockets.
struct House {
    services: Services,
    /// The same database, to look past the services.
    storage: Arc<dyn Storage>,
    /// Signs what "others" send.
    signer: Signer,
    sent: AtomicU32,
}

/// A room of the house with Alice, who made it, and Bob, who has half of her power.
struct Room<'a> {
    house: &'a House,
    id: OwnedRoomId,
    version: &'static RoomVersion,
    watchers: Mutex<BTreeMap<&'static str, Watcher>>,
    /// All events that were refused.
    refused: Mutex<BTreeSet<OwnedEventId>>,
}

/// What somebody's client knows, having laid one sync over the other.
#[derive(Default)]
struct Watcher {
    since: Option<String>,
    state: State,
    timeline: Vec<OwnedEventId>,
    /// Keys whose last event in a timeline lost against another one, or is state no more: this a sync can't tell.
    misled: BTreeSet<Key>,
}

/// One server's view of the room: its state, and what its next event builds on.
#[derive(Clone)]
struct Fork {
    state: State,
    tips: Vec<OwnedEventId>,
    depth: i64,
}

impl Fork {
    /// What a server builds on that knows all of these.
    fn meeting(forks: &[&Fork]) -> Self {
        let mut met = forks[0].clone();
        met.tips = forks.iter().flat_map(|f| f.tips.clone()).collect();
        met.depth = forks.iter().map(|f| f.depth).max().unwrap();
        met
    }
}

impl House {
    async fn on(given: &Given) -> Self {
        let config = given.config();
        let services = app::build(Arc::new(config.clone()), &Deps::default()).await.unwrap().services;
        let storage = app::open(&config, Arc::new(LocalBus::default())).await.unwrap().storage;
        let signer = Signer::new("test.example".try_into().unwrap(), "elsewhere", &[7; 32]).unwrap();
        Self { services, storage, signer, sent: AtomicU32::new(0) }
    }

    async fn room(&self, version: &RoomVersionId) -> Room<'_> {
        let privileged = RoomVersion::get(version).unwrap().rules.authorization.explicitly_privilege_room_creators;
        let mut users = Map::new();
        users.insert(user("bob").to_string(), 50.into());
        if !privileged {
            users.insert(user("alice").to_string(), 100.into());
        }
        let mut power_levels = Map::new();
        power_levels.insert("users".into(), users.into());
        power_levels.insert("events".into(), levels_of_events());
        let wish = CreateRoom {
            version: Some(version.clone()),
            preset: Some(Preset::Public),
            power_levels,
            ..CreateRoom::default()
        };
        let id = self.services.rooms.create(&user("alice"), wish).await.unwrap();
        let version = RoomVersion::get(version).unwrap();
        let room = Room { house: self, id, version, watchers: Mutex::default(), refused: Mutex::default() };
        room.joins("bob").await;
        room.all_watch(&["alice", "bob"]).await;
        room
    }

    async fn stop(self) {
        self.services.shutdown.say();
        self.storage.close().await.unwrap();
    }
}

impl Room<'_> {
    async fn joins(&self, name: &str) {
        self.house.services.rooms.join(&self.id, &user(name), Join::default()).await.unwrap();
    }

    async fn tips(&self) -> BTreeSet<OwnedEventId> {
        let head = self.house.services.rooms.load_head(&self.id).await.unwrap();
        head.tips.into_iter().map(|t| t.id).collect()
    }

    /// The state as `GET state` tells Alice.
    async fn state(&self) -> State {
        let (alice, services) = (user("alice"), &self.house.services);
        let reader = Reader { user: &alice, device: "D" };
        state_of(&services.timelines.state::<Value>(reader, &self.id).await.unwrap())
    }

    /// The room as it is now, to be built on by others.
    async fn fork(&self) -> Fork {
        let head = self.house.services.rooms.load_head(&self.id).await.unwrap();
        let depth = head.tips.iter().map(|t| t.depth).max().unwrap() + 1;
        Fork { state: self.state().await, tips: head.tips.into_iter().map(|t| t.id).collect(), depth }
    }

    /// An event of another server, which has not come here yet. Each is a second later than the one before it.
    fn made(&self, fork: &mut Fork, sender: &str, kind: &str, state_key: Option<&str>, content: &Value) -> Arc<Pdu> {
        let ts = 1_600_000_000_000 + 1_000 * u64::from(self.house.sent.fetch_add(1, Ordering::Relaxed));
        self.made_at(fork, ts, sender, kind, state_key, content)
    }

    fn made_at(
        &self,
        fork: &mut Fork,
        ts: u64,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Arc<Pdu> {
        let (sender, event_type) = (user(sender), TimelineEventType::from(kind));
        let content = to_raw_value(content).unwrap();
        let keys = auth::auth_keys(&event_type, &sender, state_key, &content, self.version).unwrap();
        let auth_events = keys.iter().filter_map(|(t, k)| fork.state.get(&(t.to_string(), k.clone())).cloned());
        let draft = Draft {
            room_id: Some(self.id.clone()),
            sender,
            event_type,
            state_key: state_key.map(str::to_owned),
            content,
            redacts: None,
            prev_events: fork.tips.clone(),
            auth_events: auth_events.collect(),
            depth: fork.depth,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(ts).unwrap()),
        };
        let pdu = Arc::new(build(draft, &self.house.signer, self.version).unwrap());
        if let Some(state_key) = state_key {
            fork.state.insert(key(kind, state_key), pdu.event_id.clone());
        }
        fork.tips = vec![pdu.event_id.clone()];
        fork.depth += 1;
        pdu
    }

    fn topic(&self, fork: &mut Fork, sender: &str, topic: &str) -> Arc<Pdu> {
        self.made(fork, sender, "m.room.topic", Some(""), &json!({ "topic": topic }))
    }

    fn message(&self, fork: &mut Fork, sender: &str, body: &str) -> Arc<Pdu> {
        self.made(fork, sender, "m.room.message", None, &json!({ "msgtype": "m.text", "body": body }))
    }

    fn membership(&self, fork: &mut Fork, sender: &str, target: &str, membership: &str) -> Arc<Pdu> {
        let target = user(target);
        self.made(fork, sender, "m.room.member", Some(target.as_str()), &json!({ "membership": membership }))
    }

    /// Power levels for these, with Alice above them.
    fn levels(&self, fork: &mut Fork, sender: &str, users: &[(&str, i64)]) -> Arc<Pdu> {
        let mut named = Map::new();
        if !self.version.rules.authorization.explicitly_privilege_room_creators {
            named.insert(user("alice").to_string(), 100.into());
        }
        named.extend(users.iter().map(|(name, level)| (user(name).to_string(), Value::from(*level))));
        let content = json!({ "users": named, "events": levels_of_events() });
        self.made(fork, sender, "m.room.power_levels", Some(""), &content)
    }

    /// The event arrives and becomes `expected`.
    async fn receives(&self, pdu: &Arc<Pdu>, expected: Status) {
        assert_eq!(self.comes(pdu).await, expected, "{}", pdu.json);
    }

    /// The event arrives and becomes whatever it becomes; everybody is shown what they should be.
    async fn comes(&self, pdu: &Arc<Pdu>) -> Status {
        let before = self.tips().await;
        let status = self.house.services.rooms.receive(&self.id, Arc::clone(pdu)).await.unwrap();
        if status != Accepted {
            self.refused.lock().unwrap().insert(pdu.event_id.clone());
            assert_eq!(self.tips().await, before, "what is refused is not built upon");
        }
        self.all_agree(pdu).await;
        status
    }

    /// Alice sends by this server: her message builds on all ends there are.
    async fn goes_on(&self) {
        let ends = self.tips().await;
        let message = Message {
            room_id: self.id.clone(),
            sender: user("alice"),
            event_type: TimelineEventType::RoomMessage,
            content: to_raw_value(&json!({ "msgtype": "m.text", "body": "going on" })).unwrap(),
        };
        let txn_id = format!("t{}", self.house.sent.fetch_add(1, Ordering::Relaxed));
        let txn = Txn { device_id: "D".to_owned(), txn_id, scope: "send".to_owned() };
        let id = self.house.services.rooms.send(message, txn).await.unwrap();
        assert_eq!(self.tips().await, BTreeSet::from([id.clone()]), "one end again");
        assert_eq!(self.prevs_of(&id).await, ends, "which builds on all that there were");
        self.watch("alice").await;
        assert_eq!(self.timeline("alice").last(), Some(&id));
    }

    /// The `prev_events` of an event, as other servers would get them.
    async fn prevs_of(&self, id: &EventId) -> BTreeSet<OwnedEventId> {
        let stored = self.house.storage.events_by_id(vec![id.to_string()]).await.unwrap();
        let json: Value = serde_json::from_str(&stored[0].json).unwrap();
        let prevs = json["prev_events"].as_array().unwrap();
        prevs.iter().map(|id| id.as_str().unwrap().try_into().unwrap()).collect()
    }

    async fn all_watch(&self, names: &[&'static str]) {
        for name in names {
            self.watch(name).await;
        }
    }

    async fn sync(&self, name: &str, since: Option<&str>) -> ruma::api::client::sync::sync_events::v3::Response {
        self.sync_at_most(MOST, name, since).await
    }

    async fn sync_at_most(
        &self,
        limit: u64,
        name: &str,
        since: Option<&str>,
    ) -> ruma::api::client::sync::sync_events::v3::Response {
        let filter = json!({ "room": { "include_leave": true, "timeline": { "limit": limit } } });
        let wish = SyncWish {
            since: since.map(|t| t.parse().unwrap()),
            timeout: None,
            full_state: false,
            state_after: false,
            filter: serde_json::from_value(filter).unwrap(),
            session_as_of: 0,
        };
        let user = user(name);
        self.house.services.syncs.sync(Reader { user: &user, device: "D" }, wish).await.unwrap()
    }

    /// Syncs, and lays what comes over what is known. What came.
    async fn watch(&self, name: &'static str) -> (State, Vec<OwnedEventId>) {
        let since = self.watchers.lock().unwrap().entry(name).or_default().since.clone();
        let page = self.sync(name, since.as_deref()).await;
        let current = self.state().await;
        let mut watchers = self.watchers.lock().unwrap();
        let watcher = watchers.entry(name).or_default();
        watcher.since = Some(page.next_batch.clone());
        watcher.lay_over(&self.part(&page), &current)
    }

    /// The events of this room in a sync: the state, and the timeline.
    fn part(&self, page: &ruma::api::client::sync::sync_events::v3::Response) -> Part {
        use ruma::api::client::sync::sync_events::v3::State as Section;
        let (state, timeline) = match (page.rooms.join.get(&self.id), page.rooms.leave.get(&self.id)) {
            (Some(room), None) => (&room.state, &room.timeline),
            (None, Some(room)) => (&room.state, &room.timeline),
            (None, None) => return Part::default(),
            (Some(_), Some(_)) => panic!("both joined and left"),
        };
        let Section::Before(state) = state else { panic!("state after the timeline was not asked for") };
        Part {
            state: state_of(&state.events),
            timeline: timeline.events.iter().map(|e| (id_of(e), key_of(e))).collect(),
        }
    }

    fn timeline(&self, name: &str) -> Vec<OwnedEventId> {
        self.watchers.lock().unwrap()[name].timeline.clone()
    }

    /// Everybody who watches is shown the same state by whatever way they ask, and nobody what was refused.
    async fn all_agree(&self, about: &Pdu) {
        let names: Vec<&'static str> = self.watchers.lock().unwrap().keys().copied().collect();
        let current = self.state().await;
        for name in names {
            self.watch(name).await;
            let fresh = {
                let page = self.sync(name, None).await;
                let mut fresh = Watcher::default();
                fresh.lay_over(&self.part(&page), &current);
                fresh
            };
            let is_in = self.is_in(name, &current).await;
            let watchers = self.watchers.lock().unwrap();
            let watcher = &watchers[name];
            for (how, watcher) in [("syncs on", watcher), ("comes anew", &fresh)] {
                for refused in self.refused.lock().unwrap().iter() {
                    assert!(!watcher.timeline.contains(refused), "{name} {how} and is shown {refused}");
                    assert!(!watcher.state.values().any(|id| id == refused), "{name} {how}: {refused} is state");
                }
                if is_in {
                    let known = |state: &State| {
                        let told = |key: &Key| !watcher.misled.contains(key) && current.contains_key(key);
                        let known = state.iter().filter(|(key, _)| told(key));
                        known.map(|(key, id)| (key.clone(), id.clone())).collect::<State>()
                    };
                    assert_eq!(known(&watcher.state), known(&current), "{name} {how} after {}", about.json);
                }
            }
        }
        self.nobody_pages_to_the_refused().await;
    }

    async fn is_in(&self, name: &str, current: &State) -> bool {
        let (alice, services) = (user("alice"), &self.house.services);
        let reader = Reader { user: &alice, device: "D" };
        let Some(id) = current.get(&member(name)) else { return false };
        let event = services.timelines.event::<Value>(reader, &self.id, id).await.unwrap();
        event.get_field::<Value>("content").unwrap().unwrap()["membership"] == "join"
    }

    async fn nobody_pages_to_the_refused(&self) {
        let (alice, services) = (user("alice"), &self.house.services);
        let reader = Reader { user: &alice, device: "D" };
        let mut pages = Vec::new();
        for direction in [Direction::Back, Direction::Forward] {
            let wish =
                PageWish { from: None, to: None, direction, limit: 1_000, filter: serde_json::from_str("{}").unwrap() };
            let page = services.timelines.messages::<Value, Value>(reader, &self.id, wish).await.unwrap();
            assert_eq!(page.end, None, "all of it");
            pages.push(page.chunk.iter().map(id_of).collect::<Vec<_>>());
        }
        let (mut back, forward) = (pages.remove(0), pages.remove(0));
        back.reverse();
        assert_eq!(back, forward, "the same both ways");
        assert_eq!(forward, self.timeline("alice"), "what was synced is what can be paged to");
        let refused = self.refused.lock().unwrap().clone();
        for refused in refused {
            assert!(!forward.contains(&refused), "{refused} can be paged to");
            assert!(services.timelines.event::<Value>(reader, &self.id, &refused).await.is_err(), "{refused} is shown");
        }
    }
}

#[derive(Default)]
struct Part {
    state: State,
    timeline: Vec<(OwnedEventId, Option<Key>)>,
}

impl Watcher {
    fn lay_over(&mut self, part: &Part, current: &State) -> (State, Vec<OwnedEventId>) {
        let mut timeline = Vec::new();
        let create = Some(key("m.room.create", ""));
        if part
            .state
            .keys()
            .cloned()
            .map(Some)
            .chain(part.timeline.iter().map(|(_, key)| key.clone()))
            .any(|k| k == create)
        {
            // Shown as to a newcomer: what was known before is history.
            (self.state, self.timeline, self.misled) = Default::default();
        }
        for (key, id) in &part.state {
            assert!(current.contains_key(key), "{key:?} is no state any more");
            self.state.insert(key.clone(), id.clone());
            self.misled.remove(key);
        }
        for (id, key) in &part.timeline {
            assert!(!self.timeline.contains(id), "{id} came twice");
            self.timeline.push(id.clone());
            timeline.push(id.clone());
            if let Some(key) = key {
                self.state.insert(key.clone(), id.clone());
                if current.get(key) == Some(id) {
                    self.misled.remove(key);
                } else {
                    self.misled.insert(key.clone());
                }
            }
        }
        (part.state.clone(), timeline)
    }
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
        let ban = room.membership(&mut a, "alice", "bob", "ban");
        assert_eq!(room.house.services.rooms.receive(&room.id, Arc::clone(&ban)).await.unwrap(), Accepted);
        assert!(!room.state().await.contains_key(&key("org.example.odd", "")), "it is not there");
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
