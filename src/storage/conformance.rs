//! What an engine promises, held against both.
//!
//! One scripted operation, [`script::Do`], says what a transaction does, step by step; the tests are stories told with it.

#[cfg(feature = "postgres")]
mod compare;
#[cfg(feature = "postgres")]
mod faults;
mod keys;
mod push_rules;
mod rooms;
#[cfg(feature = "postgres")]
mod rooms_compare;
mod script;
mod unread;
mod values;
mod work;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use futures_util::future::{join, join_all};
use script::*;

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
