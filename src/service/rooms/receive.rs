//! Events that were made elsewhere and build on whatever they say: the state before them is worked out from the events
//! that they name, and the current state anew from all ends of the graph.
//!
//! The event's signatures and hashes have been checked when it comes here, and those that it builds on are stored.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use hearth_core::{
    Error, Result, auth,
    event::Pdu,
    relation::Relation,
    state::{
        resolve::{Unresolved, resolve},
        trie::NodeHash,
    },
};
use hearth_storage::{
    Base, MembershipChange, NewEvent, Notice, Persisted, RoomCommit, StateChange, Status, StoredEvent,
    rooms::OTHER_RULES,
};
use ruma::{
    OwnedEventId, RoomId,
    events::{StateEventType, TimelineEventType},
    state_res::StateMap,
};

use super::{
    Rooms,
    state::{InRoom, node_hash, parse_stored},
    write::{Head, Tip},
};

/// The most events that one resolution looks at.
const MOST_RESOLVED: usize = 100_000;

impl Rooms {
    /// Takes an event in. What became of it: refused events are kept too, so that they are not asked for again.
    pub async fn receive(&self, room_id: &RoomId, pdu: Arc<Pdu>) -> Result<Status> {
        let turn = self.turn(room_id);
        for _ in 0..super::write::ATTEMPTS {
            let mut slot = turn.head.lock().await;
            // What is queued has to be stored before its state can be built upon.
            *slot = None;
            let head = self.load_head(room_id).await?;
            let (commit, status) = self.place(&head, &pdu).await?;
            // A resolution is long: let those who write meanwhile wait for the outcome, not decide on the old head.
            let stored = self.storage.persist(commit).await;
            drop(slot);
            match stored {
                Ok(Persisted::Stored(_)) => return Ok(status),
                Ok(Persisted::Known) => return self.status_of(&pdu).await,
                Ok(other) => return Err(Error::internal(format!("persist answered {other:?}"))),
                Err(hearth_storage::Error::Conflict(why)) => {
                    tracing::debug!(why, "received on an old head");
                    if why == OTHER_RULES {
                        self.push.look().await?;
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::unavailable("The room is too busy, try again"))
    }

    /// What became of an event that came before.
    async fn status_of(&self, pdu: &Pdu) -> Result<Status> {
        let stored = self.storage.events_by_id(vec![pdu.event_id.to_string()]).await?;
        let known = stored.first().ok_or_else(|| Error::internal("an event that is known is not here"))?;
        Ok(known.status)
    }

    /// Decides where an event stands, and what the room's state is with it.
    async fn place(&self, head: &Head, pdu: &Arc<Pdu>) -> Result<(RoomCommit, Status)> {
        let room = head.in_room();
        let prevs = self.stored_by_id(room, &pdu.prev_events).await?;
        let auths = self.stored_by_id(room, &pdu.auth_events).await?;
        let sn = self.numbers.take(1).await?.start;

        let mut nodes = Vec::new();
        let mut head = head.clone();
        let befores = prevs.iter().map(state_after).collect::<Result<Vec<_>>>()?;
        let before = self.resolved(&mut head, &mut nodes, &befores).await?;

        let status = self.judge(&head, pdu, before, &auths).await?;
        let mut after = before;
        if let (Some(state_key), true) = (&pdu.state_key, status != Status::Rejected) {
            let kind = pdu.event_type.to_string();
            let changes = [(kind.as_str(), state_key.as_str(), Some(sn))];
            let (root, made) = self.state.update(head.sn, &head.made, before, &changes).await?;
            head.made.add(&made);
            nodes.extend(made);
            after = root;
            self.state.stored_event(sn, Arc::clone(pdu));
        }

        let prev_sns: Vec<i64> = prevs.iter().map(|e| e.sn).collect();
        let (mut consumed, mut extremities, mut changes, mut root) = (vec![], vec![], vec![], head.root);
        if status == Status::Accepted {
            let old: Vec<Tip> = head.tips.clone();
            consumed = old.iter().map(|t| t.sn).filter(|tip| prev_sns.contains(tip)).collect();
            extremities.push(sn);
            let mut ends: Vec<NodeHash> =
                old.iter().filter(|t| !consumed.contains(&t.sn)).map(|t| t.state_after).collect();
            ends.push(after);
            root = self.resolved(&mut head, &mut nodes, &ends).await?;
            changes = self.changes(&head, root, sn, pdu).await?;
        }
        let (notice, rules_as_of) = match status {
            Status::Accepted => {
                let joins: i64 =
                    changes.iter().filter_map(|c| c.membership.as_ref()).map(MembershipChange::joins).sum();
                let power = self.power(&head).await?;
                let now = Head { joined: head.joined + joins, root, ..head.clone() };
                self.notice(&now, pdu, || Ok(Some(power))).await?
            }
            _ => (Notice::default(), i64::MAX),
        };
        let commit = RoomCommit {
            room_sn: head.sn,
            base: Base::At { rev: head.rev, prevs: prev_sns.clone() },
            events: vec![NewEvent {
                sn,
                pdu: Arc::clone(pdu),
                status,
                state_before: before.0.to_vec(),
                state_after: after.0.to_vec(),
                prev_sns,
                auth_sns: auths.iter().map(|e| e.sn).collect(),
                sent_by: None,
                notice,
                relation: Relation::of(pdu),
                own: false,
            }],
            nodes: nodes.iter().map(|new| (new.hash.0.to_vec(), new.body.clone())).collect(),
            state_root: root.0.to_vec(),
            changes,
            consumed,
            extremities,
            transaction: None,
            redactions: Vec::new(),
            alias: None,
            publish: false,
            successor: None,
            // Our users join by events that we make.
            moves: Vec::new(),
            rules_as_of,
            now_ms: self.clock.now_ms(),
        };
        Ok((commit, status))
    }

    /// All of the named events; it is an error if one is not here or of another room.
    async fn stored_by_id(&self, room: InRoom<'_>, ids: &[OwnedEventId]) -> Result<Vec<StoredEvent>> {
        let wanted: HashSet<&OwnedEventId> = ids.iter().collect();
        let found = self.storage.events_by_id(ids.iter().map(ToString::to_string).collect()).await?;
        if found.len() < wanted.len() || found.iter().any(|e| e.room_sn != room.sn) {
            return Err(Error::bad_state("The event builds on events that are not here or not of its room"));
        }
        Ok(found)
    }

    /// The three checks: by its auth events, by the state before it, by the current state.
    async fn judge(&self, head: &Head, pdu: &Arc<Pdu>, before: NodeHash, auths: &[StoredEvent]) -> Result<Status> {
        let room = head.in_room();
        let mut named: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::new();
        for event in auths {
            let event = Arc::new(parse_stored(room, event.clone())?);
            named.insert(event.event_id.clone(), event);
        }
        let create = self.current(head, "m.room.create", "").await?;
        let create = create.map(|(_, pdu)| pdu).ok_or_else(|| Error::internal("a room without create event"))?;
        let by_id = |id: &ruma::EventId| named.get(id).or(Some(&create).filter(|c| c.event_id == id)).cloned();
        if pdu.auth_events.iter().any(|id| by_id(id).is_none_or(|e| e.rejected)) {
            return Ok(Status::Rejected);
        }
        let by_key: HashMap<(String, &str), Arc<Pdu>> = named
            .values()
            .chain([&create])
            .filter_map(|e| Some(((e.event_type.to_string(), e.state_key.as_deref()?), Arc::clone(e))))
            .collect();
        let independent = auth::check_independent(pdu, head.version, by_id);
        let by_auth_events =
            auth::check_dependent(pdu, head.version, |kind, key| by_key.get(&(kind.to_string(), key)).cloned());
        let by_state_before = self.allowed_by(head, pdu, before, &create).await?;
        for refused in [independent, by_auth_events, by_state_before] {
            if let Err(why) = refused {
                tracing::info!(event_id = %pdu.event_id, %why, "rejected an event");
                return Ok(Status::Rejected);
            }
        }
        Ok(match self.allowed_by(head, pdu, head.root, &create).await? {
            Ok(()) => Status::Accepted,
            Err(why) => {
                tracing::info!(event_id = %pdu.event_id, %why, "soft-failed an event");
                Status::SoftFailed
            }
        })
    }

    /// The outer result is whether it could be found out.
    async fn allowed_by(&self, head: &Head, pdu: &Pdu, root: NodeHash, create: &Arc<Pdu>) -> Result<Result<()>> {
        let keys = auth::auth_keys(&pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content, head.version)?;
        let mut state: HashMap<(StateEventType, String), Arc<Pdu>> = HashMap::new();
        state.insert((StateEventType::RoomCreate, String::new()), Arc::clone(create));
        for (kind, key) in keys {
            let Some(sn) = self.state.get(head.sn, &head.made, root, &kind.to_string(), &key).await? else { continue };
            if let Some(event) = self.state.events(head.in_room(), &head.made, &[sn]).await?.remove(&sn) {
                state.insert((kind, key), event);
            }
        }
        Ok(auth::check_dependent(pdu, head.version, |kind, key| state.get(&(kind.clone(), key.to_owned())).cloned()))
    }

    /// The state where several ends meet.
    async fn resolved(
        &self,
        head: &mut Head,
        nodes: &mut Vec<hearth_core::state::trie::NewNode>,
        ends: &[NodeHash],
    ) -> Result<NodeHash> {
        let mut distinct: Vec<NodeHash> = Vec::new();
        for end in ends {
            if !distinct.contains(end) {
                distinct.push(*end);
            }
        }
        let (Some(first), rest) = (distinct.first().copied(), distinct.get(1..).unwrap_or_default()) else {
            return Err(Error::bad_state("The event builds on nothing"));
        };
        if rest.is_empty() {
            return Ok(first);
        }

        let mut loaded: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::new();
        let mut numbers: HashMap<OwnedEventId, i64> = HashMap::new();
        let mut states: Vec<StateMap<OwnedEventId>> = Vec::with_capacity(distinct.len());
        for root in &distinct {
            let entries = self.state.full(head.sn, &head.made, *root).await?;
            let sns: Vec<i64> = entries.iter().map(|e| e.sn).collect();
            let events = self.state.events(head.in_room(), &head.made, &sns).await?;
            let mut state = StateMap::new();
            for entry in entries {
                let Some(event) = events.get(&entry.sn) else { continue };
                numbers.insert(event.event_id.clone(), entry.sn);
                loaded.insert(event.event_id.clone(), Arc::clone(event));
                state.insert((entry.event_type.as_ref().into(), entry.state_key.into()), event.event_id.clone());
            }
            states.push(state);
        }
        let resolved = loop {
            match resolve(head.version, &states, |id| loaded.get(id).cloned(), MOST_RESOLVED) {
                Ok(state) => break state,
                Err(Unresolved::Missing(ids)) => {
                    for event in self.stored_by_id(head.in_room(), &ids).await? {
                        let sn = event.sn;
                        let event = Arc::new(parse_stored(head.in_room(), event)?);
                        numbers.insert(event.event_id.clone(), sn);
                        loaded.insert(event.event_id.clone(), event);
                    }
                }
                Err(e) => return Err(e.into()),
            }
        };

        // The resolved state as a change of the first end, so that only what differs is made anew.
        let mut changes: BTreeMap<(String, String), Option<i64>> = BTreeMap::new();
        if let Some(base) = states.first() {
            for key in base.keys().filter(|key| !resolved.contains_key(*key)) {
                changes.insert((key.0.to_string(), key.1.clone()), None);
            }
            for (key, id) in &resolved {
                if base.get(key) != Some(id) {
                    let sn = numbers.get(id).ok_or_else(|| Error::internal("resolved to an unknown event"))?;
                    changes.insert((key.0.to_string(), key.1.clone()), Some(*sn));
                }
            }
        }
        let changes: Vec<(&str, &str, Option<i64>)> =
            changes.iter().map(|((kind, key), sn)| (kind.as_str(), key.as_str(), *sn)).collect();
        let (root, made) = self.state.update(head.sn, &head.made, first, &changes).await?;
        head.made.add(&made);
        nodes.extend(made);
        Ok(root)
    }

    /// What becomes of the current state.
    async fn changes(&self, head: &Head, root: NodeHash, own_sn: i64, own: &Arc<Pdu>) -> Result<Vec<StateChange>> {
        let differences = self.state.diff(head.sn, &head.made, head.root, root).await?;
        let members = differences.iter().filter(|d| d.event_type == "m.room.member");
        let sns: HashSet<i64> =
            members.flat_map(|d| [d.before, d.after]).flatten().filter(|sn| *sn != own_sn).collect();
        let mut events = self.state.events(head.in_room(), &head.made, &sns.into_iter().collect::<Vec<_>>()).await?;
        events.insert(own_sn, Arc::clone(own));

        let mut changes = Vec::with_capacity(differences.len());
        for d in differences {
            let membership = if d.event_type == TimelineEventType::RoomMember.to_string() {
                let event = |sn: Option<i64>| sn.and_then(|sn| events.get(&sn));
                self.membership_between(&d.state_key, event(d.before), event(d.after))
            } else {
                None
            };
            changes.push(StateChange {
                at: 0,
                event_type: d.event_type.into_owned(),
                state_key: d.state_key.into(),
                event_sn: d.after,
                prev_sn: d.before,
                membership,
            });
        }
        Ok(changes)
    }
}

fn state_after(event: &StoredEvent) -> Result<NodeHash> {
    let after = event.state_after.as_deref();
    node_hash(after.ok_or_else(|| Error::bad_state("The event builds on one whose state is not known"))?)
}
