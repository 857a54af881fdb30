//! An event of a room, as servers exchange it (a PDU).
//!
//! [`build`](fn@build) makes a new one, [`Pdu::parse`] reads one that is stored, [`client_json`] is what clients get of it.

#[cfg(feature = "signing")]
mod build;
mod client;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    state_res,
};
use serde::Deserialize;
use serde_json::value::RawValue;

#[cfg(feature = "signing")]
pub use self::build::{Draft, build};
pub use self::client::{ClientEvent, Unsigned, client_json, stripped_json};
use crate::{Error, Result, room_version::RoomVersion};

/// An event with what the rules look at taken out of its JSON.
#[derive(Debug, Clone)]
pub struct Pdu {
    pub event_id: OwnedEventId,
    /// Filled in from the event id for the create event of a room whose id is that hash.
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub event_type: TimelineEventType,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: i64,
    /// The target of a redaction, wherever the room version puts it.
    pub redacts: Option<OwnedEventId>,
    pub rejected: bool,
    /// The whole event as canonical JSON.
    pub json: Arc<str>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    sender: OwnedUserId,
    #[serde(rename = "type")]
    event_type: TimelineEventType,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: i64,
    redacts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RedactsOf<'a> {
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
}

impl Pdu {
    /// Reads an event that this server has checked and stored. Nothing is hashed or verified again.
    pub fn parse(json: Arc<str>, event_id: OwnedEventId, room_id: OwnedRoomId, version: &RoomVersion) -> Result<Self> {
        let fields: Fields<'_> = serde_json::from_str(&json)
            .map_err(|e| Error::internal(format_args!("the stored event {event_id} does not parse: {e}")))?;
        let redacts = if fields.event_type != TimelineEventType::RoomRedaction {
            None
        } else if version.redacts_in_content() {
            serde_json::from_str::<RedactsOf<'_>>(fields.content.get()).ok().and_then(|c| c.redacts)
        } else {
            fields.redacts
        };
        // Any JSON may stand there in an event of another server; what names no event redacts none.
        let redacts = redacts.and_then(|id| serde_json::from_str(id.get()).ok());
        Ok(Self {
            event_id,
            room_id,
            sender: fields.sender,
            event_type: fields.event_type,
            state_key: fields.state_key,
            content: fields.content.to_owned(),
            origin_server_ts: fields.origin_server_ts,
            prev_events: fields.prev_events,
            auth_events: fields.auth_events,
            depth: fields.depth,
            redacts,
            rejected: false,
            json,
        })
    }

    /// The key of this event in the state of the room, if it is a state event.
    pub fn state_type(&self) -> Option<(StateEventType, &str)> {
        let state_key = self.state_key.as_deref()?;
        Some((StateEventType::from(self.event_type.to_string()), state_key))
    }

    /// The content as a type of ours, which names only the fields of interest.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_str(self.content.get())
            .map_err(|e| Error::bad_json(format!("The content of the {} event: {e}", self.event_type)))
    }

    /// The event as it is once it has been redacted: the same id, and only what the room version protects.
    ///
    /// Why it was redacted is not part of it; a client reads that from [`Unsigned::redacted_because`].
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#redactions>
    pub fn redact(&self, version: &RoomVersion) -> Result<Self> {
        let stored = |e: &dyn std::fmt::Display| {
            Error::internal(format_args!("the stored event {} can't be redacted: {e}", self.event_id))
        };
        let mut object = serde_json::from_str(&self.json).map_err(|e| stored(&e))?;
        ruma::canonical_json::redact_in_place(&mut object, &version.rules.redaction, None).map_err(|e| stored(&e))?;
        let json = serde_json::to_string(&object).map_err(|e| stored(&e))?;
        let redacted = Self::parse(json.into(), self.event_id.clone(), self.room_id.clone(), version)?;
        Ok(Self { rejected: self.rejected, ..redacted })
    }
}

impl state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// None for the create event of a room that is named after it: the rules ask what the event itself says.
    fn room_id(&self) -> Option<&RoomId> {
        let names_the_room = self.event_type == TimelineEventType::RoomCreate
            && self.event_id.as_str().get(1..) == Some(self.room_id.strip_sigil());
        (!names_the_room).then_some(&self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

/// The id of the create event of a room that is named after it.
///
/// <https://spec.matrix.org/v1.19/rooms/v12/#event-format-1>
pub fn create_event_id(room_id: &RoomId) -> Result<OwnedEventId> {
    EventId::parse(format!("${}", room_id.strip_sigil()))
        .map_err(|e| Error::internal(format_args!("the room id {room_id} is not a hash: {e}")))
}
