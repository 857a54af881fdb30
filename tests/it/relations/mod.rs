//! Events that relate to others: edits, reactions, references, threads.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod bundles;
mod cluster;
mod paging;
mod refused;
mod threads;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Reply,
    people::{Person, escaped, event_id},
};

impl Person {
    /// An endpoint of version 1 about a room.
    async fn looks_up(&self, room: &str, what: &str) -> Reply {
        let path = format!("/_matrix/client/v1/rooms/{}/{what}", escaped(room));
        let request = self.http().request(Method::GET, &path).bearer_auth(&self.token);
        self.http().send(request).await
    }

    /// A page of what relates to an event; `what` is what stands behind its id.
    async fn related(&self, room: &str, event: &str, what: &str) -> Reply {
        self.looks_up(room, &format!("relations/{}{what}", escaped(event))).await
    }

    async fn threads(&self, room: &str, query: &str) -> Reply {
        self.looks_up(room, &format!("threads{query}")).await
    }

    async fn tries_to_relate(&self, room: &str, kind: &str, txn: &str, content: Value) -> Reply {
        self.put(&format!("/rooms/{}/send/{kind}/{txn}", escaped(room)), content).await
    }

    /// A message that relates to another.
    async fn relates(&self, room: &str, rel_type: &str, target: &str, body: &str) -> String {
        let relates_to = json!({ "rel_type": rel_type, "event_id": target });
        let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relates_to });
        event_id(&self.tries_to_relate(room, "m.room.message", &self.next_txn(), content).await)
    }

    pub(crate) async fn answers_in_thread(&self, room: &str, root: &str, body: &str) -> String {
        self.relates(room, "m.thread", root, body).await
    }

    pub(crate) async fn edits(&self, room: &str, target: &str, body: &str) -> String {
        event_id(&self.tries_to_relate(room, "m.room.message", &self.next_txn(), edit(target, body)).await)
    }

    pub(crate) async fn reacts(&self, room: &str, target: &str, key: &str) -> Reply {
        self.tries_to_relate(room, "m.reaction", &self.next_txn(), reaction(target, key)).await
    }

    /// What is told beside an event.
    async fn bundle(&self, room: &str, event: &str) -> Value {
        self.event(room, event).await.ok()["unsigned"]["m.relations"].clone()
    }
}

fn edit(target: &str, body: &str) -> Value {
    json!({
        "msgtype": "m.text", "body": format!("* {body}"), "m.new_content": { "msgtype": "m.text", "body": body },
        "m.relates_to": { "rel_type": "m.replace", "event_id": target },
    })
}

fn reaction(target: &str, key: &str) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": target, "key": key } })
}

fn find<'a>(events: &'a Value, id: &str) -> &'a Value {
    let events = events.as_array().unwrap_or_else(|| panic!("no list: {events}"));
    events.iter().find(|e| e["event_id"] == id).unwrap_or_else(|| panic!("no {id} in {events:?}"))
}
