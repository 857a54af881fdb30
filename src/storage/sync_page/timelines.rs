//! The newest events of many rooms, as far as somebody wants to see them and may.

use std::collections::HashMap;

use hearth_core::filter::Sieve;
use ruma::RoomId;

use crate::{
    Result,
    error::corrupt,
    rooms::{StoredEvent, stored_event},
    timeline::VisibilityLog,
    tx::{Reads, args, statements},
};

statements! {
    // The newest $4 events of each room after $2, and whether there are more: the scalar finds the event before them.
    TIMELINES = "WITH w AS MATERIALIZED (
            SELECT r.room_sn, COALESCE((
                SELECT b.pos FROM events b
                WHERE b.room_sn = r.room_sn AND b.topo > $2 AND b.topo <= $3 AND b.pos IS NOT NULL
                ORDER BY b.topo DESC LIMIT 1 OFFSET $4
            ), $2) AS low
            FROM rooms r WHERE r.room_sn = ANY($1)
        )
        SELECT e.sn, e.room_sn, e.event_id, e.pos, e.topo, e.topo_minor, e.status, e.state_before, e.state_after,
            e.device_id, e.txn_id, e.redacted_by, e.json, w.low
        FROM w JOIN events e ON e.room_sn = w.room_sn AND e.topo > w.low AND e.topo <= $3 AND e.pos IS NOT NULL
        ORDER BY e.room_sn, e.topo DESC";
    OLDER = "SELECT sn, room_sn, event_id, pos, topo, topo_minor, status, state_before, state_after, device_id, txn_id,
        redacted_by, json FROM events
        WHERE room_sn = $1 AND topo > $2 AND topo <= $3 AND pos IS NOT NULL ORDER BY topo DESC LIMIT $4";
}

/// How many events one sync may look at beyond the newest of each room, to find those that a filter lets through.
const MOST_LOOKED_AT: i64 = 4_000;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) user_id: &'a str,
    /// After this position,
    pub(super) low: i64,
    /// and up to this one,
    pub(super) high: i64,
    /// the newest so many
    pub(super) limit: i64,
    /// of these.
    pub(super) sieve: &'a Sieve,
}

/// The newest events of a room.
#[derive(Default)]
pub(super) struct TimelinePart {
    pub(super) events: Vec<StoredEvent>,
    /// There may be more of them.
    pub(super) limited: bool,
    /// Between this position and the first of them, or the end, none is wanted; `None` where nothing happened.
    pub(super) low: Option<i64>,
    /// Where a page backwards has to begin that is to go on from here.
    pub(super) start: Option<(i64, i64)>,
    /// What is older than the first of them was left out only because the filter does not want it.
    pub(super) unwanted_before: bool,
}

/// The search for a room's events, from the newest back.
struct Search<'a> {
    room_id: &'a RoomId,
    log: Option<&'a VisibilityLog>,
    part: TimelinePart,
    /// What is newer was looked at.
    high: i64,
    /// How many events it may take next.
    chunk: i64,
    over: bool,
}

impl<'a> Search<'a> {
    /// Takes the next older events. Older ones have positions up to `before`.
    fn take(&mut self, events: Vec<StoredEvent>, before: i64, window: &Window<'_>) -> Result<()> {
        let part = &mut self.part;
        let limit = usize::try_from(window.limit).unwrap_or_default();
        let mut last = None;
        for event in events {
            let pos = event.pos.unwrap_or(event.topo);
            if let Some(log) = self.log
                && !log.sees(&event, window.user_id)
            {
                // What is left is a run without gaps to its end. Is there more that can be paged to?
                part.limited = log.shows_any(window.low, pos);
                part.low = Some(pos);
                self.over = true;
                return Ok(());
            }
            last = Some((event.topo, event.topo_minor));
            if !window.sieve.passes(self.room_id, &event.json).map_err(corrupt)? {
                part.unwanted_before = true;
                continue;
            }
            if part.events.len() == limit {
                part.limited = true;
                self.over = true;
                return Ok(());
            }
            part.low = Some(pos - 1);
            part.start = last;
            part.unwanted_before = false;
            part.events.push(event);
        }
        self.high = before;
        if part.events.is_empty() {
            part.low = Some(before);
        }
        self.over = before <= window.low || part.events.len() == limit;
        part.limited = before > window.low;
        if !self.over {
            // Should the search end here, a page goes on from here.
            part.start = last.or(part.start);
        }
        Ok(())
    }
}

/// Rooms by number and id; of those that somebody may not see all of, what decides it.
pub(super) async fn read_timelines<R: Reads>(
    tx: &mut R,
    rooms: &[(i64, &RoomId)],
    logs: &HashMap<i64, VisibilityLog>,
    window: Window<'_>,
) -> Result<HashMap<i64, TimelinePart>> {
    let mut parts = HashMap::<i64, TimelinePart>::new();
    let mut wanted = Vec::new();
    for (sn, id) in rooms {
        // These have events, but none is wanted.
        if window.limit == 0 || window.sieve.is_shut(id) {
            let limited = window.limit == 0;
            parts.insert(*sn, TimelinePart { limited, low: Some(window.high), ..TimelinePart::default() });
        } else {
            wanted.push(*sn);
        }
    }
    if wanted.is_empty() {
        return Ok(parts);
    }
    let limit = window.limit;
    // With room for some that are not wanted, so that for most rooms one look is enough.
    let chunk = if window.sieve.is_open() { limit } else { limit + limit / 2 + 10 };
    let mut first = HashMap::<i64, (Vec<StoredEvent>, i64)>::new();
    for mut row in tx.query(TIMELINES, args![wanted, window.low, window.high, chunk]).await? {
        let event = stored_event(&mut row, 0)?;
        let before: i64 = row.get(13)?;
        first.entry(event.room_sn).or_insert((Vec::new(), before)).0.push(event);
    }
    let mut budget = MOST_LOOKED_AT;
    for (sn, room_id) in rooms {
        let Some((events, before)) = first.remove(sn) else { continue };
        let log = logs.get(sn);
        let part = TimelinePart::default();
        let mut search = Search { room_id, log, part, high: window.high, chunk: 100, over: false };
        search.take(events, before, &window)?;
        while !search.over && budget > 0 {
            let most = search.chunk.min(budget);
            let rows = tx.query(OLDER, args![*sn, window.low, search.high, most]).await?;
            let events = rows.into_iter().map(|mut row| stored_event(&mut row, 0)).collect::<Result<Vec<_>>>()?;
            let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
            let before = match events.last() {
                Some(last) if count == most => last.pos.unwrap_or(last.topo) - 1,
                _ => window.low,
            };
            search.take(events, before, &window)?;
            budget -= count;
            search.chunk = search.chunk.saturating_mul(2);
        }
        let mut part = search.part;
        part.events.reverse();
        parts.insert(*sn, part);
    }
    Ok(parts)
}
