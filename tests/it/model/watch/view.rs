//! A room of a sync, laid over what the device knows of it.

use std::collections::BTreeSet;

use ruma::OwnedEventId;
use serde_json::Value;

use super::{
    events,
    eyes::{Eyes, passes},
};
use crate::model::{
    Outcome,
    client::{Item, Members, View, receipts_in},
    ensure, failure,
    world::{Key, Room, Sight, State, Time, member},
};

/// How a room is told of, and what of it.
pub struct Telling<'a> {
    pub part: &'a Value,
    /// The filter of the timeline.
    pub filter: Option<&'a Value>,
    pub members: Members,
    /// From the beginning of the room, as to a newcomer.
    pub initial: bool,
    /// Otherwise what happened after this.
    pub since: Time,
    /// Up to this event.
    pub last: usize,
    /// But after this event only of the reader's own membership.
    pub surely_until: usize,
    pub limit: u32,
    pub full_state: bool,
    /// The state is that after the timeline.
    pub state_after: bool,
    /// The reader's own membership is told as it is in the end, whatever became of it after the state that they saw.
    pub own_end: bool,
}

impl Telling<'_> {
    fn limited(&self) -> bool {
        self.part["timeline"]["limited"] == true
    }

    /// All of the state is told, and not what changed of it.
    pub fn whole(&self) -> bool {
        self.initial || self.full_state
    }

    /// Where the events of the timeline stand in the list.
    fn places(&self, eyes: &Eyes<'_>, view: &View) -> Outcome<Vec<usize>> {
        let shown = events(&self.part["timeline"]);
        ensure!(shown.len() <= self.limit as usize, "more events than asked for");
        let mut places = Vec::with_capacity(shown.len());
        for event in shown {
            let at = eyes.sees(event)?;
            let stands = &eyes.room.events[at];
            ensure!(places.last().is_none_or(|before| *before < at), "{} is out of order", stands.id);
            ensure!(self.initial || stands.time > self.since, "{} is from before the token", stands.id);
            let until_the_end = at <= self.surely_until || eyes.is_own(at) && at <= self.last;
            ensure!(until_the_end, "{} is from after the end", stands.id);
            ensure!(self.initial || !view.has(&stands.id), "{} came twice", stands.id);
            ensure!(passes(self.filter, eyes.room, stands), "{} was not wanted", stands.id);
            places.push(at);
        }
        Ok(places)
    }

    /// What lies between what is shown, or behind it, is nothing that they are to see. And what lies before it?
    fn leaves_nothing_out(&self, eyes: &Eyes<'_>, places: &[usize]) -> Outcome<()> {
        let (room, limited) = (eyes.room, self.limited());
        let begins = places.first().copied().unwrap_or(self.last + 1);
        let mut missing = Vec::new();
        for at in 0..=self.last {
            let event = &room.events[at];
            let wanted = (self.initial || event.time > self.since)
                && eyes.sights[at] == Sight::Must
                && (at <= self.surely_until || eyes.is_own(at) && at == self.last)
                && passes(self.filter, room, event);
            if wanted && !places.contains(&at) {
                ensure!(at < begins, "{} {} at {at} is left out", event.kind, event.id);
                missing.push(at);
            }
        }
        ensure!(missing.is_empty() || limited, "not limited, yet {missing:?} are not shown: {:?}", eyes.sights);
        if limited && self.limit > 0 && !self.initial && self.filter.is_none() {
            let perhaps = (0..begins.min(self.last + 1))
                .any(|at| room.events[at].time > self.since && eyes.sights[at] != Sight::Never);
            ensure!(perhaps, "limited, yet nothing is left out");
        }
        Ok(())
    }

    /// The event after which the state is as it is told beside the timeline; `None` if nothing was then.
    pub fn beside(&self, places: &[usize]) -> Option<usize> {
        match places.first() {
            Some(first) if !self.state_after => first.min(&(self.surely_until + 1)).checked_sub(1),
            _ => Some(self.surely_until),
        }
    }

    /// The state that is told beside the timeline.
    fn state(&self, eyes: &Eyes<'_>, places: &[usize]) -> Outcome<State> {
        let room = eyes.room;
        let (there, nowhere) = if self.state_after { ("state_after", "state") } else { ("state", "state_after") };
        ensure!(self.part.get(nowhere).is_none(), "{nowhere} was not asked for");
        let mut state = State::new();
        for event in events(&self.part[there]) {
            let at = eyes.knows(event)?;
            let key = room.events[at].key().ok_or_else(|| failure(format!("no state: {event}")))?;
            ensure!(at <= self.last, "state from after the end: {event}");
            ensure!(self.state_after || !places.contains(&at), "told as if it had been so before: {event}");
            // It is so then, or becomes so without an event of the timeline that says it.
            let mut then = self.beside(places).unwrap_or_default()..=self.surely_until;
            let was = then.any(|then| room.events[then].current.get(&key) == Some(&room.events[at].id));
            // Of the end, the membership that stands now: not the last, where a merge of forks took that away.
            let stands = || room.state().get(&key) == Some(&room.events[at].id);
            let own_end = || self.own_end && key == member(eyes.user) && stands();
            ensure!(was || own_end(), "the state is another: {event}");
            ensure!(state.insert(key.clone(), room.events[at].id.clone()).is_none(), "{key:?} twice in the state");
        }
        Ok(state)
    }
}

impl View {
    pub fn lay_over(&mut self, eyes: &Eyes<'_>, telling: &Telling<'_>) -> Outcome<()> {
        let room = eyes.room;
        // What came before an event that was told alone (of an invite that was refused) may be seen by now.
        let anew = telling.initial && !(telling.limited() && self.complete);
        if telling.initial {
            (self.state, self.misled, self.receipts) = Default::default();
            self.complete = true;
        }
        let places = telling.places(eyes, self)?;
        telling.leaves_nothing_out(eyes, &places)?;
        self.lay_over_timeline(eyes, telling, &places, anew)?;
        let told = telling.state(eyes, &places)?;
        self.judge_members(eyes, telling, &places, &told)?;
        self.lay_over_state(room, telling, &places, told);
        self.judge_changed_members(eyes, telling)?;
        for event in events(&telling.part["ephemeral"]) {
            if event["type"] == "m.receipt" {
                self.receipts.extend(receipts_in(&event["content"]));
            }
        }
        let joined = telling.part["summary"]["m.joined_member_count"].as_u64();
        let expected = room.joined_count();
        ensure!(joined.is_none_or(|joined| joined == expected), "{expected} are joined, not {joined:?}");
        Ok(())
    }

    fn lay_over_timeline(
        &mut self,
        eyes: &Eyes<'_>,
        telling: &Telling<'_>,
        places: &[usize],
        anew: bool,
    ) -> Outcome<()> {
        let prev_batch = telling.part["timeline"]["prev_batch"].as_str();
        ensure!(!telling.limited() || prev_batch.is_some(), "limited, and no way back");
        if anew {
            self.timeline.clear();
        } else if telling.initial {
            self.comes_in();
        }
        let shown: Vec<&OwnedEventId> = places.iter().map(|at| &eyes.room.events[*at].id).collect();
        if telling.limited() {
            if telling.initial {
                // What is shown again is behind the gap now.
                self.timeline.retain(|item| !matches!(item, Item::Event(id) if shown.contains(&id)));
            }
            // Two gaps with nothing between them are one.
            while self.timeline.pop_if(|item| matches!(item, Item::Gap(_))).is_some() {}
            self.timeline.push(Item::Gap(prev_batch.unwrap_or_default().to_owned()));
        }
        self.timeline.extend(shown.into_iter().cloned().map(Item::Event));
        Ok(())
    }

    fn lay_over_state(&mut self, room: &Room, telling: &Telling<'_>, places: &[usize], told: State) {
        let mut fresh = told;
        let mut misled = BTreeSet::<Key>::new();
        for at in places.iter().filter(|_| !telling.state_after) {
            let event = &room.events[*at];
            if let Some(key) = event.key() {
                if room.events[telling.last].current.get(&key) == Some(&event.id) {
                    misled.remove(&key);
                } else {
                    misled.insert(key.clone());
                }
                fresh.insert(key, event.id.clone());
            }
        }
        self.misled.retain(|key| !fresh.contains_key(key));
        self.misled.extend(misled);
        if telling.full_state {
            self.state = State::new();
        }
        self.state.extend(fresh);
    }

    /// A room that its owner left, with this event if they were ever in.
    pub fn lay_over_left(&mut self, eyes: &Eyes<'_>, telling: &Telling<'_>, left: Option<usize>) -> Outcome<()> {
        self.lay_over(eyes, telling)?;
        self.goes_out();
        self.complete &= left.is_some();
        if let (Some(left), true) = (left, self.complete) {
            let mut state = (*eyes.room.events[left].current).clone();
            if left < telling.last {
                // Of a ban that came later the timeline tells, if it is long enough.
                state.remove(&member(eyes.user));
            }
            self.has_state(&state, telling.members)?;
        }
        Ok(())
    }

    /// The state is known, but for what no sync can tell, and for members whom nobody needs.
    pub fn has_state(&self, state: &State, members: Members) -> Outcome<()> {
        for (key, id) in state {
            let known = self.state.get(key);
            let left_out = members != Members::All && key.0 == "m.room.member" && known.is_none();
            ensure!(
                left_out || self.misled.contains(key) || known == Some(id),
                "the state {key:?} is {id}, not {known:?}"
            );
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
