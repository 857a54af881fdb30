//! The threads of a room, by their roots.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room>

use std::collections::HashMap;

use hearth_core::{filter::Ignored, relation::Parent};

use super::bundles::{Beheld, Bundles, Onlooker, bundles};
use crate::{
    Result, Status,
    account_data::ignored_by,
    error::corrupt,
    rooms::StoredEvent,
    timeline::{Boundary, Stretch, VisibilityLog, events_by_id, redactions_of, visibility_logs},
    tx::{Query, Reads, args, statements},
};

statements! {
    NEXT = "SELECT root, topo, topo_minor FROM threads WHERE room_sn = $1 AND (topo, topo_minor) < ($2, $3)
        ORDER BY topo DESC, topo_minor DESC LIMIT $4";
}

/// How many threads one request may look at to find those that are seen and wanted.
const MOST_LOOKED_AT: usize = 1_000;

/// Which threads are asked for.
#[derive(Clone, Debug)]
pub struct ThreadQuery {
    pub room_sn: i64,
    pub user_id: String,
    /// Only those in which the user has a part.
    pub participated: bool,
    /// Those whose newest event is before here.
    pub from: Boundary,
    pub limit: usize,
    /// Of one who left, when.
    pub until: Option<i64>,
}

/// Some threads of a room, by their roots.
#[derive(Clone, Debug)]
pub struct ThreadPage {
    pub roots: Vec<StoredEvent>,
    /// Where the next page begins; `None` if there is none.
    pub end: Option<Boundary>,
    pub log: VisibilityLog,
    pub because: Vec<StoredEvent>,
    pub bundles: Bundles,
    /// The numbers of those roots whose senders the user ignores.
    pub by_ignored: Vec<i64>,
}

impl Query for ThreadQuery {
    const NAME: &'static str = "threads";
    type Out = ThreadPage;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<ThreadPage> {
        let log = visibility_logs(tx, &[self.room_sn], &self.user_id).await?.remove(&self.room_sn).unwrap_or_default();
        let ignored = ignored_by(tx, &self.user_id).await?;
        let seen = log.stretches(self.until);
        let (mut roots, mut told, mut by_ignored) = (Vec::new(), Bundles::new(), Vec::new());
        let (mut at, mut looked_at) = (self.from, 0);
        let most = (self.limit + 1).max(20);
        let end = 'pages: loop {
            let rows = tx.query(NEXT, args![self.room_sn, at.0, at.1, i64::try_from(most).unwrap_or(i64::MAX)]).await?;
            let mut places = Vec::with_capacity(rows.len());
            for mut row in rows {
                let (root, key): (String, Boundary) = (row.get(0)?, (row.get(1)?, row.get(2)?));
                places.push((root, key));
            }
            let mut found = self.read(tx, &places, &log, &ignored, &seen).await?;
            for (root, key) in &places {
                looked_at += 1;
                let root = found.remove(root).filter(|(_, bundle, _)| self.wants(bundle));
                if looked_at > MOST_LOOKED_AT || root.is_some() && roots.len() == self.limit {
                    break 'pages Some(at);
                }
                at = *key;
                let Some((event, bundle, is_by_ignored)) = root else { continue };
                if is_by_ignored {
                    by_ignored.push(event.sn);
                }
                told.insert(event.sn, bundle);
                roots.push(event);
            }
            if places.len() < most {
                break None;
            }
        };
        let because = redactions_of(tx, &roots).await?;
        Ok(ThreadPage { roots, end, log, because, bundles: told, by_ignored })
    }
}

/// A root, what belongs to it, and whether the reader ignores its sender.
type Root = (StoredEvent, super::Bundle, bool);

impl ThreadQuery {
    /// The roots of these threads that the user may see, by id.
    async fn read<R: Reads>(
        &self,
        tx: &mut R,
        places: &[(String, Boundary)],
        log: &VisibilityLog,
        ignored: &Ignored,
        seen: &[Stretch],
    ) -> Result<HashMap<String, Root>> {
        if places.is_empty() {
            return Ok(HashMap::new());
        }
        let mut events = events_by_id(tx, places.iter().map(|(root, _)| root.clone()).collect()).await?;
        events.retain(|e| e.room_sn == self.room_sn && e.status == Status::Accepted && log.sees(e, &self.user_id));
        let beheld: Vec<Beheld<'_>> = events.iter().map(|event| Beheld { event, seen }).collect();
        let who = Onlooker { user_id: &self.user_id, ignored };
        let mut bundles = bundles(tx, who, &beheld).await?;
        let mut roots = HashMap::new();
        for event in events {
            let Some(mut bundle) = bundles.remove(&event.sn) else { continue };
            let is_by_ignored = ignored.holds(&Parent::of(&event.json).map_err(corrupt)?.sender);
            if is_by_ignored {
                bundle.edit = None;
            }
            roots.insert(event.event_id.clone(), (event, bundle, is_by_ignored));
        }
        Ok(roots)
    }

    fn wants(&self, bundle: &super::Bundle) -> bool {
        bundle.thread.as_ref().is_some_and(|thread| thread.participated || !self.participated)
    }
}
