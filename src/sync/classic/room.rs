//! One room of a sync: its timeline, the state beside it, and what else there is to tell.

use hearth_core::{Error, Result, filter, token::TimelineToken};
use hearth_storage::{RoomSync, StrippedRoom};
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
    service::shape::{Beside, Reader, Room, redaction_of},
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
        joined.timeline = self.timeline(reader, &room, part)?;
        joined.state = self.state(reader, wish, &room, part)?;
        joined.account_data = room_account_data(wish, &room, part)?;
        joined.ephemeral = Ephemeral::new();
        if !part.receipts.is_empty() && wants_ephemeral(wish, &room.id, "m.receipt") {
            joined.ephemeral.events.extend(receipts(&part.receipts)?);
        }
        unread::show(wish, &mut joined, &part.unread)?;
        if let Some(summary) = &part.summary {
            joined.summary.joined_member_count = UInt::try_from(part.room.joined).ok();
            joined.summary.invited_member_count = UInt::try_from(part.room.invited).ok();
            for hero in &summary.heroes {
                joined.summary.heroes.push(hero.as_str().try_into().map_err(Error::internal)?);
            }
        }
        Ok((room.id, joined))
    }

    pub(super) fn left(&self, reader: Reader<'_>, wish: &SyncWish, part: &RoomSync) -> Result<(OwnedRoomId, LeftRoom)> {
        let room = Room::new(&part.room)?;
        let mut left = LeftRoom::new();
        left.timeline = self.timeline(reader, &room, part)?;
        left.state = self.state(reader, wish, &room, part)?;
        left.account_data = room_account_data(wish, &room, part)?;
        Ok((room.id, left))
    }

    pub(in crate::sync) fn timeline(&self, reader: Reader<'_>, room: &Room, part: &RoomSync) -> Result<Timeline> {
        let mut timeline = Timeline::new();
        timeline.limited = part.limited;
        let (topo, minor) = part.start;
        timeline.prev_batch = Some(TimelineToken { topo, minor }.to_string());
        for event in &part.timeline {
            let beside = Beside {
                because: redaction_of(event, &part.because),
                replaced: part.replaced.get(&event.sn),
                memberships: &part.membership,
                bundle: part.bundles.get(&event.sn),
                in_sync: true,
                ..Beside::default()
            };
            timeline.events.push(self.shapes.event(room, event, reader, beside)?);
        }
        Ok(timeline)
    }

    fn state(&self, reader: Reader<'_>, wish: &SyncWish, room: &Room, part: &RoomSync) -> Result<State> {
        let mut state = StateEvents::new();
        for event in &part.state {
            if filter::passes(&wish.filter.room.state, &room.id, &event.json)? {
                let because = redaction_of(event, &part.because);
                let beside = Beside { because, in_sync: true, memberships: &part.membership, ..Beside::default() };
                state.events.push(self.shapes.event(room, event, reader, beside)?);
            }
        }
        Ok(if wish.state_after { State::After(state) } else { State::Before(state) })
    }

    pub(in crate::sync) fn stripped<T>(&self, stripped: &StrippedRoom) -> Result<(OwnedRoomId, Vec<Raw<T>>)> {
        let room = Room::new(&stripped.room)?;
        let mut events = Vec::with_capacity(stripped.state.len() + 1);
        for event in stripped.state.iter().chain([&stripped.membership]) {
            events.push(Raw::from_json(self.shapes.stripped(&room, event)?));
        }
        Ok((room.id, events))
    }
}

fn room_account_data(wish: &SyncWish, room: &Room, part: &RoomSync) -> Result<RoomAccountData> {
    let mut data = RoomAccountData::new();
    for (kind, content) in &part.account_data {
        if filter::matches_type(&wish.filter.room.account_data, &room.id, kind) {
            data.events.push(account_datum(kind, content.clone())?);
        }
    }
    Ok(data)
}
