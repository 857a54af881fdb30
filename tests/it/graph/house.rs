//! A server without sockets, and a room there whose history forks.

use super::*;

/// A server without sockets.
pub(super) struct House {
    pub(super) services: Services,
    /// The same database, to look past the services.
    pub(super) storage: Arc<dyn Storage>,
    /// Signs what "others" send.
    pub(super) signer: Signer,
    pub(super) sent: AtomicU32,
}

/// A room of the house with Alice, who made it, and Bob, who has half of her power.
pub(super) struct Room<'a> {
    pub(super) house: &'a House,
    pub(super) id: OwnedRoomId,
    pub(super) version: &'static RoomVersion,
    pub(super) watchers: Mutex<BTreeMap<&'static str, Watcher>>,
    /// All events that were refused.
    pub(super) refused: Mutex<BTreeSet<OwnedEventId>>,
}

/// One server's view of the room: its state, and what its next event builds on.
#[derive(Clone)]
pub(super) struct Fork {
    pub(super) state: State,
    pub(super) tips: Vec<OwnedEventId>,
    pub(super) depth: i64,
}

impl Fork {
    /// What a server builds on that knows all of these.
    pub(super) fn meeting(forks: &[&Fork]) -> Self {
        let mut met = forks[0].clone();
        met.tips = forks.iter().flat_map(|f| f.tips.clone()).collect();
        met.depth = forks.iter().map(|f| f.depth).max().unwrap();
        met
    }
}

impl House {
    pub(super) async fn on(given: &Given) -> Self {
        let config = given.config();
        let services = app::build(Arc::new(config.clone()), &Deps::default()).await.unwrap().services;
        let storage = app::open(&config, Arc::new(LocalBus::default())).await.unwrap().storage;
        let signer = Signer::new("test.example".try_into().unwrap(), "elsewhere", &[7; 32]).unwrap();
        Self { services, storage, signer, sent: AtomicU32::new(0) }
    }

    pub(super) async fn room(&self, version: &RoomVersionId) -> Room<'_> {
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

    pub(super) async fn stop(self) {
        self.services.shutdown.say();
        self.storage.close().await.unwrap();
    }
}

impl Room<'_> {
    pub(super) async fn joins(&self, name: &str) {
        self.house.services.rooms.join(&self.id, &user(name), Join::default()).await.unwrap();
    }

    pub(super) async fn tips(&self) -> BTreeSet<OwnedEventId> {
        let head = self.house.services.rooms.load_head(&self.id).await.unwrap();
        head.tips.into_iter().map(|t| t.id).collect()
    }

    /// The state as `GET state` tells Alice.
    pub(super) async fn state(&self) -> State {
        let (alice, services) = (user("alice"), &self.house.services);
        let reader = Reader { user: &alice, device: "D" };
        state_of(&services.timelines.state::<Value>(reader, &self.id).await.unwrap())
    }

    /// The room as it is now, to be built on by others.
    pub(super) async fn fork(&self) -> Fork {
        let head = self.house.services.rooms.load_head(&self.id).await.unwrap();
        let depth = head.tips.iter().map(|t| t.depth).max().unwrap() + 1;
        Fork { state: self.state().await, tips: head.tips.into_iter().map(|t| t.id).collect(), depth }
    }

    /// An event of another server, which has not come here yet. Each is a second later than the one before it.
    pub(super) fn made(
        &self,
        fork: &mut Fork,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Arc<Pdu> {
        let ts = 1_600_000_000_000 + 1_000 * u64::from(self.house.sent.fetch_add(1, Ordering::Relaxed));
        self.made_at(fork, ts, sender, kind, state_key, content)
    }

    pub(super) fn made_at(
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

    pub(super) fn topic(&self, fork: &mut Fork, sender: &str, topic: &str) -> Arc<Pdu> {
        self.made(fork, sender, "m.room.topic", Some(""), &json!({ "topic": topic }))
    }

    pub(super) fn message(&self, fork: &mut Fork, sender: &str, body: &str) -> Arc<Pdu> {
        self.made(fork, sender, "m.room.message", None, &json!({ "msgtype": "m.text", "body": body }))
    }

    pub(super) fn membership(&self, fork: &mut Fork, sender: &str, target: &str, membership: &str) -> Arc<Pdu> {
        let target = user(target);
        self.made(fork, sender, "m.room.member", Some(target.as_str()), &json!({ "membership": membership }))
    }

    /// Power levels for these, with Alice above them.
    pub(super) fn levels(&self, fork: &mut Fork, sender: &str, users: &[(&str, i64)]) -> Arc<Pdu> {
        let mut named = Map::new();
        if !self.version.rules.authorization.explicitly_privilege_room_creators {
            named.insert(user("alice").to_string(), 100.into());
        }
        named.extend(users.iter().map(|(name, level)| (user(name).to_string(), Value::from(*level))));
        let content = json!({ "users": named, "events": levels_of_events() });
        self.made(fork, sender, "m.room.power_levels", Some(""), &content)
    }

    /// The event arrives and becomes `expected`.
    pub(super) async fn receives(&self, pdu: &Arc<Pdu>, expected: Status) {
        assert_eq!(self.comes(pdu).await, expected, "{}", pdu.json);
    }

    /// The event arrives and becomes whatever it becomes; everybody is shown what they should be.
    pub(super) async fn comes(&self, pdu: &Arc<Pdu>) -> Status {
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
    pub(super) async fn goes_on(&self) {
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
    pub(super) async fn prevs_of(&self, id: &EventId) -> BTreeSet<OwnedEventId> {
        let stored = self.house.storage.events_by_id(vec![id.to_string()]).await.unwrap();
        let json: Value = serde_json::from_str(&stored[0].json).unwrap();
        let prevs = json["prev_events"].as_array().unwrap();
        prevs.iter().map(|id| id.as_str().unwrap().try_into().unwrap()).collect()
    }
}
