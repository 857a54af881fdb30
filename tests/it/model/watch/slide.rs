//! Sliding sync, held against the same judge: what it tells of a room is turned into what a sync would, and laid over what
//! the device knows. Each room has its own time up to which it was told.

use std::collections::BTreeSet;

use hearth::service::shape::Reader;
use hearth_core::{Error, Kind, sliding::SlidingWish};
use ruma::{
    OwnedUserId,
    api::{IncomingRequestExt as _, client::sync::sync_events::v5::Request},
};
use serde_json::{Value, json};

use super::{Change, Telling, eyes::Eyes};
use crate::model::{
    Outcome, Run,
    client::{Device, Knowledge, Members, receipts_in},
    ensure, failure,
    world::{Sight, Time},
};

/// How many events of a room somebody asks for.
const LIMITS: [u32; 2] = [10, 3];
/// More rooms than any history has.
pub const ALL: usize = 100;

/// The answer to one request, and to whom it was given.
struct Slid<'a> {
    user: &'a OwnedUserId,
    device: &'a Device,
    page: &'a Value,
    limit: u32,
    /// All rooms are in view.
    all: bool,
    /// Of whatever rooms are, this one is asked for by itself.
    subscribed: Option<usize>,
    ignored: BTreeSet<OwnedUserId>,
}

impl Slid<'_> {
    /// Whether the room is in view for sure.
    fn shows(&self, room: usize) -> bool {
        self.all || self.subscribed == Some(room)
    }
}

impl Run<'_> {
    /// With a view of so many rooms.
    pub async fn slide(&mut self, who: usize, device: usize, rooms: usize) -> Outcome<()> {
        let page = match self.ask_to_slide(who, device, rooms).await? {
            Some(page) => page,
            None => {
                self.devices[who][device].knows = Knowledge::default();
                let page = self.ask_to_slide(who, device, rooms).await?;
                page.ok_or_else(|| failure("who begins anew is told that a position is not known"))?
            }
        };
        let user = &self.users[who];
        let device = &self.devices[who][device];
        let (limit, ignored) = (LIMITS[who % 2], self.ignored_by(user));
        let slid = Slid {
            user,
            device,
            page: &page,
            limit,
            all: rooms >= self.world.rooms.len(),
            subscribed: self.subscribed(who),
            ignored,
        };
        let told = self.lay_over_slid(&slid, rooms).map_err(|e| failure(format!("{e}\nin {page}")))?;
        let device = self.devices[who].iter_mut().find(|device| device.slides).expect("the one that slides");
        device.past = vec![std::mem::replace(&mut device.knows, told)];
        Ok(())
    }

    /// What is told; `None` if the position is not known.
    pub async fn ask_to_slide(&self, who: usize, device: usize, rooms: usize) -> Outcome<Option<Value>> {
        let (user, device) = (&self.users[who], &self.devices[who][device]);
        // All that there is in these histories, either way.
        let required = match device.members {
            Members::All => json!([["*", "*"]]),
            _ => json!([
                ["m.room.create", ""],
                ["m.room.power_levels", ""],
                ["m.room.join_rules", ""],
                ["m.room.name", ""],
                ["m.room.topic", ""],
                ["m.room.guest_access", ""],
                ["m.room.history_visibility", ""],
                ["org.example.odd", "*"],
                ["m.room.member", "$LAZY"],
                ["m.room.member", "$ME"],
            ]),
        };
        let list = json!({
            "ranges": [[0, rooms - 1]], "timeline_limit": LIMITS[who % 2], "required_state": required,
        });
        let on = json!({ "enabled": true });
        let mut by_name = json!({});
        if let Some(room) = self.subscribed(who) {
            let wish = json!({ "timeline_limit": list["timeline_limit"], "required_state": list["required_state"] });
            by_name[self.world.rooms[room].id.as_str()] = wish;
        }
        let body = json!({
            "lists": { "all": list }, "room_subscriptions": by_name,
            "extensions": { "account_data": on, "receipts": on },
        });
        let pos = device.knows.since.as_ref().map_or(String::new(), |(pos, _)| format!("?pos={pos}"));
        let request = http::Request::post(format!("/sync{pos}")).body(body.to_string().into_bytes());
        let request = request.map_err(failure)?;
        let (parts, body) = request.into_parts();
        let request = http::Request::from_parts(parts, &body[..]);
        let request = Request::try_from_http_request(request, &[] as &[&str]);
        let wish = SlidingWish::new(request.map_err(failure)?, &serde_json::Map::new(), user, 0).map_err(failure)?;
        let slid = match self.services().syncs.slide(Reader { user, device: &device.name }, wish).await {
            Err(Error::Matrix { kind: Kind::UnknownPos, .. }) if device.knows.since.is_some() => return Ok(None),
            slid => slid.map_err(failure)?.response,
        };
        Ok(Some(json!({
            "pos": slid.pos, "lists": slid.lists, "rooms": slid.rooms, "extensions": slid.extensions,
        })))
    }

    /// Every second person keeps the first room open.
    fn subscribed(&self, who: usize) -> Option<usize> {
        (who.is_multiple_of(2) && !self.world.rooms.is_empty()).then_some(0)
    }

    fn lay_over_slid(&self, slid: &Slid<'_>, most: usize) -> Outcome<Knowledge> {
        let mut told = slid.device.knows.clone();
        let pos = slid.page["pos"].as_str().ok_or_else(|| failure("no pos"))?;
        told.since = Some((pos.to_owned(), self.world.now));
        let shown = slid.page["rooms"].as_object().ok_or_else(|| failure("no rooms"))?;
        let most = most + usize::from(slid.subscribed.is_some());
        ensure!(shown.len() <= most, "{} rooms of {most}", shown.len());
        for id in shown.keys() {
            ensure!(self.world.rooms.iter().any(|r| r.id == *id), "a room that is not of this story: {id}");
        }
        for n in 0..self.world.rooms.len() {
            self.lay_over_slid_room(slid, n, &mut told).map_err(|e| failure(format!("room {n}: {e}")))?;
        }
        let data = &slid.page["extensions"]["account_data"]["global"];
        for shown in data.as_array().into_iter().flatten() {
            told.kept.insert(shown["type"].as_str().unwrap_or_default().to_owned(), shown["content"].clone());
        }
        let mut kept = told.kept.clone();
        kept.remove("m.push_rules");
        let expected = self.kept_by(slid.user, None);
        ensure!(kept == expected, "account data is {expected:?}, not {kept:?}");
        Ok(told)
    }

    fn lay_over_slid_room(&self, slid: &Slid<'_>, n: usize, told: &mut Knowledge) -> Outcome<()> {
        let eyes = self.eyes(n, slid.user, &slid.device.name);
        let room = eyes.room;
        let shown = slid.page["rooms"].get(room.id.as_str());
        let known = told.told.get(&n).copied();
        let since = known.unwrap_or_default();
        let then = if known.is_none() { "leave" } else { room.membership_at(slid.user, since) };
        let change = Change::of(room, slid.user, &eyes.memberships, since);
        let is_news = known.is_none() || change.since;
        // Told of a room that is in view, whether anything else of it is news or not.
        let data = slid.page["extensions"]["account_data"]["rooms"][room.id.as_str()].as_array();
        for shown in data.into_iter().flatten() {
            let kind = shown["type"].as_str().unwrap_or_default().to_owned();
            told.rooms.entry(n).or_default().kept.insert(kind, shown["content"].clone());
        }
        match room.membership(slid.user) {
            "join" => {
                let initial = then != "join";
                ensure!(shown.is_some() || !slid.shows(n) || !initial, "it is not told of");
                self.lay_over_slid_joined(slid, &eyes, n, shown, (since, initial), told)?;
            }
            "leave" | "ban" => {
                let unheard = known.is_some() && change.since;
                ensure!(shown.is_some() || !slid.shows(n) || !unheard, "its end is not told of");
                let Some(shown) = shown else { return Ok(()) };
                ensure!(is_news, "its end is told of again");
                let own = |event: &&Value| event["type"] == "m.room.member" && event["state_key"] == slid.user.as_str();
                let own: Vec<&Value> = shown["required_state"].as_array().into_iter().flatten().filter(own).collect();
                // Where a merge of forks took it away, there is none.
                let once = usize::from(self.member_event(n, slid.user).is_some());
                ensure!(own.len() == once, "their own membership is told {} times, not {once}", own.len());
                let part = as_in_a_sync(shown, &Value::Null);
                let initial = known.is_none() || then != "join" && change.joined_since;
                let (last, left) = (change.last.expect("a leave"), room.left_at(slid.user));
                let telling = telling(slid, &part, initial, (since, last), left.unwrap_or_default());
                let view = told.rooms.entry(n).or_default();
                view.joined |= change.joined_since;
                view.lay_over_left(&eyes, &telling, left)?;
            }
            now @ ("invite" | "knock") => {
                let by = self.member_event(n, slid.user).map(|e| &e.sender);
                let hidden = now == "invite" && by.is_some_and(|by| slid.ignored.contains(by));
                ensure!(shown.is_none() || !hidden, "an invite of somebody who is ignored");
                ensure!(shown.is_some() || hidden || !slid.shows(n) || !is_news, "it is not told of");
                let Some(shown) = shown else { return Ok(()) };
                if let Some(view) = told.rooms.get_mut(&n) {
                    view.complete &= !view.joined && !change.joined_since;
                }
                let stripped = json!({ format!("{now}_state"): { "events": shown["invite_state"] } });
                eyes.judge_stripped(&stripped, now)?;
            }
            _ => ensure!(shown.is_none(), "a stranger is told of it"),
        }
        if shown.is_some() || slid.shows(n) && room.membership(slid.user) == "join" {
            told.told.insert(n, self.world.now);
        }
        Ok(())
    }

    fn lay_over_slid_joined(
        &self,
        slid: &Slid<'_>,
        eyes: &Eyes<'_>,
        n: usize,
        shown: Option<&Value>,
        (since, initial): (Time, bool),
        told: &mut Knowledge,
    ) -> Outcome<()> {
        let room = eyes.room;
        if shown.is_none() && !slid.shows(n) {
            return Ok(());
        }
        let view = told.rooms.entry(n).or_default();
        let receipts = &slid.page["extensions"]["receipts"]["rooms"][room.id.as_str()];
        if let Some(shown) = shown {
            ensure!((shown["initial"] == true) == initial, "initial should be {initial}");
            let part = as_in_a_sync(shown, receipts);
            let last = room.events.len() - 1;
            view.lay_over(eyes, &telling(slid, &part, initial, (since, last), last))?;
            view.joined = true;
            eyes.judge_unread(&part, false, &slid.ignored)?;
            view.unread = part["unread_notifications"].clone();
        } else {
            let part = json!({ "unread_notifications": view.unread });
            eyes.judge_unread(&part, false, &slid.ignored)?;
            let seen = |(at, event): (usize, &_)| {
                let event: &crate::model::world::Event = event;
                event.time > since && eyes.sights[at] == Sight::Must
            };
            ensure!(!room.events.iter().enumerate().any(seen), "what happened there is not told");
        }
        view.has_state(room.state(), slid.device.members)?;
        let actual = room.receipts_for(eyes.user);
        for (key, event) in receipts_in(&receipts["content"]) {
            ensure!(actual.get(&key) == Some(&event), "{key:?} has read {:?}, not {event}", actual.get(&key));
        }
        let kept = self.kept_by(eyes.user, Some(n));
        ensure!(view.kept == kept, "account data is {kept:?}, not {:?}", view.kept);
        Ok(())
    }
}

/// A room as a sync would tell of it.
fn as_in_a_sync(shown: &Value, receipts: &Value) -> Value {
    let list = |part: &Value| if part.is_null() { json!([]) } else { part.clone() };
    let count = |name: &str| shown.get(name).cloned().unwrap_or_default();
    let heroes = shown["heroes"].as_array().into_iter().flatten().map(|hero| hero["user_id"].clone());
    let heroes: Vec<Value> = heroes.collect();
    json!({
        "timeline": {
            "events": list(&shown["timeline"]), "limited": shown["limited"] == true, "prev_batch": shown["prev_batch"],
        },
        "state_after": { "events": list(&shown["required_state"]) },
        "summary": { "m.joined_member_count": shown["joined_count"], "m.heroes": heroes },
        "ephemeral": { "events": if receipts.is_null() { json!([]) } else { json!([receipts]) } },
        "unread_notifications": {
            "notification_count": count("notification_count"), "highlight_count": count("highlight_count"),
        },
    })
}

fn telling<'a>(
    slid: &Slid<'a>,
    part: &'a Value,
    initial: bool,
    (since, last): (Time, usize),
    surely_until: usize,
) -> Telling<'a> {
    Telling {
        part,
        filter: None,
        members: slid.device.members,
        initial,
        since,
        last,
        surely_until,
        limit: slid.limit,
        full_state: false,
        state_after: true,
        own_end: true,
    }
}
