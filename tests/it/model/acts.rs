//! The acts of people: done to the server, and told to the judge as far as the server let them happen.

use std::{collections::BTreeSet, sync::Arc};

use hearth::service::{
    receipts::Read,
    rooms::{CreateRoom, Join, Message, Preset, Target, Txn},
    session::Session,
    shape::Reader,
    timeline::PageWish,
};
use hearth_core::{
    Error, auth,
    event::{Draft, build},
    room_version::RoomVersion,
};
use hearth_storage::{Direction, StateOf, Status, StoredEvent};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId, RoomVersionId, UInt,
    api::client::filter::RoomEventFilter, events::TimelineEventType,
};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    Outcome, Run, failure,
    story::{Forked, JOIN_RULES, Op, Reading, VERSIONS, VISIBILITIES},
    world::{Event, Room, State, key, member, visibility},
};

/// What the server refused did not happen; that it broke is a failure.
fn allowed<T>(what: Result<T, Error>) -> Outcome<Option<T>> {
    match what {
        Ok(done) => Ok(Some(done)),
        Err(Error::Matrix { .. }) => Ok(None),
        Err(e) => Err(failure(format!("the server broke: {e}"))),
    }
}

fn parsed(stored: &StoredEvent) -> Value {
    serde_json::from_str(&stored.json).expect("an event")
}

/// What an event says.
struct What<'a> {
    kind: &'a str,
    state_key: Option<&'a str>,
    content: Value,
}

impl Run<'_> {
    /// Does it. What cannot be done where it stands is nothing.
    pub async fn act(&mut self, op: Op) -> Outcome<()> {
        self.clock.advance(1_000);
        match op {
            Op::Create { by, visibility, version, public } => self.create(by, visibility, version, public).await,
            Op::Ignore { who, whom, still } => self.ignore(who, whom, still).await,
            Op::Keep { who, room: None, key, value } => self.keep(who, None, key, value).await,
            Op::Restart => self.restart().await,
            Op::Sync { who, device, limit, full_state } => self.sync(who, device, limit, full_state).await,
            Op::StartAnew { who, device } => {
                self.devices[who][device].knows = super::client::Knowledge::default();
                Ok(())
            }
            Op::Rewind { who, device, syncs } => {
                let device = &mut self.devices[who][device];
                if let Some(at) = device.past.len().checked_sub(syncs) {
                    device.knows = device.past[at].clone();
                    device.past.truncate(at);
                }
                Ok(())
            }
            in_room => match self.world.rooms.len().checked_sub(1) {
                Some(last) => self.act_in_room(in_room, last).await,
                None => Ok(()),
            },
        }
    }

    async fn act_in_room(&mut self, op: Op, last: usize) -> Outcome<()> {
        let at = |room: usize| room.min(last);
        match op {
            Op::Join { who, room } => self.join(who, at(room)).await,
            Op::Leave { who, room } => self.membership(who, who, at(room), "leave").await,
            Op::Knock { who, room } => self.membership(who, who, at(room), "knock").await,
            Op::Invite { by, who, room } => self.membership(by, who, at(room), "invite").await,
            Op::Ban { by, who, room } => self.membership(by, who, at(room), "ban").await,
            Op::Kick { by, who, room } => self.kick(by, who, at(room)).await,
            Op::Unban { by, who, room } => self.unban(by, who, at(room)).await,
            Op::Forget { who, room } => self.forget(who, at(room)).await,
            Op::Say { who, device, room } => {
                let content = json!({ "msgtype": "m.text", "body": format!("said at {}", self.world.now) });
                self.say(who, device, at(room), content).await
            }
            Op::Edit { who, room, back } => {
                let Some(target) = self.nth_back(at(room), back) else { return Ok(()) };
                let content = json!({
                    "msgtype": "m.text", "body": "* edited", "m.new_content": { "msgtype": "m.text", "body": "edited" },
                    "m.relates_to": { "rel_type": "m.replace", "event_id": target },
                });
                self.say(who, 0, at(room), content).await
            }
            Op::Topic { by, room } => {
                let content = json!({ "topic": format!("topic at {}", self.world.now) });
                self.set_state(by, at(room), "m.room.topic", "", content).await
            }
            Op::Odd { by, room, key } => {
                let content = json!({ "at": self.world.now });
                self.set_state(by, at(room), "org.example.odd", &key.to_string(), content).await
            }
            Op::Visibility { by, room, to } => {
                let content = visibility(VISIBILITIES[to]);
                self.set_state(by, at(room), "m.room.history_visibility", "", content).await
            }
            Op::JoinRule { by, room, to } => {
                let content = json!({ "join_rule": JOIN_RULES[to] });
                self.set_state(by, at(room), "m.room.join_rules", "", content).await
            }
            Op::Power { by, room, much } => self.power(by, at(room), much).await,
            Op::Redact { who, room, back } => self.redact(who, at(room), back).await,
            Op::Fork { by, room, back, what } => self.fork(by, at(room), back, what).await,
            Op::Read { who, room, back, how } => self.read(who, at(room), back, how).await,
            Op::Keep { who, room, key, value } => self.keep(who, room.map(at), key, value).await,
            Op::FillGap { who, device, room, limit } => self.fill_gap(who, device, at(room), limit).await.map(drop),
            Op::Page { who, room, forward, limit, from_device } => {
                self.page(who, at(room), forward, limit, from_device).await
            }
            Op::Look { who, room, back } => self.look(who, at(room), back).await,
            Op::LookAround { who, room, device } => self.look_around(who, at(room), Some(device)).await,
            _ => Ok(()),
        }
    }

    /// An event of the room by its age.
    pub fn nth_back(&self, room: usize, back: usize) -> Option<OwnedEventId> {
        self.world.rooms[room].events.iter().rev().nth(back).map(|e| e.id.clone())
    }

    pub async fn create(&mut self, by: usize, seen: usize, version: usize, public: bool) -> Outcome<()> {
        let version = VERSIONS[version];
        let mut users = Map::new();
        users.insert(self.users[1].to_string(), 50.into());
        if version != "12" {
            users.insert(self.users[by].to_string(), 100.into());
        }
        let mut power_levels = Map::new();
        power_levels.insert("users".into(), users.into());
        let initial = json!({ "type": "m.room.history_visibility", "content": visibility(VISIBILITIES[seen]) });
        let wish = CreateRoom {
            version: Some(RoomVersionId::try_from(version).expect("a version")),
            preset: Some(if public { Preset::Public } else { Preset::Private }),
            power_levels,
            initial_state: vec![serde_json::from_value(initial).expect("initial state")],
            ..CreateRoom::default()
        };
        let id = self.services().rooms.create(&self.users[by], wish).await.map_err(failure)?;
        // What a room begins with is not what is judged here: it is read past the services.
        let head = self.services().rooms.load_head(&id).await.map_err(failure)?;
        let stored = self.first_events(by, &id).await?;
        let mut room = Room {
            id,
            sn: head.sn,
            version: version.to_owned(),
            events: Vec::new(),
            refused: BTreeSet::new(),
            receipts: std::collections::BTreeMap::new(),
            forgotten: BTreeSet::new(),
        };
        let mut current = Arc::new(State::new());
        for stored in stored {
            let json = parsed(&stored);
            let text = |name: &str| json[name].as_str().map(str::to_owned);
            let event = Event {
                id: stored.event_id.clone().try_into().expect("an id"),
                kind: text("type").expect("a type"),
                state_key: text("state_key"),
                sender: text("sender").expect("a sender").try_into().expect("a user"),
                content: json["content"].clone(),
                device: None,
                time: self.world.tick(),
                depth: json["depth"].as_i64().expect("a depth"),
                graph: Arc::clone(&current),
                current: Arc::clone(&current),
                redacted_by: None,
            };
            let mut state = (*current).clone();
            state.insert(event.key().expect("state"), event.id.clone());
            current = Arc::new(state);
            room.events.push(Event { graph: Arc::clone(&current), current: Arc::clone(&current), ..event });
        }
        self.world.rooms.push(room);
        Ok(())
    }

    async fn first_events(&self, creator: usize, room_id: &RoomId) -> Outcome<Vec<StoredEvent>> {
        let wish = PageWish {
            from: None,
            to: None,
            direction: Direction::Forward,
            limit: 100,
            filter: RoomEventFilter::default(),
        };
        let reader = Reader { user: &self.users[creator], device: "D" };
        let page = self.services().timelines.messages::<Value, Value>(reader, room_id, wish).await.map_err(failure)?;
        let mut ids = Vec::with_capacity(page.chunk.len());
        for event in &page.chunk {
            ids.push(event.get_field::<String>("event_id").map_err(failure)?.ok_or_else(|| failure("no id"))?);
        }
        let mut stored = self.storage().events_by_id(ids).await.map_err(failure)?;
        stored.sort_by_key(|e| e.sn);
        Ok(stored)
    }

    /// An event that this server made went to the end of the room; from this device, if it has a transaction id.
    fn happened(&mut self, room: usize, id: OwnedEventId, (who, device): (usize, Option<usize>), what: What<'_>) {
        let What { kind, state_key, content } = what;
        if self.world.rooms[room].find(id.as_str()).is_some() {
            // It was so already.
            return;
        }
        let time = self.world.tick();
        let device = device.map(|device| self.devices[who][device].name.clone());
        let room = &mut self.world.rooms[room];
        let (depth, current) = (room.next_depth(), Arc::clone(room.state()));
        room.happened(Event {
            id,
            kind: kind.to_owned(),
            state_key: state_key.map(str::to_owned),
            sender: self.users[who].clone(),
            content,
            device,
            time,
            depth,
            graph: Arc::clone(&current),
            current,
            redacted_by: None,
        });
    }

    pub async fn join(&mut self, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        if allowed(self.services().rooms.join(&id, &self.users[who], Join::default()).await)?.is_some() {
            self.membership_became(who, who, room).await?;
        }
        Ok(())
    }

    pub async fn membership(&mut self, by: usize, who: usize, room: usize, to: &'static str) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        let target = self.target(who, to);
        if allowed(self.services().rooms.set_membership(&id, &self.users[by], target).await)?.is_some() {
            self.membership_became(by, who, room).await?;
        }
        Ok(())
    }

    async fn kick(&mut self, by: usize, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        let target = self.target(who, "leave");
        if allowed(self.services().rooms.kick(&id, &self.users[by], target).await)?.is_some() {
            self.membership_became(by, who, room).await?;
        }
        Ok(())
    }

    pub async fn unban(&mut self, by: usize, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        let unbanned = self.services().rooms.unban(&id, &self.users[by], &self.users[who], None).await;
        if allowed(unbanned)?.is_some() {
            self.membership_became(by, who, room).await?;
        }
        Ok(())
    }

    fn target(&self, who: usize, membership: &'static str) -> Target {
        Target { user: self.users[who].clone(), membership, reason: None, extra: Map::new() }
    }

    /// Which event it became, the services don't always say.
    async fn membership_became(&mut self, by: usize, who: usize, room: usize) -> Outcome<()> {
        let of = StateOf::Key("m.room.member".to_owned(), self.users[who].to_string());
        let state = self.storage().state(self.world.rooms[room].sn, of, None).await.map_err(failure)?;
        let stored = state.first().ok_or_else(|| failure("no membership after it was set"))?;
        let id = stored.event_id.clone().try_into().expect("an id");
        let (content, user) = (parsed(stored)["content"].clone(), self.users[who].clone());
        let what = What { kind: "m.room.member", state_key: Some(user.as_str()), content };
        self.happened(room, id, (by, None), what);
        Ok(())
    }

    async fn forget(&mut self, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        if allowed(self.services().rooms.forget(&id, &self.users[who]).await)?.is_some() {
            let user = self.users[who].clone();
            self.world.rooms[room].forgotten.insert(user);
        }
        Ok(())
    }

    fn txn(&mut self, who: usize, device: usize, scope: &str) -> Txn {
        self.sent += 1;
        Txn {
            device_id: self.devices[who][device].name.clone(),
            txn_id: format!("t{}", self.sent),
            scope: scope.to_owned(),
        }
    }

    pub async fn say(&mut self, who: usize, device: usize, room: usize, content: Value) -> Outcome<()> {
        let message = Message {
            room_id: self.world.rooms[room].id.clone(),
            sender: self.users[who].clone(),
            event_type: TimelineEventType::RoomMessage,
            content: to_raw_value(&content).expect("JSON"),
        };
        let txn = self.txn(who, device, "send");
        if let Some(id) = allowed(self.services().rooms.send(message, txn).await)? {
            let what = What { kind: "m.room.message", state_key: None, content };
            self.happened(room, id, (who, Some(device)), what);
        }
        Ok(())
    }

    pub async fn set_state(
        &mut self,
        by: usize,
        room: usize,
        kind: &str,
        state_key: &str,
        content: Value,
    ) -> Outcome<()> {
        let raw = to_raw_value(&content).expect("JSON");
        let id = self.world.rooms[room].id.clone();
        let set = self.services().rooms.set_state(&id, &self.users[by], kind.into(), state_key, raw).await;
        if let Some(id) = allowed(set)? {
            self.happened(room, id, (by, None), What { kind, state_key: Some(state_key), content });
        }
        Ok(())
    }

    async fn power(&mut self, by: usize, room: usize, much: bool) -> Outcome<()> {
        let room_now = &self.world.rooms[room];
        let Some(id) = room_now.state().get(&key("m.room.power_levels", "")) else { return Ok(()) };
        let mut content = room_now.find(id.as_str()).expect("in the list").1.shown_content(&room_now.version);
        content["users"][self.users[1].as_str()] = json!(if much { 50 } else { 0 });
        self.set_state(by, room, "m.room.power_levels", "", content).await
    }

    async fn redact(&mut self, who: usize, room: usize, back: usize) -> Outcome<()> {
        let Some(target) = self.nth_back(room, back) else { return Ok(()) };
        let id = self.world.rooms[room].id.clone();
        let txn = self.txn(who, 0, "redact");
        let content = to_raw_value(&json!({})).expect("JSON");
        let redacted = self.services().rooms.redact(&id, &self.users[who], &target, content, txn).await;
        if let Some(id) = allowed(redacted)? {
            let content = match self.world.rooms[room].version.as_str() {
                "10" => json!({}),
                _ => json!({ "redacts": target }),
            };
            let what = What { kind: "m.room.redaction", state_key: None, content };
            self.happened(room, id.clone(), (who, Some(0)), what);
            let events = &mut self.world.rooms[room].events;
            let event = events.iter_mut().find(|e| e.id == target).expect("it was in the list");
            event.redacted_by.get_or_insert(id);
        }
        Ok(())
    }

    async fn read(&mut self, who: usize, room: usize, back: usize, how: Reading) -> Outcome<()> {
        let Some(event) = self.nth_back(room, back) else { return Ok(()) };
        let thread = |n: usize| format!("$thread{n}");
        let (read, kind, thread) = match how {
            Reading::Public => (Read::Public { thread: String::new() }, "m.read", String::new()),
            Reading::Private => (Read::Private { thread: String::new() }, "m.read.private", String::new()),
            Reading::Thread(n) => (Read::Public { thread: thread(n) }, "m.read", thread(n)),
            Reading::PrivateThread(n) => (Read::Private { thread: thread(n) }, "m.read.private", thread(n)),
            Reading::Marker => (Read::Marker, "m.fully_read", String::new()),
        };
        let user = self.users[who].clone();
        let id = self.world.rooms[room].id.clone();
        let reader = Reader { user: &user, device: "D" };
        if allowed(self.services().receipts.read(reader, &id, &event, read).await)?.is_none() {
            return Ok(());
        }
        if how == Reading::Marker {
            let time = self.world.tick();
            self.world.kept.insert((user, Some(room), kind.to_owned()), (time, json!({ "event_id": event })));
            return Ok(());
        }
        let of = (user, kind.to_owned(), thread);
        let at = |room: &Room, id: &OwnedEventId| room.find(id.as_str()).map(|(i, _)| i);
        let room_now = &self.world.rooms[room];
        let before = room_now.receipts.get(&of).and_then(|(_, id)| at(room_now, id));
        // A receipt never goes back, and the same again says nothing.
        if before.is_none_or(|before| at(room_now, &event).is_some_and(|i| i > before)) {
            let time = self.world.tick();
            self.world.rooms[room].receipts.insert(of, (time, event));
        }
        Ok(())
    }

    async fn keep(&mut self, who: usize, room: Option<usize>, key: usize, value: u32) -> Outcome<()> {
        self.keeps(who, room, format!("org.example.k{key}"), json!({ "value": value })).await
    }

    async fn ignore(&mut self, who: usize, whom: usize, still: bool) -> Outcome<()> {
        if who == whom {
            return Ok(());
        }
        let kind = "m.ignored_user_list".to_owned();
        let before = self.world.kept.get(&(self.users[who].clone(), None, kind.clone()));
        let mut content = before.map_or_else(|| json!({ "ignored_users": {} }), |(_, content)| content.clone());
        let users = content["ignored_users"].as_object_mut().expect("users");
        if still {
            self.ever_ignored.insert((self.users[who].clone(), self.users[whom].clone()));
            users.insert(self.users[whom].to_string(), json!({}));
        } else {
            users.remove(self.users[whom].as_str());
        }
        self.keeps(who, None, kind, content).await
    }

    async fn keeps(&mut self, who: usize, room: Option<usize>, kind: String, content: Value) -> Outcome<()> {
        let user = self.users[who].clone();
        let session = Session { user_id: user.clone(), device_id: "D".into(), admin: false, as_of: 0 };
        let id = room.map(|room| self.world.rooms[room].id.clone());
        let raw = to_raw_value(&content).expect("JSON");
        let set = self.services().account_data.set(&session, &user, id.as_deref(), &kind, &raw).await;
        if allowed(set)?.is_some() {
            let time = self.world.tick();
            self.world.kept.insert((user, room, kind), (time, content));
        }
        Ok(())
    }

    /// An event of another server that knew nothing of what happened after the event it builds on.
    async fn fork(&mut self, by: usize, room: usize, back: usize, what: Forked) -> Outcome<()> {
        let Some(prev) = self.world.rooms[room].events.iter().rev().nth(back).cloned() else { return Ok(()) };
        let sender = self.users[by].clone();
        let membership = |membership: &str| json!({ "membership": membership });
        let (kind, state_key, content) = match what {
            Forked::Words => {
                let content = json!({ "msgtype": "m.text", "body": format!("said elsewhere at {}", self.world.now) });
                ("m.room.message", None, content)
            }
            Forked::Topic => ("m.room.topic", Some(String::new()), json!({ "topic": "from elsewhere" })),
            Forked::Leave => ("m.room.member", Some(sender.to_string()), membership("leave")),
            Forked::Join => ("m.room.member", Some(sender.to_string()), membership("join")),
            Forked::Ban(whom) => ("m.room.member", Some(self.users[whom].to_string()), membership("ban")),
            Forked::Visibility(to) => ("m.room.history_visibility", Some(String::new()), visibility(VISIBILITIES[to])),
        };
        let room_id = self.world.rooms[room].id.clone();
        let version = RoomVersionId::try_from(self.world.rooms[room].version.as_str()).expect("a version");
        let version = RoomVersion::get(&version).expect("a version that is held");
        let event_type = TimelineEventType::from(kind);
        let raw = to_raw_value(&content).expect("JSON");
        let keys = auth::auth_keys(&event_type, &sender, state_key.as_deref(), &raw, version).map_err(failure)?;
        let auth_events = keys.iter().filter_map(|(kind, key)| prev.graph.get(&(kind.to_string(), key.clone())));
        let draft = Draft {
            room_id: Some(room_id.clone()),
            sender: sender.clone(),
            event_type,
            state_key: state_key.clone(),
            content: raw,
            redacts: None,
            prev_events: vec![prev.id.clone()],
            auth_events: auth_events.cloned().collect(),
            depth: prev.depth + 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(self.now_ms()).expect("after the epoch")),
        };
        let pdu = Arc::new(build(draft, &self.signer, version).map_err(failure)?);
        let Some(status) = allowed(self.services().rooms.receive(&room_id, Arc::clone(&pdu)).await)? else {
            return Ok(());
        };
        if status != Status::Accepted {
            self.world.rooms[room].refused.insert(pdu.event_id.clone());
            return Ok(());
        }
        // How forks are resolved has its own test: here the outcome is taken from the server.
        let stored = self.storage().state(self.world.rooms[room].sn, StateOf::All, None).await.map_err(failure)?;
        let mut current = State::new();
        for stored in stored {
            let json = parsed(&stored);
            let part = |name: &str| json[name].as_str().expect("state").to_owned();
            current.insert((part("type"), part("state_key")), stored.event_id.try_into().expect("an id"));
        }
        let mut graph = (*prev.graph).clone();
        if let Some(state_key) = &state_key {
            graph.insert(key(kind, state_key), pdu.event_id.clone());
        }
        let event = Event {
            id: pdu.event_id.clone(),
            kind: kind.to_owned(),
            state_key,
            sender,
            content,
            device: None,
            time: self.world.tick(),
            depth: prev.depth + 1,
            graph: Arc::new(graph),
            current: Arc::new(current),
            redacted_by: None,
        };
        self.world.rooms[room].took_in(event);
        Ok(())
    }

    /// Everybody who is ignored by the user.
    pub fn ignored_by(&self, user: &OwnedUserId) -> BTreeSet<OwnedUserId> {
        let list = self.world.kept.get(&(user.clone(), None, "m.ignored_user_list".to_owned()));
        let users = list.and_then(|(_, content)| content["ignored_users"].as_object());
        let users = users.into_iter().flatten().map(|(user, _)| user.as_str().try_into().expect("a user"));
        users.collect()
    }

    /// The event of a user's membership now.
    pub fn member_event(&self, room: usize, user: &OwnedUserId) -> Option<&Event> {
        let room = &self.world.rooms[room];
        room.find(room.state().get(&member(user))?.as_str()).map(|(_, e)| e)
    }
}
