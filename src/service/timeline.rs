//! Reading rooms: what a user may see of the timeline, the state, the members. Every read path asks the same visibility
//! log, before it counts towards a limit.

use std::{collections::BTreeSet, sync::Arc};

use hearth_core::{
    Error, Result,
    limits::MAX_PAGE,
    token::{TimelineToken, Token},
    visibility::membership_in,
};
use hearth_storage::{Direction, Membership, RoomRow, RoomView, StateOf, Storage, StoredEvent, membership_at};
use ruma::{EventId, RoomId, api::client::filter::RoomEventFilter, serde::Raw};

use super::shape::{Beside, Reader, Room, Shapes, passes, redaction_of};

/// How many events a page may look at to find those that a filter lets through.
const MOST_LOOKED_AT: usize = 5_000;

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

/// Which members are asked for.
#[derive(Default)]
pub struct MemberWish {
    pub at: Option<Token>,
    pub membership: Option<String>,
    pub not_membership: Option<String>,
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
        let (newest, oldest) =
            (TimelineToken { topo: i64::MAX, minor: i64::MAX }, TimelineToken { topo: 0, minor: i64::MIN });
        let mut start = wish.from.map_or(
            match wish.direction {
                Direction::Back => TimelineToken { topo: row.last_pos.saturating_add(1), minor: i64::MIN },
                Direction::Forward => oldest,
            },
            |t| t.boundary(),
        );
        if let (Access::Until(pos), Direction::Back) = (access, wish.direction) {
            start = start.min(TimelineToken { topo: pos.saturating_add(1), minor: i64::MIN });
        }
        let stop = wish.to.map_or(if wish.direction == Direction::Back { oldest } else { newest }, |t| t.boundary());

        let mut at = start;
        let mut chunk = Vec::new();
        let (mut first, mut senders) = (None, BTreeSet::new());
        let mut looked_at = 0;
        let mut end = None;
        'pages: loop {
            let batch = limit.saturating_mul(2).clamp(20, 1_000);
            let boundary = (at.topo, at.minor);
            let page = self
                .storage
                .page(row.room_sn, reader.user.as_str(), boundary, wish.direction, i64::try_from(batch).unwrap_or(20))
                .await?;
            let last_page = page.events.len() < batch;
            for event in &page.events {
                let key = TimelineToken { topo: event.topo, minor: event.topo_minor };
                let beyond = match wish.direction {
                    Direction::Back => key < stop,
                    Direction::Forward => key >= stop,
                };
                if beyond {
                    end = None;
                    break 'pages;
                }
                if chunk.len() == limit {
                    end = Some(at);
                    break 'pages;
                }
                at = match wish.direction {
                    Direction::Back => key,
                    Direction::Forward => TimelineToken::after(event.topo, event.topo_minor),
                };
                looked_at += 1;
                if page.log.sees(event, reader.user.as_str()) && passes(&wish.filter, room_id, &event.json)? {
                    let beside = Beside {
                        because: redaction_of(event, &page.because),
                        replaced: page.replaced.get(&event.sn),
                        membership: Some(membership_at(&page.log.membership, event)),
                        ..Beside::default()
                    };
                    chunk.push(self.shapes.event(&room, event, reader, beside)?);
                    if !wish.filter.lazy_load_options.is_disabled() {
                        first.get_or_insert(event.topo);
                        senders.insert(self.shapes.sender(&room, event)?.to_string());
                    }
                }
            }
            if last_page {
                break;
            }
            if looked_at >= MOST_LOOKED_AT {
                end = Some(at);
                break;
            }
        }
        let state = self.members_at(&room, reader, senders, first).await?;
        Ok(Messages { start, end, chunk, state })
    }

    /// The member events of some users, as they were at an event of the room.
    async fn members_at<T>(
        &self,
        room: &Room,
        reader: Reader<'_>,
        users: BTreeSet<String>,
        at: Option<i64>,
    ) -> Result<Vec<Raw<T>>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let of = StateOf::Members(users.into_iter().collect());
        let members = self.storage.state(room.sn, of, at).await?;
        members.iter().map(|e| self.shapes.event(room, e, reader, Beside::default())).collect()
    }

    /// One event, if the reader may see it.
    pub async fn event<T>(&self, reader: Reader<'_>, room_id: &RoomId, event_id: &EventId) -> Result<Raw<T>> {
        let unknown = || Error::not_found("There is no such event, or you may not see it");
        let (row, _) = self.open(reader, room_id).await.map_err(|e| match e {
            Error::Matrix { .. } => unknown(),
            other => other,
        })?;
        let found = self.storage.event(event_id.as_str(), reader.user.as_str()).await?.ok_or_else(unknown)?;
        let event = found.events.first().filter(|e| e.room_sn == row.room_sn).ok_or_else(unknown)?;
        if event.status != hearth_storage::Status::Accepted || !found.log.sees(event, reader.user.as_str()) {
            return Err(unknown());
        }
        let beside = Beside {
            because: redaction_of(event, &found.because),
            replaced: found.replaced.get(&event.sn),
            membership: Some(membership_at(&found.log.membership, event)),
            ..Beside::default()
        };
        self.shapes.event(&Room::new(&row)?, event, reader, beside)
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
        let at = match (access, at) {
            (Access::Now, at) => at,
            (Access::Until(pos), at) => Some(at.map_or(pos, |at| at.min(pos))),
        };
        if let (Access::Now, Some(at)) = (access, at) {
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
        state.iter().map(|e| self.shapes.event(&room, e, reader, Beside::default())).collect()
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
        let shaped = self.shapes.event(&room, &event, reader, Beside::default())?;
        let content = super::rooms::state::parse_stored(room.in_room(), event)?.content;
        Ok((shaped, content))
    }

    /// The member events.
    pub async fn members<T>(&self, reader: Reader<'_>, room_id: &RoomId, wish: MemberWish) -> Result<Vec<Raw<T>>> {
        let at = wish.at.map(|t| match t {
            Token::Sync(t) => t.pos,
            Token::Timeline(t) => t.topo.saturating_sub(1),
        });
        let of = StateOf::Type("m.room.member".to_owned());
        let (room, state) = self.visible_state(reader, room_id, of, at).await?;
        let mut members = Vec::with_capacity(state.len());
        for event in &state {
            let membership = membership_in(&event.json).to_string();
            let wanted = wish.membership.as_ref().is_none_or(|m| *m == membership)
                && wish.not_membership.as_ref().is_none_or(|m| *m != membership);
            if wanted {
                members.push(self.shapes.event(&room, event, reader, Beside::default())?);
            }
        }
        Ok(members)
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
