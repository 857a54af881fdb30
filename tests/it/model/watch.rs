//! Syncs: what a device is told, laid over what it knows, and held against the judge.

use std::collections::{BTreeMap, BTreeSet};

use hearth::{service::shape::Reader, sync::SyncWish};
use hearth_core::filter::{Subject, matches_room_event};
use ruma::{
    OwnedEventId, OwnedUserId,
    api::{OutgoingResponseExt as _, client::filter::RoomEventFilter},
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    Outcome, Run,
    client::{Item, Knowledge, View, receipts_in},
    ensure, failure,
    world::{Event, Key, Room, Sight, State, Time, member},
};

pub fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn id_of(event: &Value) -> Outcome<OwnedEventId> {
    let id = event["event_id"].as_str().ok_or_else(|| failure(format!("an event without id: {event}")))?;
    id.try_into().map_err(failure)
}

/// Somebody who reads a room: what they are to see of it.
pub struct Eyes<'a> {
    pub room: &'a Room,
    pub user: &'a OwnedUserId,
    pub device: &'a str,
    pub sights: Vec<Sight>,
    pub memberships: Vec<&'a str>,
}

impl Run<'_> {
    /// The room as somebody is to see it.
    pub fn eyes<'a>(&'a self, room: usize, user: &'a OwnedUserId, device: &'a str) -> Eyes<'a> {
        let room = &self.world.rooms[room];
        let mut sights = room.sights(user);
        // <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
        let ignored = self.ignored_by(user);
        for (event, sight) in room.events.iter().zip(&mut sights) {
            if event.state_key.is_none() && ignored.contains(&event.sender) {
                *sight = Sight::Never;
            }
        }
        Eyes { room, user, device, sights, memberships: room.memberships(user) }
    }
}

impl Eyes<'_> {
    /// The event as it stands in the list; it says there what is shown of it, to this reader, wherever they read.
    pub fn knows(&self, shown: &Value) -> Outcome<usize> {
        let id = id_of(shown)?;
        ensure!(!self.room.refused.contains(&id), "what was refused is shown: {shown}");
        let (at, event) =
            self.room.find(id.as_str()).ok_or_else(|| failure(format!("an event that never was: {shown}")))?;
        ensure!(
            shown["type"] == event.kind
                && shown["sender"] == event.sender.as_str()
                && shown.get("state_key").and_then(Value::as_str) == event.state_key.as_deref(),
            "another event under the id of {}: {shown}",
            event.id
        );
        let redacted = event.redacted_by.as_ref();
        let is_redaction = event.kind == "m.room.redaction";
        // A redaction is shown with its target in both places, whatever the version.
        ensure!(
            is_redaction || shown["content"] == event.shown_content(&self.room.version),
            "the content should be {}: {shown}",
            event.shown_content(&self.room.version)
        );
        let because = shown["unsigned"]["redacted_because"]["event_id"].as_str();
        ensure!(because == redacted.map(|id| id.as_str()), "redacted by {redacted:?}: {shown}");
        let own = event.sender == *self.user && event.device.as_deref() == Some(self.device);
        let txn = shown["unsigned"].get("transaction_id");
        ensure!(txn.is_some() == own, "its transaction is for the device that sent it: {shown}");
        Ok(at)
    }

    /// The same for an event of a timeline, which only who may see it is shown.
    pub fn sees(&self, shown: &Value) -> Outcome<usize> {
        let at = self.knows(shown)?;
        ensure!(self.sights[at] != Sight::Never, "{} may not see {shown}", self.user);
        let membership = self.memberships[at];
        ensure!(shown["unsigned"]["membership"] == membership, "they were {membership} then: {shown}");
        Ok(at)
    }

    fn is_own(&self, at: usize) -> bool {
        self.room.events[at].key() == Some(member(self.user))
    }
}

/// Whether a timeline's filter lets the event through.
pub fn passes(filter: Option<&Value>, room: &Room, event: &Event) -> bool {
    let Some(filter) = filter else { return true };
    let filter: RoomEventFilter = serde_json::from_value(filter.clone()).expect("a filter");
    let content = to_raw_value(&event.content).expect("JSON");
    let subject =
        Subject { event_type: &event.kind, sender: Some(&event.sender), room_id: &room.id, content: &content };
    matches_room_event(&filter, &subject)
}

/// How a room is told of, and what of it.
struct Telling<'a> {
    part: &'a Value,
    /// From the beginning of the room, as to a newcomer.
    initial: bool,
    /// Otherwise what happened after this.
    since: Time,
    /// Up to this event.
    last: usize,
    /// But after this event only of the reader's own membership.
    surely_until: usize,
    limit: u32,
    full_state: bool,
    /// The state is that after the timeline.
    state_after: bool,
}

impl Run<'_> {
    pub async fn sync(&mut self, who: usize, device: usize, limit: u32, full_state: bool) -> Outcome<()> {
        let page = self.ask_to_sync(who, device, limit, full_state).await?;
        let user = self.users[who].clone();
        let known = self.devices[who][device].knows.clone();
        let told = self.lay_over(&user, device, &known, &page, limit, full_state);
        let told = told.map_err(|e| failure(format!("{e}\nin {}", page["rooms"])))?;
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
        let filter = json!({ "room": { "include_leave": include_leave, "timeline": timeline } });
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
        let response = self.services().syncs.sync(reader, wish).await.map_err(failure)?;
        let response = response.try_into_http_response::<Vec<u8>>().map_err(failure)?;
        serde_json::from_slice(response.body()).map_err(failure)
    }

    /// What the device knows after the sync.
    fn lay_over(
        &self,
        user: &OwnedUserId,
        device: usize,
        known: &Knowledge,
        page: &Value,
        limit: u32,
        full_state: bool,
    ) -> Outcome<Knowledge> {
        let who = self.users.iter().position(|u| u == user).expect("one of the people");
        let mut told = known.clone();
        let token = page["next_batch"].as_str().ok_or_else(|| failure("no next_batch"))?;
        told.since = Some((token.to_owned(), self.world.now));
        let first = known.since.is_none();
        let since = known.since.as_ref().map_or(0, |(_, time)| *time);
        let ignored = self.ignored_by(user);

        for section in ["join", "leave", "invite", "knock"] {
            for id in page["rooms"][section].as_object().into_iter().flatten().map(|(id, _)| id) {
                ensure!(self.world.rooms.iter().any(|r| r.id == *id), "a room that is not of this story: {id}");
            }
        }
        for (n, room) in self.world.rooms.iter().enumerate() {
            let name = &self.devices[who][device].name;
            let eyes = self.eyes(n, user, name);
            let filter = self.devices[who][device].filter.as_ref();
            let state_after = self.devices[who][device].state_after;
            let part = |section: &str| {
                let part = &page["rooms"][section][room.id.as_str()];
                (!part.is_null()).then_some(part)
            };
            let now = room.membership(user);
            let then = if first { "leave" } else { room.membership_at(user, since) };
            let changes = changes_of(room, user);
            let changed = changes.iter().any(|at| room.events[*at].time > since);
            let last_change = changes.last().copied();
            let joined_since =
                changes.iter().any(|at| room.events[*at].time > since && eyes.memberships[*at] == "join");
            let expected = match now {
                "join" => "join",
                "leave" | "ban" if first => {
                    let shown = includes_leave(device) && last_change.is_some() && !room.forgotten.contains(user);
                    if shown { "leave" } else { "" }
                }
                "leave" | "ban" if changed => "leave",
                "invite" | "knock" if changed => {
                    let by = self.member_event(n, user).map(|e| &e.sender);
                    // <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
                    let hidden = now == "invite" && by.is_some_and(|by| ignored.contains(by));
                    if hidden { "" } else { now }
                }
                _ => "",
            };
            for section in ["join", "leave", "invite", "knock"] {
                let shown = part(section).is_some();
                ensure!(!shown || section == expected, "room {n} in {section}, not in {expected:?}");
                let must = section == expected && section != "join";
                ensure!(shown || !must, "room {n} is not in {section}");
            }
            match expected {
                "join" => {
                    let initial = first || then != "join";
                    let silent = !initial && !full_state;
                    let news = self.news(&eyes, n, user, filter, since);
                    let Some(part) = part("join") else {
                        ensure!(silent && news != News::Some, "room {n} is not told of");
                        continue;
                    };
                    ensure!(!silent || news != News::None, "room {n} is told of, and nothing happened there");
                    let last = room.events.len() - 1;
                    let telling =
                        Telling { part, initial, since, last, surely_until: last, limit, full_state, state_after };
                    let view = told.rooms.entry(n).or_default();
                    view.lay_over(&eyes, filter, &telling).map_err(|e| failure(format!("room {n}: {e}")))?;
                    view.joined = true;
                    self.holds(&eyes, n, view).map_err(|e| failure(format!("room {n}: {e}")))?;
                    let unread = part["unread_notifications"]["notification_count"].as_u64();
                    let expected = eyes.unread(&ignored);
                    ensure!(unread.is_none_or(|n| n == expected), "room {n}: {expected} are unread, not {unread:?}");
                    for shown in events(&part["account_data"]) {
                        let kind = shown["type"].as_str().unwrap_or_default();
                        view.kept.insert(kind.to_owned(), shown["content"].clone());
                    }
                    let kept = self.kept_by(user, Some(n));
                    ensure!(view.kept == kept, "room {n}: account data is {kept:?}, not {:?}", view.kept);
                }
                "leave" => {
                    let part = part("leave").expect("it was there");
                    let initial = first || then != "join" && joined_since;
                    let last = last_change.expect("a leave");
                    let left = room.left_at(user);
                    let telling = Telling {
                        part,
                        initial,
                        since,
                        last,
                        surely_until: left.unwrap_or(0),
                        limit,
                        full_state: false,
                        state_after,
                    };
                    let view = told.rooms.entry(n).or_default();
                    view.lay_over(&eyes, filter, &telling).map_err(|e| failure(format!("room {n}, left: {e}")))?;
                    view.joined |= joined_since;
                    view.goes_out();
                    view.complete &= left.is_some();
                    if let (Some(left), true) = (left, view.complete) {
                        let mut state = (*room.events[left].current).clone();
                        if left < last {
                            // Of a ban that came later the timeline tells, if it is long enough.
                            state.remove(&member(user));
                        }
                        view.has_state(&state).map_err(|e| failure(format!("room {n}, left: {e}")))?;
                    }
                }
                "invite" | "knock" => {
                    if let Some(view) = told.rooms.get_mut(&n) {
                        // Of what was until they went out, the device may have heard or not.
                        view.complete &= !view.joined && !joined_since;
                    }
                    let part = part(expected).expect("it was there");
                    let stripped = events(&part[format!("{expected}_state")]);
                    let own = stripped.iter().find(|e| e["type"] == "m.room.member" && e["state_key"] == user.as_str());
                    ensure!(own.is_some_and(|e| e["content"]["membership"] == expected), "no own event in {part}");
                    for event in stripped {
                        let kind = event["type"].as_str().unwrap_or_default();
                        let own_or_by = kind == "m.room.member";
                        ensure!(own_or_by || event["state_key"] == "", "too much is told: {event}");
                        let id = room
                            .state()
                            .get(&(kind.to_owned(), event["state_key"].as_str().unwrap_or_default().to_owned()));
                        let content =
                            id.and_then(|id| room.find(id.as_str())).map(|(_, e)| e.shown_content(&room.version));
                        ensure!(content.as_ref() == Some(&event["content"]), "not the state: {event}, but {content:?}");
                    }
                }
                _ => {}
            }
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

    pub fn kept_by(&self, user: &OwnedUserId, room: Option<usize>) -> BTreeMap<String, Value> {
        let all = self.world.kept.iter().filter(|((u, r, _), _)| u == user && *r == room);
        all.map(|((_, _, kind), (_, content))| (kind.clone(), content.clone())).collect()
    }

    /// Whether anything happened in a room that somebody in it is to be told.
    fn news(&self, eyes: &Eyes<'_>, n: usize, user: &OwnedUserId, filter: Option<&Value>, since: Time) -> News {
        let room = eyes.room;
        let kept = self.world.kept.iter().any(|((u, r, _), (time, _))| u == user && *r == Some(n) && *time > since);
        let read = room
            .receipts
            .iter()
            .any(|((of, kind, _), (time, _))| *time > since && (of == user || kind != "m.read.private"));
        let before = room.last_at(since).map(|at| &room.events[at].current);
        if kept || read || before != Some(room.state()) {
            return News::Some;
        }
        let young = room.events.iter().enumerate().filter(|(_, e)| e.time > since);
        let (mut any, mut seen) = (false, false);
        for (at, event) in young {
            any = true;
            seen |= eyes.sights[at] == Sight::Must && passes(filter, room, event);
        }
        if seen {
            News::Some
        } else if any {
            News::Perhaps
        } else {
            News::None
        }
    }

    /// What a device knows of a room that its owner is in.
    fn holds(&self, eyes: &Eyes<'_>, n: usize, view: &mut View) -> Outcome<()> {
        let room = &self.world.rooms[n];
        view.has_state(room.state())?;
        let receipts = room.receipts_for(eyes.user);
        ensure!(view.receipts == receipts, "the receipts are {receipts:?}, not {:?}", view.receipts);
        Ok(())
    }

    /// Now that all gaps are closed: the timeline of each room is what its owner is to see of it.
    pub fn has_all(&self, who: usize, device: usize) -> Outcome<()> {
        let (user, device) = (&self.users[who], &self.devices[who][device]);
        for (n, view) in &device.knows.rooms {
            let room = &self.world.rooms[*n];
            let eyes = self.eyes(*n, user, &device.name);
            let is_in = room.membership(user) == "join";
            if !view.complete || view.joined != is_in || view.newest_gap().is_some() {
                continue;
            }
            let until = if is_in { Some(room.events.len() - 1) } else { room.left_at(user) };
            let Some(until) = until else { continue };
            let ids = view.ids();
            let mut next = 0;
            for (at, event) in room.events.iter().enumerate() {
                if ids.get(next) == Some(&event.id) {
                    next += 1;
                } else {
                    // What was missed while its sender was ignored is not told afterwards.
                    let missed =
                        event.state_key.is_none() && self.ever_ignored.contains(&(user.clone(), event.sender.clone()));
                    let must = eyes.sights[at] == Sight::Must && at <= until && !missed;
                    ensure!(
                        !must || !passes(device.filter.as_ref(), room, event),
                        "room {n}: {} {} is missing on {}, which has {:?} of {:?}",
                        event.kind,
                        event.id,
                        device.name,
                        room.places(&ids),
                        eyes.sights
                    );
                }
            }
            ensure!(next == ids.len(), "room {n}: the order is another one: {:?}", room.places(&ids));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    None,
    /// Only what the device's filter drops.
    Perhaps,
    Some,
}

/// The second device of everybody wants to see the rooms that they left.
fn includes_leave(device: usize) -> bool {
    device == 1
}

/// The events by which the user's membership became another.
fn changes_of(room: &Room, user: &OwnedUserId) -> Vec<usize> {
    let key = member(user);
    let mut changes = Vec::new();
    let mut before = None;
    for (at, event) in room.events.iter().enumerate() {
        let now = event.current.get(&key);
        if now != before {
            changes.push(at);
        }
        before = now;
    }
    changes
}

impl Room {
    /// The places of events in the list.
    pub fn places(&self, ids: &[OwnedEventId]) -> Vec<usize> {
        ids.iter().filter_map(|id| self.find(id.as_str())).map(|(at, _)| at).collect()
    }
}

impl View {
    fn lay_over(&mut self, eyes: &Eyes<'_>, filter: Option<&Value>, telling: &Telling<'_>) -> Outcome<()> {
        let Telling { part, initial, since, last, surely_until, limit, full_state, state_after } = *telling;
        let room = eyes.room;
        let shown = events(&part["timeline"]);
        let limited = part["timeline"]["limited"] == true;
        ensure!(shown.len() <= limit as usize, "more events than asked for");
        // What came before an event that was told alone (of an invite that was refused) may be seen by now.
        let anew = initial && !(limited && self.complete);
        if initial {
            (self.state, self.misled, self.receipts) = Default::default();
            self.complete = true;
        }

        let mut places = Vec::with_capacity(shown.len());
        for event in shown {
            let at = eyes.sees(event)?;
            let stands = &room.events[at];
            ensure!(places.last().is_none_or(|before| *before < at), "{} is out of order", stands.id);
            ensure!(initial || stands.time > since, "{} is from before the token", stands.id);
            ensure!(at <= surely_until || eyes.is_own(at) && at <= last, "{} is from after the end", stands.id);
            ensure!(initial || !self.has(&stands.id), "{} came twice", stands.id);
            ensure!(passes(filter, room, stands), "{} was not wanted", stands.id);
            places.push(at);
        }
        // What lies between what is shown, or behind it, is nothing that they are to see. And what lies before it?
        let begins = places.first().copied().unwrap_or(last + 1);
        let mut missing = Vec::new();
        for at in 0..=last {
            let event = &room.events[at];
            let wanted = (initial || event.time > since)
                && eyes.sights[at] == Sight::Must
                && (at <= surely_until || eyes.is_own(at) && at == last)
                && passes(filter, room, event);
            if wanted && !places.contains(&at) {
                ensure!(at < begins, "{} {} at {at} is left out", event.kind, event.id);
                missing.push(at);
            }
        }
        ensure!(missing.is_empty() || limited, "not limited, yet {missing:?} are not shown: {:?}", eyes.sights);
        if limited && limit > 0 && !initial && filter.is_none() {
            let perhaps =
                (0..begins.min(last + 1)).any(|at| room.events[at].time > since && eyes.sights[at] != Sight::Never);
            ensure!(perhaps, "limited, yet nothing is left out");
        }
        let prev_batch = part["timeline"]["prev_batch"].as_str();
        ensure!(!limited || prev_batch.is_some(), "limited, and no way back");

        if anew {
            self.timeline.clear();
        } else if initial {
            self.comes_in();
        }
        if limited {
            if initial {
                // What is shown again is behind the gap now.
                let again = |id: &OwnedEventId| shown.iter().any(|e| e["event_id"] == id.as_str());
                self.timeline.retain(|item| !matches!(item, Item::Event(id) if again(id)));
            }
            // Two gaps with nothing between them are one.
            while self.timeline.pop_if(|item| matches!(item, Item::Gap(_))).is_some() {}
            self.timeline.push(Item::Gap(prev_batch.unwrap_or_default().to_owned()));
        }
        self.timeline.extend(places.iter().map(|at| Item::Event(room.events[*at].id.clone())));

        let mut fresh = State::new();
        let (there, nowhere) = if state_after { ("state_after", "state") } else { ("state", "state_after") };
        ensure!(part.get(nowhere).is_none(), "{nowhere} was not asked for");
        for event in events(&part[there]) {
            let at = eyes.knows(event)?;
            let key = room.events[at].key().ok_or_else(|| failure(format!("no state: {event}")))?;
            ensure!(at <= last, "state from after the end: {event}");
            ensure!(fresh.insert(key.clone(), room.events[at].id.clone()).is_none(), "{key:?} twice in the state");
        }
        let mut misled = BTreeSet::<Key>::new();
        for at in places.iter().filter(|_| !state_after) {
            let event = &room.events[*at];
            if let Some(key) = event.key() {
                if room.events[last].current.get(&key) == Some(&event.id) {
                    misled.remove(&key);
                } else {
                    misled.insert(key.clone());
                }
                fresh.insert(key, event.id.clone());
            }
        }
        self.misled.retain(|key| !fresh.contains_key(key));
        self.misled.extend(misled);
        if full_state {
            self.state = State::new();
        }
        self.state.extend(fresh);
        for event in events(&part["ephemeral"]) {
            if event["type"] == "m.receipt" {
                self.receipts.extend(receipts_in(&event["content"]));
            }
        }
        let joined = part["summary"]["m.joined_member_count"].as_u64();
        let expected = room.joined_count();
        ensure!(joined.is_none_or(|joined| joined == expected), "{expected} are joined, not {joined:?}");
        Ok(())
    }

    /// The state is known, but for what no sync can tell.
    fn has_state(&self, state: &State) -> Outcome<()> {
        for (key, id) in state {
            let known = self.state.get(key);
            ensure!(self.misled.contains(key) || known == Some(id), "the state {key:?} is {id}, not {known:?}");
        }
        Ok(())
    }
}

impl Room {
    fn joined_count(&self) -> u64 {
        let members = self.state().keys().filter(|(kind, _)| kind == "m.room.member");
        let joined = members.filter(|(_, user)| {
            let user: &ruma::UserId = user.as_str().try_into().expect("a user");
            self.membership(user) == "join"
        });
        joined.count() as u64
    }
}

impl Run<'_> {
    /// A device that has just synced is told nothing by the next sync.
    pub async fn hears_nothing(&self, who: usize, device: usize) -> Outcome<()> {
        let page = self.ask_to_sync(who, device, 10, false).await?;
        let sections = ["join", "leave", "invite", "knock"];
        let silent = |section: &str| page["rooms"][section].as_object().is_none_or(serde_json::Map::is_empty);
        ensure!(
            sections.into_iter().all(silent) && events(&page["account_data"]).is_empty(),
            "news, and nothing happened: {page}"
        );
        Ok(())
    }
}
