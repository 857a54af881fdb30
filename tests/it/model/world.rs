//! The judge: a plain list of all that happened, and what follows from it by the text of the specification. It asks
//! nothing of the server and keeps nothing that could be worked out from the list.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Value, json};

use super::story::Wished;

/// Counts what happened in a history: the place of a sync token in it.
pub type Time = u64;
pub type Key = (String, String);
pub type State = BTreeMap<Key, OwnedEventId>;
/// (user, kind of receipt, thread) and the event that was read.
pub type Receipts = BTreeMap<(OwnedUserId, String, String), OwnedEventId>;

/// Some with the room that they are about.
pub type Wishes = BTreeSet<(Wished, Option<usize>)>;

pub fn key(kind: &str, state_key: &str) -> Key {
    (kind.to_owned(), state_key.to_owned())
}

pub fn member(user: &UserId) -> Key {
    key("m.room.member", user.as_str())
}

/// All of one history.
#[derive(Default)]
pub struct World {
    pub now: Time,
    pub rooms: Vec<Room>,
    /// What each user wished to be told of, and from when on.
    pub wishes: BTreeMap<OwnedUserId, Vec<(Time, Wishes)>>,
    /// The account data of each user; without a room, and by room.
    pub kept: BTreeMap<(OwnedUserId, Option<usize>, String), (Time, Value)>,
}

pub struct Room {
    pub id: OwnedRoomId,
    pub sn: i64,
    pub version: String,
    /// The timeline, in the order of the stream.
    pub events: Vec<Event>,
    /// What was refused when it came: nobody is ever to hear of it.
    pub refused: BTreeSet<OwnedEventId>,
    pub receipts: BTreeMap<(OwnedUserId, String, String), (Time, OwnedEventId)>,
    pub forgotten: BTreeSet<OwnedUserId>,
}

#[derive(Clone)]
pub struct Event {
    pub id: OwnedEventId,
    pub kind: String,
    pub state_key: Option<String>,
    pub sender: OwnedUserId,
    pub content: Value,
    /// The device that sent it with a transaction id.
    pub device: Option<String>,
    pub time: Time,
    pub depth: i64,
    /// The state after it where it stands in the graph.
    pub graph: Arc<State>,
    /// The current state of the room once it had come.
    pub current: Arc<State>,
    /// The event that redacted it.
    pub redacted_by: Option<OwnedEventId>,
}

/// Whether somebody is to see an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    Must,
    /// The specification leaves it open.
    May,
    Never,
}

/// What of a room somebody may read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Now,
    /// As it was after this event, their leave.
    Until(usize),
    None,
}

impl Event {
    pub fn key(&self) -> Option<Key> {
        Some((self.kind.clone(), self.state_key.clone()?))
    }

    /// The content as it is to be shown.
    pub fn shown_content(&self, version: &str) -> Value {
        if self.redacted_by.is_none() {
            return self.content.clone();
        }
        let kept: &[&str] = match self.kind.as_str() {
            "m.room.member" => &["membership", "join_authorised_via_users_server"],
            "m.room.join_rules" => &["join_rule", "allow"],
            "m.room.history_visibility" => &["history_visibility"],
            "m.room.redaction" if version != "10" => &["redacts"],
            "m.room.power_levels" => &[
                "ban",
                "events",
                "events_default",
                "invite",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ],
            _ => &[],
        };
        let mut content = self.content.clone();
        if let Some(fields) = content.as_object_mut() {
            // What a level for invites is kept for came with version 11.
            fields.retain(|k, _| kept.contains(&k.as_str()) && (k != "invite" || version != "10"));
        }
        content
    }
}

impl World {
    pub fn tick(&mut self) -> Time {
        self.now += 1;
        self.now
    }
}

impl Room {
    pub fn find(&self, id: &str) -> Option<(usize, &Event)> {
        self.events.iter().enumerate().rev().find(|(_, e)| e.id == *id)
    }

    /// The root of the thread that an event is in; `None` if that is the main timeline. What relates to an event in another
    /// way is where that is; and as there is no thread within a thread, so is what would begin one there.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts>
    pub fn thread_of<'a>(&'a self, event: &'a Event) -> Option<&'a OwnedEventId> {
        let relation = &event.content["m.relates_to"];
        let (_, target) = self.find(relation["event_id"].as_str()?)?;
        let around = self.thread_of(target);
        if relation["rel_type"] == "m.thread" { around.or(Some(&target.id)) } else { around }
    }

    /// The root of the thread of an event, or of that which would begin with it.
    pub fn root_at(&self, id: &OwnedEventId) -> OwnedEventId {
        let event = self.find(id.as_str()).map(|(_, event)| event);
        event.and_then(|event| self.thread_of(event)).unwrap_or(id).clone()
    }

    /// Whether its sender had the power, when it came, to mean everybody with it.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>
    pub fn may_mean_everybody(&self, event: &Event) -> bool {
        let find = |kind: &str| event.current.get(&key(kind, "")).and_then(|id| self.find(id.as_str()));
        let creates = find("m.room.create").is_some_and(|(_, create)| create.sender == event.sender);
        if self.version == "12" && creates {
            return true;
        }
        let Some((_, levels)) = find("m.room.power_levels") else { return creates };
        let number = |of: &Value| of.as_i64();
        let levels = &levels.content;
        let has = number(&levels["users"][event.sender.as_str()]).or(number(&levels["users_default"])).unwrap_or(0);
        has >= number(&levels["notifications"]["room"]).unwrap_or(50)
    }

    /// The depth of what this server adds next.
    pub fn next_depth(&self) -> i64 {
        self.events.iter().map(|e| e.depth).max().unwrap_or(0) + 1
    }

    /// The current state.
    pub fn state(&self) -> &Arc<State> {
        &self.events.last().expect("a room has events").current
    }

    fn content(&self, state: &State, key: &Key) -> Option<&Value> {
        let id = state.get(key)?;
        self.find(id.as_str()).map(|(_, e)| &e.content)
    }

    fn membership_in(&self, state: &State, user: &UserId) -> &str {
        self.content(state, &member(user)).and_then(|c| c["membership"].as_str()).unwrap_or("leave")
    }

    fn visibility_in(&self, state: &State) -> &str {
        let content = self.content(state, &key("m.room.history_visibility", ""));
        content.and_then(|c| c["history_visibility"].as_str()).unwrap_or("shared")
    }

    /// The user's membership after each event.
    pub fn memberships(&self, user: &UserId) -> Vec<&str> {
        self.events.iter().map(|e| self.membership_in(&e.current, user)).collect()
    }

    /// How many were in the room once an event had come.
    pub fn members_at(&self, event: &Event) -> usize {
        let members = event.current.keys().filter(|(kind, _)| kind == "m.room.member");
        let content = members.filter_map(|key| self.content(&event.current, key));
        content.filter(|content| content["membership"] == "join").count()
    }

    pub fn membership(&self, user: &UserId) -> &str {
        self.membership_in(self.state(), user)
    }

    pub fn membership_at(&self, user: &UserId, time: Time) -> &str {
        self.last_at(time).map_or("leave", |i| self.membership_in(&self.events[i].current, user))
    }

    /// The last event that had happened by then.
    pub fn last_at(&self, time: Time) -> Option<usize> {
        self.events.iter().rposition(|e| e.time <= time)
    }

    /// What the user is to see of each event, knowing all that has happened since.
    ///
    /// The state "at the event" is that of the room when the event came: what an event that was made on an old end of the
    /// graph may show is decided by what the room had become in the meantime, in both directions.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5>
    pub fn sights(&self, user: &UserId) -> Vec<Sight> {
        let memberships = self.memberships(user);
        let last_join = memberships.iter().rposition(|m| *m == "join");
        let visibilities: Vec<&str> = self.events.iter().map(|e| self.visibility_in(&e.current)).collect();
        let allowed = |visibility: &str, membership: &str, at: usize| match (visibility, membership) {
            ("world_readable", _) | (_, "join") => true,
            ("invited", "invite") => true,
            ("invited" | "joined", _) => false,
            _ => last_join.is_some_and(|join| join > at),
        };
        let mut sights = Vec::with_capacity(self.events.len());
        for (i, event) in self.events.iter().enumerate() {
            let (visibility, membership) = (visibilities[i], memberships[i]);
            let (old_visibility, old_membership) = match i.checked_sub(1) {
                Some(before) => (visibilities[before], memberships[before]),
                None => ("shared", "leave"),
            };
            let after = allowed(visibility, membership, i);
            let own = event.kind == "m.room.member" && event.state_key.as_deref() == Some(user.as_str());
            let about_history = event.kind == "m.room.history_visibility";
            let sight = if after
                || about_history && allowed(old_visibility, membership, i)
                || own && allowed(visibility, old_membership, i)
            {
                Sight::Must
            } else if own {
                // Of what others did to them a sync has told them anyway.
                Sight::May
            } else {
                Sight::Never
            };
            sights.push(sight);
        }
        sights
    }

    /// Whether the user may know what the state was after an event.
    pub fn sees_state_at(&self, user: &UserId, at: usize) -> bool {
        let memberships = self.memberships(user);
        let joins_later = memberships.iter().rposition(|m| *m == "join").is_some_and(|join| join > at);
        match (self.visibility_in(&self.events[at].current), memberships[at]) {
            ("world_readable", _) | (_, "join") | ("invited", "invite") => true,
            ("invited" | "joined", _) => false,
            _ => joins_later,
        }
    }

    /// The event with which the user last went out.
    pub fn left_at(&self, user: &UserId) -> Option<usize> {
        let memberships = self.memberships(user);
        let last_join = memberships.iter().rposition(|m| *m == "join")?;
        (last_join + 1 < memberships.len()).then_some(last_join + 1)
    }

    pub fn access(&self, user: &UserId) -> Access {
        let (membership, visibility) = (self.membership(user), self.visibility_in(self.state()));
        if membership == "join" || visibility == "world_readable" {
            return Access::Now;
        }
        match self.left_at(user) {
            Some(at) if !self.forgotten.contains(user) => Access::Until(at),
            _ => Access::None,
        }
    }

    /// The newest receipts that the user is to know of.
    pub fn receipts_for(&self, user: &UserId) -> Receipts {
        let known = |of: &OwnedUserId, kind: &str| of == user || kind != "m.read.private";
        let shown = self.receipts.iter().filter(|((of, kind, _), _)| known(of, kind));
        shown.map(|(key, (_, event))| (key.clone(), event.clone())).collect()
    }

    /// Takes in an event that stands at the end of the graph, and changes no state but its own.
    pub fn happened(&mut self, mut event: Event) {
        if let Some(key) = event.key() {
            let mut state = (*event.current).clone();
            state.insert(key, event.id.clone());
            event.current = Arc::new(state);
            event.graph = Arc::clone(&event.current);
        }
        self.took_in(event);
    }

    /// Takes in an event whose consequences are known.
    pub fn took_in(&mut self, event: Event) {
        let back_again: Vec<OwnedUserId> = self.forgotten.iter().cloned().collect();
        let before: Vec<Option<OwnedEventId>> =
            back_again.iter().map(|user| self.state().get(&member(user)).cloned()).collect();
        self.events.push(event);
        for (user, before) in back_again.iter().zip(before) {
            // Whatever happens to somebody's membership puts the room on their list again.
            if self.state().get(&member(user)) != before.as_ref() {
                self.forgotten.remove(user);
            }
        }
    }
}

pub fn visibility(to: &str) -> Value {
    json!({ "history_visibility": to })
}
