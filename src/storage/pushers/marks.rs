//! Which pushers have something to look at: found by who follows the stream, not by who writes it.

use super::PUSHERS_BEHIND;
use crate::{
    error::Result,
    tx::{Op, Query, Reads, Row, Tx, Wake, args, statements},
};

statements! {
    WHERE = "SELECT h.pos, m.pos FROM stream_head h CROSS JOIN push_marks m WHERE h.id = 1 AND m.id = 1";
    ROOMS = "SELECT room_sn FROM rooms WHERE touched_pos > $1 AND last_pos > $1 LIMIT $2";
    // From the rooms where something happened, each by its own index; a private receipt touches none.
    READ = "SELECT q.user_id FROM rooms r CROSS JOIN receipts q
            WHERE r.touched_pos > $1 AND q.room_sn = r.room_sn AND q.pos > $1
                AND EXISTS (SELECT 1 FROM pushers p WHERE p.user_id = q.user_id)
        UNION ALL
        SELECT q.user_id FROM receipts q WHERE q.type = 'm.read.private' AND q.pos > $1
            AND EXISTS (SELECT 1 FROM pushers p WHERE p.user_id = q.user_id)
        LIMIT $2";
    IGNORE = "SELECT a.user_id FROM account_data a
        WHERE a.pos > $1 AND a.type = 'm.ignored_user_list' AND a.room_sn = 0
            AND EXISTS (SELECT 1 FROM pushers p WHERE p.user_id = a.user_id) LIMIT $2";
    MOVED = "SELECT c.user_id, c.room_sn FROM membership_changes c WHERE c.pos > $1
        AND EXISTS (SELECT 1 FROM pushers p WHERE p.user_id = c.user_id) LIMIT $2";
    NEW = "SELECT p.user_id, m.room_sn FROM pushers p
        LEFT JOIN memberships m ON m.user_id = p.user_id AND m.membership IN ('join', 'invite') WHERE p.set_pos > $1";
    RAISE = "UPDATE push_marks SET pos = $1 WHERE id = 1 AND pos < $1";
    MARK = "UPDATE pushers SET wanted_pos = $1 WHERE user_id = ANY($2) AND wanted_pos < $1";
    MARK_ALL = "UPDATE pushers SET wanted_pos = $1 WHERE wanted_pos < $1";
}

/// What came after a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushNews {
    /// It is told of all up to here.
    pub up_to: i64,
    /// Up to here somebody has marked.
    pub marked: i64,
    /// Rooms with something new in their timeline.
    pub rooms: Vec<i64>,
    /// Users with a pusher who have read something, came to a room or left it, or changed whom they ignore.
    pub users: Vec<String>,
    /// Users with a pusher that was set, and the rooms that they are in, or invited to; and those whose rooms changed,
    /// with the rooms that did.
    pub watched: Vec<(String, Option<i64>)>,
    /// There was more than the limit: any pusher may be concerned.
    pub too_many: bool,
}

pub(super) struct ReadPushNews {
    pub(super) since: i64,
    pub(super) watched: i64,
    pub(super) limit: i64,
}

impl Query for ReadPushNews {
    const NAME: &'static str = "push_news";
    type Out = PushNews;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<PushNews> {
        let mut here = tx.query_one(WHERE, &[]).await?;
        let (head, marked): (i64, i64) = (here.get(0)?, here.get(1)?);
        let mut news = PushNews { up_to: head, marked, ..PushNews::default() };
        let new = tx.query(NEW, args![self.watched]).await?;
        news.watched = new.into_iter().map(|mut row: Row| Ok((row.get(0)?, row.get(1)?))).collect::<Result<_>>()?;
        let full = |n: usize| i64::try_from(n).unwrap_or(i64::MAX) >= self.limit;
        if self.watched >= 0 {
            let moved = tx.query(MOVED, args![self.watched, self.limit]).await?;
            news.too_many |= full(moved.len());
            for mut row in moved {
                let (user, room): (String, i64) = (row.get(0)?, row.get(1)?);
                news.users.push(user.clone());
                news.watched.push((user, Some(room)));
            }
        }
        // What another process has marked need not be marked again.
        let since = self.since.max(marked);
        if since >= head {
            return Ok(news);
        }
        let rooms = tx.query(ROOMS, args![since, self.limit]).await?;
        news.too_many |= full(rooms.len());
        news.rooms = rooms.into_iter().map(|mut row| row.get(0)).collect::<Result<_>>()?;
        for stmt in [READ, IGNORE] {
            let users = tx.query(stmt, args![since, self.limit]).await?;
            news.too_many |= full(users.len());
            for mut row in users {
                news.users.push(row.get(0)?);
            }
        }
        Ok(news)
    }
}

/// Who has something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    pub up_to: i64,
    /// None: everybody.
    pub users: Option<Vec<String>>,
}

impl Op for Marks {
    const NAME: &'static str = "mark_pushers";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        // First, so that of two processes one waits here for the other. If that has come further, it has marked these.
        if tx.execute(RAISE, args![self.up_to]).await? == 0 {
            return Ok(());
        }
        let marked = match &self.users {
            Some(users) => tx.execute(MARK, args![self.up_to, users.clone()]).await?,
            None => tx.execute(MARK_ALL, args![self.up_to]).await?,
        };
        if marked > 0 {
            tx.wake(Wake::Queue(PUSHERS_BEHIND));
        }
        Ok(())
    }
}
