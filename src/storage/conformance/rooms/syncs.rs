//! What a sync shows of rooms.

use super::*;

#[test]
fn a_sync_from_any_token() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        let made = store.now().await;
        store.says(&mut room, &[membership(ALICE, BOB, "invite")]).await;
        let invited = store.now().await;
        store.says(&mut room, &[membership(BOB, BOB, "join")]).await;
        let joined = store.now().await;
        let hi = store.says(&mut room, &[message(ALICE, "hi")]).await.remove(0);
        let hi_at = store.now().await;

        // Before he was invited, invited, joined: each a newcomer, who is told all; but who was in is told what is new.
        for since in [None, Some(0), Some(made), Some(invited)] {
            let page = store.syncs(BOB, since).await;
            let part = only(&page.joined);
            assert!(part.initial && part.state.len() + part.timeline.len() == 4 + 3, "from {since:?}");
            assert_eq!(page.following, [room.sn]);
            assert!(page.invited.is_empty());
        }
        let page = store.syncs(BOB, joined).await;
        let part = only(&page.joined);
        assert_eq!((part.initial, part.limited, ids(&part.timeline)), (false, false, vec![hi.clone()]));
        assert!(part.state.is_empty());
        assert_eq!(page.head, hi_at);
        assert!(store.syncs(BOB, hi_at).await.joined.is_empty());

        // Too much for one page: the newest, and what changed of the state in between.
        let topic = store.says(&mut room, &[state(ALICE, "m.room.topic", "", json!({}))]).await.remove(0);
        for n in 0..3 {
            store.says(&mut room, &[message(ALICE, &n.to_string())]).await;
        }
        let page = store.sync_page(SyncQuery { timeline_limit: 2, ..from_now_on(BOB, hi_at) }).await.unwrap();
        let part = only(&page.joined);
        assert!(part.limited && !part.initial);
        assert_eq!((part.timeline.len(), ids(&part.state)), (2, vec![topic]));
        let page = store.sync_page(SyncQuery { timeline_limit: 4, ..from_now_on(BOB, hi_at) }).await.unwrap();
        assert!(!only(&page.joined).limited, "just all of them");
        let full = SyncQuery { timeline_limit: 2, full_state: true, ..from_now_on(BOB, hi_at) };
        let page = store.sync_page(full).await.unwrap();
        assert_eq!(only(&page.joined).state.len(), 6);

        // He leaves, and says no more.
        let before_leave = store.now().await;
        let leave = store.says(&mut room, &[membership(BOB, BOB, "leave")]).await.remove(0);
        let left = store.now().await;
        store.says(&mut room, &[message(ALICE, "he is gone")]).await;
        let page = store.syncs(BOB, before_leave).await;
        assert!(page.joined.is_empty() && page.following.is_empty());
        assert_eq!(ids(&only(&page.left).timeline), std::slice::from_ref(&leave));
        assert!(store.syncs(BOB, left).await.left.is_empty());
        assert!(store.syncs(BOB, None).await.left.is_empty(), "a first sync says nothing of old rooms");
        let page = store.sync_page(SyncQuery { include_leave: true, ..from_now_on(BOB, None) }).await.unwrap();
        assert_eq!(ids(&only(&page.left).timeline).last(), Some(&leave), "unless asked to");
        // One who joined and left since the token is told of the leave.
        let page = store.syncs(BOB, made).await;
        assert_eq!(ids(&only(&page.left).timeline).last(), Some(&leave));

        // He comes again: a newcomer, unless the token is from when he was in, too.
        store.says(&mut room, &[membership(BOB, BOB, "join")]).await;
        assert!(only(&store.syncs(BOB, left).await.joined).initial);
        let page = store.syncs(BOB, joined).await;
        let part = only(&page.joined);
        assert!(!part.initial && part.timeline.iter().any(|e| e.event_id == hi));
    });
}

#[test]
fn an_invite_shows_what_a_stranger_may_know() {
    each_backend(|store| async move {
        let mut room = store.makes_room("a").await;
        store.says(&mut room, &[state(ALICE, "m.room.name", "", json!({ "name": "Kitchen" }))]).await;
        store.says(&mut room, &[message(ALICE, "secret")]).await;
        let since = store.now().await;
        let invite = store.says(&mut room, &[membership(ALICE, BOB, "invite")]).await.remove(0);
        for since in [None, Some(since)] {
            let page = store.syncs(BOB, since).await;
            assert!(page.joined.is_empty() && page.left.is_empty());
            assert_eq!((page.invited[0].membership.event_id.as_str(), page.invited.len()), (invite.as_str(), 1));
            assert_eq!(page.invited[0].state.len(), 4, "create, join rules, name, and who invites");
        }
        assert!(store.syncs(BOB, store.now().await).await.invited.is_empty());
        let invited = store.now().await;
        // Who refuses sees the refusal, and no history.
        let leave = store.says(&mut room, &[membership(BOB, BOB, "leave")]).await.remove(0);
        let page = store.syncs(BOB, invited).await;
        assert_eq!(ids(&only(&page.left).timeline), [leave]);
        assert!(only(&page.left).state.is_empty() && !only(&page.left).limited);
        store.says(&mut room, &[membership(BOB, BOB, "knock")]).await;
        assert_eq!(store.syncs(BOB, since).await.knocked.len(), 1);
    });
}

#[test]
fn many_nameless_rooms_are_asked_after_at_once() {
    each_backend(|store| async move {
        let mut rooms = Vec::new();
        for name in ["a", "b", "c"] {
            let mut room = store.makes_room(name).await;
            // Those who came first are gone.
            for what in ["join", "leave"] {
                let passers_by: Vec<Made> = (0..35).map(|n| membership(ALICE, &format!("@{n}:x"), what)).collect();
                store.says(&mut room, &passers_by).await;
            }
            store.says(&mut room, &[membership(BOB, BOB, "join")]).await;
            store.says(&mut room, &[membership(ALICE, "@carol:x", "invite")]).await;
            rooms.push(room);
        }
        let cost_of = async |rooms: &[Room]| {
            let only_rooms = Some(rooms.iter().map(|room| room.id.clone()).collect());
            let before = store.work()["sync_page"].statements;
            let page = store.sync_page(SyncQuery { only_rooms, ..from_now_on(BOB, None) }).await.unwrap();
            assert_eq!(page.joined.len(), rooms.len());
            for room in page.joined {
                assert_eq!(room.summary.unwrap().heroes, [ALICE, "@carol:x"]);
            }
            store.work()["sync_page"].statements - before
        };
        store.syncs(BOB, None).await;
        assert_eq!(cost_of(&rooms[..1]).await, cost_of(&rooms).await);
    });
}

#[test]
fn a_search_for_what_a_filter_wants_has_an_end() {
    each_backend(|store| async move {
        let mut rooms = Vec::new();
        for name in ["a", "b"] {
            let mut room = store.makes_room(name).await;
            store.says(&mut room, &[membership(BOB, BOB, "join"), message(ALICE, "the one")]).await;
            let noise: Vec<Made> = (0..9_500).map(|n| message(BOB, &n.to_string())).collect();
            for part in noise.chunks(1_900) {
                store.says(&mut room, part).await;
            }
            rooms.push(room);
        }
        let mut filter = RoomEventFilter::default();
        filter.senders = Some(vec![ALICE.try_into().unwrap()]);
        filter.types = Some(vec!["m.room.message".to_owned()]);
        // The places of a room's events, the newest first.
        let places = async |room: &Room| {
            let mut places = Vec::new();
            let mut from = (i64::MAX, i64::MAX);
            loop {
                let page = store.page(page_of(room, BOB, from, Direction::Back, 1_000)).await.unwrap();
                places.extend(page.events.iter().map(|e| (e.topo, e.topo_minor)));
                let Some(end) = page.end else { return places };
                from = end;
            }
        };
        // Of the newest a sync looks at some more than are asked for.
        let first_look = 11;
        for shown in [&rooms[..1], &rooms[..]] {
            let only_rooms = Some(shown.iter().map(|room| room.id.clone()).collect());
            let q = SyncQuery { timeline_limit: 1, filter: filter.clone(), only_rooms, ..from_now_on(BOB, None) };
            let page = store.sync_page(q).await.unwrap();
            assert_eq!(page.joined.len(), shown.len());
            for part in page.joined {
                let room = shown.iter().find(|room| room.sn == part.room.room_sn).unwrap();
                let places = places(room).await;
                let looked_at = first_look + 4_000 / shown.len();
                assert!(part.timeline.is_empty() && part.limited, "the search ends, and says so");
                assert_eq!(part.start, places[looked_at - 1]);

                let on = |from| PageQuery { filter: filter.clone(), ..page_of(room, BOB, from, Direction::Back, 1) };
                let page = store.page(on(part.start)).await.unwrap();
                assert!(page.events.is_empty());
                assert_eq!(page.end, Some(places[looked_at + 5_000 - 1]), "it goes on there, and ends once more");
                let mut page = page;
                while page.events.is_empty() {
                    page = store.page(on(page.end.unwrap())).await.unwrap();
                }
                assert!(page.events[0].json.contains("the one"));
            }
        }
        // The other way, from where the one was said.
        let room = &rooms[0];
        let places = places(room).await;
        let after_it = places[9_499];
        let hers = PageQuery { filter, ..page_of(room, BOB, after_it, Direction::Forward, 1) };
        let page = store.page(hers.clone()).await.unwrap();
        assert!(page.events.is_empty());
        assert_eq!(page.end, Some((places[4_500].0, places[4_500].1 + 1)), "behind the five thousandth");
        let page = store.page(PageQuery { from: page.end.unwrap(), ..hers }).await.unwrap();
        assert!(page.events.is_empty() && page.end.is_none(), "it came to the end");
    });
}

#[test]
fn rooms_can_be_chosen() {
    each_backend(|store| async move {
        store.makes_room("a").await;
        store.makes_room("b").await;
        let only_a = SyncQuery { only_rooms: Some(vec!["!a:x".to_owned()]), ..from_now_on(ALICE, None) };
        assert_eq!(only(&store.sync_page(only_a).await.unwrap().joined).room.room_id, "!a:x");
        let not_a = SyncQuery { not_rooms: vec!["!a:x".to_owned()], ..from_now_on(ALICE, None) };
        assert_eq!(only(&store.sync_page(not_a).await.unwrap().joined).room.room_id, "!b:x");
        assert_eq!(store.syncs(ALICE, None).await.joined.len(), 2);
        assert_eq!(store.rooms_of(ALICE, "join").await.unwrap(), ["!a:x", "!b:x"]);
    });
}
