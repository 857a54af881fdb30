//! A new event of this server: canonical, hashed, signed, named.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId,
    events::TimelineEventType,
    int,
    signatures::{JsonError, hash_and_sign_event, reference_hash},
};
use serde_json::value::RawValue;

use super::Pdu;
use crate::{
    Error, Kind, Result, canonical,
    keys::Signer,
    limits::{MAX_AUTH_EVENTS, MAX_ID_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS},
    room_version::RoomVersion,
};

/// What an event is made from.
#[derive(Debug, Clone)]
pub struct Draft {
    /// None only for the create event of a room that is named after it.
    pub room_id: Option<OwnedRoomId>,
    pub sender: OwnedUserId,
    pub event_type: TimelineEventType,
    pub state_key: Option<String>,
    /// As the client sent it; [`build`] makes it canonical or refuses it.
    pub content: Box<RawValue>,
    /// The target of a redaction; [`build`] puts it where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: i64,
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

/// Makes the event.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#signing-events>
pub fn build(draft: Draft, signer: &Signer, version: &RoomVersion) -> Result<Pdu> {
    check_sizes(&draft)?;
    if draft.sender.server_name() != signer.server_name() {
        return Err(Error::internal(format_args!("this server can't sign for {}", draft.sender)));
    }
    let is_named_after = version.hashes_room_id() && draft.event_type == TimelineEventType::RoomCreate;
    if draft.room_id.is_none() != is_named_after {
        return Err(Error::internal("a draft has a room id unless it is the create event that gives one"));
    }

    let mut content = canonical::parse_object(draft.content.get())?;
    let is_redaction = draft.event_type == TimelineEventType::RoomRedaction;
    let mut redacts = draft.redacts.filter(|_| is_redaction);
    let redacts_beside_content = redacts.clone().filter(|_| !version.redacts_in_content());
    if version.redacts_in_content() && is_redaction {
        if let Some(id) = redacts {
            content.insert("redacts".to_owned(), id.to_string().into());
        }
        // What the event redacts is what other servers will read from it, whoever put it there.
        redacts = content.get("redacts").and_then(|id| EventId::parse(id.as_str()?).ok());
    }
    let content_json = serde_json::to_string(&content).and_then(RawValue::from_string).map_err(Error::internal)?;

    let ids = |ids: &[OwnedEventId]| ids.iter().map(|id| id.to_string().into()).collect::<Vec<CanonicalJsonValue>>();
    let depth = ruma::Int::try_from(draft.depth)
        .ok()
        .filter(|depth| *depth >= int!(0))
        .ok_or_else(|| Error::internal("the depth of an event lies outside of canonical JSON"))?;
    let mut object = CanonicalJsonObject::new();
    object.insert("auth_events".to_owned(), ids(&draft.auth_events).into());
    object.insert("content".to_owned(), content.into());
    object.insert("depth".to_owned(), depth.into());
    object.insert("origin_server_ts".to_owned(), draft.origin_server_ts.get().into());
    object.insert("prev_events".to_owned(), ids(&draft.prev_events).into());
    if let Some(redacts) = redacts_beside_content {
        object.insert("redacts".to_owned(), redacts.to_string().into());
    }
    if let Some(room_id) = &draft.room_id {
        object.insert("room_id".to_owned(), room_id.to_string().into());
    }
    object.insert("sender".to_owned(), draft.sender.to_string().into());
    if let Some(state_key) = &draft.state_key {
        object.insert("state_key".to_owned(), state_key.clone().into());
    }
    object.insert("type".to_owned(), draft.event_type.to_string().into());

    hash_and_sign_event(signer.server_name().as_str(), signer, &mut object, &version.rules.redaction)
        .map_err(json_error)?;
    let hash = reference_hash(&object, &version.rules).map_err(json_error)?;
    let event_id = EventId::new_v2_or_v3(&hash).map_err(Error::internal)?;
    let room_id = match draft.room_id {
        Some(room_id) => room_id,
        None => RoomId::new_v2(&hash).map_err(Error::internal)?,
    };
    let json = serde_json::to_string(&object).map_err(Error::internal)?;
    if json.len() > MAX_PDU_BYTES {
        return Err(too_large());
    }

    Ok(Pdu {
        event_id,
        room_id,
        sender: draft.sender,
        event_type: draft.event_type,
        state_key: draft.state_key,
        content: content_json,
        origin_server_ts: draft.origin_server_ts,
        prev_events: draft.prev_events,
        auth_events: draft.auth_events,
        depth: draft.depth,
        redacts,
        rejected: false,
        json: json.into(),
    })
}

/// The limits on the parts of an event. The number of its parents is ours to choose, not the client's.
fn check_sizes(draft: &Draft) -> Result<()> {
    let event_type = draft.event_type.to_string();
    for (name, value) in [
        ("sender", draft.sender.as_str()),
        ("room_id", draft.room_id.as_ref().map_or("", |id| id.as_str())),
        ("type", &event_type),
        ("state_key", draft.state_key.as_deref().unwrap_or_default()),
    ] {
        if value.len() > MAX_ID_BYTES {
            return Err(Error::too_large(format!("The {name} is longer than {MAX_ID_BYTES} bytes")));
        }
        // No database column for text holds this character on every engine, and nobody has a use for it.
        if value.contains('\0') {
            return Err(Error::invalid_param(format!("The {name} contains a NUL character")));
        }
    }
    if draft.prev_events.len() > MAX_PREV_EVENTS || draft.auth_events.len() > MAX_AUTH_EVENTS {
        return Err(Error::internal("a draft with too many prev_events or auth_events"));
    }
    Ok(())
}

fn too_large() -> Error {
    Error::new(Kind::TooLarge, format!("The event is larger than {MAX_PDU_BYTES} bytes"))
}

fn json_error(error: JsonError) -> Error {
    match error {
        JsonError::PduTooLarge => too_large(),
        other => Error::internal(other),
    }
}
