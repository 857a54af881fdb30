//! A push gateway, which speaks the Push Gateway API over HTTP and remembers what it was told.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::people::{LONG, Person};

pub const PATH: &str = "/_matrix/push/v1/notify";

/// How it treats those who come.
#[derive(Clone, Debug, Default)]
struct Mood {
    /// Answered with this instead of being taken.
    fails: Option<StatusCode>,
    /// Kept waiting.
    holds: bool,
    rejects: BTreeSet<String>,
}

#[derive(Default)]
struct Told {
    /// What was taken.
    notes: Vec<Value>,
    /// How often somebody came.
    tries: usize,
}

#[derive(Clone)]
struct Inner {
    mood: Arc<watch::Sender<Mood>>,
    told: Arc<watch::Sender<Told>>,
}

pub struct Gateway {
    address: SocketAddr,
    inner: Inner,
    /// How many notes the test has looked at.
    seen: Mutex<usize>,
}

impl Gateway {
    pub async fn start() -> Self {
        let inner = Inner { mood: Arc::default(), told: Arc::default() };
        let router = Router::new().route(PATH, post(notify)).with_state(inner.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, inner, seen: Mutex::new(0) }
    }

    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers everybody with this from now on.
    pub fn fails_with(&self, status: u16) {
        self.inner.mood.send_modify(|mood| mood.fails = Some(StatusCode::from_u16(status).expect("a status")));
    }

    pub fn works_again(&self) {
        self.inner.mood.send_modify(|mood| (mood.fails, mood.holds) = (None, false));
    }

    /// Keeps everybody waiting from now on.
    pub fn hangs(&self) {
        self.inner.mood.send_modify(|mood| mood.holds = true);
    }

    pub fn rejects(&self, pushkey: &str) {
        self.inner.mood.send_modify(|mood| _ = mood.rejects.insert(pushkey.to_owned()));
    }

    pub fn tries(&self) -> usize {
        self.inner.told.borrow().tries
    }

    /// Returns when somebody has come so often.
    pub async fn was_tried(&self, times: usize) {
        let mut told = self.inner.told.subscribe();
        let tried = timeout(LONG, told.wait_for(|told| told.tries >= times)).await;
        assert!(tried.is_ok(), "tried {} times, not {times}", self.tries());
    }

    /// The next notification that is taken, after those that the test has had.
    pub async fn note(&self) -> Value {
        let at = *self.seen.lock().expect("not poisoned");
        let mut told = self.inner.told.subscribe();
        let note = match timeout(LONG, told.wait_for(|told| told.notes.len() > at)).await {
            Ok(told) => told.expect("the gateway is there").notes[at].clone(),
            Err(_) => panic!("nothing was pushed"),
        };
        *self.seen.lock().expect("not poisoned") += 1;
        note
    }

    /// How many were taken that the test has not looked at.
    pub fn unseen(&self) -> usize {
        self.inner.told.borrow().notes.len() - *self.seen.lock().expect("not poisoned")
    }

    /// The next notification is about this event.
    pub async fn is_told_of(&self, event: &str) -> Value {
        let note = self.note().await;
        assert_eq!(note["event_id"], event, "{note}");
        note
    }

    /// The next notification says only how much is unread.
    pub async fn is_told_the_badge(&self, unread: u32) {
        let note = self.note().await;
        assert!(note.get("event_id").is_none(), "{note}");
        assert_eq!(note["counts"]["unread"], unread, "{note}");
    }
}

async fn notify(State(inner): State<Inner>, body: String) -> (StatusCode, String) {
    let mut mood = inner.mood.subscribe();
    let fails = mood.borrow().fails;
    inner.told.send_modify(|told| told.tries += 1);
    if let Some(status) = fails {
        return (status, json!({ "errcode": "M_UNKNOWN", "error": "out of order" }).to_string());
    }
    let mood = mood.wait_for(|mood| !mood.holds).await.expect("the gateway is there").clone();
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let note = body["notification"].clone();
    let devices = note["devices"].as_array().cloned().unwrap_or_default();
    let keys = devices.iter().filter_map(|device| device["pushkey"].as_str());
    let rejected: Vec<&str> = keys.filter(|key| mood.rejects.contains(*key)).collect();
    let answer = json!({ "rejected": rejected });
    if rejected.is_empty() {
        inner.told.send_modify(|told| told.notes.push(note));
    }
    (StatusCode::OK, answer.to_string())
}

/// A pusher as a client sets it.
pub fn pusher(url: &str, key: &str) -> Value {
    json!({
        "kind": "http", "app_id": "org.example.app", "pushkey": key, "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en", "data": { "url": url },
    })
}

impl Person {
    pub async fn sets_pusher(&self, gateway: &Gateway, key: &str) {
        self.post("/pushers/set", pusher(&gateway.url(), key)).await.ok();
    }

    /// The keys of this person's pushers.
    pub async fn pushkeys(&self) -> Vec<String> {
        let all = self.get("/pushers").await.ok()["pushers"].clone();
        let all = all.as_array().expect("a list");
        all.iter().map(|pusher| pusher["pushkey"].as_str().expect("a key").to_owned()).collect()
    }
}
