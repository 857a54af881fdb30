//! Members that are loaded lazily: whom a device has to know of, and whom it need not be told of.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>

use std::collections::BTreeSet;

use serde_json::Value;

use super::{eyes::Eyes, id_of, view::Telling};
use crate::model::{
    Outcome,
    client::{Members, View},
    ensure,
    world::{Access, Key, Room, State, Time, key, member},
};

fn is_member(key: &Key) -> bool {
    key.0 == "m.room.member"
}

impl Room {
    /// Whose memberships changed after this time, up to this event.
    fn changed_members(&self, since: Time, until: usize) -> BTreeSet<Key> {
        let mut changed = BTreeSet::new();
        let none = State::new();
        for (at, event) in self.events.iter().enumerate().take(until + 1).filter(|(_, event)| event.time > since) {
            let before = at.checked_sub(1).map_or(&none, |before| &*self.events[before].current);
            let keys = before.keys().chain(event.current.keys()).filter(|key| is_member(key));
            changed.extend(keys.filter(|key| before.get(key) != event.current.get(key)).cloned());
        }
        changed
    }
}

impl View {
    /// What this sync tells of members, before it is laid over what is known.
    pub fn judge_members(&self, eyes: &Eyes<'_>, telling: &Telling<'_>, places: &[usize], told: &State) -> Outcome<()> {
        if telling.members == Members::All {
            return Ok(());
        }
        let mut known: BTreeSet<Key> = told.keys().cloned().collect();
        if telling.members == Members::Needed && !telling.whole() {
            known.extend(self.state.keys().cloned());
        }
        let beside = telling.beside(places).map(|at| &eyes.room.events[at].current);
        // Who is put out of the state by a merge of forks, without an event that says it, can't be told of.
        let end = &eyes.room.events[telling.surely_until].current;
        let there = |who: &Key| beside.is_some_and(|state| state.contains_key(who)) && end.contains_key(who);
        let mut needed = BTreeSet::from([member(eyes.user)]);
        for at in places {
            let event = &eyes.room.events[*at];
            if !telling.state_after {
                known.extend(event.key());
            }
            let sender = member(&event.sender);
            ensure!(known.contains(&sender) || !there(&sender), "who is {}, who sent {}?", event.sender, event.id);
            needed.insert(sender);
        }
        for hero in telling.part["summary"]["m.heroes"].as_array().into_iter().flatten() {
            let hero = key("m.room.member", hero.as_str().unwrap_or_default());
            // Unless the device knows them anyway, from this answer or an earlier one.
            let knows = known.contains(&hero) || !telling.whole() && self.state.contains_key(&hero);
            ensure!(knows || !there(&hero), "who is the hero {}?", hero.1);
            needed.insert(hero);
        }
        if !telling.whole() {
            needed.extend(eyes.room.changed_members(telling.since, telling.last));
        }
        let idle: Vec<&Key> = told.keys().filter(|key| is_member(key) && !needed.contains(*key)).collect();
        ensure!(idle.is_empty(), "nobody needs {idle:?}");
        Ok(())
    }

    /// Whose membership changed is told of, needed or not: who has asked for all members goes on from there.
    pub fn judge_changed_members(&self, eyes: &Eyes<'_>, telling: &Telling<'_>) -> Outcome<()> {
        if telling.whole() {
            return Ok(());
        }
        let room = eyes.room;
        // Who left and was then banned is shown the ban in the timeline, too.
        let me = member(eyes.user);
        let mine = room.events[telling.last].current.get(&me);
        let now = &room.events[telling.surely_until].current;
        let then = room.last_at(telling.since).map(|at| &room.events[at].current);
        for key in room.changed_members(telling.since, telling.surely_until) {
            let is = now.get(&key);
            let changed = is != then.and_then(|then| then.get(&key));
            let known = self.state.get(&key);
            let knows = known == is || self.misled.contains(&key) || key == me && known == mine;
            ensure!(!changed || is.is_none() || knows, "{key:?} has changed to {is:?}, and is not told of");
        }
        Ok(())
    }
}

impl Eyes<'_> {
    /// The members beside a page: those who sent its events, as they were at the first of them.
    pub fn judge_members_beside(&self, places: &[usize], told: &[Value]) -> Outcome<()> {
        let Some(first) = places.first() else {
            ensure!(told.is_empty(), "members beside nothing: {told:?}");
            return Ok(());
        };
        let at = match self.room.access(self.user) {
            Access::Until(until) => (*first).min(until),
            _ => *first,
        };
        let state = &self.room.events[at].current;
        let senders: BTreeSet<Key> = places.iter().map(|at| member(&self.room.events[*at].sender)).collect();
        let expected: BTreeSet<_> = senders.iter().filter_map(|sender| state.get(sender)).cloned().collect();
        let mut given = BTreeSet::new();
        for event in told {
            self.knows(event)?;
            ensure!(given.insert(id_of(event)?), "twice: {event}");
        }
        // What the state was where somebody came in or went out, they may know or not.
        let must = self.room.sees_state_at(self.user, at);
        ensure!(given == expected || given.is_empty() && !must, "the senders are {expected:?}, not {given:?}");
        Ok(())
    }
}
