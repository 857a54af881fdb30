//! The rooms of somebody as lists of them are sorted and filtered.

use super::*;
use crate::{ListedRoom, RoomListPage};

async fn list(store: &Store, user: &str, since: Option<i64>) -> RoomListPage {
    store.room_list(user, "D", since).await.unwrap()
}

fn listed<'a>(page: &'a RoomListPage, room: &Room) -> &'a ListedRoom {
    page.rooms.iter().find(|listed| listed.room_sn == room.sn).expect("it is in the list")
}

async fn keeps(store: &Store, room: Option<&Room>, kind: &str, content: &str) {
    let scope = room.map_or(Scope::Global, |room| Scope::Room(room.id.clone()));
    let change = AccountDataChange {
        user_id: BOB.to_owned(),
        scope,
        kind: kind.to_owned(),
        content: Some(content.to_owned()),
        expects: None,
        quota: None,
    };
    store.set_account_data(change).await.unwrap();
}

#[test]
fn a_list_is_told_whole_and_then_by_what_changed() {
    each_backend(|store| async move {
        let (mut a, mut b) = (store.makes_room("a").await, store.makes_room("b").await);
        keeps(&store, Some(&a), "m.tag", r#"{"tags":{}}"#).await;
        for room in [&mut a, &mut b] {
            store.says(room, &[membership(ALICE, BOB, "invite"), membership(BOB, BOB, "join")]).await;
        }
        let page = list(&store, BOB, None).await;
        assert!(page.whole && page.head == store.now().await && page.rooms.len() == 2);
        assert_eq!(page.tags.keys().collect::<Vec<_>>(), [&a.sn]);
        let first = listed(&page, &a).clone();
        assert!(!first.is_encrypted && first.membership == "join" && first.bump_pos < first.last_pos);
        assert_eq!((first.by, first.was_in, first.kind), (None, false, None));

        let since = page.head;
        assert!(list(&store, BOB, Some(since)).await.rooms.is_empty());
        store.says(&mut a, &[message(ALICE, "hi")]).await;
        let page = list(&store, BOB, Some(since)).await;
        let now = listed(&page, &a);
        assert!(!page.whole && page.rooms.len() == 1 && page.tags.contains_key(&a.sn));
        assert_eq!((now.last_pos, now.bump_pos, now.touched_pos), (page.head, page.head, page.head));
        store.says(&mut a, &[state(ALICE, "m.room.encryption", "", json!({}))]).await;
        let page = list(&store, BOB, Some(since)).await;
        assert!(listed(&page, &a).is_encrypted && listed(&page, &a).bump_pos < page.head);
        assert!(list(&store, BOB, Some(since - 10_000)).await.whole, "that was long ago");

        // What he reads in private and keeps for himself is no change of a room.
        let since = page.head;
        let receipt = Receipt {
            room_sn: b.sn,
            user_id: BOB.to_owned(),
            receipt_type: "m.read.private".to_owned(),
            thread: String::new(),
            event_id: "$e".to_owned(),
            ts: 1,
        };
        store.set_receipt(receipt).await.unwrap();
        keeps(&store, None, "m.direct", "{}").await;
        keeps(&store, Some(&b), "k", "{}").await;
        for since in [Some(since), None] {
            let page = list(&store, BOB, since).await;
            assert_eq!((page.rooms.len(), page.read.len()), (if since.is_some() { 0 } else { 2 }, 1));
            assert_eq!(page.direct, Some(Some("{}".to_owned())));
            assert!(page.data.iter().any(|(room, kind, _)| (*room, kind.as_str()) == (b.sn, "k")));
        }
        assert!(list(&store, ALICE, Some(since)).await.read.is_empty());

        // Out, by whom, and whether they were ever in.
        store.says(&mut a, &[membership(ALICE, BOB, "leave")]).await;
        store.says(&mut b, &[membership(BOB, BOB, "leave")]).await;
        let mut c = store.makes_room("c").await;
        store.says(&mut c, &[membership(ALICE, BOB, "ban")]).await;
        let page = list(&store, BOB, Some(since)).await;
        let out = [&a, &b, &c].map(|room| {
            let listed = listed(&page, room);
            (listed.by.clone().unwrap(), listed.was_in)
        });
        assert_eq!(out, [(ALICE.to_owned(), true), (BOB.to_owned(), true), (ALICE.to_owned(), false)]);
    });
}
