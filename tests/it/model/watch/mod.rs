//! Syncs: what a device is told, laid over what it knows, and held against the judge.

mod eyes;
mod held;
mod members;
mod news;
mod slide;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use hearth::{service::shape::Reader, sync::SyncWish};
use ruma::{OwnedEventId, OwnedUserId, api::OutgoingResponseExt as _};
use serde_json::{Value, json};

pub use self::{eyes::Eyes, slide::ALL};
use self::{news::News, view::Telling};
use super::{
    Outcome, Run,
    client::{Device, Knowledge, View},
    ensure, failure,
    world::{Room, Time, key, member},
};

pub fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn id_of(event: &Value) -> Outcome<OwnedEventId> {
    let id = event["event_id"].as_str().ok_or_else(|| failure(format!("an event without id: {event}")))?;
    id.try_into().map_err(failure)
}

const SECTIONS: [&str; 4] = ["join", "leave", "invite", "knock"];

/// The answer to one sync, and to whom it was given.
struct Answer<'a> {
    user: &'a OwnedUserId,
    device: &'a Device,
    includes_leave: bool,
    page: &'a Value,
    limit: u32,
    full_state: bool,
    /// The device came without a token.
    first: bool,
    /// It came with the token of this time.
    since: Time,
    /// Whom the user ignores.
    ignored: BTreeSet<OwnedUserId>,
}

impl<'a> Answer<'a> {
    fn part(&self, section: &str, room: &Room) -> Option<&'a Value> {
        let part = &self.page["rooms"][section][room.id.as_str()];
        (!part.is_null()).then_some(part)
    }

    fn telling(&self, part: &'a Value, initial: bool, last: usize, surely_until: usize) -> Telling<'a> {
        Telling {
            part,
            filter: self.device.filter.as_ref(),
            members: self.device.members,
            initial,
            since: self.since,
            last,
            surely_until,
            limit: self.limit,
            full_state: self.full_state,
            state_after: self.device.state_after,
            own_end: false,
        }
    }
}

impl Run<'_> {
    pub async fn sync(&mut self, who: usize, device: usize, limit: u32, full_state: bool) -> Outcome<()> {
        let page = self.ask_to_sync(who, device, limit, full_state).await?;
        let user = &self.users[who];
        let since = self.devices[who][device].knows.since.as_ref().map(|(_, time)| *time);
        let answer = Answer {
            user,
            device: &self.devices[who][device],
            includes_leave: includes_leave(device),
            page: &page,
            limit,
            full_state,
            first: since.is_none(),
            since: since.unwrap_or_default(),
            ignored: self.ignored_by(user),
        };
        let told = self.lay_over(&answer).map_err(|e| failure(format!("{e}\nin {}", page["rooms"])))?;
        let device = &mut self.devices[who][device];
        device.past.push(std::mem::replace(&mut device.knows, told));
        if device.past.len() > 3 {
            device.past.remove(0);
        }
        Ok(())
    }

    async fn ask_to_sync(&self, who: usize, device: usize, limit: u32, full_state: bool) -> Outcome<Value> {
        let user = &self.users[who];
        let include_leave = includes_leave(device);
        let device = &self.devices[who][device];
        let mut timeline = device.filter.clone().unwrap_or_else(|| json!({}));
        timeline["limit"] = limit.into();
        timeline["unread_thread_notifications"] = device.threads.into();
        let state = device.members.filter();
        let filter = json!({ "room": { "include_leave": include_leave, "timeline": timeline, "state": state } });
        let since = device.knows.since.as_ref().map(|(token, _)| token.parse().expect("a token"));
        let wish = SyncWish {
            since,
            timeout: Some(std::time::Duration::ZERO),
            full_state,
            state_after: device.state_after,
            filter: serde_json::from_value(filter).expect("a filter"),
            session_as_of: 0,
        };
        let reader = Reader { user, device: &device.name };
        let response = self.services().syncs.sync(reader, &wish).await.map_err(failure)?;
        let response = response.try_into_http_response::<Vec<u8>>().map_err(failure)?;
        serde_json::from_slice(response.body()).map_err(failure)
    }

    /// What the device knows after the sync.
    fn lay_over(&self, answer: &Answer<'_>) -> Outcome<Knowledge> {
        let Answer { user, device, page, .. } = *answer;
        let mut told = device.knows.clone();
        let token = page["next_batch"].as_str().ok_or_else(|| failure("no next_batch"))?;
        told.since = Some((token.to_owned(), self.world.now));

        for section in SECTIONS {
            for id in page["rooms"][section].as_object().into_iter().flatten().map(|(id, _)| id) {
                ensure!(self.world.rooms.iter().any(|r| r.id == *id), "a room that is not of this story: {id}");
            }
        }
        for n in 0..self.world.rooms.len() {
            let told = &mut told.rooms;
            self.lay_over_room(answer, n, told).map_err(|e| failure(format!("room {n}: {e}")))?;
        }
        for shown in events(&page["account_data"]) {
            let kind = shown["type"].as_str().unwrap_or_default();
            told.kept.insert(kind.to_owned(), shown["content"].clone());
        }
        let mut kept = told.kept.clone();
        kept.remove("m.push_rules");
        let expected = self.kept_by(user, None);
        ensure!(kept == expected, "account data is {expected:?}, not {kept:?}");
        Ok(told)
    }

    fn lay_over_room(&self, answer: &Answer<'_>, n: usize, told: &mut BTreeMap<usize, View>) -> Outcome<()> {
        let Answer { user, device, first, since, .. } = *answer;
        let eyes = self.eyes(n, user, &device.name);
        let room = eyes.room;
        let then = if first { "leave" } else { room.membership_at(user, since) };
        let change = Change::of(room, user, &eyes.memberships, since);
        let expected = self.section(answer, &eyes, n, &change);
        for section in SECTIONS {
            let shown = answer.part(section, room).is_some();
            ensure!(!shown || section == expected, "it is in {section}, not in {expected:?}");
            let must = section == expected && section != "join";
            ensure!(shown || !must, "it is not in {section}");
        }
        match (expected, answer.part(expected, room)) {
            ("join", part) => {
                let initial = first || then != "join";
                let silent = !initial && !answer.full_state;
                let news = self.news(&eyes, n, user, device.filter.as_ref(), since);
                let Some(part) = part else {
                    ensure!(silent && news != News::Some, "it is not told of");
                    return Ok(());
                };
                ensure!(!silent || news != News::None, "it is told of, and nothing happened there");
                let last = room.events.len() - 1;
                let telling = answer.telling(part, initial, last, last);
                self.lay_over_joined(answer, &eyes, n, &telling, told.entry(n).or_default())
            }
            ("leave", Some(part)) => {
                let initial = first || then != "join" && change.joined_since;
                let last = change.last.expect("a leave");
                let left = room.left_at(user);
                let telling =
                    Telling { full_state: false, ..answer.telling(part, initial, last, left.unwrap_or_default()) };
                let view = told.entry(n).or_default();
                view.joined |= change.joined_since;
                view.lay_over_left(&eyes, &telling, left)
            }
            ("invite" | "knock", Some(part)) => {
                if let Some(view) = told.get_mut(&n) {
                    // Of what was until they went out, the device may have heard or not.
                    view.complete &= !view.joined && !change.joined_since;
                }
                eyes.judge_stripped(part, expected)
            }
            _ => Ok(()),
        }
    }

    /// Where the answer has to tell of a room, if it does.
    fn section<'a>(&self, answer: &Answer<'_>, eyes: &Eyes<'a>, n: usize, change: &Change) -> &'a str {
        let room = eyes.room;
        match room.membership(answer.user) {
            "join" => "join",
            "leave" | "ban" if answer.first => {
                let shown = answer.includes_leave && change.last.is_some() && !room.forgotten.contains(answer.user);
                if shown { "leave" } else { "" }
            }
            "leave" | "ban" if change.since => "leave",
            now @ ("invite" | "knock") if change.since => {
                let by = self.member_event(n, answer.user).map(|e| &e.sender);
                // <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
                let hidden = now == "invite" && by.is_some_and(|by| answer.ignored.contains(by));
                if hidden { "" } else { now }
            }
            _ => "",
        }
    }

    fn lay_over_joined(
        &self,
        answer: &Answer<'_>,
        eyes: &Eyes<'_>,
        n: usize,
        telling: &Telling<'_>,
        view: &mut View,
    ) -> Outcome<()> {
        view.lay_over(eyes, telling)?;
        view.joined = true;
        self.holds(eyes, n, view, answer.device.members)?;
        eyes.judge_unread(telling.part, answer.device.threads, &answer.ignored)?;
        for shown in events(&telling.part["account_data"]) {
            let kind = shown["type"].as_str().unwrap_or_default();
            view.kept.insert(kind.to_owned(), shown["content"].clone());
        }
        let kept = self.kept_by(answer.user, Some(n));
        ensure!(view.kept == kept, "account data is {kept:?}, not {:?}", view.kept);
        Ok(())
    }
}

impl Eyes<'_> {
    /// What somebody is told of a room who is not in it yet.
    fn judge_stripped(&self, part: &Value, expected: &str) -> Outcome<()> {
        let stripped = events(&part[format!("{expected}_state")]);
        let own = stripped.iter().find(|e| e["type"] == "m.room.member" && e["state_key"] == self.user.as_str());
        ensure!(own.is_some_and(|e| e["content"]["membership"] == expected), "no own event in {part}");
        let state = self.room.state();
        for event in stripped {
            let kind = event["type"].as_str().unwrap_or_default();
            let own_or_by = kind == "m.room.member";
            ensure!(own_or_by || event["state_key"] == "", "too much is told: {event}");
            let id = state.get(&key(kind, event["state_key"].as_str().unwrap_or_default()));
            let content = id.and_then(|id| self.room.find(id.as_str()));
            let content = content.map(|(_, e)| e.shown_content(&self.room.version));
            ensure!(content.as_ref() == Some(&event["content"]), "not the state: {event}, but {content:?}");
        }
        Ok(())
    }
}

/// The second device of everybody wants to see the rooms that they left.
fn includes_leave(device: usize) -> bool {
    device == 1
}

/// When a user's membership became another.
struct Change {
    /// The last event that changed it.
    last: Option<usize>,
    /// It was changed after the token,
    since: bool,
    /// and so that they were in, for a while at least.
    joined_since: bool,
}

impl Change {
    fn of(room: &Room, user: &OwnedUserId, memberships: &[&str], since: Time) -> Self {
        let key = member(user);
        let mut change = Self { last: None, since: false, joined_since: false };
        let mut before = None;
        for (at, event) in room.events.iter().enumerate() {
            let now = event.current.get(&key);
            if now != before {
                change.last = Some(at);
                change.since |= event.time > since;
                change.joined_since |= event.time > since && memberships[at] == "join";
            }
            before = now;
        }
        change
    }
}
