//! Account data: what a user keeps here for themselves, for the account or for one of its rooms.

use std::sync::Arc;

use hearth_core::filter::Ignored;

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, Wake, args, statements},
};

statements! {
    ROOM_SN = "SELECT room_sn FROM rooms WHERE room_id = $1";
    GET = "SELECT content FROM account_data WHERE user_id = $1 AND room_sn = $2 AND type = $3";
    SET = "INSERT INTO account_data (user_id, room_sn, type, content, pos) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (user_id, room_sn, type) DO UPDATE SET content = excluded.content, pos = excluded.pos";
    OTHERS = "SELECT COUNT(*), CAST(COALESCE(SUM(OCTET_LENGTH(content)), 0) AS BIGINT) FROM account_data \
        WHERE user_id = $1 AND (room_sn <> $2 OR type <> $3)";
    CHANGES = "SELECT room_sn, type, content, pos FROM account_data \
        WHERE user_id = $1 AND pos > $2 AND pos <= $3 ORDER BY pos";
    OF_TYPE = "SELECT user_id, content FROM account_data WHERE user_id = ANY($1) AND room_sn = 0 AND type = $2";
}

/// Where a piece of account data belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The account itself.
    Global,
    /// A room, by its id.
    Room(String),
}

/// A piece of account data, as a sync sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDatum {
    /// The room's number; 0 is the account itself.
    pub room_sn: i64,
    pub kind: String,
    /// JSON; None: it was deleted.
    pub content: Option<String>,
    pub pos: i64,
}

/// What somebody's account data is to become.
#[derive(Clone, Debug)]
pub struct AccountDataChange {
    pub user_id: String,
    pub scope: Scope,
    pub kind: String,
    /// JSON; None deletes it.
    pub content: Option<String>,
    /// Only if it is this now (outer None: whatever it is): for changes that were worked out from what was there.
    pub expects: Option<Option<String>>,
    /// Only if all that the user keeps here stays within this.
    pub quota: Option<Quota>,
}

/// How much one user may keep here.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    pub entries: u32,
    /// Of all contents together.
    pub bytes: u32,
}

/// What became of a change to account data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountDataSet {
    /// At this position.
    Done(i64),
    /// We know no such room.
    NoRoom,
    /// It is not what the change was worked out from.
    Stale,
    /// The user would keep too much here.
    Full,
}

/// What users keep here for themselves.
pub trait AccountData: Send + Sync {
    /// None: never set, or deleted, or no such room.
    fn account_data(&self, user_id: &str, scope: &Scope, kind: &str) -> Answer<'_, Option<String>>;
    fn set_account_data(&self, change: AccountDataChange) -> Answer<'_, AccountDataSet>;
    /// All that changed after one position and up to another, oldest first; from 0 on, all there is.
    fn account_data_changes(&self, user_id: &str, after: i64, up_to: i64) -> Answer<'_, Vec<AccountDatum>>;
    /// The same kind of global account data of many users at once, as (user, content).
    fn account_data_of(&self, user_ids: Vec<String>, kind: &str) -> Answer<'_, Vec<(String, String)>>;
}

impl<E: Engine> AccountData for Sql<E> {
    fn account_data(&self, user_id: &str, scope: &Scope, kind: &str) -> Answer<'_, Option<String>> {
        self.0.read(Get { user_id: user_id.to_owned(), scope: scope.clone(), kind: kind.to_owned() })
    }

    fn set_account_data(&self, change: AccountDataChange) -> Answer<'_, AccountDataSet> {
        self.0.write(Set(change))
    }

    fn account_data_changes(&self, user_id: &str, after: i64, up_to: i64) -> Answer<'_, Vec<AccountDatum>> {
        self.0.read(Changes { user_id: user_id.to_owned(), after, up_to })
    }

    fn account_data_of(&self, user_ids: Vec<String>, kind: &str) -> Answer<'_, Vec<(String, String)>> {
        self.0.read(OfType { user_ids, kind: kind.to_owned() })
    }
}

/// The number of the scope; None for a room that we don't know.
async fn number<R: Reads>(tx: &mut R, scope: &Scope) -> Result<Option<i64>> {
    match scope {
        Scope::Global => Ok(Some(0)),
        Scope::Room(room) => tx.query_opt(ROOM_SN, args![room]).await?.as_mut().map(|row| row.get(0)).transpose(),
    }
}

async fn get<R: Reads>(tx: &mut R, user_id: &str, room_sn: i64, kind: &str) -> Result<Option<String>> {
    match tx.query_opt(GET, args![user_id, room_sn, kind]).await? {
        Some(mut row) => row.get(0),
        None => Ok(None),
    }
}

/// Whom the user ignores.
pub(crate) async fn ignored_by<R: Reads>(tx: &mut R, user_id: &str) -> Result<Arc<Ignored>> {
    Ok(Arc::new(Ignored::of(get(tx, user_id, 0, "m.ignored_user_list").await?.as_deref())))
}

struct Get {
    user_id: String,
    scope: Scope,
    kind: String,
}

impl Query for Get {
    const NAME: &'static str = "account_data";
    type Out = Option<String>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<String>> {
        match number(tx, &self.scope).await? {
            Some(room_sn) => get(tx, &self.user_id, room_sn, &self.kind).await,
            None => Ok(None),
        }
    }
}

struct Set(AccountDataChange);

impl Op for Set {
    const NAME: &'static str = "set_account_data";
    type Out = AccountDataSet;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<AccountDataSet> {
        let AccountDataChange { user_id, scope, kind, content, expects, quota } = &self.0;
        let Some(room_sn) = number(tx, scope).await? else { return Ok(AccountDataSet::NoRoom) };
        if let Some(expected) = expects
            && get(tx, user_id, room_sn, kind).await? != *expected
        {
            return Ok(AccountDataSet::Stale);
        }
        if let (Some(quota), Some(content)) = (quota, content) {
            let mut others = tx.query_one(OTHERS, args![user_id, room_sn, kind]).await?;
            let (entries, bytes) = (others.get::<i64>(0)?, others.get::<i64>(1)?);
            let bytes = bytes.saturating_add(i64::try_from(content.len()).unwrap_or(i64::MAX));
            if entries >= i64::from(quota.entries) || bytes > i64::from(quota.bytes) {
                return Ok(AccountDataSet::Full);
            }
        }
        let pos = tx.next_pos()?;
        tx.execute(SET, args![user_id, room_sn, kind, content.clone(), pos]).await?;
        tx.wake(Wake::User(Arc::from(user_id.as_str())));
        Ok(AccountDataSet::Done(pos))
    }
}

struct Changes {
    user_id: String,
    after: i64,
    up_to: i64,
}

impl Query for Changes {
    const NAME: &'static str = "account_data_changes";
    type Out = Vec<AccountDatum>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<AccountDatum>> {
        let datum = |row: &mut Row| {
            Ok(AccountDatum { room_sn: row.get(0)?, kind: row.get(1)?, content: row.get(2)?, pos: row.get(3)? })
        };
        tx.query(CHANGES, args![&self.user_id, self.after, self.up_to]).await?.iter_mut().map(datum).collect()
    }
}

struct OfType {
    user_ids: Vec<String>,
    kind: String,
}

impl Query for OfType {
    const NAME: &'static str = "account_data_of";
    type Out = Vec<(String, String)>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let mut found = Vec::new();
        for mut row in tx.query(OF_TYPE, args![self.user_ids.clone(), &self.kind]).await? {
            if let Some(content) = row.get::<Option<String>>(1)? {
                found.push((row.get(0)?, content));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{Store, each_backend},
        tx::Stmt,
    };

    const ROOM: Stmt = Stmt::new(
        "room",
        "INSERT INTO rooms (room_sn, room_id, version, rev, state_root, joined, invited, tips, last_pos, touched_pos) \
            VALUES (7, '!r:x', '12', 1, $1, 0, 0, $1, 0, 0)",
    );

    struct MakeRoom;

    impl Op for MakeRoom {
        const NAME: &'static str = "test_room";
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.execute(ROOM, args![&b"root"[..]]).await.map(drop)
        }
    }

    fn change(scope: Scope, kind: &str, content: Option<&str>) -> AccountDataChange {
        AccountDataChange {
            user_id: "@a:x".to_owned(),
            scope,
            kind: kind.to_owned(),
            content: content.map(ToOwned::to_owned),
            expects: None,
            quota: None,
        }
    }

    async fn set(store: &Store, change: AccountDataChange) -> i64 {
        match store.set_account_data(change).await.unwrap() {
            AccountDataSet::Done(pos) => pos,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_kept_by_scope_and_told_by_position() {
        each_backend(|store| async move {
            store.write(MakeRoom).await.unwrap();
            let room = || Scope::Room("!r:x".to_owned());
            store.sink.take();
            let one = set(&store, change(Scope::Global, "k", Some("{\"a\":1}"))).await;
            assert_eq!(store.sink.take()[0].wakes, [Wake::User("@a:x".into())]);
            let two = set(&store, change(room(), "k", Some("{}"))).await;
            let nowhere = change(Scope::Room("!s:x".to_owned()), "k", Some("{}"));
            assert_eq!(store.set_account_data(nowhere).await.unwrap(), AccountDataSet::NoRoom);
            assert_eq!(store.account_data("@a:x", &Scope::Global, "k").await.unwrap().as_deref(), Some("{\"a\":1}"));
            assert_eq!(store.account_data("@a:x", &room(), "k").await.unwrap().as_deref(), Some("{}"));
            assert_eq!(store.account_data("@b:x", &Scope::Global, "k").await.unwrap(), None);
            let of = store.account_data_of(vec!["@a:x".to_owned(), "@b:x".to_owned()], "k").await.unwrap();
            assert_eq!(of, [("@a:x".to_owned(), "{\"a\":1}".to_owned())]);
            let three = set(&store, change(Scope::Global, "k", None)).await;
            assert!(one < two && two < three);
            assert_eq!(store.account_data("@a:x", &Scope::Global, "k").await.unwrap(), None);
            let all = store.account_data_changes("@a:x", 0, three).await.unwrap();
            let seen: Vec<_> = all.iter().map(|d| (d.room_sn, d.content.as_deref(), d.pos)).collect();
            assert_eq!(seen, [(7, Some("{}"), two), (0, None, three)]);
            assert_eq!(store.account_data_changes("@a:x", two, three).await.unwrap().len(), 1);
            assert_eq!(store.account_data_changes("@a:x", 0, two).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn a_change_that_was_worked_out_from_something_else_is_stale() {
        each_backend(|store| async move {
            let expecting = |content: &str, expects: Option<&str>| AccountDataChange {
                expects: Some(expects.map(ToOwned::to_owned)),
                ..change(Scope::Global, "k", Some(content))
            };
            set(&store, expecting("1", None)).await;
            assert_eq!(store.set_account_data(expecting("2", None)).await.unwrap(), AccountDataSet::Stale);
            set(&store, expecting("2", Some("1"))).await;
            assert_eq!(store.set_account_data(expecting("3", Some("1"))).await.unwrap(), AccountDataSet::Stale);
            assert_eq!(store.account_data("@a:x", &Scope::Global, "k").await.unwrap().as_deref(), Some("2"));
        });
    }

    #[test]
    fn nobody_keeps_more_here_than_they_may() {
        each_backend(|store| async move {
            let quota = Some(Quota { entries: 2, bytes: 6 });
            let set = |kind: &str, content: &str, quota| {
                store.set_account_data(AccountDataChange { quota, ..change(Scope::Global, kind, Some(content)) })
            };
            let done = |outcome: AccountDataSet| matches!(outcome, AccountDataSet::Done(_));
            assert!(done(set("k1", "\"\u{e9}\"", quota).await.unwrap()));
            assert!(done(set("k2", "12", quota).await.unwrap()), "four bytes and two");
            assert_eq!(set("k3", "", quota).await.unwrap(), AccountDataSet::Full);
            assert_eq!(set("k2", "123", quota).await.unwrap(), AccountDataSet::Full);
            assert!(done(set("k2", "34", quota).await.unwrap()), "what is replaced doesn't count");
            assert!(done(set("k3", "123456", None).await.unwrap()), "the server keeps what it must");
        });
    }
}
