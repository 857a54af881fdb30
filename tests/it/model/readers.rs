//! All other ways to read a room, held against the judge.

use std::collections::BTreeSet;

use hearth::service::{
    shape::Reader,
    timeline::{MemberWish, PageWish},
};
use hearth_core::{Error, Result};
use hearth_storage::Direction;
use ruma::{OwnedEventId, api::client::filter::RoomEventFilter, serde::Raw};
use serde_json::{Value, json};

use super::{
    Outcome, Run,
    client::Members,
    ensure, failure,
    watch::{Eyes, id_of},
    world::{Access, Sight, State, Time},
};

/// More pages than any of these rooms has.
pub const MOST_PAGES: usize = 500;

pub fn parsed<T>(raw: &Raw<T>) -> Outcome<Value> {
    serde_json::from_str(raw.json().get()).map_err(failure)
}

/// The answer; `None` if it was refused.
pub fn answered<T>(what: Result<T>) -> Outcome<Option<T>> {
    match what {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Matrix { .. }) => Ok(None),
        Err(e) => Err(failure(format!("the server broke: {e}"))),
    }
}

struct Page {
    chunk: Vec<Value>,
    state: Vec<Value>,
    end: Option<String>,
}

impl Run<'_> {
    async fn one_page(
        &self,
        who: usize,
        room: usize,
        from: Option<&str>,
        direction: Direction,
        limit: u32,
        filter: Option<&Value>,
    ) -> Outcome<Option<Page>> {
        let filter = filter.cloned().unwrap_or_else(|| json!({}));
        let wish = PageWish {
            from: from.map(|token| token.parse().expect("a token")),
            to: None,
            direction,
            limit: limit.into(),
            filter: serde_json::from_value(filter).expect("a filter"),
        };
        let reader = Reader { user: &self.users[who], device: "D" };
        let id = &self.world.rooms[room].id;
        let page = self.services().timelines.messages::<Value, Value>(reader, id, wish).await;
        let Some(page) = answered(page)? else { return Ok(None) };
        let chunk = page.chunk.iter().map(parsed).collect::<Outcome<Vec<_>>>()?;
        ensure!(chunk.len() <= limit as usize, "more events than asked for");
        let state = page.state.iter().map(parsed).collect::<Outcome<Vec<_>>>()?;
        Ok(Some(Page { chunk, state, end: page.end.map(|token| token.to_string()) }))
    }

    /// One page into the newest gap. Whether there was one.
    pub async fn fill_gap(&mut self, who: usize, device: usize, room: usize, limit: u32) -> Outcome<bool> {
        let user = self.users[who].clone();
        let known = self.devices[who][device].knows.rooms.get(&room);
        let Some((at, token)) = known.and_then(|view| view.newest_gap()) else { return Ok(false) };
        let mut filter = self.devices[who][device].filter.clone().unwrap_or_else(|| json!({}));
        let members = self.devices[who][device].members;
        for (name, value) in members.filter().as_object().into_iter().flatten() {
            filter[name] = value.clone();
        }
        let page = self.one_page(who, room, Some(token), Direction::Back, limit, Some(&filter)).await?;
        let access = self.world.rooms[room].access(&user);
        ensure!(page.is_some() == (access != Access::None), "with {access:?}, a page was given: {}", page.is_some());
        let Some(page) = page else { return Ok(false) };
        let eyes = self.eyes(room, &user, "D");
        let (mut ids, mut places) = (Vec::with_capacity(page.chunk.len()), Vec::with_capacity(page.chunk.len()));
        for event in &page.chunk {
            places.push(eyes.sees(event)?);
            ids.push(id_of(event)?);
        }
        if members != Members::All {
            eyes.judge_members_beside(&places, &page.state)?;
        }
        let device = &mut self.devices[who][device];
        let view = device.knows.rooms.get_mut(&room).expect("it was there");
        if view.fill(at, &ids, page.end) && self.ever_ignored.iter().any(|(by, _)| *by == user) {
            // What it had there is not shown any more, so nobody can say where its timelines meet.
            view.complete = false;
        }
        Ok(true)
    }

    /// All pages from the end, the beginning, or where a device synced last: just what is to be seen there.
    pub async fn page(
        &self,
        who: usize,
        room: usize,
        forward: bool,
        limit: u32,
        from_device: Option<usize>,
    ) -> Outcome<()> {
        let from = from_device.and_then(|device| self.devices[who][device].knows.since.clone());
        let direction = if forward { Direction::Forward } else { Direction::Back };
        let user = &self.users[who];
        let eyes = self.eyes(room, user, "D");
        let access = eyes.room.access(user);
        let mut token = from.as_ref().map(|(token, _)| token.clone());
        let mut places = Vec::new();
        for n in 0.. {
            ensure!(n < MOST_PAGES, "the pages don't end");
            let page = self.one_page(who, room, token.as_deref(), direction, limit, None).await?;
            ensure!(
                page.is_some() == (access != Access::None),
                "with {access:?}, a page was given: {}",
                page.is_some()
            );
            let Some(page) = page else { return Ok(()) };
            for event in &page.chunk {
                places.push(eyes.sees(event)?);
            }
            match page.end {
                Some(end) => token = Some(end),
                None => break,
            }
        }
        if !forward {
            places.reverse();
        }
        let in_order = places.windows(2).all(|pair| pair[0] < pair[1]);
        ensure!(in_order, "the pages of {user} in room {room} are out of order: {places:?}");
        let time = from.map_or(if forward { 0 } else { Time::MAX }, |(_, time)| time);
        for (at, event) in eyes.room.events.iter().enumerate() {
            let there = (event.time > time) == forward;
            let until = match access {
                Access::Until(until) => until,
                _ => usize::MAX,
            };
            let must = there && eyes.sights[at] == Sight::Must && at <= until;
            let shown = places.contains(&at);
            ensure!(!shown || there, "{} is shown on the wrong side of the token", event.id);
            ensure!(
                shown || !must,
                "{user} may see {} {} (at {at}) in room {room}, but pages to {places:?} of {:?}, forward: {forward}",
                event.kind,
                event.id,
                eyes.sights
            );
        }
        Ok(())
    }

    /// One event by its id.
    pub async fn look(&self, who: usize, room: usize, back: usize) -> Outcome<()> {
        let user = &self.users[who];
        let eyes = self.eyes(room, user, "D");
        let Some(at) = eyes.room.events.len().checked_sub(back + 1) else { return Ok(()) };
        let id = &eyes.room.events[at].id;
        let reader = Reader { user, device: "D" };
        let event = self.services().timelines.event::<Value>(reader, &eyes.room.id, id).await;
        match answered(event)? {
            Some(event) => {
                let event = parsed(&event)?;
                ensure!(eyes.knows(&event)? == at, "another event: {event}");
                // Who asks for an event by its id may be given what they ignore.
                let sight = eyes.room.sights(user)[at];
                ensure!(sight != Sight::Never, "{user} may not see {event}");
            }
            None => {
                let must = eyes.sights[at] == Sight::Must && eyes.room.access(user) != Access::None;
                ensure!(!must, "{user} may see {id} (at {at}), but is not given it: {:?}", eyes.sights);
            }
        }
        self.look_about(&eyes, at).await?;
        for refused in eyes.room.refused.iter().take(1) {
            let event = self.services().timelines.event::<Value>(reader, &eyes.room.id, refused).await;
            ensure!(answered(event)?.is_none(), "{refused}, which was refused, is shown");
        }
        Ok(())
    }

    /// One event, and what lies around it.
    async fn look_about(&self, eyes: &Eyes<'_>, at: usize) -> Outcome<()> {
        let (user, id) = (eyes.user, &eyes.room.events[at].id);
        let reader = Reader { user, device: "D" };
        let (room_id, filter) = (&eyes.room.id, RoomEventFilter::default());
        let around = self.services().timelines.context::<Value, Value>(reader, room_id, id, 6, filter).await;
        let Some(around) = answered(around)? else {
            let must = eyes.sights[at] == Sight::Must && eyes.room.access(user) != Access::None;
            ensure!(!must, "{user} may see {id} (at {at}), but not what is around it: {:?}", eyes.sights);
            return Ok(());
        };
        let sight = eyes.room.sights(user)[at];
        ensure!(sight != Sight::Never && eyes.knows(&parsed(&around.event)?)? == at, "{user} may not see {id}");
        for (events, forward) in [(&around.before, false), (&around.after, true)] {
            let mut places = Vec::with_capacity(events.len());
            for event in events {
                places.push(eyes.sees(&parsed(event)?)?);
            }
            let all = eyes.sights.iter().enumerate();
            let seen: Vec<usize> = match forward {
                true => all.skip(at + 1).filter(|(_, s)| **s == Sight::Must).map(|(i, _)| i).collect(),
                false => all.take(at).rev().filter(|(_, s)| **s == Sight::Must).map(|(i, _)| i).collect(),
            };
            let expected = &seen[..seen.len().min(3)];
            let musts: Vec<usize> = places.iter().copied().filter(|i| eyes.sights[*i] == Sight::Must).collect();
            let full = places.len() == 3 || musts == expected;
            ensure!(
                full && expected.starts_with(&musts),
                "around {at} {user} is shown {places:?}, not {expected:?} of {:?}",
                eyes.sights
            );
        }
        Ok(())
    }

    /// The state and the members; and the members when a device synced last.
    pub async fn look_around(&self, who: usize, room: usize, device: Option<usize>) -> Outcome<()> {
        let user = &self.users[who];
        let eyes = self.eyes(room, user, "D");
        let last = eyes.room.events.len() - 1;
        let access = eyes.room.access(user);
        let until = match access {
            Access::Now => Some(last),
            Access::Until(until) => Some(until),
            Access::None => None,
        };
        let reader = Reader { user, device: "D" };
        let timelines = &self.services().timelines;
        let state = answered(timelines.state::<Value>(reader, &eyes.room.id).await)?;
        match (&state, until) {
            (Some(state), Some(until)) => {
                let state = self.places(&eyes, state)?;
                let expected = in_state(&eyes.room.events[until].current, "");
                ensure!(state == expected, "the state is {state:?}, not {expected:?}");
            }
            (None, None) => {}
            (state, until) => {
                return Err(failure(format!("state as of {until:?} was given: {}", state.is_some())));
            }
        }

        let since = device.and_then(|device| self.devices[who].get(device)?.knows.since.clone());
        let at = since.as_ref().map_or(Some(last), |(_, time)| eyes.room.last_at(*time));
        let at = at.and_then(|at| Some(at.min(until?)));
        let seen = at.filter(|at| Some(*at) == until || eyes.room.sees_state_at(user, *at));
        let wish = MemberWish { at: since.map(|(token, _)| token.parse().expect("a token")), ..MemberWish::default() };
        let members = answered(timelines.members::<Value>(reader, &eyes.room.id, wish).await)?;
        match (&members, seen) {
            (Some(members), Some(at)) => {
                let members = self.places(&eyes, members)?;
                let expected = in_state(&eyes.room.events[at].current, "m.room.member");
                ensure!(members == expected, "the members at {at} are {members:?}, not {expected:?}");
            }
            // Before the room there was nobody, or the one who makes it.
            (Some(members), None) if at.is_none() => {
                let first = in_state(&eyes.room.events[1].current, "m.room.member");
                ensure!(self.places(&eyes, members)?.is_subset(&first), "members before there was a room");
            }
            (None, None) => {}
            (members, seen) => {
                let given = members.is_some();
                return Err(failure(format!("members at {at:?} ({seen:?} is seen) of {access:?} were given: {given}")));
            }
        }
        Ok(())
    }

    /// The events of a state that is shown.
    fn places(&self, eyes: &Eyes<'_>, shown: &[Raw<Value>]) -> Outcome<BTreeSet<OwnedEventId>> {
        let mut ids = BTreeSet::new();
        for event in shown {
            let event = parsed(event)?;
            eyes.knows(&event)?;
            ensure!(ids.insert(id_of(&event)?), "twice in the state: {event}");
        }
        Ok(ids)
    }
}

fn in_state(state: &State, kind: &str) -> BTreeSet<OwnedEventId> {
    state.iter().filter(|((of, _), _)| kind.is_empty() || of == kind).map(|(_, id)| id.clone()).collect()
}
