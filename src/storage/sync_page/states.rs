//! The state beside a timeline, of many rooms.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::timelines::TimelinePart;
use crate::{
    Result,
    rooms::StoredEvent,
    timeline::events_by_sn,
    tx::{Reads, args, statements},
};

statements! {
    DELTAS = "SELECT room_sn, pos, type, state_key, event_sn, prev_sn FROM current_state_delta
        WHERE room_sn = ANY($1) AND pos > $2 AND pos <= $3 ORDER BY room_sn, pos";
    STATES = "SELECT room_sn, type, state_key, event_sn FROM current_state WHERE room_sn = ANY($1)";
}

/// What a client needs of the state beside a timeline.
#[derive(Default)]
pub(super) struct StatePart {
    pub(super) before: Vec<StoredEvent>,
    pub(super) replaced: HashMap<i64, StoredEvent>,
}

/// Of each room, the state before its timeline: the whole of it, or what changed after `low`. A client lays the
/// timeline over it; so what a merge of forks made current without an event of its own in the timeline is in it, too.
pub(super) async fn read_states<R: Reads>(
    tx: &mut R,
    rooms: &[i64],
    (low, high): (i64, i64),
    whole: bool,
    timelines: &HashMap<i64, TimelinePart>,
) -> Result<HashMap<i64, StatePart>> {
    let mut parts = HashMap::new();
    if rooms.is_empty() {
        return Ok(parts);
    }
    type Key = (String, String);
    let mut states = HashMap::<i64, BTreeMap<Key, Option<i64>>>::new();
    let mut lowest = low;
    if whole {
        for mut row in tx.query(STATES, args![rooms.to_vec()]).await? {
            let room: i64 = row.get(0)?;
            states.entry(room).or_default().insert((row.get(1)?, row.get(2)?), Some(row.get(3)?));
        }
        // Only what changed from the timelines on has to be undone.
        lowest = rooms.iter().map(|r| timelines.get(r).and_then(|t| t.low).unwrap_or(high)).min().unwrap_or(high);
    }
    struct Delta {
        pos: i64,
        key: Key,
        event: Option<i64>,
        prev: Option<i64>,
    }
    let mut deltas = HashMap::<i64, Vec<Delta>>::new();
    for mut row in tx.query(DELTAS, args![rooms.to_vec(), lowest, i64::MAX]).await? {
        let room: i64 = row.get(0)?;
        deltas.entry(room).or_default().push(Delta {
            pos: row.get(1)?,
            key: (row.get(2)?, row.get(3)?),
            event: row.get(4)?,
            prev: row.get(5)?,
        });
    }

    let mut wanted = HashSet::new();
    let mut replaced = HashMap::<i64, Vec<(i64, i64)>>::new();
    for room in rooms {
        let timeline = timelines.get(room);
        let start = timeline.and_then(|t| t.low).unwrap_or(high);
        let in_timeline: HashSet<i64> = timeline.iter().flat_map(|t| t.events.iter().map(|e| e.sn)).collect();
        let state = states.entry(*room).or_default();
        let mut undone = HashSet::new();
        for d in deltas.get(room).map(Vec::as_slice).unwrap_or_default() {
            if d.pos <= start {
                // Before the timeline: the last change counts. (A whole state has these already.)
                if !whole && d.pos <= high {
                    state.insert(d.key.clone(), d.event);
                }
                continue;
            }
            if whole && undone.insert(&d.key) {
                state.insert(d.key.clone(), d.prev);
            }
            if d.pos > high {
                continue;
            }
            match d.event {
                Some(event) if in_timeline.contains(&event) => {
                    if let Some(prev) = d.prev {
                        replaced.entry(*room).or_default().push((event, prev));
                        wanted.insert(prev);
                    }
                }
                // Became current without being in the timeline.
                event => {
                    state.insert(d.key.clone(), event);
                }
            }
        }
        wanted.extend(state.values().flatten());
    }
    let events: HashMap<i64, StoredEvent> =
        events_by_sn(tx, wanted.into_iter().collect()).await?.into_iter().map(|e| (e.sn, e)).collect();
    for room in rooms {
        let before = states.remove(room).unwrap_or_default();
        let before = before.into_values().flatten().filter_map(|sn| events.get(&sn).cloned()).collect();
        let replaced = replaced.remove(room).unwrap_or_default();
        let replaced = replaced.into_iter().filter_map(|(event, prev)| Some((event, events.get(&prev)?.clone())));
        parts.insert(*room, StatePart { before, replaced: replaced.collect() });
    }
    Ok(parts)
}
