#[cfg(feature = "media")]
mod media;

use proptest::prelude::*;
use serde_json::json;

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
    prop_oneof![Just(Value::Null), prop::collection::vec(prop::sample::select(&TEXTS[..]), 0..4).prop_map(Value::from),]
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

/// What a list or a subscription wants of its rooms.
fn details() -> impl Strategy<Value = Value> {
    let kinds = ["m.room.member", "m.room.name", "*", ""];
    let keys = ["", "*", "$LAZY", "$ME", "@alice:example.org"];
    let element = (prop::sample::select(kinds.to_vec()), prop::sample::select(keys.to_vec()));
    let limit = prop::sample::select(vec![0, 1, 20, u64::from(u32::MAX), u64::MAX]);
    (prop::collection::vec(element, 0..5), limit)
        .prop_map(|(required, limit)| json!({ "required_state": required, "timeline_limit": limit }))
}

prop_compose! {
    fn sliding_list()(
        mut list in details(), ranges in prop::collection::vec((0..25u64, 0..25u64), 0..4), filters in any_json(),
        names in list(), filtered in any::<bool>(),
    ) -> Value {
        list["ranges"] = json!(ranges);
        list["filters"] = match filtered {
            true => json!({ "is_dm": true, "tags": names, "not_room_types": names, "is_invited": names }),
            false => filters,
        };
        list
    }
}

prop_compose! {
    fn sliding_body()(
        lists in prop::collection::vec(sliding_list(), 0..3), wanted in details(), odd in any_json(), rooms in list(),
        shape in 0..5,
    ) -> Value {
        let lists: Map<String, Value> =
            lists.into_iter().enumerate().map(|(n, list)| (n.to_string(), list)).collect();
        let scope = json!({ "enabled": true, "lists": ["*"], "rooms": rooms });
        let mut body = json!({
            "conn_id": "main", "lists": lists, "room_subscriptions": { "!room:example.org": wanted },
            "extensions": { "to_device": { "enabled": true, "since": "s1_1_1_1" }, "typing": scope },
        });
        match shape {
            0 => body["extensions"]["to_device"] = odd,
            1 => body["lists"]["odd"] = odd,
            2 => body["conn_id"] = odd,
            3 => body = odd,
            _ => {}
        }
        body
    }
}

/// Pieces of pages, of which some belong together.
const PIECES: [&str; 40] = [
    "<!doctype html>",
    "<html><head>",
    "</head><body>",
    "<meta charset=",
    "shift_jis",
    "utf-16",
    "<meta property=\"og:title\" content=\"",
    "<meta name=twitter:image content=",
    "<meta property='og:image' content='",
    "<meta property=og:video:width content=",
    "<meta property=og:url content=",
    "<meta name=description itemprop=image content=\"",
    "<link rel=alternate type=application/json+oembed href=\"",
    "<base href=\"",
    "<title>",
    "</title>",
    "<img src=",
    " width=640 height=\"480px\"",
    "data:image/png;base64,AA",
    "javascript:alert(1)",
    "//other.example/a.png",
    "../a?b=c&amp;d",
    "https://a:b@example.org/",
    "https://[::1]:99999/",
    "<svg><title>",
    "<nav>",
    "</nav>",
    "<p hidden=",
    "<script>\"</p>",
    "<!-- ",
    "-->",
    "<![CDATA[",
    "&#x1f30d;&#0;&#xd800;&nbsp",
    "&amp;&eacute;&unknown;&",
    "\u{202e}\u{0}\u{feff}\u{ad}",
    "日本",
    "\">",
    "'>",
    "\n \t",
    "{\"type\":\"rich\",\"title\":\"a&amp;b\",\"html\":\"<p>x</p><img src=/a>\",\"author_name\":\"\\u0000\"}",
];

/// A page of such pieces, of which one may come up very often.
fn page() -> impl Strategy<Value = String> {
    let piece = || prop::sample::select(&PIECES[..]).prop_map(str::to_owned);
    let attributes =
        prop::collection::vec("[a-z\"'= <>/&;]{0,6}", 0..9).prop_map(|names| format!("<p {}>", names.join(" ")));
    let words = prop_oneof![4 => piece(), 1 => attributes, 1 => ".{0,12}"];
    (prop::collection::vec(words, 0..16), piece(), prop_oneof![9 => 0..3_usize, 1 => 0..2_000_usize], any::<bool>())
        .prop_map(|(mut words, piece, times, ahead)| {
            let at = if ahead { 0 } else { words.len() };
            words.insert(at, piece.repeat(times));
            words.concat()
        })
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
    fn sliding_syncs_take_anything(
        input in ("(pos=[sp]1_[0-9]{1,3}_[0-9a-f]{1,3})?(&timeout=[0-9]{1,25})?(&set_presence=[a-z]{0,7})?", sliding_body())
            .prop_flat_map(|(parameters, body)| spoilt(format!("{parameters}\n{body}")))
    ) {
        sliding(&input);
    }

    #[test]
    fn previews_take_anything(
        input in (prop::sample::select(vec!["", "utf-8", "shift_jis", "iso-2022-jp", "utf-16le", "x"]),
            prop::sample::select(vec!["", "https://example.org/a", "http://[::1]/", "data:,x", "mailto:a@b", "https://x/%00%ff"]),
            page()).prop_flat_map(|(charset, url, page)| spoilt(format!("{charset}\n{url}\n{page}")))
    ) {
        preview_page(&input);
    }

    #[test]
    fn tokens_take_anything(
        input in "[st]1(_-?[0-9]{1,20}){0,4}(_[td]?[0-9a-f]{0,9}){0,3}".prop_flat_map(spoilt)
    ) {
        token(&input);
    }
}

/// Numbers beyond all bounds, and more levels than a parser follows: both are JSON of a kind, and both have stopped others
/// who evaluate push rules.
#[test]
fn what_has_stopped_others_is_taken() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for odd in [r#"{"a":1e999}"#, &format!(r#"{{"a":{deep}}}"#)] {
        let event = format!(
            r#"{{"type":"m.room.message","sender":"@alice:example.org","content":{odd},"origin_server_ts":1,"depth":1,
                "prev_events":[],"auth_events":[]}}"#
        )
        .replace('\n', "");
        let rule =
            json!({ "rule_id": "a", "default": false, "enabled": true, "actions": ["notify"], "conditions": [] });
        push_rules(format!("{}\n{event}\n{odd}", json!({ "override": [rule] })).as_bytes());
        push_rules(format!("{odd}\n{event}").as_bytes());
        filter(format!("{}\n{event}", json!({ "room": { "timeline": { "types": ["*"] } } })).as_bytes());
        filter(format!("{odd}\n{event}").as_bytes());
        sliding(format!("timeout=1e999\n{odd}").as_bytes());
    }
}

#[test]
fn a_tag_may_be_called_almost_like_a_picture() {
    preview_page(b"\n\n<meta property=og:imagery content=x><meta property=og:image:x content=x>");
}

/// Levels and attributes beyond all bounds: both have stopped others who look at pages.
#[test]
fn cve_2022_31052_pages_that_have_stopped_others_are_taken() {
    for piece in ["<div>", "<svg><g>", "<table><tr><td>", "<nav>", "<a b=", "<p a a a a ", "<!--", "&", "&#", "<title>"]
    {
        preview_page(format!("\n\n{}", piece.repeat(20_000)).as_bytes());
    }
    preview_page(format!("\n\n{}1{}", "[".repeat(20_000), "]".repeat(20_000)).as_bytes());
}
