//! As much of the client-server API as a load needs.

use std::time::Duration;

use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Value, json};

use crate::http::{Http, Reply};

const LIMIT: Duration = Duration::from_secs(30);

/// A logged-in user.
#[derive(Clone)]
pub struct User {
    pub http: Http,
    pub id: String,
    pub token: String,
}

/// Percent-encodes one segment of a path.
pub fn segment(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len() + 8);
    for byte in raw.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl User {
    pub async fn register(http: &Http, name: &str) -> Result<Self> {
        let body = json!({
            "username": name,
            "password": format!("{name}-and-a-long-password"),
            "initial_device_display_name": "bench",
            "auth": {"type": "m.login.dummy"},
        });
        let reply = http.send(Method::POST, "/_matrix/client/v3/register", None, Some(&body), LIMIT).await?;
        let reply = reply.ok().with_context(|| format!("registering {name}"))?;
        Ok(Self { http: http.clone(), id: text(&reply, "user_id")?, token: text(&reply, "access_token")? })
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        self.http.send(method, path, Some(&self.token), body, LIMIT).await
    }

    pub async fn create_room(&self, name: &str) -> Result<String> {
        let body = json!({"name": name, "preset": "public_chat"});
        let reply = self.call(Method::POST, "/_matrix/client/v3/createRoom", Some(&body)).await?;
        text(&reply.ok().context("creating a room")?, "room_id")
    }

    pub async fn join(&self, room: &str) -> Result<()> {
        let path = format!("/_matrix/client/v3/join/{}", segment(room));
        self.call(Method::POST, &path, Some(&json!({}))).await?.ok().context("joining a room")?;
        Ok(())
    }

    /// Sends a text message; the reply may be anything.
    pub async fn send(&self, room: &str, txn: &str, body: &str) -> Result<Reply> {
        self.send_content(room, txn, &json!({"msgtype": "m.text", "body": body})).await
    }

    /// The same, with all that the message says.
    pub async fn send_content(&self, room: &str, txn: &str, content: &Value) -> Result<Reply> {
        self.send_event(room, "m.room.message", txn, content).await
    }

    pub async fn send_event(&self, room: &str, kind: &str, txn: &str, content: &Value) -> Result<Reply> {
        let path = format!("/_matrix/client/v3/rooms/{}/send/{kind}/{}", segment(room), segment(txn));
        self.call(Method::PUT, &path, Some(content)).await
    }

    /// Says that the room is encrypted.
    pub async fn encrypt(&self, room: &str) -> Result<()> {
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.encryption/", segment(room));
        let body = json!({"algorithm": "m.megolm.v1.aes-sha2"});
        self.call(Method::PUT, &path, Some(&body)).await?.ok().context("encrypting a room")?;
        Ok(())
    }

    /// One sync; `wait` is how long the server may hold it.
    pub async fn sync(&self, since: Option<&str>, filter: &str, wait: Duration) -> Result<Reply> {
        let mut path = format!("/_matrix/client/v3/sync?timeout={}&filter={}", wait.as_millis(), segment(filter));
        if let Some(since) = since {
            path.push_str("&since=");
            path.push_str(&segment(since));
        }
        self.http.send(Method::GET, &path, Some(&self.token), None, wait + LIMIT).await
    }

    /// One page of a room's history, newest first.
    pub async fn messages(&self, room: &str, from: Option<&str>) -> Result<Value> {
        let mut path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=500", segment(room));
        if let Some(from) = from {
            path.push_str("&from=");
            path.push_str(&segment(from));
        }
        self.call(Method::GET, &path, None).await?.ok().with_context(|| format!("paging {room}"))
    }
}

pub fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value.get(key).and_then(Value::as_str).with_context(|| format!("no '{key}' in {value}"))?.to_owned())
}
