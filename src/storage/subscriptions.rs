//! Which threads somebody follows, and which no longer.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>

use std::sync::Arc;

use crate::{
    Result, Sql,
    error::corrupt,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, Wake, args, statements},
};

statements! {
    FOUND = "SELECT mode, pos FROM thread_subscriptions WHERE user_id = $1 AND room_sn = $2 AND root = $3";
    IS_IN_THREAD = "SELECT 1 FROM relations WHERE sn = $1 AND room_sn = $2 AND target = $3 AND rel_type = 'm.thread'";
    KEPT = "SELECT COUNT(*) FROM thread_subscriptions WHERE user_id = $1";
    SET = "INSERT INTO thread_subscriptions (user_id, room_sn, root, mode, pos) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (user_id, room_sn, root) DO UPDATE SET mode = excluded.mode, pos = excluded.pos";
    FORGET_OLDEST = "DELETE FROM thread_subscriptions WHERE user_id = $1 AND pos = (
        SELECT MIN(s.pos) FROM thread_subscriptions s WHERE s.user_id = $1 AND s.mode = 0)";
    // CROSS JOIN: first the changes, by their index, not all rooms there are.
    NEWEST = "SELECT r.room_id, s.root, s.mode, s.pos FROM thread_subscriptions s CROSS JOIN rooms r
        WHERE s.user_id = $1 AND s.pos > $2 AND s.pos <= $3 AND r.room_sn = s.room_sn ORDER BY s.pos DESC LIMIT $4";
    CLEAN = "DELETE FROM thread_subscriptions WHERE user_id = $1 AND pos IN
        (SELECT s.pos FROM thread_subscriptions s WHERE s.user_id = $1 ORDER BY s.pos LIMIT $2)";
}

/// Threads of which somebody may keep whether they follow them. Of more, the one goes that they stopped following longest
/// ago.
const MOST: i64 = 10_000;

/// Whether somebody follows a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    No,
    /// A client found that they should.
    ByClient,
    Yes,
}

impl Follows {
    fn mode(self) -> i64 {
        match self {
            Self::No => 0,
            Self::ByClient => 1,
            Self::Yes => 2,
        }
    }

    fn of(mode: i64) -> Result<Self> {
        match mode {
            0 => Ok(Self::No),
            1 => Ok(Self::ByClient),
            2 => Ok(Self::Yes),
            other => Err(corrupt(format!("{other} is no way to follow a thread"))),
        }
    }
}

/// A thread, as one user follows it or not.
#[derive(Clone, Debug)]
pub struct Followed {
    pub user_id: String,
    pub room_sn: i64,
    pub root: String,
}

/// The event because of which a client would have its user follow a thread.
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    pub sn: i64,
    /// Where it stands in the stream; of history that was fetched later, what it was fetched before.
    pub pos: i64,
}

/// What became of the wish to follow a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    Done,
    /// The cause is no event of the thread.
    NotInThread,
    /// The user stopped following the thread after the cause.
    Stopped,
    /// They follow too many.
    Full,
}

/// The last change of a thread that somebody follows, or followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub room_id: String,
    pub root: String,
    pub follows: Follows,
    pub pos: i64,
}

/// Some of them, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionPage {
    pub changes: Vec<Subscription>,
    /// There are more up to here.
    pub rest: Option<i64>,
}

/// The aggregate of threads that users follow.
pub trait Subscriptions: Send + Sync {
    fn follows(&self, thread: Followed) -> Answer<'_, Follows>;
    /// The user follows a thread: by themselves, or if there is a `cause`, because a client wants so.
    fn subscribe(&self, thread: Followed, cause: Option<Cause>) -> Answer<'_, Subscribed>;
    /// The user doesn't follow a thread any more.
    fn unsubscribe(&self, thread: Followed) -> Answer<'_, ()>;
    /// The newest so many changes of the user's after `low` and up to `high`.
    fn subscriptions(&self, user_id: &str, low: i64, high: i64, limit: u32) -> Answer<'_, SubscriptionPage>;
}

impl<E: Engine> Subscriptions for Sql<E> {
    fn follows(&self, thread: Followed) -> Answer<'_, Follows> {
        self.0.read(Find(thread))
    }

    fn subscribe(&self, thread: Followed, cause: Option<Cause>) -> Answer<'_, Subscribed> {
        self.0.write(Subscribe { thread, cause })
    }

    fn unsubscribe(&self, thread: Followed) -> Answer<'_, ()> {
        self.0.write(Unsubscribe(thread))
    }

    fn subscriptions(&self, user_id: &str, low: i64, high: i64, limit: u32) -> Answer<'_, SubscriptionPage> {
        self.0.read(Newest { user_id: user_id.to_owned(), low, high, limit })
    }
}

impl Followed {
    /// How the user follows it, and since when that is so; `None` if they never did.
    async fn find<R: Reads>(&self, tx: &mut R) -> Result<Option<(Follows, i64)>> {
        let found = tx.query_opt(FOUND, args![&self.user_id, self.room_sn, &self.root]).await?;
        found.map(|mut row| Ok((Follows::of(row.get(0)?)?, row.get(1)?))).transpose()
    }

    /// Whether another may be kept of the user's, if need be in the place of one.
    async fn finds_room<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let kept: i64 = tx.query_one(KEPT, args![&self.user_id]).await?.get(0)?;
        Ok(kept < MOST || tx.execute(FORGET_OLDEST, args![&self.user_id]).await? > 0)
    }

    async fn set<T: Tx>(&self, tx: &mut T, follows: Follows) -> Result<()> {
        let pos = tx.next_pos()?;
        tx.execute(SET, args![&self.user_id, self.room_sn, &self.root, follows.mode(), pos]).await?;
        tx.wake(Wake::User(Arc::from(self.user_id.as_str())));
        Ok(())
    }
}

struct Find(Followed);

impl Query for Find {
    const NAME: &'static str = "thread_subscription";
    const SINGLE: bool = true;
    type Out = Follows;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Follows> {
        Ok(self.0.find(tx).await?.map_or(Follows::No, |(follows, _)| follows))
    }
}

struct Subscribe {
    thread: Followed,
    cause: Option<Cause>,
}

impl Op for Subscribe {
    const NAME: &'static str = "subscribe_thread";
    type Out = Subscribed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Subscribed> {
        let Self { thread, cause } = self;
        if let Some(cause) = cause
            && tx.query_opt(IS_IN_THREAD, args![cause.sn, thread.room_sn, &thread.root]).await?.is_none()
        {
            return Ok(Subscribed::NotInThread);
        }
        let found = thread.find(tx).await?;
        match (found, cause) {
            (Some((Follows::Yes, _)), _) | (Some((Follows::ByClient, _)), Some(_)) => return Ok(Subscribed::Done),
            (Some((Follows::No, since)), Some(cause)) if cause.pos <= since => return Ok(Subscribed::Stopped),
            (None, _) if !thread.finds_room(tx).await? => return Ok(Subscribed::Full),
            _ => {}
        }
        let follows = if cause.is_some() { Follows::ByClient } else { Follows::Yes };
        thread.set(tx, follows).await?;
        Ok(Subscribed::Done)
    }
}

struct Unsubscribe(Followed);

impl Op for Unsubscribe {
    const NAME: &'static str = "unsubscribe_thread";
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        match self.0.find(tx).await? {
            None | Some((Follows::No, _)) => Ok(()),
            Some(_) => self.0.set(tx, Follows::No).await,
        }
    }
}

struct Newest {
    user_id: String,
    low: i64,
    high: i64,
    limit: u32,
}

impl Query for Newest {
    const NAME: &'static str = "thread_subscriptions";
    const SINGLE: bool = true;
    type Out = SubscriptionPage;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<SubscriptionPage> {
        newest(tx, &self.user_id, (self.low, self.high), self.limit).await
    }
}

/// The newest so many changes after a position, and up to another.
pub(crate) async fn newest<R: Reads>(
    tx: &mut R,
    user_id: &str,
    (low, high): (i64, i64),
    limit: u32,
) -> Result<SubscriptionPage> {
    let change = |mut row: Row| {
        let (room_id, root, mode, pos) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Subscription { room_id, root, follows: Follows::of(mode)?, pos })
    };
    let rows = tx.query(NEWEST, args![user_id, low, high, i64::from(limit) + 1]).await?;
    let mut changes = rows.into_iter().map(change).collect::<Result<Vec<_>>>()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rest = changes.get(limit).map(|next| next.pos);
    changes.truncate(limit);
    Ok(SubscriptionPage { changes, rest })
}

/// Removes some of what is kept for a user who is no more; how much.
pub(crate) async fn clean<T: Tx>(tx: &mut T, user_id: &str, limit: i64) -> Result<u64> {
    tx.execute(CLEAN, args![user_id, limit]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{Store, each_backend},
        tx::{Bulk, Change, Kind, Stmt},
    };

    const ROOM: Stmt = Stmt::new(
        "room",
        "INSERT INTO rooms (room_sn, room_id, version, rev, state_root, joined, invited, tips, last_pos, touched_pos) \
            VALUES (7, '!r:x', '12', 1, $1, 0, 0, $1, 0, 0)",
    );
    const RELATED: Stmt = Stmt::new(
        "related",
        "INSERT INTO relations (room_sn, target, topo, topo_minor, rel_type, sn, event_id, type, sender, key, replaces, ts) \
            VALUES (7, '$a', $1, 0, 'm.thread', $1, 'e', 't', '@b:x', '', 0, 0)",
    );
    const FILL: Bulk = Bulk::new(
        "fill",
        "thread_subscriptions",
        &[
            ("user_id", Kind::Text),
            ("room_sn", Kind::Int),
            ("root", Kind::Text),
            ("mode", Kind::Int),
            ("pos", Kind::Int),
        ],
        Change::Insert(""),
    );

    /// A room with an answer in the thread of `$a` for each of these positions, numbered by it.
    struct Answers(Vec<i64>);

    impl Op for Answers {
        const NAME: &'static str = "test_answers";
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.execute(ROOM, args![&b"root"[..]]).await?;
            for pos in &self.0 {
                tx.execute(RELATED, args![*pos]).await?;
            }
            Ok(())
        }
    }

    struct Fill(i64, Follows);

    impl Op for Fill {
        const NAME: &'static str = "test_fill";
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            let row = |n: i64| args!["@a:x", 7i64, format!("$fill{n}"), self.1.mode(), -1 - n].to_vec();
            let rows: Vec<_> = (0..self.0).map(row).collect();
            tx.insert_rows(FILL, &rows).await.map(drop)
        }
    }

    fn thread(root: &str) -> Followed {
        Followed { user_id: "@a:x".to_owned(), room_sn: 7, root: root.to_owned() }
    }

    fn because(pos: i64) -> Option<Cause> {
        Some(Cause { sn: pos, pos })
    }

    async fn changes(store: &Store, low: i64, limit: u32) -> (Vec<(String, Follows)>, Option<i64>) {
        let page = store.subscriptions("@a:x", low, i64::MAX, limit).await.unwrap();
        (page.changes.into_iter().map(|s| (s.root, s.follows)).collect(), page.rest)
    }

    #[test]
    fn who_stopped_following_does_not_begin_again_because_of_what_was_before() {
        each_backend(|store| async move {
            store.write(Answers(vec![1, 1_000_000])).await.unwrap();
            store.sink.take();
            let subscribe = |cause| store.subscribe(thread("$a"), cause);
            assert_eq!(store.follows(thread("$a")).await.unwrap(), Follows::No);
            store.unsubscribe(thread("$a")).await.unwrap();
            assert_eq!(subscribe(because(2)).await.unwrap(), Subscribed::NotInThread);
            assert_eq!(store.subscribe(thread("$b"), because(1)).await.unwrap(), Subscribed::NotInThread);
            assert!(store.sink.take().iter().all(|commit| commit.wakes.is_empty()), "nothing has changed");
            assert_eq!(subscribe(because(1)).await.unwrap(), Subscribed::Done);
            assert_eq!(store.sink.take()[0].wakes, [Wake::User("@a:x".into())]);
            assert_eq!(store.follows(thread("$a")).await.unwrap(), Follows::ByClient);
            assert_eq!(subscribe(None).await.unwrap(), Subscribed::Done);
            assert_eq!(subscribe(because(1)).await.unwrap(), Subscribed::Done);
            assert_eq!(store.follows(thread("$a")).await.unwrap(), Follows::Yes, "what they did themselves stays so");
            store.unsubscribe(thread("$a")).await.unwrap();
            assert_eq!(subscribe(because(1)).await.unwrap(), Subscribed::Stopped);
            assert_eq!(store.follows(thread("$a")).await.unwrap(), Follows::No);
            assert_eq!(subscribe(because(1_000_000)).await.unwrap(), Subscribed::Done);
            assert_eq!(
                store.follows(Followed { user_id: "@b:x".to_owned(), ..thread("$a") }).await.unwrap(),
                Follows::No
            );
        });
    }

    #[test]
    fn the_newest_changes_are_told_and_where_the_rest_is() {
        each_backend(|store| async move {
            store.write(Answers(Vec::new())).await.unwrap();
            for root in ["$a", "$b", "$c"] {
                store.subscribe(thread(root), None).await.unwrap();
            }
            store.unsubscribe(thread("$b")).await.unwrap();
            let told = |root: &str, follows| (root.to_owned(), follows);
            let all = vec![told("$b", Follows::No), told("$c", Follows::Yes), told("$a", Follows::Yes)];
            assert_eq!(changes(&store, 0, 3).await, (all.clone(), None));
            let (page, rest) = changes(&store, 0, 2).await;
            assert_eq!(page, all[..2]);
            let rest = store.subscriptions("@a:x", 0, rest.unwrap(), 2).await.unwrap();
            assert_eq!((rest.changes[0].root.as_str(), rest.changes.len(), rest.rest), ("$a", 1, None));
            assert_eq!(changes(&store, rest.changes[0].pos, 9).await.0, all[..2], "only what came after");
            assert!(store.subscriptions("@b:x", 0, i64::MAX, 9).await.unwrap().changes.is_empty());
        });
    }

    #[test]
    fn of_too_many_those_go_that_nobody_follows_any_more() {
        each_backend(|store| async move {
            store.write(Answers(Vec::new())).await.unwrap();
            store.write(Fill(MOST - 1, Follows::Yes)).await.unwrap();
            store.subscribe(thread("$a"), None).await.unwrap();
            assert_eq!(store.subscribe(thread("$b"), None).await.unwrap(), Subscribed::Full);
            store.unsubscribe(thread("$a")).await.unwrap();
            assert_eq!(store.subscribe(thread("$b"), None).await.unwrap(), Subscribed::Done);
            assert_eq!(store.subscribe(thread("$c"), None).await.unwrap(), Subscribed::Full, "that of $a is gone");
        });
    }
}
