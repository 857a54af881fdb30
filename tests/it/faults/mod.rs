//! What has gone wrong in other servers, told as stories of this one. `docs/FAULTS.md` lists which fault is held by which
//! test.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod deep;
mod extremes;
mod limits;
mod odd;
mod redacted;
mod removed;
mod replays;
mod strangers;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::people::{Person, escaped};

/// What somebody asked, and what they were answered.
struct Told {
    what: String,
    text: String,
}

/// A sync that wants all there is.
const ALL: &str = r#"{"room":{"include_leave":true,"timeline":{"limit":100}}}"#;

impl Person {
    async fn is_told(&self, method: Method, path: &str, body: Option<Value>) -> Told {
        let request = self.http().request(method, &format!("/_matrix/client/{path}")).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let reply = self.http().send(request).await;
        let what = format!("{} {path}", self.id);
        // To be refused is well; what breaks, breaks for everybody who asks.
        assert!(reply.status < 500, "{what}: {} {}", reply.status, reply.text);
        Told { what, text: reply.text }
    }

    /// By every way to read it, what this person is told of a room and of these events of it.
    async fn reads_everything_of(&self, room: &str, events: &[String]) -> Vec<Told> {
        let (room_path, all) = (format!("rooms/{}", escaped(room)), escaped(ALL));
        let mut paths: Vec<String> = ["sync?timeout=0", "notifications?limit=50", "joined_rooms", "publicRooms"]
            .iter()
            .map(|path| format!("v3/{path}"))
            .collect();
        paths.extend([
            format!("v3/sync?timeout=0&filter={all}"),
            format!("v3/sync?timeout=0&full_state=true&filter={all}"),
            format!("v3/sync?timeout=0&use_state_after=true&filter={all}"),
            format!("v1/room_summary/{}", escaped(room)),
            format!("v3/directory/list/room/{}", escaped(room)),
        ]);
        for what in ["state", "members", "members?membership=join", "joined_members", "aliases"]
            .into_iter()
            .chain(["messages?dir=b&limit=100", "messages?dir=f&limit=100"])
            .chain(["state/m.room.topic/", "state/m.room.name/?format=event", "state/m.room.create/"])
        {
            paths.push(format!("v3/{room_path}/{what}"));
        }
        for what in ["threads?limit=100", "threads?include=participated", "hierarchy?limit=50"]
            .into_iter()
            .chain(["timestamp_to_event?ts=0&dir=f", "timestamp_to_event?ts=9000000000000&dir=b"])
        {
            paths.push(format!("v1/{room_path}/{what}"));
        }
        for event in events.iter().map(|event| escaped(event)) {
            paths.push(format!("v3/{room_path}/event/{event}"));
            paths.push(format!("v3/{room_path}/context/{event}?limit=100"));
            paths.push(format!("v1/{room_path}/relations/{event}?recurse=true&limit=100"));
            paths.push(format!("v1/{room_path}/relations/{event}/m.thread?dir=f"));
        }
        let mut told = Vec::new();
        for path in paths {
            told.push(self.is_told(Method::GET, &path, None).await);
        }
        let search = json!({ "limit": 50, "filter": { "generic_search_term": "planted" } });
        told.push(self.is_told(Method::POST, "v3/publicRooms", Some(search)).await);
        let search = json!({ "limit": 50, "search_term": "planted" });
        told.push(self.is_told(Method::POST, "v3/user_directory/search", Some(search)).await);
        let sliding = "unstable/org.matrix.simplified_msc3575/sync?timeout=0";
        told.push(self.is_told(Method::POST, sliding, Some(slid(room))).await);
        told
    }
}

/// All that sliding sync tells of this room, and of all.
fn slid(room: &str) -> Value {
    let state = json!([["*", "*"], ["m.room.member", "*"]]);
    let enabled = json!({ "enabled": true });
    json!({
        "conn_id": "all of it",
        "lists": { "all": { "ranges": [[0, 99]], "timeline_limit": 100, "required_state": state } },
        "room_subscriptions": { room: { "timeline_limit": 100, "required_state": state } },
        "extensions": {
            "to_device": enabled, "e2ee": enabled, "account_data": enabled, "receipts": enabled, "typing": enabled,
        },
    })
}

/// Where this was said.
fn saying<'a>(told: &'a [Told], words: &str) -> Vec<&'a str> {
    told.iter().filter(|told| told.text.contains(words)).map(|told| told.what.as_str()).collect()
}
