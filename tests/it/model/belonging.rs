//! What belongs to other events, what was near a moment, and what somebody was notified of, held against the judge.

use std::collections::BTreeSet;

use hearth::service::{
    notifications::Wish,
    shape::Reader,
    timeline::{RelationWish, ThreadWish},
};
use hearth_storage::{Direction, relations::RECURSION_DEPTH};
use ruma::OwnedEventId;
use serde_json::Value;

use super::{
    Outcome, Run, ensure, failure,
    readers::{MOST_PAGES, answered, parsed},
    watch::{Eyes, id_of},
    world::{Access, Event, Room, Sight},
};

/// How an event relates, and to which.
fn relation(event: &Event) -> Option<(&str, &str)> {
    if event.redacted_by.is_some() {
        return None;
    }
    let relation = &event.content["m.relates_to"];
    relation["rel_type"].as_str().zip(relation["event_id"].as_str())
}

/// What relates to an event, itself or by so many others.
fn beneath(room: &Room, at: usize, others: u32) -> BTreeSet<usize> {
    let parent = &room.events[at];
    let (mut all, mut targets) = (BTreeSet::new(), BTreeSet::from([&parent.id]));
    for _ in 0..=others {
        let mut next = BTreeSet::new();
        for (i, event) in room.events.iter().enumerate() {
            let Some((how, target)) = relation(event).filter(|(_, t)| targets.iter().any(|id| id.as_str() == *t))
            else {
                continue;
            };
            next.insert(&event.id);
            // With an event its edits are taken back.
            if how != "m.replace" || target != parent.id.as_str() || parent.redacted_by.is_none() {
                all.insert(i);
            }
        }
        targets = next;
    }
    all
}

impl Eyes<'_> {
    /// Whether the event is in the part of the room that the reader has to do with.
    fn reaches(&self, at: usize) -> bool {
        match self.room.access(self.user) {
            Access::Now => true,
            Access::Until(until) => at <= until,
            Access::None => false,
        }
    }

    /// Whether the reader is surely shown the event where they page.
    fn must_see(&self, at: usize) -> bool {
        self.reaches(at) && self.sights[at] == Sight::Must
    }
}

impl Run<'_> {
    /// Asks of everything in the room what belongs to it.
    pub async fn look_beneath(&self, who: usize, room: usize) -> Outcome<()> {
        let eyes = self.eyes(room, &self.users[who], "D");
        let targets: BTreeSet<&str> = eyes.room.events.iter().filter_map(relation).map(|(_, target)| target).collect();
        for at in targets.into_iter().filter_map(|target| Some(eyes.room.find(target)?.0)) {
            for (recurse, direction) in [(false, Direction::Back), (true, Direction::Back), (true, Direction::Forward)]
            {
                self.related(&eyes, at, recurse, direction).await?;
            }
        }
        self.threads(&eyes).await?;
        self.near(&eyes).await
    }

    async fn related(&self, eyes: &Eyes<'_>, at: usize, recurse: bool, direction: Direction) -> Outcome<()> {
        let parent = &eyes.room.events[at];
        let reader = Reader { user: eyes.user, device: "D" };
        let (mut from, mut shown) = (None, Vec::new());
        for n in 0.. {
            ensure!(n < MOST_PAGES, "the pages of relations don't end");
            let wish =
                RelationWish { rel_type: None, event_type: None, recurse, from, to: None, direction, limit: Some(3) };
            let page = self.services().timelines.related::<Value>(reader, &eyes.room.id, &parent.id, wish).await;
            let sight = eyes.room.sights(eyes.user)[at];
            let Some(page) = answered(page)? else {
                // Whom the reader ignores, they may still ask for what belongs to.
                let must = sight == Sight::Must && eyes.reaches(at);
                ensure!(!must, "{} may see {}, but not what belongs to it", eyes.user, parent.id);
                return Ok(());
            };
            ensure!(sight != Sight::Never, "what belongs to {} is not for {}", parent.id, eyes.user);
            for event in &page.chunk {
                shown.push(eyes.sees(&parsed(event)?)?);
            }
            match page.end {
                Some(end) => from = Some(end.to_string().parse().expect("a token")),
                None => break,
            }
        }
        if direction == Direction::Back {
            shown.reverse();
        }
        ensure!(shown.windows(2).all(|pair| pair[0] < pair[1]), "relations are out of order: {shown:?}");
        let all = beneath(eyes.room, at, if recurse { RECURSION_DEPTH } else { 0 });
        let shown: BTreeSet<usize> = shown.into_iter().collect();
        let surely: BTreeSet<usize> = all.iter().copied().filter(|i| eyes.must_see(*i)).collect();
        ensure!(
            shown.is_subset(&all) && shown.is_superset(&surely),
            "of {all:?} beneath {at} ({direction:?}, recursive: {recurse}) {} is shown {shown:?}, not {surely:?}",
            eyes.user
        );
        Ok(())
    }

    async fn threads(&self, eyes: &Eyes<'_>) -> Outcome<()> {
        let reader = Reader { user: eyes.user, device: "D" };
        let (mut from, mut shown) = (None, BTreeSet::new());
        for n in 0.. {
            ensure!(n < MOST_PAGES, "the pages of threads don't end");
            let wish = ThreadWish { participated: false, from, limit: Some(2) };
            let page = answered(self.services().timelines.threads::<Value>(reader, &eyes.room.id, wish).await)?;
            let access = eyes.room.access(eyes.user);
            ensure!(page.is_some() == (access != Access::None), "threads for {access:?}: {}", page.is_some());
            let Some(page) = page else { return Ok(()) };
            for root in &page.chunk {
                let root = parsed(root)?;
                ensure!(shown.insert(self.thread(eyes, &root)?), "a thread is told of twice: {root}");
            }
            match page.end {
                Some(end) => from = Some(end.to_string().parse().expect("a token")),
                None => break,
            }
        }
        for (at, event) in eyes.room.events.iter().enumerate() {
            let answered = eyes
                .room
                .events
                .iter()
                .enumerate()
                .any(|(i, answer)| relation(answer) == Some(("m.thread", event.id.as_str())) && eyes.must_see(i));
            let begins = event.state_key.is_none() && relation(event).is_none();
            ensure!(
                !(answered && begins && eyes.must_see(at)) || shown.contains(&at),
                "{} is not told of the thread of {} (at {at})",
                eyes.user,
                event.id
            );
        }
        Ok(())
    }

    /// The root of a thread, and what is said beside it: where it is.
    fn thread(&self, eyes: &Eyes<'_>, root: &Value) -> Outcome<usize> {
        let id: OwnedEventId = id_of(root)?;
        let (at, event) = eyes.room.find(id.as_str()).ok_or_else(|| failure("a thread of nothing"))?;
        let is_ignored = self.ignored_by(eyes.user).contains(&event.sender);
        ensure!(eyes.room.sights(eyes.user)[at] != Sight::Never, "{} may not see {root}", eyes.user);
        // What is by somebody ignored is shown without what it says.
        ensure!(is_ignored || eyes.knows(root)? == at, "another event: {root}");
        let thread = &root["unsigned"]["m.relations"]["m.thread"];
        let latest = eyes.knows(&thread["latest_event"])?;
        ensure!(eyes.sights[latest] != Sight::Never, "{} may not see the end of the thread {root}", eyes.user);
        let answers = eyes.room.events.iter().enumerate().filter(|(i, answer)| {
            relation(answer) == Some(("m.thread", id.as_str())) && eyes.sights[*i] != Sight::Never
        });
        let answers: Vec<usize> = answers.map(|(i, _)| i).collect();
        let surely = answers.iter().filter(|i| eyes.must_see(**i)).count();
        let count = usize::try_from(thread["count"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
        ensure!(answers.contains(&latest), "the end of the thread is none of its answers: {root}");
        ensure!((surely..=answers.len()).contains(&count), "{count} answers, not {answers:?}: {root}");
        Ok(at)
    }

    /// The first and the last event of the room, by the clock.
    async fn near(&self, eyes: &Eyes<'_>) -> Outcome<()> {
        let reader = Reader { user: eyes.user, device: "D" };
        for (ts, direction) in [(0, Direction::Forward), (i64::MAX, Direction::Back)] {
            let near = self.services().timelines.event_near(reader, &eyes.room.id, ts, direction).await;
            let mut surely = (0..eyes.room.events.len()).filter(|at| eyes.must_see(*at));
            let surely = if direction == Direction::Forward { surely.next() } else { surely.next_back() };
            let Some((id, _)) = answered(near)? else {
                ensure!(surely.is_none(), "{} may see {surely:?}, but not when it was", eyes.user);
                continue;
            };
            let (at, _) = eyes.room.find(id.as_str()).ok_or_else(|| failure("a moment of nothing"))?;
            ensure!(eyes.sights[at] != Sight::Never, "{} is told when {id} was", eyes.user);
            let is_nearer = |surely| if direction == Direction::Forward { at <= surely } else { at >= surely };
            ensure!(surely.is_none_or(is_nearer), "{id} is at {at}, beyond {surely:?}");
        }
        Ok(())
    }

    /// What somebody was notified of: nothing that they may not see.
    pub async fn look_back(&self, who: usize) -> Outcome<()> {
        let user = &self.users[who];
        let reader = Reader { user, device: "D" };
        let wish = Wish { limit: Some(100), ..Wish::default() };
        let found = answered(self.services().notifications.page(reader, wish).await)?;
        for told in found.ok_or_else(|| failure("notifications are refused"))?.notifications {
            let at = self.world.rooms.iter().position(|room| room.id == told.room_id);
            let eyes = self.eyes(at.ok_or_else(|| failure("a notification of no room"))?, user, "D");
            let event = parsed(&told.event)?;
            let at = eyes.sees(&event)?;
            ensure!(eyes.room.events[at].sender != *user, "{user} is notified of what they did: {event}");
        }
        Ok(())
    }
}
