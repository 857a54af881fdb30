//! Account data: what a user keeps here for themselves, for the account or for one of its rooms.

use std::sync::Arc;

use hearth_core::filter::Ignored;

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Tx, Wake, args, statements},
};

statements! {
    ROOM_SN = "SELECT room_sn FROM rooms WHERE room_id = $1";
    GET = "SELECT content FROM account_data WHERE user_id = $1 AND room_sn = $2 AND type = $3";
    SET = "INSERT INTO account_data (user_id, room_sn, type, content, pos) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (user_id, room_sn, type) DO UPDATE SET content = excluded.content, pos = excluded.pos";
    KEPT = "SELECT COALESCE((SELECT entries FROM account_data_totals WHERE user_id = $1), 0), \
        COALESCE((SELECT bytes FROM account_data_totals WHERE user_id = $1), 0), \
        (SELECT COUNT(*) FROM account_data WHERE user_id = $1 AND room_sn = $2 AND type = $3), \
        CAST(COALESCE((SELECT OCTET_LENGTH(content) FROM account_data \
            WHERE user_id = $1 AND room_sn = $2 AND type = $3), 0) AS BIGINT)";
    SET_TOTAL = "INSERT INTO account_data_totals (user_id, entries, bytes) VALUES ($1, $2, $3) \
        ON CONFLICT (user_id) DO UPDATE SET entries = excluded.entries, bytes = excluded.bytes";
    OF_TYPES = "SELECT COUNT(*), CAST(COALESCE(SUM(OCTET_LENGTH(content)), 0) AS BIGINT) FROM account_data
        WHERE user_id = $1 AND room_sn = 0 AND type = ANY($2) AND content IS NOT NULL";
    CLEAR_TYPES = "UPDATE account_data SET content = NULL, pos = $3
        WHERE user_id = $1 AND room_sn = 0 AND type = ANY($2) AND content IS NOT NULL";
    KEEP_LESS = "UPDATE account_data_totals SET bytes = bytes - $2 WHERE user_id = $1";
    FORGET_TOTAL = "DELETE FROM account_data_totals WHERE user_id = $1";
}

/// Where a piece of account data belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The account itself.
    Global,
    /// A room, by its id.
    Room(String),
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
    /// Only if all that the user keeps here stays within this. What is set without is not counted, now or later: a piece
    /// is always set with a quota, or never.
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
}

impl<E: Engine> AccountData for Sql<E> {
    fn account_data(&self, user_id: &str, scope: &Scope, kind: &str) -> Answer<'_, Option<String>> {
        self.0.read(Get { user_id: user_id.to_owned(), scope: scope.clone(), kind: kind.to_owned() })
    }

    fn set_account_data(&self, change: AccountDataChange) -> Answer<'_, AccountDataSet> {
        self.0.write(Set(change))
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

/// How much the user keeps here with this change: pieces, and bytes of their contents.
async fn total_with<R: Reads>(tx: &mut R, change: &AccountDataChange, room_sn: i64) -> Result<(i64, i64)> {
    let mut kept = tx.query_one(KEPT, args![&change.user_id, room_sn, &change.kind]).await?;
    let (entries, bytes): (i64, i64) = (kept.get(0)?, kept.get(1)?);
    let (there, old): (i64, i64) = (kept.get(2)?, kept.get(3)?);
    let new = i64::try_from(change.content.as_ref().map_or(0, String::len)).unwrap_or(i64::MAX);
    Ok((entries + 1 - there, (bytes - old).saturating_add(new)))
}

/// What somebody keeps of how one of their devices is to make itself heard, by its id.
///
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3890>
const OF_DEVICE: [&str; 2] = ["m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."];

/// Deletes what the user keeps of devices that are no more; `pos` is where this happens.
pub(crate) async fn forget_devices<T: Tx>(tx: &mut T, user_id: &str, devices: &[String], pos: i64) -> Result<()> {
    let kinds = devices.iter().flat_map(|device| OF_DEVICE.map(|kind| format!("{kind}{device}")));
    let kinds: Vec<String> = kinds.collect();
    let mut there = tx.query_one(OF_TYPES, args![user_id, kinds.clone()]).await?;
    let (count, bytes): (i64, i64) = (there.get(0)?, there.get(1)?);
    if count > 0 {
        tx.execute(CLEAR_TYPES, args![user_id, kinds, pos]).await?;
        tx.execute(KEEP_LESS, args![user_id, bytes]).await?;
    }
    Ok(())
}

/// The user keeps nothing here any more.
pub(crate) async fn forget_total<T: Tx>(tx: &mut T, user_id: &str) -> Result<()> {
    tx.execute(FORGET_TOTAL, args![user_id]).await.map(drop)
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
        set(tx, &self.0).await
    }
}

pub(crate) async fn set<T: Tx>(tx: &mut T, change: &AccountDataChange) -> Result<AccountDataSet> {
    let AccountDataChange { user_id, scope, kind, content, expects, quota } = change;
    let Some(room_sn) = number(tx, scope).await? else { return Ok(AccountDataSet::NoRoom) };
    if let Some(expected) = expects
        && get(tx, user_id, room_sn, kind).await? != *expected
    {
        return Ok(AccountDataSet::Stale);
    }
    let total = match quota {
        Some(_) => Some(total_with(tx, change, room_sn).await?),
        None => None,
    };
    if let (Some(quota), Some((entries, bytes)), Some(_)) = (quota, total, content)
        && (entries > i64::from(quota.entries) || bytes > i64::from(quota.bytes))
    {
        return Ok(AccountDataSet::Full);
    }
    let pos = tx.next_pos()?;
    tx.execute(SET, args![user_id, room_sn, kind, content.clone(), pos]).await?;
    if let Some((entries, bytes)) = total {
        tx.execute(SET_TOTAL, args![user_id, entries, bytes]).await?;
    }
    tx.wake(Wake::User(Arc::from(user_id.as_str())));
    Ok(AccountDataSet::Done(pos))
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
    fn it_is_kept_by_scope_and_takes_positions() {
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
            let three = set(&store, change(Scope::Global, "k", None)).await;
            assert!(one < two && two < three);
            assert_eq!(store.account_data("@a:x", &Scope::Global, "k").await.unwrap(), None);
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
            assert!(done(set("server's", "123456", None).await.unwrap()), "the server keeps what it must");
            // What grows smaller leaves room for others, and so does what is deleted; that it was there is remembered.
            assert!(done(set("k1", "1", quota).await.unwrap()));
            assert!(done(set("k2", "12345", quota).await.unwrap()));
            assert_eq!(set("k1", "12", quota).await.unwrap(), AccountDataSet::Full);
            let gone = AccountDataChange { quota, ..change(Scope::Global, "k2", None) };
            assert!(done(store.set_account_data(gone).await.unwrap()));
            assert!(done(set("k1", "123456", quota).await.unwrap()));
            assert_eq!(set("k3", "", quota).await.unwrap(), AccountDataSet::Full);
            let of_another =
                AccountDataChange { user_id: "@b:x".to_owned(), quota, ..change(Scope::Global, "k1", Some("123456")) };
            assert!(done(store.set_account_data(of_another).await.unwrap()), "everybody has their own");
        });
    }
}
