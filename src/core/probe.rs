//! What the server makes of the words of strangers, asked with any bytes: the property tests below feed these functions,
//! and whatever fuzzes can. They panic where something is wrong.

use std::sync::Arc;

use ruma::{
    RoomVersionId,
    api::{
        IncomingRequestExt as _,
        client::{filter::FilterDefinition, sync::sync_events::v5},
    },
    exports::http,
    owned_event_id,
    push::{Action, Ruleset},
    room_id, user_id,
};
use serde_json::{Map, Value};
#[cfg(feature = "media")]
use url::Url;

#[cfg(feature = "media")]
use crate::media::{
    headers, preview,
    sniff::{self, Sniffed},
    thumbnail::{self, Bounds, Thumbnail, Wish},
};
use crate::{
    canonical,
    event::Pdu,
    filter::{self, Ignored, Sieve},
    power::Power,
    push::{Rules, Subject},
    room_version::RoomVersion,
    sliding::{self, Config, SlidingWish, StateWish},
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
    let kind = serde_json::from_str::<Value>(event).unwrap_or_default()["type"].to_string();
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

/// The parameters of a sliding sync, and in what follows their line its body.
pub fn sliding(input: &[u8]) {
    let [parameters, body] = lines(input);
    let uri = format!("/sync?{parameters}");
    let Ok(request) = http::Request::post(uri).body(body.as_bytes()) else { return };
    let Ok(whole) = serde_json::from_str::<Map<String, Value>>(body) else { return };
    let wish = || {
        let request = v5::Request::try_from_http_request(request.clone(), &[]).ok()?;
        SlidingWish::new(request, &whole, user_id!("@owner:example.org"), 0).ok()
    };
    let (Some(one), Some(other)) = (wish(), wish()) else { return };
    wanted(&one);
    // The state in the words of the proposal as it was accepted: every second element is one to be left out.
    let of_lists = one.lists.iter().map(|list| (list.name.clone(), chosen(&whole["lists"][&list.name]))).collect();
    let rooms = one.subscriptions.keys();
    let of_rooms = rooms.map(|room| (room.clone(), chosen(&whole["room_subscriptions"][room.as_str()]))).collect();
    if let Ok(merged) = other.with_states(of_lists, of_rooms) {
        wanted(&merged);
    }
}

fn chosen(wish: &Value) -> StateWish {
    let part = |pair: &Value, at: usize| pair[at].as_str().filter(|part| *part != "*").map(str::to_owned);
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    for (n, pair) in wish["required_state"].as_array().into_iter().flatten().enumerate() {
        let elements = if n % 2 == 0 { &mut include } else { &mut exclude };
        elements.push((part(pair, 0), part(pair, 1)));
    }
    StateWish { include, exclude, lazy: wish["timeline_limit"] == 20 }
}

fn wanted(wish: &SlidingWish) {
    for list in &wish.lists {
        let places = sliding::places(&list.ranges, 20);
        assert!(places.is_sorted_by(|a, b| a.1 < b.0), "each place is told once");
        for place in 0..20 {
            let shown = places.iter().any(|(start, end)| (*start..*end).contains(&place));
            let asked = list.ranges.iter().any(|(first, last)| (*first..=*last).contains(&(place as u64)));
            assert_eq!(shown, asked, "what is in a range is shown, and nothing else");
        }
    }
    let configs: Vec<&Config> =
        wish.lists.iter().map(|list| &list.config).chain(wish.subscriptions.values()).take(6).collect();
    for one in &configs {
        // What was asked of a room is written down with the connection.
        let written = serde_json::to_string(one).expect("it can be written");
        assert_eq!(serde_json::from_str::<Config>(&written).expect("what was written can be read"), **one);
        for other in &configs {
            let both = one.and(other);
            assert_eq!(both, other.and(one), "it is the same who came first");
            assert!(both.limit >= one.limit && !one.required.widens(&both.required), "both get what they want");
            for kind in ["m.room.member", "m.room.name", "m.odd"] {
                for key in ["", "@alice:example.org", "@owner:example.org"] {
                    let wants = |config: &Config| config.required.wants(kind, key);
                    assert!(!wants(one) || wants(&both), "{kind} {key}: both get what they want");
                }
            }
        }
    }
}

/// What somebody says that a file is, in the next line its name, and in what follows the file.
#[cfg(feature = "media")]
pub fn media(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (said, name) = (String::from_utf8_lossy(line()), String::from_utf8_lossy(line()));
    let file = line();
    let sniffed = sniff::sniff(file);
    let told = headers::decent_type(Some(&said));
    assert_eq!(headers::decent_type(Some(&told)), told, "what is decent is told as it is");
    let inline = headers::is_inline(&told, sniffed);
    assert!(!inline || sniffed != Sniffed::Markup, "markup is not shown");
    let disposition = headers::disposition(inline, Some(&name));
    assert_eq!(disposition.starts_with("inline"), inline);
    assert!(disposition.bytes().chain(told.bytes()).all(|b| (b' '..=b'~').contains(&b)), "both fit into a header");

    let bounds = Bounds { pixels: 1 << 13, frames: 4, total_pixels: 1 << 12, bytes: 1 << 14 };
    let mut still = None;
    for wish in Wish::all() {
        let result = thumbnail::make(file, wish, &bounds);
        assert!(result.is_err() || sniffed != Sniffed::Markup, "a browser would run what is shown as a picture");
        let is_still = result.is_ok();
        assert_eq!(*still.get_or_insert(is_still), is_still, "there are all thumbnails or none");
        if let Ok(small) = result {
            small_enough(&small, wish, file);
        }
    }
}

#[cfg(feature = "media")]
fn small_enough(small: &Thumbnail, wish: Wish, file: &[u8]) {
    let size = (small.width, small.height);
    let (width, height) = thumbnail::dimensions(file).expect("what was made small has a size");
    assert!(size.0 <= width.min(wish.width) && size.1 <= height.min(wish.height), "it got no larger");
    assert!(!small.animated || wish.animated, "nothing moves that should not");
    let sniffed = sniff::sniff(&small.bytes);
    assert_eq!(sniffed, Sniffed::Known(small.content_type), "it is what it is said to be");
    assert!(headers::is_inline(small.content_type, sniffed), "it is shown");
    assert_eq!(thumbnail::dimensions(&small.bytes), Some(size), "it is as large as it is said to be");
    let bounds = Bounds { bytes: usize::MAX, ..Bounds::default() };
    let again = thumbnail::make(&small.bytes, wish, &bounds).expect("it is a picture");
    assert_eq!((again.width, again.height, again.animated), (size.0, size.1, small.animated), "it is small enough");
}

/// What a page's server says of its letters, in the next line where it was found, and in what follows the page; which may
/// as well be its oEmbed.
#[cfg(feature = "media")]
pub fn preview_page(input: &[u8]) {
    let mut lines = input.splitn(3, |b| *b == b'\n');
    let mut text = || lines.next().map(|line| std::str::from_utf8(line).unwrap_or_default()).unwrap_or_default();
    let (charset, url) = (text(), text());
    let body = lines.next().unwrap_or_default();
    let home = || Url::parse("https://example.org/a/b?c#d").expect("a URL");
    let url = Url::parse(url).unwrap_or_else(|_| home());
    let page = preview::page(body, Some(charset), &url);
    if let Some(oembed) = page.oembed() {
        assert!(is_of_the_web(oembed), "{oembed}");
    }
    decent(&page.told(preview::oembed(body, &url)));
    decent(&preview::page(body, None, &url).told(None));
    let excerpt = preview::excerpt(body, Some(charset));
    for words in excerpt.into_iter().chain(preview::file_name(url.path())) {
        assert!(is_decent(&words), "{words}");
    }
}

#[cfg(feature = "media")]
fn decent(told: &preview::Told) {
    let written = serde_json::to_string(&told.said).expect("it can be written");
    assert!(told.said.len() <= 50 && written.len() <= 128 << 10, "what is told is small");
    for (key, value) in &told.said {
        let is_of_picture = key == "og:image" || key.starts_with("og:image:");
        assert!(key.len() <= 50 && !is_of_picture, "{key}");
        match value {
            Value::String(words) => assert!(is_decent(words), "{key}: {words}"),
            other => assert!(other.is_u64(), "{key}: {other}"),
        }
    }
    if let Some(preview::Picture { url, alt }) = &told.picture {
        assert!(is_of_the_web(url) && alt.as_deref().is_none_or(is_decent), "{url} {alt:?}");
    }
}

#[cfg(feature = "media")]
fn is_of_the_web(url: &Url) -> bool {
    let is_plain = url.username().is_empty() && url.password().is_none();
    matches!(url.scheme(), "http" | "https") && is_plain && url.as_str().len() <= preview::LONGEST_URL
}

#[cfg(feature = "media")]
fn is_decent(words: &str) -> bool {
    let shows = |c: char| c == '\n' || !c.is_control();
    !words.trim().is_empty() && words.chars().count() <= preview::LONGEST_URL && words.chars().all(shows)
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

/// The first lines, the last of them with all that follows; an absent one is empty.
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
mod tests;
