//! Who may see an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use ruma::events::room::{history_visibility::HistoryVisibility, member::MembershipState};
use serde::{Deserialize, de::DeserializeOwned};

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

/// What an `m.room.history_visibility` event says, given as JSON; shared if it can't be understood, or if there is none.
pub fn visibility_in(event: &str) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    match content_of::<Content>(event).map(|content| content.history_visibility) {
        Some(HistoryVisibility::_Custom(_)) | None => HistoryVisibility::Shared,
        Some(known) => known,
    }
}

/// What a member event says, given as JSON; one that can't be understood says the same as none at all, that the user is
/// not in the room.
pub fn membership_in(event: &str) -> MembershipState {
    content_of::<Member>(event).map_or(MembershipState::Leave, |content| content.membership)
}

/// The same, given its content only.
pub fn membership_in_content(content: &str) -> MembershipState {
    serde_json::from_str::<Member>(content).map_or(MembershipState::Leave, |content| content.membership)
}

#[derive(Deserialize)]
struct Member {
    membership: MembershipState,
}

fn content_of<C: DeserializeOwned>(event: &str) -> Option<C> {
    #[derive(Deserialize)]
    struct Event<C> {
        content: C,
    }
    Some(serde_json::from_str::<Event<C>>(event).ok()?.content)
}

#[cfg(test)]
mod tests {
    use MembershipState::{Ban, Invite, Join, Knock, Leave};
    use serde_json::{Value, json};

    use super::*;

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
        let event = |content: &Value| json!({ "type": "m.any", "content": content }).to_string();
        for (said, meant) in [
            (json!({ "history_visibility": "world_readable" }), HistoryVisibility::WorldReadable),
            (json!({ "history_visibility": "shared" }), HistoryVisibility::Shared),
            (json!({ "history_visibility": "invited" }), HistoryVisibility::Invited),
            (json!({ "history_visibility": "joined" }), HistoryVisibility::Joined),
            (json!({ "history_visibility": "nobody" }), HistoryVisibility::Shared),
            (json!({ "history_visibility": 7 }), HistoryVisibility::Shared),
            (json!({}), HistoryVisibility::Shared),
        ] {
            assert_eq!(visibility_in(&event(&said)), meant, "{said}");
        }
        assert_eq!(visibility_in("{}"), HistoryVisibility::Shared);
        assert_eq!(membership_in(&event(&json!({ "membership": "invite" }))), Invite);
        assert_eq!(membership_in(&event(&json!({}))), Leave);
        assert_eq!(membership_in("{}"), Leave);
        assert_eq!(membership_in_content(r#"{"membership":"invite"}"#), Invite);
        assert_eq!(membership_in_content(r#"{"membership":1}"#), Leave);
    }
}
