//! Pages of what relates to an event, itself or by others that do.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use std::collections::HashMap;

use hearth_core::{filter::Ignored, relation::REPLACE};

use super::bundles::{Beheld, Bundles, Onlooker, bundles};
use crate::{
    Result, Status,
    account_data::ignored_by,
    error::corrupt,
    rooms::StoredEvent,
    timeline::{Boundary, Direction, VisibilityLog, events_by_id, events_by_sn, redactions_of, visibility_logs},
    tx::{Query, Reads, args, statements},
};

/// Those that relate to what the condition names, from a place on.
macro_rules! relating_to {
    ($condition:literal) => {
        concat!(
            "SELECT sn, event_id, rel_type, type, topo, topo_minor, target FROM relations WHERE room_sn = $1 AND ",
            $condition
        )
    };
}

statements! {
    // To one event: in the order of the key, so no more is read than is asked for.
    BACK = relating_to!("target = $2 AND (topo, topo_minor) < ($3, $4) ORDER BY topo DESC, topo_minor DESC LIMIT $5");
    FORWARD = relating_to!("target = $2 AND (topo, topo_minor) >= ($3, $4) ORDER BY topo, topo_minor LIMIT $5");
    ALL_BACK =
        relating_to!("target = ANY($2) AND (topo, topo_minor) < ($3, $4) ORDER BY topo DESC, topo_minor DESC LIMIT $5");
    ALL_FORWARD = relating_to!("target = ANY($2) AND (topo, topo_minor) >= ($3, $4) ORDER BY topo, topo_minor LIMIT $5");
}

/// How far what relates to what relates is followed.
pub const RECURSION_DEPTH: u32 = 3;

/// How many are followed at each step, those nearest to where the page begins.
const MOST_FOLLOWED: usize = 2_000;

/// How many one request may look at to find those that are seen and wanted.
const MOST_LOOKED_AT: usize = 5_000;

/// Which page is asked for.
#[derive(Clone, Debug)]
pub struct Related {
    pub room_sn: i64,
    pub user_id: String,
    /// To which they relate.
    pub event_id: String,
    /// None: all.
    pub rel_type: Option<String>,
    pub event_type: Option<String>,
    /// Also what relates to those that relate.
    pub recurse: bool,
    /// Events before (back) or from (forward) here,
    pub from: Boundary,
    /// but none beyond this.
    pub to: Option<Boundary>,
    pub direction: Direction,
    pub limit: usize,
}

/// A page of what relates, in the order asked for.
#[derive(Clone, Debug)]
pub struct RelatedPage {
    pub events: Vec<StoredEvent>,
    /// Where the next page begins; `None` if there is none.
    pub end: Option<Boundary>,
    pub log: VisibilityLog,
    pub because: Vec<StoredEvent>,
    pub bundles: Bundles,
}

/// An event that relates, before it is read.
struct Found {
    sn: i64,
    event_id: String,
    key: Boundary,
    is_wanted: bool,
}

impl Query for Related {
    const NAME: &'static str = "related";
    type Out = Option<RelatedPage>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let parent = events_by_id(tx, vec![self.event_id.clone()]).await?;
        let Some(parent) = parent.into_iter().find(|e| e.room_sn == self.room_sn) else { return Ok(None) };
        let log = visibility_logs(tx, &[self.room_sn], &self.user_id).await?.remove(&self.room_sn).unwrap_or_default();
        if parent.status != Status::Accepted || !log.sees(&parent, &self.user_id) {
            return Ok(None);
        }
        let ignored = ignored_by(tx, &self.user_id).await?;
        let (events, end) = self.page(tx, &parent, &log, &ignored).await?;
        let because = redactions_of(tx, &events).await?;
        let seen = log.stretches(None);
        let beheld: Vec<Beheld<'_>> = events.iter().map(|event| Beheld { event, seen: &seen }).collect();
        let who = Onlooker { user_id: &self.user_id, ignored: &ignored };
        let bundles = bundles(tx, who, &beheld).await?;
        Ok(Some(RelatedPage { events, end, log, because, bundles }))
    }
}

impl Related {
    /// What of it is shown, and where to go on.
    async fn page<R: Reads>(
        &self,
        tx: &mut R,
        parent: &StoredEvent,
        log: &VisibilityLog,
        ignored: &Ignored,
    ) -> Result<(Vec<StoredEvent>, Option<Boundary>)> {
        let (mut events, mut at, mut looked_at) = (Vec::new(), self.from, 0);
        loop {
            let (found, is_last) = match self.recurse {
                true => self.all_beneath(tx, parent, at).await?,
                false => self.next(tx, parent, at).await?,
            };
            for chunk in found.chunks(self.limit + 1) {
                let sns = chunk.iter().filter(|f| f.is_wanted).map(|f| f.sn).collect();
                let read = events_by_sn(tx, sns).await?.into_iter().map(|e| (e.sn, e));
                let mut read: HashMap<i64, StoredEvent> = read.collect();
                for f in chunk {
                    let event = read.remove(&f.sn).filter(|e| log.sees(e, &self.user_id));
                    let is_hidden = event.as_ref().map(|e| ignored.hides(&e.json)).transpose().map_err(corrupt)?;
                    let event = event.filter(|_| is_hidden == Some(false));
                    looked_at += 1;
                    if looked_at > MOST_LOOKED_AT || event.is_some() && events.len() == self.limit {
                        return Ok((events, Some(at)));
                    }
                    at = self.behind(f.key);
                    events.extend(event);
                }
            }
            if is_last {
                return Ok((events, None));
            }
        }
    }

    /// The next of those that relate to the event itself, and whether they are the last.
    async fn next<R: Reads>(&self, tx: &mut R, parent: &StoredEvent, at: Boundary) -> Result<(Vec<Found>, bool)> {
        let most = (self.limit * 2).clamp(20, 1_000);
        let target = std::slice::from_ref(&self.event_id);
        let mut found = self.beneath(tx, parent, target, (at, self.direction), most).await?;
        let is_last = found.len() < most || found.last().is_some_and(|last| self.is_beyond(last.key));
        found.retain(|f| !self.is_beyond(f.key));
        Ok((found, is_last))
    }

    /// What belongs to the event by however many others, in order; and whether that is all.
    async fn all_beneath<R: Reads>(
        &self,
        tx: &mut R,
        parent: &StoredEvent,
        at: Boundary,
    ) -> Result<(Vec<Found>, bool)> {
        let (mut all, mut horizon) = (Vec::new(), None);
        let mut targets = vec![self.event_id.clone()];
        for _ in 0..=RECURSION_DEPTH {
            if targets.is_empty() {
                break;
            }
            let found = self.beneath(tx, parent, &targets, (at, self.direction), MOST_FOLLOWED).await?;
            if found.len() == MOST_FOLLOWED
                && let Some(last) = found.last()
                && horizon.is_none_or(|horizon| self.comes_before(last.key, horizon))
            {
                horizon = Some(last.key);
            }
            let mut next: Vec<String> = found.iter().map(|f| f.event_id.clone()).collect();
            if self.direction == Direction::Forward {
                // What comes later may belong to what was before.
                let before = self.beneath(tx, parent, &targets, (at, Direction::Back), MOST_FOLLOWED).await?;
                next.extend(before.into_iter().map(|f| f.event_id));
            }
            targets = next;
            all.extend(found);
        }
        all.retain(|f| !self.is_beyond(f.key) && horizon.is_none_or(|horizon| !self.comes_before(horizon, f.key)));
        all.sort_unstable_by(|a, b| match self.direction {
            Direction::Back => b.key.cmp(&a.key),
            Direction::Forward => a.key.cmp(&b.key),
        });
        Ok((all, horizon.is_none_or(|horizon| self.is_beyond(horizon))))
    }

    async fn beneath<R: Reads>(
        &self,
        tx: &mut R,
        parent: &StoredEvent,
        targets: &[String],
        (from, direction): (Boundary, Direction),
        most: usize,
    ) -> Result<Vec<Found>> {
        let (one, all) = match direction {
            Direction::Back => (BACK, ALL_BACK),
            Direction::Forward => (FORWARD, ALL_FORWARD),
        };
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = match targets {
            [target] => tx.query(one, args![self.room_sn, target, from.0, from.1, most]).await?,
            targets => tx.query(all, args![self.room_sn, targets.to_vec(), from.0, from.1, most]).await?,
        };
        let mut found = Vec::with_capacity(rows.len());
        for mut row in rows {
            let (sn, event_id): (i64, String) = (row.get(0)?, row.get(1)?);
            let (rel_type, kind): (String, String) = (row.get(2)?, row.get(3)?);
            let (key, target): (Boundary, String) = ((row.get(4)?, row.get(5)?), row.get(6)?);
            // With an event its edits are taken back.
            let is_gone = rel_type == REPLACE && target == parent.event_id && parent.redacted_by.is_some();
            let is_wanted = !is_gone
                && self.rel_type.as_ref().is_none_or(|wanted| *wanted == rel_type)
                && self.event_type.as_ref().is_none_or(|wanted| *wanted == kind);
            found.push(Found { sn, event_id, key, is_wanted });
        }
        Ok(found)
    }

    /// In the order asked for.
    fn comes_before(&self, a: Boundary, b: Boundary) -> bool {
        match self.direction {
            Direction::Back => a > b,
            Direction::Forward => a < b,
        }
    }

    fn is_beyond(&self, key: Boundary) -> bool {
        self.to.is_some_and(|to| match self.direction {
            Direction::Back => key < to,
            Direction::Forward => key >= to,
        })
    }

    /// Where to go on after an event.
    fn behind(&self, key: Boundary) -> Boundary {
        match self.direction {
            Direction::Back => key,
            Direction::Forward => (key.0, key.1.saturating_add(1)),
        }
    }
}
