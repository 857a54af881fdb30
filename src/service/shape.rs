//! Events as readers get them: the shared form, made once and cached, and what is added for the one who reads.

use std::sync::Arc;

use hearth_core::{
    Error, Result,
    clock::Clock,
    event::{ClientEvent, Pdu, Unsigned, client_json, stripped_json},
    room_version::RoomVersion,
};
use hearth_storage::{Bundle, Message, RoomRow, StoredEvent, membership_at};
use moka::sync::Cache;
use ruma::{OwnedRoomId, UserId, serde::Raw};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    erased::Erased,
    rooms::state::{InRoom, parse_stored},
};

/// Bytes of client forms kept in memory.
const CACHE_BYTES: u64 = 128 << 20;

/// Makes the client forms.
pub struct Shapes {
    clock: Arc<dyn Clock>,
    erased: Arc<Erased>,
    /// By event number, and whether it is the redacted form.
    cache: Cache<(i64, bool), Arc<Shape>>,
}

/// The form of an event that all its readers share.
pub struct Shape {
    event: ClientEvent,
    sender: ruma::OwnedUserId,
    /// Of state, its type and its key.
    key: Option<(Box<str>, Box<str>)>,
    sent_ms: i64,
}

impl Shape {
    /// What it is the state of; `None` for a message.
    pub fn key(&self) -> Option<(&str, &str)> {
        self.key.as_ref().map(|(kind, key)| (&**kind, &**key))
    }
}

/// Who reads.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub user: &'a UserId,
    pub device: &'a str,
}

/// What may be told beside the event.
#[derive(Default, Clone, Copy)]
pub struct Beside<'a> {
    /// The event that redacted it.
    pub because: Option<&'a StoredEvent>,
    /// The state event that it replaced.
    pub replaced: Option<&'a StoredEvent>,
    /// How the reader's membership of the room changed, by position.
    pub memberships: &'a [(i64, String)],
    /// What relates to it.
    pub bundle: Option<&'a Bundle>,
    /// Leave out the room id: the place says it.
    pub in_sync: bool,
    /// Show what redacted events show: the reader ignores its sender.
    pub redacted: bool,
}

/// A room whose events are shaped.
pub struct Room {
    pub sn: i64,
    pub id: OwnedRoomId,
    pub version: &'static RoomVersion,
}

impl Room {
    pub fn new(row: &RoomRow) -> Result<Self> {
        let version = row.version.as_str().try_into().map_err(Error::internal)?;
        let version = RoomVersion::get(&version)
            .ok_or_else(|| Error::internal(format!("room {} is of version {}", row.room_id, row.version)))?;
        Ok(Self { sn: row.room_sn, id: row.room_id.as_str().try_into().map_err(Error::internal)?, version })
    }

    pub fn in_room(&self) -> InRoom<'_> {
        InRoom { sn: self.sn, id: &self.id, version: self.version }
    }
}

impl Shapes {
    pub fn new(clock: Arc<dyn Clock>, erased: Arc<Erased>) -> Arc<Self> {
        let cache = Cache::builder()
            .weigher(|_, shape: &Arc<Shape>| u32::try_from(shape.event.size() + 256).unwrap_or(u32::MAX))
            .max_capacity(CACHE_BYTES)
            .build();
        Arc::new(Self { clock, erased, cache })
    }

    pub fn shape(&self, room: &Room, stored: &StoredEvent) -> Result<Arc<Shape>> {
        let key = (stored.sn, stored.redacted_by.is_some());
        if let Some(shape) = self.cache.get(&key) {
            return Ok(shape);
        }
        let pdu = parse_stored(room.in_room(), stored.clone())?;
        self.make(key, &pdu)
    }

    fn make(&self, key: (i64, bool), pdu: &Pdu) -> Result<Arc<Shape>> {
        let shape = Arc::new(Shape {
            event: client_json(pdu)?,
            sent_ms: i64::from(pdu.origin_server_ts.0),
            sender: pdu.sender.clone(),
            key: pdu.state_key.as_deref().map(|key| (pdu.event_type.to_string().into(), key.into())),
        });
        self.cache.insert(key, Arc::clone(&shape));
        Ok(shape)
    }

    /// What is left of an event whose sender was erased.
    fn redacted(&self, room: &Room, stored: &StoredEvent) -> Result<Arc<Shape>> {
        let key = (stored.sn, true);
        match self.cache.get(&key) {
            Some(shape) => Ok(shape),
            None => self.make(key, &parse_stored(room.in_room(), stored.clone())?.redact(room.version)?),
        }
    }

    /// Who sent the event.
    pub fn sender(&self, room: &Room, stored: &StoredEvent) -> Result<ruma::OwnedUserId> {
        Ok(self.shape(room, stored)?.sender.clone())
    }

    /// A message that was just stored, for the sync of one reader.
    pub fn message<T>(&self, message: &Message, reader: Reader<'_>) -> Result<Raw<T>> {
        let key = (message.sn, false);
        let shape = self.cache.get(&key).map_or_else(|| self.make(key, &message.pdu), Ok)?;
        let mut unsigned = self.unsigned(&shape);
        // Only those who are in the room are told from here.
        unsigned.membership = Some("join".to_owned());
        if let Some((device, txn)) = &message.sent_by
            && shape.sender == reader.user
            && device == reader.device
        {
            unsigned.transaction_id = Some(txn.clone());
        }
        Ok(Raw::from_json(shape.event.without_room(&unsigned)?))
    }

    fn unsigned(&self, shape: &Shape) -> Unsigned {
        Unsigned { age: Some(self.clock.now_ms().saturating_sub(shape.sent_ms).max(0)), ..Unsigned::default() }
    }

    /// The event for one reader.
    pub fn event<T>(
        &self,
        room: &Room,
        stored: &StoredEvent,
        reader: Reader<'_>,
        beside: Beside<'_>,
    ) -> Result<Raw<T>> {
        let mut shape = self.shape(room, stored)?;
        let redacted = beside.redacted || shape.key.is_none() && self.erased.hides(&shape.sender, beside.memberships);
        if redacted {
            shape = self.redacted(room, stored)?;
        }
        let mut unsigned = self.unsigned(&shape);
        if stored.txn_id.is_some() && shape.sender == reader.user && stored.device_id.as_deref() == Some(reader.device)
        {
            unsigned.transaction_id.clone_from(&stored.txn_id);
        }
        unsigned.membership = Some(membership_at(beside.memberships, stored).to_owned());
        if let Some(because) = beside.because {
            let redaction = self.shape(room, because)?;
            unsigned.redacted_because = Some(redaction.event.with_unsigned(&Unsigned::default())?);
        }
        if let Some(replaced) = beside.replaced {
            let old = parse_stored(room.in_room(), replaced.clone())?;
            unsigned.prev_sender = Some(old.sender.to_string());
            unsigned.replaces_state = Some(old.event_id.to_string());
            unsigned.prev_content = Some(old.content);
        }
        if let Some(bundle) = beside.bundle {
            unsigned.relations = self.relations(room, bundle, reader, Beside { redacted, ..beside })?;
        }
        let json =
            if beside.in_sync { shape.event.without_room(&unsigned)? } else { shape.event.with_unsigned(&unsigned)? };
        Ok(Raw::from_json(json))
    }

    /// What relates to an event that is told with this beside it; none of its edits where nothing is left of it.
    fn relations(
        &self,
        room: &Room,
        bundle: &Bundle,
        reader: Reader<'_>,
        of: Beside<'_>,
    ) -> Result<Option<Box<RawValue>>> {
        let beside = Beside { memberships: of.memberships, in_sync: of.in_sync, ..Beside::default() };
        let edit = bundle.edit.as_ref().filter(|_| !of.redacted);
        let replace = edit.map(|edit| self.event::<()>(room, edit, reader, beside)).transpose()?;
        let thread = bundle.thread.as_deref().map(|thread| {
            let beside = Beside { bundle: Some(&thread.beside_latest), ..beside };
            let latest_event = self.event::<()>(room, &thread.latest, reader, beside)?.into_json();
            let current_user_participated = thread.participated;
            Ok::<_, Error>(Thread { latest_event, count: thread.count, current_user_participated })
        });
        let relations = Relations {
            replace: replace.map(Raw::into_json),
            reference: References::of(bundle),
            thread: thread.transpose()?,
        };
        if relations.is_empty() {
            return Ok(None);
        }
        to_raw_value(&relations).map(Some).map_err(Error::internal)
    }

    /// The event for somebody who is not in the room yet.
    pub fn stripped(&self, room: &Room, stored: &StoredEvent) -> Result<Box<RawValue>> {
        stripped_json(&parse_stored(room.in_room(), stored.clone())?)
    }
}

/// What relates to an event, as it is told.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>
#[derive(Serialize)]
struct Relations<'a> {
    #[serde(rename = "m.replace", skip_serializing_if = "Option::is_none")]
    replace: Option<Box<RawValue>>,
    #[serde(rename = "m.reference", skip_serializing_if = "Option::is_none")]
    reference: Option<References<'a>>,
    #[serde(rename = "m.thread", skip_serializing_if = "Option::is_none")]
    thread: Option<Thread>,
}

#[derive(Serialize)]
struct References<'a> {
    chunk: Vec<Reference<'a>>,
}

#[derive(Serialize)]
struct Reference<'a> {
    event_id: &'a str,
}

#[derive(Serialize)]
struct Thread {
    latest_event: Box<RawValue>,
    count: i64,
    current_user_participated: bool,
}

impl Relations<'_> {
    fn is_empty(&self) -> bool {
        self.replace.is_none() && self.reference.is_none() && self.thread.is_none()
    }
}

impl<'a> References<'a> {
    fn of(bundle: &'a Bundle) -> Option<Self> {
        let chunk: Vec<_> = bundle.references.iter().map(|event_id| Reference { event_id }).collect();
        (!chunk.is_empty()).then_some(Self { chunk })
    }
}

/// Among `because`, the event that redacted this one.
pub fn redaction_of<'a>(stored: &StoredEvent, because: &'a [StoredEvent]) -> Option<&'a StoredEvent> {
    let id = stored.redacted_by.as_deref()?;
    because.iter().find(|r| r.event_id == id)
}
