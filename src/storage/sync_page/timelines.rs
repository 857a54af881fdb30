//! The newest events of many rooms.

use std::collections::HashMap;

use crate::{
    Result,
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
        ORDER BY e.room_sn, e.topo";
}

/// The newest events of a room.
#[derive(Default)]
pub(super) struct TimelinePart {
    pub(super) events: Vec<StoredEvent>,
    pub(super) limited: bool,
    /// Position before the first of them; `None` when there is none.
    pub(super) low: Option<i64>,
}

impl TimelinePart {
    /// Drops what the user may not see. What is left is a run without gaps to its end.
    pub(super) fn hide_from(&mut self, user_id: &str, log: Option<&VisibilityLog>) {
        let none = VisibilityLog::default();
        let log = log.unwrap_or(&none);
        let seen = |e: &StoredEvent| log.sees(e, user_id);
        if let Some(hidden) = self.events.iter().rposition(|e| !seen(e)) {
            let low = self.events[hidden].pos;
            self.events.drain(..=hidden);
            self.low = low;
            // What is hidden can't be paged to either; what somebody saw when they were here before can.
            self.limited = low.is_some_and(|low| log.membership.iter().any(|(pos, m)| *pos <= low && m == "join"));
        }
    }
}

pub(super) async fn read_timelines<R: Reads>(
    tx: &mut R,
    rooms: &[i64],
    low: i64,
    high: i64,
    limit: i64,
) -> Result<HashMap<i64, TimelinePart>> {
    let mut parts = HashMap::<i64, TimelinePart>::new();
    if rooms.is_empty() {
        return Ok(parts);
    }
    if limit == 0 {
        // None are wanted, but each of these rooms has some.
        let none = |room: &i64| (*room, TimelinePart { events: Vec::new(), limited: true, low: Some(high) });
        return Ok(rooms.iter().map(none).collect());
    }
    for mut row in tx.query(TIMELINES, args![rooms.to_vec(), low, high, limit]).await? {
        let event = stored_event(&mut row, 0)?;
        let before: i64 = row.get(13)?;
        let part = parts.entry(event.room_sn).or_default();
        part.limited = before > low;
        part.low = Some(part.low.unwrap_or(event.pos.unwrap_or(before) - 1));
        part.events.push(event);
    }
    Ok(parts)
}
