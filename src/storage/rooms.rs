//! Rooms: their heads, their events, their state.

pub(crate) mod merge;
pub(crate) mod persist;

use std::sync::Arc;

use hearth_core::{
    event::Pdu,
    relation::{ANNOTATION, Relation},
    sliding,
};

use self::persist::Persist;
use crate::{
    Error, Result, Sql, timeline,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
    unread::Notice,
};

statements! {
    RESERVE_NUMBERS = "UPDATE event_numbers SET next = next + $1 WHERE id = 1 RETURNING next";
    ROOM_BY_ID = "SELECT room_sn, room_id, version, rev, state_root, joined, invited, last_pos, tips FROM rooms
        WHERE room_id = $1";
    TIPS = "SELECT sn, event_id, depth, state_after FROM events WHERE sn = ANY($1) ORDER BY sn";
    NODES = "SELECT hash, body FROM state_nodes WHERE room_sn = $1 AND hash = ANY($2)";
    TRANSACTION = "SELECT result FROM transactions WHERE user_id = $1 AND device_id = $2 AND txn_id = $3 AND scope = $4";
    FORGET = "UPDATE memberships SET forgotten = 1 WHERE user_id = $1 AND room_sn = $2 AND membership IN ('leave', 'ban')";
}

/// What a writer needs of a room before it decides.
#[derive(Clone, Debug)]
pub struct RoomHead {
    pub room: RoomRow,
    pub extremities: Vec<Extremity>,
}

/// The one row of a room.
#[derive(Clone, Debug)]
pub struct RoomRow {
    pub room_sn: i64,
    pub room_id: String,
    pub version: String,
    /// Revision of the current state.
    pub rev: i64,
    /// Root of the current state among the room's state nodes.
    pub state_root: Vec<u8>,
    pub joined: i64,
    pub invited: i64,
    /// Position of the newest timeline event.
    pub last_pos: i64,
}

/// An event that no other event builds on yet.
#[derive(Clone, Debug)]
pub struct Extremity {
    pub sn: i64,
    pub event_id: String,
    pub depth: i64,
    pub state_after: Vec<u8>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Accepted = 0,
    /// Allowed where it stands in the graph, not by the current state: kept, not shown.
    SoftFailed = 1,
    Rejected = 2,
    /// Known only as an ancestor of others: it has no state.
    Outlier = 3,
}

impl Status {
    fn from_int(v: i64) -> Result<Self> {
        Ok(match v {
            0 => Self::Accepted,
            1 => Self::SoftFailed,
            2 => Self::Rejected,
            3 => Self::Outlier,
            other => return Err(Error::Corrupt(format!("event status {other}"))),
        })
    }
}

/// An event as it was stored.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    pub sn: i64,
    pub room_sn: i64,
    pub event_id: String,
    pub pos: Option<i64>,
    pub topo: i64,
    pub topo_minor: i64,
    pub status: Status,
    pub state_before: Option<Vec<u8>>,
    pub state_after: Option<Vec<u8>>,
    pub device_id: Option<String>,
    pub txn_id: Option<String>,
    pub redacted_by: Option<String>,
    pub json: String,
}

/// The columns of a [`StoredEvent`], in the order of the `SELECT`s that read one, from column `i` on.
pub(crate) fn stored_event(row: &mut Row, i: usize) -> Result<StoredEvent> {
    Ok(StoredEvent {
        sn: row.get(i)?,
        room_sn: row.get(i + 1)?,
        event_id: row.get(i + 2)?,
        pos: row.get(i + 3)?,
        topo: row.get(i + 4)?,
        topo_minor: row.get(i + 5)?,
        status: Status::from_int(row.get(i + 6)?)?,
        state_before: row.get(i + 7)?,
        state_after: row.get(i + 8)?,
        device_id: row.get(i + 9)?,
        txn_id: row.get(i + 10)?,
        redacted_by: row.get(i + 11)?,
        json: row.get(i + 12)?,
    })
}

/// A decided change of one room: some events, what they do to the current state, and what goes with them. Stored whole
/// or not at all.
#[derive(Clone, Debug)]
pub struct RoomCommit {
    pub room_sn: i64,
    pub base: Base,
    /// In the order in which the timeline will show them.
    pub events: Vec<NewEvent>,
    /// New nodes of the state trie: hash and body.
    pub nodes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Root of the current state after the commit.
    pub state_root: Vec<u8>,
    pub changes: Vec<StateChange>,
    /// The extremities that the events build on, or that a merge made obsolete.
    pub consumed: Vec<i64>,
    pub extremities: Vec<i64>,
    pub transaction: Option<Transaction>,
    pub redactions: Vec<Redaction>,
    pub alias: Option<NewAlias>,
    /// Show the room in the directory from now on.
    pub publish: bool,
    /// The room that takes over the aliases and the place in the directory.
    pub successor: Option<i64>,
    /// Who joins by it and was perhaps in the room before.
    pub moves: Vec<Move>,
    /// It was worked out by the push rules of this position whom its events notify.
    pub rules_as_of: i64,
    pub now_ms: i64,
}

/// What the decision was made on.
#[derive(Clone, Debug)]
pub enum Base {
    /// The first events of a new room.
    New { room_id: String, version: String },
    /// The state of revision `rev`; and these events are stored.
    At { rev: i64, prevs: Vec<i64> },
}

/// An event to store.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub sn: i64,
    pub pdu: Arc<Pdu>,
    pub status: Status,
    pub state_before: Vec<u8>,
    pub state_after: Vec<u8>,
    pub prev_sns: Vec<i64>,
    pub auth_sns: Vec<i64>,
    /// The device and transaction id that it was sent with.
    pub sent_by: Option<(String, String)>,
    /// What it counts as unread, if it is shown.
    pub notice: Notice,
    /// What it says of another event.
    pub relation: Option<Relation>,
    /// It is made here, so that it can still be refused for how it relates to others.
    pub own: bool,
}

impl NewEvent {
    /// Whether it can be the second of its kind.
    pub(crate) fn is_annotation(&self) -> bool {
        self.relation.as_ref().is_some_and(|relation| relation.rel_type == ANNOTATION)
    }

    /// Whether people see by it that something goes on in the room.
    fn bumps(&self) -> bool {
        self.status == Status::Accepted && sliding::bumps(&self.pdu.event_type.to_string())
    }
}

/// One key of the current state changes with the commit's event number `at`.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// Index into [`RoomCommit::events`]: the change takes that event's position.
    pub at: usize,
    pub event_type: String,
    pub state_key: String,
    pub event_sn: Option<i64>,
    pub prev_sn: Option<i64>,
    /// Set where the key is a membership.
    pub membership: Option<MembershipChange>,
}

/// How somebody's membership changes.
#[derive(Clone, Debug)]
pub struct MembershipChange {
    pub membership: String,
    pub prev: Option<String>,
    /// Whether the user is one of ours, who will sync.
    pub local: bool,
}

impl MembershipChange {
    /// By how much it changes the number of joined members.
    pub fn joins(&self) -> i64 {
        self.step("join")
    }

    fn step(&self, membership: &str) -> i64 {
        i64::from(self.membership == membership) - i64::from(self.prev.as_deref() == Some(membership))
    }
}

/// A transaction id, taken with the commit.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub user_id: String,
    pub device_id: String,
    pub txn_id: String,
    /// What the id is for: ids of different endpoints don't meet.
    pub scope: String,
    /// What a repeat of the request answers.
    pub result: String,
}

/// A redaction among the commit's events, and what it makes of its target if that is here.
#[derive(Clone, Debug)]
pub struct Redaction {
    pub redaction_sn: i64,
    pub redaction_id: String,
    pub target_id: String,
    pub redacted_json: Option<String>,
}

/// An alias that comes with a new room.
#[derive(Clone, Debug)]
pub struct NewAlias {
    pub alias: String,
    pub creator: String,
}

/// The outbox queue of those who joined the successor of a room. The payload is a [`Move`].
pub const MOVES: &str = "room_moves";

/// Somebody joins a room that says which room it comes after.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Move {
    pub user_id: String,
    pub from: String,
    pub to: String,
}

/// Why a commit is to be decided anew: somebody changed their push rules.
pub const OTHER_RULES: &str = "push rules have changed";

/// What became of a [`RoomCommit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persisted {
    /// The position of each of its events.
    Stored(Vec<i64>),
    /// The transaction id had been used: this is what it led to.
    Repeated(String),
    /// One of its events is here already.
    Known,
    AliasTaken,
    RoomExists,
    /// Its sender has said the same of the same event before.
    Annotated,
    /// It would begin a thread at an event that relates to another.
    NoRoot,
}

/// The aggregate of rooms.
pub trait Rooms: Send + Sync {
    /// Takes `count` numbers for events; the first of them.
    fn reserve_numbers(&self, count: i64) -> Answer<'_, i64>;
    /// What a writer needs before it decides; `None` for a room that is not here.
    fn room_head(&self, room_id: &str) -> Answer<'_, Option<RoomHead>>;
    fn room(&self, room_id: &str) -> Answer<'_, Option<RoomRow>>;
    fn state_nodes(&self, room_sn: i64, hashes: Vec<Vec<u8>>) -> Answer<'_, Vec<(Vec<u8>, Vec<u8>)>>;
    fn events_by_sn(&self, sns: Vec<i64>) -> Answer<'_, Vec<StoredEvent>>;
    fn events_by_id(&self, ids: Vec<String>) -> Answer<'_, Vec<StoredEvent>>;
    /// Queued before it returns: two calls one after another are stored in that order.
    /// [`Error::Conflict`] when the room has moved on: load, decide, store again.
    fn persist(&self, commit: RoomCommit) -> Answer<'_, Persisted>;
    /// What a transaction id led to, if it has been used.
    fn transaction(&self, user_id: &str, device_id: &str, txn_id: &str, scope: &str) -> Answer<'_, Option<String>>;
    /// Whether there was a left room to forget.
    fn forget(&self, user_id: &str, room_sn: i64) -> Answer<'_, bool>;
}

impl<E: Engine> Rooms for Sql<E> {
    fn reserve_numbers(&self, count: i64) -> Answer<'_, i64> {
        self.0.write(ReserveNumbers { count })
    }

    fn room_head(&self, room_id: &str) -> Answer<'_, Option<RoomHead>> {
        self.0.read(GetHead { room_id: room_id.to_owned() })
    }

    fn room(&self, room_id: &str) -> Answer<'_, Option<RoomRow>> {
        self.0.read(GetRoom { room_id: room_id.to_owned() })
    }

    fn state_nodes(&self, room_sn: i64, hashes: Vec<Vec<u8>>) -> Answer<'_, Vec<(Vec<u8>, Vec<u8>)>> {
        self.0.read(GetNodes { room_sn, hashes })
    }

    fn events_by_sn(&self, sns: Vec<i64>) -> Answer<'_, Vec<StoredEvent>> {
        self.0.read(EventsBySn { sns })
    }

    fn events_by_id(&self, ids: Vec<String>) -> Answer<'_, Vec<StoredEvent>> {
        self.0.read(EventsById { ids })
    }

    fn persist(&self, commit: RoomCommit) -> Answer<'_, Persisted> {
        self.0.write(Persist(commit))
    }

    fn transaction(&self, user_id: &str, device_id: &str, txn_id: &str, scope: &str) -> Answer<'_, Option<String>> {
        self.0.read(GetTransaction([user_id, device_id, txn_id, scope].map(str::to_owned)))
    }

    fn forget(&self, user_id: &str, room_sn: i64) -> Answer<'_, bool> {
        self.0.write(Forget { user_id: user_id.to_owned(), room_sn })
    }
}

struct ReserveNumbers {
    count: i64,
}

impl Op for ReserveNumbers {
    const NAME: &'static str = "reserve_numbers";
    type Out = i64;
    fn positions(&self) -> u32 {
        0
    }
    async fn run<T: Tx>(&self, tx: &mut T) -> Result<i64> {
        let next: i64 = tx.query_one(RESERVE_NUMBERS, args![self.count]).await?.get(0)?;
        Ok(next - self.count)
    }
}

pub(crate) fn room_row(row: &mut Row, i: usize) -> Result<RoomRow> {
    Ok(RoomRow {
        room_sn: row.get(i)?,
        room_id: row.get(i + 1)?,
        version: row.get(i + 2)?,
        rev: row.get(i + 3)?,
        state_root: row.get(i + 4)?,
        joined: row.get(i + 5)?,
        invited: row.get(i + 6)?,
        last_pos: row.get(i + 7)?,
    })
}

struct GetRoom {
    room_id: String,
}

impl Query for GetRoom {
    const NAME: &'static str = "room";
    type Out = Option<RoomRow>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        match tx.query_opt(ROOM_BY_ID, args![&self.room_id]).await? {
            Some(mut row) => Ok(Some(room_row(&mut row, 0)?)),
            None => Ok(None),
        }
    }
}

struct GetHead {
    room_id: String,
}

impl Query for GetHead {
    const NAME: &'static str = "room_head";
    type Out = Option<RoomHead>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let Some(mut row) = tx.query_opt(ROOM_BY_ID, args![&self.room_id]).await? else { return Ok(None) };
        let room = room_row(&mut row, 0)?;
        let tips = unpack(&row.get::<Vec<u8>>(8)?);
        let mut extremities = Vec::with_capacity(tips.len());
        for mut row in tx.query(TIPS, args![tips]).await? {
            extremities.push(Extremity {
                sn: row.get(0)?,
                event_id: row.get(1)?,
                depth: row.get(2)?,
                state_after: row.get(3)?,
            });
        }
        Ok(Some(RoomHead { room, extremities }))
    }
}

struct GetNodes {
    room_sn: i64,
    hashes: Vec<Vec<u8>>,
}

impl Query for GetNodes {
    const NAME: &'static str = "state_nodes";
    type Out = Vec<(Vec<u8>, Vec<u8>)>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(NODES, args![self.room_sn, self.hashes.clone()]).await?;
        rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

struct EventsBySn {
    sns: Vec<i64>,
}

impl Query for EventsBySn {
    const NAME: &'static str = "events_by_sn";
    type Out = Vec<StoredEvent>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        timeline::events_by_sn(tx, self.sns.clone()).await
    }
}

struct EventsById {
    ids: Vec<String>,
}

impl Query for EventsById {
    const NAME: &'static str = "events_by_id";
    type Out = Vec<StoredEvent>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        timeline::events_by_id(tx, self.ids.clone()).await
    }
}

/// Event numbers as bytes: eight each, little-endian.
fn pack(sns: &[i64]) -> Vec<u8> {
    sns.iter().flat_map(|sn| sn.to_le_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|sn| i64::from_le_bytes(*sn)).collect()
}

/// User, device, id, scope.
struct GetTransaction([String; 4]);

impl Query for GetTransaction {
    const NAME: &'static str = "transaction";
    const SINGLE: bool = true;
    type Out = Option<String>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let [user, device, txn, scope] = &self.0;
        tx.query_opt(TRANSACTION, args![user, device, txn, scope]).await?.map(|mut row| row.get(0)).transpose()
    }
}

struct Forget {
    user_id: String,
    room_sn: i64,
}

impl Op for Forget {
    const NAME: &'static str = "forget";
    type Out = bool;
    fn positions(&self) -> u32 {
        0
    }
    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(tx.execute(FORGET, args![&self.user_id, self.room_sn]).await? > 0)
    }
}
