//! Messages that wait together are stored together, and it must not show.

use futures_util::future::join_all;
use hearth_core::push::{Counts, DEFAULT_CLASS, Place};

use super::*;
use crate::Notice;

/// A message and nothing else, as a send makes it.
fn said(room: &Room, sn: i64, txn: &str) -> (RoomCommit, Room) {
    let (mut commit, after) = room.commit(sn, &[message(ALICE, txn)]);
    commit.nodes.clear();
    let classes = vec![(DEFAULT_CLASS.to_owned(), Counts { notify: 1, highlight: 0 })];
    commit.events[0].notice = Notice { place: Place::Main, classes, own: vec![] };
    commit.transaction = Some(Transaction {
        user_id: ALICE.to_owned(),
        device_id: "D".to_owned(),
        txn_id: txn.to_owned(),
        scope: "send".to_owned(),
        result: commit.events[0].pdu.event_id.to_string(),
    });
    commit.events[0].sent_by = Some(("D".to_owned(), txn.to_owned()));
    (commit, after)
}

#[test]
fn messages_that_wait_together_stand_one_after_another() {
    each_backend(|store| async move {
        let mut rooms = [store.makes_room("a").await, store.makes_room("b").await];
        let stale = rooms[1].clone();
        store.says(&mut rooms[1], &[state(ALICE, "m.room.topic", "", json!({ "topic": "new" }))]).await;
        store.says(&mut rooms[0], &[membership(ALICE, BOB, "invite"), membership(BOB, BOB, "join")]).await;
        let mut roots = Vec::new();
        for room in &rooms {
            roots.push(store.all_back(room, ALICE).await.events[0].event_id.clone());
        }
        let (since, numbers) = (store.now().await, store.numbers(64).await);
        let before = store.work()["persist"];

        // All are queued before the first is waited for.
        let (mut queued, mut expected) = (Vec::new(), [Vec::new(), Vec::new()]);
        for i in 0..62 {
            let which = usize::from(i % 3 == 0);
            let (mut commit, after) = said(&rooms[which], numbers + i, &format!("t{i}"));
            if i % 7 == 1 {
                commit.events[0].notice.place = Place::Thread(roots[which].as_str().try_into().unwrap());
            }
            rooms[which] = after;
            expected[which].push(commit.events[0].pdu.event_id.to_string());
            queued.push(store.persist(commit));
        }
        let (late, _) = said(&stale, numbers + 62, "late");
        let mut lost = rooms[0].clone();
        lost.tips = vec![9_999];
        let (lost, _) = said(&lost, numbers + 63, "lost");
        queued.extend([store.persist(late), store.persist(lost)]);
        let mut answers = join_all(queued).await;

        for refused in answers.split_off(62) {
            assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
        }
        let positions: Vec<i64> = answers
            .into_iter()
            .map(|answer| match answer.unwrap() {
                Persisted::Stored(at) => at[0],
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(positions.is_sorted(), "{positions:?}");
        for listed in store.room_list(ALICE, "D", None).await.unwrap().rooms {
            let which = usize::from(listed.room_sn == rooms[1].sn);
            let last = (0..62).zip(&positions).rfind(|(i, _)| usize::from(i % 3 == 0) == which).map(|(_, pos)| *pos);
            assert_eq!((Some(listed.last_pos), Some(listed.bump_pos)), (last, last), "room {which}");
        }
        for (room, expected) in rooms.iter().zip(&expected) {
            let head = store.room_head(&room.id).await.unwrap().unwrap();
            assert_eq!(head.extremities.iter().map(|e| e.sn).collect::<Vec<_>>(), room.tips);
            let page = store.all_back(room, ALICE).await;
            let newest: Vec<String> = page.events[..expected.len()].iter().rev().map(|e| e.event_id.clone()).collect();
            assert_eq!(newest, *expected);
            assert_eq!(Some(head.room.last_pos), page.events[0].pos);
        }
        let told: usize = store.syncs(ALICE, since).await.joined.iter().map(|room| room.timeline.len()).sum();
        assert_eq!(told, 20, "ten a room");
        let unread = async |user: &str| only(&store.syncs(user, since).await.joined[..1]).unread.clone();
        let (alice, bob) = (unread(ALICE).await, unread(BOB).await);
        assert!(alice.is_empty(), "she said it all herself: {alice:?}");
        let in_thread: i64 = (0..62).filter(|i| i % 3 != 0 && i % 7 == 1).count().try_into().unwrap();
        let all = i64::try_from(expected[0].len()).unwrap();
        assert_eq!((bob.main().notify, bob.all().notify), (all - in_thread, all), "{bob:?}");
        let work = store.work()["persist"];
        let (runs, statements) = (work.runs - before.runs, work.statements - before.statements);
        assert!(runs >= 64 && statements < 4 * 62, "{statements} statements in {runs} runs");
    });
}

#[test]
fn a_transaction_id_counts_once_among_messages_that_wait_together() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let numbers = store.numbers(6).await;
        let (first, after) = said(&room, numbers, "again");
        let id = first.events[0].pdu.event_id.to_string();
        room = after;
        // The same request twice, and one that was decided on top of its second message.
        let (second, after) = said(&room, numbers + 1, "again");
        let (on_top, _) = said(&after, numbers + 2, "on top");
        let (beside, _) = said(&room, numbers + 3, "beside");
        let queued = [first, second, on_top, beside].map(|commit| store.persist(commit));
        let answers = join_all(queued).await;
        assert!(matches!(answers[0], Ok(Persisted::Stored(_))));
        assert_eq!(answers[1].as_ref().unwrap(), &Persisted::Repeated(id));
        assert!(matches!(answers[2], Err(Error::Conflict(_))), "what it builds on is not there: {answers:?}");
        assert!(matches!(answers[3], Ok(Persisted::Stored(_))));
        assert_eq!(store.all_back(&room, ALICE).await.events.len(), 4 + 2);
    });
}

#[test]
fn messages_that_wait_together_may_build_on_something_older() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let fork = room.clone();
        store.says(&mut room, &[message(ALICE, "one end")]).await;
        let numbers = store.numbers(2).await;
        let (one, after_one) = said(&fork, numbers, "other end");
        let (two, after_two) = said(&room, numbers + 1, "this end");
        let answers = join_all([store.persist(one), store.persist(two)]).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Persisted::Stored(_)))), "{answers:?}");
        let mut tips: Vec<i64> =
            store.room_head("!a:x").await.unwrap().unwrap().extremities.iter().map(|e| e.sn).collect();
        tips.sort_unstable();
        assert_eq!(tips, [after_one.tips[0], after_two.tips[0]]);
    });
}
