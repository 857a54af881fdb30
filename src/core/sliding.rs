//! Which rooms a client of sliding sync looks at, and how much of each it wants.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

mod wish;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::wish::{Filters, ListWish, Scope, SlidingWish, ToDeviceWish};

const MEMBER: &str = "m.room.member";
/// Any type, or any key.
const ANY: &str = "*";
const LAZY: &str = "$LAZY";
const ME: &str = "$ME";

/// Whether an event of this type moves a room up in the list of somebody who sorts by what people do.
pub fn bumps(event_type: &str) -> bool {
    matches!(
        event_type,
        "m.room.create"
            | "m.room.message"
            | "m.room.encrypted"
            | "m.sticker"
            | "m.call.invite"
            | "m.poll.start"
            | "org.matrix.msc3381.poll.start"
            | "m.beacon_info"
            | "org.matrix.msc3672.beacon_info"
    )
}

/// How much of a room is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The newest so many events,
    pub limit: u64,
    /// and of the state this.
    pub required: Required,
}

impl Config {
    /// What both want.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { limit: self.limit.max(other.limit), required: self.required.and(&other.required) }
    }
}

/// Which state of a room is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Required {
    /// By type, or `*` for any.
    types: BTreeMap<String, Keys>,
    /// Members of whom the timeline tells, and those whose membership changes.
    lazy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Keys {
    Any,
    These(BTreeSet<String>),
}

impl Keys {
    fn hold(&self, key: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(keys) => keys.contains(key),
        }
    }

    fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::These(keys), Self::These(more)) => keys.extend(more.iter().cloned()),
            _ => *self = Self::Any,
        }
    }
}

impl Required {
    /// What `user` asks for: types and keys, with words for any, for the user, and for members that are loaded lazily.
    pub fn new<'a>(elements: impl IntoIterator<Item = (&'a str, &'a str)>, user: &str) -> Self {
        let mut required = Self::default();
        for (kind, key) in elements {
            let keys = match key {
                LAZY if kind == MEMBER => {
                    required.lazy = true;
                    continue;
                }
                ANY => Keys::Any,
                ME => Keys::These([user.to_owned()].into()),
                key => Keys::These([key.to_owned()].into()),
            };
            required.add(kind, &keys);
        }
        required
    }

    fn add(&mut self, kind: &str, keys: &Keys) {
        match self.types.get_mut(kind) {
            Some(known) => known.add(keys),
            None => {
                self.types.insert(kind.to_owned(), keys.clone());
            }
        }
    }

    /// What both want. Who wants all members is not content with some.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (kind, keys) in &other.types {
            both.add(kind, keys);
        }
        if self.all_members() || other.all_members() {
            both.add(MEMBER, &Keys::Any);
            both.lazy = false;
        } else {
            both.lazy |= other.lazy;
        }
        both
    }

    /// Whether this piece of state is wanted, whoever speaks in the timeline. Members that are loaded lazily are not among
    /// those that "any" means.
    pub fn wants(&self, kind: &str, key: &str) -> bool {
        let any_type = match self.types.get(ANY) {
            Some(Keys::Any) => kind != MEMBER || !self.lazy,
            Some(keys) => keys.hold(key),
            None => false,
        };
        any_type || self.types.get(kind).is_some_and(|keys| keys.hold(key))
    }

    pub fn is_lazy(&self) -> bool {
        self.lazy
    }

    pub fn all_members(&self) -> bool {
        self.types.get(MEMBER) == Some(&Keys::Any) || !self.lazy && self.types.get(ANY) == Some(&Keys::Any)
    }

    /// The members that are wanted by name.
    pub fn named_members(&self) -> impl Iterator<Item = &str> {
        let of = |kind: &str| match self.types.get(kind) {
            Some(Keys::These(keys)) => Some(keys),
            _ => None,
        };
        let keys = of(MEMBER).into_iter().chain(of(ANY)).flatten();
        keys.map(String::as_str).filter(|key| key.starts_with('@'))
    }

    /// Whether this wants something that `before` did not.
    pub fn widens(&self, before: &Self) -> bool {
        if self.all_members() && !before.all_members() || self.lazy && !before.lazy && !before.all_members() {
            return true;
        }
        let any_before = before.types.get(ANY);
        let had = |kind: &str, keys: &Keys| match keys {
            Keys::Any if kind == MEMBER => before.all_members(),
            Keys::Any => any_before == Some(&Keys::Any) || before.types.get(kind) == Some(&Keys::Any),
            Keys::These(keys) if kind == ANY => keys.iter().all(|key| any_before.is_some_and(|had| had.hold(key))),
            Keys::These(keys) => keys.iter().all(|key| before.wants(kind, key)),
        };
        !self.types.iter().all(|(kind, keys)| had(kind, keys))
    }

    /// About what it takes.
    pub fn bytes(&self) -> usize {
        let keys = |keys: &Keys| match keys {
            Keys::Any => 0,
            Keys::These(keys) => keys.iter().map(|key| key.len() + 48).sum(),
        };
        self.types.iter().map(|(kind, of)| kind.len() + 64 + keys(of)).sum()
    }
}

/// Of a list of so many rooms, which places its ranges name (each inclusive, from 0), in their order: from the first of a
/// pair to before the second.
pub fn places(ranges: &[(u64, u64)], len: usize) -> Vec<(usize, usize)> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(len);
    let mut sorted: Vec<_> = ranges.iter().map(|(first, last)| (at(*first), at(last.saturating_add(1)))).collect();
    sorted.sort_unstable();
    for (start, end) in sorted.into_iter().filter(|(start, end)| start < end) {
        match spans.last_mut() {
            Some(before) if start <= before.1 => before.1 = before.1.max(end),
            _ => spans.push((start, end)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "@me:x";

    fn required(elements: &[(&str, &str)]) -> Required {
        Required::new(elements.iter().copied(), USER)
    }

    #[test]
    fn what_is_wanted() {
        let some = required(&[("m.room.name", ""), (MEMBER, ME), ("m.space.child", ANY), (ANY, "x")]);
        for (kind, key, wanted) in [
            ("m.room.name", "", true),
            ("m.room.name", "other", false),
            ("m.room.topic", "", false),
            (MEMBER, USER, true),
            (MEMBER, "@other:x", false),
            ("m.space.child", "!any:x", true),
            ("whatever", "x", true),
        ] {
            assert_eq!(some.wants(kind, key), wanted, "{kind} {key}");
        }
        assert!(!some.is_lazy() && !some.all_members());
        assert_eq!(some.named_members().collect::<Vec<_>>(), [USER]);
        let all = required(&[(ANY, ANY)]);
        assert!(all.wants(MEMBER, "@other:x") && all.wants("m.room.topic", "") && all.all_members());
        let lazy = required(&[(ANY, ANY), (MEMBER, LAZY), (MEMBER, "@named:x")]);
        assert!(lazy.wants("m.room.topic", "") && lazy.is_lazy() && !lazy.all_members());
        assert!(!lazy.wants(MEMBER, "@other:x") && lazy.wants(MEMBER, "@named:x"));
        // A word that means something of members only is a key of others, which nothing has.
        assert!(!required(&[("m.room.topic", LAZY)]).is_lazy());
    }

    #[test]
    fn two_that_want_a_room_get_what_both_want() {
        let lazy = required(&[(MEMBER, LAZY), ("m.room.name", "")]);
        let all = required(&[(ANY, ANY)]);
        let both = lazy.and(&all);
        assert!(both.all_members() && !both.is_lazy() && both.wants(MEMBER, "@other:x"));
        assert_eq!(all.and(&lazy), both);
        let named = lazy.and(&required(&[(MEMBER, ME), ("m.room.name", "x")]));
        assert!(named.is_lazy() && named.wants(MEMBER, USER) && named.wants("m.room.name", "x"));
        let config = Config { limit: 3, required: lazy.clone() };
        assert_eq!(config.and(&Config { limit: 7, required: lazy.clone() }), Config { limit: 7, required: lazy });
    }

    #[test]
    fn what_is_wanted_more_than_before() {
        let name = &[("m.room.name", "")][..];
        let name_and_topic = &[("m.room.name", ""), ("m.room.topic", "")][..];
        for (before, now, widens) in [
            (name, name, false),
            (name, name_and_topic, true),
            (name_and_topic, name, false),
            (&[(ANY, ANY)], name_and_topic, false),
            (name, &[(ANY, ANY)], true),
            (&[(ANY, ANY)], &[(MEMBER, LAZY)], false),
            (&[(MEMBER, LAZY)], &[(MEMBER, ANY)], true),
            (&[(MEMBER, LAZY)], &[(MEMBER, ME)], true),
            (&[(ANY, ANY), (MEMBER, LAZY)], &[(ANY, ANY)], true),
            (&[(ANY, ANY)], &[(ANY, ANY), (MEMBER, LAZY)], false),
            (&[(ANY, ANY), (MEMBER, LAZY)], &[(ANY, ANY), (MEMBER, LAZY)], false),
            (&[(ANY, ANY), (MEMBER, LAZY)], &[("m.room.topic", ANY)], false),
            (&[("m.room.topic", "")], &[("m.room.topic", ANY)], true),
            (&[("m.room.topic", ANY)], &[("m.room.topic", "x")], false),
            (&[(ANY, "x")], &[(ANY, "x"), (ANY, "y")], true),
            (&[(ANY, "x")], &[("m.room.topic", "x")], false),
            (&[("m.room.topic", "x")], &[(ANY, "x")], true),
        ] {
            assert_eq!(required(now).widens(&required(before)), widens, "{before:?} -> {now:?}");
        }
    }

    #[test]
    fn places_in_a_list() {
        for (ranges, len, expected) in [
            (&[(0, 19)][..], 3, vec![(0, 3)]),
            (&[(0, 1)], 3, vec![(0, 2)]),
            (&[(2, 5), (0, 0)], 4, vec![(0, 1), (2, 4)]),
            (&[(0, 2), (1, 3)], 9, vec![(0, 4)]),
            (&[(0, 1), (2, 3)], 9, vec![(0, 4)]),
            (&[(5, 9)], 3, vec![]),
            (&[(3, 1)], 9, vec![]),
            (&[(0, u64::MAX)], 2, vec![(0, 2)]),
            (&[], 2, vec![]),
        ] {
            assert_eq!(places(ranges, len), expected, "{ranges:?} of {len}");
        }
    }
}
