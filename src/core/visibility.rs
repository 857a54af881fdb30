//! Who may see an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use ruma::events::room::{history_visibility::HistoryVisibility, member::MembershipState};
use serde::Deserialize;

use crate::event::Pdu;

/// May a user see an event? `visibility` and `membership` are those of the state at the event, `joined_later` is whether the
/// user was in the room at any time after it.
///
/// A change of the visibility itself, and a change of the user's own membership, may be seen if either what was before or
/// what came of it allows it: ask twice.
pub fn can_see(visibility: &HistoryVisibility, membership: &MembershipState, joined_later: bool) -> bool {
    match (visibility, membership) {
        (HistoryVisibility::WorldReadable, _) | (_, MembershipState::Join) => true,
        (HistoryVisibility::Invited, MembershipState::Invite) => true,
        (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
        // Shared, and what we don't understand.
        _ => joined_later,
    }
}

/// What the room's `m.room.history_visibility` event says; shared if there is none or it can't be understood.
pub fn visibility_of(event: Option<&Pdu>) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    match event.and_then(|event| event.content_as::<Content>().ok()).map(|content| content.history_visibility) {
        Some(known @ (HistoryVisibility::WorldReadable | HistoryVisibility::Invited | HistoryVisibility::Joined)) => {
            known
        }
        _ => HistoryVisibility::Shared,
    }
}

/// What a membership event says; none at all is the same as having left.
pub fn membership_of(event: Option<&Pdu>) -> MembershipState {
    #[derive(Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    let content = event.and_then(|event| event.content_as::<Content>().ok());
    content.map_or(MembershipState::Leave, |content| content.membership)
}

#[cfg(test)]
mod tests {
    use MembershipState::{Ban, Invite, Join, Knock, Leave};
    use ruma::events::TimelineEventType;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::fake;

    #[test]
    fn the_table_of_the_specification() {
        for (visibility, seen_as_of_now, seen_if_joined_later) in [
            (HistoryVisibility::WorldReadable, &[Join, Invite, Leave, Knock, Ban][..], &[][..]),
            (HistoryVisibility::Shared, &[Join], &[Invite, Leave, Knock, Ban]),
            (HistoryVisibility::Invited, &[Join, Invite], &[]),
            (HistoryVisibility::Joined, &[Join], &[]),
            (HistoryVisibility::from("org.example.odd"), &[Join], &[Invite, Leave, Knock, Ban]),
        ] {
            for membership in [Join, Invite, Leave, Knock, Ban] {
                let at_once = seen_as_of_now.contains(&membership);
                let later = at_once || seen_if_joined_later.contains(&membership);
                assert_eq!(can_see(&visibility, &membership, false), at_once, "{visibility:?} {membership:?}");
                assert_eq!(can_see(&visibility, &membership, true), later, "{visibility:?} {membership:?} later");
            }
        }
    }

    #[test]
    fn what_the_state_says() {
        let event = |content: &Value| fake(TimelineEventType::RoomHistoryVisibility, "alice", Some(""), content);
        for (said, meant) in [
            (json!({ "history_visibility": "world_readable" }), HistoryVisibility::WorldReadable),
            (json!({ "history_visibility": "shared" }), HistoryVisibility::Shared),
            (json!({ "history_visibility": "invited" }), HistoryVisibility::Invited),
            (json!({ "history_visibility": "joined" }), HistoryVisibility::Joined),
            (json!({ "history_visibility": "nobody" }), HistoryVisibility::Shared),
            (json!({ "history_visibility": 7 }), HistoryVisibility::Shared),
            (json!({}), HistoryVisibility::Shared),
        ] {
            assert_eq!(visibility_of(Some(&event(&said))), meant, "{said}");
        }
        assert_eq!(visibility_of(None), HistoryVisibility::Shared);
        assert_eq!(membership_of(Some(&event(&json!({ "membership": "invite" })))), Invite);
        assert_eq!(membership_of(Some(&event(&json!({})))), Leave);
        assert_eq!(membership_of(None), Leave);
    }
}
