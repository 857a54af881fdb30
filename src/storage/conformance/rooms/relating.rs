//! Which events relate to which.

use super::*;
use crate::{
    Related, ThreadQuery,
    relations::{PagingBounds, Relations as _},
    testing::on_sqlite,
    tx::Stmt,
};

const RELATIONS: Stmt = Stmt::new(
    "relations",
    "SELECT room_sn, target, topo, topo_minor, rel_type, sn, event_id, type, sender, key, replaces, ts FROM relations
    ORDER BY sn",
);
const THREADS: Stmt =
    Stmt::new("threads", "SELECT room_sn, root, topo, topo_minor FROM threads ORDER BY room_sn, root");
const NO_RELATIONS: Stmt = Stmt::new("no_relations", "DELETE FROM relations");
const NO_THREADS: Stmt = Stmt::new("no_threads", "DELETE FROM threads");

/// A message of this kind with this content.
fn says(sender: &'static str, kind: &'static str, content: Json) -> Made {
    Made { kind, content, ..message(sender, "") }
}

fn relating(rel_type: &str, target: &str) -> Json {
    json!({ "m.relates_to": { "rel_type": rel_type, "event_id": target } })
}

fn beneath(room: &Room, event_id: &str, recurse: bool) -> Related {
    Related {
        room_sn: room.sn,
        user_id: ALICE.to_owned(),
        event_id: event_id.to_owned(),
        rel_type: None,
        event_type: None,
        recurse,
        from: (i64::MAX, i64::MAX),
        to: None,
        direction: Direction::Back,
        limit: 900,
        bounds: PagingBounds { followed: 1_000, looked_at: 5_000 },
    }
}

/// All pages, and how many there were.
async fn all_pages(store: &Store, mut query: Related) -> (Vec<String>, usize) {
    if query.direction == Direction::Forward {
        query.from = (0, i64::MIN);
    }
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = store.related(query.clone()).await.unwrap().unwrap();
        found.extend(ids(&page.events));
        pages += 1;
        let Some(end) = page.end else { return (found, pages) };
        assert!(pages < 1_000 && end != query.from, "the pages don't end");
        query.from = end;
    }
}

struct Read(Stmt);

impl Query for Read {
    const NAME: &'static str = "test_read";
    type Out = Vec<crate::tx::Row>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        tx.query(self.0, args![]).await
    }
}

struct Run(Vec<Stmt>);

impl Op for Run {
    const NAME: &'static str = "test_run";
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        for stmt in &self.0 {
            tx.execute(*stmt, args![]).await?;
        }
        Ok(())
    }
}

/// The step of the schema that finds what was stored before, as a server may run it on a database of its time.
async fn what_was_before_is_found(store: Store, step: &'static str) {
    let mut room = store.makes_room("a").await;
    let root = store.says(&mut room, &[message(ALICE, "root")]).await.remove(0);
    let mut edit = relating("m.replace", &root);
    edit["m.new_content"] = json!({ "body": "new" });
    let mut reaction = relating("m.annotation", &root);
    reaction["m.relates_to"]["key"] = "👍".into();
    let long = |key: String| json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": root, "key": key } });
    let mut text = edit.clone();
    text["m.new_content"] = "text".into();
    let mut all = vec![
        says(ALICE, "m.room.message", relating("m.thread", &root)),
        says(BOB, "m.room.message", relating("m.thread", &root)),
        says(ALICE, "m.room.message", edit.clone()),
        says(ALICE, "m.room.message", text),
        says(ALICE, "m.room.message", relating("m.replace", &root)),
        says(ALICE, "m.room.encrypted", relating("m.replace", &root)),
        says(ALICE, "m.reaction", reaction),
        says(ALICE, "m.reaction", long("x".repeat(500))),
        says(ALICE, "m.reaction", long("x".repeat(501))),
        says(ALICE, "m.reaction", long("é".repeat(251))),
        says(ALICE, "m.room.message", relating("m.thread", "$nowhere")),
        says(ALICE, "m.room.message", relating(&"x".repeat(255), &root)),
        says(ALICE, "m.room.message", relating(&"x".repeat(256), &root)),
        says(ALICE, "m.room.message", relating("", &root)),
        says(ALICE, "m.room.message", relating("m.thread", "no id")),
        says(ALICE, "m.room.message", json!({ "m.relates_to": [] })),
        says(ALICE, "m.room.message", json!({ "m.relates_to": { "rel_type": 3, "event_id": root } })),
        says(ALICE, "m.room.message", json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": { "a": 1 } } })),
        says(ALICE, "m.room.message", json!({ "body": "\"m.relates_to\" and a NUL: \0" })),
        Made { key: Some(String::new()), ..says(ALICE, "m.room.topic", edit) },
    ];
    all.push(Made { status: Status::SoftFailed, ..says(ALICE, "m.room.message", relating("m.thread", &root)) });
    let stored = store.says(&mut room, &all).await;
    // A thread within a thread, which only another server lets through.
    let (mut commit, after) =
        room.commit(store.numbers(1).await, &[says(BOB, "m.room.message", relating("m.thread", &stored[0]))]);
    commit.events[0].own = false;
    assert!(matches!(store.persist(commit).await.unwrap(), Persisted::Stored(_)));
    room = after;
    store.says(&mut room, &[message(ALICE, "the end")]).await;

    let read = async || (store.read(Read(RELATIONS)).await.unwrap(), store.read(Read(THREADS)).await.unwrap());
    let before = read().await;
    assert_eq!((before.0.len(), before.1.len()), (14, 2), "{before:?}");
    let (relations, threads) = step.split_once(";\n").unwrap();
    let step = [Stmt::new("relations_before", relations), Stmt::new("threads_before", threads)];
    store.write(Run([NO_RELATIONS, NO_THREADS].into_iter().chain(step).collect())).await.unwrap();
    let after = read().await;
    assert_eq!(before, after);
}

#[test]
fn what_was_there_before_the_table_is_found_on_sqlite() {
    let step = include_str!("../../../../migrations/0014_relations_before.sqlite.sql");
    on_sqlite(|store| what_was_before_is_found(store, step));
}

#[cfg(feature = "postgres")]
#[test]
fn what_was_there_before_the_table_is_found_on_postgres() {
    let step = include_str!("../../../../migrations/0014_relations_before.postgres.sql");
    crate::testing::on_postgres(|store| what_was_before_is_found(store, step));
}

#[test]
fn a_thread_of_thousands_is_paged_to_its_beginning() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let root = store.says(&mut room, &[message(ALICE, "root")]).await.remove(0);
        let mut all = Vec::new();
        for _ in 0..5 {
            let answers = (0..500).map(|_| says(ALICE, "m.room.message", relating("m.thread", &root)));
            let answers = store.says(&mut room, &answers.collect::<Vec<_>>()).await;
            let first = answers[0].clone();
            all.extend(answers);
            all.extend(store.says(&mut room, &[says(BOB, "m.reaction", relating("m.reference", &first))]).await);
        }
        // Late words on what is old, and words on those; what belongs to something else is not among them.
        let (oldest, other) = (all[0].clone(), store.says(&mut room, &[message(ALICE, "other")]).await.remove(0));
        let mut on = oldest;
        for _ in 0..3 {
            store.says(&mut room, &[says(BOB, "m.reaction", relating("m.reference", &other))]).await;
            on = store.says(&mut room, &[says(BOB, "m.reaction", relating("m.reference", &on))]).await.remove(0);
            all.push(on.clone());
        }
        store.says(&mut room, &[says(BOB, "m.reaction", relating("m.reference", &on))]).await;
        for (direction, recurse) in [(Direction::Back, true), (Direction::Forward, true), (Direction::Back, false)] {
            let mut expected: Vec<String> = all.clone();
            if !recurse {
                expected = expected
                    .into_iter()
                    .enumerate()
                    .filter(|(n, _)| *n < 2_505 && n % 501 != 500)
                    .map(|(_, id)| id)
                    .collect();
            }
            if direction == Direction::Back {
                expected.reverse();
            }
            let (found, _) = all_pages(&store, Related { direction, ..beneath(&room, &root, recurse) }).await;
            assert_eq!(found, expected, "{direction:?} {recurse}");
        }
        let threads = ThreadQuery {
            room_sn: room.sn,
            user_id: BOB.to_owned(),
            participated: false,
            from: (i64::MAX, i64::MAX),
            limit: 10,
            until: None,
        };
        assert!(store.threads(threads.clone()).await.unwrap().roots.is_empty(), "Bob is a stranger");
        let page = store.threads(ThreadQuery { user_id: ALICE.to_owned(), ..threads }).await.unwrap();
        assert_eq!(ids(&page.roots), [&*root]);
        let thread = page.bundles[&page.roots[0].sn].thread.as_ref().unwrap();
        assert_eq!((thread.count, thread.participated), (2_500, true));
    });
}

#[test]
fn a_walk_through_the_room_finds_what_following_finds() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let other = store.says(&mut room, &[message(ALICE, "other")]).await.remove(0);
        let foreign = async |room: &mut Room, n: usize| {
            let all = (0..n).map(|_| says(BOB, "m.reaction", relating("m.reference", &other)));
            store.says(room, &all.collect::<Vec<_>>()).await;
        };
        foreign(&mut room, 50).await;
        let root = store.says(&mut room, &[message(ALICE, "root")]).await.remove(0);
        let mut beneath_it = vec![root.clone()];
        for n in 0..60 {
            // Only what relates to nothing begins a thread.
            let (rel_type, target) = match n % 4 {
                0 => ("m.thread", 0),
                1 => ("m.replace", n * 7 % beneath_it.len()),
                _ => ("m.reference", n * 7 % beneath_it.len()),
            };
            let (kind, target) = (["m.room.message", "m.reaction"][n / 4 % 2], &beneath_it[target]);
            let said = store.says(&mut room, &[says(ALICE, kind, relating(rel_type, target))]).await;
            beneath_it.extend(said);
            foreign(&mut room, n % 5).await;
        }
        foreign(&mut room, 50).await;

        let whole = beneath(&room, &root, true);
        let middle = store.related(Related { limit: 20, ..whole.clone() }).await.unwrap().unwrap().end;
        for direction in [Direction::Back, Direction::Forward] {
            for (rel_type, event_type, to, limit) in [
                (None, None, None, 900),
                (None, None, None, 3),
                (Some("m.thread"), None, None, 4),
                (None, Some("m.reaction"), None, 1),
                (Some("m.reference"), Some("m.room.message"), None, 2),
                (None, None, middle, 5),
            ] {
                let wish = |followed: usize, looked_at: usize| Related {
                    rel_type: rel_type.map(str::to_owned),
                    event_type: event_type.map(str::to_owned),
                    to,
                    limit,
                    direction,
                    bounds: PagingBounds { followed, looked_at },
                    ..whole.clone()
                };
                let what = format!("{direction:?} {rel_type:?} {event_type:?} {to:?} {limit}");
                let (followed, pages) = all_pages(&store, wish(1_000, 1_000)).await;
                assert!(!followed.is_empty(), "{what}");
                // Wholly by walks: of any length, and with pages that end before anything is found.
                for looked_at in [1_000, 1] {
                    let (walked, more) = all_pages(&store, wish(0, looked_at)).await;
                    assert_eq!(walked, followed, "{what}, {looked_at} at once");
                    assert!(more >= pages);
                }
            }
        }
        // What was before the event is not walked through.
        let forward = Related {
            direction: Direction::Forward,
            from: (0, i64::MIN),
            limit: 1,
            bounds: PagingBounds { followed: 0, looked_at: 1 },
            ..whole
        };
        let first = store.related(forward).await.unwrap().unwrap();
        assert_eq!(ids(&first.events), [&*beneath_it[1]]);
    });
}

#[test]
fn who_came_and_went_sees_in_stretches() {
    let joined = |pos: i64| (pos, "join".to_owned());
    let left = |pos: i64| (pos, "leave".to_owned());
    let log = |visibility: &str, membership: Vec<(i64, String)>| crate::VisibilityLog {
        visibility: vec![(2, Some(visibility.into()))],
        membership,
    };
    let shared = log("shared", vec![joined(10), left(20), joined(30)]);
    assert_eq!(shared.stretches(None), [(0, i64::MAX)]);
    assert_eq!(shared.stretches(Some(25)), [(0, 25)]);
    let only_joined = log("joined", vec![joined(10), left(20), joined(30)]);
    // What was before the room said who sees it, and what they were there for.
    assert_eq!(only_joined.stretches(None), [(0, 1), (10, 19), (30, i64::MAX)]);
    assert_eq!(log("shared", vec![joined(10), left(20)]).stretches(None), [(0, 19)]);
    assert_eq!(log("joined", vec![]).stretches(None), []);
    let often = (0..50).flat_map(|n| [joined(10 + 2 * n), left(11 + 2 * n)]).collect();
    let stretches = log("joined", often).stretches(None);
    assert_eq!((stretches.len(), stretches.last()), (20, Some(&(108, 108))));
}
