//! Sliding sync, as clients use it.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

#[cfg(feature = "postgres")]
mod cluster;
mod connections;
mod extensions;
mod lists;
mod members;
mod merged;
mod rooms;
mod timelines;

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    Reply, each_backend,
    people::{Person, Waiting, ids, of_type, open_server},
};

/// A connection of a device.
pub struct Slider<'a> {
    pub person: &'a Person,
    conn_id: String,
    pos: Mutex<Option<String>>,
}

impl<'a> Slider<'a> {
    /// A new connection.
    pub fn of(person: &'a Person) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        Self::named(person, &format!("connection {}", MADE.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn named(person: &'a Person, conn_id: &str) -> Self {
        Self { person, conn_id: conn_id.to_owned(), pos: Mutex::default() }
    }

    /// The same connection from another device, or through another server of the deployment.
    pub fn moves_to<'b>(&self, person: &'b Person) -> Slider<'b> {
        let pos = Mutex::new(self.pos.lock().unwrap().clone());
        Slider { person, conn_id: self.conn_id.clone(), pos }
    }

    pub fn pos(&self) -> Option<String> {
        self.pos.lock().unwrap().clone()
    }

    pub fn goes_back_to(&self, pos: Option<String>) {
        *self.pos.lock().unwrap() = pos;
    }

    fn body(&self, wish: &Value) -> Value {
        let mut body = wish.clone();
        body["conn_id"] = self.conn_id.as_str().into();
        body
    }

    pub async fn tries(&self, wish: &Value) -> Reply {
        let pos = self.pos().map_or(String::new(), |pos| format!("&pos={pos}"));
        self.person.slides(&format!("timeout=0{pos}"), &self.body(wish)).await
    }

    /// What is new.
    pub async fn asks(&self, wish: &Value) -> Value {
        let page = self.tries(wish).await.ok();
        self.goes_back_to(page["pos"].as_str().map(str::to_owned));
        page
    }

    /// Begins to wait for what is new.
    pub async fn waits(&self, wish: &Value) -> Waiting {
        self.person.waits_for(&self.pos().unwrap(), &self.body(wish)).await
    }

    pub async fn is_told_nothing(&self, wish: &Value) {
        let page = self.asks(wish).await;
        assert_eq!(page["rooms"], json!({}), "{page}");
    }
}

/// One list of all rooms.
pub fn all_rooms(limit: u32, required: Value) -> Value {
    let mut list = json!({ "ranges": [[0, 99]], "timeline_limit": limit });
    list["required_state"] = required;
    json!({ "lists": { "all": list } })
}

/// What Element X asks of each room in its list.
pub fn of_a_list() -> Value {
    json!([
        ["m.room.name", ""],
        ["m.room.encryption", ""],
        ["m.room.member", "$LAZY"],
        ["m.room.member", "$ME"],
        ["m.room.topic", ""],
        ["m.room.avatar", ""],
        ["m.room.canonical_alias", ""],
        ["m.room.power_levels", ""],
        ["m.room.join_rules", ""],
        ["m.room.tombstone", ""],
        ["m.room.create", ""],
        ["m.room.history_visibility", ""],
        ["m.space.parent", "*"],
        ["m.space.child", "*"],
    ])
}

pub fn rooms_in(page: &Value) -> Vec<&str> {
    let mut rooms: Vec<&str> = page["rooms"].as_object().unwrap().keys().map(String::as_str).collect();
    rooms.sort_unstable();
    rooms
}

/// These, as [`rooms_in`] has them.
pub fn sorted<'a>(rooms: &[&'a String]) -> Vec<&'a str> {
    let mut rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    rooms.sort_unstable();
    rooms
}

pub fn timeline_of(page: &Value, room: &str) -> Vec<String> {
    ids(&page["rooms"][room]["timeline"])
}

/// Types and keys of the state that is shown of a room.
pub fn state_of(page: &Value, room: &str) -> Vec<(String, String)> {
    let state = page["rooms"][room]["required_state"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let mut keys: Vec<_> = state.iter().map(|event| (text(event, "type"), text(event, "state_key"))).collect();
    keys.sort_unstable();
    keys
}

/// Those whose memberships are shown.
pub fn members_of(page: &Value, room: &str) -> Vec<String> {
    let members = state_of(page, room).into_iter().filter(|(kind, _)| kind == "m.room.member");
    members.map(|(_, key)| key).collect()
}
