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
    NEWEST = "SELECT sn, room_sn, event_id, pos, topo, topo_minor, status, state_before, state_after, device_id, txn_id,
        redacted_by, json FROM events
        WHERE room_sn = $1 AND topo > $2 AND topo <= $3 AND pos IS NOT NULL ORDER BY topo DESC LIMIT $4";
}

/// How many events one sync may look at beyond the newest of each room, to find those that a filter lets through.
const MOST_LOOKED_AT: i64 = 4_000;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) user_id: &'a str,
    /// What this lets through.
    pub(super) sieve: &'a Sieve,
}

/// Where it is looked for.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) room_sn: i64,
    pub(super) room_id: &'a RoomId,
    /// After this position,
    pub(super) low: i64,
    /// and up to this one,
    pub(super) high: i64,
    /// the newest so many.
    pub(super) limit: i64,
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
    span: Span<'a>,
    /// If the user may not see all of the room, what decides it.
    log: Option<&'a VisibilityLog>,
    part: TimelinePart,
    /// What is newer was looked at.
    high: i64,
    /// How many events it may look at next.
    chunk: i64,
    over: bool,
}

impl<'a> Search<'a> {
    fn new(span: Span<'a>, log: Option<&'a VisibilityLog>, chunk: i64) -> Self {
        Self { span, log, part: TimelinePart::default(), high: span.high, chunk, over: false }
    }

    /// Takes the next older events. Older ones have positions up to `before`.
    fn take(&mut self, events: Vec<StoredEvent>, before: i64, wanted: Wanted<'_>) -> Result<()> {
        let (span, part) = (&self.span, &mut self.part);
        let limit = usize::try_from(span.limit).unwrap_or_default();
        let mut last = None;
        for event in events {
            let pos = event.pos.unwrap_or(event.topo);
            if let Some(log) = self.log
                && !log.sees(&event, wanted.user_id)
            {
                // A merge of forks put them out with an event that is not theirs: what they saw ends before it.
                if log.left_at() == Some(pos) {
                    continue;
                }
                // What is left is a run without gaps to its end. Is there more that can be paged to?
                part.limited = log.shows_any(span.low, pos);
                part.low = Some(pos);
                self.over = true;
                return Ok(());
            }
            last = Some((event.topo, event.topo_minor));
            if !wanted.sieve.passes(span.room_id, &event.json).map_err(corrupt)? {
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
        self.over = before <= span.low || part.events.len() == limit;
        // Of what is older, something may be seen.
        let is_seen = |log: &VisibilityLog| log.sees_state_at(before) || log.shows_any(span.low, before);
        part.limited = before > span.low && self.log.is_none_or(is_seen);
        if !self.over {
            // Should the search end here, a page goes on from here.
            part.start = last.or(part.start);
        }
        Ok(())
    }
}

/// Looks a step further back in each of these rooms. How many events were looked at.
async fn look<R: Reads>(tx: &mut R, searches: &mut [&mut Search<'_>], wanted: Wanted<'_>) -> Result<i64> {
    // One more than is looked at: where the next step begins.
    let each = |s: &&mut Search<'_>| args![s.span.room_sn, s.span.low, s.high, s.chunk + 1].to_vec();
    let found = tx.query_each(NEWEST, &searches.iter().map(each).collect::<Vec<_>>()).await?;
    let mut count = 0;
    for (search, rows) in searches.iter_mut().zip(found) {
        let mut events = rows.into_iter().map(|mut row| stored_event(&mut row, 0)).collect::<Result<Vec<_>>>()?;
        let chunk = usize::try_from(search.chunk).unwrap_or_default();
        let before = events.get(chunk).map_or(search.span.low, |e| e.topo);
        events.truncate(chunk);
        count += i64::try_from(events.len()).unwrap_or(i64::MAX);
        search.take(events, before, wanted)?;
    }
    Ok(count)
}

/// The timelines of these rooms; of those that somebody may not see all of, what decides it. All rooms are searched at
/// once, in steps, which with a narrow filter are some, however many rooms there are.
pub(super) async fn read_timelines<R: Reads>(
    tx: &mut R,
    spans: &[Span<'_>],
    logs: &HashMap<i64, VisibilityLog>,
    wanted: Wanted<'_>,
) -> Result<HashMap<i64, TimelinePart>> {
    let sieve = wanted.sieve;
    // With room for some that are not wanted, so that for most rooms one step is enough.
    let chunk = |limit: i64| if sieve.is_open() { limit } else { limit + limit / 2 + 10 };
    let mut parts = HashMap::<i64, TimelinePart>::new();
    let mut searches = Vec::new();
    for span in spans {
        // These have events, but none is wanted.
        if span.limit == 0 || sieve.is_shut(span.room_id) {
            let part = TimelinePart { limited: span.limit == 0, low: Some(span.high), ..TimelinePart::default() };
            parts.insert(span.room_sn, part);
        } else {
            searches.push(Search::new(*span, logs.get(&span.room_sn), chunk(span.limit)));
        }
    }
    look(tx, &mut searches.iter_mut().collect::<Vec<_>>(), wanted).await?;
    let (mut step, mut budget) = (100, MOST_LOOKED_AT);
    loop {
        let mut going_on: Vec<&mut Search<'_>> = searches.iter_mut().filter(|s| !s.over).collect();
        going_on.truncate(usize::try_from(budget).unwrap_or_default());
        let Some(share) = i64::try_from(going_on.len()).ok().and_then(|rooms| budget.checked_div(rooms)) else { break };
        for search in &mut going_on {
            search.chunk = share.min(step);
        }
        budget -= look(tx, &mut going_on, wanted).await?;
        step *= 2;
    }
    for search in searches {
        let mut part = search.part;
        part.events.reverse();
        parts.insert(search.span.room_sn, part);
    }
    Ok(parts)
}
