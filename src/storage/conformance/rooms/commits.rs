//! What a commit does to a room, and when it is refused.

use super::*;

#[test]
fn a_room_is_counted_and_built_upon() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        store.says(&mut room, &[membership(ALICE, BOB, "invite")]).await;
        let row = store.room("!a:x").await.unwrap().unwrap();
        assert_eq!((row.joined, row.invited, row.rev), (1, 1, 2));
        store.says(&mut room, &[membership(BOB, BOB, "join"), message(BOB, "hi")]).await;
        let head = store.room_head("!a:x").await.unwrap().unwrap();
        assert_eq!((head.room.joined, head.room.invited, head.room.rev), (2, 0, 3));
        assert_eq!(head.extremities.iter().map(|e| e.sn).collect::<Vec<_>>(), room.tips);
        assert_eq!(head.room.last_pos, store.now().await);
        assert_eq!(head.room.state_root, root(3));
        assert_eq!(store.state_nodes(room.sn, vec![root(3), root(9)]).await.unwrap(), [(root(3), b"node".to_vec())]);
        // A message changes no state: what was decided on that state still holds.
        store.says(&mut room, &[message(BOB, "more")]).await;
        assert_eq!(store.room("!a:x").await.unwrap().unwrap().rev, 3);
        store.says(&mut room, &[membership(BOB, BOB, "leave")]).await;
        let row = store.room("!a:x").await.unwrap().unwrap();
        assert_eq!((row.joined, row.invited), (1, 0));
        assert!(store.room("!b:x").await.unwrap().is_none());
        assert!(store.room_head("!b:x").await.unwrap().is_none());
    });
}

#[test]
fn a_transaction_id_counts_once_for_a_device_and_scope() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let mut send = async |device: &str, scope: &str| {
            let (mut commit, after) = room.commit(store.numbers(1).await, &[message(ALICE, "once")]);
            let id = commit.events[0].pdu.event_id.to_string();
            commit.transaction = Some(Transaction {
                user_id: ALICE.to_owned(),
                device_id: device.to_owned(),
                txn_id: "t".to_owned(),
                scope: scope.to_owned(),
                result: id.clone(),
            });
            commit.events[0].sent_by = Some((device.to_owned(), "t".to_owned()));
            match store.persist(commit).await.unwrap() {
                Persisted::Stored(_) => {
                    room = after;
                    (id, true)
                }
                Persisted::Repeated(first) => (first, false),
                other => panic!("{other:?}"),
            }
        };
        let (first, new) = send("D", "send").await;
        assert!(new);
        assert_eq!(send("D", "send").await, (first.clone(), false), "it is what it was");
        let (second, new) = send("E", "send").await;
        assert!(new && second != first, "another device's id is another");
        let (third, new) = send("D", "redact").await;
        assert!(new && third != first, "so is one of another endpoint");
        let stored = store.events_by_id(vec![first]).await.unwrap();
        assert_eq!((stored[0].device_id.as_deref(), stored[0].txn_id.as_deref()), (Some("D"), Some("t")));
        assert_eq!(store.all_back(&room, ALICE).await.events.len(), 4 + 3);
    });
}

#[test]
fn who_decided_on_an_old_state_decides_again() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let stale = room.clone();
        store.says(&mut room, &[state(ALICE, "m.room.topic", "", json!({ "topic": "one" }))]).await;
        let (late, _) = stale.commit(store.numbers(1).await, &[message(ALICE, "late")]);
        let head = store.now().await;
        assert!(matches!(store.persist(late).await, Err(Error::Conflict(_))));
        // A message on an older event is legal if the state is the same: two ends.
        let fork = room.clone();
        store.says(&mut room, &[message(ALICE, "one end")]).await;
        let (other, after) = fork.commit(store.numbers(1).await, &[message(ALICE, "other end")]);
        store.persist(other).await.unwrap();
        let tips = store.room_head("!a:x").await.unwrap().unwrap().extremities;
        assert_eq!(tips.iter().map(|t| t.sn).collect::<Vec<_>>(), [room.tips[0], after.tips[0]]);
        // What builds on an event that isn't stored is not stored either.
        let mut on_nothing = room.clone();
        on_nothing.tips = vec![9_999];
        let (lost, _) = on_nothing.commit(store.numbers(1).await, &[message(ALICE, "lost")]);
        assert!(matches!(store.persist(lost).await, Err(Error::Conflict(_))));
        assert_eq!(store.syncs(ALICE, head).await.joined[0].timeline.len(), 2);
    });
}

#[test]
fn what_is_here_already_is_known() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let (commit, after) = room.commit(store.numbers(1).await, &[message(ALICE, "hi")]);
        store.persist(commit.clone()).await.unwrap();
        let mut again = commit;
        again.events[0].sn = store.numbers(1).await;
        assert_eq!(store.persist(again.clone()).await.unwrap(), Persisted::Known);
        // Two devices that say the same in the same moment make the same event, each under an id of its own.
        again.transaction = Some(Transaction {
            user_id: ALICE.to_owned(),
            device_id: "OTHER".to_owned(),
            txn_id: "1".to_owned(),
            scope: "send".to_owned(),
            result: again.events[0].pdu.event_id.to_string(),
        });
        assert_eq!(store.persist(again).await.unwrap(), Persisted::Known);
        room = after;
        let mut same = Room::new(store.numbers(1).await, "a");
        let (mut commit, _) = same.commit(store.numbers(4).await, &beginning(BOB));
        assert_eq!(store.persist(commit.clone()).await.unwrap(), Persisted::RoomExists);
        let alias = |alias: &str| Some(NewAlias { alias: alias.to_owned(), creator: BOB.to_owned() });
        same.id = "!b:x".to_owned();
        commit.base = Base::New { room_id: same.id.clone(), version: "11".to_owned() };
        commit.alias = alias("#b:x");
        store.persist(commit).await.unwrap();
        assert_eq!(store.alias("#b:x").await.unwrap().unwrap().room_id, "!b:x");
        let third = Room::new(store.numbers(1).await, "c");
        let (mut commit, _) = third.commit(store.numbers(4).await, &beginning(BOB));
        commit.alias = alias("#b:x");
        assert_eq!(store.persist(commit).await.unwrap(), Persisted::AliasTaken);
        assert!(store.room("!c:x").await.unwrap().is_none(), "nothing of it is stored");
        assert_eq!(store.all_back(&room, ALICE).await.events.len(), 5);
    });
}

#[test]
fn what_is_redacted_is_redacted_wherever_it_is_read() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let since = store.now().await;
        let target = store.says(&mut room, &[message(ALICE, "secret")]).await.remove(0);
        let redaction = state(ALICE, "m.room.redaction", "", json!({}));
        let (mut commit, after) = room.commit(store.numbers(1).await, &[Made { key: None, ..redaction }]);
        let by = commit.events[0].pdu.event_id.to_string();
        commit.redactions = vec![Redaction {
            redaction_sn: commit.events[0].sn,
            redaction_id: by.clone(),
            target_id: target.clone(),
            redacted_json: Some("{}".to_owned()),
        }];
        store.persist(commit).await.unwrap();
        room = after;
        let event = store.event(&target, ALICE).await.unwrap().unwrap();
        let page = store.all_back(&room, ALICE).await;
        let sync = store.syncs(ALICE, since).await;
        let part = only(&sync.joined);
        for (events, because) in
            [(&event.events, &event.because), (&page.events, &page.because), (&part.timeline, &part.because)]
        {
            let found = events.iter().find(|e| e.event_id == target).unwrap();
            assert_eq!((found.json.as_str(), found.redacted_by.as_deref()), ("{}", Some(by.as_str())));
            assert_eq!(ids(because), std::slice::from_ref(&by));
        }
        assert!(!page.events.iter().any(|e| e.json.contains("secret")));
    });
}
