//! What may happen.
//!
//! An operation names people, rooms and events by small numbers that mean something wherever it stands: an operation less
//! before it, and it can still be done. So a history can be made shorter while it fails.

/// The people of a history: the first makes the rooms, the second has half of the power in them.
pub const NAMES: [&str; 4] = ["alice", "bob", "carol", "dora"];
/// How many devices they have.
pub const DEVICES: [usize; 4] = [3, 3, 2, 2];
/// What the third device of somebody asks for each time: to who asks for something else, the server tells it anew.
pub const SAME_LIMIT: u32 = 3;
pub const VISIBILITIES: [&str; 4] = ["shared", "joined", "invited", "world_readable"];
pub const JOIN_RULES: [&str; 3] = ["public", "invite", "knock"];
pub const VERSIONS: [&str; 3] = ["10", "11", "12"];
/// What some say, and others wait for.
pub const WORDS: [&str; 2] = ["cake", "tea"];
/// The rules of the server that somebody may turn round.
pub const RULES: [&str; 6] = [
    ".m.rule.master",
    ".m.rule.suppress_notices",
    ".m.rule.is_user_mention",
    ".m.rule.is_room_mention",
    ".m.rule.suppress_edits",
    ".m.rule.message",
];

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
        /// A room without a name is called after its members, who have to be told of then.
        named: bool,
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
    /// A message that belongs to another, or is meant for somebody.
    Write {
        who: Who,
        room: Where,
        how: Writing,
        meant: Meant,
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
    /// Somebody changes what they want to be told of.
    Wish {
        who: Who,
        room: Where,
        what: Wished,
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
        /// The answer is never read.
        lost: bool,
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

/// What a message is to an earlier event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    Alone,
    /// By a bot, which is to disturb nobody.
    Notice,
    /// An edit, which is an event like any other.
    Edit(Back),
    /// In the thread that the event is in, or else in that which begins with it.
    Answer(Back),
    /// In a thread that begins with the event, though it may be in one.
    Nested(Back),
    /// Related to it in a way that makes no thread.
    Refer(Back),
}

/// Whom a message mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    Unsaid,
    Nobody,
    One(Who),
    Room,
}

/// A push rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wished {
    /// Nothing of the room.
    Silence,
    /// Of the room only what mentions them, and words they wait for.
    Mentions,
    /// This word is loud.
    Word(usize),
    /// Every message is.
    Loud,
    /// The same as [`Self::Mentions`], of all that this one says.
    Less(Who),
    /// A rule of the server is on that was off, or off that was on.
    Turned(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Receipt {
        of: Of,
        private: bool,
    },
    /// The read marker, which is account data.
    Marker,
}

/// What was read up to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    All,
    /// The main timeline, whether the event is in it or not.
    Main,
    /// The thread that the event is in, or that would begin with it.
    Thread,
    /// One of two threads that are not there.
    Nothing(usize),
}
