//! States, pages and logs of a room.

use super::*;

#[test]
fn the_state_at_any_position() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let mut topics = vec![];
        let before = store.now().await;
        for n in 0..3 {
            let id = store.says(&mut room, &[state(ALICE, "m.room.topic", "", json!({ "n": n }))]).await.remove(0);
            store.says(&mut room, &[message(ALICE, "between")]).await;
            topics.push((store.now().await, id));
        }
        // The first of them becomes current again, without an event of its own.
        let first = store.events_by_id(vec![topics[0].1.clone()]).await.unwrap()[0].sn;
        let (mut commit, mut after) = room.commit(store.numbers(1).await, &[message(ALICE, "a merge")]);
        commit.changes = vec![after.change(0, "m.room.topic", "", Some(first), None)];
        store.persist(commit).await.unwrap();
        after.rev += 1;
        room = after;
        topics.push((store.now().await, topics[0].1.clone()));
        // And is taken away.
        let (mut commit, mut after) = room.commit(store.numbers(1).await, &[message(ALICE, "another")]);
        commit.changes = vec![after.change(0, "m.room.topic", "", None, None)];
        store.persist(commit).await.unwrap();
        room = after;
        let topic = || StateOf::Key("m.room.topic".to_owned(), String::new());
        assert!(store.state(room.sn, topic(), Some(before)).await.unwrap().is_empty(), "not yet");
        assert!(store.state(room.sn, topic(), None).await.unwrap().is_empty(), "not any more");
        for (at, id) in &topics {
            assert_eq!(ids(&store.state(room.sn, topic(), Some(*at)).await.unwrap()), std::slice::from_ref(id));
            assert_eq!(store.state(room.sn, StateOf::All, Some(*at)).await.unwrap().len(), 5);
        }
        assert_eq!(store.state(room.sn, StateOf::All, None).await.unwrap().len(), 4);
        let members = store.state(room.sn, StateOf::Type("m.room.member".to_owned()), Some(before)).await.unwrap();
        assert_eq!(members.len(), 1);
        assert!(store.state(room.sn, StateOf::All, Some(0)).await.unwrap().is_empty());

        // What a sync tells of the same: from the last message between on, the topic went back; then it was taken away.
        let page = store.syncs(ALICE, topics[2].0).await;
        assert_eq!(only(&page.joined).state.len(), 0);
        let page = store.syncs(ALICE, None).await;
        assert!(!only(&page.joined).state.iter().any(|e| e.json.contains("topic")));
    });
}

#[test]
fn an_old_event_that_becomes_current_comes_with_the_state() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let old = store.says(&mut room, &[state(ALICE, "m.room.topic", "", json!({ "n": 1 }))]).await.remove(0);
        let old_sn = room.now("m.room.topic", "").unwrap();
        store.says(&mut room, &[state(ALICE, "m.room.topic", "", json!({ "n": 2 }))]).await;
        let since = store.now().await;
        let (mut commit, mut after) = room.commit(store.numbers(1).await, &[message(ALICE, "a merge")]);
        let merge = commit.events[0].pdu.event_id.to_string();
        commit.changes = vec![after.change(0, "m.room.topic", "", Some(old_sn), None)];
        store.persist(commit).await.unwrap();
        let page = store.syncs(ALICE, since).await;
        let part = only(&page.joined);
        assert_eq!((ids(&part.timeline), ids(&part.state)), (vec![merge], vec![old.clone()]));
        let fresh = store.sync_page(SyncQuery { timeline_limit: 1, ..from_now_on(ALICE, None) }).await.unwrap();
        assert!(ids(&only(&fresh.joined).state).contains(&old));
        assert_eq!(store.syncs(ALICE, store.now().await).await.joined.len(), 0);
    });
}

#[test]
fn pages_go_both_ways_without_gap_or_repetition() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let mut other = store.makes_room("b").await;
        for n in 0..7 {
            store.says(&mut room, &[message(ALICE, &n.to_string())]).await;
            store.says(&mut other, &[message(ALICE, "elsewhere")]).await;
            let refused = Made { status: Status::SoftFailed, ..message(ALICE, "refused") };
            store.says(&mut room, &[refused]).await;
        }
        let all: Vec<String> = {
            let mut all = ids(&store.all_back(&room, ALICE).await.events);
            all.reverse();
            all
        };
        assert_eq!(all.len(), 4 + 7, "what was refused is not among them");
        for limit in [1, 2, 3, 50] {
            let (mut back, mut boundary) = (vec![], (i64::MAX, i64::MAX));
            loop {
                let page = store.page(page_of(&room, ALICE, boundary, Direction::Back, limit)).await.unwrap();
                let Some(last) = page.events.last() else { break };
                boundary = (last.topo, last.topo_minor);
                back.extend(ids(&page.events));
            }
            back.reverse();
            let (mut forward, mut boundary) = (vec![], (0, 0));
            loop {
                let page = store.page(page_of(&room, ALICE, boundary, Direction::Forward, limit)).await.unwrap();
                let Some(last) = page.events.last() else { break };
                boundary = (last.topo, last.topo_minor + 1);
                forward.extend(ids(&page.events));
            }
            assert_eq!((&back, &forward), (&all, &all), "{limit} at a time");
        }
    });
}

#[test]
fn who_was_there_when_is_logged() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let hidden = store.says(&mut room, &[message(ALICE, "before")]).await.remove(0);
        let visibility = |v: &str| state(ALICE, "m.room.history_visibility", "", json!({ "history_visibility": v }));
        store.says(&mut room, &[visibility("joined")]).await;
        let unseen = store.says(&mut room, &[message(ALICE, "among us")]).await.remove(0);
        store.says(&mut room, &[membership(BOB, BOB, "join")]).await;
        let seen = store.says(&mut room, &[message(ALICE, "hello Bob")]).await.remove(0);
        store.says(&mut room, &[membership(BOB, BOB, "leave")]).await;
        let late = store.says(&mut room, &[message(ALICE, "he is gone")]).await.remove(0);
        for (id, sees) in [(&hidden, true), (&unseen, false), (&seen, true), (&late, false)] {
            let found = store.event(id, BOB).await.unwrap().unwrap();
            assert_eq!(found.log.sees(&found.events[0], BOB), sees, "{id}");
            let found = store.event(id, ALICE).await.unwrap().unwrap();
            assert!(found.log.sees(&found.events[0], ALICE));
        }
        let log = store.all_back(&room, BOB).await.log;
        assert_eq!(log.visibility.len(), 2);
        assert_eq!(log.membership.iter().map(|(_, m)| m.as_str()).collect::<Vec<_>>(), ["join", "leave"]);
        assert!(store.all_back(&room, "@carol:x").await.log.membership.is_empty());
        assert!(store.event("$nothing", BOB).await.unwrap().is_none());
    });
}
