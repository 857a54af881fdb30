//! What of a room's timeline somebody may see.

use std::borrow::Cow;

use hearth_core::visibility::can_see;
use ruma::events::room::{history_visibility::HistoryVisibility, member::MembershipState};
use serde::Deserialize;

use super::VisibilityLog;
use crate::rooms::StoredEvent;

/// A part of a timeline: from a position to another.
pub type Stretch = (i64, i64);

/// So many parts of a timeline are told apart, the newest, of somebody who came and went again and again.
const MOST_STRETCHES: usize = 20;

/// What the user's membership was after the event.
pub fn membership_at<'a>(log: &'a [(i64, String)], event: &StoredEvent) -> &'a str {
    last_before(log, event.pos.unwrap_or(event.topo)).map_or("leave", String::as_str)
}

impl VisibilityLog {
    /// Whether the user may see the event.
    pub fn sees(&self, event: &StoredEvent, user_id: &str) -> bool {
        // Fetched history stands before the event whose gap it fills.
        let pos = event.pos.unwrap_or(event.topo);
        self.allows(pos, pos) || self.is_own(event, user_id) || self.shows_change_of_visibility(pos)
    }

    /// Whether the user's membership changed with this event, which is about them.
    pub(crate) fn is_own(&self, event: &StoredEvent, user_id: &str) -> bool {
        let pos = event.pos.unwrap_or(event.topo);
        self.membership.iter().any(|(at, _)| *at == pos) && is_member_event_of(&event.json, user_id)
    }

    /// Whether the history visibility changed here, and what it was before showed the event that changed it.
    fn shows_change_of_visibility(&self, pos: i64) -> bool {
        self.visibility.iter().any(|(at, _)| *at == pos) && self.allows(pos - 1, pos)
    }

    /// Whether there is anything that the user may see after `low` and up to `high`, behind which they did not see all:
    /// for then something changed that they see. How a room began is for all who ever came.
    pub(crate) fn shows_any(&self, low: i64, high: i64) -> bool {
        let within = |pos: i64| low < pos && pos <= high;
        low == 0
            || self.membership.iter().any(|(pos, _)| within(*pos))
            || self
                .visibility
                .iter()
                .any(|(pos, _)| within(*pos) && (self.allows(*pos, *pos) || self.shows_change_of_visibility(*pos)))
    }

    /// Whether the user may see what the state was at a position.
    pub fn sees_state_at(&self, pos: i64) -> bool {
        self.allows(pos, pos)
    }

    /// Where to read the state that is shown beside events up to `last`; `None` if the user may not see what it was then.
    /// Who left sees of their own later events, such as a knock, no more state than `until` they left.
    pub(crate) fn state_beside(&self, last: i64, until: Option<i64>) -> Option<i64> {
        let at = until.map_or(last, |until| last.min(until));
        // The same changes as in [`Self::sees`]: beside what was seen before them, they are all that is new.
        let is_membership = self.membership.iter().any(|(pos, _)| *pos == at);
        let sees = until == Some(at)
            || self.allows(at, at)
            || self.shows_change_of_visibility(at)
            || is_membership && self.allows_as(at - 1, at - 1, at);
        sees.then_some(at)
    }

    /// The position at which the user last stopped being in the room; `None` if they are in, or never were.
    pub fn left_at(&self) -> Option<i64> {
        let last_join = self.membership.iter().rposition(|(_, m)| m == "join")?;
        self.membership.get(last_join + 1).map(|(pos, _)| *pos)
    }

    /// Where the user may see the messages, in order; who left at `until` nothing after it.
    pub(crate) fn stretches(&self, until: Option<i64>) -> Vec<Stretch> {
        let end = until.unwrap_or(i64::MAX);
        let changes = self.visibility.iter().map(|(pos, _)| *pos).chain(self.membership.iter().map(|(pos, _)| *pos));
        let mut from: Vec<i64> = changes.chain([0]).filter(|pos| *pos <= end).collect();
        from.sort_unstable();
        from.dedup();
        let mut stretches: Vec<Stretch> = Vec::new();
        for (i, low) in from.iter().enumerate().filter(|(_, pos)| self.allows(**pos, **pos)) {
            let high = from.get(i + 1).map_or(end, |next| next - 1);
            match stretches.last_mut() {
                Some((_, before)) if *before == low - 1 => *before = high,
                _ => stretches.push((*low, high)),
            }
        }
        let newest = stretches.len().saturating_sub(MOST_STRETCHES);
        stretches.split_off(newest)
    }

    /// By the visibility at one position, for an event at another. A merge of forks can change both the visibility and the
    /// user's membership at once: who is not in the room by the event sees it as such.
    fn allows(&self, visibility_at: i64, pos: i64) -> bool {
        self.allows_as(visibility_at, pos, pos)
    }

    fn allows_as(&self, visibility_at: i64, membership_at: i64, pos: i64) -> bool {
        let visibility = last_before(&self.visibility, visibility_at).and_then(Option::as_ref);
        let membership = last_before(&self.membership, membership_at).map(|m| MembershipState::from(m.as_str()));
        let joined_later = self.membership.iter().any(|(at, m)| *at > pos && m == "join");
        can_see(
            visibility.unwrap_or(&HistoryVisibility::Shared),
            &membership.unwrap_or(MembershipState::Leave),
            joined_later,
        )
    }
}

fn last_before<T>(log: &[(i64, T)], pos: i64) -> Option<&T> {
    let after = log.partition_point(|(at, _)| *at <= pos);
    after.checked_sub(1).map(|i| &log[i].1)
}

fn is_member_event_of(json: &str, user_id: &str) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type", borrow)]
        event_type: Cow<'a, str>,
        #[serde(borrow)]
        state_key: Option<Cow<'a, str>>,
    }
    serde_json::from_str::<Event<'_>>(json)
        .is_ok_and(|e| e.event_type == "m.room.member" && e.state_key.as_deref() == Some(user_id))
}

#[cfg(test)]
mod tests {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};

    use super::*;

    #[test]
    fn a_change_of_the_visibility_is_seen_by_what_was_before_it_and_who_one_is_now() {
        let log = |before: HistoryVisibility, after: HistoryVisibility, membership: &[(i64, &str)]| VisibilityLog {
            visibility: vec![(1, Some(before)), (5, Some(after))],
            membership: membership.iter().map(|(pos, m)| (*pos, (*m).to_owned())).collect(),
        };
        for (before, after, membership, seen) in [
            (WorldReadable, Joined, &[][..], true),
            (Invited, Joined, &[(2, "invite")], true),
            (Shared, Joined, &[(9, "join")], true),
            (Joined, Shared, &[(9, "join")], true),
            (Joined, Invited, &[(9, "join")], false),
            (Invited, Joined, &[(2, "join")], true),
            // A merge of forks, which takes them out of the room with the same event.
            (Invited, Joined, &[(2, "join"), (5, "leave")], false),
            (WorldReadable, Joined, &[(2, "join"), (5, "leave")], true),
        ] {
            let log = log(before, after, membership);
            assert_eq!(log.allows(5, 5) || log.shows_change_of_visibility(5), seen, "{log:?}");
            assert_eq!(log.shows_any(4, 5), seen || log.left_at() == Some(5), "{log:?}");
        }
    }
}
