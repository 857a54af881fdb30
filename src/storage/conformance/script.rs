//! Operations that do what a test says, and reads of what they did.

use super::*;
use crate::tx::Wake;

/// What a scripted operation does next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Get(&'static str),
    Put(&'static str, i64),
    /// Fails in the database when the key is there.
    Add(&'static str, i64),
    /// The same, but the operation makes nothing of it.
    AddAndSwallow(&'static str, i64),
    Bump(&'static str),
    Position,
    /// A row with a position of its own.
    Append(String),
    Wake(Wake),
    Enqueue(&'static str, String, i64),
    Fail,
    Panic,
    WaitForever,
}
pub(super) use Step::*;

/// What it saw on the way: values, counts, positions.
pub(super) type Seen = Vec<Option<i64>>;

pub(super) struct Do {
    positions: u32,
    steps: Vec<Step>,
}

impl Op for Do {
    const NAME: &'static str = "test_do";
    type Out = Seen;

    fn positions(&self) -> u32 {
        self.positions
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Seen> {
        let mut seen = Vec::new();
        for step in &self.steps {
            seen.push(match step {
                Get(k) => tx.query_opt(GET, args![*k]).await?.map(|mut row| row.get(0)).transpose()?,
                Put(k, v) => Some(tx.execute(PUT, args![*k, *v]).await? as i64),
                Add(k, v) => Some(tx.execute(ADD, args![*k, *v]).await? as i64),
                AddAndSwallow(k, v) => {
                    drop(tx.execute(ADD, args![*k, *v]).await);
                    None
                }
                Bump(k) => tx.query_opt(BUMP, args![*k]).await?.map(|mut row| row.get(0)).transpose()?,
                Position => Some(tx.next_pos()?),
                Append(who) => {
                    let pos = tx.next_pos()?;
                    tx.execute(APPEND, args![pos, who]).await?;
                    Some(pos)
                }
                Wake(wake) => {
                    tx.wake(wake.clone());
                    None
                }
                Enqueue(queue, id, due_ms) => {
                    let item = NewItem { id: id.clone(), payload: format!("of {id}"), due_ms: *due_ms };
                    enqueue(tx, queue, vec![item]).await?;
                    None
                }
                Fail => return Err(Error::Conflict("as told")),
                Panic => panic!("as told"),
                WaitForever => std::future::pending().await,
            });
        }
        Ok(seen)
    }
}

impl Store {
    pub(super) fn run(&self, positions: u32, steps: impl Into<Vec<Step>>) -> Answer<'static, Seen> {
        self.write(Do { positions, steps: steps.into() })
    }

    pub(super) async fn value(&self, key: &'static str) -> Option<i64> {
        self.read(One(key)).await.expect("reads")
    }

    /// Makes the tables that are only the tests'.
    pub(super) async fn prepared(self) -> Self {
        self.write(Prepare).await.expect("makes the tables");
        self.sink.take();
        self
    }

    pub(super) async fn log(&self) -> Vec<(i64, String)> {
        self.read(Log).await.expect("reads")
    }
}

pub(super) struct Prepare;

impl Op for Prepare {
    const NAME: &'static str = "test_prepare";
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        for stmt in [MAKE_KV, MAKE_LOG, MAKE_WIDE] {
            tx.execute(stmt, &[]).await?;
        }
        Ok(())
    }
}

pub(super) struct One(pub(super) &'static str);

impl Query for One {
    const NAME: &'static str = "test_one";
    const SINGLE: bool = true;
    type Out = Option<i64>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        tx.query_opt(GET, args![self.0]).await?.map(|mut row| row.get(0)).transpose()
    }
}

/// Reads keys one after another, on one snapshot.
pub(super) struct Values(pub(super) Vec<&'static str>);

impl Query for Values {
    const NAME: &'static str = "test_values";
    type Out = Seen;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Seen> {
        let mut seen = Vec::new();
        for key in &self.0 {
            seen.push(tx.query_opt(GET, args![*key]).await?.map(|mut row| row.get(0)).transpose()?);
        }
        Ok(seen)
    }
}

pub(super) struct Log;

impl Query for Log {
    const NAME: &'static str = "test_log";
    const SINGLE: bool = true;
    type Out = Vec<(i64, String)>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        tx.query(LOGGED, &[]).await?.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

/// Reads the same key twice, and waits in between until it is told to go on.
pub(super) struct Twice {
    pub(super) key: &'static str,
    pub(super) reached: mpsc::SyncSender<()>,
    pub(super) go_on: Mutex<mpsc::Receiver<()>>,
}

impl Query for Twice {
    const NAME: &'static str = "test_twice";
    type Out = (i64, i64);

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let before = tx.query_one(GET, args![self.key]).await?.get(0)?;
        self.reached.send(()).expect("the test waits");
        // Blocks the thread: on SQLite a read may not wait in any other way.
        self.go_on.lock().expect("not poisoned").recv().expect("the test goes on");
        Ok((before, tx.query_one(GET, args![self.key]).await?.get(0)?))
    }
}

pub(super) struct TwoInSingle;

impl Query for TwoInSingle {
    const NAME: &'static str = "test_two_in_single";
    const SINGLE: bool = true;
    type Out = ();

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<()> {
        tx.query(ALL_KV, &[]).await?;
        tx.query(ALL_KV, &[]).await.map(|_| ())
    }
}

pub(super) struct CountTo(pub(super) i64);

impl Query for CountTo {
    const NAME: &'static str = "test_count_to";
    const SINGLE: bool = true;
    type Out = i64;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<i64> {
        tx.query_one(LOGGED_TO, args![self.0]).await?.get(0)
    }
}

pub(super) fn room(sn: i64) -> Step {
    Wake(Wake::Room(sn))
}

pub(super) fn conflict<T: std::fmt::Debug>(answer: &Result<T>) -> bool {
    matches!(answer, Err(Error::Conflict("as told")))
}
