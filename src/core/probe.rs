//! What the server makes of the words of strangers, asked with any bytes: the property tests below feed these functions,
//! and whatever fuzzes can. They panic where something is wrong.

use std::sync::Arc;

use ruma::{
    RoomVersionId,
    api::client::filter::FilterDefinition,
    owned_event_id,
    push::{Action, Ruleset},
    room_id, user_id,
};

use crate::{
    canonical,
    event::Pdu,
    filter::{self, Ignored, Sieve},
    power::Power,
    push::{Rules, Subject},
    room_version::RoomVersion,
    token::{SyncToken, TimelineToken, Token},
};

/// An event filter, and in the next line an event that it is asked about.
pub fn filter(input: &[u8]) {
    let [definition, event] = lines(input);
    let Ok(filter) = serde_json::from_str::<FilterDefinition>(definition) else { return };
    // A stored filter is written and read again.
    let written = serde_json::to_string(&filter).expect("a filter can be written");
    let again = serde_json::from_str::<FilterDefinition>(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_string(&again).expect("as before"), written);

    let room = room_id!("!room:example.org");
    filter::matches_room(&filter.room, room);
    let kind = serde_json::from_str::<serde_json::Value>(event).unwrap_or_default()["type"].to_string();
    filter::matches_event(&filter.account_data, &kind, None);
    filter::matches_type(&filter.room.account_data, room, &kind);
    let passes = filter::passes(&filter.room.timeline, room, event);
    let ignored = Ignored::of(Some(event));
    let nobody = Sieve::new(filter.room.timeline.clone(), Arc::default());
    let some = Sieve::new(filter.room.timeline, Arc::new(ignored));
    if let (Ok(passes), Ok(by_itself)) = (passes, nobody.passes(room, event)) {
        assert_eq!(by_itself, passes, "who ignores nobody sees what the filter lets through");
        assert!(passes || !some.passes(room, event).unwrap_or(false), "to ignore somebody shows nothing more");
        assert!(passes || !nobody.is_open(), "what lets all through lets this through");
        assert!(!passes || !nobody.is_shut(room), "what lets nothing through lets not this through");
    }
}

/// A rule set, in the next line an event, and in a third the content of power levels.
pub fn push_rules(input: &[u8]) {
    let [rules, event, levels] = lines(input);
    let Ok(rules) = serde_json::from_str::<Ruleset>(rules) else { return };
    let owner = user_id!("@owner:example.org");
    let ready = Rules::of(owner, &rules);
    ready.classes();
    let Some(pdu) = stored(event) else { return };
    let Ok(mut subject) = Subject::new(&pdu, &pdu.room_id, 3) else { return };
    let concern = subject.concern(owner, Some("The owner"));
    let here = ready.within(Some(&pdu.room_id));
    if let Some(power) = power(levels) {
        subject.set_power(power);
    }
    assert_eq!(
        here.counts(&subject, concern),
        ready.counts(&subject, concern),
        "rules of other rooms say nothing here"
    );
    let notifies = ready.actions(&subject, owner, Some("The owner")).iter().any(Action::should_notify);
    let counts = ready.counts(&subject, concern).notify > 0 && !subject.is_by(owner);
    assert_eq!(notifies, counts, "what notifies counts, and nobody is told of their own");
}

/// A token of a sync or of a timeline.
pub fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(token) = text.parse::<Token>() else {
        assert!(text.parse::<SyncToken>().is_err(), "a token of a sync is a token");
        return;
    };
    assert_eq!(token.to_string(), text, "what we read is what we write");
    let TimelineToken { topo, minor } = token.boundary();
    TimelineToken::after(topo, minor);
}

/// Who may do what in a room of these levels.
fn power(levels: &str) -> Option<Power> {
    let event = |kind: &str, content: &str| {
        stored(&format!(
            r#"{{"type":"{kind}","state_key":"","sender":"@alice:example.org","content":{content},"origin_server_ts":1,
                "depth":1,"prev_events":[],"auth_events":[]}}"#
        ))
    };
    let version = RoomVersion::get(&RoomVersionId::V11)?;
    Power::new(version, &event("m.room.create", "{}")?, Some(&event("m.room.power_levels", levels)?)).ok()
}

/// The first lines; an absent one is empty.
fn lines<const N: usize>(input: &[u8]) -> [&str; N] {
    let mut lines = std::str::from_utf8(input).unwrap_or_default().splitn(N, '\n');
    std::array::from_fn(|_| lines.next().unwrap_or_default())
}

/// An event as it would be read from the database: canonical JSON with all that every event has.
fn stored(json: &str) -> Option<Pdu> {
    let object = canonical::parse_object(json).ok()?;
    let json = serde_json::to_string(&object).ok()?;
    let room = room_id!("!room:example.org").to_owned();
    let version = RoomVersion::get(&RoomVersionId::V11)?;
    Pdu::parse(json.into(), owned_event_id!("$event"), room, version).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Words that mean something to filters and rules, and some that don't.
    const KEYS: [&str; 32] = [
        "room",
        "timeline",
        "state",
        "types",
        "not_types",
        "senders",
        "not_senders",
        "rooms",
        "not_rooms",
        "limit",
        "contains_url",
        "lazy_load_members",
        "presence",
        "account_data",
        "event_format",
        "override",
        "content",
        "sender",
        "underride",
        "conditions",
        "kind",
        "key",
        "pattern",
        "value",
        "is",
        "actions",
        "rule_id",
        "enabled",
        "default",
        "body",
        "m.mentions",
        "",
    ];
    const TEXTS: [&str; 20] = [
        "m.room.message",
        "m.room.*",
        "*",
        "@owner:example.org",
        "!room:example.org",
        "event_match",
        "notify",
        "event_property_is",
        "event_property_contains",
        "contains_display_name",
        "room_member_count",
        "==2",
        ">",
        "url",
        "sender_notification_permission",
        "content.body",
        r"content.m\.mentions.user_ids",
        r"\\.",
        "?*ä",
        "",
    ];

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop::sample::select(&TEXTS[..]).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            let key = prop::sample::select(&KEYS[..]).prop_map(str::to_owned);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..6).prop_map(|all| all.into_iter().collect()),
            ]
        })
    }

    fn list() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            prop::collection::vec(prop::sample::select(&TEXTS[..]), 0..4).prop_map(Value::from),
        ]
    }

    prop_compose! {
        fn room_events()(types in list(), not_types in list(), senders in list(), rooms in list(), url in any::<Option<bool>>()) -> Value {
            let mut filter = json!({});
            for (key, value) in
                [("types", types), ("not_types", not_types), ("senders", senders), ("rooms", rooms), ("contains_url", url.into())]
            {
                if !value.is_null() {
                    filter[key] = value;
                }
            }
            filter
        }
    }

    prop_compose! {
        fn rule()(
            key in prop::sample::select(&TEXTS[..]), pattern in prop::sample::select(&TEXTS[..]), odd in any_json(),
            kind in prop::sample::select(&TEXTS[..]), shape in 0..4,
        ) -> Value {
            let mut rule = json!({ "rule_id": pattern, "default": false, "enabled": true, "actions": ["notify"] });
            match shape {
                0 => rule["pattern"] = pattern.into(),
                1 => rule["conditions"] = json!([{ "kind": kind, "key": key, "pattern": pattern, "value": pattern, "is": key }]),
                2 => rule["conditions"] = json!([{ "kind": kind, "key": key, "value": odd }]),
                _ => rule["conditions"] = odd,
            }
            rule
        }
    }

    prop_compose! {
        fn event()(content in any_json(), kind in prop::sample::select(&TEXTS[..]), whole in any::<bool>(), odd in any_json()) -> Value {
            if !whole {
                return odd;
            }
            json!({
                "type": kind, "sender": "@alice:example.org", "content": content, "origin_server_ts": 1, "depth": 1,
                "prev_events": [], "auth_events": [],
            })
        }
    }

    /// As it is, or with a byte of it changed.
    fn spoilt(text: String) -> impl Strategy<Value = Vec<u8>> {
        let bytes = text.into_bytes();
        let at = 0..bytes.len().max(1);
        (prop::option::weighted(0.2, (at, any::<u8>()))).prop_map(move |change| {
            let mut bytes = bytes.clone();
            if let Some((at, byte)) = change
                && let Some(old) = bytes.get_mut(at)
            {
                *old = byte;
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn filters_take_anything(
            input in (prop_oneof![any_json(), room_events().prop_map(|f| json!({ "room": { "timeline": f } }))], event())
                .prop_flat_map(|(filter, event)| spoilt(format!("{filter}\n{event}")))
        ) {
            filter(&input);
        }

        #[test]
        fn push_rules_take_anything(
            input in (prop::collection::vec(rule(), 0..3), event(), any_json()).prop_flat_map(|(rules, event, levels)| {
                let (content, other): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| rule["pattern"].is_string());
                spoilt(format!("{}\n{event}\n{levels}", json!({ "content": content, "override": other, "underride": other })))
            })
        ) {
            push_rules(&input);
        }

        #[test]
        fn tokens_take_anything(
            input in "[st]1(_-?[0-9]{1,20}){0,4}(_[td]?[0-9a-f]{0,9}){0,3}".prop_flat_map(spoilt)
        ) {
            token(&input);
        }
    }
}
