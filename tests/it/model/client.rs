//! What a client knows, having laid one sync over the other as the specification says.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::{Value, json};

use super::world::{Key, Receipts, State, Time};

/// A device of somebody.
#[derive(Clone, Default)]
pub struct Device {
    pub name: String,
    /// The filter of its timelines, if it has any.
    pub filter: Option<Value>,
    /// It wants the state after the timeline, not before.
    pub state_after: bool,
    pub members: Members,
    /// It wants what is unread in threads told apart.
    pub threads: bool,
    /// It uses sliding sync.
    pub slides: bool,
    pub knows: Knowledge,
    /// What it knew some syncs ago, the last of them last.
    pub past: Vec<Knowledge>,
}

impl Device {
    /// It knows what it knew so many syncs ago.
    pub fn goes_back(&mut self, syncs: usize) {
        if let Some(at) = self.past.len().checked_sub(syncs) {
            self.knows = self.past[at].clone();
            self.past.truncate(at);
        }
    }
}

/// Which members a device wants to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Members {
    #[default]
    All,
    /// Those whose events it is shown, and once.
    Needed,
    /// And each time.
    NeededAgain,
}

impl Members {
    /// What a filter says of it.
    pub fn filter(self) -> Value {
        match self {
            Self::All => json!({}),
            Self::Needed => json!({ "lazy_load_members": true }),
            Self::NeededAgain => json!({ "lazy_load_members": true, "include_redundant_members": true }),
        }
    }
}

#[derive(Clone, Default)]
pub struct Knowledge {
    /// The token, and what had happened when it was given.
    pub since: Option<(String, Time)>,
    pub rooms: BTreeMap<usize, View>,
    pub kept: BTreeMap<String, Value>,
    /// In sliding sync: up to when it was told of each room.
    pub told: BTreeMap<usize, Time>,
}

/// A room as a device knows it.
#[derive(Clone, Default)]
pub struct View {
    /// By the section that it was in last.
    pub joined: bool,
    /// It was told from its beginning, and of all that happened since.
    pub complete: bool,
    pub timeline: Vec<Item>,
    /// The last event it had when its owner was seen to be out. Of the time after that they were shown only what was done
    /// to them; once they are in again there may be more to see.
    pub went_out_at: Option<OwnedEventId>,
    pub state: State,
    /// Keys whose last event in a timeline lost against another one, or is state no more: this a sync can't tell.
    pub misled: BTreeSet<Key>,
    pub receipts: Receipts,
    pub kept: BTreeMap<String, Value>,
    /// What sliding sync said last of what is unread.
    pub unread: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Event(OwnedEventId),
    /// There may be events here, back from this token.
    Gap(String),
}

impl View {
    pub fn has(&self, id: &OwnedEventId) -> bool {
        self.timeline.iter().any(|item| matches!(item, Item::Event(e) if e == id))
    }

    /// Its owner is out.
    pub fn goes_out(&mut self) {
        if self.joined {
            self.went_out_at = self.ids().pop();
        }
        self.joined = false;
    }

    /// Its owner is in again: what was told while they were out is told anew.
    pub fn comes_in(&mut self) {
        let is_last = |item: &Item| matches!((item, &self.went_out_at), (Item::Event(id), Some(last)) if id == last);
        let kept = self.timeline.iter().position(is_last).map_or(0, |at| at + 1);
        self.timeline.truncate(kept);
    }

    /// The token of the newest gap.
    pub fn newest_gap(&self) -> Option<(usize, &str)> {
        self.timeline.iter().enumerate().rev().find_map(|(i, item)| match item {
            Item::Gap(token) => Some((i, token.as_str())),
            Item::Event(_) => None,
        })
    }

    /// A page backwards from the gap at `at`: what the client didn't have, and whether the gap goes on. Whether it came to
    /// the room's beginning and not to what the client had before the gap.
    pub fn fill(&mut self, at: usize, page: &[OwnedEventId], end: Option<String>) -> bool {
        let before: BTreeSet<&OwnedEventId> = self.timeline[..at]
            .iter()
            .filter_map(|item| match item {
                Item::Event(id) => Some(id),
                Item::Gap(_) => None,
            })
            .collect();
        let fresh = page.iter().position(|id| before.contains(id));
        let closes = fresh.is_some() || end.is_none();
        let missed = fresh.is_none() && end.is_none() && !before.is_empty();
        let mut fill: Vec<Item> = page[..fresh.unwrap_or(page.len())].iter().cloned().map(Item::Event).collect();
        if !closes && let Some(end) = end {
            fill.push(Item::Gap(end));
        }
        fill.reverse();
        self.timeline.splice(at..=at, fill);
        missed
    }

    pub fn ids(&self) -> Vec<OwnedEventId> {
        let id = |item: &Item| match item {
            Item::Event(id) => Some(id.clone()),
            Item::Gap(_) => None,
        };
        self.timeline.iter().filter_map(id).collect()
    }
}

/// The receipts in an `m.receipt`.
pub fn receipts_in(content: &Value) -> Receipts {
    let mut receipts = Receipts::new();
    for (event, kinds) in content.as_object().into_iter().flatten() {
        for (kind, users) in kinds.as_object().into_iter().flatten() {
            for (user, about) in users.as_object().into_iter().flatten() {
                let thread = about["thread_id"].as_str().unwrap_or_default().to_owned();
                let user = OwnedUserId::try_from(user.as_str()).expect("a user");
                let event = OwnedEventId::try_from(event.as_str()).expect("an event");
                receipts.insert((user, kind.clone(), thread), event);
            }
        }
    }
    receipts
}
