//! Which events a client's filter lets through.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use ruma::{
    RoomId, UInt, UserId,
    api::client::filter::{Filter, RoomEventFilter, RoomFilter, UrlFilter},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::MAX_PAGE;

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
