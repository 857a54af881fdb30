//! Which rooms a client of sliding sync looks at, and how much of each it wants.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

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
    types: Chosen,
    /// But not this. Saved connections of before may lack it.
    #[serde(default)]
    without: Chosen,
    /// Members of whom the timeline tells, and those whose membership changes.
    lazy: bool,
}

/// Keys by type, or `*` for any type.
type Chosen = BTreeMap<String, Keys>;

/// An element of what is wanted: a type and a key; `None` is any.
pub type Element = (Option<String>, Option<String>);

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

    fn hold_all(&self, others: &Self) -> bool {
        match others {
            Self::Any => *self == Self::Any,
            Self::These(keys) => keys.iter().all(|key| self.hold(key)),
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
            add(&mut required.types, kind, &keys);
        }
        required
    }

    /// What one of the elements names, and none of those to be left out; and perhaps members that are loaded lazily, who
    /// are never left out.
    pub fn chosen(include: &[Element], exclude: &[Element], lazy: bool) -> Self {
        let choose = |elements: &[Element]| {
            let mut chosen = Chosen::new();
            for (kind, key) in elements {
                let keys = key.as_ref().map_or(Keys::Any, |key| Keys::These([key.clone()].into()));
                add(&mut chosen, kind.as_deref().unwrap_or(ANY), &keys);
            }
            chosen
        };
        Self { types: choose(include), without: choose(exclude), lazy }
    }

    /// What both want. Who wants all members is not content with some; and what one leaves out is left out if the other
    /// does so too, or has no mind for it.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = Self { without: Chosen::new(), ..self.clone() };
        for (kind, keys) in &other.types {
            add(&mut both.types, kind, keys);
        }
        for (one, other) in [(self, other), (other, self)] {
            for (kind, keys) in &one.without {
                if covers(&other.without, kind, keys) || !other.may_want(kind) {
                    add(&mut both.without, kind, keys);
                }
            }
        }
        if self.all_members() || other.all_members() {
            add(&mut both.types, MEMBER, &Keys::Any);
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
        let wanted = any_type || self.types.get(kind).is_some_and(|keys| keys.hold(key));
        wanted && ![kind, ANY].iter().any(|kind| self.without.get(*kind).is_some_and(|keys| keys.hold(key)))
    }

    /// Whether something of this type may be wanted.
    fn may_want(&self, kind: &str) -> bool {
        match kind {
            ANY => !self.types.is_empty(),
            kind => self.types.contains_key(kind) || self.types.contains_key(ANY),
        }
    }

    pub fn is_lazy(&self) -> bool {
        self.lazy
    }

    pub fn all_members(&self) -> bool {
        let wanted =
            self.types.get(MEMBER) == Some(&Keys::Any) || !self.lazy && self.types.get(ANY) == Some(&Keys::Any);
        wanted && !covers(&self.without, MEMBER, &Keys::Any)
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
        let left_out = |(kind, keys): (&String, &Keys)| covers(&self.without, kind, keys) || !self.may_want(kind);
        if !before.without.iter().all(left_out) {
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
        self.types.iter().chain(&self.without).map(|(kind, of)| kind.len() + 64 + keys(of)).sum()
    }
}

fn add(chosen: &mut Chosen, kind: &str, keys: &Keys) {
    match chosen.get_mut(kind) {
        Some(known) => known.add(keys),
        None => {
            chosen.insert(kind.to_owned(), keys.clone());
        }
    }
}

/// Whether all of a type that has one of these keys is chosen.
fn covers(chosen: &Chosen, kind: &str, keys: &Keys) -> bool {
    [kind, ANY].iter().any(|kind| chosen.get(*kind).is_some_and(|known| known.hold_all(keys)))
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

    fn element(kind: &str, key: &str) -> Element {
        let part = |part: &str| (part != ANY).then(|| part.to_owned());
        (part(kind), part(key))
    }

    fn chosen(include: &[(&str, &str)], exclude: &[(&str, &str)], lazy: bool) -> Required {
        let all = |elements: &[(&str, &str)]| elements.iter().map(|(kind, key)| element(kind, key)).collect::<Vec<_>>();
        Required::chosen(&all(include), &all(exclude), lazy)
    }

    #[test]
    fn some_may_be_left_out() {
        let all_but = chosen(&[(ANY, ANY)], &[("m.room.create", ""), ("t", ANY), (ANY, "k")], false);
        for (kind, key, wanted) in [
            ("m.room.create", "", false),
            ("m.room.create", "x", true),
            ("t", "", false),
            ("u", "k", false),
            ("u", "", true),
            (MEMBER, "@other:x", true),
        ] {
            assert_eq!(all_but.wants(kind, key), wanted, "{kind} {key}");
        }
        assert!(all_but.all_members() && !chosen(&[(ANY, ANY)], &[(MEMBER, ANY)], false).all_members());
        let lazy = chosen(&[(ANY, ANY), (MEMBER, USER)], &[], true);
        assert!(lazy.is_lazy() && !lazy.all_members() && lazy.wants(MEMBER, USER) && !lazy.wants(MEMBER, "@other:x"));
        // Words that mean something elsewhere are none here.
        assert!(!chosen(&[(MEMBER, ME), (MEMBER, LAZY)], &[], false).wants(MEMBER, USER));
        assert!(!chosen(&[(MEMBER, LAZY)], &[], false).is_lazy());
    }

    #[test]
    fn what_one_leaves_out_another_may_want() {
        let all = chosen(&[(ANY, ANY)], &[], false);
        let but_create = chosen(&[(ANY, ANY)], &[("m.room.create", "")], false);
        let names = chosen(&[("m.room.name", ANY)], &[("m.room.name", "x")], false);
        let but_all = chosen(&[(ANY, ANY)], &[("m.room.create", ANY), ("t", ANY)], false);
        for (one, other, (create, name)) in [
            (&all, &but_create, (true, true)),
            (&but_create, &names, (false, true)),
            (&but_create, &but_all, (false, true)),
        ] {
            for both in [one.and(other), other.and(one)] {
                assert_eq!(
                    (both.wants("m.room.create", ""), both.wants("m.room.name", "x")),
                    (create, name),
                    "{both:?}"
                );
            }
        }
        assert!(all.widens(&but_create) && !but_create.widens(&all) && !but_create.widens(&but_create));
        assert!(!names.widens(&but_create) && but_create.widens(&but_all));
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
