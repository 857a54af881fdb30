//! Pushers: where users want to be told of what happens while they don't sync.
//!
//! Each has a position of its own in the stream, up to which all was looked at for it. Who follows the stream marks those
//! that have something to look at (`marks`); who holds the lease of one looks, tells and moves its position on
//! (`delivery`). All of that is in the database: a kill loses nothing, and any process may go on.

pub(crate) mod delivery;
pub(crate) mod look;
pub(crate) mod marks;

use self::{
    delivery::{DuePushers, LeasePushers, RejectPusher, StepPusher},
    look::{ReadBadge, ReadNewsOf, ReadPastOf},
    marks::ReadPushNews,
};
pub use self::{
    delivery::{Held, Step},
    look::{Badge, NewsOf, PastOf, Tellable},
    marks::{Marks, PushNews},
};
use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, Wake, args, statements},
};

/// Those who hand out work to pushers look again when this is woken.
pub const PUSHERS_SET: &str = "pushers_set";
/// And those who do the work, when this is.
pub const PUSHERS_BEHIND: &str = "pushers_behind";

statements! {
    DEVICE = "SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2";
    OF_USER = "SELECT app_id, pushkey, body FROM pushers WHERE user_id = $1 ORDER BY set_pos";
    FIND = "SELECT pusher_id, (SELECT COUNT(*) FROM pushers o WHERE o.user_id = $3) FROM stream_head h
        LEFT JOIN pushers p ON p.app_id = $1 AND p.pushkey = $2 AND p.user_id = $3 WHERE h.id = 1";
    OF_OTHERS = "DELETE FROM pushers WHERE app_id = $1 AND pushkey = $2 AND user_id <> $3";
    INSERT = "INSERT INTO pushers (pusher_id, user_id, device_id, app_id, pushkey, body, set_ms, set_pos, wanted_pos,
        done_pos, badge, failures, due_ms, lease_until_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9, 0, 0, 0)";
    // Whoever says anew where to reach them is tried there at once, and whoever holds the pusher loses it.
    REPLACE = "UPDATE pushers SET device_id = $2, body = $3, set_ms = $4, set_pos = $5, failures = 0, due_ms = 0,
        lease_until_ms = 0 WHERE pusher_id = $1";
    REMOVE = "DELETE FROM pushers WHERE app_id = $1 AND pushkey = $2 AND user_id = $3";
    FORGET = "DELETE FROM pushers WHERE user_id = $1 AND device_id = ANY($2)";
}

/// A pusher as its owner set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PusherRow {
    pub app_id: String,
    pub pushkey: String,
    pub body: String,
}

/// A pusher that is to be set.
#[derive(Clone, Debug)]
pub struct NewPusher {
    /// Taken unless the user has this pusher already.
    pub pusher_id: String,
    pub user_id: String,
    pub device_id: String,
    pub pusher: PusherRow,
    pub set_ms: i64,
    /// Other users keep theirs of this app and key.
    pub append: bool,
    /// How many one user may have.
    pub most: i64,
    /// What the app may show already, if the user has not set this pusher before.
    pub badge: i64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PusherSet {
    Done,
    TooMany,
    /// The session has ended.
    NoDevice,
}

/// The aggregate of pushers.
pub trait Pushers: Send + Sync {
    /// What the user has set, the oldest first.
    fn pushers(&self, user_id: &str) -> Answer<'_, Vec<PusherRow>>;
    /// Sets a pusher, or says something else of one that is set. It is told of what comes from now on.
    fn set_pusher(&self, new: NewPusher) -> Answer<'_, PusherSet>;
    /// False: the user has no such pusher.
    fn remove_pusher(&self, user_id: &str, app_id: &str, pushkey: &str) -> Answer<'_, bool>;
    /// What pushers may want to look at that came after `since`. `watched`: the position up to which the caller knows
    /// whom to watch; before the first look, -1. At most `limit` of a kind.
    fn push_news(&self, since: i64, watched: i64, limit: i64) -> Answer<'_, PushNews>;
    /// Marks pushers as behind.
    fn mark_pushers(&self, marks: Marks) -> Answer<'_, ()>;
    /// Whether there is anything for [`Self::lease_pushers`].
    fn any_pusher_due(&self, now_ms: i64) -> Answer<'_, bool>;
    /// Takes up to `limit` pushers that are behind, due and free, and holds them until `until_ms`.
    fn lease_pushers(&self, owner: &str, now_ms: i64, until_ms: i64, limit: i64) -> Answer<'_, Vec<Held>>;
    /// What is new to the user after a position, some of it at a time.
    fn news_of(&self, user_id: &str, since: i64) -> Answer<'_, NewsOf>;
    /// What the user may have been told of before a position, some of it at a time.
    fn past_of(&self, user_id: &str, before: i64) -> Answer<'_, PastOf>;
    /// How much the user has not read.
    fn badge(&self, user_id: &str) -> Answer<'_, Badge>;
    /// Moves a pusher on. False: `owner` holds it no longer, or it is gone.
    fn step_pusher(&self, pusher_id: &str, owner: &str, step: Step) -> Answer<'_, bool>;
    /// Removes a pusher whose key its gateway knows nothing of, unless its owner has set it again since.
    fn reject_pusher(&self, pusher_id: &str, set_ms: i64) -> Answer<'_, ()>;
}

impl<E: Engine> Pushers for Sql<E> {
    fn pushers(&self, user_id: &str) -> Answer<'_, Vec<PusherRow>> {
        self.0.read(OfUser(user_id.to_owned()))
    }

    fn set_pusher(&self, new: NewPusher) -> Answer<'_, PusherSet> {
        self.0.write(SetPusher(new))
    }

    fn remove_pusher(&self, user_id: &str, app_id: &str, pushkey: &str) -> Answer<'_, bool> {
        self.0.write(RemovePusher([app_id, pushkey, user_id].map(str::to_owned)))
    }

    fn push_news(&self, since: i64, watched: i64, limit: i64) -> Answer<'_, PushNews> {
        self.0.read(ReadPushNews { since, watched, limit })
    }

    fn mark_pushers(&self, marks: Marks) -> Answer<'_, ()> {
        self.0.write(marks)
    }

    fn any_pusher_due(&self, now_ms: i64) -> Answer<'_, bool> {
        self.0.read(DuePushers { now_ms })
    }

    fn lease_pushers(&self, owner: &str, now_ms: i64, until_ms: i64, limit: i64) -> Answer<'_, Vec<Held>> {
        self.0.write(LeasePushers { owner: owner.to_owned(), now_ms, until_ms, limit })
    }

    fn news_of(&self, user_id: &str, since: i64) -> Answer<'_, NewsOf> {
        self.0.read(ReadNewsOf { user_id: user_id.to_owned(), since })
    }

    fn past_of(&self, user_id: &str, before: i64) -> Answer<'_, PastOf> {
        self.0.read(ReadPastOf { user_id: user_id.to_owned(), before })
    }

    fn badge(&self, user_id: &str) -> Answer<'_, Badge> {
        self.0.read(ReadBadge(user_id.to_owned()))
    }

    fn step_pusher(&self, pusher_id: &str, owner: &str, step: Step) -> Answer<'_, bool> {
        self.0.write(StepPusher { pusher_id: pusher_id.to_owned(), owner: owner.to_owned(), step })
    }

    fn reject_pusher(&self, pusher_id: &str, set_ms: i64) -> Answer<'_, ()> {
        self.0.write(RejectPusher { pusher_id: pusher_id.to_owned(), set_ms })
    }
}

struct OfUser(String);

impl Query for OfUser {
    const NAME: &'static str = "pushers";
    const SINGLE: bool = true;
    type Out = Vec<PusherRow>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<PusherRow>> {
        let pusher = |mut row: Row| Ok(PusherRow { app_id: row.get(0)?, pushkey: row.get(1)?, body: row.get(2)? });
        tx.query(OF_USER, args![&self.0]).await?.into_iter().map(pusher).collect()
    }
}

/// Takes a position: what comes after it is told to the pusher, and by it other processes learn whom to watch.
struct SetPusher(NewPusher);

impl Op for SetPusher {
    const NAME: &'static str = "set_pusher";
    type Out = PusherSet;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<PusherSet> {
        let NewPusher { pusher_id, user_id, device_id, pusher, set_ms, append, most, badge } = &self.0;
        let PusherRow { app_id, pushkey, body } = pusher;
        if tx.query_opt(DEVICE, args![user_id, device_id]).await?.is_none() {
            return Ok(PusherSet::NoDevice);
        }
        let mut found = tx.query_one(FIND, args![app_id, pushkey, user_id]).await?;
        let (there, how_many): (Option<String>, i64) = (found.get(0)?, found.get(1)?);
        if there.is_none() && how_many >= *most {
            return Ok(PusherSet::TooMany);
        }
        if !append {
            tx.execute(OF_OTHERS, args![app_id, pushkey, user_id]).await?;
        }
        let pos = tx.next_pos()?;
        match there {
            Some(there) => tx.execute(REPLACE, args![there, device_id, body, *set_ms, pos]).await?,
            None => {
                let new = args![pusher_id, user_id, device_id, app_id, pushkey, body, *set_ms, pos, *badge];
                tx.execute(INSERT, new).await?
            }
        };
        tx.wake(Wake::Queue(PUSHERS_SET));
        Ok(PusherSet::Done)
    }
}

struct RemovePusher([String; 3]);

impl Op for RemovePusher {
    const NAME: &'static str = "remove_pusher";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let [app_id, pushkey, user_id] = &self.0;
        Ok(tx.execute(REMOVE, args![app_id, pushkey, user_id]).await? > 0)
    }
}

/// The pushers that these devices set.
pub(crate) async fn forget_devices<T: Tx>(tx: &mut T, user_id: &str, devices: &[String]) -> Result<()> {
    tx.execute(FORGET, args![user_id, devices.to_vec()]).await.map(drop)
}

#[cfg(test)]
mod tests;
