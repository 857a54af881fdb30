//! People, and what they do in rooms.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use super::{Given, Http, Reply, Server};

/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(20);
pub const PASSWORD: &str = "correct horse battery staple";

/// A server where anybody may register.
pub async fn open_server(given: &Given) -> Server {
    given
        .server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
        })
        .await
}

/// Somebody on a device of theirs.
pub struct Person {
    http: Http,
    pub id: String,
    pub device: String,
    pub token: String,
    since: Mutex<Option<String>>,
    sent: AtomicU32,
}

/// A part of a path.
pub fn escaped(part: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    part.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Person {
    /// Who was welcomed with this answer.
    pub fn from(http: &Http, welcome: &Value) -> Self {
        let text = |key: &str| welcome[key].as_str().unwrap_or_else(|| panic!("{key} in {welcome}")).to_owned();
        Self {
            http: http.clone(),
            id: text("user_id"),
            device: text("device_id"),
            token: text("access_token"),
            since: Mutex::default(),
            sent: AtomicU32::new(0),
        }
    }

    pub async fn registers(http: &Http, name: &str) -> Self {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": PASSWORD, "auth": auth });
        Self::from(http, &http.post("/_matrix/client/v3/register", &body).await.ok())
    }

    /// Somebody who is registered, on a new device.
    pub async fn logs_in(http: &Http, name: &str) -> Self {
        let user = json!({ "type": "m.id.user", "user": name });
        let body = json!({ "type": "m.login.password", "identifier": user, "password": PASSWORD });
        Self::from(http, &http.post("/_matrix/client/v3/login", &body).await.ok())
    }

    /// The same person on a new device, perhaps on another server of the deployment.
    pub async fn logs_in_on(&self, http: &Http) -> Self {
        Self::logs_in(http, &self.id).await
    }

    /// A new session with the id of this device.
    pub async fn logs_in_again(&self, http: &Http) -> Self {
        let body = json!({
            "type": "m.login.password", "identifier": { "type": "m.id.user", "user": self.id }, "password": PASSWORD,
            "device_id": self.device,
        });
        Self::from(http, &http.post("/_matrix/client/v3/login", &body).await.ok())
    }

    /// The same device, talking to another server of the deployment.
    pub fn turns_to(&self, http: &Http) -> Self {
        Self {
            http: http.clone(),
            id: self.id.clone(),
            device: self.device.clone(),
            token: self.token.clone(),
            since: Mutex::new(self.since.lock().expect("not poisoned").clone()),
            sent: AtomicU32::new(self.sent.load(Ordering::Relaxed)),
        }
    }

    pub fn http(&self) -> &Http {
        &self.http
    }

    /// A transaction id that this device has not used.
    pub fn next_txn(&self) -> String {
        format!("{}-{}", self.device, self.sent.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request = self.http.request(method, &format!("/_matrix/client/v3{path}")).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(body) } else { request };
        self.http.send(request).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, Some(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PUT, path, Some(&body)).await
    }

    pub async fn creates(&self, wish: Value) -> String {
        let reply = self.post("/createRoom", wish).await.ok();
        reply["room_id"].as_str().expect("a room id").to_owned()
    }

    /// A room that anybody may join.
    pub async fn opens_a_room(&self) -> String {
        self.creates(json!({ "preset": "public_chat" })).await
    }

    pub async fn asks(&self, room: &str, what: &str, body: Value) -> Reply {
        self.post(&format!("/rooms/{}/{what}", escaped(room)), body).await
    }

    pub async fn joins(&self, room: &str) {
        self.asks(room, "join", json!({})).await.ok();
    }

    pub async fn leaves(&self, room: &str) {
        self.asks(room, "leave", json!({})).await.ok();
    }

    pub async fn invites(&self, room: &str, other: &Self) {
        self.asks(room, "invite", json!({ "user_id": other.id })).await.ok();
    }

    /// Kick, ban, unban.
    pub async fn does(&self, what: &str, room: &str, other: &Self) {
        self.asks(room, what, json!({ "user_id": other.id })).await.ok();
    }

    pub async fn sends(&self, room: &str, txn: &str, body: &str) -> Reply {
        let content = json!({ "msgtype": "m.text", "body": body });
        self.put(&format!("/rooms/{}/send/m.room.message/{txn}", escaped(room)), content).await
    }

    /// Ignores these, and nobody else from now on.
    pub async fn ignores(&self, others: &[&Self]) {
        let list: serde_json::Map<_, _> = others.iter().map(|other| (other.id.clone(), json!({}))).collect();
        let path = format!("/user/{}/account_data/m.ignored_user_list", self.id);
        self.put(&path, json!({ "ignored_users": list })).await.ok();
    }

    /// A message; its id.
    pub async fn says(&self, room: &str, body: &str) -> String {
        event_id(&self.sends(room, &self.next_txn(), body).await)
    }

    /// A message to a server that may die; its id if it was answered.
    pub async fn tries_to_say(&self, room: &str, n: u32) -> Option<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/try{n}", escaped(room));
        let content = json!({ "msgtype": "m.text", "body": n.to_string() });
        let request = self.http.request(Method::PUT, &path).bearer_auth(&self.token).json(&content);
        let reply: Value = request.send().await.ok()?.json().await.ok()?;
        Some(reply["event_id"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned())
    }

    pub async fn sets(&self, room: &str, kind: &str, key: &str, content: Value) -> Reply {
        self.put(&format!("/rooms/{}/state/{kind}/{}", escaped(room), escaped(key)), content).await
    }

    pub async fn redacts(&self, room: &str, event: &str) -> Reply {
        let txn = self.sent.fetch_add(1, Ordering::Relaxed);
        self.put(&format!("/rooms/{}/redact/{}/r{txn}", escaped(room), escaped(event)), json!({})).await
    }

    pub async fn reads(&self, room: &str, what: &str) -> Reply {
        self.get(&format!("/rooms/{}/{what}", escaped(room))).await
    }

    pub async fn event(&self, room: &str, event: &str) -> Reply {
        self.reads(room, &format!("event/{}", escaped(event))).await
    }

    /// What a sync with these parameters says; the token for the next is left alone.
    pub async fn sync(&self, parameters: &str) -> Value {
        self.get(&format!("/sync?{parameters}")).await.ok()
    }

    /// What sliding sync answers.
    pub async fn slides(&self, parameters: &str, body: &Value) -> Reply {
        self.http.send(self.sliding_request(parameters, body)).await
    }

    fn sliding_request(&self, parameters: &str, body: &Value) -> reqwest::RequestBuilder {
        let path = format!("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?{parameters}");
        self.http.request(Method::POST, &path).bearer_auth(&self.token).json(body)
    }

    /// Begins to wait for what sliding sync has to tell.
    pub async fn waits_for(&self, pos: &str, body: &Value) -> Waiting {
        self.begins(self.sliding_request(&format!("timeout=600000&pos={pos}"), body)).await
    }

    /// What is new since the last time.
    pub async fn syncs(&self) -> Value {
        self.syncs_with("").await
    }

    pub async fn syncs_with(&self, parameters: &str) -> Value {
        let since = self.since.lock().expect("not poisoned").clone();
        let since = since.map_or(String::new(), |since| format!("&since={since}"));
        let page = self.sync(&format!("timeout=0{since}{parameters}")).await;
        *self.since.lock().expect("not poisoned") = page["next_batch"].as_str().map(str::to_owned);
        page
    }

    pub fn since(&self) -> String {
        self.since.lock().expect("not poisoned").clone().expect("has synced")
    }

    /// Begins to wait for what is new. The answer comes long before the time that the poll asks for.
    pub async fn waits(&self) -> Waiting {
        let path = format!("/_matrix/client/v3/sync?timeout=600000&since={}", self.since());
        self.begins(self.http.request(Method::GET, &path).bearer_auth(&self.token)).await
    }

    async fn begins(&self, request: reqwest::RequestBuilder) -> Waiting {
        let http = self.http.clone();
        let waiting = Waiting(tokio::spawn(async move { http.send(request).await.ok() }));
        // So that it has probably arrived when the next request does; nothing is wrong if it has not.
        for _ in 0..3 {
            self.get("/account/whoami").await.ok();
        }
        waiting
    }

    /// Is shown this event by the next sync.
    pub async fn sees(&self, room: &str, event: &str) {
        let page = self.syncs().await;
        assert!(timeline(&page, room).contains(&event.to_owned()), "{} does not see {event}: {page}", self.id);
    }

    /// Is shown nothing of the room by the next sync.
    pub async fn sees_nothing_of(&self, room: &str) {
        let page = self.syncs().await;
        for section in ["join", "leave", "invite"] {
            assert!(page["rooms"][section].get(room).is_none(), "{} sees {room}: {page}", self.id);
        }
    }

    /// All events of a room that this person can page to.
    pub async fn pages(&self, room: &str, parameters: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut query = parameters.to_owned();
        loop {
            let page = self.reads(room, &format!("messages?{query}")).await.ok();
            all.extend(ids(&page["chunk"]));
            let Some(end) = page["end"].as_str() else { return all };
            let others: Vec<&str> = parameters.split('&').filter(|p| !p.starts_with("from=")).collect();
            query = format!("{}&from={end}", others.join("&"));
        }
    }
}

/// A long poll under way.
pub struct Waiting(JoinHandle<Value>);

impl Waiting {
    pub async fn ends(self) -> Value {
        timeout(LONG, self.0).await.expect("the poll is answered").expect("an answer")
    }
}

pub fn event_id(reply: &Reply) -> String {
    reply.ok()["event_id"].as_str().expect("an event id").to_owned()
}

pub fn ids(events: &Value) -> Vec<String> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|e| e["event_id"].as_str().expect("an event id").to_owned()).collect()
}

/// The room as a sync shows it to somebody in it.
pub fn joined<'a>(page: &'a Value, room: &str) -> &'a Value {
    &page["rooms"]["join"][room]
}

/// The ids in the timeline of a room that somebody is in.
pub fn timeline(page: &Value, room: &str) -> Vec<String> {
    ids(&joined(page, room)["timeline"]["events"])
}

/// The first event of this type.
pub fn of_type<'a>(events: &'a Value, kind: &str) -> Option<&'a Value> {
    events.as_array()?.iter().find(|e| e["type"] == kind)
}

/// Follows a room with one device, asking these servers in turn, while others write; until everything was seen that they
/// say they wrote. All of it, in the order in which it came.
pub async fn follows(devices: &[Person], room: &str, writers: impl Future<Output = Vec<String>>) -> Vec<String> {
    let done = Mutex::new(None);
    let write = async {
        let written = writers.await;
        *done.lock().expect("not poisoned") = Some(written);
    };
    let read = async {
        let mut seen: Vec<String> = Vec::new();
        let mut since = devices[0].since();
        for device in devices.iter().cycle() {
            let all_there = |written: &Vec<String>| written.iter().all(|id| seen.contains(id));
            if done.lock().expect("not poisoned").as_ref().is_some_and(all_there) {
                break;
            }
            let filter = escaped(r#"{"room":{"timeline":{"limit":100}}}"#);
            let page = device.sync(&format!("timeout=100&since={since}&filter={filter}")).await;
            since = page["next_batch"].as_str().expect("a token").to_owned();
            assert!(joined(&page, room)["timeline"]["limited"] != true, "{page}");
            for id in timeline(&page, room) {
                assert!(!seen.contains(&id), "{id} came twice");
                seen.push(id);
            }
        }
        seen
    };
    let (seen, ()) = timeout(3 * LONG, futures_util::future::join(read, write)).await.expect("everything comes");
    seen
}
