//! What a push gateway is told, and what it says to that.
//!
//! <https://spec.matrix.org/v1.19/push-gateway-api/>

use std::time::Duration;

use bytes::Bytes;
use hearth_core::{Error, Result};
use hearth_storage::pushers::Held;
use ruma::{UserId, events::TimelineEventType, push::Action};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{
    Body,
    judge::{Judged, State, text_of, tweaks},
};
use crate::http_client::{Bounds, HttpClient};

const BOUNDS: Bounds = Bounds { time: Duration::from_secs(30), bytes: 64 << 10 };

#[derive(Serialize)]
struct Request<'a> {
    notification: Notification<'a>,
}

#[derive(Serialize)]
pub(super) struct Notification<'a> {
    #[serde(flatten)]
    event: Option<EventId<'a>>,
    #[serde(flatten)]
    more: Option<More<'a>>,
    counts: Counts,
    devices: [Device<'a>; 1],
}

#[derive(Serialize)]
struct EventId<'a> {
    event_id: &'a str,
    room_id: &'a str,
    prio: &'static str,
}

#[derive(Serialize)]
struct More<'a> {
    r#type: String,
    sender: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_is_target: Option<bool>,
    content: &'a RawValue,
}

/// Zero is said, too: a gateway that hears of no number leaves the one that an icon shows.
#[derive(Serialize)]
struct Counts {
    unread: i64,
}

#[derive(Serialize)]
struct Device<'a> {
    app_id: &'a str,
    pushkey: &'a str,
    /// In seconds.
    pushkey_ts: i64,
    data: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    tweaks: Map<String, Value>,
}

/// An event that a user is to be told of.
pub(super) struct Told<'a> {
    pub(super) judged: &'a Judged,
    pub(super) room_sn: i64,
    pub(super) state: &'a State,
    pub(super) user: &'a UserId,
}

impl<'a> Notification<'a> {
    /// Only how much is unread.
    pub(super) fn of_badge(held: &'a Held, body: &Body, unread: i64) -> Self {
        let mut data = body.data.clone();
        data.remove("url");
        let (app_id, pushkey, pushkey_ts) = (&held.app_id, &held.pushkey, held.set_ms / 1_000);
        let device = Device { app_id, pushkey, pushkey_ts, data, tweaks: Map::new() };
        Self { event: None, more: None, counts: Counts { unread }, devices: [device] }
    }

    pub(super) fn of_event(held: &'a Held, body: &Body, unread: i64, told: &Told<'a>) -> Self {
        let mut notification = Self::of_badge(held, body, unread);
        let Judged { pdu, actions } = told.judged;
        let tweaks = tweaks(actions);
        // What is encrypted may be anything: the client has to look.
        let is_encrypted = pdu.event_type == TimelineEventType::RoomEncrypted;
        let is_urgent = is_encrypted || tweaks.contains_key("sound") || actions.iter().any(Action::is_highlight);
        let prio = if is_urgent { "high" } else { "low" };
        notification.event = Some(EventId { event_id: pdu.event_id.as_str(), room_id: pdu.room_id.as_str(), prio });
        if body.wants_ids_only() {
            return notification;
        }
        let text = |kind, key: &str, field| text_of(told.state, told.room_sn, kind, key, field);
        let is_member = pdu.event_type == TimelineEventType::RoomMember;
        notification.more = Some(More {
            r#type: pdu.event_type.to_string(),
            sender: &pdu.sender,
            sender_display_name: text("m.room.member", pdu.sender.as_str(), "displayname"),
            room_name: text("m.room.name", "", "name"),
            room_alias: text("m.room.canonical_alias", "", "alias"),
            user_is_target: is_member.then(|| pdu.state_key.as_deref() == Some(told.user.as_str())),
            content: &pdu.content,
        });
        notification.devices[0].tweaks = tweaks;
        notification
    }
}

/// What became of a notification.
#[derive(Debug)]
pub(super) enum Sent {
    Taken,
    /// The gateway knows nothing of the pushkey.
    Rejected,
    /// To be tried again.
    Failed(String),
    /// The server stops, and waited no longer for an answer.
    Stopped,
}

impl Sent {
    /// For the metric.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Rejected => "rejected",
            Self::Failed(_) => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Tells the pusher's gateway.
pub(super) async fn send(http: &HttpClient, body: &Body, notification: Notification<'_>) -> Result<Sent> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        rejected: Vec<String>,
    }
    let Some(url) = body.url() else { return Ok(Sent::Failed("there is no URL".to_owned())) };
    let pushkey = notification.devices[0].pushkey;
    let json = serde_json::to_vec(&Request { notification }).map_err(Error::internal)?;
    Ok(match http.post_json(&url, Bytes::from(json), BOUNDS).await {
        Ok(answer) if answer.status.is_success() => {
            // Whoever takes it and says nothing rejects nothing: to tell it again would be to disturb somebody twice.
            let said = serde_json::from_slice::<Answer>(&answer.body);
            let is_rejected = said.is_ok_and(|said| said.rejected.iter().any(|key| key == pushkey));
            if is_rejected { Sent::Rejected } else { Sent::Taken }
        }
        Ok(answer) => Sent::Failed(format!("status {}", answer.status.as_u16())),
        Err(why) => Sent::Failed(why.to_string()),
    })
}
