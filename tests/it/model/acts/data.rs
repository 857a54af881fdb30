//! What people keep for themselves: receipts, account data, whom they ignore.

use std::collections::BTreeSet;

use hearth::service::{receipts::Read, session::Session, shape::Reader};
use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, json, value::to_raw_value};

use super::allowed;
use crate::model::{
    Outcome, Run,
    story::{Of, Reading},
    world::Room,
};

impl Run<'_> {
    pub async fn read(&mut self, who: usize, room: usize, back: usize, how: Reading) -> Outcome<()> {
        let Some(event) = self.nth_back(room, back) else { return Ok(()) };
        let (read, kind, thread) = match how {
            Reading::Receipt { of, private } => {
                let thread = match of {
                    Of::All => String::new(),
                    Of::Main => "main".to_owned(),
                    Of::Thread => self.world.rooms[room].root_at(&event).to_string(),
                    Of::Nothing(n) => format!("$thread{n}"),
                };
                match private {
                    false => (Read::Public { thread: thread.clone() }, "m.read", thread),
                    true => (Read::Private { thread: thread.clone() }, "m.read.private", thread),
                }
            }
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

    pub async fn keep(&mut self, who: usize, room: Option<usize>, key: usize, value: u32) -> Outcome<()> {
        self.keeps(who, room, format!("org.example.k{key}"), json!({ "value": value })).await
    }

    pub async fn ignore(&mut self, who: usize, whom: usize, still: bool) -> Outcome<()> {
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

    /// Everybody who is ignored by the user.
    pub fn ignored_by(&self, user: &OwnedUserId) -> BTreeSet<OwnedUserId> {
        let list = self.world.kept.get(&(user.clone(), None, "m.ignored_user_list".to_owned()));
        let users = list.and_then(|(_, content)| content["ignored_users"].as_object());
        let users = users.into_iter().flatten().map(|(user, _)| user.as_str().try_into().expect("a user"));
        users.collect()
    }
}
