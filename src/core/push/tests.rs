use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use ruma::{
    OwnedUserId, RoomVersionId, UserId, event_id,
    events::{TimelineEventType, room::power_levels::RoomPowerLevels},
    push::{PushConditionRoomCtx, Ruleset},
    room_id,
    serde::Raw,
    uint, user_id,
};
use serde_json::{Value, json};

use super::*;
use crate::{event::Pdu, power::Power, room_version::RoomVersion, testing::fake};

fn parsed(event_type: &str, state_key: Option<&str>, content: &Value) -> Pdu {
    let mut event = json!({
        "type": event_type, "sender": "@alice:x", "content": content, "origin_server_ts": 1, "prev_events": [],
        "auth_events": [], "depth": 1,
    });
    if let Some(key) = state_key {
        event["state_key"] = key.into();
    }
    let version = RoomVersion::get(&RoomVersionId::V11).expect("a version that is held");
    let (id, room) = (event_id!("$event").to_owned(), room_id!("!room:x"));
    Pdu::parse(event.to_string().into(), id, room.to_owned(), version).expect("an event")
}

fn subject(event_type: &str, state_key: Option<&str>, content: &Value) -> Subject {
    Subject::new(&parsed(event_type, state_key, content), room_id!("!room:x"), 3).expect("looked at")
}

fn message(content: &Value) -> Subject {
    let mut all = json!({ "msgtype": "m.text", "body": "hello" });
    for (key, value) in content.as_object().expect("an object") {
        all[key] = value.clone();
    }
    subject("m.room.message", None, &all)
}

const NOTIFY: Counts = Counts { notify: 1, highlight: 0 };
const BOTH: Counts = Counts { notify: 1, highlight: 1 };

#[test]
fn by_default_messages_notify_and_mentions_highlight() {
    let cases = [
        (message(&json!({})), NOTIFY, BOTH),
        (message(&json!({ "msgtype": "m.notice" })), Counts::NONE, Counts::NONE),
        (message(&json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" } })), Counts::NONE, BOTH),
        (subject("m.room.encrypted", None, &json!({ "ciphertext": "…" })), NOTIFY, BOTH),
        (subject("m.reaction", None, &json!({ "m.relates_to": { "rel_type": "m.annotation" } })), Counts::NONE, BOTH),
        (subject("m.room.topic", Some(""), &json!({ "topic": "t" })), Counts::NONE, BOTH),
        (subject("m.room.tombstone", Some(""), &json!({ "body": "t" })), BOTH, BOTH),
        (subject("m.room.member", Some("@bob:x"), &json!({ "membership": "join" })), Counts::NONE, Counts::NONE),
        (subject("m.room.member", Some("@bob:x"), &json!({ "membership": "invite" })), Counts::NONE, Counts::NONE),
        (subject("org.example.custom", None, &json!({})), Counts::NONE, BOTH),
    ];
    for (i, (subject, nobody, mentioned)) in cases.into_iter().enumerate() {
        assert_eq!(subject.by_default(), nobody, "case {i}");
        assert_eq!(subject.by_default_if(Concern::mention()), mentioned, "case {i}");
    }
}

/// What the crate makes of an event that these rules come from, for one user at a time.
fn asked_singly(rules: &Ruleset, event: &Value, (user, name): (&UserId, &str), power: Option<&Value>) -> Counts {
    let mut room =
        PushConditionRoomCtx::new(room_id!("!room:x").to_owned(), uint!(3), user.to_owned(), name.to_owned());
    if let Some(levels) = power {
        let content: ruma::events::room::power_levels::RoomPowerLevelsEventContent =
            serde_json::from_value(levels.clone()).expect("levels");
        let version = RoomVersion::get(&RoomVersionId::V11).expect("a version that is held");
        room.power_levels = Some(RoomPowerLevels::new(content.into(), &version.rules.authorization, []).into());
    }
    let raw = Raw::new(event).expect("json");
    let found = pin!(rules.get_match(&raw, &room));
    let Poll::Ready(found) = found.poll(&mut Context::from_waker(Waker::noop())) else { panic!("it waits") };
    found.map_or(Counts::NONE, |rule| Counts {
        notify: i64::from(rule.triggers_notification()),
        highlight: i64::from(rule.triggers_notification() && rule.triggers_highlight()),
    })
}

/// The few questions are what each member's own rules would have said.
#[test]
fn one_judgement_stands_for_all() {
    let contents = [
        json!({}),
        json!({ "m.mentions": {} }),
        json!({ "m.mentions": { "user_ids": ["@bob:x"] } }),
        json!({ "m.mentions": { "user_ids": ["@bob:x", 7, "nonsense", "@:nobody.invalid"], "room": true } }),
        json!({ "m.mentions": { "user_ids": "@bob:x" } }),
        json!({ "body": "BOB: hello" }),
        json!({ "body": "hello, master builder!" }),
        json!({ "body": "hello, master builder!", "m.relates_to": { "rel_type": "m.replace" } }),
        json!({ "body": "carol and bob", "m.relates_to": { "rel_type": "m.replace" } }),
        json!({ "body": "kebob", "msgtype": "m.notice" }),
        json!({ "body": "@room bob", "msgtype": "m.notice" }),
        json!({ "body": "@room bob", "m.mentions": {} }),
        json!({ "m.mentions": { "user_ids": ["@bob:x"] }, "msgtype": "m.notice" }),
        json!({ "m.mentions": { "user_ids": ["@bob:x"] }, "m.relates_to": { "rel_type": "m.replace" } }),
        json!({ "m.relates_to": { "rel_type": "m.replace" }, "m.new_content": { "body": "bob" } }),
    ];
    for content in contents {
        for kind in ["m.room.message", "m.room.encrypted", "m.reaction", "m.call.invite", "org.example"] {
            let subject = subject(kind, None, &content);
            let mentioned = subject.mentioned();
            let mut names = Names::default();
            let members = [("@bob:x", "Master Builder"), ("@carol:x", "Carol")];
            for (member, name) in members {
                names.set(<&UserId>::try_from(member).expect("a user id"), Some(name));
            }
            let called = subject.text().map(|text| names.called_in(text)).unwrap_or_default();
            for (member, name) in members {
                let member = OwnedUserId::try_from(member).expect("a user id");
                let told = match called.iter().find(|(user, _)| *user == member) {
                    Some((_, by)) => subject.by_default_if(Concern::call(*by)),
                    None if mentioned.contains(&member) => subject.by_default_if(Concern::mention()),
                    None => subject.by_default(),
                };
                assert_eq!(names.display_name(&member), Some(&*name.to_lowercase()));
                let event = json!({ "type": kind, "sender": "@alice:x", "content": content });
                let alone = asked_singly(&default_rules(&member), &event, (&member, name), None);
                assert_eq!(told, alone, "{kind} {content} for {name}");
                assert_eq!(told, subject.by_default_if(subject.concern(&member, Some(name))));
            }
        }
    }
}

fn power(levels: &Value) -> Power {
    let version = RoomVersion::get(&RoomVersionId::V11).expect("a version that is held");
    let create = fake(TimelineEventType::RoomCreate, "creator", Some(""), &json!({ "room_version": "11" }));
    let levels = fake(TimelineEventType::RoomPowerLevels, "creator", Some(""), levels);
    Power::new(version, &create, Some(&levels)).expect("power")
}

#[test]
fn the_whole_room_is_mentioned_by_those_who_may() {
    let power = |level: i32| power(&json!({ "users": { "@alice:x": level } }));
    let asks = |subject: &Subject| Rules::untouched().asks_for_power(subject);
    let mut subject = message(&json!({ "m.mentions": { "room": true } }));
    assert!(asks(&subject));
    assert_eq!(subject.by_default(), NOTIFY, "without power");
    subject.set_power(power(49));
    assert_eq!(subject.by_default(), NOTIFY, "with too little");
    subject.set_power(power(50));
    assert_eq!(subject.by_default(), BOTH);
    assert!(!asks(&message(&json!({ "m.mentions": { "room": "true" } }))));
    assert!(asks(&message(&json!({ "body": "hear, @room!" }))));
    assert!(!asks(&message(&json!({ "body": "hear, @room!", "m.mentions": {} }))));
}

/// Nothing that comes in as JSON stops the server.
#[test]
fn what_is_no_canonical_json_is_refused() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for odd in [r#"{"a":1e999}"#, &format!(r#"{{"a":{deep}}}"#)] {
        let mut pdu = parsed("m.room.message", None, &json!({}));
        pdu.content = serde_json::value::RawValue::from_string(odd.to_owned()).expect("JSON of a kind");
        assert!(Subject::new(&pdu, room_id!("!room:x"), 3).is_err(), "{odd}");
    }
}

#[test]
fn an_event_is_in_a_thread_or_where_that_is_which_it_belongs_to() {
    let root = || event_id!("$root").to_owned();
    let relates = |to: Value| message(&json!({ "m.relates_to": to })).place().clone();
    assert_eq!(message(&json!({})).place(), &Place::Main);
    assert_eq!(relates(json!({ "rel_type": "m.thread", "event_id": "$root" })), Place::Thread(root()));
    assert_eq!(relates(json!({ "rel_type": "m.annotation", "event_id": "$root", "key": "+" })), Place::With(root()));
    assert_eq!(relates(json!({ "m.in_reply_to": { "event_id": "$root" } })), Place::Main);
    for odd in [
        json!(null),
        json!("$root"),
        json!({ "rel_type": "m.thread" }),
        json!({ "rel_type": "m.thread", "event_id": 7 }),
    ] {
        assert_eq!(relates(odd), Place::Main);
    }
    assert_eq!(relates(json!({ "rel_type": "m.thread", "event_id": "$\0" })), Place::Main);
    let state = json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": "$root" } });
    assert_eq!(subject("m.room.topic", Some(""), &state).place(), &Place::Main);
}

fn ruleset(rules: Value) -> Ruleset {
    let mut all: Ruleset = serde_json::from_value(rules).expect("rules");
    all.update_with_server_default(default_rules(user_id!("@bob:x")));
    all
}

fn rule(id: &str, actions: &Value) -> Value {
    json!({ "rule_id": id, "default": false, "enabled": true, "actions": actions })
}

fn with_conditions(id: &str, actions: &Value, conditions: Value) -> Value {
    let mut rule = rule(id, actions);
    rule["conditions"] = conditions;
    rule
}

fn bobs(rules: &Ruleset) -> Rules {
    Rules::of(user_id!("@bob:x"), rules)
}

#[test]
fn who_has_the_same_rules_in_a_room_is_of_one_class() {
    let in_room = |room: &str| json!([{ "kind": "event_match", "key": "room_id", "pattern": room }]);
    let quiet = |room: &str| with_conditions(room, &json!([]), in_room(room));
    let word =
        json!({ "rule_id": "cake", "pattern": "cake", "default": false, "enabled": true, "actions": ["notify"] });
    let untouched = bobs(&default_rules(user_id!("@bob:x"))).classes();
    assert_eq!(untouched, Classes::default());
    assert_eq!(bobs(&ruleset(json!({ "content": [word] }))).classes(), untouched, "a keyword is a matter of one's own");

    let one = bobs(&ruleset(json!({ "override": [quiet("!a:x")] }))).classes();
    let two = ruleset(
        json!({ "override": [quiet("!b:x"), quiet("!a:x")], "content": [word], "room": [rule("!a:x", &json!(["notify"]))] }),
    );
    let two = bobs(&two).classes();
    assert_eq!(one.elsewhere, DEFAULT_CLASS);
    assert_eq!(two.elsewhere, DEFAULT_CLASS);
    assert_eq!(one.rooms["!a:x"], two.rooms["!a:x"], "both are told nothing");
    assert_eq!(two.rooms["!a:x"], two.rooms["!b:x"]);
    assert_ne!(two.rooms["!a:x"], DEFAULT_CLASS);

    let mentions = bobs(&ruleset(json!({ "room": [rule("!a:x", &json!([]))] }))).classes();
    assert_ne!(mentions.rooms["!a:x"], one.rooms["!a:x"], "the whole room may still be mentioned");
    let mut master = default_rules(user_id!("@bob:x"));
    master.set_enabled(ruma::push::RuleKind::Override, ".m.rule.master", true).expect("there is one");
    assert_eq!(bobs(&master).classes(), Classes { elsewhere: one.rooms["!a:x"].clone(), rooms: [].into() });
    // Whose rules they are makes no difference.
    let carol = user_id!("@carol:x");
    let mut hers: Ruleset = serde_json::from_value(json!({ "room": [rule("!a:x", &json!([]))] })).expect("rules");
    hers.update_with_server_default(default_rules(carol));
    assert_eq!(Rules::of(carol, &hers).classes(), mentions);
    // A rule that is off is none, and so is one that nobody understands.
    let mut off = quiet("!a:x");
    off["enabled"] = false.into();
    let unknown = with_conditions("new", &json!(["notify"]), json!([{ "kind": "org.example.new", "x": 1 }]));
    assert_eq!(bobs(&ruleset(json!({ "override": [off, unknown] }))).classes(), untouched);
}

#[test]
fn actions_are_those_of_the_first_rule_that_applies() {
    let sound =
        json!(["notify", { "set_tweak": "sound", "value": "bell" }, { "set_tweak": "org.example", "value": 7 }]);
    let rules = bobs(&ruleset(json!({ "content": [
        { "rule_id": "cake", "pattern": "c?ke", "default": false, "enabled": true, "actions": sound },
    ] })));
    let told = |subject: &Subject, user: &UserId| json!(rules.actions(subject, user, None));
    let (bob, alice) = (user_id!("@bob:x"), user_id!("@alice:x"));
    assert_eq!(told(&message(&json!({ "body": "Cake!" })), bob), sound);
    assert_eq!(told(&message(&json!({ "body": "cakes" })), bob), json!(["notify"]));
    assert_eq!(told(&message(&json!({ "body": "Cake!" })), alice), json!([]), "nobody is told of their own");
    assert_eq!(told(&message(&json!({ "body": "Cake!", "msgtype": "m.notice" })), bob), json!([]));
    assert!(rules.listens() && !Rules::untouched().listens());
}

fn condition() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "content.body",
        "room_id",
        "sender",
        "state_key",
        "type",
        "content.k",
        r"content.m\.k",
        "none",
    ]);
    let pattern = prop::sample::select(vec![
        "cake",
        "c*e",
        "!room:x",
        "!other:x",
        "@alice:x",
        "@bob:x",
        "m.room.*",
        "",
        "*",
        "hello cake",
    ]);
    let scalar =
        prop::sample::select(vec![json!(1), json!("1"), json!(true), json!(null), json!("@bob:x"), json!("@alice:x")]);
    let list = prop::sample::select(vec!["content.l", r"content.m\.mentions.user_ids", "content.k"]);
    prop_oneof![
        4 => (key.clone(), pattern).prop_map(|(key, pattern)| json!({ "kind": "event_match", "key": key, "pattern": pattern })),
        1 => (key, scalar.clone()).prop_map(|(key, value)| json!({ "kind": "event_property_is", "key": key, "value": value })),
        2 => (list, scalar).prop_map(|(key, value)| json!({ "kind": "event_property_contains", "key": key, "value": value })),
        1 => prop::sample::select(vec!["3", "<3", ">=2", "==4"]).prop_map(|is| json!({ "kind": "room_member_count", "is": is })),
        1 => Just(json!({ "kind": "contains_display_name" })),
        1 => Just(json!({ "kind": "sender_notification_permission", "key": "room" })),
        1 => Just(json!({ "kind": "org.example.unheard_of" })),
    ]
}

fn actions() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!([]),
        json!(["notify"]),
        json!(["notify", { "set_tweak": "highlight" }]),
        json!([{ "set_tweak": "highlight" }]),
    ])
}

prop_compose! {
    fn rules()(
        over in prop::collection::vec((actions(), prop::collection::vec(condition(), 0..3)), 0..3),
        under in prop::collection::vec((actions(), prop::collection::vec(condition(), 0..3)), 0..2),
        words in prop::collection::vec((actions(), prop::sample::select(vec!["cake", "h?llo", "*", "bob", "cak"])), 0..2),
        rooms in prop::collection::vec((actions(), prop::sample::select(vec!["!room:x", "!other:x"])), 0..2),
        senders in prop::collection::vec((actions(), prop::sample::select(vec!["@alice:x", "@bob:x"])), 0..2),
        off in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        changed in prop::collection::vec((any::<prop::sample::Index>(), actions()), 0..2),
    ) -> Ruleset {
        let conditional = |rules: Vec<(Value, Vec<Value>)>| -> Vec<Value> {
            let rules = rules.into_iter().enumerate();
            rules.map(|(n, (actions, conditions))| with_conditions(&n.to_string(), &actions, json!(conditions))).collect()
        };
        let simple = |rules: Vec<(Value, &str)>| -> Vec<Value> { rules.iter().map(|(a, id)| rule(id, a)).collect() };
        let mut content = Vec::new();
        for (actions, pattern) in words {
            let mut rule = rule(pattern, &actions);
            rule["pattern"] = pattern.into();
            content.push(rule);
        }
        let mut rules = ruleset(json!({
            "override": conditional(over), "underride": conditional(under), "content": content, "room": simple(rooms),
            "sender": simple(senders),
        }));
        let ids: Vec<_> = rules.iter().map(|rule| {
            let rule = rule.to_owned();
            let kind = match &rule {
                ruma::push::AnyPushRule::Override(_) => ruma::push::RuleKind::Override,
                ruma::push::AnyPushRule::Content(_) => ruma::push::RuleKind::Content,
                ruma::push::AnyPushRule::Room(_) => ruma::push::RuleKind::Room,
                ruma::push::AnyPushRule::Sender(_) => ruma::push::RuleKind::Sender,
                _ => ruma::push::RuleKind::Underride,
            };
            (kind, rule.rule_id().to_owned())
        }).collect();
        for index in off {
            let (kind, id) = index.get(&ids);
            let enabled = rules.get(kind.clone(), id).expect("a rule").enabled();
            rules.set_enabled(kind.clone(), id, !enabled).expect("a rule");
        }
        for (index, actions) in changed {
            let (kind, id) = index.get(&ids);
            rules.set_actions(kind.clone(), id, serde_json::from_value(actions).expect("actions")).expect("a rule");
        }
        rules
    }
}

prop_compose! {
    fn event()(
        kind in prop::sample::select(vec!["m.room.message", "m.room.encrypted", "m.room.member", "m.reaction", "x"]),
        state_key in prop::sample::select(vec![None, Some(""), Some("@bob:x")]),
        body in prop::sample::select(vec![json!("hello cake"), json!("Bob, cakes"), json!("big b!"), json!("@room"), json!(7), json!("")]),
        mentions in prop::sample::select(vec![None, Some(json!({})), Some(json!({ "user_ids": ["@bob:x"] })), Some(json!({ "room": true }))]),
        odd in prop::sample::select(vec![json!(1), json!("1"), json!("cake"), json!([1, "@bob:x"]), json!({ "": {} }), json!(null)]),
        mighty: bool,
    ) -> (Value, bool) {
        let mut event = json!({ "type": kind, "sender": "@alice:x", "room_id": "!room:x", "content": {
            "body": body, "k": odd, "l": odd, "m.k": odd, "membership": "invite",
        } });
        if let Some(mentions) = mentions {
            event["content"]["m.mentions"] = mentions;
        }
        if let Some(key) = state_key {
            event["state_key"] = key.into();
        }
        (event, mighty)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What rules are made into says what they say, in a room as anywhere, to somebody as to all.
    #[test]
    fn ready_rules_say_what_the_rules_say(rules in rules(), (event, mighty) in event()) {
        let (bob, name) = (user_id!("@bob:x"), "Big B");
        let levels = json!({ "users": { "@alice:x": if mighty { 50 } else { 49 } } });
        let expected = asked_singly(&rules, &event, (bob, name), Some(&levels));
        let ready = bobs(&rules);
        let mut subject = subject(
            event["type"].as_str().expect("a type"), event["state_key"].as_str(), &event["content"],
        );
        let concern = subject.concern(bob, Some(name));
        if ready.asks_for_power(&subject) {
            subject.set_power(power(&levels));
        }
        prop_assert_eq!(ready.counts(&subject, concern), expected, "{} by {}", event, json!(rules));
        let here = ready.within(Some(room_id!("!room:x")));
        prop_assert_eq!(here.counts(&subject, concern), expected);
        if concern == Concern::default() && !here.listens() {
            prop_assert_eq!(here.counts_for_all(&subject), expected);
        }
        // Whoever is of the default class is told what all are.
        let classes = ready.classes();
        for room in [room_id!("!room:x"), room_id!("!other:x"), room_id!("!another:x")] {
            let class = ready.within(Some(room)).class();
            prop_assert_eq!(classes.rooms.get(room.as_str()).unwrap_or(&classes.elsewhere), &class);
        }
        let class = classes.rooms.get("!room:x").unwrap_or(&classes.elsewhere);
        if class == DEFAULT_CLASS {
            subject.set_power(power(&levels));
            prop_assert_eq!(here.counts_for_all(&subject), subject.by_default());
        }
    }
}
