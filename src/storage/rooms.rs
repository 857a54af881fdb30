//! Rooms: their heads, their events, their state; and `persist`, the one way in which an event becomes part of a room.

pub(crate) mod merge;

use std::sync::Arc;

use hearth_core::event::Pdu;

use crate::{
    Error, Result, Sql, directory,
    outbox::{self, NewItem},
    timeline,
    tx::{Answer, Engine, Message, Op, Query, Reads, Row, Tx, Value, Wake, args, statements},
    unread::{self, Notice},
};

statements! {
    RESERVE_NUMBERS = "UPDATE event_numbers SET next = next + $1 WHERE id = 1 RETURNING next";
    ROOM_BY_ID = "SELECT room_sn, room_id, version, rev, state_root, joined, invited, last_pos, tips FROM rooms
        WHERE room_id = $1";
    TIPS = "SELECT sn, event_id, depth, state_after FROM events WHERE sn = ANY($1) ORDER BY sn";
    NODES = "SELECT hash, body FROM state_nodes WHERE room_sn = $1 AND hash = ANY($2)";
    // The checks of a commit in one round trip: is the state still the one it was decided on, what does the room end in,
    // has this transaction id been used?
    CHECK = "SELECT r.rev, r.tips,
        (SELECT t.result FROM transactions t
            WHERE t.user_id = $2 AND t.device_id = $3 AND t.txn_id = $4 AND t.scope = $5),
        (SELECT e.sn FROM events e WHERE e.event_id = $6)
        FROM rooms r WHERE r.room_sn = $1";
    HOW_MANY_STORED = "SELECT COUNT(*) FROM events WHERE sn = ANY($1)";
    ROOM_EXISTS = "SELECT room_sn FROM rooms WHERE room_id = $1";
    EVENT_EXISTS = "SELECT event_id FROM events WHERE event_id = ANY($1)";
    ALIAS_TAKEN = "SELECT alias FROM aliases WHERE alias = $1";
    INSERT_ALIAS = "INSERT INTO aliases (alias, room_sn, creator) VALUES ($1, $2, $3)";
    INSERT_ROOM = "INSERT INTO rooms (room_sn, room_id, version, rev, state_root, joined, invited, tips, last_pos, touched_pos)
        VALUES ($1, $2, $3, 0, $4, 0, 0, $5, 0, 0)";
    UPDATE_ROOM = "UPDATE rooms SET rev = rev + $2, state_root = $3, joined = joined + $4, invited = invited + $5, tips = $6,
        last_pos = CASE WHEN $7 > last_pos THEN $7 ELSE last_pos END, touched_pos = $8
        WHERE room_sn = $1";
    INSERT_TRANSACTION = "INSERT INTO transactions (user_id, device_id, txn_id, scope, result, created_ms)
        VALUES ($1, $2, $3, $4, $5, $6)";
    DELETE_CURRENT = "DELETE FROM current_state WHERE room_sn = $1 AND type = $2 AND state_key = $3";
    REDACT = "UPDATE events SET json = $3, redacted_by = $4 WHERE room_sn = $1 AND event_id = $2 AND redacted_by IS NULL
        RETURNING pos, sender, thread, counted";
    TRANSACTION = "SELECT result FROM transactions WHERE user_id = $1 AND device_id = $2 AND txn_id = $3 AND scope = $4";
    FORGET = "UPDATE memberships SET forgotten = 1 WHERE user_id = $1 AND room_sn = $2 AND membership IN ('leave', 'ban')";

    bulk INSERT_EVENTS = "events" (
        "sn": Int, "event_id": Text, "room_sn": Int, "pos": Int, "topo": Int, "topo_minor": Int, "depth": Int, "type": Text,
        "state_key": Text, "sender": Text, "status": Int, "state_before": Blob, "state_after": Blob, "prev_sns": Blob,
        "auth_sns": Blob, "device_id": Text, "txn_id": Text, "redacted_by": Text, "thread": Text,
        "counted": Text, "json": Text
    ) "";
    bulk INSERT_NODES = "state_nodes" ("room_sn": Int, "hash": Blob, "body": Blob) "ON CONFLICT DO NOTHING";
    bulk UPSERT_CURRENT = "current_state" ("room_sn": Int, "type": Text, "state_key": Text, "event_sn": Int, "pos": Int)
        "ON CONFLICT (room_sn, type, state_key) DO UPDATE SET event_sn = excluded.event_sn, pos = excluded.pos";
    bulk INSERT_DELTAS = "current_state_delta" (
        "room_sn": Int, "pos": Int, "type": Text, "state_key": Text, "event_sn": Int, "prev_sn": Int
    ) "";
    bulk UPSERT_MEMBERSHIPS = "memberships" (
        "user_id": Text, "room_sn": Int, "membership": Text, "event_sn": Int, "pos": Int, "forgotten": Int
    ) "ON CONFLICT (user_id, room_sn) DO UPDATE SET
        membership = excluded.membership, event_sn = excluded.event_sn, pos = excluded.pos, forgotten = excluded.forgotten";
    bulk INSERT_MEMBERSHIP_CHANGES = "membership_changes" (
        "user_id": Text, "pos": Int, "room_sn": Int, "membership": Text, "prev": Text, "event_sn": Int
    ) "";
    bulk INSERT_REDACTIONS = "redactions" ("room_sn": Int, "target_id": Text, "redaction_sn": Int) "ON CONFLICT DO NOTHING";
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

struct Persist(RoomCommit);

impl Op for Persist {
    const NAME: &'static str = "persist";
    type Out = Persisted;

    fn positions(&self) -> u32 {
        u32::try_from(self.0.events.len()).unwrap_or(u32::MAX)
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Persisted> {
        let c = &self.0;
        let tips = match self.check(tx).await? {
            Checked::Good { tips } => tips,
            Checked::Answer(answer) => return Ok(answer),
        };
        let tips = c.tips_after(tips);

        let mut positions = Vec::with_capacity(c.events.len());
        let mut threads = Vec::with_capacity(c.events.len());
        let mut rows = Vec::with_capacity(c.events.len());
        for event in &c.events {
            let pos = tx.next_pos()?;
            let thread = unread::thread_of(tx, c.room_sn, &event.notice.place).await?;
            rows.push(event_row(event, c, pos, thread.as_deref())?);
            positions.push(pos);
            threads.push(thread);
        }
        let last_pos = positions.last().copied().unwrap_or_default();
        // What was refused is in nobody's timeline.
        let mut shown = c.events.iter().zip(&positions).filter(|(e, _)| e.status == Status::Accepted);
        let last_shown = shown.next_back().map_or(0, |(_, pos)| *pos);

        if let Base::New { room_id, version } = &c.base {
            tx.execute(INSERT_ROOM, args![c.room_sn, room_id, version, c.state_root.clone(), Vec::<u8>::new()]).await?;
        }
        tx.insert_rows(INSERT_EVENTS, &rows).await?;
        if !c.nodes.is_empty() {
            let nodes: Vec<_> = c
                .nodes
                .iter()
                .map(|(hash, body)| vec![c.room_sn.into(), hash.clone().into(), body.clone().into()])
                .collect();
            tx.insert_rows(INSERT_NODES, &nodes).await?;
        }
        let (joined, invited) = self.state_changes(tx, &positions).await?;
        let rev_step = i64::from(!c.changes.is_empty());
        let update =
            args![c.room_sn, rev_step, c.state_root.clone(), joined, invited, pack(&tips), last_shown, last_pos];
        tx.execute(UPDATE_ROOM, update).await?;

        if let Some(t) = &c.transaction {
            tx.execute(INSERT_TRANSACTION, args![&t.user_id, &t.device_id, &t.txn_id, &t.scope, &t.result, c.now_ms])
                .await?;
        }
        self.redactions(tx).await?;
        if let Some(a) = &c.alias {
            tx.execute(INSERT_ALIAS, args![&a.alias, c.room_sn, &a.creator]).await?;
        }
        if c.publish {
            directory::publish(tx, c.room_sn).await?;
        }
        for ((event, pos), thread) in c.events.iter().zip(&positions).zip(&threads) {
            if event.status == Status::Accepted {
                unread::count(tx, c.room_sn, *pos, event.pdu.sender.as_str(), thread.as_deref(), &event.notice).await?;
            }
        }
        if let Some(successor) = c.successor {
            directory::hand_over(tx, c.room_sn, successor).await?;
        }
        self.moves(tx, &positions).await?;
        match (self.message(), &positions[..]) {
            (Some(event), [pos]) => tx.message(Message {
                pos: *pos,
                sn: event.sn,
                room_sn: c.room_sn,
                pdu: Arc::clone(&event.pdu),
                sent_by: event.sent_by.clone(),
                counted: event.notice.counted(threads.into_iter().next().flatten()).map(Arc::new),
            }),
            _ => tx.wake(Wake::Room(c.room_sn)),
        }
        Ok(Persisted::Stored(positions))
    }

    fn merges(&self) -> bool {
        self.merges_with_others()
    }

    async fn run_merged<T: Tx>(ops: &[&Self], tx: &mut T) -> Result<Vec<Result<Persisted>>> {
        Self::run_together(ops, tx).await
    }
}

impl RoomCommit {
    /// Where the room ends after it. Not what the writer took for its ends: another process may have added one since.
    fn tips_after(&self, mut tips: Vec<i64>) -> Vec<i64> {
        tips.retain(|sn| !self.consumed.contains(sn) && !self.extremities.contains(sn));
        tips.extend(&self.extremities);
        tips
    }
}

/// What came out before anything was written.
enum Checked {
    /// Nothing is in the way; and where the room ends now.
    Good {
        tips: Vec<i64>,
    },
    Answer(Persisted),
}

impl Persist {
    /// The event, if the commit adds one to the timeline and changes nothing else that a sync shows.
    fn message(&self) -> Option<&NewEvent> {
        let c = &self.0;
        match &c.events[..] {
            [event]
                if event.status == Status::Accepted
                    && event.pdu.state_key.is_none()
                    && c.changes.is_empty()
                    && c.redactions.is_empty() =>
            {
                Some(event)
            }
            _ => None,
        }
    }

    /// All that may forbid the commit, before anything is written.
    async fn check<T: Tx>(&self, tx: &mut T) -> Result<Checked> {
        let c = &self.0;
        match &c.base {
            Base::New { room_id, .. } => {
                if tx.query_opt(ROOM_EXISTS, args![room_id]).await?.is_some() {
                    return Ok(Checked::Answer(Persisted::RoomExists));
                }
                if let Some(a) = &c.alias
                    && tx.query_opt(ALIAS_TAKEN, args![&a.alias]).await?.is_some()
                {
                    return Ok(Checked::Answer(Persisted::AliasTaken));
                }
                Ok(Checked::Good { tips: Vec::new() })
            }
            Base::At { rev, prevs } => {
                let (user, device, txn, scope) = match &c.transaction {
                    Some(t) => (t.user_id.as_str(), t.device_id.as_str(), t.txn_id.as_str(), t.scope.as_str()),
                    None => ("", "", "", ""),
                };
                let ids: Vec<String> = c.events.iter().map(|e| e.pdu.event_id.to_string()).collect();
                let first = ids.first().map(String::as_str);
                let row = tx.query_opt(CHECK, args![c.room_sn, user, device, txn, scope, first]).await?;
                let mut row = row.ok_or(Error::Conflict("the room is gone"))?;
                if let Some(result) = row.get::<Option<String>>(2)? {
                    return Ok(Checked::Answer(Persisted::Repeated(result)));
                }
                if row.get::<i64>(0)? != *rev {
                    return Err(Error::Conflict("the state of the room has moved on"));
                }
                // Where the room ends is stored, of course; only what builds on something older has to be looked up.
                let tips = unpack(&row.get::<Vec<u8>>(1)?);
                if !prevs.iter().all(|sn| tips.contains(sn)) {
                    let stored: i64 = tx.query_one(HOW_MANY_STORED, args![prevs.clone()]).await?.get(0)?;
                    if stored != i64::try_from(prevs.len()).unwrap_or(i64::MAX) {
                        return Err(Error::Conflict("an event to build on is not stored"));
                    }
                }
                let rest = ids.get(1..).unwrap_or_default();
                let known = row.get::<Option<i64>>(3)?.is_some()
                    || !rest.is_empty() && tx.query_opt(EVENT_EXISTS, args![rest.to_vec()]).await?.is_some();
                if known {
                    return Ok(Checked::Answer(Persisted::Known));
                }
                Ok(Checked::Good { tips })
            }
        }
    }

    /// The current state, its history, and the memberships; by how much the member counts change.
    async fn state_changes<T: Tx>(&self, tx: &mut T, positions: &[i64]) -> Result<(i64, i64)> {
        let c = &self.0;
        let (mut joined, mut invited) = (0, 0);
        if c.changes.is_empty() {
            return Ok((0, 0));
        }
        // A key that changes twice in one commit keeps both deltas, but one current row.
        let mut current = std::collections::BTreeMap::new();
        let mut members = std::collections::BTreeMap::new();
        let mut deltas: std::collections::BTreeMap<(i64, &str, &str), Vec<Value>> = std::collections::BTreeMap::new();
        let mut member_log = Vec::new();
        for change in &c.changes {
            let pos = *positions.get(change.at).ok_or_else(|| Error::Corrupt("a state change without event".into()))?;
            let (kind, key) = (change.event_type.as_str(), change.state_key.as_str());
            current.insert((kind, key), (change.event_sn, pos));
            deltas.insert(
                (pos, kind, key),
                vec![
                    c.room_sn.into(),
                    pos.into(),
                    kind.into(),
                    key.into(),
                    change.event_sn.into(),
                    change.prev_sn.into(),
                ],
            );
            if let Some(m) = &change.membership {
                joined += m.joins();
                invited += m.step("invite");
                let event_sn = change.event_sn.unwrap_or_default();
                members.insert(
                    key,
                    vec![
                        key.into(),
                        c.room_sn.into(),
                        m.membership.as_str().into(),
                        event_sn.into(),
                        pos.into(),
                        0i64.into(),
                    ],
                );
                if m.local {
                    member_log.push(vec![
                        key.into(),
                        pos.into(),
                        c.room_sn.into(),
                        m.membership.as_str().into(),
                        m.prev.as_deref().into(),
                        event_sn.into(),
                    ]);
                    tx.wake(Wake::User(key.into()));
                }
            }
        }
        let mut upserts = Vec::new();
        for ((kind, key), (event_sn, pos)) in current {
            match event_sn {
                Some(sn) => upserts.push(vec![c.room_sn.into(), kind.into(), key.into(), sn.into(), pos.into()]),
                None => {
                    tx.execute(DELETE_CURRENT, args![c.room_sn, kind, key]).await?;
                }
            }
        }
        tx.insert_rows(UPSERT_CURRENT, &upserts).await?;
        tx.insert_rows(INSERT_DELTAS, &deltas.into_values().collect::<Vec<_>>()).await?;
        if !members.is_empty() {
            tx.insert_rows(UPSERT_MEMBERSHIPS, &members.into_values().collect::<Vec<_>>()).await?;
            tx.insert_rows(INSERT_MEMBERSHIP_CHANGES, &member_log).await?;
        }
        Ok((joined, invited))
    }

    async fn moves<T: Tx>(&self, tx: &mut T, positions: &[i64]) -> Result<()> {
        let c = &self.0;
        let last = positions.last().copied().unwrap_or_default();
        let mut items = Vec::with_capacity(c.moves.len());
        for (i, moves) in c.moves.iter().enumerate() {
            let payload = serde_json::to_string(moves).map_err(|e| Error::Internal(e.to_string()))?;
            items.push(NewItem { id: format!("{MOVES}-{last}-{i}"), payload, due_ms: c.now_ms });
        }
        outbox::enqueue(tx, MOVES, items).await
    }

    async fn redactions<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let c = &self.0;
        if c.redactions.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = c
            .redactions
            .iter()
            .map(|r| vec![c.room_sn.into(), r.target_id.as_str().into(), r.redaction_sn.into()])
            .collect();
        tx.insert_rows(INSERT_REDACTIONS, &rows).await?;
        for r in &c.redactions {
            if let Some(json) = &r.redacted_json {
                let was = tx.query_opt(REDACT, args![c.room_sn, &r.target_id, json, &r.redaction_id]).await?;
                if let Some(mut was) = was
                    && let (Some(pos), Some(kept)) = (was.get::<Option<i64>>(0)?, was.get::<Option<String>>(3)?)
                {
                    let (sender, thread): (String, Option<String>) = (was.get(1)?, was.get(2)?);
                    unread::redacted(tx, c.room_sn, pos, &sender, thread.as_deref(), &kept).await?;
                }
            }
        }
        Ok(())
    }
}

fn event_row(event: &NewEvent, c: &RoomCommit, pos: i64, thread: Option<&str>) -> Result<Vec<Value>> {
    let pdu = &event.pdu;
    let shown = event.status == Status::Accepted;
    let (device_id, txn_id) = match &event.sent_by {
        Some((device, txn)) => (Some(device.as_str()), Some(txn.as_str())),
        None => (None, None),
    };
    Ok(vec![
        event.sn.into(),
        pdu.event_id.as_str().into(),
        c.room_sn.into(),
        Value::Int(shown.then_some(pos)),
        pos.into(),
        0i64.into(),
        pdu.depth.into(),
        pdu.event_type.to_string().into(),
        pdu.state_key.as_deref().into(),
        pdu.sender.as_str().into(),
        (event.status as i64).into(),
        event.state_before.clone().into(),
        event.state_after.clone().into(),
        pack(&event.prev_sns).into(),
        pack(&event.auth_sns).into(),
        device_id.into(),
        txn_id.into(),
        Value::Text(None),
        thread.into(),
        if shown { unread::kept(&event.notice)? } else { None }.into(),
        Arc::clone(&pdu.json).into(),
    ])
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
