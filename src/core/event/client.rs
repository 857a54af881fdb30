//! What clients get of an event.

use std::sync::Arc;

use ruma::{EventId, events::TimelineEventType};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Pdu;
use crate::{Error, Result};

/// An event in the form for clients, made once and shared by all who read it.
///
/// What differs from reader to reader stands in `unsigned`, so the shared text ends before it: it is an object without its
/// closing brace, whose last field is `room_id`. A reader's copy is `head`, then `,"unsigned":{…}` if there is any, then
/// `}`; without the last field it is the form for sync, where the room is known from the place.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>
#[derive(Debug, Clone)]
pub struct ClientEvent {
    head: Arc<str>,
    room_at: usize,
}

/// What a server adds to an event for one reader.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#definition-clientevent_unsigneddata>
#[derive(Debug, Clone, Default, Serialize)]
pub struct Unsigned {
    /// Milliseconds since the event was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
    /// Only for the device that sent the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_content: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces_state: Option<String>,
    /// The reader's own membership at the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_because: Option<Box<RawValue>>,
    /// Stripped state for the one who is invited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_room_state: Option<Vec<Box<RawValue>>>,
    /// Stripped state for the one who knocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knock_room_state: Option<Vec<Box<RawValue>>>,
    /// Bundled aggregations.
    #[serde(rename = "m.relations", skip_serializing_if = "Option::is_none")]
    pub relations: Option<Box<RawValue>>,
}

impl Unsigned {
    pub fn is_empty(&self) -> bool {
        let Self {
            age,
            transaction_id,
            prev_content,
            prev_sender,
            replaces_state,
            membership,
            redacted_because,
            invite_room_state,
            knock_room_state,
            relations,
        } = self;
        age.is_none()
            && transaction_id.is_none()
            && prev_content.is_none()
            && prev_sender.is_none()
            && replaces_state.is_none()
            && membership.is_none()
            && redacted_because.is_none()
            && invite_room_state.is_none()
            && knock_room_state.is_none()
            && relations.is_none()
    }
}

impl ClientEvent {
    /// The whole event, with its room.
    pub fn with_unsigned(&self, unsigned: &Unsigned) -> Result<Box<RawValue>> {
        finish(&self.head, unsigned)
    }

    /// The event for a sync reply, which names the room elsewhere.
    pub fn without_room(&self, unsigned: &Unsigned) -> Result<Box<RawValue>> {
        finish(&self.head[..self.room_at], unsigned)
    }

    /// The shared text, an object that lacks its closing brace.
    pub fn head(&self) -> &Arc<str> {
        &self.head
    }

    /// What a cache pays for this event.
    pub fn size(&self) -> usize {
        self.head.len()
    }
}

fn finish(head: &str, unsigned: &Unsigned) -> Result<Box<RawValue>> {
    let mut json = String::with_capacity(head.len() + 80);
    json.push_str(head);
    if !unsigned.is_empty() {
        json.push_str(r#","unsigned":"#);
        json.push_str(&serde_json::to_string(unsigned).map_err(Error::internal)?);
    }
    json.push('}');
    RawValue::from_string(json).map_err(Error::internal)
}

/// The form for clients. The target of a redaction stands both in `content` and beside it, whatever the room version, so
/// that clients of any age find it.
///
/// <https://spec.matrix.org/v1.19/rooms/v11/#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property>
pub fn client_json(pdu: &Pdu) -> Result<ClientEvent> {
    #[derive(Serialize)]
    struct Shared<'a> {
        content: &'a RawValue,
        event_id: &'a str,
        origin_server_ts: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        redacts: Option<&'a str>,
        sender: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        state_key: Option<&'a str>,
        r#type: &'a TimelineEventType,
    }
    let redacts = pdu.redacts.as_deref().map(EventId::as_str);
    let content = redacts.map(|id| content_with_redacts(&pdu.content, id)).transpose()?;
    let shared = Shared {
        content: content.as_deref().unwrap_or(&pdu.content),
        event_id: pdu.event_id.as_str(),
        origin_server_ts: pdu.origin_server_ts.get().into(),
        redacts,
        sender: pdu.sender.as_str(),
        state_key: pdu.state_key.as_deref(),
        r#type: &pdu.event_type,
    };
    let mut head = serde_json::to_string(&shared).map_err(Error::internal)?;
    head.pop();
    let room_at = head.len();
    head.push_str(r#","room_id":"#);
    head.push_str(&serde_json::to_string(&pdu.room_id).map_err(Error::internal)?);
    Ok(ClientEvent { head: head.into(), room_at })
}

/// Adds `redacts` to a content that lacks it. Redactions are rare and small, so this may parse.
fn content_with_redacts(content: &RawValue, redacts: &str) -> Result<Box<RawValue>> {
    let mut fields: std::collections::BTreeMap<String, &RawValue> =
        serde_json::from_str(content.get()).map_err(Error::internal)?;
    let redacts = to_raw_value(redacts).map_err(Error::internal)?;
    fields.entry("redacts".to_owned()).or_insert(&redacts);
    to_raw_value(&fields).map_err(Error::internal)
}

/// A state event for somebody who is not in the room yet.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
pub fn stripped_json(pdu: &Pdu) -> Result<Box<RawValue>> {
    #[derive(Serialize)]
    struct Stripped<'a> {
        content: &'a RawValue,
        sender: &'a str,
        state_key: &'a str,
        r#type: &'a TimelineEventType,
    }
    let stripped = Stripped {
        content: &pdu.content,
        sender: pdu.sender.as_str(),
        state_key: pdu.state_key.as_deref().unwrap_or_default(),
        r#type: &pdu.event_type,
    };
    to_raw_value(&stripped).map_err(Error::internal)
}
