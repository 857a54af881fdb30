//! The state at an event, as a persistent hash trie.
//!
//! A room's state maps (event type, state key) to the number of an event. Each event of a room has its own, nearly always
//! equal to its parent's or different in one entry, so states share all that is equal: a node is named by the hash of what
//! it holds, and a new state writes only the few nodes on the way to what changed. The shape follows from the entries
//! alone, never from the order in which they came: equal states have equal roots, and a root is enough to compare two.
//!
//! Nothing here waits for a database. A function that meets a node which isn't loaded says which ones it wants
//! ([`Missing`]), all that it can name at once; the caller loads them and calls again, at most once for each level.

mod codec;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, cmp::Ordering, collections::HashMap, fmt, sync::Arc};

use sha2::{Digest as _, Sha256};

pub use self::codec::Garbage;

/// A leaf that would hold more becomes a branch. Measured at 16 and 32 for rooms of 10 to 100,000 members, one join writes:
/// 0.24 to 1.1 kB in 1 to 5 nodes with 16, 0.24 to 1.5 kB in as many with 32, which needs fewer rows for a whole state.
const MAX_LEAF: usize = 16;

/// How many nibbles of the key's hash there are to branch on.
const MAX_DEPTH: usize = 32;

/// The name of a node: half of the SHA-256 of its encoded form, so that nobody can make two nodes of one name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeHash(pub [u8; 16]);

/// The state with nothing in it. It has no node.
pub const EMPTY: NodeHash = NodeHash([0; 16]);

/// Event types that the encoding knows are borrowed, so that a hundred thousand members don't cost as many strings.
pub type EventType = Cow<'static, str>;

/// One event of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub event_type: EventType,
    pub state_key: Box<str>,
    /// The number of the event.
    pub sn: i64,
}

/// A part of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// In the order of type and key, so that equal leaves are encoded equally.
    Leaf(Vec<Entry>),
    /// By the next nibble of the key's hash.
    Branch(Box<[Option<NodeHash>; 16]>),
}

/// A node that has to be stored. It may be there already, if it was not loaded: states that part can meet again.
#[derive(Debug, Clone)]
pub struct NewNode {
    pub hash: NodeHash,
    pub node: Arc<Node>,
    pub body: Vec<u8>,
}

/// Nodes that have to be loaded before the question can be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} nodes of a state are not loaded", .0.len())]
pub struct Missing(pub Vec<NodeHash>);

/// The nodes that are loaded.
pub trait Nodes {
    fn get(&self, hash: &NodeHash) -> Option<Arc<Node>>;
}

impl Nodes for HashMap<NodeHash, Arc<Node>> {
    fn get(&self, hash: &NodeHash) -> Option<Arc<Node>> {
        Self::get(self, hash).cloned()
    }
}

/// An entry that differs between two states: its number in the first and in the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub event_type: EventType,
    pub state_key: Box<str>,
    pub before: Option<i64>,
    pub after: Option<i64>,
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Node {
    /// The form in which a node is stored.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        codec::decode(bytes)
    }
}

impl Entry {
    fn key(&self) -> (&str, &str) {
        (&self.event_type, &self.state_key)
    }
}

/// Where a key lives: the first half of a SHA-256, which nobody can aim, so that no room can be made lopsided.
struct Path([u8; 16]);

impl Path {
    fn of(event_type: &str, state_key: &str) -> Self {
        let mut sha = Sha256::new();
        sha.update((event_type.len() as u64).to_le_bytes());
        sha.update(event_type);
        sha.update(state_key);
        Self(half(&sha.finalize()))
    }

    fn nibble(&self, depth: usize) -> usize {
        let byte = self.0.get(depth / 2).copied().unwrap_or_default();
        usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
    }
}

fn half(digest: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    half
}

/// The event of one key, if the state has one.
pub fn get(nodes: &impl Nodes, root: NodeHash, event_type: &str, state_key: &str) -> Result<Option<i64>, Missing> {
    if root == EMPTY {
        return Ok(None);
    }
    let path = Path::of(event_type, state_key);
    let mut hash = root;
    for depth in 0.. {
        match &*nodes.get(&hash).ok_or_else(|| Missing(vec![hash]))? {
            Node::Leaf(entries) => {
                let found = entries.binary_search_by(|entry| entry.key().cmp(&(event_type, state_key)));
                return Ok(found.ok().and_then(|at| entries.get(at)).map(|entry| entry.sn));
            }
            Node::Branch(children) => match children[path.nibble(depth)] {
                Some(child) => hash = child,
                None => return Ok(None),
            },
        }
    }
    Ok(None)
}

/// The state with these entries put in or replaced: its root, and the nodes that are new. Of a key that comes twice the
/// last one stays.
pub fn insert(
    nodes: &impl Nodes,
    root: NodeHash,
    entries: &[(&str, &str, i64)],
) -> Result<(NodeHash, Vec<NewNode>), Missing> {
    let changes: Vec<(&str, &str, Option<i64>)> = entries.iter().map(|(t, k, sn)| (*t, *k, Some(*sn))).collect();
    update(nodes, root, &changes)
}

/// The state with these keys set to an event or taken out: its root, and the nodes that are new. State resolution can take
/// a key away; nothing else does.
pub fn update(
    nodes: &impl Nodes,
    root: NodeHash,
    changes: &[(&str, &str, Option<i64>)],
) -> Result<(NodeHash, Vec<NewNode>), Missing> {
    let changes: Vec<Change<'_>> = changes
        .iter()
        .map(|(event_type, state_key, sn)| Change {
            path: Path::of(event_type, state_key),
            event_type,
            state_key,
            sn: *sn,
        })
        .collect();
    let changes: Vec<&Change<'_>> = changes.iter().collect();
    let mut update = Update { nodes, new: Vec::new(), missing: Vec::new() };
    let new_root = update.subtree(Some(root).filter(|root| *root != EMPTY), &changes, 0);
    if !update.missing.is_empty() {
        return Err(missing(update.missing));
    }
    let root = update.name(new_root).unwrap_or(EMPTY);
    update.new.retain(|new| nodes.get(&new.hash).is_none());
    Ok((root, update.new))
}

/// A state from all of its entries.
pub fn build(entries: &[(&str, &str, i64)]) -> (NodeHash, Vec<NewNode>) {
    insert(&HashMap::new(), EMPTY, entries).unwrap_or_else(|Missing(nodes)| {
        unreachable!("nothing is loaded to build a state from nothing, yet {nodes:?} are missing")
    })
}

/// Every entry, in no order that means anything.
pub fn full(nodes: &impl Nodes, root: NodeHash) -> Result<Vec<Entry>, Missing> {
    let (mut entries, mut absent) = (Vec::new(), Vec::new());
    collect(nodes, Some(root).filter(|root| *root != EMPTY), &mut entries, &mut absent);
    if absent.is_empty() { Ok(entries) } else { Err(missing(absent)) }
}

/// What differs between two states. Only parts that differ are visited.
pub fn diff(nodes: &impl Nodes, before: NodeHash, after: NodeHash) -> Result<Vec<Difference>, Missing> {
    let mut diff = Diff { nodes, found: Vec::new(), missing: Vec::new() };
    diff.subtrees(Some(before).filter(|root| *root != EMPTY), Some(after).filter(|root| *root != EMPTY));
    if diff.missing.is_empty() { Ok(diff.found) } else { Err(missing(diff.missing)) }
}

fn missing(mut hashes: Vec<NodeHash>) -> Missing {
    hashes.sort_unstable();
    hashes.dedup();
    Missing(hashes)
}

fn collect(nodes: &impl Nodes, root: Option<NodeHash>, entries: &mut Vec<Entry>, absent: &mut Vec<NodeHash>) {
    let Some(hash) = root else { return };
    match nodes.get(&hash).as_deref() {
        None => absent.push(hash),
        Some(Node::Leaf(leaf)) => entries.extend(leaf.iter().cloned()),
        Some(Node::Branch(children)) => {
            for child in children.iter() {
                collect(nodes, *child, entries, absent);
            }
        }
    }
}

struct Change<'a> {
    path: Path,
    event_type: &'a str,
    state_key: &'a str,
    sn: Option<i64>,
}

/// What became of a part of the trie.
enum Subtree {
    Empty,
    Unchanged(NodeHash),
    /// Made in this call, and stored.
    Branch(NodeHash),
    /// Made in this call, but not stored: it may yet be merged into its parent.
    Leaf(Vec<Entry>),
}

struct Update<'a, N> {
    nodes: &'a N,
    new: Vec<NewNode>,
    missing: Vec<NodeHash>,
}

impl<N: Nodes> Update<'_, N> {
    fn subtree(&mut self, hash: Option<NodeHash>, changes: &[&Change<'_>], depth: usize) -> Subtree {
        let unchanged = hash.map_or(Subtree::Empty, Subtree::Unchanged);
        if changes.is_empty() {
            return unchanged;
        }
        let node = match hash.map(|hash| (hash, self.nodes.get(&hash))) {
            None => None,
            Some((_, Some(node))) => Some(node),
            Some((hash, None)) => {
                self.missing.push(hash);
                return unchanged;
            }
        };
        match node.as_deref() {
            None => self.split(merge(&[], changes), depth),
            Some(Node::Leaf(entries)) => self.split(merge(entries, changes), depth),
            Some(Node::Branch(children)) => self.branch(children, changes, depth),
        }
    }

    fn branch(&mut self, children: &[Option<NodeHash>; 16], changes: &[&Change<'_>], depth: usize) -> Subtree {
        let mut parts: [Vec<&Change<'_>>; 16] = Default::default();
        for change in changes {
            parts[change.path.nibble(depth)].push(change);
        }
        let children: Vec<Subtree> =
            children.iter().zip(&parts).map(|(child, part)| self.subtree(*child, part, depth + 1)).collect();
        if changes.iter().any(|change| change.sn.is_none())
            && let Some(leaf) = self.collapsed(&children)
        {
            return leaf;
        }
        let mut hashes = Box::new([None; 16]);
        for (hash, child) in hashes.iter_mut().zip(children) {
            *hash = self.name(child);
        }
        Subtree::Branch(self.store(Node::Branch(hashes)))
    }

    /// A branch that came to hold no more than a leaf does becomes one: else the shape would tell of the past.
    fn collapsed(&mut self, children: &[Subtree]) -> Option<Subtree> {
        let mut entries = Vec::new();
        for child in children {
            match child {
                Subtree::Empty => {}
                // It holds more than a leaf can.
                Subtree::Branch(_) => return None,
                Subtree::Leaf(leaf) => entries.extend(leaf.iter().cloned()),
                Subtree::Unchanged(hash) => match self.nodes.get(hash).as_deref() {
                    Some(Node::Branch(_)) => return None,
                    Some(Node::Leaf(leaf)) => entries.extend(leaf.iter().cloned()),
                    None => self.missing.push(*hash),
                },
            }
            if entries.len() > MAX_LEAF {
                return None;
            }
        }
        entries.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        Some(if entries.is_empty() { Subtree::Empty } else { Subtree::Leaf(entries) })
    }

    /// The entries as a leaf, or as many as it takes.
    fn split(&mut self, entries: Vec<Entry>, depth: usize) -> Subtree {
        if entries.is_empty() {
            return Subtree::Empty;
        }
        if entries.len() <= MAX_LEAF || depth >= MAX_DEPTH {
            return Subtree::Leaf(entries);
        }
        let mut parts: [Vec<Entry>; 16] = Default::default();
        for entry in entries {
            parts[Path::of(&entry.event_type, &entry.state_key).nibble(depth)].push(entry);
        }
        let mut hashes = Box::new([None; 16]);
        for (hash, part) in hashes.iter_mut().zip(parts) {
            let part = self.split(part, depth + 1);
            *hash = self.name(part);
        }
        Subtree::Branch(self.store(Node::Branch(hashes)))
    }

    fn name(&mut self, part: Subtree) -> Option<NodeHash> {
        match part {
            Subtree::Empty => None,
            Subtree::Unchanged(hash) | Subtree::Branch(hash) => Some(hash),
            Subtree::Leaf(entries) => Some(self.store(Node::Leaf(entries))),
        }
    }

    fn store(&mut self, node: Node) -> NodeHash {
        let body = node.encode();
        let hash = NodeHash(half(&Sha256::digest(&body)));
        self.new.push(NewNode { hash, node: Arc::new(node), body });
        hash
    }
}

/// A leaf's entries with changes laid over them, in order.
fn merge(entries: &[Entry], changes: &[&Change<'_>]) -> Vec<Entry> {
    // Stable, so that of changes to one key the last given stays the last.
    let mut changes = changes.to_vec();
    changes.sort_by_key(|change| (change.event_type, change.state_key));
    let mut merged = Vec::with_capacity(entries.len() + changes.len());
    let mut old = entries.iter().peekable();
    let mut changes = changes.into_iter().peekable();
    while let Some(change) = changes.next() {
        let key = (change.event_type, change.state_key);
        if changes.peek().is_some_and(|next| (next.event_type, next.state_key) == key) {
            continue;
        }
        while let Some(entry) = old.next_if(|entry| entry.key() < key) {
            merged.push(entry.clone());
        }
        let replaced = old.next_if(|entry| entry.key() == key);
        if let Some(sn) = change.sn {
            let entry = match replaced {
                Some(entry) => Entry { sn, ..entry.clone() },
                None => {
                    Entry { event_type: codec::event_type(change.event_type), state_key: change.state_key.into(), sn }
                }
            };
            merged.push(entry);
        }
    }
    merged.extend(old.cloned());
    merged
}

struct Diff<'a, N> {
    nodes: &'a N,
    found: Vec<Difference>,
    missing: Vec<NodeHash>,
}

impl<N: Nodes> Diff<'_, N> {
    fn subtrees(&mut self, before: Option<NodeHash>, after: Option<NodeHash>) {
        if before == after {
            return;
        }
        let load = |hash: Option<NodeHash>, missing: &mut Vec<NodeHash>| {
            let hash = hash?;
            let node = self.nodes.get(&hash);
            if node.is_none() {
                missing.push(hash);
            }
            node
        };
        let absent = self.missing.len();
        let nodes = (load(before, &mut self.missing), load(after, &mut self.missing));
        if self.missing.len() > absent {
            return;
        }
        match (nodes.0.as_deref(), nodes.1.as_deref()) {
            (Some(Node::Branch(before)), Some(Node::Branch(after))) => {
                for (before, after) in before.iter().zip(after.iter()) {
                    self.subtrees(*before, *after);
                }
            }
            // Where a leaf faces a branch, most of the branch differs: it holds more than the leaf can.
            _ => {
                let (mut old, mut new) = (Vec::new(), Vec::new());
                collect(self.nodes, before, &mut old, &mut self.missing);
                collect(self.nodes, after, &mut new, &mut self.missing);
                if self.missing.len() == absent {
                    self.entries(old, new);
                }
            }
        }
    }

    fn entries(&mut self, mut old: Vec<Entry>, mut new: Vec<Entry>) {
        old.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        new.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.key().cmp(&new.key()),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            let (sn_before, sn_after) = (before.as_ref().map(|e| e.sn), after.as_ref().map(|e| e.sn));
            if sn_before != sn_after
                && let Some(Entry { event_type, state_key, .. }) = before.or(after)
            {
                self.found.push(Difference { event_type, state_key, before: sn_before, after: sn_after });
            }
        }
    }
}
