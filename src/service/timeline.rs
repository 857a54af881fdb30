//! Reading rooms: what a user may see of the timeline, the state, the members. Every read path asks the same visibility
//! log, before it counts towards a limit.

mod relations;

use std::{collections::HashMap, sync::Arc};

use hearth_core::{
    Error, Result,
    limits::MAX_PAGE,
    token::{TimelineToken, Token},
    visibility::membership_in,
};
use hearth_storage::{
    Bundles, Context, ContextQuery, Direction, Membership, Page, PageQuery, RoomRow, RoomView, StateOf, Storage,
    StoredEvent, VisibilityLog,
};
use ruma::{EventId, OwnedEventId, RoomId, api::client::filter::RoomEventFilter, serde::Raw};

pub use self::relations::{RelationWish, Relations, ThreadWish, Threads};
use super::shape::{Beside, Reader, Room, Shapes, redaction_of};

/// Reads rooms.
pub struct Timelines {
    storage: Arc<dyn Storage>,
    shapes: Arc<Shapes>,
}

/// What of a room somebody may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// All, as it is now.
    Now,
    /// As it was when they left.
    Until(i64),
}

impl Access {
    fn until(self) -> Option<i64> {
        match self {
            Self::Now => None,
            Self::Until(pos) => Some(pos),
        }
    }
}

/// A page of messages as it was asked for.
pub struct PageWish {
    pub from: Option<Token>,
    pub to: Option<Token>,
    pub direction: Direction,
    pub limit: u64,
    pub filter: RoomEventFilter,
}

/// A page of messages.
pub struct Messages<T, S> {
    pub start: TimelineToken,
    /// Where the next page begins; `None` at the end of what there is.
    pub end: Option<TimelineToken>,
    pub chunk: Vec<Raw<T>>,
    /// If the filter asks for it, the memberships of those who sent the events.
    pub state: Vec<Raw<S>>,
}

/// An event and what lies around it.
pub struct Around<T, S> {
    pub start: TimelineToken,
    pub end: TimelineToken,
    pub event: Raw<T>,
    /// The newest first.
    pub before: Vec<Raw<T>>,
    pub after: Vec<Raw<T>>,
    pub state: Vec<Raw<S>>,
}

/// What there is to tell beside some events of a room.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    log: &'a VisibilityLog,
    because: &'a [StoredEvent],
    replaced: &'a HashMap<i64, StoredEvent>,
    bundles: &'a Bundles,
}

/// Which members are asked for.
#[derive(Default)]
pub struct MemberWish {
    pub at: Option<Token>,
    pub membership: Option<String>,
    pub not_membership: Option<String>,
}

impl<'a> From<&'a Page> for Surroundings<'a> {
    fn from(page: &'a Page) -> Self {
        Self { log: &page.log, because: &page.because, replaced: &page.replaced, bundles: &page.bundles }
    }
}

impl<'a> From<&'a Context> for Surroundings<'a> {
    fn from(found: &'a Context) -> Self {
        Self { log: &found.log, because: &found.because, replaced: &found.replaced, bundles: &found.bundles }
    }
}

impl Timelines {
    pub fn new(storage: Arc<dyn Storage>, shapes: Arc<Shapes>) -> Arc<Self> {
        Arc::new(Self { storage, shapes })
    }

    /// The room for one who may read it.
    async fn open(&self, reader: Reader<'_>, room_id: &RoomId) -> Result<(RoomRow, Access)> {
        let not_in = || Error::forbidden("You are not in this room");
        let view = self.storage.room_view(room_id.as_str(), reader.user.as_str()).await?.ok_or_else(not_in)?;
        let RoomView { room, membership } = view;
        match &membership {
            Some(Membership { membership, .. }) if membership == "join" => return Ok((room, Access::Now)),
            _ if self.is_world_readable(room.room_sn).await? => return Ok((room, Access::Now)),
            Some(Membership { forgotten: false, .. }) => {}
            _ => return Err(not_in()),
        }
        // Who was only invited, and refused, was never in. Who left and was then banned sees what was until they left.
        let log = self.storage.visibility_log(room.room_sn, reader.user.as_str()).await?;
        let until = log.left_at().ok_or_else(not_in)?;
        Ok((room, Access::Until(until)))
    }

    async fn is_world_readable(&self, room_sn: i64) -> Result<bool> {
        let of = StateOf::Key("m.room.history_visibility".into(), String::new());
        let state = self.storage.state(room_sn, of, None).await?;
        Ok(state.first().is_some_and(|e| hearth_storage::is_world_readable(&e.json)))
    }

    /// A page of the timeline: events that the reader may see and the filter lets through, up to the limit.
    pub async fn messages<T, S>(&self, reader: Reader<'_>, room_id: &RoomId, wish: PageWish) -> Result<Messages<T, S>> {
        let (row, access) = self.open(reader, room_id).await?;
        let room = Room::new(&row)?;
        let limit = usize::try_from(wish.limit.clamp(1, MAX_PAGE)).unwrap_or(1);
        let mut from = wish.from.map_or(
            match wish.direction {
                Direction::Back => TimelineToken { topo: row.last_pos.saturating_add(1), minor: i64::MIN },
                Direction::Forward => TimelineToken { topo: 0, minor: i64::MIN },
            },
            |t| t.boundary(),
        );
        if let (Some(pos), Direction::Back) = (access.until(), wish.direction) {
            from = from.min(TimelineToken { topo: pos.saturating_add(1), minor: i64::MIN });
        }
        let key = |token: TimelineToken| (token.topo, token.minor);
        let query = PageQuery {
            room_sn: row.room_sn,
            room_id: room_id.to_owned(),
            user_id: reader.user.to_string(),
            from: key(from),
            to: wish.to.map(|to| key(to.boundary())),
            direction: wish.direction,
            limit,
            filter: wish.filter,
            until: access.until(),
        };
        let page = self.storage.page(query).await?;
        let beside = Surroundings::from(&page);
        Ok(Messages {
            start: from,
            end: page.end.map(token),
            chunk: self.events(&room, reader, &page.events, beside)?,
            state: self.states(&room, reader, &page.members).await?,
        })
    }

    /// The event of the timeline that is nearest to a moment, looking one way from it; and when it was sent.
    pub async fn event_near(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        ts: i64,
        direction: Direction,
    ) -> Result<(OwnedEventId, i64)> {
        #[derive(serde::Deserialize)]
        struct Sent {
            origin_server_ts: i64,
        }
        let (row, access) = self.open(reader, room_id).await?;
        let query = PageQuery {
            room_sn: row.room_sn,
            room_id: room_id.to_owned(),
            user_id: reader.user.to_string(),
            from: self.storage.place_of_time(row.room_sn, ts, direction).await?,
            to: None,
            until: access.until(),
            direction,
            // Clocks may have been set back: the very first need not be it.
            limit: 20,
            filter: RoomEventFilter::default(),
        };
        for event in self.storage.page(query).await?.events {
            let Sent { origin_server_ts: sent } = serde_json::from_str(&event.json).map_err(Error::internal)?;
            if if direction == Direction::Forward { sent >= ts } else { sent <= ts } {
                return Ok((event.event_id.try_into().map_err(Error::internal)?, sent));
            }
        }
        Err(Error::not_found("There is no event there that you may see"))
    }

    /// An event that the reader may see, and what lies around it.
    pub async fn context<T, S>(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        event_id: &EventId,
        limit: u64,
        filter: RoomEventFilter,
    ) -> Result<Around<T, S>> {
        let (row, access) = self.open(reader, room_id).await?;
        let room = Room::new(&row)?;
        let limit = usize::try_from(limit.min(MAX_PAGE)).unwrap_or(0);
        let query = ContextQuery {
            room_sn: row.room_sn,
            room_id: room_id.to_owned(),
            user_id: reader.user.to_string(),
            event_id: event_id.to_string(),
            before: limit / 2,
            after: limit - limit / 2,
            filter,
            until: access.until(),
        };
        let found = self.storage.context(query).await?.ok_or_else(unknown)?;
        let beside = Surroundings::from(&found);
        let event = self.events(&room, reader, std::slice::from_ref(&found.event), beside)?;
        Ok(Around {
            start: token(found.start),
            end: token(found.end),
            event: event.into_iter().next().ok_or_else(unknown)?,
            before: self.events(&room, reader, &found.before, beside)?,
            after: self.events(&room, reader, &found.after, beside)?,
            state: self.states(&room, reader, &found.state).await?,
        })
    }

    fn events<T>(
        &self,
        room: &Room,
        reader: Reader<'_>,
        events: &[StoredEvent],
        surroundings: Surroundings<'_>,
    ) -> Result<Vec<Raw<T>>> {
        let shaped = events.iter().map(|event| {
            let beside = Beside {
                because: redaction_of(event, surroundings.because),
                replaced: surroundings.replaced.get(&event.sn),
                memberships: &surroundings.log.membership,
                bundle: surroundings.bundles.get(&event.sn),
                ..Beside::default()
            };
            self.shapes.event(room, event, reader, beside)
        });
        shaped.collect()
    }

    /// Events of the state as the reader gets them.
    async fn states<T>(&self, room: &Room, reader: Reader<'_>, state: &[StoredEvent]) -> Result<Vec<Raw<T>>> {
        let redactions: Vec<String> = state.iter().filter_map(|e| e.redacted_by.clone()).collect();
        let because = match redactions.is_empty() {
            true => Vec::new(),
            false => self.storage.events_by_id(redactions).await?,
        };
        let beside = |event| Beside { because: redaction_of(event, &because), ..Beside::default() };
        state.iter().map(|e| self.shapes.event(room, e, reader, beside(e))).collect()
    }

    /// One event, if the reader may see it.
    pub async fn event<T>(&self, reader: Reader<'_>, room_id: &RoomId, event_id: &EventId) -> Result<Raw<T>> {
        let (row, _) = self.open(reader, room_id).await.map_err(or_unknown)?;
        let found = self.seen(reader, &row, event_id).await?;
        let shaped = self.events(&Room::new(&row)?, reader, &found.events, Surroundings::from(&found))?;
        shaped.into_iter().next().ok_or_else(unknown)
    }

    /// One event of a room that the reader is in, as it is stored, if they may see it.
    pub async fn stored(&self, reader: Reader<'_>, room_id: &RoomId, event_id: &EventId) -> Result<StoredEvent> {
        let row = self.joined_room(reader, room_id).await.map_err(or_unknown)?;
        self.seen(reader, &row, event_id).await?.events.into_iter().next().ok_or_else(unknown)
    }

    /// A page of one event of a room, if the reader may see it.
    async fn seen(&self, reader: Reader<'_>, row: &RoomRow, event_id: &EventId) -> Result<Page> {
        let found = self.storage.event(event_id.as_str(), reader.user.as_str()).await?.ok_or_else(unknown)?;
        let sees = |event: &StoredEvent| {
            event.room_sn == row.room_sn
                && event.status == hearth_storage::Status::Accepted
                && found.log.sees(event, reader.user.as_str())
        };
        if found.events.first().is_some_and(sees) { Ok(found) } else { Err(unknown()) }
    }

    /// The state, as far as the reader may see it.
    async fn visible_state(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        of: StateOf,
        at: Option<i64>,
    ) -> Result<(Room, Vec<StoredEvent>)> {
        let (row, access) = self.open(reader, room_id).await?;
        let until = match access {
            Access::Now => None,
            Access::Until(pos) => Some(pos),
        };
        // What the room is now, or was when they left, is theirs to see; what it was before may not be.
        let earlier = at.filter(|at| until.is_none_or(|until| *at < until));
        let at = earlier.or(until);
        if let Some(at) = earlier {
            let log = self.storage.visibility_log(row.room_sn, reader.user.as_str()).await?;
            if !log.sees_state_at(at) {
                return Err(Error::forbidden("You may not see what the room was then"));
            }
        }
        let state = self.storage.state(row.room_sn, of, at).await?;
        Ok((Room::new(&row)?, state))
    }

    /// The whole state.
    pub async fn state<T>(&self, reader: Reader<'_>, room_id: &RoomId) -> Result<Vec<Raw<T>>> {
        let (room, state) = self.visible_state(reader, room_id, StateOf::All, None).await?;
        self.states(&room, reader, &state).await
    }

    /// One key of the state: the event as stored and as the reader gets it.
    pub async fn state_key<T>(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
    ) -> Result<(Raw<T>, Box<serde_json::value::RawValue>)> {
        let of = StateOf::Key(event_type.to_owned(), state_key.to_owned());
        let (room, state) = self.visible_state(reader, room_id, of, None).await?;
        let event = state.into_iter().next().ok_or_else(|| Error::not_found("The room has no such state"))?;
        let mut shaped = self.states(&room, reader, std::slice::from_ref(&event)).await?;
        let shaped = shaped.pop().ok_or_else(|| Error::internal("one event is not one event"))?;
        let content = super::rooms::state::parse_stored(room.in_room(), event)?.content;
        Ok((shaped, content))
    }

    /// The member events.
    pub async fn members<T>(&self, reader: Reader<'_>, room_id: &RoomId, wish: MemberWish) -> Result<Vec<Raw<T>>> {
        let at = wish.at.map(|t| match t {
            Token::Sync(t) => t.pos,
            Token::Timeline(t) => t.topo.saturating_sub(1),
            Token::Position(t) => t.pos,
        });
        let of = StateOf::Type("m.room.member".to_owned());
        let (room, state) = self.visible_state(reader, room_id, of, at).await?;
        let mut members = Vec::with_capacity(state.len());
        for event in state {
            let membership = membership_in(&event.json).to_string();
            let wanted = wish.membership.as_ref().is_none_or(|m| *m == membership)
                && wish.not_membership.as_ref().is_none_or(|m| *m != membership);
            if wanted {
                members.push(event);
            }
        }
        self.states(&room, reader, &members).await
    }

    /// The number of a room that the reader is in.
    pub async fn joined_room(&self, reader: Reader<'_>, room_id: &RoomId) -> Result<RoomRow> {
        let view = self.storage.room_view(room_id.as_str(), reader.user.as_str()).await?;
        match view {
            Some(RoomView { room, membership: Some(m) }) if m.membership == "join" => Ok(room),
            _ => Err(Error::forbidden("You are not in this room")),
        }
    }

    /// A room that the reader is in, or that anybody may read.
    pub async fn open_room(&self, reader: Reader<'_>, room_id: &RoomId) -> Result<RoomRow> {
        match self.open(reader, room_id).await? {
            (room, Access::Now) => Ok(room),
            (_, Access::Until(_)) => Err(Error::forbidden("You are not in this room")),
        }
    }
}

fn unknown() -> Error {
    Error::not_found("There is no such event, or you may not see it")
}

/// To whom a room is closed, an event in it is one that they don't know.
fn or_unknown(error: Error) -> Error {
    if matches!(error, Error::Matrix { .. }) { unknown() } else { error }
}

fn token((topo, minor): (i64, i64)) -> TimelineToken {
    TimelineToken { topo, minor }
}
