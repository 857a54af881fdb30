//! What an engine promises, held against both.
//!
//! One scripted operation, [`Do`], says what a transaction does, step by step; the tests are stories told with it.

#[cfg(feature = "postgres")]
mod compare;
#[cfg(feature = "postgres")]
mod faults;
mod rooms;
#[cfg(feature = "postgres")]
mod rooms_compare;
mod unread;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use futures_util::future::{join, join_all};

use crate::{
    Error, Item, Outbox, Result, SigningKey, Stream, all_statements,
    outbox::{NewItem, enqueue},
    testing::{Either, Store, each_backend, on_sqlite},
    tx::{Answer, Committed, Op, Query, Reads, Tx, Value, Wake, args, statements},
};

statements! {
    MAKE_KV = "CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v BIGINT NOT NULL)";
    MAKE_LOG = "CREATE TABLE IF NOT EXISTS log (pos BIGINT NOT NULL, who TEXT NOT NULL)";
    MAKE_WIDE = "CREATE TABLE IF NOT EXISTS wide (i BIGINT, t TEXT, b BYTEA)";
    GET = "SELECT v FROM kv WHERE k = $1";
    PUT = "INSERT INTO kv (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
    ADD = "INSERT INTO kv (k, v) VALUES ($1, $2)";
    BUMP = "UPDATE kv SET v = v + 1 WHERE k = $1 RETURNING v";
    DROP_ALL = "DELETE FROM kv";
    DROP_OUTBOX = "DELETE FROM outbox";
    ALL_KV = "SELECT k, v FROM kv ORDER BY k";
    ALL_OUTBOX = "SELECT id, queue, payload, due_ms, attempts, lease_owner, lease_until_ms FROM outbox ORDER BY id";
    APPEND = "INSERT INTO log (pos, who) VALUES ($1, $2)";
    LOGGED = "SELECT pos, who FROM log ORDER BY pos";
    LOGGED_TO = "SELECT COUNT(*) FROM log WHERE pos <= $1";
    ALL_WIDE = "SELECT i, t, b FROM wide ORDER BY i, t";
    BY_INTS = "SELECT i FROM wide WHERE i = ANY($1) AND i <> $2 ORDER BY i";
    BY_TEXTS = "SELECT t FROM wide WHERE t = ANY($1) ORDER BY t";
    BY_BLOBS = "SELECT b FROM wide WHERE b = ANY($1) ORDER BY b";
    NOT_INTS = "SELECT i FROM wide WHERE i <> ALL($1) ORDER BY i";
    NEWEST_WIDE = "SELECT i, t FROM wide WHERE i >= $1 AND i < $2 ORDER BY i DESC LIMIT $3";
    TYPES = "SELECT 1 = 1, COUNT(*), CAST(NULL AS BIGINT), 'x' || $1, b FROM wide WHERE t = $1 GROUP BY b";
    LIKES = "SELECT COUNT(*) FROM kv WHERE k LIKE $1";
    FRACTION = "SELECT AVG(i) FROM wide";
    bulk WIDE = "wide" ("i": Int, "t": Text, "b": Blob) "";
    bulk KV = "kv" ("k": Text, "v": Int) "ON CONFLICT (k) DO NOTHING";
}

/// What a scripted operation does next.
#[derive(Clone, Debug)]
enum Step {
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
use Step::*;

/// What it saw on the way: values, counts, positions.
type Seen = Vec<Option<i64>>;

struct Do {
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
    fn run(&self, positions: u32, steps: impl Into<Vec<Step>>) -> Answer<'static, Seen> {
        self.write(Do { positions, steps: steps.into() })
    }

    async fn value(&self, key: &'static str) -> Option<i64> {
        self.read(One(key)).await.expect("reads")
    }

    /// Makes the tables that are only the tests'.
    async fn prepared(self) -> Self {
        self.write(Prepare).await.expect("makes the tables");
        self.sink.take();
        self
    }

    async fn log(&self) -> Vec<(i64, String)> {
        self.read(Log).await.expect("reads")
    }
}

struct Prepare;

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

struct One(&'static str);

impl Query for One {
    const NAME: &'static str = "test_one";
    const SINGLE: bool = true;
    type Out = Option<i64>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        tx.query_opt(GET, args![self.0]).await?.map(|mut row| row.get(0)).transpose()
    }
}

/// Reads keys one after another, on one snapshot.
struct Values(Vec<&'static str>);

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

struct Log;

impl Query for Log {
    const NAME: &'static str = "test_log";
    const SINGLE: bool = true;
    type Out = Vec<(i64, String)>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        tx.query(LOGGED, &[]).await?.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

/// Reads the same key twice, and waits in between until it is told to go on.
struct Twice {
    key: &'static str,
    reached: mpsc::SyncSender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
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

struct Insert(Vec<Vec<Value>>);

impl Op for Insert {
    const NAME: &'static str = "test_insert";
    type Out = (u64, u64);

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let wide = tx.insert_rows(WIDE, &self.0).await?;
        let again = [vec![Value::from("bulk"), Value::from(1)], vec![Value::from("bulk"), Value::from(2)]];
        Ok((wide, tx.insert_rows(KV, &again).await?))
    }
}

type Wide = (Option<i64>, Option<String>, Option<Vec<u8>>);

struct AllWide;

impl Query for AllWide {
    const NAME: &'static str = "test_all_wide";
    type Out = Vec<Wide>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let mut rows: Vec<Wide> = tx
            .query(ALL_WIDE, &[])
            .await?
            .into_iter()
            .map(|mut row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .collect::<Result<_>>()?;
        rows.sort(); // where NULL stands is a matter of the dialect
        Ok(rows)
    }
}

struct Lists {
    ints: Vec<i64>,
    texts: Vec<String>,
    blobs: Vec<Vec<u8>>,
}

impl Query for Lists {
    const NAME: &'static str = "test_lists";
    type Out = (Vec<i64>, Vec<String>, Vec<Vec<u8>>, Vec<i64>);

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        async fn column<R: Reads, T: crate::tx::FromCell>(
            tx: &mut R,
            stmt: crate::tx::Stmt,
            args: &[Value],
        ) -> Result<Vec<T>> {
            tx.query(stmt, args).await?.into_iter().map(|mut row| row.get(0)).collect()
        }
        Ok((
            column(tx, BY_INTS, args![self.ints.clone(), -1]).await?,
            column(tx, BY_TEXTS, args![self.texts.clone()]).await?,
            column(tx, BY_BLOBS, args![self.blobs.clone()]).await?,
            column(tx, NOT_INTS, args![self.ints.clone()]).await?,
        ))
    }
}

/// From, to, and the newest so many.
struct Newest(Vec<[i64; 3]>);

impl Query for Newest {
    const NAME: &'static str = "test_newest";
    const SINGLE: bool = true;
    type Out = Vec<Vec<(i64, String)>>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows: Vec<Vec<Value>> = self.0.iter().map(|row| row.map(Value::from).to_vec()).collect();
        let answers = tx.query_each(NEWEST_WIDE, &rows).await?;
        let read = |rows: Vec<crate::tx::Row>| rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect();
        answers.into_iter().map(read).collect()
    }
}

struct Types;

impl Query for Types {
    const NAME: &'static str = "test_types";
    const SINGLE: bool = true;
    type Out = (bool, i64, Option<i64>, String, Vec<u8>);

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let mut row = tx.query_one(TYPES, args!["t"]).await?;
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    }
}

struct Likes(&'static str);

impl Query for Likes {
    const NAME: &'static str = "test_likes";
    const SINGLE: bool = true;
    type Out = i64;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<i64> {
        tx.query_one(LIKES, args![self.0]).await?.get(0)
    }
}

struct Fraction;

impl Query for Fraction {
    const NAME: &'static str = "test_fraction";
    type Out = ();

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<()> {
        tx.query(FRACTION, &[]).await.map(|_| ())
    }
}

struct TwoInSingle;

impl Query for TwoInSingle {
    const NAME: &'static str = "test_two_in_single";
    const SINGLE: bool = true;
    type Out = ();

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<()> {
        tx.query(ALL_KV, &[]).await?;
        tx.query(ALL_KV, &[]).await.map(|_| ())
    }
}

struct CountTo(i64);

impl Query for CountTo {
    const NAME: &'static str = "test_count_to";
    const SINGLE: bool = true;
    type Out = i64;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<i64> {
        tx.query_one(LOGGED_TO, args![self.0]).await?.get(0)
    }
}

fn room(sn: i64) -> Step {
    Wake(Wake::Room(sn))
}

fn conflict<T: std::fmt::Debug>(answer: &Result<T>) -> bool {
    matches!(answer, Err(Error::Conflict("as told")))
}

#[test]
fn an_operation_that_fails_leaves_its_neighbours_alone() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        // Several rounds, since how the queue is cut into batches is a matter of luck.
        for round in 0..20 {
            let answers = join_all([
                store.run(1, [Put("a", round)]),
                store.run(1, [Get("a"), Fail]),
                store.run(1, [Put("b", round), Fail]),
                store.run(1, [Put("c", round)]),
                store.run(1, [Put("b", round), Add("a", 7)]),
                store.run(1, [Bump("c"), Put("d", round)]),
                store.run(1, [Panic]),
                store.run(1, [Put("b", round), Panic]),
                store.run(1, [Bump("c")]),
            ])
            .await;
            assert!(conflict(&answers[1]) && conflict(&answers[2]), "{answers:?}");
            assert!(matches!(answers[4], Err(Error::Sql { .. })), "{answers:?}");
            assert!(matches!(answers[6], Err(Error::Internal(_))) && matches!(answers[7], Err(Error::Internal(_))));
            for good in [0, 3, 5, 8] {
                assert!(answers[good].is_ok(), "{answers:?}");
            }
            let values = store.read(Values(vec!["a", "b", "c", "d"])).await.expect("reads");
            assert_eq!(values, [Some(round), None, Some(round + 2), Some(round)]);
        }
    });
}

#[test]
fn what_a_swallowed_sql_error_left_is_never_committed() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        store.run(1, [Put("a", 1)]).await.expect("written");
        for positions in [0, 1] {
            let answers = join_all([
                store.run(positions, [Put("b", 1)]),
                store.run(positions, [Put("c", 1), AddAndSwallow("a", 2), Put("d", 1)]),
                store.run(positions, [Put("d", 1), AddAndSwallow("a", 2)]),
                store.run(positions, [Put("e", 1)]),
            ])
            .await;
            assert!(answers[0].is_ok() && answers[3].is_ok(), "{answers:?}");
            assert!(answers[1..3].iter().all(|a| matches!(a, Err(Error::Sql { .. }))), "{answers:?}");
            let values = store.read(Values(vec!["a", "b", "c", "d", "e"])).await.expect("reads");
            assert_eq!(values, [Some(1), Some(1), None, None, Some(1)]);
        }
    });
}

#[test]
fn the_sink_hears_of_what_was_committed_and_of_nothing_else() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        store.run(1, [Put("a", 1), room(1), room(2), room(1)]).await.expect("written");
        // The sink was told before the caller.
        let told = store.sink.take();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].wakes, [Wake::Room(1), Wake::Room(2)]);

        assert!(store.run(1, [Put("a", 2), room(3), Fail]).await.is_err());
        assert!(store.run(1, [room(4), Fail]).await.is_err());
        assert!(store.run(1, [room(5), Add("a", 1)]).await.is_err());
        assert_eq!(store.sink.take(), []);

        let answers = join_all((10..40).map(|sn| {
            let end = if sn % 3 == 0 { vec![room(sn), Put("x", sn), Fail] } else { vec![Put("a", sn), room(sn)] };
            store.run(1, end)
        }));
        answers.await;
        let rooms: Vec<Wake> = store.sink.take().into_iter().flat_map(|commit| commit.wakes).collect();
        let expected: Vec<Wake> = (10..40).filter(|sn| sn % 3 != 0).map(Wake::Room).collect();
        assert_eq!(rooms, expected);

        store.run(0, [Put("a", 3), room(6)]).await.expect("written");
        assert_eq!(store.sink.take(), [Committed { first: 1, last: 0, wakes: vec![Wake::Room(6)], messages: vec![] }]);
    });
}

#[test]
fn positions_rise_and_lie_in_the_ranges_the_sink_is_told() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let head = store.head().await.expect("reads");
        let ops = (0..300).map(|i| match i % 4 {
            0 => store.run(3, [Append(format!("{i}")), Position]),
            1 => store.run(1, [Put("a", i)]),
            2 => store.run(2, [Append(format!("{i}")), Append(format!("{i}"))]),
            _ => store.run(1, [Append(format!("{i}")), Fail]),
        });
        let mut taken = Vec::new();
        for (i, answer) in join_all(ops).await.into_iter().enumerate() {
            match (i % 4, answer) {
                (0 | 2, Ok(seen)) => taken.extend(seen.into_iter().flatten()),
                (1, Ok(_)) | (3, Err(Error::Conflict(_))) => {}
                (_, answer) => panic!("operation {i}: {answer:?}"),
            }
        }
        assert!(taken.is_sorted_by(|a, b| a < b), "{taken:?}");
        let mut last = head;
        let mut positions = taken.iter().peekable();
        for commit in store.sink.take() {
            assert!(commit.first > last && commit.last >= commit.first, "{commit:?} after {last}");
            assert_eq!(commit.first, last + 1, "no other process takes positions here");
            while positions.next_if(|pos| (commit.first..=commit.last).contains(pos)).is_some() {}
            last = commit.last;
        }
        assert_eq!(positions.next(), None, "a position that no commit announced");
        assert_eq!(store.head().await.expect("reads"), last);
    });
}

#[test]
fn an_operation_gets_no_more_positions_than_it_announced() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let head = store.head().await.expect("reads");
        for (announced, steps) in [
            (0, vec![Put("a", 1), Position]),
            (1, vec![Put("a", 1), Position, Position]),
            (2, vec![Append("x".into()), Append("x".into()), Append("x".into())]),
        ] {
            let answer = store.run(announced, steps).await;
            assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
        }
        assert_eq!(store.value("a").await, None);
        assert_eq!(store.log().await, []);
        assert_eq!(store.head().await.expect("reads"), head, "nothing was committed");
        assert_eq!(store.run(2, [Position, Position]).await.expect("written"), [Some(head + 1), Some(head + 2)]);
    });
}

#[test]
fn writes_run_in_the_order_of_their_calls() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        store.run(1, [Put("n", 0)]).await.expect("written");
        let answers = join_all((0..500).map(|_| store.run(1, [Bump("n")]))).await;
        let seen: Vec<i64> = answers.into_iter().map(|a| a.expect("written")[0].expect("a number")).collect();
        assert!(seen.into_iter().eq(1..=500));
    });
}

#[test]
fn a_dropped_call_happens_all_the_same() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        for i in 1..=100 {
            drop(store.run(1, [Put("a", i)]));
        }
        store.run(1, [Get("a")]).await.expect("runs after them");
        assert_eq!(store.value("a").await, Some(100));
    });
}

#[test]
fn nothing_appears_below_a_head_that_was_seen() {
    each_backend(|store| async move {
        let one = Arc::new(store.prepared().await);
        // A second writer on SQLite would only make both slow: who finds the file locked sleeps and tries again.
        let two = match one.engine() {
            Either::Sqlite(_) => Arc::clone(&one),
            #[cfg(feature = "postgres")]
            Either::Postgres(_) => Arc::new(one.beside().await),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..16)
            .map(|i| {
                let store = Arc::clone(if i % 2 == 0 { &one } else { &two });
                let stop = Arc::clone(&stop);
                tokio::spawn(async move {
                    let mut written = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let steps: &[Step] = match written % 5 {
                            0 => &[Put("busy", 1), Append("one".into()), Bump("busy")],
                            1 => &[Append("one".into()), Append("two".into()), Fail],
                            _ => &[Append("one".into())],
                        };
                        drop(store.run(2, steps).await);
                        written += 1;
                    }
                })
            })
            .collect();
        let reader = one.beside().await;
        let mut looks = BTreeMap::new();
        while looks.len() < 60 {
            let head = reader.head().await.expect("reads");
            looks.insert(head, reader.read(CountTo(head)).await.expect("reads"));
        }
        stop.store(true, Ordering::Relaxed);
        join_all(writers).await;
        for (head, count) in looks {
            assert_eq!(reader.read(CountTo(head)).await.expect("reads"), count, "more than was seen at {head}");
        }
        assert!(one.log().await.is_sorted_by(|a, b| a.0 < b.0), "a position was given out twice");
    });
}

#[test]
fn many_rows_go_in_at_once() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        assert_eq!(store.write(Insert(Vec::new())).await.expect("nothing to do"), (0, 1));
        let mut rows: Vec<Wide> = vec![
            (Some(1), Some("one".into()), Some(vec![0, 255])),
            (None, None, None),
            (Some(i64::MIN), Some(String::new()), Some(Vec::new())),
            (None, Some("{\"a\": [\"b\", NULL]}".into()), None),
        ];
        rows.extend((0..1000).map(|i| (Some(i), Some(format!("row {i}")), None)));
        let values = rows.iter().map(|(i, t, b)| vec![(*i).into(), t.clone().into(), b.clone().into()]).collect();
        assert_eq!(store.write(Insert(values)).await.expect("written"), (1004, 0));
        rows.sort();
        assert_eq!(store.read(AllWide).await.expect("reads"), rows);

        let short = vec![vec![Value::from(1), Value::from("a row without its blob")]];
        assert!(matches!(store.write(Insert(short)).await, Err(Error::Sql { .. })));
    });
}

#[test]
fn lists_are_looked_up_and_may_be_empty() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let wide = |i: i64| vec![i.into(), format!("t{i}").into(), vec![0, i as u8].into()];
        store.write(Insert((0..10).map(wide).collect())).await.expect("written");
        let texts = ["t2", "t9", "t77", "t2", "'"].map(String::from).to_vec();
        let some = Lists { ints: vec![7, 3, 3, 99], texts, blobs: vec![vec![0, 4], vec![], vec![0, 1]] };
        let (ints, texts, blobs, others) = store.read(some).await.expect("reads");
        assert_eq!(ints, [3, 7]);
        assert_eq!(texts, ["t2", "t9"]);
        assert_eq!(blobs, [[0, 1], [0, 4]]);
        assert_eq!(others, [0, 1, 2, 4, 5, 6, 8, 9]);
        let none = Lists { ints: Vec::new(), texts: Vec::new(), blobs: Vec::new() };
        let (ints, texts, blobs, others) = store.read(none).await.expect("reads");
        assert_eq!((ints.len(), texts.len(), blobs.len(), others.len()), (0, 0, 0, 10));
    });
}

#[test]
fn one_question_is_asked_of_many_rows_at_once() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let wide = |i: i64| vec![i.into(), format!("t{i}").into(), Value::Blob(None)];
        store.write(Insert((0..100).map(wide).collect())).await.expect("written");
        let answers = store.read(Newest(vec![[10, 20, 3], [50, 50, 9], [98, 200, 9], [10, 12, 1], [10, 20, 3]])).await;
        let answers = answers.expect("reads");
        let numbers: Vec<Vec<i64>> = answers.iter().map(|rows| rows.iter().map(|(i, _)| *i).collect()).collect();
        assert_eq!(numbers, [vec![19, 18, 17], vec![], vec![99, 98], vec![11], vec![19, 18, 17]]);
        assert_eq!(answers[3][0].1, "t11");
        let many = store.read(Newest((0..1_000).map(|n| [n % 100, 100, 2]).collect())).await.expect("reads");
        assert!(many.iter().zip(0..).all(|(rows, n)| rows.len() == if n % 100 == 99 { 1 } else { 2 }));
        assert_eq!(store.work()["test_newest"].statements, 2);
        assert!(store.read(Newest(Vec::new())).await.expect("asks nothing").is_empty());
    });
}

#[test]
fn columns_are_numbers_texts_and_blobs() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let rows =
            vec![vec![1.into(), "t".into(), vec![1u8, 2].into()], vec![2.into(), "t".into(), vec![1u8, 2].into()]];
        store.write(Insert(rows)).await.expect("written");
        let row = store.read(Types).await.expect("reads");
        assert_eq!(row, (true, 2, None, "xt".to_owned(), vec![1, 2]));
        assert!(matches!(store.read(Fraction).await, Err(Error::Sql { .. })), "a fraction is no number of ours");
    });
}

#[test]
fn texts_heed_case_and_hold_no_nul() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        store.run(1, [Put("Aa", 1), Put("ab", 1)]).await.expect("written");
        assert_eq!(store.read(Likes("a%")).await.expect("reads"), 1);
        let answers =
            join_all([store.run(1, [Put("a", 1)]), store.run(1, [Put("x\0y", 1)]), store.run(1, [Put("b", 1)])]);
        let answers = answers.await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        assert!(matches!(answers[1], Err(Error::Sql { .. })), "{answers:?}");
    });
}

#[test]
fn texts_sort_by_their_bytes() {
    each_backend(|store| async move {
        let names = ["b", "A", "ä", "_", "a", "Z", "-a", "B"];
        let items: Vec<Step> = names.iter().map(|id| Enqueue("mail", (*id).to_owned(), 0)).collect();
        store.run(1, items).await.expect("written");
        assert_eq!(ids(store.lease("mail", "me", 0, 1, 4).await), ["-a", "A", "B", "Z"]);
        assert_eq!(ids(store.lease("mail", "me", 0, 1, 4).await), ["_", "a", "b", "ä"]);
    });
}

#[test]
fn a_writer_that_died_gives_errors() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        store.sink.broken.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let answers = join_all((0..100).map(|i| store.run(1, [Put("a", i)]))).await;
            assert!(answers.iter().all(|a| matches!(a, Err(Error::Unavailable(_)))), "{answers:?}");
        }
        store.head().await.expect("reads go on");
        assert!(store.close().await.is_err(), "closing tells of it");
    });
}

#[test]
fn a_read_announced_as_single_is_one_statement() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        assert!(matches!(store.read(TwoInSingle).await, Err(Error::Internal(_))));
    });
}

#[test]
fn a_read_is_a_snapshot() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        store.run(1, [Put("a", 1)]).await.expect("written");
        let (reached, at_the_pause) = mpsc::sync_channel(1);
        let (go_on, waits) = mpsc::sync_channel(1);
        let twice = store.read(Twice { key: "a", reached, go_on: Mutex::new(waits) });
        let twice = tokio::spawn(twice);
        tokio::task::spawn_blocking(move || at_the_pause.recv()).await.expect("waits").expect("reached");
        store.run(1, [Put("a", 2)]).await.expect("a reader does not hold up a writer");
        assert_eq!(store.value("a").await, Some(2));
        go_on.send(()).expect("it waits");
        assert_eq!(twice.await.expect("runs").expect("reads"), (1, 1));
    });
}

#[test]
fn who_has_an_answer_reads_what_it_wrote() {
    each_backend(|store| async move {
        let store = Arc::new(store.prepared().await);
        let other = Arc::new(store.beside().await);
        const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let callers = KEYS.map(|key| {
            let (store, other) = (Arc::clone(&store), Arc::clone(&other));
            tokio::spawn(async move {
                for i in 0..40 {
                    store.run((i % 2) as u32, [Put(key, i)]).await.expect("written");
                    assert_eq!(store.value(key).await, Some(i));
                    assert_eq!(other.value(key).await, Some(i), "on another process");
                }
            })
        });
        for caller in join_all(callers).await {
            caller.expect("no panic");
        }
    });
}

#[test]
fn closing_finishes_what_is_queued_and_takes_no_more() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let queued: Vec<_> = (0..200)
            .map(|i| store.run(i % 2, [Put("a", 1), Append("x".into())][..1 + (i % 2) as usize].to_vec()))
            .collect();
        let (answers, closed) = join(join_all(queued), store.close()).await;
        closed.expect("closes");
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert!(matches!(store.run(1, [Put("a", 2)]).await, Err(Error::Unavailable(_))));
        assert!(matches!(store.run(0, [Put("a", 2)]).await, Err(Error::Unavailable(_))));
        assert!(matches!(store.head().await, Err(Error::Unavailable(_))));
        store.close().await.expect("twice does no harm");
        let again = store.beside().await;
        assert_eq!(again.log().await.len(), 100);
        assert_eq!(again.value("a").await, Some(1));
    });
}

#[test]
fn a_full_queue_refuses_at_once() {
    each_backend(|store| async move {
        let store = store.prepared().await.beside_with_queue(1).await;
        let answers = join_all((0..500).map(|i| store.run(1, [Append(i.to_string())]))).await;
        let ok = answers.iter().filter(|a| a.is_ok()).count();
        assert!(answers.iter().all(|a| matches!(a, Ok(_) | Err(Error::Unavailable(_)))));
        assert!(ok > 0 && ok < 500, "{ok} of 500");
        assert_eq!(store.log().await.len(), ok);
    });
}

#[test]
fn every_statement_is_understood() {
    each_backend(|store| async move {
        let store = store.prepared().await;
        let (mut statements, mut bulks) = all_statements();
        statements.extend(ALL);
        bulks.extend(ALL_BULK);
        let names: HashSet<&str> = statements.iter().map(|s| s.name).chain(bulks.iter().map(|b| b.name)).collect();
        assert_eq!(names.len(), statements.len() + bulks.len(), "a name is there twice");
        match store.engine() {
            Either::Sqlite(_) => crate::sqlite::check(store.path(), &statements, &bulks),
            #[cfg(feature = "postgres")]
            Either::Postgres(_) => crate::postgres::check(store.url(), &statements, &bulks).await,
        }
        .expect("all are understood");
    });
}

#[test]
fn sqlite_refuses_an_operation_that_waits_for_something_else() {
    on_sqlite(|store| async move {
        let store = store.prepared().await;
        let answers = join_all([store.run(1, [Put("a", 1), WaitForever]), store.run(1, [Put("b", 1)])]).await;
        assert!(matches!(answers[0], Err(Error::Internal(_))) && answers[1].is_ok());
        assert_eq!(store.read(Values(vec!["a", "b"])).await.expect("reads"), [None, Some(1)]);
    });
}

#[test]
fn sqlite_waits_for_another_process_that_writes() {
    on_sqlite(|store| async move {
        let store = store.prepared().await;
        let other = rusqlite::Connection::open(store.path()).expect("opens");
        let mode: String = other.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("reads");
        assert_eq!(mode, "wal");
        other.execute_batch("BEGIN IMMEDIATE; INSERT INTO kv VALUES ('other', 1)").expect("locks");
        let waiting = tokio::spawn(store.run(1, [Put("a", 1), Get("other")]));
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(!waiting.is_finished());
        other.execute_batch("COMMIT").expect("commits");
        assert_eq!(waiting.await.expect("runs").expect("written")[1], Some(1));
    });
}

#[test]
fn facts_and_the_signing_key_are_agreed_on() {
    each_backend(|store| async move {
        let other = store.beside().await;
        assert_eq!(store.server_fact("name").await.expect("reads"), None);
        let (a, b) = join(store.server_fact_or_set("name", "a"), other.server_fact_or_set("name", "b")).await;
        let name = a.expect("written");
        assert_eq!(b.expect("written"), name);
        assert_eq!(store.server_fact("name").await.expect("reads"), Some(name));

        let key = |id: &str| SigningKey { key_id: id.into(), seed: vec![1, 2, 3], created_ms: 5, expired_ms: None };
        let (a, b) = join(store.signing_key_or_set(key("ed25519:a")), other.signing_key_or_set(key("ed25519:b"))).await;
        let agreed = a.expect("written");
        assert_eq!(b.expect("written"), agreed);
        assert_eq!(store.signing_keys().await.expect("reads"), [agreed]);
        store.ping().await.expect("is there");
    });
}

fn ids(items: Result<Vec<Item>>) -> Vec<String> {
    items.expect("leases").into_iter().map(|item| item.id).collect()
}

#[test]
fn work_is_leased_done_and_given_back() {
    each_backend(|store| async move {
        let enqueue = |id: &str, due| store.run(1, [Enqueue("mail", id.into(), due)]);
        for (id, due) in [("b", 10), ("a", 10), ("c", 5), ("d", 100), ("a", 1)] {
            enqueue(id, due).await.expect("written");
        }
        assert!(store.sink.take().iter().all(|commit| commit.wakes == [Wake::Queue("mail")]));
        store.run(0, [Enqueue("other", "z".into(), 0)]).await.expect("written");

        assert_eq!(ids(store.lease("mail", "me", 10, 50, 2).await), ["c", "a"]);
        assert_eq!(ids(store.lease("mail", "you", 10, 50, 9).await), ["b"]);
        assert_eq!(ids(store.lease("mail", "you", 59, 50, 9).await), [""; 0]);
        // Only the holder has a say.
        assert_eq!(store.done(vec!["c".into(), "b".into()], "me").await.expect("written"), 1);
        assert_eq!(store.extend(vec!["a".into(), "b".into()], "me", 70).await.expect("written"), 1);
        assert_eq!(store.retry(vec!["b".into()], "you", 65).await.expect("written"), 1);
        assert_eq!(store.retry(vec!["b".into()], "you", 65).await.expect("written"), 0);
        assert_eq!(ids(store.lease("mail", "you", 64, 50, 9).await), [""; 0]);
        let again = store.lease("mail", "you", 75, 50, 9).await.expect("leases");
        let seen: Vec<_> = again.iter().map(|i| (i.id.as_str(), i.due_ms, i.attempts, i.payload.as_str())).collect();
        assert_eq!(seen, [("a", 10, 2, "of a"), ("b", 65, 2, "of b")]);
        assert_eq!(store.done(vec!["a".into()], "me").await.expect("written"), 0, "the lease had run out");
        assert_eq!(store.done(vec!["a".into(), "b".into()], "you").await.expect("written"), 2);
        assert_eq!(ids(store.lease("mail", "me", 1000, 50, 9).await), ["d"]);
    });
}

#[test]
fn planned_work_comes_round_again() {
    each_backend(|store| async move {
        store.plan("round", "it", 10).await.expect("written");
        store.plan("round", "it", 1).await.expect("written");
        assert_eq!(ids(store.lease("round", "me", 9, 50, 9).await), [""; 0], "the first plan holds");
        assert_eq!(ids(store.lease("round", "me", 10, 50, 9).await), ["it"]);
        store.plan("round", "it", 1).await.expect("written");
        assert_eq!(ids(store.lease("round", "you", 20, 50, 9).await), [""; 0], "it is held");
        assert_eq!(store.again(vec!["it".into()], "you", 100).await.expect("written"), 0);
        assert_eq!(store.again(vec!["it".into()], "me", 100).await.expect("written"), 1);
        assert_eq!(ids(store.lease("round", "you", 99, 50, 9).await), [""; 0]);
        let again = store.lease("round", "you", 100, 50, 9).await.expect("leases");
        assert_eq!(again.iter().map(|i| i.attempts).collect::<Vec<_>>(), [1], "each round counts its own attempts");
    });
}

#[test]
fn no_work_is_held_twice_at_one_time() {
    each_backend(|store| async move {
        let one = Arc::new(store);
        let two = Arc::new(one.beside().await);
        let items = (0..200).map(|i| Enqueue("mail", format!("{i:03}"), i)).collect::<Vec<_>>();
        one.run(1, items).await.expect("written");
        let workers = (0..8).map(|i| {
            let store = Arc::clone(if i % 2 == 0 { &one } else { &two });
            tokio::spawn(async move {
                let owner = format!("worker {i}");
                let mut held = Vec::new();
                loop {
                    let leased = ids(store.lease("mail", &owner, 1000, 1000, 7).await);
                    if leased.is_empty() && ids(store.lease("mail", &owner, 1000, 1000, 200).await).is_empty() {
                        return held;
                    }
                    held.extend(leased);
                }
            })
        });
        let mut held: Vec<String> =
            join_all(workers).await.into_iter().flat_map(|worker| worker.expect("no panic")).collect();
        held.sort();
        let leased = held.len();
        held.dedup();
        assert_eq!(held.len(), leased, "something was leased twice");
    });
}
