//! Receipts, whom to wake, and what is forgotten.

use super::*;

#[test]
fn receipts_are_for_all_or_for_oneself() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        store.says(&mut room, &[membership(BOB, BOB, "join")]).await;
        let since = store.now().await;
        store.sink.take();
        store.set_receipt(receipt(&room, BOB, "m.read", "", "$one")).await.unwrap();
        assert_eq!(store.sink.take()[0].wakes, [Wake::Room(room.sn)]);
        store.set_receipt(receipt(&room, BOB, "m.read", "$thread", "$two")).await.unwrap();
        store.sink.take();
        store.set_receipt(receipt(&room, BOB, "m.read.private", "", "$three")).await.unwrap();
        assert_eq!(store.sink.take()[0].wakes, [Wake::User(BOB.into())]);
        let seen = |page: &SyncPage| {
            let receipts = page.joined.iter().flat_map(|room| &room.receipts);
            receipts.map(|r| (r.thread.clone(), r.event_id.clone())).collect::<Vec<_>>()
        };
        let pair = |thread: &str, event: &str| (thread.to_owned(), event.to_owned());
        for since in [None, Some(since)] {
            assert_eq!(
                seen(&store.syncs(BOB, since).await),
                [pair("", "$one"), pair("$thread", "$two"), pair("", "$three")]
            );
            assert_eq!(seen(&store.syncs(ALICE, since).await), [pair("", "$one"), pair("$thread", "$two")]);
        }
        let since = store.now().await;
        store.set_receipt(receipt(&room, BOB, "m.read", "", "$four")).await.unwrap();
        assert_eq!(seen(&store.syncs(ALICE, since).await), [pair("", "$four")]);
        assert_eq!(seen(&store.syncs(ALICE, None).await), [pair("$thread", "$two"), pair("", "$four")], "one a thread");
    });
}

#[test]
fn other_processes_learn_whom_to_wake() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let other = store.makes_room("b").await;
        let start = store.now().await;
        let wakes = async |since: i64| {
            let changes = store.changes_after(since, 100).await.unwrap();
            assert!(!changes.too_many);
            (changes.wakes, changes.rooms)
        };
        assert_eq!(wakes(start).await, (vec![], vec![]));
        store.says(&mut room, &[message(ALICE, "hi")]).await;
        assert_eq!(wakes(start).await, (vec![Wake::Room(room.sn)], vec!["!a:x".to_owned()]));
        let start = store.now().await;
        store.says(&mut room, &[membership(ALICE, BOB, "invite")]).await;
        assert_eq!(wakes(start).await.0, [Wake::Room(room.sn), Wake::User(BOB.into())]);
        let start = store.now().await;
        let change = AccountDataChange {
            user_id: BOB.to_owned(),
            scope: Scope::Global,
            kind: "k".to_owned(),
            content: Some("{}".to_owned()),
            expects: None,
            quota: None,
        };
        store.set_account_data(change).await.unwrap();
        assert_eq!(wakes(start).await.0, [Wake::User(BOB.into())]);
        let start = store.now().await;
        store.set_receipt(receipt(&other, ALICE, "m.read", "", "$one")).await.unwrap();
        assert_eq!(wakes(start).await.0, [Wake::Room(other.sn)]);
        let start = store.now().await;
        store.set_receipt(receipt(&other, ALICE, "m.read.private", "", "$one")).await.unwrap();
        assert_eq!(wakes(start).await.0, [Wake::User(ALICE.into())], "her other devices, on whichever process");
        assert!(store.changes_after(0, 2).await.unwrap().too_many);
    });
}

#[test]
fn only_what_was_left_can_be_forgotten() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        store.says(&mut room, &[membership(BOB, BOB, "join")]).await;
        assert!(!store.forget(BOB, room.sn).await.unwrap());
        assert!(!store.forget("@carol:x", room.sn).await.unwrap());
        let since = store.now().await;
        store.says(&mut room, &[membership(BOB, BOB, "leave")]).await;
        assert_eq!(store.syncs(BOB, since).await.left.len(), 1);
        assert!(store.forget(BOB, room.sn).await.unwrap());
        let all = SyncQuery { include_leave: true, ..from_now_on(BOB, None) };
        assert!(store.sync_page(all.clone()).await.unwrap().left.is_empty());
        // A device that has not heard of the leave yet still does: else it would show the room for ever.
        assert_eq!(store.syncs(BOB, since).await.left.len(), 1);
        assert!(store.room_view("!a:x", BOB).await.unwrap().unwrap().membership.unwrap().forgotten);
        // Coming again is remembering.
        store.says(&mut room, &[membership(BOB, BOB, "join")]).await;
        store.says(&mut room, &[membership(BOB, BOB, "leave")]).await;
        assert_eq!(store.sync_page(all).await.unwrap().left.len(), 1);
        assert!(store.share_a_room(ALICE, ALICE).await.unwrap() && !store.share_a_room(ALICE, BOB).await.unwrap());
    });
}
