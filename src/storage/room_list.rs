//! The rooms of somebody as a list of them is sorted and filtered: of each so little that thousands can be kept in memory.

use std::collections::HashMap;

use hearth_core::filter::Ignored;
use serde::Deserialize;

use crate::{
    Result, Sql,
    error::corrupt,
    keys::{self, KeyCounts},
    tx::{Answer, Engine, Query, Reads, Row, args, statements},
};

/// The columns of a [`ListedRoom`], in its order. Who sent a membership, and whether there was ever a join, is asked only
/// of those who are not in the room.
macro_rules! listed {
    ($from:literal) => {
        concat!(
            "SELECT r.room_sn, r.room_id, r.joined, r.last_pos, r.bump_pos, r.touched_pos, m.membership, m.pos, m.forgotten,
            CASE WHEN m.membership <> 'join' THEN (SELECT e.sender FROM events e WHERE e.sn = m.event_sn) END,
            CASE WHEN m.membership IN ('leave', 'ban') THEN (SELECT c.pos FROM membership_changes c
                WHERE c.user_id = $1 AND c.room_sn = m.room_sn AND c.membership = 'join' ORDER BY c.pos LIMIT 1) END ",
            $from
        )
    };
}

statements! {
    HEAD = "SELECT pos FROM stream_head WHERE id = 1";
    LISTED = listed!("FROM memberships m JOIN rooms r ON r.room_sn = m.room_sn WHERE m.user_id = $1");
    // CROSS JOIN: first what happened anywhere since, which is little, not all rooms of the user.
    TOUCHED = listed!("FROM rooms r CROSS JOIN memberships m
        WHERE r.touched_pos > $2 AND m.user_id = $1 AND m.room_sn = r.room_sn");
    KINDS = "SELECT c.room_sn, c.type,
            CASE WHEN c.type = 'm.room.create' THEN (SELECT e.json FROM events e WHERE e.sn = c.event_sn) END
        FROM current_state c WHERE c.room_sn = ANY($1) AND c.type IN ('m.room.create', 'm.room.encryption')
            AND c.state_key = ''";
    // And of rooms that may be new in the list, what was there before.
    DATA = "SELECT room_sn, type, pos,
            CASE WHEN type IN ('m.tag', 'm.direct', 'm.ignored_user_list') THEN content END
        FROM account_data WHERE user_id = $1 AND pos > $2
        UNION ALL SELECT room_sn, type, pos, CASE WHEN type = 'm.tag' THEN content END
        FROM account_data WHERE user_id = $1 AND room_sn = ANY($3) AND pos <= $2";
    // What somebody reads in private touches no room.
    READ = "SELECT room_sn, pos FROM receipts WHERE type = 'm.read.private' AND pos > $2 AND user_id = $1";
    READ_IN = "SELECT room_sn, pos FROM receipts
        WHERE room_sn = ANY($2) AND user_id = $1 AND type = 'm.read.private'";
}

/// Who is further behind is told of all rooms anew: of so many changes some concern most rooms.
const MOST_BEHIND: i64 = 4_000;

/// A room in somebody's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRoom {
    pub room_sn: i64,
    pub room_id: String,
    /// How many are in it.
    pub joined: i64,
    /// Position of the newest event,
    pub last_pos: i64,
    /// of the newest by which people see that something goes on,
    pub bump_pos: i64,
    /// and of the newest change of any kind.
    pub touched_pos: i64,
    pub membership: String,
    /// Where the membership became so.
    pub membership_pos: i64,
    pub forgotten: bool,
    /// Who made the membership what it is, if that is not a join.
    pub by: Option<String>,
    /// Somebody who is not in the room any more was.
    pub was_in: bool,
    /// By its create event.
    pub kind: Option<String>,
    pub is_encrypted: bool,
}

/// What changed of a list.
#[derive(Clone, Debug, Default)]
pub struct RoomListPage {
    /// Up to here.
    pub head: i64,
    /// Of all rooms, not only of those where something happened.
    pub whole: bool,
    pub rooms: Vec<ListedRoom>,
    /// Rooms with account data of the user's (0: the account itself), types, positions.
    pub data: Vec<(i64, String, i64)>,
    /// By room; `None` where they were taken away.
    pub tags: HashMap<i64, Option<String>>,
    /// The contents of `m.direct` and of the list of ignored users, if they changed.
    pub direct: Option<Option<String>>,
    pub ignored: Option<Ignored>,
    /// Where the user read something in private.
    pub read: Vec<(i64, i64)>,
    /// What the device has left, and where that last changed.
    pub keys: (KeyCounts, i64),
}

/// The aggregate of lists of rooms.
pub trait RoomLists: Send + Sync {
    /// What changed of the user's list after a position; all of it if there is none, or if that was long ago.
    fn room_list(&self, user_id: &str, device_id: &str, since: Option<i64>) -> Answer<'_, RoomListPage>;
}

impl<E: Engine> RoomLists for Sql<E> {
    fn room_list(&self, user_id: &str, device_id: &str, since: Option<i64>) -> Answer<'_, RoomListPage> {
        self.0.read(ReadRoomList { user_id: user_id.to_owned(), device_id: device_id.to_owned(), since })
    }
}

struct ReadRoomList {
    user_id: String,
    device_id: String,
    since: Option<i64>,
}

impl Query for ReadRoomList {
    const NAME: &'static str = "room_list";
    type Out = RoomListPage;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<RoomListPage> {
        let user = &self.user_id;
        let head: i64 = tx.query_one(HEAD, args![]).await?.get(0)?;
        let since = self.since.filter(|since| head - since <= MOST_BEHIND);
        let rows = match since {
            Some(since) => tx.query(TOUCHED, args![user, since]).await?,
            None => tx.query(LISTED, args![user]).await?,
        };
        let rooms = rows.into_iter().map(|mut row| listed_room(&mut row)).collect::<Result<_>>()?;
        let mut page = RoomListPage { head, whole: since.is_none(), rooms, ..RoomListPage::default() };
        let sns: Vec<i64> = page.rooms.iter().map(|room| room.room_sn).collect();
        if !sns.is_empty() {
            kinds(tx, &mut page, &sns).await?;
        }
        for mut row in tx.query(DATA, args![user, since.unwrap_or(0), sns.clone()]).await? {
            let (room_sn, kind, pos): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let content: Option<String> = row.get(3)?;
            match (room_sn, kind.as_str()) {
                (0, "m.direct") => page.direct = Some(content),
                (0, "m.ignored_user_list") => page.ignored = Some(Ignored::of(content.as_deref())),
                (0, _) => {}
                (room, "m.tag") => {
                    page.tags.insert(room, content);
                }
                _ => {}
            }
            page.data.push((room_sn, kind, pos));
        }
        let read = match since {
            Some(since) => tx.query(READ, args![user, since]).await?,
            None if sns.is_empty() => Vec::new(),
            None => tx.query(READ_IN, args![user, sns]).await?,
        };
        page.read = read.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect::<Result<_>>()?;
        page.keys = keys::one_time::counts(tx, user, &self.device_id).await?;
        Ok(page)
    }
}

fn listed_room(row: &mut Row) -> Result<ListedRoom> {
    Ok(ListedRoom {
        room_sn: row.get(0)?,
        room_id: row.get(1)?,
        joined: row.get(2)?,
        last_pos: row.get(3)?,
        bump_pos: row.get(4)?,
        touched_pos: row.get(5)?,
        membership: row.get(6)?,
        membership_pos: row.get(7)?,
        forgotten: row.get(8)?,
        by: row.get(9)?,
        was_in: row.get::<Option<i64>>(10)?.is_some(),
        kind: None,
        is_encrypted: false,
    })
}

async fn kinds<R: Reads>(tx: &mut R, page: &mut RoomListPage, rooms: &[i64]) -> Result<()> {
    #[derive(Deserialize)]
    struct Create {
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "type")]
        kind: Option<serde_json::Value>,
    }
    let (mut kinds, mut encrypted) = (HashMap::new(), Vec::new());
    for mut row in tx.query(KINDS, args![rooms.to_vec()]).await? {
        let (room_sn, kind): (i64, String) = (row.get(0)?, row.get(1)?);
        if kind == "m.room.encryption" {
            encrypted.push(room_sn);
        } else if let Some(json) = row.get::<Option<String>>(2)? {
            let create: Create = serde_json::from_str(&json).map_err(corrupt)?;
            if let Some(kind) = create.content.kind.as_ref().and_then(|kind| kind.as_str()) {
                kinds.insert(room_sn, kind.to_owned());
            }
        }
    }
    encrypted.sort_unstable();
    for room in &mut page.rooms {
        room.kind = kinds.remove(&room.room_sn);
        room.is_encrypted = encrypted.binary_search(&room.room_sn).is_ok();
    }
    Ok(())
}
