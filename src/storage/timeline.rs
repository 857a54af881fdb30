//! Reading a room: its timeline by pages, its state now and at a position, who is in it.

pub(crate) mod by_time;
pub(crate) mod paging;
mod seen;

use std::collections::HashMap;

use hearth_core::visibility::visibility_in;
use ruma::events::room::history_visibility::HistoryVisibility;

pub(crate) use self::seen::Stretch;
pub use self::{
    paging::{Boundary, Context, ContextQuery, Direction, Page, PageQuery},
    seen::membership_at,
};
use crate::{
    Result, Sql,
    account_data::ignored_by,
    error::corrupt,
    relations::bundles::{Beheld, Bundles, Onlooker, bundles},
    rooms::{RoomRow, StoredEvent, room_row, stored_event},
    tx::{Answer, Engine, Query, Reads, args, statements},
};

/// All columns that [`stored_event`] reads, in its order, of the events that the condition names.
macro_rules! events_where {
    ($condition:literal) => {
        concat!(
            "SELECT sn, room_sn, event_id, pos, topo, topo_minor, status, state_before, state_after, device_id, txn_id, ",
            "redacted_by, json FROM events WHERE ",
            $condition
        )
    };
}

statements! {
    VIEW = "SELECT r.room_sn, r.room_id, r.version, r.rev, r.state_root, r.joined, r.invited, r.last_pos,
        m.membership, m.event_sn, m.pos, m.forgotten
        FROM rooms r LEFT JOIN memberships m ON m.room_sn = r.room_sn AND m.user_id = $2 WHERE r.room_id = $1";
    // First where, by the index of keys alone, then what: else SQLite looks through all changes of a room's state, members
    // and all. In no order, for the same reason.
    VISIBILITY_LOG = "WITH c AS MATERIALIZED (
            SELECT room_sn, pos FROM current_state_delta
            WHERE room_sn = ANY($1) AND type = 'm.room.history_visibility' AND state_key = ''
        )
        SELECT d.room_sn, d.pos, e.json FROM c CROSS JOIN current_state_delta d LEFT JOIN events e ON e.sn = d.event_sn
        WHERE d.room_sn = c.room_sn AND d.pos = c.pos AND d.type = 'm.room.history_visibility' AND d.state_key = ''";
    MEMBERSHIP_LOG = "SELECT room_sn, pos, membership FROM membership_changes WHERE user_id = $1 AND room_sn = ANY($2)";
    STATE_NOW = "SELECT type, state_key, event_sn FROM current_state WHERE room_sn = $1";
    STATE_TYPE = "SELECT type, state_key, event_sn FROM current_state WHERE room_sn = $1 AND type = $2";
    STATE_KEY = "SELECT type, state_key, event_sn FROM current_state WHERE room_sn = $1 AND type = $2 AND state_key = $3";
    // In two ranges of the key, so that no member is looked at.
    STATE_BUT_MEMBERS = "SELECT type, state_key, event_sn FROM current_state WHERE room_sn = $1 AND type < 'm.room.member'
        UNION ALL SELECT type, state_key, event_sn FROM current_state WHERE room_sn = $1 AND type > 'm.room.member'";
    MEMBERS = "SELECT type, state_key, event_sn FROM current_state
        WHERE room_sn = $1 AND type = 'm.room.member' AND state_key = ANY($2)";
    FIRST_OF_TYPE = "SELECT pos FROM current_state_delta WHERE room_sn = $1 AND type = $2 ORDER BY pos LIMIT 1";
    DELTAS_OF_MEMBERS_AFTER = "SELECT type, state_key, prev_sn FROM current_state_delta
        WHERE room_sn = $1 AND pos > $2 AND type = 'm.room.member' AND state_key = ANY($3) ORDER BY pos";
    DELTAS_BUT_MEMBERS_AFTER = "SELECT type, state_key, prev_sn FROM current_state_delta
        WHERE room_sn = $1 AND pos > $2 AND type <> 'm.room.member' ORDER BY pos";
    DELTAS_OF_TYPE_AFTER = "SELECT type, state_key, prev_sn FROM current_state_delta
        WHERE room_sn = $1 AND pos > $2 AND type = $3 ORDER BY pos";
    REPLACED = "SELECT event_sn, prev_sn FROM current_state_delta WHERE room_sn = $1 AND pos = ANY($2)";
    DELTAS_AFTER = "SELECT type, state_key, prev_sn FROM current_state_delta WHERE room_sn = $1 AND pos > $2 ORDER BY pos";
    EVENTS = events_where!("sn = ANY($1)");
    EVENTS_BY_ID = events_where!("event_id = ANY($1)");
    ROOMS_OF = "SELECT r.room_id FROM memberships m JOIN rooms r ON r.room_sn = m.room_sn
        WHERE m.user_id = $1 AND m.membership = $2 ORDER BY m.pos";
    SHARED = "SELECT 1 FROM memberships a JOIN memberships b ON b.room_sn = a.room_sn
        WHERE a.user_id = $1 AND b.user_id = $2 AND a.membership = 'join' AND b.membership = 'join' LIMIT 1";
}

/// A room as one user stands to it.
#[derive(Clone, Debug)]
pub struct RoomView {
    pub room: RoomRow,
    pub membership: Option<Membership>,
}

/// A user's current membership.
#[derive(Clone, Debug)]
pub struct Membership {
    pub membership: String,
    pub event_sn: i64,
    pub pos: i64,
    pub forgotten: bool,
}

/// What decides which of a room's events a user may see: how the room's history visibility and the user's membership
/// changed, by position.
#[derive(Clone, Debug, Default)]
pub struct VisibilityLog {
    /// `None` where the state was taken away.
    pub visibility: Vec<(i64, Option<HistoryVisibility>)>,
    pub membership: Vec<(i64, String)>,
}

/// Which part of the state is wanted.
#[derive(Clone, Debug)]
pub enum StateOf {
    All,
    AllButMembers,
    /// Before there was any of this type, the first that came: nobody was in a room before its creator.
    Type(String),
    Key(String, String),
    /// The memberships of these users.
    Members(Vec<String>),
}

/// The aggregate of what is read from rooms.
pub trait Timeline: Send + Sync {
    fn room_view(&self, room_id: &str, user_id: &str) -> Answer<'_, Option<RoomView>>;
    fn page(&self, query: PageQuery) -> Answer<'_, Page>;
    /// An event and its surroundings; `None` if there is none that the user may see.
    fn context(&self, query: ContextQuery) -> Answer<'_, Option<Context>>;
    /// Where a room's timeline passes a moment: the first event from then on lies behind (forward), or the last one until
    /// then lies before (back).
    fn place_of_time(&self, room_sn: i64, ts: i64, direction: Direction) -> Answer<'_, (i64, i64)>;
    /// What decides what the user may see of the room.
    fn visibility_log(&self, room_sn: i64, user_id: &str) -> Answer<'_, VisibilityLog>;
    /// One event with what decides whether the user may see it; `None` also if they ignore who sent it.
    fn event(&self, event_id: &str, user_id: &str) -> Answer<'_, Option<Page>>;
    /// The state after position `at`, or now.
    fn state(&self, room_sn: i64, of: StateOf, at: Option<i64>) -> Answer<'_, Vec<StoredEvent>>;
    /// The ids of the rooms in which the user has this membership.
    fn rooms_of(&self, user_id: &str, membership: &str) -> Answer<'_, Vec<String>>;
    fn share_a_room(&self, user_id: &str, other: &str) -> Answer<'_, bool>;
}

impl<E: Engine> Timeline for Sql<E> {
    fn room_view(&self, room_id: &str, user_id: &str) -> Answer<'_, Option<RoomView>> {
        self.0.read(View { room_id: room_id.to_owned(), user_id: user_id.to_owned() })
    }

    fn place_of_time(&self, room_sn: i64, ts: i64, direction: Direction) -> Answer<'_, (i64, i64)> {
        self.0.read(by_time::ByTime { room_sn, ts, direction })
    }

    fn page(&self, query: PageQuery) -> Answer<'_, Page> {
        self.0.read(query)
    }

    fn context(&self, query: ContextQuery) -> Answer<'_, Option<Context>> {
        self.0.read(query)
    }

    fn visibility_log(&self, room_sn: i64, user_id: &str) -> Answer<'_, VisibilityLog> {
        self.0.read(ReadLog { room_sn, user_id: user_id.to_owned() })
    }

    fn event(&self, event_id: &str, user_id: &str) -> Answer<'_, Option<Page>> {
        self.0.read(OneEvent { event_id: event_id.to_owned(), user_id: user_id.to_owned() })
    }

    fn state(&self, room_sn: i64, of: StateOf, at: Option<i64>) -> Answer<'_, Vec<StoredEvent>> {
        self.0.read(ReadState { room_sn, of, at })
    }

    fn rooms_of(&self, user_id: &str, membership: &str) -> Answer<'_, Vec<String>> {
        self.0.read(RoomsOf { user_id: user_id.to_owned(), membership: membership.to_owned() })
    }

    fn share_a_room(&self, user_id: &str, other: &str) -> Answer<'_, bool> {
        self.0.read(ShareARoom { user_id: user_id.to_owned(), other: other.to_owned() })
    }
}

struct View {
    room_id: String,
    user_id: String,
}

impl Query for View {
    const NAME: &'static str = "room_view";
    type Out = Option<RoomView>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let Some(mut row) = tx.query_opt(VIEW, args![&self.room_id, &self.user_id]).await? else { return Ok(None) };
        let room = room_row(&mut row, 0)?;
        let membership = match row.get::<Option<String>>(8)? {
            Some(membership) => {
                Some(Membership { membership, event_sn: row.get(9)?, pos: row.get(10)?, forgotten: row.get(11)? })
            }
            None => None,
        };
        Ok(Some(RoomView { room, membership }))
    }
}

struct ReadLog {
    room_sn: i64,
    user_id: String,
}

impl Query for ReadLog {
    const NAME: &'static str = "visibility_log";
    type Out = VisibilityLog;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<VisibilityLog> {
        let mut logs = visibility_logs(tx, &[self.room_sn], &self.user_id).await?;
        Ok(logs.remove(&self.room_sn).unwrap_or_default())
    }
}

struct OneEvent {
    event_id: String,
    user_id: String,
}

impl Query for OneEvent {
    const NAME: &'static str = "event";
    type Out = Option<Page>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let events = events_by_id(tx, vec![self.event_id.clone()]).await?;
        let Some(first) = events.first() else { return Ok(None) };
        let room_sn = first.room_sn;
        let ignored = ignored_by(tx, &self.user_id).await?;
        if ignored.hides(&first.json).map_err(corrupt)? {
            return Ok(None);
        }
        let log = visibility_logs(tx, &[room_sn], &self.user_id).await?.remove(&room_sn).unwrap_or_default();
        let because = redactions_of(tx, &events).await?;
        let replaced = replaced_by(tx, room_sn, &events).await?;
        let who = Onlooker { user_id: &self.user_id, ignored: &ignored };
        let bundles = beside(tx, who, &log, None, &events).await?;
        Ok(Some(Page { events, end: None, log, because, replaced, members: Vec::new(), bundles }))
    }
}

struct ReadState {
    room_sn: i64,
    of: StateOf,
    at: Option<i64>,
}

impl Query for ReadState {
    const NAME: &'static str = "state";
    type Out = Vec<StoredEvent>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        state_at(tx, self.room_sn, &self.of, self.at).await
    }
}

struct RoomsOf {
    user_id: String,
    membership: String,
}

impl Query for RoomsOf {
    const NAME: &'static str = "rooms_of";
    type Out = Vec<String>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(ROOMS_OF, args![&self.user_id, &self.membership]).await?;
        rows.into_iter().map(|mut row| row.get(0)).collect()
    }
}

struct ShareARoom {
    user_id: String,
    other: String,
}

impl Query for ShareARoom {
    const NAME: &'static str = "share_a_room";
    type Out = bool;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<bool> {
        Ok(tx.query_opt(SHARED, args![&self.user_id, &self.other]).await?.is_some())
    }
}

/// The state after position `at`, or now.
async fn state_at<R: Reads>(tx: &mut R, room_sn: i64, of: &StateOf, at: Option<i64>) -> Result<Vec<StoredEvent>> {
    let rows = match of {
        StateOf::All => tx.query(STATE_NOW, args![room_sn]).await?,
        StateOf::AllButMembers => tx.query(STATE_BUT_MEMBERS, args![room_sn]).await?,
        StateOf::Type(t) => tx.query(STATE_TYPE, args![room_sn, t]).await?,
        StateOf::Key(t, k) => tx.query(STATE_KEY, args![room_sn, t, k]).await?,
        StateOf::Members(users) => tx.query(MEMBERS, args![room_sn, users.clone()]).await?,
    };
    let mut state = std::collections::BTreeMap::<(String, String), Option<i64>>::new();
    for mut row in rows {
        state.insert((row.get(0)?, row.get(1)?), Some(row.get(2)?));
    }
    if let Some(mut at) = at {
        if let StateOf::Type(t) = of
            && let Some(mut first) = tx.query_opt(FIRST_OF_TYPE, args![room_sn, t]).await?
        {
            at = at.max(first.get(0)?);
        }
        // What changed since is undone by the first change of each key.
        let mut undone = std::collections::BTreeSet::new();
        let deltas = match of {
            StateOf::All => tx.query(DELTAS_AFTER, args![room_sn, at]).await?,
            StateOf::AllButMembers => tx.query(DELTAS_BUT_MEMBERS_AFTER, args![room_sn, at]).await?,
            StateOf::Type(t) | StateOf::Key(t, _) => tx.query(DELTAS_OF_TYPE_AFTER, args![room_sn, at, t]).await?,
            StateOf::Members(users) => tx.query(DELTAS_OF_MEMBERS_AFTER, args![room_sn, at, users.clone()]).await?,
        };
        for mut row in deltas {
            let key: (String, String) = (row.get(0)?, row.get(1)?);
            let wanted = if let StateOf::Key(_, k) = of { key.1 == *k } else { true };
            if wanted && undone.insert(key.clone()) {
                state.insert(key, row.get(2)?);
            }
        }
    }
    events_by_sn(tx, state.into_values().flatten().collect()).await
}

/// Events by number; in no order.
pub(crate) async fn events_by_sn<R: Reads>(tx: &mut R, sns: Vec<i64>) -> Result<Vec<StoredEvent>> {
    if sns.is_empty() {
        return Ok(Vec::new());
    }
    let rows = tx.query(EVENTS, args![sns]).await?;
    rows.into_iter().map(|mut row| stored_event(&mut row, 0)).collect()
}

/// Events by id; in no order.
pub(crate) async fn events_by_id<R: Reads>(tx: &mut R, ids: Vec<String>) -> Result<Vec<StoredEvent>> {
    let rows = tx.query(EVENTS_BY_ID, args![ids]).await?;
    rows.into_iter().map(|mut row| stored_event(&mut row, 0)).collect()
}

/// Of the state events among `events` of one room, what they replaced.
async fn replaced_by<R: Reads>(tx: &mut R, room_sn: i64, events: &[StoredEvent]) -> Result<HashMap<i64, StoredEvent>> {
    let positions: Vec<i64> = events.iter().filter_map(|e| e.pos).collect();
    let mut replaced = HashMap::new();
    if positions.is_empty() {
        return Ok(replaced);
    }
    let mut pairs = Vec::new();
    for mut row in tx.query(REPLACED, args![room_sn, positions]).await? {
        if let (Some(event), Some(prev)) = (row.get::<Option<i64>>(0)?, row.get::<Option<i64>>(1)?) {
            pairs.push((event, prev));
        }
    }
    let old = events_by_sn(tx, pairs.iter().map(|(_, prev)| *prev).collect()).await?;
    let old: HashMap<i64, StoredEvent> = old.into_iter().map(|e| (e.sn, e)).collect();
    for (event, prev) in pairs {
        if let Some(old) = old.get(&prev) {
            replaced.insert(event, old.clone());
        }
    }
    Ok(replaced)
}

/// The events that redacted some of `events`.
pub(crate) async fn redactions_of<'a, R: Reads>(
    tx: &mut R,
    events: impl IntoIterator<Item = &'a StoredEvent>,
) -> Result<Vec<StoredEvent>> {
    let ids: Vec<String> = events.into_iter().filter_map(|e| e.redacted_by.clone()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    events_by_id(tx, ids).await
}

/// What is told beside events of a room, as somebody sees it whom the log is about; who left at `until`.
async fn beside<'a, R: Reads>(
    tx: &mut R,
    who: Onlooker<'_>,
    log: &VisibilityLog,
    until: Option<i64>,
    events: impl IntoIterator<Item = &'a StoredEvent>,
) -> Result<Bundles> {
    let seen = log.stretches(until);
    let events: Vec<Beheld<'_>> = events.into_iter().map(|event| Beheld { event, seen: &seen }).collect();
    bundles(tx, who, &events).await
}

/// What decides what `user_id` may see, for each of the rooms.
pub(crate) async fn visibility_logs<R: Reads>(
    tx: &mut R,
    rooms: &[i64],
    user_id: &str,
) -> Result<HashMap<i64, VisibilityLog>> {
    let mut logs = HashMap::<i64, VisibilityLog>::new();
    if rooms.is_empty() {
        return Ok(logs);
    }
    for mut row in tx.query(VISIBILITY_LOG, args![rooms.to_vec()]).await? {
        let (room_sn, pos) = (row.get(0)?, row.get(1)?);
        // Read once: it is asked for each event.
        let visibility = row.get::<Option<String>>(2)?.as_deref().map(visibility_in);
        logs.entry(room_sn).or_default().visibility.push((pos, visibility));
    }
    for mut row in tx.query(MEMBERSHIP_LOG, args![user_id, rooms.to_vec()]).await? {
        logs.entry(row.get(0)?).or_default().membership.push((row.get(1)?, row.get(2)?));
    }
    for log in logs.values_mut() {
        log.visibility.sort_unstable_by_key(|(pos, _)| *pos);
        log.membership.sort_unstable_by_key(|(pos, _)| *pos);
    }
    Ok(logs)
}

/// Whether an `m.room.history_visibility` event lets everybody read.
pub fn is_world_readable(json: &str) -> bool {
    visibility_in(json) == HistoryVisibility::WorldReadable
}
