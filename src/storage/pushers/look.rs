//! What users may be told of: events of their rooms that somebody else sent, and that they may see. Which of these they want
//! to be told of is for their push rules to say.

use std::collections::{BTreeSet, HashMap};

use crate::{
    account_data::ignored_by,
    error::{Result, corrupt},
    rooms::{RoomRow, StoredEvent, room_row, stored_event},
    timeline::{VisibilityLog, membership_at, visibility_logs},
    tx::{Query, Reads, Row, Value, args, statements},
    unread,
};

/// All columns of an event, behind the thread that it is in and its sender.
macro_rules! events_where {
    ($condition:literal) => {
        concat!(
            "SELECT thread, sn, room_sn, event_id, pos, topo, topo_minor, status, state_before, state_after, device_id, ",
            "txn_id, redacted_by, json FROM events WHERE ",
            $condition
        )
    };
}

statements! {
    HEAD = "SELECT pos FROM stream_head WHERE id = 1";
    ROOMS = "SELECT r.room_sn, r.room_id, r.version, r.rev, r.state_root, r.joined, r.invited, r.last_pos
        FROM memberships m CROSS JOIN rooms r
        WHERE m.user_id = $1 AND m.membership IN ('join', 'invite') AND r.room_sn = m.room_sn AND r.last_pos > $2";
    AFTER = events_where!(
        "room_sn = $1 AND topo > $2 AND topo_minor = 0 AND pos IS NOT NULL AND redacted_by IS NULL AND sender <> $3
         ORDER BY topo LIMIT $4"
    );
    BEFORE = "SELECT topo, sn FROM events WHERE room_sn = $1 AND topo < $2 AND topo_minor = 0
        ORDER BY topo DESC LIMIT $3";
    THESE = events_where!("sn = ANY($1) AND pos IS NOT NULL AND redacted_by IS NULL AND sender <> $2 ORDER BY topo DESC");
    READ = "SELECT room_sn, thread, read_pos FROM receipts
        WHERE room_sn = ANY($1) AND user_id = $2 AND type IN ('m.read', 'm.read.private')";
    STATE = "SELECT e.json FROM current_state s JOIN events e ON e.sn = s.event_sn
        WHERE s.room_sn = $1 AND s.type = $2 AND s.state_key = $3";
    MINE = "SELECT m.room_sn, m.membership, e.sender FROM memberships m
        LEFT JOIN events e ON m.membership = 'invite' AND e.sn = m.event_sn
        WHERE m.user_id = $1 AND m.membership IN ('join', 'invite')";
}

/// Of one room, at most so many are read at once; and of all rooms.
const MOST_OF_ROOM: usize = 50;
const MOST: usize = 100;

/// An event that somebody may be told of.
#[derive(Clone, Debug)]
pub struct Tellable {
    pub event: StoredEvent,
    /// They have read it.
    pub read: bool,
}

/// What is new to a user after a position.
#[derive(Clone, Debug, Default)]
pub struct NewsOf {
    /// It is told of all up to here.
    pub up_to: i64,
    /// There is more behind.
    pub more: bool,
    pub rooms: HashMap<i64, RoomRow>,
    /// In the order of the stream; what was read is left out.
    pub events: Vec<StoredEvent>,
    /// Events of the rooms' current state as JSON, by room, type and key: who the senders are and who the user is, and
    /// what the rooms are called.
    pub state: HashMap<(i64, &'static str, String), String>,
}

pub(super) struct ReadNewsOf {
    pub(super) user_id: String,
    pub(super) since: i64,
}

impl Query for ReadNewsOf {
    const NAME: &'static str = "news_of";
    type Out = NewsOf;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<NewsOf> {
        let head: i64 = tx.query_one(HEAD, &[]).await?.get(0)?;
        let rooms = rooms(tx, &self.user_id, self.since).await?;
        let limit = i64::try_from(MOST_OF_ROOM).unwrap_or(i64::MAX);
        let asked: Vec<_> = rooms.iter().map(|r| args![r.room_sn, self.since, &self.user_id, limit].to_vec()).collect();
        let (mut up_to, mut found) = (head, Vec::new());
        for rows in tx.query_each(AFTER, &asked).await? {
            let is_all = rows.len() < MOST_OF_ROOM;
            found.extend(rows.into_iter().map(candidate).collect::<Result<Vec<_>>>()?);
            if let Some(last) = found.last().filter(|_| !is_all) {
                up_to = up_to.min(last.event.topo);
            }
        }
        found.sort_unstable_by_key(|c| c.event.topo);
        found.retain(|c| c.event.topo <= up_to);
        if let Some(last) = found.get(MOST - 1).map(|c| c.event.topo) {
            up_to = last;
            found.truncate(MOST);
        }
        let logs = logs(tx, &found, &self.user_id).await?;
        let told = tellable(tx, found, &self.user_id, &logs).await?;
        let events: Vec<_> = told.into_iter().filter(|t| !t.read).map(|t| t.event).collect();
        let state = state(tx, &events, &self.user_id).await?;
        let rooms = rooms.into_iter().map(|room| (room.room_sn, room)).collect();
        Ok(NewsOf { up_to, more: up_to < head, rooms, events, state })
    }
}

/// A piece of the past, the newest first.
#[derive(Clone, Debug, Default)]
pub struct PastOf {
    /// Where it goes on; `None` at the end.
    pub next: Option<i64>,
    pub rooms: HashMap<i64, RoomRow>,
    pub events: Vec<Tellable>,
    pub logs: HashMap<i64, VisibilityLog>,
    /// What the user is called in the rooms.
    pub state: HashMap<(i64, &'static str, String), String>,
}

pub(super) struct ReadPastOf {
    pub(super) user_id: String,
    pub(super) before: i64,
}

impl Query for ReadPastOf {
    const NAME: &'static str = "past_of";
    type Out = PastOf;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<PastOf> {
        let rooms = rooms(tx, &self.user_id, -1).await?;
        let limit = i64::try_from(MOST_OF_ROOM).unwrap_or(i64::MAX);
        let asked: Vec<_> = rooms.iter().map(|room| args![room.room_sn, self.before, limit].to_vec()).collect();
        // First only where they are: of many rooms' newest events most are older than what is wanted.
        let (mut down_to, mut places) = (i64::MIN, Vec::new());
        for rows in tx.query_each(BEFORE, &asked).await? {
            let is_all = rows.len() < MOST_OF_ROOM;
            for mut row in rows {
                places.push((row.get::<i64>(0)?, row.get::<i64>(1)?));
            }
            if let Some((topo, _)) = places.last().filter(|_| !is_all) {
                down_to = down_to.max(*topo);
            }
        }
        places.sort_unstable_by_key(|(topo, _)| std::cmp::Reverse(*topo));
        places.retain(|(topo, _)| *topo >= down_to);
        if let Some((last, _)) = places.get(MOST - 1) {
            down_to = *last;
            places.truncate(MOST);
        }
        let sns: Vec<i64> = places.into_iter().map(|(_, sn)| sn).collect();
        let found = tx.query(THESE, args![sns, &self.user_id]).await?;
        let found = found.into_iter().map(candidate).collect::<Result<Vec<_>>>()?;
        let logs = logs(tx, &found, &self.user_id).await?;
        let events = tellable(tx, found, &self.user_id, &logs).await?;
        let state = state(tx, events.iter().map(|t| &t.event), &self.user_id).await?;
        let rooms = rooms.into_iter().map(|room| (room.room_sn, room)).collect();
        Ok(PastOf { next: (down_to > i64::MIN).then_some(down_to), rooms, events, logs, state })
    }
}

struct Candidate {
    event: StoredEvent,
    thread: Option<String>,
}

fn candidate(mut row: Row) -> Result<Candidate> {
    Ok(Candidate { thread: row.get(0)?, event: stored_event(&mut row, 1)? })
}

/// The rooms that the user is in, or invited to, with something after a position.
async fn rooms<R: Reads>(tx: &mut R, user_id: &str, since: i64) -> Result<Vec<RoomRow>> {
    tx.query(ROOMS, args![user_id, since]).await?.iter_mut().map(|row| room_row(row, 0)).collect()
}

async fn logs<R: Reads>(tx: &mut R, found: &[Candidate], user_id: &str) -> Result<HashMap<i64, VisibilityLog>> {
    let rooms: BTreeSet<i64> = found.iter().map(|c| c.event.room_sn).collect();
    visibility_logs(tx, &rooms.into_iter().collect::<Vec<_>>(), user_id).await
}

/// Those that the user may be told of: which they may see, who were in the room when it was sent, or were invited by it.
/// Not what is by somebody whom they ignore.
async fn tellable<R: Reads>(
    tx: &mut R,
    found: Vec<Candidate>,
    user_id: &str,
    logs: &HashMap<i64, VisibilityLog>,
) -> Result<Vec<Tellable>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let ignored = ignored_by(tx, user_id).await?;
    let rooms: Vec<i64> = logs.keys().copied().collect();
    let mut read = HashMap::<(i64, String), i64>::new();
    for mut row in tx.query(READ, args![rooms, user_id]).await? {
        let up_to = read.entry((row.get(0)?, row.get(1)?)).or_default();
        *up_to = row.get::<i64>(2)?.max(*up_to);
    }
    let read_up_to = |room_sn: i64, thread: &str| read.get(&(room_sn, thread.to_owned())).copied().unwrap_or(i64::MIN);
    let mut told = Vec::with_capacity(found.len());
    for Candidate { event, thread } in found {
        let Some(log) = logs.get(&event.room_sn) else { continue };
        let there = match membership_at(&log.membership, &event) {
            "join" => true,
            "invite" => log.is_own(&event, user_id),
            _ => false,
        };
        if !there || !log.sees(&event, user_id) || ignored.hides(&event.json).map_err(corrupt)? {
            continue;
        }
        let thread = thread.as_deref().unwrap_or(unread::MAIN);
        let read = event.topo <= read_up_to(event.room_sn, "").max(read_up_to(event.room_sn, thread));
        told.push(Tellable { event, read });
    }
    Ok(told)
}

/// What these events are told with.
async fn state<'a, R: Reads>(
    tx: &mut R,
    events: impl IntoIterator<Item = &'a StoredEvent>,
    user_id: &str,
) -> Result<HashMap<(i64, &'static str, String), String>> {
    #[derive(serde::Deserialize)]
    struct Sent {
        sender: String,
    }
    let mut keys = BTreeSet::new();
    for event in events {
        let Sent { sender } = serde_json::from_str(&event.json).map_err(corrupt)?;
        for user in [sender, user_id.to_owned()] {
            keys.insert((event.room_sn, "m.room.member", user));
        }
        for kind in ["m.room.name", "m.room.canonical_alias"] {
            keys.insert((event.room_sn, kind, String::new()));
        }
    }
    let asked: Vec<Vec<Value>> = keys.iter().map(|(room, kind, key)| args![*room, *kind, key].to_vec()).collect();
    let mut state = HashMap::new();
    for (key, rows) in keys.into_iter().zip(tx.query_each(STATE, &asked).await?) {
        if let Some(mut row) = rows.into_iter().next() {
            state.insert(key, row.get(0)?);
        }
    }
    Ok(state)
}

/// How much a user has not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Badge {
    /// Rooms with something in them that notified.
    pub rooms: i64,
    /// All that notified.
    pub messages: i64,
    /// Rooms that wait for an answer.
    pub invites: i64,
}

pub(super) struct ReadBadge(pub(super) String);

impl Query for ReadBadge {
    const NAME: &'static str = "badge";
    type Out = Badge;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Badge> {
        let ignored = ignored_by(tx, &self.0).await?;
        let (mut badge, mut rooms) = (Badge::default(), Vec::new());
        for mut row in tx.query(MINE, args![&self.0]).await? {
            let (room_sn, membership, inviter): (i64, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if membership == "join" {
                rooms.push(room_sn);
            } else if !inviter.is_some_and(|inviter| ignored.holds(&inviter)) {
                badge.invites += 1;
            }
        }
        for unread in unread::unread(tx, &self.0, &ignored, rooms).await?.into_values() {
            let notify = unread.all().notify;
            badge.rooms += i64::from(notify > 0);
            badge.messages += notify.max(0);
        }
        Ok(badge)
    }
}
