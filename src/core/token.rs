//! Tokens: places in the stream and in a room's timeline that clients hand back to us.
//!
//! A client may give any endpoint a token that it got from another, so one type reads them all.

use std::{fmt, str::FromStr};

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
}

/// A boundary in a room's timeline, which is ordered by (topo, minor). It lies before the event of that key: a page
/// backwards ends before it, a page forwards starts with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimelineToken {
    pub topo: i64,
    pub minor: i64,
}

/// Either, as a client hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Token {
    Sync(SyncToken),
    Timeline(TimelineToken),
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
        }
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s1_{}_{}_{:x}{}", self.pos, self.serial, self.epoch, if self.typing { "_t" } else { "" })
    }
}

impl fmt::Display for TimelineToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t1_{}_{}", self.topo, self.minor)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync(token) => token.fmt(f),
            Self::Timeline(token) => token.fmt(f),
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    /// Reads only what we write: a token that prints in another way was not made here.
    fn from_str(s: &str) -> Result<Self> {
        let mut parts = s.split('_');
        let kind = parts.next();
        let mut next = || parts.next();
        let token = match kind {
            Some("s1") => sync_token(next(), next(), next(), next()).map(Self::Sync),
            Some("t1") => timeline_token(next(), next()).map(Self::Timeline),
            _ => None,
        };
        token.filter(|token| token.to_string() == s).ok_or_else(|| Error::invalid_param("Not a token of this server"))
    }
}

impl FromStr for SyncToken {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s.parse()? {
            Token::Sync(token) => Ok(token),
            Token::Timeline(_) => Err(Error::invalid_param("A token of a room's timeline is no place to sync from")),
        }
    }
}

fn sync_token(pos: Option<&str>, serial: Option<&str>, epoch: Option<&str>, typing: Option<&str>) -> Option<SyncToken> {
    Some(SyncToken {
        pos: pos?.parse().ok().filter(|pos| *pos >= 0)?,
        serial: serial?.parse().ok()?,
        epoch: u64::from_str_radix(epoch?, 16).ok()?,
        typing: typing.is_some(),
    })
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
        let sync = Token::Sync(SyncToken { pos: 57, serial: 3, epoch: 0xa9f, typing: false });
        assert_eq!(sync.to_string(), "s1_57_3_a9f");
        let typing = Token::Sync(SyncToken { pos: 57, serial: 3, epoch: 0xa9f, typing: true });
        assert_eq!(typing.to_string(), "s1_57_3_a9f_t");
        assert_eq!(sync.boundary(), TimelineToken { topo: 58, minor: i64::MIN });
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
            "s72594_4483_1934",
            "ä_1",
        ] {
            match s.parse::<Token>() {
                Err(Error::Matrix { kind: crate::Kind::InvalidParam, .. }) => {}
                other => panic!("{s}: {other:?}"),
            }
        }
        assert!("t1_1_2".parse::<SyncToken>().is_err());
    }

    proptest! {
        #[test]
        fn read_back_as_written(pos in 0..=i64::MAX, serial: u64, epoch: u64, typing: bool, topo: i64, minor: i64) {
            for token in [
                Token::Sync(SyncToken { pos, serial, epoch, typing }),
                Token::Timeline(TimelineToken { topo, minor }),
            ] {
                let written = token.to_string();
                prop_assert!(written.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
                prop_assert_eq!(written.parse::<Token>().expect("ours"), token);
            }
        }

        #[test]
        fn whatever_is_read_prints_the_same(s in "[st]1(_-?[0-9a-f]{0,20}){0,4}|\\PC{0,20}") {
            if let Ok(token) = s.parse::<Token>() {
                prop_assert_eq!(token.to_string(), s);
            }
        }

        #[test]
        fn a_boundary_parts_what_was_seen_from_what_was_not(pos in 0..1_000_000i64, other in 0..1_000_000i64) {
            let boundary = SyncToken { pos, serial: 0, epoch: 0, typing: false }.boundary();
            // A live event has the key (pos, 0), history that was fetched into the gap before it (pos, -n).
            for minor in [0, -1, -50] {
                prop_assert_eq!(TimelineToken { topo: other, minor } < boundary, other <= pos);
            }
        }
    }
}
