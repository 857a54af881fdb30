//! What is said and set, and what is taken back.

use std::sync::Arc;

use hearth::service::rooms::{Message, Txn};
use ruma::{OwnedEventId, events::TimelineEventType};
use serde_json::{Value, json, value::to_raw_value};

use super::allowed;
use crate::model::{
    Outcome, Run,
    story::{Meant, Writing},
    world::{Event, key},
};

/// What an event says.
pub struct What<'a> {
    pub kind: &'a str,
    pub state_key: Option<&'a str>,
    pub content: Value,
}

impl Run<'_> {
    /// An event that this server made went to the end of the room; from this device, if it has a transaction id.
    pub fn happened(&mut self, room: usize, id: OwnedEventId, (who, device): (usize, Option<usize>), what: What<'_>) {
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

    /// A message that belongs to another, or is meant for somebody.
    pub async fn write(&mut self, who: usize, room: usize, how: Writing, meant: Meant) -> Outcome<()> {
        let mut content = json!({ "msgtype": "m.text", "body": self.words("written") });
        match meant {
            Meant::Unsaid => {}
            Meant::Nobody => content["m.mentions"] = json!({}),
            Meant::One(whom) => content["m.mentions"] = json!({ "user_ids": [self.users[whom]] }),
            Meant::Room => content["m.mentions"] = json!({ "room": true }),
        }
        let (back, relation) = match how {
            Writing::Alone => return self.say(who, 0, room, content).await,
            Writing::Notice => {
                content["msgtype"] = "m.notice".into();
                return self.say(who, 0, room, content).await;
            }
            Writing::Edit(back) => {
                content["m.new_content"] = json!({ "msgtype": "m.text", "body": "edited" });
                (back, "m.replace")
            }
            Writing::Answer(back) | Writing::Nested(back) => (back, "m.thread"),
            Writing::Refer(back) => (back, "m.reference"),
        };
        let Some(mut target) = self.nth_back(room, back) else { return Ok(()) };
        if matches!(how, Writing::Answer(_)) {
            target = self.world.rooms[room].root_at(&target);
        }
        content["m.relates_to"] = json!({ "rel_type": relation, "event_id": target });
        self.say(who, 0, room, content).await
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

    pub async fn power(&mut self, by: usize, room: usize, much: bool) -> Outcome<()> {
        let room_now = &self.world.rooms[room];
        let Some(id) = room_now.state().get(&key("m.room.power_levels", "")) else { return Ok(()) };
        let mut content = room_now.find(id.as_str()).expect("in the list").1.shown_content(&room_now.version);
        content["users"][self.users[1].as_str()] = json!(if much { 50 } else { 0 });
        self.set_state(by, room, "m.room.power_levels", "", content).await
    }

    pub async fn redact(&mut self, who: usize, room: usize, back: usize) -> Outcome<()> {
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
}
