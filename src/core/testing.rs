//! Small rooms for tests: every event is built, signed and authorised as in earnest.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, UInt,
    events::{StateEventType, TimelineEventType},
    owned_server_name,
    state_res::{StateMap, check_pdu_format},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    Result, auth,
    event::{Draft, Pdu, build},
    keys::Signer,
    room_version::RoomVersion,
};

pub(crate) const VERSIONS: [RoomVersionId; 4] =
    [RoomVersionId::V6, RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12];

pub(crate) fn signer() -> Signer {
    Signer::new(owned_server_name!("example.org"), "a_key1", &[7; 32]).expect("a key")
}

pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("json")
}

pub(crate) fn user(name: &str) -> OwnedUserId {
    format!("@{name}:example.org").try_into().expect("a user id")
}

pub(crate) fn version(id: &RoomVersionId) -> &'static RoomVersion {
    RoomVersion::get(id).expect("a version that is held")
}

/// A room whose events all servers know.
pub(crate) struct Room {
    pub(crate) version: &'static RoomVersion,
    pub(crate) events: HashMap<OwnedEventId, Arc<Pdu>>,
    pub(crate) room_id: Option<OwnedRoomId>,
    signer: Signer,
    ts: u32,
}

/// One view of a room: its state, and what the next event builds on.
#[derive(Clone)]
pub(crate) struct Fork {
    pub(crate) state: StateMap<OwnedEventId>,
    pub(crate) prev: Vec<OwnedEventId>,
    pub(crate) depth: i64,
}

impl Room {
    /// A room that anybody may join, with Alice in it.
    pub(crate) fn new(id: &RoomVersionId) -> (Self, Fork) {
        let version = version(id);
        let room_id = (!version.hashes_room_id()).then(|| "!room:example.org".try_into().expect("a room id"));
        let mut room = Self { version, events: HashMap::new(), room_id, signer: signer(), ts: 1_000 };
        let mut fork = Fork { state: StateMap::new(), prev: Vec::new(), depth: 1 };
        let mut create = json!({ "room_version": id.as_str() });
        if !version.rules.authorization.use_room_create_sender {
            create["creator"] = user("alice").as_str().into();
        }
        let create = room.state(&mut fork, "alice", "m.room.create", "", create).expect("created");
        room.room_id = Some(create.room_id.clone());
        room.member(&mut fork, "alice", "alice", "join").expect("joined");
        let levels = room.levels(&[]);
        room.state(&mut fork, "alice", "m.room.power_levels", "", levels).expect("power levels");
        room.state(&mut fork, "alice", "m.room.join_rules", "", json!({ "join_rule": "public" })).expect("rules");
        (room, fork)
    }

    /// Power levels that name Alice where she isn't above them as the creator.
    pub(crate) fn levels(&self, users: &[(&str, i64)]) -> Value {
        let mut levels = json!({ "users": {} });
        if !self.version.rules.authorization.explicitly_privilege_room_creators {
            levels["users"][user("alice").as_str()] = 100.into();
        }
        for (name, level) in users {
            levels["users"][user(name).as_str()] = (*level).into();
        }
        levels
    }

    pub(crate) fn member(&mut self, fork: &mut Fork, sender: &str, target: &str, membership: &str) -> Result<Arc<Pdu>> {
        let target = user(target);
        self.state(fork, sender, "m.room.member", target.as_str(), json!({ "membership": membership }))
    }

    pub(crate) fn message(&mut self, fork: &mut Fork, sender: &str, body: &str) -> Result<Arc<Pdu>> {
        self.send(fork, sender, "m.room.message", None, &json!({ "msgtype": "m.text", "body": body }), None)
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that a test may write json!(…) in place")]
    pub(crate) fn state(
        &mut self,
        fork: &mut Fork,
        sender: &str,
        event_type: &str,
        state_key: &str,
        content: Value,
    ) -> Result<Arc<Pdu>> {
        self.send(fork, sender, event_type, Some(state_key), &content, None)
    }

    /// Sends an event that the rules allow on this fork; otherwise says why not, and leaves the fork as it was.
    pub(crate) fn send(
        &mut self,
        fork: &mut Fork,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: &Value,
        redacts: Option<OwnedEventId>,
    ) -> Result<Arc<Pdu>> {
        self.ts += 1;
        let (sender, content) = (user(sender), raw(content));
        let event_type = TimelineEventType::from(event_type);
        let keys = auth::auth_keys(&event_type, &sender, state_key, &content, self.version)?;
        let draft = Draft {
            room_id: self.room_id.clone(),
            sender,
            event_type,
            state_key: state_key.map(str::to_owned),
            content,
            redacts,
            prev_events: fork.prev.clone(),
            auth_events: keys.iter().filter_map(|key| fork.state.get(key).cloned()).collect(),
            depth: fork.depth,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(self.ts)),
        };
        let pdu = Arc::new(build(draft, &self.signer, self.version)?);
        let object: CanonicalJsonObject = serde_json::from_str(&pdu.json).expect("canonical");
        check_pdu_format(&object, &self.version.rules.event_format).expect("what is built has the right format");
        auth::check(&pdu, self.version, |event_type, state_key| self.get(fork, event_type, state_key))?;
        self.events.insert(pdu.event_id.clone(), pdu.clone());
        if let Some((event_type, state_key)) = pdu.state_type() {
            fork.state.insert((event_type, state_key.to_owned()), pdu.event_id.clone());
        }
        fork.prev = vec![pdu.event_id.clone()];
        fork.depth += 1;
        Ok(pdu)
    }

    pub(crate) fn get(&self, fork: &Fork, event_type: &StateEventType, state_key: &str) -> Option<Arc<Pdu>> {
        let id = fork.state.get(&(event_type.clone(), state_key.to_owned()))?;
        self.events.get(id).cloned()
    }
}

/// An event that nobody built: for rules that don't look at hashes and signatures.
pub(crate) fn fake(event_type: TimelineEventType, sender: &str, state_key: Option<&str>, content: &Value) -> Pdu {
    Pdu {
        event_id: "$fake".try_into().expect("an event id"),
        room_id: "!room:example.org".try_into().expect("a room id"),
        sender: user(sender),
        event_type,
        state_key: state_key.map(str::to_owned),
        content: raw(content),
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_000u32)),
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        redacts: None,
        rejected: false,
        json: "{}".into(),
    }
}
