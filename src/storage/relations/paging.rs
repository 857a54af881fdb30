//! Pages of what relates to an event, itself or by others that do.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use std::{
    collections::{BTreeSet, HashMap},
    mem,
};

use hearth_core::{filter::Ignored, relation::REPLACE};

use super::bundles::{Beheld, Bundles, Onlooker, bundles};
use crate::{
    Result, Status,
    account_data::ignored_by,
    error::corrupt,
    rooms::StoredEvent,
    timeline::{Boundary, Direction, VisibilityLog, events_by_id, events_by_sn, redactions_of, visibility_logs},
    tx::{Query, Reads, Row, args, statements},
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
    BACK = relating_to!("target = $4 AND (topo, topo_minor) < ($2, $3) ORDER BY topo DESC, topo_minor DESC LIMIT $5");
    FORWARD = relating_to!("target = $4 AND (topo, topo_minor) >= ($2, $3) ORDER BY topo, topo_minor LIMIT $5");
    // To whatever there is.
    ALL_BACK = relating_to!("(topo, topo_minor) < ($2, $3) ORDER BY topo DESC, topo_minor DESC LIMIT $4");
    ALL_FORWARD = relating_to!("(topo, topo_minor) >= ($2, $3) ORDER BY topo, topo_minor LIMIT $4");
    // To any of these, wherever.
    BENEATH = relating_to!("target = ANY($2) LIMIT $3");
    TARGETS = "SELECT e.event_id, r.target FROM events e JOIN relations r ON r.sn = e.sn
        WHERE e.event_id = ANY($1) AND r.room_sn = $2";
}

/// How far what relates to what relates is followed.
pub const RECURSION_DEPTH: u32 = 3;

/// How much one page may cost.
#[derive(Clone, Copy, Debug)]
pub struct PagingBounds {
    /// If more than so many belong to an event by however many others, a page of them is a walk through the room from
    /// where the page begins: to follow each would cost as much for every page.
    pub followed: usize,
    /// So many are looked at to find those that are seen and wanted.
    pub looked_at: usize,
}

/// How many are read at once, at first and at most.
const FIRST_READ: usize = 20;
const MOST_READ: usize = 1_000;

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
    pub bounds: PagingBounds,
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
    target: String,
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
        let tree = if self.recurse { self.tree(tx, parent).await? } else { None };
        let mut tree = tree.map(|tree| self.in_order(tree));
        // Nothing relates to an event before that is there.
        let begin = (parent.topo, parent.topo_minor);
        let walks_on = self.recurse && self.direction == Direction::Forward;
        let at = if walks_on { self.from.max(begin) } else { self.from };
        let (mut events, mut at, mut looked_at) = (Vec::new(), at, 0);
        let mut most = (self.limit * 2).clamp(FIRST_READ, MOST_READ);
        loop {
            let (found, end) = match tree.take() {
                Some(tree) => (tree, None),
                None if self.recurse => self.next_of_all(tx, parent, at, most).await?,
                None => self.next(tx, parent, at, most).await?,
            };
            looked_at += found.len();
            most = (most * 2).min(MOST_READ);
            let wanted: Vec<Found> = found.into_iter().filter(|f| f.is_wanted).collect();
            for chunk in wanted.chunks((self.limit + 1).max(FIRST_READ)) {
                let read = events_by_sn(tx, chunk.iter().map(|f| f.sn).collect()).await?;
                let mut read: HashMap<i64, StoredEvent> = read.into_iter().map(|e| (e.sn, e)).collect();
                for f in chunk {
                    let event = read.remove(&f.sn).filter(|e| log.sees(e, &self.user_id));
                    let is_hidden = event.as_ref().map(|e| ignored.hides(&e.json)).transpose().map_err(corrupt)?;
                    let event = event.filter(|_| is_hidden == Some(false));
                    if event.is_some() && events.len() == self.limit {
                        return Ok((events, Some(at)));
                    }
                    at = self.behind(f.key);
                    events.extend(event);
                }
            }
            match end {
                None => return Ok((events, None)),
                Some(end) if looked_at >= self.bounds.looked_at => return Ok((events, Some(end))),
                Some(end) => at = end,
            }
        }
    }

    /// The next of those that relate to the event itself, and where to go on behind them.
    async fn next<R: Reads>(
        &self,
        tx: &mut R,
        parent: &StoredEvent,
        at: Boundary,
        most: usize,
    ) -> Result<(Vec<Found>, Option<Boundary>)> {
        let stmt = self.either(BACK, FORWARD);
        let args = args![self.room_sn, at.0, at.1, &self.event_id, i64::try_from(most).unwrap_or(i64::MAX)];
        let found = self.found(tx.query(stmt, args).await?, parent)?;
        Ok(self.until_here(found, most, None))
    }

    /// All that belongs to the event by however many others, in no order; `None` if that is more than is followed.
    async fn tree<R: Reads>(&self, tx: &mut R, parent: &StoredEvent) -> Result<Option<Vec<Found>>> {
        let (mut all, mut targets) = (Vec::new(), vec![self.event_id.clone()]);
        for _ in 0..=RECURSION_DEPTH {
            if targets.is_empty() {
                break;
            }
            let most = i64::try_from(self.bounds.followed - all.len() + 1).unwrap_or(i64::MAX);
            let found = self.found(tx.query(BENEATH, args![self.room_sn, targets, most]).await?, parent)?;
            targets = found.iter().map(|f| f.event_id.clone()).collect();
            all.extend(found);
            if all.len() > self.bounds.followed {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    /// The next of all that relates to anything in the room: those are wanted that belong to the event by however many
    /// others. And where to go on behind them.
    async fn next_of_all<R: Reads>(
        &self,
        tx: &mut R,
        parent: &StoredEvent,
        at: Boundary,
        most: usize,
    ) -> Result<(Vec<Found>, Option<Boundary>)> {
        let stmt = self.either(ALL_BACK, ALL_FORWARD);
        let args = args![self.room_sn, at.0, at.1, i64::try_from(most).unwrap_or(i64::MAX)];
        let mut found = self.found(tx.query(stmt, args).await?, parent)?;
        // Upwards from each, a step for all at once.
        let mut above: Vec<Option<String>> =
            found.iter_mut().map(|f| f.is_wanted.then(|| mem::take(&mut f.target))).collect();
        for step in 0..=RECURSION_DEPTH {
            let open = above.iter().flatten().filter(|target| **target != self.event_id);
            let open: Vec<String> = open.cloned().collect::<BTreeSet<_>>().into_iter().collect();
            if open.is_empty() {
                break;
            }
            let mut targets: HashMap<String, String> = HashMap::new();
            if step < RECURSION_DEPTH {
                for mut row in tx.query(TARGETS, args![open, self.room_sn]).await? {
                    targets.insert(row.get(0)?, row.get(1)?);
                }
            }
            for above in &mut above {
                if above.as_ref().is_some_and(|target| *target != self.event_id) {
                    *above = above.take().and_then(|target| targets.get(&target).cloned());
                }
            }
        }
        for (f, above) in found.iter_mut().zip(above) {
            f.is_wanted = above.is_some();
        }
        Ok(self.until_here(found, most, Some((parent.topo, parent.topo_minor))))
    }

    fn found(&self, rows: Vec<Row>, parent: &StoredEvent) -> Result<Vec<Found>> {
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
            found.push(Found { sn, event_id, target, key, is_wanted });
        }
        Ok(found)
    }

    /// Of these in order, of which `most` were asked for, those that are not beyond the end, nor before the beginning of
    /// what there is; and where to go on if there may be more.
    fn until_here(
        &self,
        mut found: Vec<Found>,
        most: usize,
        begin: Option<Boundary>,
    ) -> (Vec<Found>, Option<Boundary>) {
        let is_last = found.len() < most;
        let is_there = |key: Boundary| !self.is_beyond(key) && begin.is_none_or(|begin| key >= begin);
        let last = found.last().filter(|last| !is_last && is_there(last.key)).map(|last| self.behind(last.key));
        found.retain(|f| is_there(f.key));
        (found, last)
    }

    /// Those of the page and of the pages behind it, in the order asked for.
    fn in_order(&self, mut found: Vec<Found>) -> Vec<Found> {
        found.retain(|f| !self.is_beyond(f.key) && self.either(f.key < self.from, f.key >= self.from));
        found.sort_unstable_by_key(|f| f.key);
        if self.direction == Direction::Back {
            found.reverse();
        }
        found
    }

    fn either<T>(&self, back: T, forward: T) -> T {
        match self.direction {
            Direction::Back => back,
            Direction::Forward => forward,
        }
    }

    fn is_beyond(&self, key: Boundary) -> bool {
        self.to.is_some_and(|to| self.either(key < to, key >= to))
    }

    /// Where to go on after an event.
    fn behind(&self, key: Boundary) -> Boundary {
        self.either(key, (key.0, key.1.saturating_add(1)))
    }
}
