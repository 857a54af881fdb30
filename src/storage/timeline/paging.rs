//! Pages of a room's timeline: what somebody may see of it and wants to, counted after both.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use hearth_core::filter::Sieve;
use ruma::{OwnedRoomId, api::client::filter::RoomEventFilter};
use serde::Deserialize;

use super::{StateOf, VisibilityLog, beside, events_by_id, redactions_of, replaced_by, state_at, visibility_logs};
use crate::{
    Result,
    account_data::ignored_by,
    error::corrupt,
    relations::bundles::{Bundles, Onlooker},
    rooms::{StoredEvent, stored_event},
    tx::{Query, Reads, args, statements},
};

/// All columns that [`stored_event`] reads, in its order, of a room's events that the condition names.
macro_rules! timeline_where {
    ($condition:literal) => {
        concat!(
            "SELECT sn, room_sn, event_id, pos, topo, topo_minor, status, state_before, state_after, device_id, txn_id, ",
            "redacted_by, json FROM events WHERE room_sn = $1 AND status = 0 AND (topo, topo_minor) ",
            $condition
        )
    };
}

statements! {
    PAGE_BACK = timeline_where!("< ($2, $3) ORDER BY topo DESC, topo_minor DESC LIMIT $4");
    PAGE_FORWARD = timeline_where!(">= ($2, $3) ORDER BY topo, topo_minor LIMIT $4");
}

/// How many events one request may look at to find those that are seen and wanted.
const MOST_LOOKED_AT: usize = 5_000;

/// Which way a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Back,
    Forward,
}

/// A place in a room's timeline, which is ordered by (topo, minor): before the event with this key.
pub type Boundary = (i64, i64);

/// Which page is asked for.
#[derive(Clone, Debug)]
pub struct PageQuery {
    pub room_sn: i64,
    pub room_id: OwnedRoomId,
    pub user_id: String,
    /// Events before (back) or from (forward) here,
    pub from: Boundary,
    /// but none beyond this.
    pub to: Option<Boundary>,
    pub direction: Direction,
    pub limit: usize,
    pub filter: RoomEventFilter,
    /// Of one who left, when: what the state was later is not for them.
    pub until: Option<i64>,
}

/// A page of a room's timeline, in the order asked for.
#[derive(Clone, Debug)]
pub struct Page {
    pub events: Vec<StoredEvent>,
    /// Where the next page begins; `None` if there is none.
    pub end: Option<Boundary>,
    pub log: VisibilityLog,
    /// The redactions of the redacted events among them.
    pub because: Vec<StoredEvent>,
    /// By the number of a state event among them, the one it replaced.
    pub replaced: HashMap<i64, StoredEvent>,
    /// If members are loaded lazily, the memberships of the senders, as they were at the first event.
    pub members: Vec<StoredEvent>,
    /// What relates to the events.
    pub bundles: Bundles,
}

/// What is asked for of an event's surroundings.
#[derive(Clone, Debug)]
pub struct ContextQuery {
    pub room_sn: i64,
    pub room_id: OwnedRoomId,
    pub user_id: String,
    pub event_id: String,
    pub before: usize,
    pub after: usize,
    pub filter: RoomEventFilter,
    /// Of one who left, when: what the state was later is not for them.
    pub until: Option<i64>,
}

/// An event and its surroundings.
#[derive(Clone, Debug)]
pub struct Context {
    pub event: StoredEvent,
    /// The newest first.
    pub before: Vec<StoredEvent>,
    pub after: Vec<StoredEvent>,
    /// Where pages backwards and forwards go on.
    pub start: Boundary,
    pub end: Boundary,
    pub log: VisibilityLog,
    pub because: Vec<StoredEvent>,
    pub replaced: HashMap<i64, StoredEvent>,
    pub bundles: Bundles,
    /// At the last of the events, as far as the user may see it. Of the members only the senders, if they are loaded
    /// lazily.
    pub state: Vec<StoredEvent>,
}

impl Query for PageQuery {
    const NAME: &'static str = "page";
    type Out = Page;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Page> {
        let (room_sn, user) = (self.room_sn, self.user_id.as_str());
        let log = visibility_logs(tx, &[room_sn], user).await?.remove(&room_sn).unwrap_or_default();
        let ignored = ignored_by(tx, user).await?;
        let sieve = Sieve::new(self.filter.clone(), Arc::clone(&ignored));
        let found = scan(tx, self, &log, &sieve).await?;
        let events = found.events;
        let because = redactions_of(tx, &events).await?;
        let replaced = replaced_by(tx, room_sn, &events).await?;
        let first = events.first().filter(|_| !self.filter.lazy_load_options.is_disabled());
        let members = match first.and_then(|first| log.state_beside(first.topo, self.until)) {
            Some(at) => state_at(tx, room_sn, &StateOf::Members(senders_of(&events)?), Some(at)).await?,
            None => Vec::new(),
        };
        let who = Onlooker { user_id: user, ignored: &ignored };
        let bundles = beside(tx, who, &log, self.until, &events).await?;
        let end = found.more.then_some(found.at);
        Ok(Page { events, end, log, because, replaced, members, bundles })
    }
}

impl Query for ContextQuery {
    const NAME: &'static str = "context";
    type Out = Option<Context>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Context>> {
        let (room_sn, user) = (self.room_sn, self.user_id.as_str());
        let event = events_by_id(tx, vec![self.event_id.clone()]).await?.into_iter().find(|e| e.room_sn == room_sn);
        let Some(event) = event else { return Ok(None) };
        let log = visibility_logs(tx, &[room_sn], user).await?.remove(&room_sn).unwrap_or_default();
        let ignored = ignored_by(tx, user).await?;
        if event.status != crate::Status::Accepted
            || !log.sees(&event, user)
            || ignored.hides(&event.json).map_err(corrupt)?
        {
            return Ok(None);
        }
        let sieve = Sieve::new(self.filter.clone(), Arc::clone(&ignored));
        let page = |direction, from, limit| PageQuery {
            room_sn,
            room_id: self.room_id.clone(),
            user_id: self.user_id.clone(),
            from,
            to: None,
            direction,
            limit,
            filter: RoomEventFilter::default(),
            until: self.until,
        };
        let here = (event.topo, event.topo_minor);
        let before = scan(tx, &page(Direction::Back, here, self.before), &log, &sieve).await?;
        let after = scan(tx, &page(Direction::Forward, behind(&event), self.after), &log, &sieve).await?;
        let all: Vec<StoredEvent> =
            std::iter::once(&event).chain(&before.events).chain(&after.events).cloned().collect();
        let because = redactions_of(tx, &all).await?;
        let replaced = replaced_by(tx, room_sn, &all).await?;
        let who = Onlooker { user_id: user, ignored: &ignored };
        let bundles = beside(tx, who, &log, self.until, &all).await?;
        let last = after.events.last().unwrap_or(&event).topo;
        let mut state = Vec::new();
        if let Some(at) = log.state_beside(last, self.until) {
            if self.filter.lazy_load_options.is_disabled() {
                state = state_at(tx, room_sn, &StateOf::All, Some(at)).await?;
            } else {
                state = state_at(tx, room_sn, &StateOf::AllButMembers, Some(at)).await?;
                state.extend(state_at(tx, room_sn, &StateOf::Members(senders_of(&all)?), Some(at)).await?);
            }
        }
        Ok(Some(Context {
            event,
            start: before.at,
            end: after.at,
            before: before.events,
            after: after.events,
            log,
            because,
            replaced,
            bundles,
            state,
        }))
    }
}

/// What a scan found.
struct Found {
    events: Vec<StoredEvent>,
    /// What lies before this was looked at.
    at: Boundary,
    /// There may be more behind it.
    more: bool,
}

async fn scan<R: Reads>(tx: &mut R, q: &PageQuery, log: &VisibilityLog, sieve: &Sieve) -> Result<Found> {
    let mut found = Found { events: Vec::new(), at: q.from, more: false };
    if q.limit == 0 || sieve.is_shut(&q.room_id) {
        return Ok(found);
    }
    let stmt = match q.direction {
        Direction::Back => PAGE_BACK,
        Direction::Forward => PAGE_FORWARD,
    };
    // One more than is asked for, to know whether there is more.
    let batch = if sieve.is_open() { q.limit + 1 } else { (q.limit * 2).clamp(20, 1_000) };
    let mut looked_at = 0;
    loop {
        let most = i64::try_from(batch).unwrap_or(i64::MAX);
        let rows = tx.query(stmt, args![q.room_sn, found.at.0, found.at.1, most]).await?;
        let is_last = rows.len() < batch;
        for mut row in rows {
            let event = stored_event(&mut row, 0)?;
            let key = (event.topo, event.topo_minor);
            let beyond = q.to.is_some_and(|to| match q.direction {
                Direction::Back => key < to,
                Direction::Forward => key >= to,
            });
            if beyond {
                return Ok(found);
            }
            if found.events.len() == q.limit || looked_at == MOST_LOOKED_AT {
                found.more = true;
                return Ok(found);
            }
            looked_at += 1;
            found.at = match q.direction {
                Direction::Back => key,
                Direction::Forward => behind(&event),
            };
            if log.sees(&event, &q.user_id) && sieve.passes(&q.room_id, &event.json).map_err(corrupt)? {
                found.events.push(event);
            }
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// The boundary right behind an event.
fn behind(event: &StoredEvent) -> Boundary {
    match event.topo_minor.checked_add(1) {
        Some(minor) => (event.topo, minor),
        None => (event.topo.saturating_add(1), i64::MIN),
    }
}

fn senders_of(events: &[StoredEvent]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Sent {
        sender: String,
    }
    let mut senders = BTreeSet::new();
    for event in events {
        let sent: Sent = serde_json::from_str(&event.json).map_err(corrupt)?;
        senders.insert(sent.sender);
    }
    Ok(senders.into_iter().collect())
}
