//! Those who read a room, and what they are to see of it.

use hearth_core::filter::{Subject, matches_room_event};
use ruma::{OwnedUserId, api::client::filter::RoomEventFilter};
use serde_json::{Value, value::to_raw_value};

use super::id_of;
use crate::model::{
    Outcome, Run, ensure, failure,
    world::{Event, Room, Sight, Time, Wishes, member},
};

/// Somebody who reads a room: what they are to see of it.
pub struct Eyes<'a> {
    pub room: &'a Room,
    /// The room's place among those of the history.
    pub at: usize,
    /// What the user wished to be told of, and from when on.
    pub wishes: &'a [(Time, Wishes)],
    pub user: &'a OwnedUserId,
    pub device: &'a str,
    pub sights: Vec<Sight>,
    pub memberships: Vec<&'a str>,
}

impl Run<'_> {
    /// The room as somebody is to see it.
    pub fn eyes<'a>(&'a self, at: usize, user: &'a OwnedUserId, device: &'a str) -> Eyes<'a> {
        let room = &self.world.rooms[at];
        let mut sights = room.sights(user);
        // <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
        let ignored = self.ignored_by(user);
        for (event, sight) in room.events.iter().zip(&mut sights) {
            if event.state_key.is_none() && ignored.contains(&event.sender) {
                *sight = Sight::Never;
            }
        }
        let wishes = self.world.wishes.get(user).map(Vec::as_slice).unwrap_or_default();
        Eyes { room, at, wishes, user, device, sights, memberships: room.memberships(user) }
    }
}

impl Eyes<'_> {
    /// The event as it stands in the list; it says there what is shown of it, to this reader, wherever they read.
    pub fn knows(&self, shown: &Value) -> Outcome<usize> {
        let id = id_of(shown)?;
        ensure!(!self.room.refused.contains(&id), "what was refused is shown: {shown}");
        let (at, event) =
            self.room.find(id.as_str()).ok_or_else(|| failure(format!("an event that never was: {shown}")))?;
        ensure!(
            shown["type"] == event.kind
                && shown["sender"] == event.sender.as_str()
                && shown.get("state_key").and_then(Value::as_str) == event.state_key.as_deref(),
            "another event under the id of {}: {shown}",
            event.id
        );
        let redacted = event.redacted_by.as_ref();
        let is_redaction = event.kind == "m.room.redaction";
        // A redaction is shown with its target in both places, whatever the version.
        ensure!(
            is_redaction || shown["content"] == event.shown_content(&self.room.version),
            "the content should be {}: {shown}",
            event.shown_content(&self.room.version)
        );
        let because = shown["unsigned"]["redacted_because"]["event_id"].as_str();
        ensure!(because == redacted.map(|id| id.as_str()), "redacted by {redacted:?}: {shown}");
        let own = event.sender == *self.user && event.device.as_deref() == Some(self.device);
        self.may_be_told_beside(&shown["unsigned"]["m.relations"])?;
        let txn = shown["unsigned"].get("transaction_id");
        ensure!(txn.is_some() == own, "its transaction is for the device that sent it: {shown}");
        Ok(at)
    }

    /// What is summed up beside an event: nothing that its reader may not see.
    fn may_be_told_beside(&self, relations: &Value) -> Outcome<()> {
        let latest = &relations["m.thread"]["latest_event"];
        let references = relations["m.reference"]["chunk"].as_array().map(Vec::as_slice).unwrap_or_default();
        for told in [&relations["m.replace"], latest].into_iter().chain(references).filter(|told| !told.is_null()) {
            let (at, _) = self
                .room
                .find(id_of(told)?.as_str())
                .ok_or_else(|| failure(format!("beside an event, of one that never was: {told}")))?;
            ensure!(self.sights[at] != Sight::Never, "{} may not be told beside an event of {told}", self.user);
        }
        if !latest.is_null() {
            self.may_be_told_beside(&latest["unsigned"]["m.relations"])?;
        }
        Ok(())
    }

    /// The same for an event of a timeline, which only who may see it is shown.
    pub fn sees(&self, shown: &Value) -> Outcome<usize> {
        let at = self.knows(shown)?;
        ensure!(self.sights[at] != Sight::Never, "{} may not see {shown}", self.user);
        let membership = self.memberships[at];
        ensure!(shown["unsigned"]["membership"] == membership, "they were {membership} then: {shown}");
        Ok(at)
    }

    pub fn is_own(&self, at: usize) -> bool {
        self.room.events[at].key() == Some(member(self.user))
    }
}

/// Whether a timeline's filter lets the event through.
pub fn passes(filter: Option<&Value>, room: &Room, event: &Event) -> bool {
    let Some(filter) = filter else { return true };
    let filter: RoomEventFilter = serde_json::from_value(filter.clone()).expect("a filter");
    let content = to_raw_value(&event.content).expect("JSON");
    let subject =
        Subject { event_type: &event.kind, sender: Some(&event.sender), room_id: &room.id, content: &content };
    matches_room_event(&filter, &subject)
}
