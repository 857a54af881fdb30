//! Work that follows a change, written with it and drained under a lease by any process.
//!
//! A lease is taken by compare-and-set, so no item is ever held twice at one time. Who dies holding one loses it when it
//! runs out, and the item is handed out again: work is done at least once.

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Row, Tx, Value, Wake, args, statements},
};

/// The queues of work to do.
pub trait Outbox {
    /// Adds an item unless there is one of this id: work that no change asks for, but the calendar.
    fn plan(&self, queue: &'static str, id: &str, due_ms: i64) -> Answer<'_, ()>;
    /// Takes up to `limit` items that are due and free, the longest due first, and holds them until `now_ms + lease_ms`.
    /// `owner` names one holder in one process.
    fn lease(&self, queue: &'static str, owner: &str, now_ms: i64, lease_ms: i64, limit: u32) -> Answer<'_, Vec<Item>>;
    /// These are done: forgets those that `owner` still holds, and says how many they were.
    fn done(&self, ids: Vec<String>, owner: &str) -> Answer<'_, u64>;
    /// Gives these back, to be tried again at `due_ms`; how many of them `owner` still held.
    fn retry(&self, ids: Vec<String>, owner: &str, due_ms: i64) -> Answer<'_, u64>;
    /// These are done for now, and due again at `due_ms`; how many of them `owner` still held.
    fn again(&self, ids: Vec<String>, owner: &str, due_ms: i64) -> Answer<'_, u64>;
    /// Holds these until `until_ms`; how many of them `owner` still held. Who gets fewer than it asked for has lost
    /// some to another and must look again what it holds.
    fn extend(&self, ids: Vec<String>, owner: &str, until_ms: i64) -> Answer<'_, u64>;
}

/// A piece of work that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub id: String,
    pub payload: String,
    pub due_ms: i64,
    /// How often it was handed out, this time included.
    pub attempts: i64,
}

/// A piece of work to be written with the change that it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewItem {
    /// Unique over all queues; an item whose id is there already is left out. Items due at the same time are handed out
    /// in the order of their ids.
    pub(crate) id: String,
    pub(crate) payload: String,
    pub(crate) due_ms: i64,
}

statements! {
    DUE = "SELECT id FROM outbox WHERE queue = $1 AND due_ms <= $2 AND lease_until_ms <= $2
           ORDER BY due_ms, id LIMIT $3";
    TAKE = "UPDATE outbox SET lease_owner = $1, lease_until_ms = $2, attempts = attempts + 1
            WHERE id = ANY($3) AND lease_until_ms <= $4 RETURNING id, payload, due_ms, attempts";
    DONE = "DELETE FROM outbox WHERE id = ANY($1) AND lease_owner = $2";
    RETRY = "UPDATE outbox SET lease_owner = NULL, lease_until_ms = 0, due_ms = $3
             WHERE id = ANY($1) AND lease_owner = $2";
    AGAIN = "UPDATE outbox SET lease_owner = NULL, lease_until_ms = 0, attempts = 0, due_ms = $3
             WHERE id = ANY($1) AND lease_owner = $2";
    EXTEND = "UPDATE outbox SET lease_until_ms = $3 WHERE id = ANY($1) AND lease_owner = $2";
    bulk ADD = "outbox" ("id": Text, "queue": Text, "payload": Text, "due_ms": Int, "attempts": Int,
        "lease_until_ms": Int) "ON CONFLICT (id) DO NOTHING";
}

/// Adds work to a queue inside the caller's transaction, and wakes who drains it.
pub(crate) async fn enqueue<T: Tx>(tx: &mut T, queue: &'static str, items: Vec<NewItem>) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let row = |item: NewItem| {
        let NewItem { id, payload, due_ms } = item;
        vec![id.into(), queue.into(), payload.into(), due_ms.into(), Value::from(0), Value::from(0)]
    };
    let rows: Vec<Vec<Value>> = items.into_iter().map(row).collect();
    tx.insert_rows(ADD, &rows).await?;
    tx.wake(Wake::Queue(queue));
    Ok(())
}

struct Lease {
    queue: &'static str,
    owner: String,
    now_ms: i64,
    lease_ms: i64,
    limit: u32,
}

impl Op for Lease {
    const NAME: &'static str = "outbox_lease";
    type Out = Vec<Item>;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Vec<Item>> {
        let due = tx.query(DUE, args![self.queue, self.now_ms, i64::from(self.limit)]).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = due.into_iter().map(|mut row| row.get(0)).collect::<Result<_>>()?;
        // Another process may have been quicker with some: the condition is looked at again when a row is locked.
        let taken = tx.query(TAKE, args![&self.owner, self.now_ms + self.lease_ms, ids, self.now_ms]).await?;
        let item = |mut row: Row| {
            Ok(Item { id: row.get(0)?, payload: row.get(1)?, due_ms: row.get(2)?, attempts: row.get(3)? })
        };
        let mut items: Vec<Item> = taken.into_iter().map(item).collect::<Result<_>>()?;
        items.sort_by(|a, b| (a.due_ms, &a.id).cmp(&(b.due_ms, &b.id)));
        Ok(items)
    }
}

struct Done {
    ids: Vec<String>,
    owner: String,
}

impl Op for Done {
    const NAME: &'static str = "outbox_done";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.execute(DONE, args![self.ids.clone(), &self.owner]).await
    }
}

struct Retry {
    ids: Vec<String>,
    owner: String,
    due_ms: i64,
}

impl Op for Retry {
    const NAME: &'static str = "outbox_retry";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.execute(RETRY, args![self.ids.clone(), &self.owner, self.due_ms]).await
    }
}

struct Again {
    ids: Vec<String>,
    owner: String,
    due_ms: i64,
}

impl Op for Again {
    const NAME: &'static str = "outbox_again";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.execute(AGAIN, args![self.ids.clone(), &self.owner, self.due_ms]).await
    }
}

struct Plan {
    queue: &'static str,
    id: String,
    due_ms: i64,
}

impl Op for Plan {
    const NAME: &'static str = "outbox_plan";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let item = NewItem { id: self.id.clone(), payload: "{}".to_owned(), due_ms: self.due_ms };
        enqueue(tx, self.queue, vec![item]).await
    }
}

struct Extend {
    ids: Vec<String>,
    owner: String,
    until_ms: i64,
}

impl Op for Extend {
    const NAME: &'static str = "outbox_extend";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.execute(EXTEND, args![self.ids.clone(), &self.owner, self.until_ms]).await
    }
}

impl<E: Engine> Outbox for Sql<E> {
    fn plan(&self, queue: &'static str, id: &str, due_ms: i64) -> Answer<'_, ()> {
        self.0.write(Plan { queue, id: id.into(), due_ms })
    }

    fn again(&self, ids: Vec<String>, owner: &str, due_ms: i64) -> Answer<'_, u64> {
        self.0.write(Again { ids, owner: owner.into(), due_ms })
    }

    fn lease(&self, queue: &'static str, owner: &str, now_ms: i64, lease_ms: i64, limit: u32) -> Answer<'_, Vec<Item>> {
        self.0.write(Lease { queue, owner: owner.into(), now_ms, lease_ms, limit })
    }

    fn done(&self, ids: Vec<String>, owner: &str) -> Answer<'_, u64> {
        self.0.write(Done { ids, owner: owner.into() })
    }

    fn retry(&self, ids: Vec<String>, owner: &str, due_ms: i64) -> Answer<'_, u64> {
        self.0.write(Retry { ids, owner: owner.into(), due_ms })
    }

    fn extend(&self, ids: Vec<String>, owner: &str, until_ms: i64) -> Answer<'_, u64> {
        self.0.write(Extend { ids, owner: owner.into(), until_ms })
    }
}
