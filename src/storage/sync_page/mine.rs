//! What a sync begins with: the rooms of the user's, how their memberships changed, and what they keep for themselves.

use std::collections::HashMap;

use ruma::RoomId;

use super::SyncQuery;
use crate::{
    Result,
    error::corrupt,
    rooms::{RoomRow, room_row},
    tx::{Reads, Row, args, statements},
};

statements! {
    MY_ROOMS = "SELECT r.room_sn, r.room_id, r.version, r.rev, r.state_root, r.joined, r.invited, r.last_pos,
        m.membership, m.event_sn, m.pos, m.forgotten
        FROM memberships m JOIN rooms r ON r.room_sn = m.room_sn WHERE m.user_id = $1";
    MY_ROOMS_AMONG = "SELECT r.room_sn, r.room_id, r.version, r.rev, r.state_root, r.joined, r.invited, r.last_pos,
        m.membership, m.event_sn, m.pos, m.forgotten
        FROM memberships m JOIN rooms r ON r.room_sn = m.room_sn WHERE m.user_id = $1 AND m.room_sn = ANY($2)";
    MY_CHANGES = "SELECT room_sn, pos, membership, prev FROM membership_changes
        WHERE user_id = $1 AND pos > $2 ORDER BY pos";
    OLDER_ACCOUNT_DATA = "SELECT room_sn, type, content FROM account_data
        WHERE user_id = $1 AND room_sn = ANY($2) AND pos <= $3 AND content IS NOT NULL ORDER BY pos";
    // And whom the user ignores, changed or not.
    ACCOUNT_DATA = "SELECT room_sn, type, content, pos FROM account_data WHERE user_id = $1 AND pos > $2 AND pos <= $3
        UNION ALL SELECT -1, type, content, pos FROM account_data
            WHERE user_id = $1 AND room_sn = 0 AND type = 'm.ignored_user_list'
        ORDER BY 4";
}

/// A room of the user's, before its contents are read.
pub(super) struct Mine {
    pub(super) room: RoomRow,
    pub(super) membership: String,
    pub(super) event_sn: i64,
    pub(super) pos: i64,
    pub(super) forgotten: bool,
}

impl Mine {
    fn new(row: &mut Row) -> Result<Self> {
        Ok(Self {
            room: room_row(row, 0)?,
            membership: row.get(8)?,
            event_sn: row.get(9)?,
            pos: row.get(10)?,
            forgotten: row.get(11)?,
        })
    }

    pub(super) fn id(&self) -> Result<&RoomId> {
        self.room.room_id.as_str().try_into().map_err(corrupt)
    }
}

/// How the user's membership of a room changed since the token.
pub(super) struct Change {
    /// Before the first change.
    pub(super) prev: Option<String>,
    /// What it became, and at which position.
    pub(super) log: Vec<(i64, String)>,
}

impl Change {
    /// The membership after a position, if it changed later.
    pub(super) fn at(&self, pos: i64) -> Option<&str> {
        let before = self.log.iter().rev().find(|(at, _)| *at <= pos);
        before.map_or(self.prev.as_deref(), |(_, membership)| Some(membership.as_str()))
    }

    pub(super) fn joined_after(&self, pos: i64) -> bool {
        self.log.iter().any(|(at, membership)| *at > pos && membership == "join")
    }

    pub(super) fn joined(&self) -> bool {
        self.log.iter().any(|(_, membership)| membership == "join")
    }
}

/// Of the account (0) and by room: type and content, which is `None` where it was deleted. And whom the user ignores (-1).
pub(super) type AccountData = HashMap<i64, Vec<(String, Option<String>)>>;

pub(super) async fn my_rooms<R: Reads>(tx: &mut R, q: &SyncQuery) -> Result<Vec<Mine>> {
    let mut mine = Vec::new();
    for mut row in tx.query(MY_ROOMS, args![&q.user_id]).await? {
        let room = Mine::new(&mut row)?;
        let wanted = q.only_rooms.as_ref().is_none_or(|only| only.contains(&room.room.room_id));
        if wanted && !q.not_rooms.contains(&room.room.room_id) {
            mine.push(room);
        }
    }
    Ok(mine)
}

/// Those among these.
pub(super) async fn my_rooms_among<R: Reads>(tx: &mut R, user_id: &str, rooms: Vec<i64>) -> Result<Vec<Mine>> {
    tx.query(MY_ROOMS_AMONG, args![user_id, rooms]).await?.iter_mut().map(Mine::new).collect()
}

pub(super) async fn my_changes<R: Reads>(tx: &mut R, q: &SyncQuery) -> Result<HashMap<i64, Change>> {
    let mut changes = HashMap::new();
    let Some(since) = q.since else { return Ok(changes) };
    for mut row in tx.query(MY_CHANGES, args![&q.user_id, since]).await? {
        let room_sn: i64 = row.get(0)?;
        let (pos, membership, prev): (i64, String, Option<String>) = (row.get(1)?, row.get(2)?, row.get(3)?);
        changes.entry(room_sn).or_insert(Change { prev, log: Vec::new() }).log.push((pos, membership));
    }
    Ok(changes)
}

/// What changed of the account data since the token.
pub(super) async fn account_data<R: Reads>(tx: &mut R, q: &SyncQuery, head: i64) -> Result<AccountData> {
    let mut by_room = AccountData::new();
    let since = q.since.unwrap_or(0);
    for mut row in tx.query(ACCOUNT_DATA, args![&q.user_id, since, head]).await? {
        let (room_sn, kind, content): (i64, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // A first sync need not tell of what was deleted before it.
        if q.since.is_some() || content.is_some() {
            by_room.entry(room_sn).or_default().push((kind, content));
        }
    }
    Ok(by_room)
}

/// Adds what was kept for these rooms before the token: the user was not told of it then.
pub(super) async fn older_account_data<R: Reads>(
    tx: &mut R,
    q: &SyncQuery,
    rooms: Vec<i64>,
    account_data: &mut AccountData,
) -> Result<()> {
    let Some(since) = q.since.filter(|_| !rooms.is_empty()) else { return Ok(()) };
    for mut row in tx.query(OLDER_ACCOUNT_DATA, args![&q.user_id, rooms, since]).await? {
        let (room_sn, kind, content): (i64, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        account_data.entry(room_sn).or_default().push((kind, content));
    }
    Ok(())
}
