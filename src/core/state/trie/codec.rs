//! How a node is written: one byte for what it is and for each event type that rooms are full of, varints for numbers.
//!
//! The hash of a node is the hash of these bytes, so there is one way to write a node, and decoding refuses all others.

use std::borrow::Cow;

use super::{Entry, EventType, Node, NodeHash};

/// Bytes that are no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a node of a state: {0}")]
pub struct Garbage(&'static str);

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// In place of an index into [`KNOWN`]: the type follows.
const OTHER: u8 = 0;

/// Event types by their number, counted from one. Written to disk and hashed, so nothing here ever moves or goes; new ones
/// may not even be added, since a type that was written out would then have two ways to be written.
const KNOWN: [&str; 24] = [
    "m.room.create",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.pinned_events",
    "m.room.tombstone",
    "m.room.server_acl",
    "m.room.third_party_invite",
    "m.room.aliases",
    "m.space.child",
    "m.space.parent",
    "m.room.policy",
    "m.policy.rule.user",
    "m.policy.rule.room",
    "m.policy.rule.server",
    "m.call.member",
    "org.matrix.msc3401.call.member",
];

fn code(event_type: &str) -> Option<(u8, &'static str)> {
    (1..).zip(KNOWN).find(|(_, known)| *known == event_type)
}

/// The type without a string of its own where it is well known.
pub(super) fn event_type(event_type: &str) -> EventType {
    match code(event_type) {
        Some((_, known)) => Cow::Borrowed(known),
        None => Cow::Owned(event_type.to_owned()),
    }
}

pub(super) fn encode(node: &Node) -> Vec<u8> {
    match node {
        Node::Leaf(entries) => {
            let mut out = Vec::with_capacity(2 + entries.len() * 32);
            out.push(LEAF);
            varint(&mut out, entries.len() as u64);
            for entry in entries {
                match code(&entry.event_type) {
                    Some((code, _)) => out.push(code),
                    None => {
                        out.push(OTHER);
                        text(&mut out, &entry.event_type);
                    }
                }
                text(&mut out, &entry.state_key);
                // Zigzag: small numbers of either sign stay short.
                varint(&mut out, (entry.sn.cast_unsigned() << 1) ^ (entry.sn >> 63).cast_unsigned());
            }
            out
        }
        Node::Branch(children) => {
            let mut out = Vec::with_capacity(3 + 16 * 16);
            let mut bits = 0u16;
            for (bit, child) in children.iter().enumerate() {
                bits |= u16::from(child.is_some()) << bit;
            }
            out.push(BRANCH);
            out.extend(bits.to_le_bytes());
            for child in children.iter().flatten() {
                out.extend(child.0);
            }
            out
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Node, Garbage> {
    let mut input = Input(bytes);
    let node = match input.byte()? {
        LEAF => input.leaf()?,
        BRANCH => input.branch()?,
        _ => return Err(Garbage("of no known kind")),
    };
    if input.0.is_empty() { Ok(node) } else { Err(Garbage("something follows it")) }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Garbage> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Garbage("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Garbage> {
        self.take(1).map(|byte| byte[0])
    }

    fn varint(&mut self) -> Result<u64, Garbage> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(Garbage("a number too large or not in its shortest form"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Garbage("a number that doesn't end"))
    }

    fn text(&mut self) -> Result<&'a str, Garbage> {
        let len = usize::try_from(self.varint()?).map_err(|_| Garbage("a text too long"))?;
        std::str::from_utf8(self.take(len)?).map_err(|_| Garbage("a text that is not UTF-8"))
    }

    fn leaf(&mut self) -> Result<Node, Garbage> {
        let count = self.varint()?;
        // An entry has three bytes at least: memory is taken for what can be there, not for what is claimed.
        if count == 0 || count > (self.0.len() / 3) as u64 {
            return Err(Garbage("a leaf of that many entries"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let event_type = match self.byte()? {
                OTHER => {
                    let text = self.text()?;
                    if code(text).is_some() {
                        return Err(Garbage("a well-known type written out"));
                    }
                    Cow::Owned(text.to_owned())
                }
                code => Cow::Borrowed(*KNOWN.get(usize::from(code) - 1).ok_or(Garbage("a type of no known number"))?),
            };
            let state_key = self.text()?.into();
            let zigzag = self.varint()?;
            let sn = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
            let entry = Entry { event_type, state_key, sn };
            if entries.last().is_some_and(|last| last.key() >= entry.key()) {
                return Err(Garbage("entries out of order"));
            }
            entries.push(entry);
        }
        Ok(Node::Leaf(entries))
    }

    fn branch(&mut self) -> Result<Node, Garbage> {
        let bits = u16::from_le_bytes([self.byte()?, self.byte()?]);
        if bits == 0 {
            return Err(Garbage("a branch without children"));
        }
        let mut children = Box::new([None; 16]);
        for (bit, child) in children.iter_mut().enumerate() {
            if bits >> bit & 1 == 1 {
                *child = Some(NodeHash(super::half(self.take(16)?)));
            }
        }
        Ok(Node::Branch(children))
    }
}
