//! Which events a client's filter lets through.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use ruma::{
    RoomId, UInt, UserId,
    api::client::filter::{Filter, RoomEventFilter, RoomFilter, UrlFilter},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{Error, Result, limits::MAX_PAGE};

/// What a filter looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub event_type: &'a str,
    /// Receipts, typing notices and account data have none.
    pub sender: Option<&'a UserId>,
    pub room_id: &'a RoomId,
    pub content: &'a RawValue,
}

/// Does the filter let this through, which lies in a room?
pub fn matches_room_event(filter: &RoomEventFilter, subject: &Subject<'_>) -> bool {
    admits(filter.types.as_deref(), &filter.not_types, |pattern| wildcard(pattern, subject.event_type))
        && admits(filter.senders.as_deref(), &filter.not_senders, |user| Some(&**user) == subject.sender)
        && admits(filter.rooms.as_deref(), &filter.not_rooms, |room| *room == subject.room_id)
        && filter.url_filter.is_none_or(|wanted| (wanted == UrlFilter::EventsWithUrl) == has_url(subject.content))
}

/// Does the filter let this through, which lies in a room and has no sender of its own: receipts, typing, account data?
pub fn matches_type(filter: &RoomEventFilter, room_id: &RoomId, event_type: &str) -> bool {
    admits(filter.types.as_deref(), &filter.not_types, |pattern| wildcard(pattern, event_type))
        && admits(filter.rooms.as_deref(), &filter.not_rooms, |room| *room == room_id)
}

/// Does the filter let everything through, whatever it says of limits and members?
pub fn lets_all_through(filter: &RoomEventFilter) -> bool {
    filter.types.is_none()
        && filter.not_types.is_empty()
        && filter.senders.is_none()
        && filter.not_senders.is_empty()
        && filter.rooms.is_none()
        && filter.not_rooms.is_empty()
        && filter.url_filter.is_none()
}

/// Whom a user ignores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored(BTreeSet<String>);

impl Ignored {
    /// As the content of `m.ignored_user_list` says. The list is the user's own to write: one that is no list ignores
    /// nobody.
    pub fn of(content: Option<&str>) -> Self {
        #[derive(Deserialize)]
        struct List {
            ignored_users: std::collections::BTreeMap<String, IgnoredAny>,
        }
        let list = content.and_then(|content| serde_json::from_str::<List>(content).ok());
        Self(list.map(|list| list.ignored_users.into_keys().collect()).unwrap_or_default())
    }

    pub fn holds(&self, user: &str) -> bool {
        self.0.contains(user)
    }

    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Is this event a message of one of them?
    pub fn hides(&self, json: &str) -> Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        let event = Fields::of(json)?;
        Ok(event.state_key.is_none() && self.holds(&event.sender))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a cache pays for it.
    pub fn size(&self) -> usize {
        self.0.iter().map(|user| user.len() + 64).sum()
    }
}

/// What somebody wants to see of a timeline: what their filter lets through, and no message of those whom they ignore.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    filter: RoomEventFilter,
    ignored: Arc<Ignored>,
}

impl Sieve {
    pub fn new(filter: RoomEventFilter, ignored: Arc<Ignored>) -> Self {
        Self { filter, ignored }
    }

    /// Does it let everything through?
    pub fn is_open(&self) -> bool {
        self.ignored.is_empty() && lets_all_through(&self.filter)
    }

    /// Does it let nothing of this room through?
    pub fn is_shut(&self, room_id: &RoomId) -> bool {
        let none = |list: Option<usize>| list == Some(0);
        none(self.filter.types.as_ref().map(Vec::len))
            || none(self.filter.senders.as_ref().map(Vec::len))
            || !admits(self.filter.rooms.as_deref(), &self.filter.not_rooms, |room| *room == room_id)
    }

    /// Does it let this event through?
    pub fn passes(&self, room_id: &RoomId, json: &str) -> Result<bool> {
        if self.is_open() {
            return Ok(true);
        }
        let event = Fields::of(json)?;
        if event.state_key.is_none() && self.ignored.holds(&event.sender) {
            return Ok(false);
        }
        event.passes(&self.filter, room_id)
    }
}

/// Does the filter let this event through?
pub fn passes(filter: &RoomEventFilter, room_id: &RoomId, json: &str) -> Result<bool> {
    if lets_all_through(filter) { Ok(true) } else { Fields::of(json)?.passes(filter, room_id) }
}

/// What is looked at of an event.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    state_key: Option<IgnoredAny>,
    #[serde(borrow)]
    content: &'a RawValue,
}

impl<'a> Fields<'a> {
    fn of(json: &'a str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::internal)
    }

    fn passes(&self, filter: &RoomEventFilter, room_id: &RoomId) -> Result<bool> {
        let sender = <&UserId>::try_from(&*self.sender).map_err(Error::internal)?;
        let subject = Subject { event_type: &self.event_type, sender: Some(sender), room_id, content: self.content };
        Ok(matches_room_event(filter, &subject))
    }
}

/// Does the filter let this through, which lies in no room: presence, account data?
pub fn matches_event(filter: &Filter, event_type: &str, sender: Option<&UserId>) -> bool {
    admits(filter.types.as_deref(), &filter.not_types, |pattern| wildcard(pattern, event_type))
        && admits(filter.senders.as_deref(), &filter.not_senders, |user| Some(&**user) == sender)
}

/// Does the filter want anything of this room?
pub fn matches_room(filter: &RoomFilter, room_id: &RoomId) -> bool {
    admits(filter.rooms.as_deref(), &filter.not_rooms, |room| *room == room_id)
}

/// How many events to return. A client that asks for none gets one: a page without an event has no end to go on from.
pub fn limit(asked: Option<UInt>, default: u64) -> usize {
    let limit = asked.map_or(default, u64::from).clamp(1, MAX_PAGE);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// A list lets through what it names, no list everything; the list of exceptions wins.
fn admits<T>(wanted: Option<&[T]>, unwanted: &[T], is: impl Fn(&T) -> bool) -> bool {
    wanted.is_none_or(|wanted| wanted.iter().any(&is)) && !unwanted.iter().any(is)
}

fn has_url(content: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        url: Option<&'a RawValue>,
    }
    serde_json::from_str::<Content<'_>>(content.get()).is_ok_and(|content| content.url.is_some())
}

/// Does the text fit a pattern in which `*` stands for anything?
///
/// Each part between stars is looked for once, behind the one before it. No other place would leave more room for the parts
/// that follow, so there is no way back to try, and no pattern that takes long.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(text) = text.strip_prefix(start).and_then(|text| text.strip_suffix(end)) else { return false };
    let mut text = text;
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::{room_id, user_id};
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::testing::raw;

    #[test]
    fn stars() {
        for (pattern, text, fits) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "m.room.", true),
            ("m.room.*", "m.space.child", false),
            ("*", "", true),
            ("*.*", "m.room", true),
            ("*.*", "m", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "aab", false),
            ("m.ä*", "m.äé", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(wildcard(pattern, text), fits, "{pattern} {text}");
        }
        // Would take ages with a way back at every star.
        assert!(!wildcard(&"*a".repeat(20_000), &format!("{}b", "a".repeat(100_000))));
    }

    proptest! {
        #[test]
        fn stars_fit_as_in_the_definition(pattern in "[ab*é]{0,8}", text in "[abé]{0,8}") {
            fn fits(pattern: &[char], text: &[char]) -> bool {
                match (pattern.first(), text.first()) {
                    (None, _) => text.is_empty(),
                    (Some('*'), _) => (0..=text.len()).any(|n| fits(&pattern[1..], &text[n..])),
                    (Some(p), Some(t)) => p == t && fits(&pattern[1..], &text[1..]),
                    (Some(_), None) => false,
                }
            }
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(wildcard(&pattern, &text), fits(&chars(&pattern), &chars(&text)));
        }
    }

    #[test]
    fn room_events() {
        let plain = raw(&json!({ "body": "hi" }));
        let linked = raw(&json!({ "url": "mxc://example.org/a" }));
        for (filter, fits_plain, fits_linked) in [
            (json!({}), true, true),
            (json!({ "types": [] }), false, false),
            (json!({ "types": ["m.room.*"] }), true, true),
            (json!({ "types": ["m.room.*"], "not_types": ["*.message"] }), false, false),
            (json!({ "not_types": ["m.room.topic"] }), true, true),
            (json!({ "senders": ["@alice:example.org"] }), true, true),
            (json!({ "senders": ["@bob:example.org"] }), false, false),
            (json!({ "senders": ["@alice:example.org"], "not_senders": ["@alice:example.org"] }), false, false),
            (json!({ "rooms": ["!a:example.org"] }), true, true),
            (json!({ "rooms": [] }), false, false),
            (json!({ "not_rooms": ["!a:example.org"] }), false, false),
            (json!({ "not_rooms": ["!b:example.org"] }), true, true),
            (json!({ "contains_url": true }), false, true),
            (json!({ "contains_url": false }), true, false),
        ] {
            let parsed: RoomEventFilter = from_value(filter.clone()).expect("a filter");
            let subject = |content| Subject {
                event_type: "m.room.message",
                sender: Some(user_id!("@alice:example.org")),
                room_id: room_id!("!a:example.org"),
                content,
            };
            assert_eq!(matches_room_event(&parsed, &subject(&plain)), fits_plain, "{filter}");
            assert_eq!(matches_room_event(&parsed, &subject(&linked)), fits_linked, "{filter} with a url");
            // What has no sender is not from any of the wanted ones, nor from an unwanted one.
            let nobody = Subject { sender: None, ..subject(&linked) };
            let expected = fits_linked && parsed.senders.is_none();
            assert_eq!(matches_room_event(&parsed, &nobody), expected, "{filter} without a sender");
        }
    }

    #[test]
    fn a_sieve_keeps_back_messages_of_those_who_are_ignored() {
        let ignored = |content: Value| Arc::new(Ignored::of(Some(&content.to_string())));
        let mallory = ignored(json!({ "ignored_users": { "@mallory:example.org": {} } }));
        let event = |sender: &str, state_key: Option<&str>| {
            let mut event = json!({ "type": "m.room.message", "sender": sender, "content": {} });
            if let Some(key) = state_key {
                event["state_key"] = key.into();
            }
            event.to_string()
        };
        let room = room_id!("!a:example.org");
        let all = Sieve::new(RoomEventFilter::default(), Arc::clone(&mallory));
        let types = from_value(json!({ "types": ["m.room.topic"] })).expect("a filter");
        let topics = Sieve::new(types, mallory);
        for (sender, key, seen) in [
            ("@alice:example.org", None, true),
            ("@mallory:example.org", None, false),
            ("@mallory:example.org", Some(""), true),
        ] {
            assert_eq!(all.passes(room, &event(sender, key)).expect("an event"), seen, "{sender} {key:?}");
            assert!(!topics.passes(room, &event(sender, key)).expect("an event"), "the filter counts, too");
        }
        assert!(!all.is_open() && !all.is_shut(room));
        for odd in [json!({}), json!([]), json!({ "ignored_users": ["@mallory:example.org"] })] {
            let sieve = Sieve::new(RoomEventFilter::default(), ignored(odd));
            assert!(sieve.is_open());
        }
        for (filter, shut) in [
            (json!({ "types": [] }), true),
            (json!({ "senders": [] }), true),
            (json!({ "rooms": [] }), true),
            (json!({ "not_rooms": ["!a:example.org"] }), true),
            (json!({ "rooms": ["!a:example.org"], "types": ["m.*"] }), false),
        ] {
            let sieve = Sieve::new(from_value(filter.clone()).expect("a filter"), Arc::default());
            assert_eq!((sieve.is_shut(room), sieve.is_open()), (shut, false), "{filter}");
        }
        let limit = from_value(json!({ "limit": 3, "lazy_load_members": true })).expect("a filter");
        assert!(Sieve::new(limit, Arc::default()).is_open(), "it says how much, not what");
    }

    #[test]
    fn events_outside_of_rooms_and_rooms() {
        let alice = Some(user_id!("@alice:example.org"));
        let event = |filter: Value| matches_event(&from_value(filter).expect("a filter"), "m.presence", alice);
        assert!(event(json!({})) && event(json!({ "types": ["m.*"], "senders": ["@alice:example.org"] })));
        assert!(
            !event(json!({ "types": ["m.push_rules"] })) && !event(json!({ "not_senders": ["@alice:example.org"] }))
        );
        let room = |filter: Value| matches_room(&from_value(filter).expect("a filter"), room_id!("!a:example.org"));
        assert!(room(json!({})) && room(json!({ "rooms": ["!a:example.org"] })));
        assert!(!room(json!({ "rooms": [] })) && !room(json!({ "not_rooms": ["!a:example.org"] })));
    }

    #[test]
    fn limits_are_kept_within_reason() {
        let asked = |n: u32| limit(Some(UInt::from(n)), 10);
        assert_eq!((limit(None, 10), asked(0), asked(5), asked(1_000), asked(1_001)), (10, 1, 5, 1_000, 1_000));
    }
}
