//! What somebody's push rules say of an event that was stored.

use hearth_core::{
    Result,
    event::Pdu,
    push::{Rules, Subject},
};
use hearth_storage::{RoomRow, StoredEvent};
use ruma::{
    UserId,
    push::{Action, Tweak},
};
use serde_json::{Map, Value};

use crate::service::{
    rooms::{Rooms, state::parse_stored},
    shape::Room,
};

/// The state that events are told with: by room, type and key, as JSON.
pub(in crate::service) type State = std::collections::HashMap<(i64, &'static str, String), String>;

/// The user, and what they want to be told of.
pub(in crate::service) struct Owner<'a> {
    pub(in crate::service) user: &'a UserId,
    pub(in crate::service) rules: &'a Rules,
}

/// An event that its reader wants to be told of.
pub(in crate::service) struct Judged {
    pub(in crate::service) pdu: Pdu,
    pub(in crate::service) actions: Vec<Action>,
}

/// The event if it notifies. By the rules and the room as they are now, which is mostly what they were when it was sent.
pub(in crate::service) async fn judge(
    rooms: &Rooms,
    owner: &Owner<'_>,
    row: &RoomRow,
    event: &StoredEvent,
    state: &State,
) -> Result<Option<Judged>> {
    let (room, user) = (Room::new(row)?, owner.user);
    // What can't be read notifies nobody, and must not hold up what can.
    let read = parse_stored(room.in_room(), event.clone()).and_then(|pdu| {
        let subject = Subject::new(&pdu, &room.id, row.joined)?;
        Ok((pdu, subject))
    });
    let (pdu, mut subject) = match read {
        Ok(read) => read,
        Err(e) => {
            tracing::error!(event_id = event.event_id, error = %e, "an event can't be judged by push rules");
            return Ok(None);
        }
    };
    if owner.rules.asks_for_power(&subject) {
        let head = rooms.load_head(&room.id).await?;
        subject.set_power(rooms.power(&head).await?);
    }
    let name = text_of(state, row.room_sn, "m.room.member", user.as_str(), "displayname");
    let actions = owner.rules.actions(&subject, user, name.as_deref());
    if !actions.iter().any(Action::should_notify) {
        return Ok(None);
    }
    let actions = actions.to_vec();
    Ok(Some(Judged { pdu, actions }))
}

/// A text in the content of a state event.
pub(super) fn text_of(state: &State, room_sn: i64, kind: &'static str, key: &str, field: &str) -> Option<String> {
    let event: Value = serde_json::from_str(state.get(&(room_sn, kind, key.to_owned()))?).ok()?;
    event.get("content")?.get(field)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// What the actions say of how to notify.
pub(super) fn tweaks(actions: &[Action]) -> Map<String, Value> {
    let tweaks = actions.iter().filter_map(|action| match action {
        Action::SetTweak(Tweak::Highlight(_)) if !action.is_highlight() => None,
        Action::SetTweak(tweak) => {
            let value = tweak.value().and_then(|value| serde_json::from_str(value.get()).ok());
            Some((tweak.set_tweak().to_owned(), value.unwrap_or(Value::Bool(true))))
        }
        _ => None,
    });
    tweaks.collect()
}
