//! Somebody with an account, for stories in which accounts are not the point.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Given, Http, Reply, Server};

/// Somebody who is logged in.
pub struct Person {
    http: Http,
    pub id: String,
    token: String,
}

impl Given {
    /// A server where anybody may register.
    pub async fn open_server(&self) -> Server {
        self.server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
        })
        .await
    }
}

impl Person {
    pub async fn comes(http: &Http, name: &str) -> Self {
        let body = json!({ "username": name, "auth": { "type": "m.login.dummy" } });
        let welcome = http.post("/_matrix/client/v3/register", &body).await.ok();
        let text = |key: &str| welcome[key].as_str().unwrap_or_else(|| panic!("{key} in {welcome}")).to_owned();
        Self { http: http.clone(), id: text("user_id"), token: text("access_token") }
    }

    /// `path` is what follows `/_matrix/client/v3/`.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request = self.http.request(method, &format!("/_matrix/client/v3/{path}")).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(body) } else { request };
        self.http.send(request).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None).await
    }

    /// The id of a new room.
    pub async fn creates(&self, wish: &Value) -> String {
        let made = self.post("createRoom", wish).await.ok();
        made["room_id"].as_str().unwrap_or_else(|| panic!("room_id in {made}")).to_owned()
    }

    pub async fn joins(&self, room: &str) {
        self.post(&format!("join/{room}"), &json!({})).await.ok();
    }

    pub async fn leaves(&self, room: &str) {
        self.post(&format!("rooms/{room}/leave"), &json!({})).await.ok();
    }

    /// The id of the message.
    pub async fn says(&self, room: &str, text: &str) -> String {
        self.sends_as(room, text, &format!("txn-{text}")).await
    }

    /// With a transaction id that the story chooses.
    pub async fn sends_as(&self, room: &str, text: &str, txn: &str) -> String {
        let path = format!("rooms/{room}/send/m.room.message/{txn}");
        let sent = self.put(&path, &json!({ "msgtype": "m.text", "body": text })).await.ok();
        sent["event_id"].as_str().unwrap_or_else(|| panic!("event_id in {sent}")).to_owned()
    }

    /// One sync that doesn't wait; `query` begins with `&` if there is any.
    pub async fn syncs(&self, query: &str) -> Value {
        self.get(&format!("sync?timeout=0{query}")).await.ok()
    }
}
