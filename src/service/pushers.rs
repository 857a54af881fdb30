//! Pushers: where users want to be told of what happens while they don't sync.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

mod deliver;
mod gateway;
mod judge;

use std::sync::Arc;

use hearth_core::{
    Error, Result,
    clock::{Clock, Rng, random_string},
    limits::nests_at_most,
};
use hearth_storage::{
    Storage,
    pushers::{NewPusher, PusherRow, PusherSet},
};
use ruma::{
    UserId,
    api::client::push::{Pusher, PusherIds, PusherInit, PusherKind},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

pub use self::deliver::Deliveries;
pub(super) use self::judge::{Judged, Owner, judge};
use super::session::Session;
use crate::{config::BadgeCounts, http_client::HttpClient};

/// What a gateway answers to.
///
/// <https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify>
const PATH: &str = "/_matrix/push/v1/notify";
const MAX_APP_ID_CHARS: usize = 64;
const MAX_PUSHKEY_BYTES: usize = 512;
/// Of a name, a tag or a language.
const MAX_TEXT_BYTES: usize = 1_024;
/// Of all that is meant for the gateway.
const MAX_DATA_BYTES: usize = 8_192;
const MAX_DATA_DEPTH: usize = 20;
/// A device has one, some have two or three.
const MOST_OF_ONE: i64 = 200;

/// Keeps pushers.
pub struct Pushers {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    http: HttpClient,
    badge_counts: BadgeCounts,
}

/// What is kept of a pusher beside its names.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Body {
    app_display_name: String,
    device_display_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile_tag: Option<String>,
    lang: String,
    /// The URL among it.
    pub(super) data: Map<String, Value>,
}

impl Body {
    /// Where the pusher's gateway is.
    pub(super) fn url(&self) -> Option<Url> {
        self.data.get("url")?.as_str()?.parse().ok()
    }

    /// Whether no more is to be said of an event than its id.
    pub(super) fn wants_ids_only(&self) -> bool {
        self.data.get("format").and_then(Value::as_str) == Some("event_id_only")
    }

    pub(super) fn parse(body: &str) -> Result<Self> {
        serde_json::from_str(body).map_err(Error::internal)
    }
}

impl Pushers {
    pub fn new(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        http: HttpClient,
        badge_counts: BadgeCounts,
    ) -> Self {
        Self { storage, clock, rng, http, badge_counts }
    }

    /// What the user has set.
    pub async fn all(&self, user: &UserId) -> Result<Vec<Pusher>> {
        let shown = |row: PusherRow| {
            let PusherRow { app_id, pushkey, body } = row;
            let Body { app_display_name, device_display_name, profile_tag, lang, data } = Body::parse(&body)?;
            let kind = json!({ "kind": "http", "data": data });
            let kind: PusherKind = serde_json::from_value(kind).map_err(Error::internal)?;
            let ids = PusherIds::new(pushkey, app_id);
            Ok(PusherInit { ids, kind, app_display_name, device_display_name, profile_tag, lang }.into())
        };
        self.storage.pushers(user.as_str()).await?.into_iter().map(shown).collect()
    }

    /// Sets a pusher of the session. Unless `append`, no other user has one of the same app and key from then on.
    pub async fn set(&self, session: &Session, pusher: Pusher, append: bool) -> Result<()> {
        let PusherKind::Http(data) = pusher.kind else {
            return Err(Error::invalid_param("This server knows pushers of the kind `http` only"));
        };
        check_ids(&pusher.ids)?;
        let mut all = Map::from_iter(data.data);
        all.insert("url".to_owned(), data.url.into());
        if let Some(format) = data.format {
            all.insert("format".to_owned(), format.as_str().into());
        }
        let Pusher { ids, app_display_name, device_display_name, profile_tag, lang, .. } = pusher;
        let body = Body { app_display_name, device_display_name, profile_tag, lang, data: all };
        self.check(&body)?;
        let badge = self.shown_by(&session.user_id, &ids).await?;
        let new = NewPusher {
            pusher_id: random_string(&*self.rng, 16),
            user_id: session.user_id.to_string(),
            device_id: session.device_id.to_string(),
            pusher: PusherRow { app_id: ids.app_id, pushkey: ids.pushkey, body: json!(body).to_string() },
            set_ms: self.clock.now_ms(),
            append,
            most: MOST_OF_ONE,
            badge,
        };
        match self.storage.set_pusher(new).await? {
            PusherSet::Done => Ok(()),
            PusherSet::TooMany => Err(Error::forbidden(format!("A user has at most {MOST_OF_ONE} pushers"))),
            PusherSet::NoDevice => Err(Error::unknown_token("This session has ended")),
        }
    }

    /// What an app may show that sets a pusher. What is known of one that is set already stays: clients set theirs at each
    /// start, and all rooms have to be looked at.
    async fn shown_by(&self, user: &UserId, ids: &PusherIds) -> Result<i64> {
        let set = self.storage.pushers(user.as_str()).await?;
        match set.iter().any(|set| set.app_id == ids.app_id && set.pushkey == ids.pushkey) {
            true => Ok(0),
            false => unread(&*self.storage, user.as_str(), self.badge_counts).await,
        }
    }

    /// Removes a pusher of the user; there need be none.
    pub async fn remove(&self, user: &UserId, ids: &PusherIds) -> Result<()> {
        check_ids(ids)?;
        self.storage.remove_pusher(user.as_str(), &ids.app_id, &ids.pushkey).await?;
        Ok(())
    }

    fn check(&self, body: &Body) -> Result<()> {
        for (name, text) in [
            ("app_display_name", Some(&body.app_display_name)),
            ("device_display_name", Some(&body.device_display_name)),
            ("profile_tag", body.profile_tag.as_ref()),
            ("lang", Some(&body.lang)),
        ] {
            if text.is_some_and(|text| text.len() > MAX_TEXT_BYTES) {
                return Err(Error::invalid_param(format!("`{name}` has at most {MAX_TEXT_BYTES} bytes")));
            }
        }
        let data = Value::Object(body.data.clone());
        if data.to_string().len() > MAX_DATA_BYTES || !nests_at_most(&data, MAX_DATA_DEPTH) {
            return Err(Error::invalid_param(format!(
                "`data` has at most {MAX_DATA_BYTES} bytes, and {MAX_DATA_DEPTH} levels"
            )));
        }
        let url = body.url().filter(|url| url.path() == PATH && url.fragment().is_none());
        let url = url.ok_or_else(|| {
            Error::invalid_param(format!("`data.url` is a URL of the form https://push.example.org{PATH}"))
        })?;
        self.http.check(&url).map_err(|why| Error::invalid_param(format!("`data.url`: {why}")))
    }
}

/// The number on an app's icon.
async fn unread(storage: &dyn Storage, user_id: &str, counts: BadgeCounts) -> Result<i64> {
    let badge = storage.badge(user_id).await?;
    let inside = match counts {
        BadgeCounts::Rooms => badge.rooms,
        BadgeCounts::Messages => badge.messages,
    };
    Ok(inside + badge.invites)
}

fn check_ids(ids: &PusherIds) -> Result<()> {
    let bad = |text: &str| text.is_empty() || text.contains('\0');
    if bad(&ids.app_id) || ids.app_id.chars().count() > MAX_APP_ID_CHARS {
        return Err(Error::invalid_param(format!("`app_id` has from 1 to {MAX_APP_ID_CHARS} characters")));
    }
    if bad(&ids.pushkey) || ids.pushkey.len() > MAX_PUSHKEY_BYTES {
        return Err(Error::invalid_param(format!("`pushkey` has from 1 to {MAX_PUSHKEY_BYTES} bytes")));
    }
    Ok(())
}
