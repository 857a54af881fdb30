//! Push rules that somebody changed: who did, and of which class that makes them from when on. The rules themselves are
//! account data.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::push::{Classes, DEFAULT_CLASS};

use crate::{
    Result, Sql,
    account_data::{self, AccountDataChange, AccountDataSet},
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

/// So often the rules for a room may change before the first of its classes is forgotten, and what is unread since then
/// counts as by untouched rules. Whoever reads now and then never comes to know.
const MOST_CLASSES: usize = 100;

/// `$2` is the room's number, `a` the user's rules, `r` the room.
macro_rules! class_now {
    () => {
        "COALESCE(
            (SELECT k.class FROM push_classes k WHERE k.user_id = a.user_id AND k.room_id = r.room_id
                ORDER BY k.since DESC LIMIT 1),
            (SELECT k.class FROM push_classes k WHERE k.user_id = a.user_id AND k.room_id = ''
                ORDER BY k.since DESC LIMIT 1),
            '')"
    };
}

statements! {
    LAST_CHANGE = "SELECT MAX(pos) FROM account_data WHERE room_sn = 0 AND type = 'm.push_rules'";
    CHANGED_AFTER = "SELECT user_id, pos FROM account_data WHERE room_sn = 0 AND type = 'm.push_rules' AND pos > $1
        ORDER BY pos LIMIT $2";
    ROOT = "SELECT state_root FROM rooms WHERE room_sn = $1";
    // CROSS JOIN: a room has fewer members than the server has users, or about as many.
    OF_MEMBERS = concat!("SELECT m.user_id, 1, ", class_now!(), ", a.content
        FROM memberships m CROSS JOIN account_data a CROSS JOIN rooms r
        WHERE m.room_sn = $1 AND m.membership = 'join' AND m.user_id > $2 AND a.user_id = m.user_id AND a.room_sn = 0
            AND a.type = 'm.push_rules' AND a.content IS NOT NULL AND r.room_sn = $1
        ORDER BY m.user_id LIMIT $3");
    OF_USERS = concat!("SELECT a.user_id,
            (SELECT COUNT(*) FROM memberships m WHERE m.user_id = a.user_id AND m.room_sn = $1 AND m.membership = 'join'), ",
            class_now!(), ", a.content
        FROM account_data a CROSS JOIN rooms r
        WHERE a.user_id = ANY($2) AND a.room_sn = 0 AND a.type = 'm.push_rules' AND a.content IS NOT NULL
            AND r.room_sn = $1");
    CLASSES_OF = "SELECT room_id, since, class FROM push_classes WHERE user_id = $1 ORDER BY room_id, since";
    FORGET_CLASS = "DELETE FROM push_classes WHERE user_id = $1 AND room_id = $2 AND since = $3";
    FORGET_CLASSES = "DELETE FROM push_classes WHERE user_id = $1";

    bulk NEW_CLASSES = "push_classes" ("user_id": Text, "room_id": Text, "since": Int, "class": Text) "";
}

/// Whose rules changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChanges {
    /// Where the last change was.
    pub last: i64,
    /// Who, and where they did so last, in that order.
    pub users: Vec<(String, i64)>,
    /// These are not all.
    pub too_many: bool,
}

/// The rules of somebody who changed them, as a room has to know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedRules {
    pub user_id: String,
    /// Whether they are in the room.
    pub joined: bool,
    /// Their class there.
    pub class: String,
    /// The rules, as account data.
    pub content: String,
}

/// Those of some of the members of a room, by their ids.
#[derive(Clone, Debug)]
pub struct RoomRules {
    /// The state of the room, by its root, in which they are members.
    pub root: Vec<u8>,
    /// These are the rules up to here.
    pub as_of: i64,
    pub members: Vec<ChangedRules>,
}

/// The aggregate of push rules.
pub trait PushRules: Send + Sync {
    /// Sets the rules of a user, which make them of these classes.
    fn set_push_rules(&self, change: AccountDataChange, classes: Classes) -> Answer<'_, AccountDataSet>;
    /// Whose rules changed after `pos`, at most `limit` of them.
    fn push_rules_after(&self, pos: i64, limit: i64) -> Answer<'_, RuleChanges>;
    /// Of the members of a room who changed theirs, the first `limit` whose ids come after `after`.
    fn push_rules_in(&self, room_sn: i64, after: &str, limit: i64) -> Answer<'_, RoomRules>;
    /// Of these users those who changed theirs.
    fn push_rules_of(&self, room_sn: i64, users: Vec<String>) -> Answer<'_, Vec<ChangedRules>>;
}

impl<E: Engine> PushRules for Sql<E> {
    fn set_push_rules(&self, change: AccountDataChange, classes: Classes) -> Answer<'_, AccountDataSet> {
        self.0.write(Set { change, classes })
    }

    fn push_rules_after(&self, pos: i64, limit: i64) -> Answer<'_, RuleChanges> {
        self.0.read(After { pos, limit })
    }

    fn push_rules_in(&self, room_sn: i64, after: &str, limit: i64) -> Answer<'_, RoomRules> {
        self.0.read(In { room_sn, after: after.to_owned(), limit })
    }

    fn push_rules_of(&self, room_sn: i64, users: Vec<String>) -> Answer<'_, Vec<ChangedRules>> {
        self.0.read(Of { room_sn, users })
    }
}

async fn last_change<R: Reads>(tx: &mut R) -> Result<i64> {
    Ok(tx.query_one(LAST_CHANGE, args![]).await?.get::<Option<i64>>(0)?.unwrap_or(0))
}

struct Set {
    change: AccountDataChange,
    classes: Classes,
}

impl Op for Set {
    const NAME: &'static str = "set_push_rules";
    type Out = AccountDataSet;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<AccountDataSet> {
        let done = account_data::set(tx, &self.change).await?;
        if let AccountDataSet::Done(pos) = done {
            classify(tx, &self.change.user_id, pos, &self.classes).await?;
        }
        Ok(done)
    }
}

struct After {
    pos: i64,
    limit: i64,
}

impl Query for After {
    const NAME: &'static str = "push_rules_after";
    type Out = RuleChanges;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<RuleChanges> {
        let last = last_change(tx).await?;
        if last <= self.pos {
            return Ok(RuleChanges { last, ..RuleChanges::default() });
        }
        let rows = tx.query(CHANGED_AFTER, args![self.pos, self.limit]).await?;
        let too_many = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= self.limit;
        let users = rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect::<Result<_>>()?;
        Ok(RuleChanges { last, users, too_many })
    }
}

struct In {
    room_sn: i64,
    after: String,
    limit: i64,
}

impl Query for In {
    const NAME: &'static str = "push_rules_in";
    type Out = RoomRules;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<RoomRules> {
        let root = match tx.query_opt(ROOT, args![self.room_sn]).await? {
            Some(mut row) => row.get(0)?,
            None => Vec::new(),
        };
        let as_of = last_change(tx).await?;
        let members = tx.query(OF_MEMBERS, args![self.room_sn, &self.after, self.limit]).await?;
        Ok(RoomRules { root, as_of, members: members.into_iter().map(changed).collect::<Result<_>>()? })
    }
}

struct Of {
    room_sn: i64,
    users: Vec<String>,
}

impl Query for Of {
    const NAME: &'static str = "push_rules_of";
    type Out = Vec<ChangedRules>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<ChangedRules>> {
        let rows = tx.query(OF_USERS, args![self.room_sn, self.users.clone()]).await?;
        rows.into_iter().map(changed).collect()
    }
}

fn changed(mut row: Row) -> Result<ChangedRules> {
    Ok(ChangedRules { user_id: row.get(0)?, joined: row.get(1)?, class: row.get(2)?, content: row.get(3)? })
}

/// From `since` on the user is of these classes.
async fn classify<T: Tx>(tx: &mut T, user_id: &str, since: i64, classes: &Classes) -> Result<()> {
    let mut known = BTreeMap::<String, Vec<(i64, String)>>::new();
    for mut row in tx.query(CLASSES_OF, args![user_id]).await? {
        known.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
    }
    let last = |room: &str| known.get(room).and_then(|of| of.last()).map(|(_, class)| class.as_str());
    let mut new = Vec::new();
    if classes.elsewhere != last("").unwrap_or(DEFAULT_CLASS) {
        new.push(("", classes.elsewhere.as_str()));
    }
    let rooms: BTreeSet<&str> = known.keys().chain(classes.rooms.keys()).map(String::as_str).collect();
    for room in rooms.into_iter().filter(|room| !room.is_empty()) {
        let class = classes.rooms.get(room).unwrap_or(&classes.elsewhere);
        // What holds elsewhere holds in a room without rows.
        if class != last(room).unwrap_or(&classes.elsewhere) {
            new.push((room, class.as_str()));
        }
    }
    for (room, _) in &new {
        if let Some([(oldest, _), ..]) = known.get(*room).map(Vec::as_slice).filter(|of| of.len() >= MOST_CLASSES) {
            tx.execute(FORGET_CLASS, args![user_id, *room, *oldest]).await?;
        }
    }
    let rows: Vec<_> = new.into_iter().map(|(room, class)| args![user_id, room, since, class].to_vec()).collect();
    tx.insert_rows(NEW_CLASSES, &rows).await.map(drop)
}

/// Nothing is counted for the user any more.
pub(crate) async fn forget<T: Tx>(tx: &mut T, user_id: &str) -> Result<()> {
    tx.execute(FORGET_CLASSES, args![user_id]).await.map(drop)
}
