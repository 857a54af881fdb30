//! Which rooms a client of sliding sync looks at, and how much of each it wants.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

mod wish;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::wish::{Filters, ListWish, Scope, SlidingWish, StateWish, ToDeviceWish};

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
            if both.lazy && both.types.get(ANY) == Some(&Keys::Any) {
                // "Any" means no members then: those whom one of them wants by a key of whatever type are named.
                for keys in [self, other].iter().filter_map(|one| one.types.get(ANY)).filter(|keys| **keys != Keys::Any)
                {
                    add(&mut both.types, MEMBER, keys);
                }
            }
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
            Keys::Any if kind == MEMBER => before.all_members() || !self.all_members(),
            Keys::Any => any_before == Some(&Keys::Any) || before.types.get(kind) == Some(&Keys::Any),
            Keys::These(keys) if kind == ANY => keys.iter().all(|key| any_before.is_some_and(|had| had.hold(key))),
            // What is named and left out as well is nothing that is wanted.
            Keys::These(keys) => keys.iter().all(|key| before.wants(kind, key) || !self.wants(kind, key)),
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
mod tests;
