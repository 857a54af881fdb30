use proptest::prelude::*;
use ruma::{
    RoomVersionId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::json;

use super::*;
use crate::{
    auth,
    testing::{Fork, Room, VERSIONS, fake, user},
};

const MAX: usize = 1_000;

fn resolve_all(room: &Room, forks: &[&Fork]) -> StateMap<OwnedEventId> {
    let states: Vec<_> = forks.iter().map(|fork| fork.state.clone()).collect();
    resolve(room.version, &states, |id| room.events.get(id).cloned(), MAX).expect("resolved")
}

fn member(name: &str) -> (StateEventType, String) {
    (StateEventType::RoomMember, user(name).to_string())
}

fn key(event_type: StateEventType) -> (StateEventType, String) {
    (event_type, String::new())
}

/// A room with Bob, who may change things, and Carol, who may not.
fn room_of_three(id: &RoomVersionId) -> (Room, Fork) {
    let (mut room, mut fork) = Room::new(id);
    let levels = room.levels(&[("bob", 50)]);
    room.state(&mut fork, "alice", "m.room.power_levels", "", levels).expect("alice may");
    for name in ["bob", "carol"] {
        room.member(&mut fork, name, name, "join").expect("the room is public");
    }
    room.state(&mut fork, "alice", "m.room.topic", "", json!({ "topic": "base" })).expect("alice may");
    (room, fork)
}

#[test]
fn a_ban_undoes_what_the_banned_did_at_the_same_time() {
    for id in &VERSIONS {
        let (mut room, base) = room_of_three(id);
        let (mut left, mut right) = (base.clone(), base.clone());
        let ban = room.member(&mut left, "alice", "bob", "ban").expect("alice may");
        room.state(&mut right, "bob", "m.room.topic", "", json!({ "topic": "bob's" })).expect("bob may");
        let message = room.message(&mut right, "bob", "I am still here").expect("on this fork he is");

        let resolved = resolve_all(&room, &[&left, &right]);
        assert_eq!(resolved[&member("bob")], ban.event_id, "{id}");
        assert_eq!(resolved[&key(StateEventType::RoomTopic)], base.state[&key(StateEventType::RoomTopic)], "{id}");
        assert_eq!(resolved.len(), base.state.len());
        assert_eq!(resolved, resolve_all(&room, &[&right, &left]));

        let fork = Fork { state: resolved, ..base };
        let fetch = |event_type: &StateEventType, state_key: &str| room.get(&fork, event_type, state_key);
        let refused = auth::check_dependent(&message, room.version, fetch);
        assert!(refused.expect_err("banned").to_string().contains("membership"));
    }
}

#[test]
fn who_was_demoted_at_the_same_time_could_not_do_it() {
    for id in &VERSIONS {
        let (mut room, base) = room_of_three(id);
        let (mut left, mut right) = (base.clone(), base.clone());
        let levels = room.levels(&[("bob", 0)]);
        let demoted = room.state(&mut left, "alice", "m.room.power_levels", "", levels).expect("alice may");
        room.member(&mut right, "bob", "carol", "ban").expect("bob may");
        room.state(&mut right, "bob", "m.room.name", "", json!({ "name": "bob's" })).expect("bob may");

        let resolved = resolve_all(&room, &[&left, &right]);
        assert_eq!(resolved[&key(StateEventType::RoomPowerLevels)], demoted.event_id, "{id}");
        assert_eq!(resolved[&member("carol")], base.state[&member("carol")], "{id}");
        assert_eq!(resolved.get(&key(StateEventType::RoomName)), None, "{id}");
        assert_eq!(resolved, resolve_all(&room, &[&right, &left]));
    }
}

#[test]
fn forks_that_touch_different_things_both_count() {
    for id in &VERSIONS {
        let (mut room, base) = room_of_three(id);
        let (mut left, mut right) = (base.clone(), base);
        let topic = room.state(&mut left, "bob", "m.room.topic", "", json!({ "topic": "new" })).expect("bob may");
        let name = room.state(&mut right, "alice", "m.room.name", "", json!({ "name": "new" })).expect("alice may");
        let dave = room.member(&mut right, "dave", "dave", "join").expect("public");
        let resolved = resolve_all(&room, &[&left, &right]);
        assert_eq!(resolved[&key(StateEventType::RoomTopic)], topic.event_id);
        assert_eq!(resolved[&key(StateEventType::RoomName)], name.event_id);
        assert_eq!(resolved[&member("dave")], dave.event_id);
    }
}

#[test]
fn what_is_not_loaded_is_asked_for_until_it_is() {
    for id in &VERSIONS {
        let (mut room, base) = room_of_three(id);
        let (mut left, mut right) = (base.clone(), base);
        room.member(&mut left, "alice", "bob", "ban").expect("alice may");
        room.state(&mut right, "bob", "m.room.topic", "", json!({ "topic": "bob's" })).expect("bob may");
        let states = [left.state.clone(), right.state.clone()];
        let mut loaded = HashMap::new();
        let resolved = loop {
            match resolve(room.version, &states, |id| loaded.get(id).cloned(), MAX) {
                Ok(resolved) => break resolved,
                Err(Unresolved::Missing(ids)) => {
                    assert!(!ids.is_empty());
                    for id in ids {
                        let event = room.events[&id].clone();
                        assert!(loaded.insert(id, event).is_none(), "asked for what is loaded");
                    }
                }
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(resolved, resolve_all(&room, &[&left, &right]));
        let bounded = resolve(room.version, &states, |id| room.events.get(id).cloned(), 3);
        assert!(matches!(bounded, Err(Unresolved::TooMany)));
    }
}

/// What somebody may try to do on one of the forks. Whatever the rules refuse there just doesn't happen.
#[derive(Debug, Clone)]
struct Step {
    fork: usize,
    who: &'static str,
    what: usize,
    whom: &'static str,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(&["alice", "bob", "carol", "dave"][..]);
    (0..3usize, name(), 0..8usize, name()).prop_map(|(fork, who, what, whom)| Step { fork, who, what, whom })
}

fn try_step(room: &mut Room, fork: &mut Fork, Step { who, what, whom, .. }: &Step) {
    let done = match what {
        0 => room.member(fork, who, whom, "ban"),
        1 => room.member(fork, who, whom, "leave"),
        2 => room.member(fork, whom, whom, "join"),
        3 => room.state(fork, who, "m.room.topic", "", json!({ "topic": whom })),
        4 => room.state(fork, who, "m.room.join_rules", "", json!({ "join_rule": "invite" })),
        5 => {
            let levels = room.levels(&[("bob", 50), (*whom, 100)]);
            room.state(fork, who, "m.room.power_levels", "", levels)
        }
        6 => {
            let levels = room.levels(&[("carol", 50)]);
            room.state(fork, who, "m.room.power_levels", "", levels)
        }
        _ => room.member(fork, who, whom, "invite"),
    };
    drop(done);
}

/// The whole auth chain of each state, as the specification defines it.
fn full_chains(room: &Room, states: &[StateMap<OwnedEventId>]) -> Vec<HashSet<OwnedEventId>> {
    fn chain(room: &Room, id: &EventId, into: &mut HashSet<OwnedEventId>) {
        for auth_event in &room.events[id].auth_events {
            if into.insert(auth_event.clone()) {
                chain(room, auth_event, into);
            }
        }
    }
    let of_state = |state: &StateMap<OwnedEventId>| {
        let mut all = HashSet::new();
        state.values().for_each(|id| chain(room, id, &mut all));
        all
    };
    states.iter().map(of_state).collect()
}

/// What is in some of them and not in all.
fn difference(chains: &[HashSet<OwnedEventId>]) -> BTreeSet<OwnedEventId> {
    chains.iter().flatten().filter(|id| !chains.iter().all(|chain| chain.contains(*id))).cloned().collect()
}

/// Ruma's own resolution, given all that it asks for.
fn resolve_plainly(room: &Room, states: &[StateMap<OwnedEventId>]) -> StateMap<OwnedEventId> {
    let chains = full_chains(room, states).into_iter().map(|chain| chain.into_iter().collect());
    let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| {
        let ids: Vec<OwnedEventId> = conflicted.values().flatten().cloned().collect();
        Some(subgraph_by_paths(&ids, &|id| room.events[id].auth_events.clone()).into_iter().collect())
    };
    let rules = (&room.version.rules.authorization, room.version.state_res());
    state_res::resolve(rules.0, rules.1, states, chains.collect(), |id| room.events.get(id).cloned(), subgraph)
        .expect("resolved")
}

/// Every way from each of these events, followed to its end.
fn subgraph_by_paths(
    conflicted: &[OwnedEventId],
    auth_events: &dyn Fn(&EventId) -> Vec<OwnedEventId>,
) -> HashSet<OwnedEventId> {
    fn follow(
        way: &mut Vec<OwnedEventId>,
        conflicted: &[OwnedEventId],
        auth_events: &dyn Fn(&EventId) -> Vec<OwnedEventId>,
        found: &mut HashSet<OwnedEventId>,
    ) {
        let Some(last) = way.last().cloned() else { return };
        if conflicted.contains(&last) {
            found.extend(way.iter().cloned());
        }
        for next in auth_events(&last) {
            way.push(next);
            follow(way, conflicted, auth_events, found);
            way.pop();
        }
    }
    let mut found = HashSet::new();
    for id in conflicted {
        follow(&mut vec![id.clone()], conflicted, auth_events, &mut found);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_order_of_the_forks_does_not_matter(
        version in 0..VERSIONS.len(),
        steps in prop::collection::vec(step(), 0..24),
        forks in 2..4usize,
    ) {
        let (mut room, base) = room_of_three(&VERSIONS[version]);
        let mut views = vec![base; forks];
        for step in &steps {
            let at = step.fork % forks;
            try_step(&mut room, &mut views[at], step);
        }
        let views: Vec<&Fork> = views.iter().collect();
        let resolved = resolve_all(&room, &views);
        let mut turned = views.clone();
        turned.rotate_left(1);
        prop_assert_eq!(&resolve_all(&room, &turned), &resolved);
        turned.reverse();
        prop_assert_eq!(&resolve_all(&room, &turned), &resolved);
        // The shorter way through the auth chains leads to the same.
        let states: Vec<_> = views.iter().map(|view| view.state.clone()).collect();
        let graph = Graph {
            fetch: |id: &EventId| room.events.get(id).cloned(),
            max_events: MAX,
            missing: RefCell::default(),
        };
        let in_all = |id: &&OwnedEventId| states.iter().all(|state| state.values().any(|other| other == *id));
        let shared: HashSet<&OwnedEventId> = states[0].values().filter(in_all).collect();
        let chains = graph.auth_differences(&states, &shared).expect("all loaded");
        prop_assert_eq!(difference(&chains), difference(&full_chains(&room, &states)));
        prop_assert_eq!(&resolve_plainly(&room, &states), &resolved);
        prop_assert_eq!(&resolve_all(&room, &[views[0], views[0]]), &views[0].state);
    }

    #[test]
    fn the_conflicted_subgraph_is_all_the_ways_between(
        edges in prop::collection::vec(prop::collection::btree_set(0..100usize, 0..3), 1..12),
        conflicted in prop::collection::btree_set(0..12usize, 1..5),
    ) {
        let id = |n: usize| OwnedEventId::try_from(format!("$event{n}")).expect("an event id");
        let mut events = HashMap::new();
        for (n, edges) in edges.iter().enumerate() {
            let mut event = fake(TimelineEventType::RoomTopic, "alice", Some(""), &json!({}));
            event.event_id = id(n);
            event.auth_events = edges.iter().filter_map(|at| at.checked_rem(n)).map(id).collect();
            events.insert(id(n), Arc::new(event));
        }
        let conflicted: Vec<_> = conflicted.into_iter().filter(|n| *n < edges.len()).map(id).collect();
        let graph = Graph { fetch: |id: &EventId| events.get(id).cloned(), max_events: MAX, missing: RefCell::default() };
        let found = graph.conflicted_subgraph(&conflicted.iter().collect()).expect("all loaded");
        prop_assert_eq!(found, subgraph_by_paths(&conflicted, &|id| events[id].auth_events.clone()));
    }
}
