//! Rooms, told with events that nobody signed: storage looks at what it is given, not at what the rules would say of it.

mod commits;
mod following;
mod listing;
mod merge;
mod reading;
mod relating;
mod syncs;

use hearth_core::{event::Pdu, relation::Relation};
use ruma::{MilliSecondsSinceUnixEpoch, UInt, api::client::filter::RoomEventFilter};
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    AccountDataChange, Base, Direction, MembershipChange, NewAlias, NewEvent, Notice, Page, PageQuery, Persisted,
    Receipt, Redaction, RoomCommit, RoomSync, Scope, StateChange, StateOf, Status, StoredEvent, SyncPage, SyncQuery,
    Transaction, account_data::AccountData as _, directory::Directory as _, ephemeral::Receipts as _,
    follow::Follow as _, room_list::RoomLists as _, rooms::Rooms as _, sync_page::SyncPages as _,
    timeline::Timeline as _,
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
            moves: vec![],
            rules_as_of: i64::MAX,
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
                status: made.status,
                state_before: before,
                state_after: root(after.rev + i64::from(!commit.changes.is_empty())),
                prev_sns: self.tips.clone(),
                auth_sns: vec![],
                sent_by: None,
                relation: Relation::of(&pdu),
                own: true,
                pdu,
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
        device_id: "D".to_owned(),
        to_device_told: 0,
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
