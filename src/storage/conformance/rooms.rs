//! Rooms, told with events that nobody signed: storage looks at what it is given, not at what the rules would say of it.

mod merge;

use hearth_core::event::Pdu;
use ruma::{MilliSecondsSinceUnixEpoch, UInt, api::client::filter::RoomEventFilter};
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    AccountDataChange, Base, Direction, MembershipChange, NewAlias, NewEvent, Notice, Page, PageQuery, Persisted,
    Receipt, Redaction, RoomCommit, RoomSync, Scope, StateChange, StateOf, Status, StoredEvent, SyncPage, SyncQuery,
    Transaction, account_data::AccountData as _, directory::Directory as _, ephemeral::Receipts as _,
    follow::Follow as _, rooms::Rooms as _, sync_page::SyncPages as _, timeline::Timeline as _,
};

/// A room as whoever decides on commits knows it.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) sn: i64,
    pub(super) id: String,
    pub(super) rev: i64,
    pub(super) tips: Vec<i64>,
    /// Of each key: the event's number, and if it is a member event, the membership.
    pub(super) state: BTreeMap<(String, String), (i64, Option<String>)>,
    /// All events that were ever made, in order.
    pub(super) events: Vec<(i64, String)>,
}

/// An event to be stored.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) kind: &'static str,
    pub(super) key: Option<String>,
    pub(super) sender: &'static str,
    pub(super) content: Json,
    pub(super) status: Status,
}

pub(super) fn message(sender: &'static str, body: &str) -> Made {
    Made { kind: "m.room.message", key: None, sender, content: json!({ "body": body }), status: Status::Accepted }
}

pub(super) fn state(sender: &'static str, kind: &'static str, key: &str, content: Json) -> Made {
    Made { kind, key: Some(key.to_owned()), sender, content, status: Status::Accepted }
}

pub(super) fn membership(sender: &'static str, target: &str, membership: &str) -> Made {
    state(sender, "m.room.member", target, json!({ "membership": membership }))
}

/// The root of a state, here just its revision.
fn root(rev: i64) -> Vec<u8> {
    rev.to_le_bytes().repeat(4)
}

fn pdu(sn: i64, room_id: &str, made: &Made) -> Arc<Pdu> {
    let event_id = format!("$event{sn}");
    let mut event = json!({
        "type": made.kind, "sender": made.sender, "content": made.content, "origin_server_ts": sn,
        "prev_events": [], "auth_events": [], "depth": sn,
    });
    if let Some(key) = &made.key {
        event["state_key"] = key.as_str().into();
    }
    Arc::new(Pdu {
        event_id: event_id.try_into().unwrap(),
        room_id: room_id.try_into().unwrap(),
        sender: made.sender.try_into().unwrap(),
        event_type: made.kind.into(),
        state_key: made.key.clone(),
        content: serde_json::value::to_raw_value(&made.content).unwrap(),
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(sn).unwrap()),
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: sn,
        redacts: None,
        rejected: false,
        json: event.to_string().into(),
    })
}

impl Room {
    pub(super) fn new(sn: i64, name: &str) -> Self {
        Self { sn, id: format!("!{name}:x"), rev: 0, tips: vec![], state: BTreeMap::new(), events: vec![] }
    }

    /// The commit of these events, which have the numbers from `sn` on; and the room after it.
    pub(super) fn commit(&self, sn: i64, made: &[Made]) -> (RoomCommit, Self) {
        let mut after = self.clone();
        let mut commit = RoomCommit {
            room_sn: self.sn,
            base: match self.events.is_empty() {
                true => Base::New { room_id: self.id.clone(), version: "11".to_owned() },
                false => Base::At { rev: self.rev, prevs: self.tips.clone() },
            },
            events: vec![],
            nodes: vec![],
            state_root: vec![],
            changes: vec![],
            consumed: vec![],
            extremities: vec![],
            transaction: None,
            redactions: vec![],
            alias: None,
            publish: false,
            successor: None,
            now_ms: 1,
        };
        for (i, made) in made.iter().enumerate() {
            let sn = sn + i as i64;
            let pdu = pdu(sn, &self.id, made);
            let before = root(after.rev);
            if let (Some(key), Status::Accepted) = (&made.key, made.status) {
                commit.changes.push(after.change(i, made.kind, key, Some(sn), made.content["membership"].as_str()));
            }
            after.events.push((sn, pdu.event_id.to_string()));
            commit.events.push(NewEvent {
                sn,
                pdu,
                status: made.status,
                state_before: before,
                state_after: root(after.rev + i64::from(!commit.changes.is_empty())),
                prev_sns: self.tips.clone(),
                auth_sns: vec![],
                sent_by: None,
                notice: Notice::default(),
            });
            if made.status == Status::Accepted {
                commit.consumed.clone_from(&self.tips);
                commit.extremities = vec![sn];
                after.tips = vec![sn];
            }
        }
        after.rev += i64::from(!commit.changes.is_empty());
        commit.state_root = root(after.rev);
        commit.nodes = vec![(root(after.rev), b"node".to_vec())];
        (commit, after)
    }

    /// One key becomes this event.
    pub(super) fn change(
        &mut self,
        at: usize,
        kind: &str,
        key: &str,
        event_sn: Option<i64>,
        membership: Option<&str>,
    ) -> StateChange {
        let membership = membership.map(str::to_owned);
        let at_key = (kind.to_owned(), key.to_owned());
        let prev = match event_sn {
            Some(sn) => self.state.insert(at_key, (sn, membership.clone())),
            None => self.state.remove(&at_key),
        };
        StateChange {
            at,
            event_type: kind.to_owned(),
            state_key: key.to_owned(),
            event_sn,
            prev_sn: prev.as_ref().map(|(sn, _)| *sn),
            membership: (kind == "m.room.member").then(|| MembershipChange {
                membership: membership.unwrap_or_else(|| "leave".to_owned()),
                prev: prev.and_then(|(_, m)| m),
                local: true,
            }),
        }
    }

    pub(super) fn now(&self, kind: &str, key: &str) -> Option<i64> {
        self.state.get(&(kind.to_owned(), key.to_owned())).map(|(sn, _)| *sn)
    }
}

/// How a room begins: its creator, who makes everything public.
pub(super) fn beginning(creator: &'static str) -> Vec<Made> {
    vec![
        state(creator, "m.room.create", "", json!({})),
        membership(creator, creator, "join"),
        state(creator, "m.room.join_rules", "", json!({ "join_rule": "public" })),
        state(creator, "m.room.history_visibility", "", json!({ "history_visibility": "shared" })),
    ]
}

pub(super) fn from_now_on(user: &str, since: impl Into<Option<i64>>) -> SyncQuery {
    SyncQuery {
        user_id: user.to_owned(),
        since: since.into(),
        timeline_limit: 10,
        filter: RoomEventFilter::default(),
        full_state: false,
        lazy: None,
        state_after: false,
        include_leave: false,
        only_rooms: None,
        not_rooms: vec![],
    }
}

pub(super) fn page_of(room: &Room, user: &str, from: (i64, i64), direction: Direction, limit: usize) -> PageQuery {
    PageQuery {
        room_sn: room.sn,
        room_id: room.id.as_str().try_into().unwrap(),
        user_id: user.to_owned(),
        from,
        to: None,
        direction,
        limit,
        filter: RoomEventFilter::default(),
        until: None,
    }
}

pub(super) fn ids(events: &[StoredEvent]) -> Vec<String> {
    events.iter().map(|e| e.event_id.clone()).collect()
}

impl Store {
    pub(super) async fn numbers(&self, count: usize) -> i64 {
        self.reserve_numbers(count as i64).await.unwrap()
    }

    /// Stores these events in one commit; their ids.
    pub(super) async fn says(&self, room: &mut Room, made: &[Made]) -> Vec<String> {
        let (commit, after) = room.commit(self.numbers(made.len()).await, made);
        let ids = commit.events.iter().map(|e| e.pdu.event_id.to_string()).collect();
        let stored = self.persist(commit).await.unwrap();
        assert!(matches!(stored, Persisted::Stored(at) if at.len() == made.len()));
        *room = after;
        ids
    }

    pub(super) async fn makes_room(&self, name: &str) -> Room {
        let mut room = Room::new(self.numbers(1).await, name);
        self.says(&mut room, &beginning("@alice:x")).await;
        room
    }

    pub(super) async fn syncs(&self, user: &str, since: impl Into<Option<i64>>) -> SyncPage {
        self.sync_page(from_now_on(user, since)).await.unwrap()
    }

    async fn now(&self) -> i64 {
        self.head().await.unwrap()
    }

    async fn all_back(&self, room: &Room, user: &str) -> Page {
        self.page(page_of(room, user, (i64::MAX, i64::MAX), Direction::Back, 1_000)).await.unwrap()
    }
}

/// The only room of a page.
fn only(rooms: &[RoomSync]) -> &RoomSync {
    let [room] = rooms else { panic!("{} rooms", rooms.len()) };
    room
}

const ALICE: &str = "@alice:x";
const BOB: &str = "@bob:x";

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

pub(super) fn receipt(room: &Room, user: &str, kind: &str, thread: &str, event_id: &str) -> Receipt {
    Receipt {
        room_sn: room.sn,
        user_id: user.to_owned(),
        receipt_type: kind.to_owned(),
        thread: thread.to_owned(),
        event_id: event_id.to_owned(),
        ts: 5,
    }
}

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
