//! What relates to an event, and the threads of a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use hearth_core::{
    Error, Result,
    limits::MAX_PAGE,
    token::{TimelineToken, Token},
};
use hearth_storage::{
    Direction, Related, RelatedPage, StoredEvent, ThreadPage, ThreadQuery, VisibilityLog,
    relations::{self, PagingBounds},
};
use ruma::{EventId, RoomId, serde::Raw};

use super::{Timelines, token};
use crate::service::shape::{Beside, Reader, Room, redaction_of};

/// Events of a page, if the client doesn't say.
const DEFAULT_LIMIT: u64 = 20;

const BOUNDS: PagingBounds = PagingBounds { followed: 5_000, looked_at: 5_000 };

/// Behind all of a timeline.
const END: (i64, i64) = (i64::MAX, i64::MAX);

/// What relates to an event, as it was asked for.
pub struct RelationWish {
    pub rel_type: Option<String>,
    pub event_type: Option<String>,
    pub recurse: bool,
    pub from: Option<Token>,
    pub to: Option<Token>,
    pub direction: Direction,
    pub limit: Option<u64>,
}

/// A page of what relates to an event.
pub struct Relations<T> {
    pub chunk: Vec<Raw<T>>,
    /// Where the next page begins; `None` if there is none.
    pub end: Option<TimelineToken>,
    /// How far what relates to what relates was followed, if it was to be.
    pub depth: Option<u32>,
}

/// Threads, as they were asked for.
pub struct ThreadWish {
    pub participated: bool,
    pub from: Option<Token>,
    pub limit: Option<u64>,
}

/// A page of threads.
pub struct Threads<T> {
    pub chunk: Vec<Raw<T>>,
    pub end: Option<TimelineToken>,
}

impl Timelines {
    /// What relates to an event that the reader may see.
    pub async fn related<T>(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        event_id: &EventId,
        wish: RelationWish,
    ) -> Result<Relations<T>> {
        let unknown = || Error::not_found("There is no such event, or you may not see it");
        let (row, _) = self.open(reader, room_id).await?;
        let room = Room::new(&row)?;
        let begin = if wish.direction == Direction::Back { END } else { (0, i64::MIN) };
        let query = Related {
            room_sn: row.room_sn,
            user_id: reader.user.to_string(),
            event_id: event_id.to_string(),
            rel_type: wish.rel_type,
            event_type: wish.event_type,
            recurse: wish.recurse,
            from: wish.from.as_ref().map_or(begin, place),
            to: wish.to.as_ref().map(place),
            direction: wish.direction,
            limit: limit(wish.limit),
            bounds: BOUNDS,
        };
        let page = self.storage.related(query).await?.ok_or_else(unknown)?;
        let RelatedPage { events, end, log, because, bundles } = page;
        let shaped = events.iter().map(|event| {
            let beside = Beside { bundle: bundles.get(&event.sn), ..told(event, &because, &log) };
            self.shapes.event(&room, event, reader, beside)
        });
        let depth = wish.recurse.then_some(relations::RECURSION_DEPTH);
        Ok(Relations { chunk: shaped.collect::<Result<_>>()?, end: end.map(token), depth })
    }

    /// The threads of a room, those first in which something was said last.
    pub async fn threads<T>(&self, reader: Reader<'_>, room_id: &RoomId, wish: ThreadWish) -> Result<Threads<T>> {
        let (row, access) = self.open(reader, room_id).await?;
        let room = Room::new(&row)?;
        let query = ThreadQuery {
            room_sn: row.room_sn,
            user_id: reader.user.to_string(),
            participated: wish.participated,
            from: wish.from.as_ref().map_or(END, place),
            limit: limit(wish.limit),
            until: access.until(),
        };
        let ThreadPage { roots, end, log, because, bundles, by_ignored } = self.storage.threads(query).await?;
        let shaped = roots.iter().map(|event| {
            let (bundle, redacted) = (bundles.get(&event.sn), by_ignored.contains(&event.sn));
            let beside = Beside { bundle, redacted, ..told(event, &because, &log) };
            self.shapes.event(&room, event, reader, beside)
        });
        Ok(Threads { chunk: shaped.collect::<Result<_>>()?, end: end.map(token) })
    }
}

fn limit(asked: Option<u64>) -> usize {
    usize::try_from(asked.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_PAGE)).unwrap_or(1)
}

fn place(token: &Token) -> (i64, i64) {
    let TimelineToken { topo, minor } = token.boundary();
    (topo, minor)
}

fn told<'a>(event: &StoredEvent, because: &'a [StoredEvent], log: &'a VisibilityLog) -> Beside<'a> {
    Beside { because: redaction_of(event, because), memberships: &log.membership, ..Beside::default() }
}
