//! Events of other servers.

use std::sync::Arc;

use hearth_core::{
    auth,
    event::{Draft, build},
    room_version::RoomVersion,
};
use hearth_storage::{StateOf, Status};
use ruma::{MilliSecondsSinceUnixEpoch, RoomVersionId, UInt, events::TimelineEventType};
use serde_json::{json, value::to_raw_value};

use super::{allowed, parsed};
use crate::model::{
    Outcome, Run, failure,
    story::{Forked, VISIBILITIES},
    world::{Event, State, key, visibility},
};

impl Run<'_> {
    /// An event of another server that knew nothing of what happened after the event it builds on.
    pub async fn fork(&mut self, by: usize, room: usize, back: usize, what: Forked) -> Outcome<()> {
        let Some(prev) = self.world.rooms[room].events.iter().rev().nth(back).cloned() else { return Ok(()) };
        let sender = self.users[by].clone();
        let membership = |membership: &str| json!({ "membership": membership });
        let (kind, state_key, content) = match what {
            Forked::Words => {
                let content = json!({ "msgtype": "m.text", "body": self.words("said elsewhere") });
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
}
