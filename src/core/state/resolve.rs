//! State resolution: what the state is where forks of a room meet.
//!
//! The algorithm is ruma's; here is what it wants to be given. As in [`trie`](super::trie), nothing waits for a database:
//! events that aren't loaded are named, and the caller loads them and calls again.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution>

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    state_res::{self, StateMap},
};

use crate::{Error, event::Pdu, room_version::RoomVersion};

/// Why there is no resolved state.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// These have to be loaded first.
    #[error("{} events are not loaded", .0.len())]
    Missing(Vec<OwnedEventId>),
    /// The auth chains hold more events than the caller wants to look at.
    #[error("the auth chains are too long")]
    TooMany,
    #[error("{0}")]
    Failed(#[from] state_res::Error),
}

impl From<Unresolved> for Error {
    fn from(why: Unresolved) -> Self {
        Self::internal(format_args!("state resolution: {why}"))
    }
}

/// Resolves the states of the forks that meet. `fetch` answers with the events that are loaded; at most `max_events` are
/// visited on the way through the auth chains.
pub fn resolve(
    version: &RoomVersion,
    states: &[StateMap<OwnedEventId>],
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
    max_events: usize,
) -> Result<StateMap<OwnedEventId>, Unresolved> {
    let graph = Graph { fetch, max_events, missing: RefCell::default() };
    let mut counts: HashMap<&OwnedEventId, usize> = HashMap::new();
    for id in states.iter().flat_map(StateMap::values) {
        *counts.entry(id).or_default() += 1;
    }
    let (shared, conflicted): (HashSet<&OwnedEventId>, HashSet<&OwnedEventId>) =
        counts.keys().partition(|id| counts.get(*id).is_some_and(|count| *count == states.len()));
    let chains = graph.auth_differences(states, &shared)?;
    let subgraph = if version.state_res().consider_conflicted_state_subgraph {
        graph.conflicted_subgraph(&conflicted)?
    } else {
        HashSet::new()
    };
    let resolved = state_res::resolve(
        &version.rules.authorization,
        version.state_res(),
        states,
        chains.into_iter().map(|chain| chain.into_iter().collect()).collect(),
        |id| graph.get(id),
        |_| Some(subgraph.iter().cloned().collect()),
    );
    // Ruma takes an event that it isn't given for one that can't be trusted, and goes on without: such an answer is wrong.
    graph.complete()?;
    Ok(resolved?)
}

struct Graph<F> {
    fetch: F,
    max_events: usize,
    missing: RefCell<BTreeSet<OwnedEventId>>,
}

impl<F: Fn(&EventId) -> Option<Arc<Pdu>>> Graph<F> {
    fn get(&self, id: &EventId) -> Option<Arc<Pdu>> {
        let event = (self.fetch)(id);
        if event.is_none() {
            self.missing.borrow_mut().insert(id.to_owned());
        }
        event
    }

    fn complete(&self) -> Result<(), Unresolved> {
        let missing = self.missing.take();
        if missing.is_empty() { Ok(()) } else { Err(Unresolved::Missing(missing.into_iter().collect())) }
    }

    /// The events that can be reached from these over `auth_events`, without the ones to start from unless one leads to
    /// another.
    fn auth_chain<'a>(
        &self,
        from: impl IntoIterator<Item = &'a OwnedEventId>,
    ) -> Result<HashSet<OwnedEventId>, Unresolved> {
        let mut chain = HashSet::new();
        let mut to_visit: Vec<OwnedEventId> = from.into_iter().cloned().collect();
        let mut visited: HashSet<OwnedEventId> = to_visit.iter().cloned().collect();
        while let Some(id) = to_visit.pop() {
            if visited.len() > self.max_events {
                return Err(Unresolved::TooMany);
            }
            let Some(event) = self.get(&id) else { continue };
            for auth_event in &event.auth_events {
                chain.insert(auth_event.clone());
                if visited.insert(auth_event.clone()) {
                    to_visit.push(auth_event.clone());
                }
            }
        }
        self.complete()?;
        Ok(chain)
    }

    /// For each state the part of its auth chain that not all have: what is in all of them doesn't change what is
    /// different between them.
    ///
    /// The chains of the events that all states share are the long ones, in a large room. They are walked only if a chain
    /// of the others holds something that the rest might have from there.
    fn auth_differences(
        &self,
        states: &[StateMap<OwnedEventId>],
        shared: &HashSet<&OwnedEventId>,
    ) -> Result<Vec<HashSet<OwnedEventId>>, Unresolved> {
        let mut chains = states
            .iter()
            .map(|state| self.auth_chain(state.values().filter(|id| !shared.contains(id))))
            .collect::<Result<Vec<_>, _>>()?;
        let in_all: HashSet<OwnedEventId> = match chains.split_first() {
            Some((first, rest)) => first.iter().filter(|id| rest.iter().all(|c| c.contains(*id))).cloned().collect(),
            None => HashSet::new(),
        };
        for chain in &mut chains {
            chain.retain(|id| !in_all.contains(id));
        }
        if chains.iter().any(|chain| !chain.is_empty()) {
            let shared = self.auth_chain(shared.iter().copied())?;
            for chain in &mut chains {
                chain.retain(|id| !shared.contains(id));
            }
        }
        Ok(chains)
    }

    /// The events on all ways over `auth_events` from one conflicted event to another.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>
    fn conflicted_subgraph(&self, conflicted: &HashSet<&OwnedEventId>) -> Result<HashSet<OwnedEventId>, Unresolved> {
        // An event is on such a way if one can come to it from a conflicted event, and from it to a conflicted event.
        let mut named_by: HashMap<OwnedEventId, Vec<OwnedEventId>> = HashMap::new();
        let reachable = self.auth_chain(conflicted.iter().copied())?;
        let from_conflicted: HashSet<&OwnedEventId> = reachable.iter().chain(conflicted.iter().copied()).collect();
        for id in from_conflicted {
            for auth_event in self.get(id).iter().flat_map(|event| &event.auth_events) {
                named_by.entry(auth_event.clone()).or_default().push(id.clone());
            }
        }
        let mut subgraph: HashSet<OwnedEventId> = conflicted.iter().copied().cloned().collect();
        let mut to_visit: Vec<OwnedEventId> = subgraph.iter().cloned().collect();
        while let Some(id) = to_visit.pop() {
            for child in named_by.get(&id).into_iter().flatten() {
                if subgraph.insert(child.clone()) {
                    to_visit.push(child.clone());
                }
            }
        }
        Ok(subgraph)
    }
}

#[cfg(test)]
mod tests;
