//! Tokens: places in the stream and in a room's timeline that clients hand back to us.
//!
//! A client may give any endpoint a token that it got from another, so one type reads them all.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// A place in the stream of everything that clients sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SyncToken {
    /// All changes up to this position have been seen.
    pub pos: i64,
    /// What lives in memory only, up to this serial of the process that `epoch` names.
    pub serial: u64,
    pub epoch: u64,
    /// Who was given this was last told that somebody types. Another process can't know more of it, but has to tell them
    /// when nobody does.
    pub typing: bool,
    /// If the answer told a device messages of its own: whoever brings the token back has them.
    pub to_device: Option<Mark>,
}

/// Up to where a device was told the messages that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    pub pos: i64,
    /// Which device that was, so that the token says nothing for another.
    device: u32,
}

impl Mark {
    pub fn new(pos: i64, user_id: &str, device_id: &str) -> Self {
        Self { pos, device: fingerprint(user_id, device_id) }
    }

    /// Whether it was this device that was told.
    pub fn is_of(&self, user_id: &str, device_id: &str) -> bool {
        self.device == fingerprint(user_id, device_id)
    }
}

/// The same in every process and every version.
fn fingerprint(user_id: &str, device_id: &str) -> u32 {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(format!("{user_id}\0{device_id}")));
    u32::from_be_bytes([a, b, c, d])
}

/// A boundary in a room's timeline, which is ordered by (topo, minor). It lies before the event of that key: a page
/// backwards ends before it, a page forwards starts with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimelineToken {
    pub topo: i64,
    pub minor: i64,
}

/// A place on a connection of sliding sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// All changes up to this position of the stream have been looked at for it.
    pub pos: i64,
    /// What the server knows by it of the connection. Nothing can be told from it.
    pub key: u64,
}

/// Any of them, as a client hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Token {
    Sync(SyncToken),
    Timeline(TimelineToken),
    Position(Position),
}

impl SyncToken {
    /// The boundary behind the last event that was seen: a live event is keyed by its position.
    pub fn boundary(&self) -> TimelineToken {
        TimelineToken { topo: self.pos.saturating_add(1), minor: i64::MIN }
    }
}

impl TimelineToken {
    /// The boundary right behind the event with this key.
    pub fn after(topo: i64, minor: i64) -> Self {
        match minor.checked_add(1) {
            Some(minor) => Self { topo, minor },
            None => Self { topo: topo.saturating_add(1), minor: i64::MIN },
        }
    }
}

impl Token {
    /// The boundary in a room's timeline that this token means.
    pub fn boundary(&self) -> TimelineToken {
        match self {
            Self::Sync(token) => token.boundary(),
            Self::Timeline(token) => *token,
            Self::Position(token) => TimelineToken { topo: token.pos.saturating_add(1), minor: i64::MIN },
        }
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s1_{}_{}_{:x}{}", self.pos, self.serial, self.epoch, if self.typing { "_t" } else { "" })?;
        self.to_device.map_or(Ok(()), |mark| write!(f, "_d{}_{:x}", mark.pos, mark.device))
    }
}

impl fmt::Display for TimelineToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t1_{}_{}", self.topo, self.minor)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p1_{}_{:x}", self.pos, self.key)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync(token) => token.fmt(f),
            Self::Timeline(token) => token.fmt(f),
            Self::Position(token) => token.fmt(f),
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    /// Reads only what we write: a token that prints in another way was not made here.
    fn from_str(s: &str) -> Result<Self> {
        let mut parts = s.split('_');
        let token = match parts.next() {
            Some("s1") => sync_token(parts).map(Self::Sync),
            Some("t1") => timeline_token(parts.next(), parts.next()).map(Self::Timeline),
            Some("p1") => stream_position(parts.next(), parts.next()).map(Self::Position),
            _ => None,
        };
        token.filter(|token| token.to_string() == s).ok_or_else(|| Error::invalid_param("Not a token of this server"))
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Whatever else a client brings is of another server, or of another time: it has to begin anew.
    fn from_str(s: &str) -> Result<Self> {
        match s.parse() {
            Ok(Token::Position(position)) => Ok(position),
            _ => Err(Error::unknown_pos()),
        }
    }
}

impl FromStr for SyncToken {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s.parse()? {
            Token::Sync(token) => Ok(token),
            Token::Timeline(_) => Err(Error::invalid_param("A token of a room's timeline is no place to sync from")),
            Token::Position(_) => Err(Error::invalid_param("A place on a connection is none for another kind of sync")),
        }
    }
}

fn sync_token<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<SyncToken> {
    let position = |part: &str| part.parse::<i64>().ok().filter(|pos| *pos >= 0);
    let pos = position(parts.next()?)?;
    let serial = parts.next()?.parse().ok()?;
    let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
    let mut part = parts.next();
    let typing = part == Some("t");
    if typing {
        part = parts.next();
    }
    let to_device = match part {
        None => None,
        Some(part) => {
            let device = u32::from_str_radix(parts.next()?, 16).ok()?;
            Some(Mark { pos: position(part.strip_prefix('d')?)?, device })
        }
    };
    Some(SyncToken { pos, serial, epoch, typing, to_device })
}

fn stream_position(pos: Option<&str>, key: Option<&str>) -> Option<Position> {
    let pos = pos?.parse().ok().filter(|pos| *pos >= 0)?;
    Some(Position { pos, key: u64::from_str_radix(key?, 16).ok()? })
}

fn timeline_token(topo: Option<&str>, minor: Option<&str>) -> Option<TimelineToken> {
    Some(TimelineToken { topo: topo?.parse().ok()?, minor: minor?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn print_as_documented() {
        let sync = Token::Sync(SyncToken { pos: 57, serial: 3, epoch: 0xa9f, typing: false, to_device: None });
        assert_eq!(sync.to_string(), "s1_57_3_a9f");
        let typing = SyncToken { pos: 57, serial: 3, epoch: 0xa9f, typing: true, to_device: None };
        assert_eq!(typing.to_string(), "s1_57_3_a9f_t");
        let mark = Mark { pos: 55, device: 0xc0de };
        assert_eq!(SyncToken { to_device: Some(mark), ..typing }.to_string(), "s1_57_3_a9f_t_d55_c0de");
        let told = SyncToken { typing: false, to_device: Some(mark), ..typing };
        assert_eq!(told.to_string(), "s1_57_3_a9f_d55_c0de");
        assert_eq!(sync.boundary(), TimelineToken { topo: 58, minor: i64::MIN });
        let position = Token::Position(Position { pos: 57, key: 0xc0de });
        assert_eq!((position.to_string().as_str(), position.boundary()), ("p1_57_c0de", sync.boundary()));
        let timeline = Token::Timeline(TimelineToken { topo: 57, minor: -2 });
        assert_eq!(timeline.to_string(), "t1_57_-2");
        assert_eq!(timeline.boundary(), TimelineToken { topo: 57, minor: -2 });
        assert_eq!(TimelineToken::after(57, -2), TimelineToken { topo: 57, minor: -1 });
        assert_eq!(TimelineToken::after(57, i64::MAX), TimelineToken { topo: 58, minor: i64::MIN });
    }

    #[test]
    fn foreign_tokens_are_invalid_parameters() {
        for s in [
            "",
            "s1",
            "s1_",
            "s1_1_2",
            "s1_1_2_3_4",
            "s1_1_2_3_",
            "s1_1_2_3_t_t",
            "s1_1_2_3_d1",
            "s1_1_2_3_d-1_2",
            "s1_1_2_3_d1_2_t",
            "s1_1_2_3_d1_02",
            "s1_-1_2_3",
            "s1_+1_2_3",
            "s1_01_2_3",
            "s1_1_2_A9F",
            "s1_1_2_0a",
            "s1_99999999999999999999_2_3",
            "s2_1_2_3",
            "t1_1",
            "t1_1_2_3",
            "t1_ 1_2",
            "t1_1_2\n",
            "t1_1_-0",
            "p1_1",
            "p1_-1_a",
            "p1_1_A",
            "p1_1_a_b",
            "s72594_4483_1934",
            "ä_1",
        ] {
            match s.parse::<Token>() {
                Err(Error::Matrix { kind: crate::Kind::InvalidParam, .. }) => {}
                other => panic!("{s}: {other:?}"),
            }
        }
        assert!("t1_1_2".parse::<SyncToken>().is_err() && "p1_1_2".parse::<SyncToken>().is_err());
        for s in ["", "s1_1_2_3", "p1_1", "whatever"] {
            assert!(matches!(s.parse::<Position>(), Err(Error::Matrix { kind: crate::Kind::UnknownPos, .. })), "{s}");
        }
    }

    #[test]
    fn a_mark_is_of_one_device() {
        let mark = Mark::new(7, "@a:x", "D");
        assert!(mark.is_of("@a:x", "D"));
        assert!(!mark.is_of("@a:x", "E") && !mark.is_of("@b:x", "D"));
        // Tokens outlive the process that gave them.
        assert_eq!(mark.device, 0xfc7de8b0);
    }

    proptest! {
        #[test]
        fn read_back_as_written(
            pos in 0..=i64::MAX, serial: u64, epoch: u64, typing: bool,
            mark in proptest::option::of((0..=i64::MAX, any::<u32>())), topo: i64, minor: i64, key: u64,
        ) {
            let to_device = mark.map(|(pos, device)| Mark { pos, device });
            for token in [
                Token::Sync(SyncToken { pos, serial, epoch, typing, to_device }),
                Token::Timeline(TimelineToken { topo, minor }),
                Token::Position(Position { pos, key }),
            ] {
                let written = token.to_string();
                prop_assert!(written.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
                prop_assert_eq!(written.parse::<Token>().expect("ours"), token);
            }
        }

        #[test]
        fn whatever_is_read_prints_the_same(s in "[stp]1(_-?[0-9a-f]{0,20}){0,6}|\\PC{0,20}") {
            if let Ok(token) = s.parse::<Token>() {
                prop_assert_eq!(token.to_string(), s);
            }
        }

        #[test]
        fn a_boundary_parts_what_was_seen_from_what_was_not(pos in 0..1_000_000i64, other in 0..1_000_000i64) {
            let boundary = SyncToken { pos, serial: 0, epoch: 0, typing: false, to_device: None }.boundary();
            // A live event has the key (pos, 0), history that was fetched into the gap before it (pos, -n).
            for minor in [0, -1, -50] {
                prop_assert_eq!(TimelineToken { topo: other, minor } < boundary, other <= pos);
            }
        }
    }
}
