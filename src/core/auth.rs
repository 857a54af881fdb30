//! Who may send what: the authorisation rules, as ruma has them.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#authorization-rules>

use std::{collections::HashMap, sync::Arc};

use ruma::{
    EventId, UserId,
    events::{StateEventType, TimelineEventType},
    state_res::{auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules},
};
use serde_json::value::RawValue;

use crate::{Error, Result, event::Pdu, room_version::RoomVersion};

/// The keys of the state that decide about an event, and that its `auth_events` are taken from. The create event is not
/// among them in rooms that are named after it, yet [`check`] always wants it.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection>
pub fn auth_keys(
    event_type: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    version: &RoomVersion,
) -> Result<Vec<(StateEventType, String)>> {
    auth_types_for_event(event_type, sender, state_key, content, &version.rules.authorization).map_err(Error::bad_json)
}

/// May this event be sent where the state is what `fetch_state` answers? For an event of this server, whose auth events
/// were taken from that same state.
///
/// `fetch_state` must know the keys of [`auth_keys`] and the create event, and no more.
pub fn check(
    pdu: &Pdu,
    version: &RoomVersion,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<()> {
    let mut auth_events = HashMap::new();
    if pdu.event_type != TimelineEventType::RoomCreate {
        let keys = auth_keys(&pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content, version)?;
        let create = (StateEventType::RoomCreate, String::new());
        for (event_type, state_key) in keys.iter().chain([&create]) {
            if let Some(event) = fetch_state(event_type, state_key) {
                auth_events.insert(event.event_id.clone(), event);
            }
        }
    }
    check_independent(pdu, version, |id| auth_events.get(id).cloned())?;
    check_dependent(pdu, version, fetch_state)
}

/// The rules that look at the event and the auth events that it names. `fetch_event` must know those and the create event.
pub fn check_independent(
    pdu: &Pdu,
    version: &RoomVersion,
    fetch_event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<()> {
    check_state_independent_auth_rules(&version.rules.authorization, pdu, fetch_event).map_err(Error::forbidden)
}

/// The rules that look at a state of the room: that of the auth events, that before the event, or the current one.
pub fn check_dependent(
    pdu: &Pdu,
    version: &RoomVersion,
    fetch_state: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<()> {
    check_state_dependent_auth_rules(&version.rules.authorization, pdu, fetch_state).map_err(Error::forbidden)
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, owned_event_id};
    use serde_json::json;

    use super::*;
    use crate::{
        Kind,
        testing::{Room, VERSIONS, user},
    };

    fn refused(result: Result<Arc<Pdu>>, why: &str) {
        match result {
            Err(Error::Matrix { kind: Kind::Forbidden, message }) => assert!(message.contains(why), "{message}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_small_life_in_a_room() {
        for id in RoomVersion::all().map(|v| &v.id) {
            let (mut room, mut fork) = Room::new(id);
            refused(room.message(&mut fork, "bob", "let me in"), "membership");
            room.member(&mut fork, "bob", "bob", "join").expect("the room is public");
            room.message(&mut fork, "bob", "hello").expect("members may speak");
            refused(room.state(&mut fork, "bob", "m.room.topic", "", json!({ "topic": "mine" })), "power");
            let levels = room.levels(&[("bob", 50)]);
            refused(room.state(&mut fork, "bob", "m.room.power_levels", "", levels.clone()), "power");
            room.state(&mut fork, "alice", "m.room.power_levels", "", levels).expect("alice may");
            room.state(&mut fork, "bob", "m.room.topic", "", json!({ "topic": "ours" })).expect("now bob may");
            room.member(&mut fork, "alice", "bob", "ban").expect("alice stands above");
            refused(room.message(&mut fork, "bob", "why?"), "membership");
            refused(room.member(&mut fork, "bob", "bob", "join"), "ban");
        }
    }

    #[test]
    fn a_creator_stands_above_all_levels_from_version_12_on() {
        for id in &VERSIONS {
            let (mut room, mut fork) = Room::new(id);
            room.member(&mut fork, "bob", "bob", "join").expect("public");
            let levels = room.levels(&[("bob", 100)]);
            room.state(&mut fork, "alice", "m.room.power_levels", "", levels).expect("alice may");
            let kick = room.member(&mut fork, "alice", "bob", "leave");
            assert_eq!(kick.is_ok(), *id == RoomVersionId::V12, "{id}: {kick:?}");
        }
    }

    #[test]
    fn the_create_event_is_an_auth_event_until_version_11() {
        for id in &VERSIONS {
            let (mut room, mut fork) = Room::new(id);
            let pdu = room.message(&mut fork, "alice", "hi").expect("sent");
            let create = room.get(&fork, &StateEventType::RoomCreate, "").expect("created");
            assert_eq!(pdu.auth_events.contains(&create.event_id), *id != RoomVersionId::V12);
            assert_eq!(pdu.auth_events.len(), if *id == RoomVersionId::V12 { 2 } else { 3 });
        }
    }

    #[test]
    fn an_event_must_name_the_auth_events_of_the_state_it_is_checked_against() {
        for id in &VERSIONS {
            let (mut room, mut fork) = Room::new(id);
            let pdu = room.message(&mut fork, "alice", "hi").expect("sent");
            let fetch = |event_type: &StateEventType, state_key: &str| room.get(&fork, event_type, state_key);
            check(&pdu, room.version, fetch).expect("allowed");
            let mut stranger = (*pdu).clone();
            stranger.auth_events.push(owned_event_id!("$unknown"));
            assert!(check(&stranger, room.version, fetch).is_err());
            assert!(check(&pdu, room.version, |_, _| None).is_err());
        }
    }

    #[test]
    fn a_membership_without_a_target_has_no_auth_events_to_name() {
        let (room, _) = Room::new(&RoomVersionId::V11);
        let content = crate::testing::raw(&json!({ "membership": "join" }));
        let keys =
            |state_key| auth_keys(&TimelineEventType::RoomMember, &user("bob"), state_key, &content, room.version);
        assert!(matches!(keys(None), Err(Error::Matrix { kind: Kind::BadJson, .. })));
        assert_eq!(keys(Some("@bob:example.org")).expect("keys").len(), 4);
    }
}
