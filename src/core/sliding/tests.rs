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
            assert_eq!((both.wants("m.room.create", ""), both.wants("m.room.name", "x")), (create, name), "{both:?}");
        }
    }
    assert!(all.widens(&but_create) && !but_create.widens(&all) && !but_create.widens(&but_create));
    assert!(!names.widens(&but_create) && but_create.widens(&but_all));
}

#[test]
fn what_is_named_and_left_out_is_no_news() {
    let all = [(None, None), (None, Some("@x:x".to_owned())), (Some(MEMBER.to_owned()), None)];
    for named in [element(MEMBER, "@x:x"), element(MEMBER, "*"), element("m.room.name", "@x:x")] {
        for left_out in &all {
            let required = Required::chosen(&[named.clone()], std::slice::from_ref(left_out), false);
            assert!(!required.widens(&required), "{named:?} without {left_out:?}");
        }
    }
}

#[test]
fn who_is_wanted_by_a_key_of_any_type_stays_wanted() {
    let by_key = required(&[(ANY, "@x:x")]);
    let lazy = required(&[(ANY, ANY), (MEMBER, LAZY)]);
    let both = by_key.and(&lazy);
    assert!(both.wants(MEMBER, "@x:x") && !both.wants(MEMBER, "@y:x") && both.is_lazy());
    assert_eq!(lazy.and(&by_key), both);
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
