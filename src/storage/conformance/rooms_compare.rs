//! Random lives of rooms, one on both engines: whoever asks gets the same answers.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use ruma::api::client::filter::RoomEventFilter;
use serde_json::json;

use super::{
    rooms::{Made, Room, beginning, from_now_on, ids, membership, message, page_of, receipt, state},
    *,
};
use crate::{
    AccountDataChange, Direction, RoomSync, Scope, StateOf, Status, StoredEvent, StrippedRoom, SyncPage, SyncQuery,
    account_data::AccountData as _, ephemeral::Receipts as _, follow::Follow as _, rooms::Rooms as _,
    sync_page::SyncPages as _, testing::on_both, timeline::Timeline as _,
};

const USERS: [&str; 3] = ["@alice:x", "@bob:x", "@carol:x"];
const ROOMS: [&str; 2] = ["a", "b"];
const MEMBERSHIPS: [&str; 5] = ["join", "leave", "invite", "ban", "knock"];
const VISIBILITIES: [&str; 4] = ["shared", "invited", "joined", "world_readable"];

#[derive(Clone, Debug)]
enum Action {
    Say {
        room: usize,
        user: usize,
        times: usize,
        refused: bool,
    },
    Set {
        room: usize,
        key: usize,
        with: usize,
    },
    Member {
        room: usize,
        user: usize,
        to: usize,
    },
    /// Some older event of a key becomes current again, or none does.
    Merge {
        room: usize,
        key: usize,
        older: usize,
    },
    Stale {
        room: usize,
    },
    Receipt {
        room: usize,
        user: usize,
        private: bool,
        event: usize,
    },
    Data {
        room: Option<usize>,
        user: usize,
        content: Option<usize>,
    },
    Forget {
        room: usize,
        user: usize,
    },
    Sync {
        user: usize,
        since: Option<usize>,
        limit: i64,
        full_state: bool,
        include_leave: bool,
        /// No messages of this one.
        without: Option<usize>,
    },
    Page {
        room: usize,
        user: usize,
        from: usize,
        forward: bool,
        limit: usize,
    },
    StateAt {
        room: usize,
        at: usize,
    },
    Changes {
        since: usize,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let (room, user) = (0..ROOMS.len(), 0..USERS.len());
    let at = 0..1_000usize;
    prop_oneof![
        4 => (room.clone(), user.clone(), 1..4usize, prop::bool::weighted(0.2))
            .prop_map(|(room, user, times, refused)| Action::Say { room, user, times, refused }),
        2 => (room.clone(), 0..3usize, 0..4usize).prop_map(|(room, key, with)| Action::Set { room, key, with }),
        4 => (room.clone(), user.clone(), 0..MEMBERSHIPS.len())
            .prop_map(|(room, user, to)| Action::Member { room, user, to }),
        2 => (room.clone(), at.clone(), at.clone()).prop_map(|(room, key, older)| Action::Merge { room, key, older }),
        1 => room.clone().prop_map(|room| Action::Stale { room }),
        2 => (room.clone(), user.clone(), any::<bool>(), at.clone())
            .prop_map(|(room, user, private, event)| Action::Receipt { room, user, private, event }),
        2 => (prop::option::of(room.clone()), user.clone(), prop::option::of(0..9usize))
            .prop_map(|(room, user, content)| Action::Data { room, user, content }),
        1 => (room.clone(), user.clone()).prop_map(|(room, user)| Action::Forget { room, user }),
        6 => (user.clone(), prop::option::weighted(0.8, at.clone()), 1..6i64, prop::bool::weighted(0.2), any::<bool>(),
                prop::option::weighted(0.3, user.clone()))
            .prop_map(|(user, since, limit, full_state, include_leave, without)|
                Action::Sync { user, since, limit, full_state, include_leave, without }),
        2 => (room.clone(), user, at.clone(), any::<bool>(), 1..6usize)
            .prop_map(|(room, user, from, forward, limit)| Action::Page { room, user, from, forward, limit }),
        1 => (room, at.clone()).prop_map(|(room, at)| Action::StateAt { room, at }),
        1 => at.prop_map(|since| Action::Changes { since }),
    ]
}

/// What became of each key of a room's state: positions and events.
type Past = BTreeMap<(String, String), Vec<(i64, Option<String>)>>;

/// What the commits are decided on, the same for both.
struct World {
    rooms: Vec<Room>,
    /// Every event that was ever current, by its key.
    past: Vec<Past>,
}

/// A database, and the heads that were seen: positions differ between the engines, the order of things does not.
struct Side<'a> {
    store: &'a Store,
    heads: Vec<i64>,
}

impl Side<'_> {
    async fn seen(&mut self) {
        self.heads.push(self.store.head().await.unwrap());
    }

    fn head(&self, at: usize) -> i64 {
        self.heads[at % self.heads.len()]
    }
}

fn sorted(events: &[StoredEvent]) -> Vec<String> {
    let mut ids = ids(events);
    ids.sort();
    ids
}

fn room_text(room: &RoomSync) -> String {
    let receipts: Vec<_> = room.receipts.iter().map(|r| (&r.user_id, &r.receipt_type, &r.event_id)).collect();
    let replaced: BTreeMap<_, _> = room.replaced.iter().map(|(sn, e)| (sn, &e.event_id)).collect();
    let (row, flags) = (&room.room, (room.initial, room.limited));
    format!(
        "{} {flags:?} {}/{} timeline {:?} state {:?} replaced {replaced:?} {receipts:?} {:?}",
        row.room_id,
        row.joined,
        row.invited,
        ids(&room.timeline),
        sorted(&room.state),
        room.account_data
    )
}

fn stripped_text(room: &StrippedRoom) -> String {
    format!("{} {} {:?}", room.room.room_id, room.membership.event_id, sorted(&room.state))
}

fn page_text(page: &SyncPage) -> String {
    let mut rooms: Vec<String> = vec![format!("{:?}", page.account_data)];
    rooms.extend(page.joined.iter().map(|r| format!("joined {}", room_text(r))));
    rooms.extend(page.left.iter().map(|r| format!("left {}", room_text(r))));
    rooms.extend(page.invited.iter().map(|r| format!("invited {}", stripped_text(r))));
    rooms.extend(page.knocked.iter().map(|r| format!("knocked {}", stripped_text(r))));
    rooms.extend(page.following.iter().map(|sn| format!("following {sn}")));
    rooms.sort();
    rooms.join("\n")
}

impl World {
    /// Stores on both; they must agree on what became of it.
    async fn persist(&mut self, at: usize, sides: &mut [Side<'_>; 2], made: &[Made], merge: Option<(usize, usize)>) {
        let mut numbers = Vec::new();
        for side in sides.iter() {
            numbers.push(side.store.reserve_numbers(made.len() as i64).await.unwrap());
        }
        assert_eq!(numbers[0], numbers[1]);
        let room = &self.rooms[at];
        let (mut commit, mut after) = room.commit(numbers[0], made);
        if let Some((key, older)) = merge {
            let keys: Vec<_> = self.past[at].keys().cloned().collect();
            let key = keys[key % keys.len()].clone();
            let past = &self.past[at][&key];
            // Only what is not a membership can be taken away for good.
            let gone = key.0 != "m.room.member" && older % 4 == 0;
            let chosen = (!gone).then(|| past[older % past.len()].clone());
            if after.state.get(&key).cloned() != chosen {
                let (sn, membership) = chosen.map_or((None, None), |(sn, m)| (Some(sn), m));
                commit.changes.push(after.change(0, &key.0, &key.1, sn, membership.as_deref()));
                after.rev = room.rev + 1;
            }
        }
        for side in sides.iter_mut() {
            side.store.persist(commit.clone()).await.unwrap();
            side.seen().await;
        }
        for (key, now) in &after.state {
            let past = self.past[at].entry(key.clone()).or_default();
            if !past.contains(now) {
                past.push(now.clone());
            }
        }
        self.rooms[at] = after;
    }

    /// What one side answers; writes have been done.
    async fn ask(&self, side: &Side<'_>, action: &Action) -> String {
        let store = side.store;
        match action {
            Action::Stale { room } => {
                let mut stale = self.rooms[*room].clone();
                stale.rev -= 1;
                let (commit, _) = stale.commit(store.reserve_numbers(1).await.unwrap(), &[message(USERS[0], "late")]);
                match store.persist(commit).await {
                    Err(Error::Conflict(why)) => why.to_owned(),
                    other => panic!("{other:?}"),
                }
            }
            Action::Receipt { room, user, private, event } => {
                let room = &self.rooms[*room];
                let kind = if *private { "m.read.private" } else { "m.read" };
                let event = &room.events[event % room.events.len()].1;
                store.set_receipt(receipt(room, USERS[*user], kind, "", event)).await.unwrap();
                String::new()
            }
            Action::Data { room, user, content } => {
                let change = AccountDataChange {
                    user_id: USERS[*user].to_owned(),
                    scope: room.map_or(Scope::Global, |room| Scope::Room(self.rooms[room].id.clone())),
                    kind: "k".to_owned(),
                    content: content.map(|n| n.to_string()),
                    expects: None,
                    quota: None,
                };
                store.set_account_data(change).await.unwrap();
                String::new()
            }
            Action::Forget { room, user } => {
                format!("{}", store.forget(USERS[*user], self.rooms[*room].sn).await.unwrap())
            }
            Action::Sync { user, since, limit, full_state, include_leave, without } => {
                let mut filter = RoomEventFilter::default();
                filter.not_senders = without.iter().map(|user| USERS[*user].try_into().unwrap()).collect();
                let query = SyncQuery {
                    filter,
                    timeline_limit: *limit,
                    full_state: *full_state,
                    include_leave: *include_leave,
                    ..from_now_on(USERS[*user], since.map(|at| side.head(at)))
                };
                page_text(&store.sync_page(query).await.unwrap())
            }
            Action::Page { room, user, from, forward, limit } => {
                let room = &self.rooms[*room];
                let from = room.events[from % room.events.len()].1.clone();
                let from = store.events_by_id(vec![from]).await.unwrap().remove(0);
                let direction = if *forward { Direction::Forward } else { Direction::Back };
                let boundary = (from.topo, from.topo_minor);
                let page = store.page(page_of(room, USERS[*user], boundary, direction, *limit)).await.unwrap();
                format!("{:?} {:?}", ids(&page.events), page.end)
            }
            Action::StateAt { room, at } => {
                let at = side.head(*at);
                let state = store.state(self.rooms[*room].sn, StateOf::All, Some(at)).await.unwrap();
                format!("{:?}", sorted(&state))
            }
            Action::Changes { since } => {
                let mut changes = store.changes_after(side.head(*since), 1_000).await.unwrap();
                changes.wakes.sort();
                changes.wakes.dedup();
                changes.rooms.sort();
                format!("{changes:?}")
            }
            Action::Say { .. } | Action::Set { .. } | Action::Member { .. } | Action::Merge { .. } => {
                let mut texts = Vec::new();
                for room in &self.rooms {
                    let head = store.room_head(&room.id).await.unwrap().unwrap();
                    let tips: Vec<i64> = head.extremities.iter().map(|e| e.sn).collect();
                    assert_eq!((head.room.rev, &tips), (room.rev, &room.tips));
                    let count =
                        |name: &str| room.state.values().filter(|(_, m)| m.as_deref() == Some(name)).count() as i64;
                    assert_eq!((head.room.joined, head.room.invited), (count("join"), count("invite")));
                    let state = store.state(room.sn, StateOf::All, None).await.unwrap();
                    assert_eq!(state.len(), room.state.len());
                    texts.push(format!("{:?}", sorted(&state)));
                }
                texts.join("\n")
            }
        }
    }

    async fn act(&mut self, sides: &mut [Side<'_>; 2], action: &Action) -> (String, String) {
        match action {
            Action::Say { room, user, times, refused } => {
                let status = if *refused { Status::Rejected } else { Status::Accepted };
                let made = vec![Made { status, ..message(USERS[*user], "hi") }; *times];
                self.persist(*room, sides, &made, None).await;
            }
            Action::Set { room, key, with } => {
                let made = match key {
                    0 => state(USERS[0], "m.room.topic", "", json!({ "topic": with })),
                    1 => state(USERS[0], "org.example.odd", &with.to_string(), json!({})),
                    _ => {
                        let content = json!({ "history_visibility": VISIBILITIES[*with] });
                        state(USERS[0], "m.room.history_visibility", "", content)
                    }
                };
                self.persist(*room, sides, &[made], None).await;
            }
            Action::Member { room, user, to } => {
                let made = membership(USERS[*user], USERS[*user], MEMBERSHIPS[*to]);
                self.persist(*room, sides, &[made, message(USERS[0], "so it is")], None).await;
            }
            Action::Merge { room, key, older } => {
                self.persist(*room, sides, &[message(USERS[0], "a merge")], Some((*key, *older))).await;
            }
            _ => {}
        }
        let answers = (self.ask(&sides[0], action).await, self.ask(&sides[1], action).await);
        for side in sides {
            side.seen().await;
        }
        answers
    }
}

#[test]
fn both_engines_tell_the_same_of_rooms() {
    on_both(|sqlite, postgres| async move {
        let runtime = tokio::runtime::Handle::current();
        let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
        let count = std::cell::Cell::new(0);
        let case = |actions: Vec<Action>| {
            runtime.block_on(async {
                count.set(count.get() + 1);
                let mut sides = [&sqlite, &postgres].map(|store| Side { store, heads: vec![] });
                let mut world = World { rooms: vec![], past: vec![BTreeMap::new(), BTreeMap::new()] };
                for side in &mut sides {
                    side.seen().await;
                }
                for (at, name) in ROOMS.iter().enumerate() {
                    let mut sn = 0;
                    for side in &sides {
                        sn = side.store.reserve_numbers(1).await.unwrap();
                    }
                    world.rooms.push(Room::new(sn, &format!("{name}{}", count.get())));
                    world.persist(at, &mut sides, &beginning(USERS[at]), None).await;
                }
                for action in &actions {
                    let (a, b) = world.act(&mut sides, action).await;
                    prop_assert_eq!(a, b, "{:?}", action);
                }
                Ok(())
            })
        };
        let verdict = tokio::task::block_in_place(|| runner.run(&prop::collection::vec(action(), 1..25), case));
        verdict.unwrap_or_else(|failure| panic!("{failure}"));
    });
}
