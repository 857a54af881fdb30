//! What may happen, and a random history of it.
//!
//! An operation names people, rooms and events by small numbers that mean something wherever it stands: an operation less
//! before it, and it can still be done. So a history can be made shorter while it fails.

use std::fmt;

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

/// The people of a history: the first makes the rooms, the second has half of the power in them.
pub const NAMES: [&str; 4] = ["alice", "bob", "carol", "dora"];
/// How many devices they have.
pub const DEVICES: [usize; 4] = [2, 2, 2, 1];
pub const VISIBILITIES: [&str; 4] = ["shared", "joined", "invited", "world_readable"];
pub const JOIN_RULES: [&str; 3] = ["public", "invite", "knock"];
pub const VERSIONS: [&str; 3] = ["10", "11", "12"];

pub type Who = usize;
/// A room by its age among those of the history, the oldest where there are fewer.
pub type Where = usize;
/// An event by its age in the room, the youngest being 0.
pub type Back = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create {
        by: Who,
        visibility: usize,
        version: usize,
        public: bool,
    },
    Join {
        who: Who,
        room: Where,
    },
    Leave {
        who: Who,
        room: Where,
    },
    Knock {
        who: Who,
        room: Where,
    },
    Invite {
        by: Who,
        who: Who,
        room: Where,
    },
    Kick {
        by: Who,
        who: Who,
        room: Where,
    },
    Ban {
        by: Who,
        who: Who,
        room: Where,
    },
    Unban {
        by: Who,
        who: Who,
        room: Where,
    },
    Forget {
        who: Who,
        room: Where,
    },
    Say {
        who: Who,
        device: usize,
        room: Where,
    },
    /// An edit of an earlier message, which is an event like any other.
    Edit {
        who: Who,
        room: Where,
        back: Back,
    },
    Topic {
        by: Who,
        room: Where,
    },
    /// A key of the state that nobody else knows of.
    Odd {
        by: Who,
        room: Where,
        key: usize,
    },
    Visibility {
        by: Who,
        room: Where,
        to: usize,
    },
    JoinRule {
        by: Who,
        room: Where,
        to: usize,
    },
    /// Whether the second of the people has power.
    Power {
        by: Who,
        room: Where,
        much: bool,
    },
    Redact {
        who: Who,
        room: Where,
        back: Back,
    },
    /// An event that was made elsewhere, on top of an older one.
    Fork {
        by: Who,
        room: Where,
        back: Back,
        what: Forked,
    },
    Read {
        who: Who,
        room: Where,
        back: Back,
        how: Reading,
    },
    Ignore {
        who: Who,
        whom: Who,
        still: bool,
    },
    Keep {
        who: Who,
        room: Option<Where>,
        key: usize,
        value: u32,
    },
    Sync {
        who: Who,
        device: usize,
        limit: u32,
        full_state: bool,
    },
    /// One page into the newest gap in a room that the device knows.
    FillGap {
        who: Who,
        device: usize,
        room: Where,
        limit: u32,
    },
    /// The device comes back with what it knew some syncs ago.
    Rewind {
        who: Who,
        device: usize,
        syncs: usize,
    },
    /// The device has lost all that it knew.
    StartAnew {
        who: Who,
        device: usize,
    },
    Page {
        who: Who,
        room: Where,
        forward: bool,
        limit: u32,
        from_device: Option<usize>,
    },
    /// One event, asked for by its id.
    Look {
        who: Who,
        room: Where,
        back: Back,
    },
    /// The state and the members, now and when a device synced last.
    LookAround {
        who: Who,
        room: Where,
        device: usize,
    },
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    Words,
    Topic,
    Leave,
    Join,
    Ban(Who),
    Visibility(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Public,
    Private,
    /// In a thread.
    Thread(usize),
    PrivateThread(usize),
    /// The read marker, which is account data.
    Marker,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |who: &Who| NAMES[*who];
        match self {
            Self::Create { by, visibility, version, public } => {
                let (kind, seen) = (if *public { "public" } else { "private" }, VISIBILITIES[*visibility]);
                write!(f, "{} makes a {kind} room, history {seen}, version {}", name(by), VERSIONS[*version])
            }
            Self::Join { who, room } => write!(f, "{} joins room {room}", name(who)),
            Self::Leave { who, room } => write!(f, "{} leaves room {room}", name(who)),
            Self::Knock { who, room } => write!(f, "{} knocks at room {room}", name(who)),
            Self::Invite { by, who, room } => write!(f, "{} invites {} to room {room}", name(by), name(who)),
            Self::Kick { by, who, room } => write!(f, "{} kicks {} from room {room}", name(by), name(who)),
            Self::Ban { by, who, room } => write!(f, "{} bans {} from room {room}", name(by), name(who)),
            Self::Unban { by, who, room } => write!(f, "{} unbans {} in room {room}", name(by), name(who)),
            Self::Forget { who, room } => write!(f, "{} forgets room {room}", name(who)),
            Self::Say { who, device, room } => write!(f, "{} says something in room {room} (D{device})", name(who)),
            Self::Edit { who, room, back } => write!(f, "{} edits the event {back} back in room {room}", name(who)),
            Self::Topic { by, room } => write!(f, "{} sets the topic of room {room}", name(by)),
            Self::Odd { by, room, key } => write!(f, "{} sets odd state {key} in room {room}", name(by)),
            Self::Visibility { by, room, to } => {
                write!(f, "{} makes the history of room {room} {}", name(by), VISIBILITIES[*to])
            }
            Self::JoinRule { by, room, to } => write!(f, "{} makes room {room} {}", name(by), JOIN_RULES[*to]),
            Self::Power { by, room, much } => {
                write!(f, "{} gives bob {} power in room {room}", name(by), if *much { "half" } else { "no" })
            }
            Self::Redact { who, room, back } => write!(f, "{} redacts the event {back} back in room {room}", name(who)),
            Self::Fork { by, room, back, what } => {
                write!(f, "{} elsewhere, on the event {back} back in room {room}: {what:?}", name(by))
            }
            Self::Read { who, room, back, how } => {
                write!(f, "{} has read to the event {back} back in room {room}: {how:?}", name(who))
            }
            Self::Ignore { who, whom, still } => {
                write!(f, "{} {} {}", name(who), if *still { "ignores" } else { "no longer ignores" }, name(whom))
            }
            Self::Keep { who, room: None, key, value } => write!(f, "{} keeps k{key}={value}", name(who)),
            Self::Keep { who, room: Some(room), key, value } => {
                write!(f, "{} keeps k{key}={value} for room {room}", name(who))
            }
            Self::Sync { who, device, limit, full_state } => {
                let full = if *full_state { " and the full state" } else { "" };
                write!(f, "{} syncs D{device}, at most {limit} events{full}", name(who))
            }
            Self::FillGap { who, device, room, limit } => {
                write!(f, "{} pages {limit} into the gap of room {room} on D{device}", name(who))
            }
            Self::Rewind { who, device, syncs } => write!(f, "{} rewinds D{device} by {syncs} syncs", name(who)),
            Self::StartAnew { who, device } => write!(f, "{} starts anew with D{device}", name(who)),
            Self::Page { who, room, forward, limit, from_device } => {
                let way = if *forward { "forwards" } else { "backwards" };
                write!(f, "{} pages {way} through room {room} by {limit}, from {from_device:?}", name(who))
            }
            Self::Look { who, room, back } => {
                write!(f, "{} looks at the event {back} back in room {room}", name(who))
            }
            Self::LookAround { who, room, device } => {
                write!(f, "{} looks at state and members of room {room}, then as of D{device}", name(who))
            }
            Self::Restart => write!(f, "the server restarts"),
        }
    }
}

/// A history of so many operations, the same for the same seed.
pub fn history(seed: u64, length: usize) -> Vec<Op> {
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    // What is rare in most histories is frequent in some.
    let flavour = dice.below(6);
    let mut ops = vec![dice.create()];
    while ops.len() < length {
        ops.push(if ops.len() == 3 && dice.one_in(2) { dice.create() } else { dice.op(flavour) });
    }
    ops
}

struct Dice(StdRng);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly the young ones.
    fn back(&mut self) -> Back {
        if self.one_in(3) { self.below(20) } else { self.below(4) }
    }

    fn who(&mut self) -> Who {
        self.below(NAMES.len())
    }

    /// Somebody who is likely to have the power.
    fn mighty(&mut self) -> Who {
        [0, 0, 0, 1, 2][self.below(5)]
    }

    fn create(&mut self) -> Op {
        let visibility = self.below(VISIBILITIES.len());
        Op::Create { by: 0, visibility, version: self.below(VERSIONS.len()), public: !self.one_in(4) }
    }

    fn device(&mut self) -> (Who, usize) {
        let who = self.who();
        (who, self.below(DEVICES[who]))
    }

    fn op(&mut self, flavour: usize) -> Op {
        let room = self.below(2);
        let who = self.who();
        let (reader, device) = self.device();
        match self.below(100) {
            0..24 => self.sync(reader, device),
            24..44 => {
                // Mostly somebody who is in the room anyway.
                let who = if self.one_in(2) { 0 } else { who };
                Op::Say { who, device: self.below(DEVICES[who]), room }
            }
            44..62 => self.membership(who, room),
            62..68 => match self.below(6) {
                0 => Op::Topic { by: self.mighty(), room },
                1..4 => Op::Odd { by: self.mighty(), room, key: self.below(2) },
                4 => Op::JoinRule { by: 0, room, to: self.below(JOIN_RULES.len()) },
                _ => Op::Power { by: 0, room, much: self.one_in(2) },
            },
            68..71 => Op::Visibility { by: 0, room, to: self.below(VISIBILITIES.len()) },
            71..74 => Op::Redact { who: self.mighty(), room, back: self.back() },
            74 => Op::Edit { who, room, back: self.back() },
            75..79 => {
                let how = match self.below(6) {
                    0..2 => Reading::Public,
                    2 => Reading::Private,
                    3 => Reading::Thread(self.below(2)),
                    4 => Reading::PrivateThread(self.below(2)),
                    _ => Reading::Marker,
                };
                Op::Read { who, room, back: self.back(), how }
            }
            79..82 => {
                let room = (!self.one_in(2)).then_some(room);
                Op::Keep { who, room, key: self.below(2), value: self.0.next_u32() % 100 }
            }
            82..86 => Op::FillGap { who: reader, device, room, limit: [1, 2, 5, 30][self.below(4)] },
            86..89 => {
                let from_device = self.one_in(2).then_some(device).filter(|d| *d < DEVICES[who]);
                let limit = [1, 3, 10, 50][self.below(4)];
                Op::Page { who, room, forward: self.one_in(2), limit, from_device }
            }
            89..91 => Op::Look { who, room, back: self.below(25) },
            91 => Op::LookAround { who: reader, room, device },
            92 => Op::Forget { who, room },
            93 => match self.below(3) {
                0 => Op::Restart,
                1 => Op::StartAnew { who: reader, device },
                _ => Op::Ignore { who, whom: self.who(), still: !self.one_in(3) },
            },
            94 => Op::Rewind { who: reader, device, syncs: 1 + self.below(3) },
            // What the flavour of the history is.
            _ => match flavour {
                0 | 1 => self.fork(room),
                2 => self.membership(who, room),
                3 => Op::Visibility { by: 0, room, to: self.below(VISIBILITIES.len()) },
                4 => self.sync(reader, device),
                _ => Op::Say { who: 0, device: 0, room },
            },
        }
    }

    fn sync(&mut self, who: Who, device: usize) -> Op {
        let limit = [0, 1, 1, 2, 3, 5, 5, 10, 20, 20][self.below(10)];
        Op::Sync { who, device, limit, full_state: self.one_in(15) }
    }

    fn membership(&mut self, who: Who, room: Where) -> Op {
        let by = self.mighty();
        match self.below(14) {
            0..5 => Op::Join { who, room },
            5..7 => Op::Leave { who, room },
            7..10 => Op::Invite { by, who, room },
            10 => Op::Kick { by, who, room },
            11 => Op::Ban { by, who, room },
            12 => Op::Unban { by, who, room },
            _ => Op::Knock { who, room },
        }
    }

    fn fork(&mut self, room: Where) -> Op {
        let what = match self.below(8) {
            0..4 => Forked::Words,
            4 => Forked::Topic,
            5 => [Forked::Leave, Forked::Join][self.below(2)],
            6 => Forked::Ban(1 + self.below(3)),
            _ => Forked::Visibility(self.below(VISIBILITIES.len())),
        };
        let by = if matches!(what, Forked::Ban(_) | Forked::Visibility(_)) { 0 } else { self.who() };
        Op::Fork { by, room, back: self.below(6), what }
    }
}
