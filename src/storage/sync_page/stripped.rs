//! What somebody who was invited to a room or knocks on it may know of it.

use std::collections::HashMap;

use super::{StrippedRoom, SyncPage, mine::Mine};
use crate::{
    Error, Result,
    rooms::StoredEvent,
    timeline::events_by_sn,
    tx::{Reads, args, statements},
};

statements! {
    STRIPPED = "SELECT room_sn, event_sn FROM current_state WHERE room_sn = ANY($1) AND state_key = '' AND type = ANY($2)";
    // Those who invited: without them a client can only show an id.
    SENDERS = "SELECT c.room_sn, c.event_sn FROM events e JOIN current_state c
        ON c.room_sn = e.room_sn AND c.type = 'm.room.member' AND c.state_key = e.sender WHERE e.sn = ANY($1)";
}

const STRIPPED_TYPES: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

pub(super) async fn read_stripped<R: Reads>(tx: &mut R, page: &mut SyncPage, rooms: Vec<Mine>) -> Result<()> {
    if rooms.is_empty() {
        return Ok(());
    }
    let sns: Vec<i64> = rooms.iter().map(|m| m.room.room_sn).collect();
    let types: Vec<String> = STRIPPED_TYPES.map(str::to_owned).to_vec();
    let mut by_room = HashMap::<i64, Vec<i64>>::new();
    let mut wanted: Vec<i64> = rooms.iter().map(|m| m.event_sn).collect();
    for mut row in tx.query(SENDERS, args![wanted.clone()]).await? {
        let (room_sn, event_sn): (i64, i64) = (row.get(0)?, row.get(1)?);
        if !wanted.contains(&event_sn) {
            by_room.entry(room_sn).or_default().push(event_sn);
            wanted.push(event_sn);
        }
    }
    for mut row in tx.query(STRIPPED, args![sns, types]).await? {
        let (room_sn, event_sn): (i64, i64) = (row.get(0)?, row.get(1)?);
        by_room.entry(room_sn).or_default().push(event_sn);
        wanted.push(event_sn);
    }
    let events: HashMap<i64, StoredEvent> = events_by_sn(tx, wanted).await?.into_iter().map(|e| (e.sn, e)).collect();
    for m in rooms {
        let membership = events
            .get(&m.event_sn)
            .cloned()
            .ok_or_else(|| Error::Corrupt(format!("membership event {} is missing", m.event_sn)))?;
        let state = by_room.remove(&m.room.room_sn).unwrap_or_default();
        let state = state.iter().filter_map(|sn| events.get(sn).cloned()).collect();
        let shown = StrippedRoom { membership, state, room: m.room };
        match m.membership.as_str() {
            "invite" => page.invited.push(shown),
            _ => page.knocked.push(shown),
        }
    }
    Ok(())
}
