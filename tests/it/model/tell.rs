//! How an operation is told.

use std::fmt;

use super::story::{JOIN_RULES, NAMES, Op, VERSIONS, VISIBILITIES, Who};

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |who: &Who| NAMES[*who];
        match self {
            Self::Create { by, visibility, version, public, named } => {
                let (kind, seen) = (if *public { "public" } else { "private" }, VISIBILITIES[*visibility]);
                let named = if *named { "with" } else { "without" };
                let version = VERSIONS[*version];
                write!(f, "{} makes a {kind} room {named} a name, history {seen}, version {version}", name(by))
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
            Self::Write { who, room, how, meant } => {
                write!(f, "{} writes in room {room}: {how:?}, meant for {meant:?}", name(who))
            }
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
            Self::Wish { who, room, what, still } => {
                let still = if *still { "wishes" } else { "no longer wishes" };
                write!(f, "{} {still} in room {room}: {what:?}", name(who))
            }
            Self::Keep { who, room: None, key, value } => write!(f, "{} keeps k{key}={value}", name(who)),
            Self::Keep { who, room: Some(room), key, value } => {
                write!(f, "{} keeps k{key}={value} for room {room}", name(who))
            }
            Self::Sync { who, device, limit, full_state, lost } => {
                let full = if *full_state { " and the full state" } else { "" };
                let lost = if *lost { ", which gets lost" } else { "" };
                write!(f, "{} syncs D{device}, at most {limit} events{full}{lost}", name(who))
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
