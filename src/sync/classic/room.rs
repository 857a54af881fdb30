//! One room of a sync: its timeline, the state beside it, and what else there is to tell.

use std::{borrow::Cow, collections::BTreeMap};

use hearth_core::{Error, Result, token::TimelineToken};
use hearth_storage::{RoomSync, StoredEvent, StrippedRoom, membership_at};
use ruma::{
    OwnedRoomId, UInt,
    api::client::sync::sync_events::v3::{
        Ephemeral, JoinedRoom, LeftRoom, RoomAccountData, State, StateEvents, Timeline,
    },
    serde::Raw,
};

use super::{
    SyncWish,
    data::{account_datum, receipts, wants_ephemeral},
    unread,
};
use crate::{
    service::shape::{Beside, Reader, Room, passes, redaction_of},
    sync::Syncs,
};

impl Syncs {
    pub(super) fn joined(
        &self,
        reader: Reader<'_>,
        wish: &SyncWish,
        part: &RoomSync,
    ) -> Result<(OwnedRoomId, JoinedRoom)> {
        let room = Room::new(&part.room)?;
        let mut joined = JoinedRoom::new();
        joined.timeline = self.timeline(reader, wish, &room, part)?;
        joined.state = State::Before(self.state(reader, wish, &room, part)?);
        joined.account_data = room_account_data(part)?;
        joined.ephemeral = Ephemeral::new();
        if !part.receipts.is_empty() && wants_ephemeral(wish, "m.receipt") {
            joined.ephemeral.events.push(receipts(&part.receipts)?);
        }
        unread::show(wish, &mut joined, &part.unread)?;
        joined.summary.joined_member_count = UInt::try_from(part.room.joined).ok();
        joined.summary.invited_member_count = UInt::try_from(part.room.invited).ok();
        Ok((room.id, joined))
    }

    pub(super) fn left(&self, reader: Reader<'_>, wish: &SyncWish, part: &RoomSync) -> Result<(OwnedRoomId, LeftRoom)> {
        let room = Room::new(&part.room)?;
        let mut left = LeftRoom::new();
        left.timeline = self.timeline(reader, wish, &room, part)?;
        left.state = State::Before(self.state(reader, wish, &room, part)?);
        left.account_data = room_account_data(part)?;
        Ok((room.id, left))
    }

    fn timeline(&self, reader: Reader<'_>, wish: &SyncWish, room: &Room, part: &RoomSync) -> Result<Timeline> {
        let mut timeline = Timeline::new();
        timeline.limited = part.limited;
        let first =
            part.timeline.first().map_or(TimelineToken { topo: part.low.saturating_add(1), minor: i64::MIN }, |e| {
                TimelineToken { topo: e.topo, minor: e.topo_minor }
            });
        timeline.prev_batch = Some(first.to_string());
        for event in &part.timeline {
            if passes(&wish.filter.room.timeline, &room.id, &event.json)? {
                let beside = Beside {
                    because: redaction_of(event, &part.because),
                    replaced: part.replaced.get(&event.sn),
                    membership: Some(membership_at(&part.membership, event)),
                    in_sync: true,
                };
                timeline.events.push(self.shapes.event(room, event, reader, beside)?);
            }
        }
        Ok(timeline)
    }

    fn state(&self, reader: Reader<'_>, wish: &SyncWish, room: &Room, part: &RoomSync) -> Result<StateEvents> {
        let mut state = StateEvents::new();
        // A change that the timeline's filter drops is a change all the same: it is told here. (The last of each key.)
        let mut untold = BTreeMap::new();
        for event in &part.timeline {
            if !passes(&wish.filter.room.timeline, &room.id, &event.json)?
                && let Some(key) = state_key_of(event)?
            {
                untold.insert(key, event);
            }
        }
        let mut before = Vec::with_capacity(part.state.len());
        for event in &part.state {
            if untold.is_empty() || state_key_of(event)?.is_none_or(|key| !untold.contains_key(&key)) {
                before.push(event);
            }
        }
        for event in before.into_iter().chain(untold.into_values()) {
            if passes(&wish.filter.room.state, &room.id, &event.json)? {
                let beside = Beside { in_sync: true, ..Beside::default() };
                state.events.push(self.shapes.event(room, event, reader, beside)?);
            }
        }
        Ok(state)
    }

    pub(super) fn stripped<T>(&self, stripped: &StrippedRoom) -> Result<(OwnedRoomId, Vec<Raw<T>>)> {
        let room = Room::new(&stripped.room)?;
        let mut events = Vec::with_capacity(stripped.state.len() + 1);
        for event in stripped.state.iter().chain([&stripped.membership]) {
            events.push(Raw::from_json(self.shapes.stripped(&room, event)?));
        }
        Ok((room.id, events))
    }
}

/// The type and state key of a state event.
fn state_key_of(event: &StoredEvent) -> Result<Option<(Cow<'_, str>, Cow<'_, str>)>> {
    #[derive(serde::Deserialize)]
    struct Fields<'a> {
        #[serde(rename = "type", borrow)]
        event_type: Cow<'a, str>,
        #[serde(borrow, default)]
        state_key: Option<Cow<'a, str>>,
    }
    let fields: Fields<'_> = serde_json::from_str(&event.json).map_err(Error::internal)?;
    Ok(fields.state_key.map(|key| (fields.event_type, key)))
}

fn room_account_data(part: &RoomSync) -> Result<RoomAccountData> {
    let mut data = RoomAccountData::new();
    for (kind, content) in &part.account_data {
        data.events.push(account_datum(kind, content.clone())?);
    }
    Ok(data)
}
