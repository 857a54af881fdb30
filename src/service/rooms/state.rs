//! The state of rooms at their events: the trie of state numbers, and the state events themselves, both cached. Nodes
//! never change, so one that is cached is right for ever. Events change by redaction, which keeps what the rules read; the
//! rest of a cached event may be older than a redaction by another process, so who shows or copies it reads what is stored.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use hearth_core::{
    Error, Result,
    event::Pdu,
    room_version::RoomVersion,
    state::trie::{self, Difference, Entry, Missing, NewNode, Node, NodeHash, Nodes},
};
use hearth_storage::{Storage, StoredEvent};
use moka::sync::Cache;
use ruma::RoomId;

/// Bytes of trie nodes kept in memory.
const NODE_CACHE_BYTES: u64 = 64 << 20;
/// Bytes of parsed state events kept in memory.
const EVENT_CACHE_BYTES: u64 = 64 << 20;

/// The room whose state is asked for.
#[derive(Clone, Copy)]
pub struct InRoom<'a> {
    pub sn: i64,
    pub id: &'a RoomId,
    pub version: &'static RoomVersion,
}

/// Reads states of rooms.
pub struct StateStore {
    storage: Arc<dyn Storage>,
    nodes: Cache<(i64, NodeHash), Arc<Node>>,
    events: Cache<i64, Arc<Pdu>>,
}

/// Nodes and state events that were made but are not known to be stored. Nodes stay out of the cache: whatever is in
/// there is never stored again.
#[derive(Clone, Debug, Default)]
pub struct Held {
    nodes: HashMap<NodeHash, Arc<Node>>,
    events: HashMap<i64, Arc<Pdu>>,
}

impl Held {
    pub fn add(&mut self, made: &[NewNode]) {
        self.nodes.extend(made.iter().map(|new| (new.hash, Arc::clone(&new.node))));
    }

    pub fn add_event(&mut self, sn: i64, pdu: &Arc<Pdu>) {
        self.events.insert(sn, Arc::clone(pdu));
    }

    /// What is stored by now need not be held any longer.
    pub fn forget_stored(&mut self, stored: &StoredNow) {
        let (nodes, events) = std::mem::take(&mut *stored.0.lock().unwrap_or_else(PoisonError::into_inner));
        for hash in nodes {
            self.nodes.remove(&hash);
        }
        for sn in events {
            self.events.remove(&sn);
        }
    }
}

/// What was stored since a head last forgot about it.
#[derive(Debug, Default)]
pub struct StoredNow(Mutex<(Vec<NodeHash>, Vec<i64>)>);

impl StoredNow {
    pub fn add(&self, nodes: &[NewNode], events: &[(i64, Arc<Pdu>)]) {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stored.0.extend(nodes.iter().map(|new| new.hash));
        stored.1.extend(events.iter().map(|(sn, _)| *sn));
    }
}

struct View<'a> {
    room_sn: i64,
    made: &'a Held,
    /// What was loaded for this walk; the cache may have dropped it again.
    loaded: HashMap<NodeHash, Arc<Node>>,
    cache: &'a Cache<(i64, NodeHash), Arc<Node>>,
}

impl Nodes for View<'_> {
    fn get(&self, hash: &NodeHash) -> Option<Arc<Node>> {
        let at_hand = self.made.nodes.get(hash).or_else(|| self.loaded.get(hash));
        at_hand.cloned().or_else(|| self.cache.get(&(self.room_sn, *hash)))
    }
}

impl StateStore {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        let nodes = Cache::builder().weigher(|_, node: &Arc<Node>| weight(node)).max_capacity(NODE_CACHE_BYTES).build();
        let events = Cache::builder()
            .weigher(|_, pdu: &Arc<Pdu>| u32::try_from(pdu.json.len() * 2 + 512).unwrap_or(u32::MAX))
            .max_capacity(EVENT_CACHE_BYTES)
            .build();
        Self { storage, nodes, events }
    }

    /// Runs a walk over the trie, loading the nodes that it lacks, a level at a time.
    async fn walk<T>(
        &self,
        room_sn: i64,
        made: &Held,
        mut walk: impl FnMut(&View<'_>) -> Result<T, Missing>,
    ) -> Result<T> {
        let mut view = View { room_sn, made, loaded: HashMap::new(), cache: &self.nodes };
        loop {
            let Missing(hashes) = match walk(&view) {
                Ok(done) => return Ok(done),
                Err(missing) => missing,
            };
            let wanted: Vec<Vec<u8>> = hashes.iter().map(|h| h.0.to_vec()).collect();
            let found = self.storage.state_nodes(room_sn, wanted).await?;
            if found.len() < hashes.len() {
                return Err(Error::internal(format!("room {room_sn} lacks state nodes")));
            }
            for (hash, body) in found {
                let hash = node_hash(&hash)?;
                let node = Arc::new(Node::decode(&body).map_err(Error::internal)?);
                self.nodes.insert((room_sn, hash), Arc::clone(&node));
                view.loaded.insert(hash, node);
            }
        }
    }

    /// The number of the event that is this key of the state.
    pub async fn get(
        &self,
        room_sn: i64,
        made: &Held,
        root: NodeHash,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<i64>> {
        self.walk(room_sn, made, |view| trie::get(view, root, event_type, state_key)).await
    }

    /// The state with some keys set, or taken out.
    pub async fn update(
        &self,
        room_sn: i64,
        made: &Held,
        root: NodeHash,
        changes: &[(&str, &str, Option<i64>)],
    ) -> Result<(NodeHash, Vec<NewNode>)> {
        self.walk(room_sn, made, |view| trie::update(view, root, changes)).await
    }

    /// The whole state.
    pub async fn full(&self, room_sn: i64, made: &Held, root: NodeHash) -> Result<Vec<Entry>> {
        self.walk(room_sn, made, |view| trie::full(view, root)).await
    }

    /// The keys in which two states differ.
    pub async fn diff(&self, room_sn: i64, made: &Held, a: NodeHash, b: NodeHash) -> Result<Vec<Difference>> {
        self.walk(room_sn, made, |view| trie::diff(view, a, b)).await
    }

    /// Nodes that are stored now.
    pub fn stored_nodes(&self, room_sn: i64, nodes: Vec<NewNode>) {
        for new in nodes {
            self.nodes.insert((room_sn, new.hash), new.node);
        }
    }

    /// A state event that is stored now.
    pub fn stored_event(&self, sn: i64, pdu: Arc<Pdu>) {
        self.events.insert(sn, pdu);
    }

    /// An event was redacted.
    pub fn forget_event(&self, sn: i64) {
        self.events.invalidate(&sn);
    }

    /// Events by number. An event that isn't here is an error: numbers come from what we stored.
    pub async fn events(&self, room: InRoom<'_>, made: &Held, sns: &[i64]) -> Result<HashMap<i64, Arc<Pdu>>> {
        let mut found = HashMap::with_capacity(sns.len());
        let mut lacking = Vec::new();
        for sn in sns {
            match made.events.get(sn).cloned().or_else(|| self.events.get(sn)) {
                Some(pdu) => {
                    found.insert(*sn, pdu);
                }
                None => lacking.push(*sn),
            }
        }
        if !lacking.is_empty() {
            let wanted = lacking.len();
            let stored = self.storage.events_by_sn(lacking).await?;
            if stored.len() < wanted {
                return Err(Error::internal(format!("room {} lacks state events", room.sn)));
            }
            for event in stored {
                let sn = event.sn;
                let pdu = Arc::new(parse_stored(room, event)?);
                self.events.insert(sn, Arc::clone(&pdu));
                found.insert(sn, pdu);
            }
        }
        Ok(found)
    }
}

/// Reads back an event that we stored.
pub fn parse_stored(room: InRoom<'_>, event: StoredEvent) -> Result<Pdu> {
    let event_id = ruma::OwnedEventId::try_from(event.event_id).map_err(Error::internal)?;
    let mut pdu = Pdu::parse(event.json.into(), event_id, room.id.to_owned(), room.version)?;
    pdu.rejected = event.status == hearth_storage::Status::Rejected;
    Ok(pdu)
}

/// A root or node hash as it was stored.
pub fn node_hash(bytes: &[u8]) -> Result<NodeHash> {
    Ok(NodeHash(bytes.try_into().map_err(|_| Error::internal("a state hash of a wrong length"))?))
}

/// About the bytes that a node takes.
fn weight(node: &Node) -> u32 {
    let size = match node {
        Node::Leaf(entries) => entries.iter().map(|e| 64 + e.state_key.len()).sum(),
        Node::Branch(_) => 512,
    };
    u32::try_from(size).unwrap_or(u32::MAX)
}
