use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<(String, String), i64>;
type Loaded = HashMap<NodeHash, Arc<Node>>;

fn entries(model: &Model) -> Vec<(&str, &str, i64)> {
    model.iter().map(|((t, k), sn)| (t.as_str(), k.as_str(), *sn)).collect()
}

fn add(nodes: &mut Loaded, new: Vec<NewNode>) {
    for NewNode { hash, node, body } in new {
        assert_eq!(hash, NodeHash(half(&Sha256::digest(&body))));
        assert_eq!(Node::decode(&body).as_ref(), Ok(&*node));
        nodes.insert(hash, node);
    }
}

fn stored(nodes: &mut Loaded, model: &Model) -> NodeHash {
    let (root, new) = build(&entries(model));
    add(nodes, new);
    root
}

/// Answers a question the way a caller of the database does, and says how often it had to load.
fn loading<T>(all: &Loaded, mut ask: impl FnMut(&Loaded) -> Result<T, Missing>) -> (T, usize, usize) {
    let mut loaded = Loaded::new();
    for rounds in 0..40 {
        match ask(&loaded) {
            Ok(answer) => return (answer, rounds, loaded.len()),
            Err(Missing(hashes)) => {
                assert!(!hashes.is_empty());
                for hash in hashes {
                    let before = loaded.insert(hash, all[&hash].clone());
                    assert!(before.is_none(), "asked for what is loaded");
                }
            }
        }
    }
    panic!("never satisfied");
}

fn model_of(entries: &[Entry]) -> Model {
    entries.iter().map(|e| ((e.event_type.to_string(), e.state_key.to_string()), e.sn)).collect()
}

fn model_diff(a: &Model, b: &Model) -> BTreeMap<(String, String), (Option<i64>, Option<i64>)> {
    a.keys()
        .chain(b.keys())
        .map(|key| (key.clone(), (a.get(key).copied(), b.get(key).copied())))
        .filter(|(_, (a, b))| a != b)
        .collect()
}

fn members(count: i64) -> Model {
    (0..count).map(|n| (("m.room.member".to_owned(), format!("@user{n}:example.org")), 1_000 + n)).collect()
}

fn key() -> impl Strategy<Value = (String, String)> {
    let event_type = prop_oneof![
        Just("m.room.member".to_owned()),
        Just("m.room.topic".to_owned()),
        Just("org.example.custom".to_owned()),
        "[a-zé]{0,3}",
    ];
    (event_type, "[a-h0-9ü]{0,2}")
}

fn model(max: usize) -> impl Strategy<Value = Model> {
    prop::collection::btree_map(key(), prop_oneof![0..1_000i64, any::<i64>()], 0..max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn behaves_like_a_map(
        start in model(80),
        steps in prop::collection::vec(prop::collection::vec((key(), prop::option::weighted(0.6, 0..50i64)), 0..40), 0..6),
    ) {
        let (mut nodes, mut model) = (Loaded::new(), start);
        let mut root = stored(&mut nodes, &model);
        for step in steps {
            let changes: Vec<_> = step.iter().map(|((t, k), sn)| (t.as_str(), k.as_str(), *sn)).collect();
            let ((new_root, new), ..) = loading(&nodes, |loaded| update(loaded, root, &changes));
            add(&mut nodes, new);
            for (key, sn) in step {
                match sn {
                    Some(sn) => model.insert(key, sn),
                    None => model.remove(&key),
                };
            }
            // The shape tells nothing of the past: the same root as if it had been built at once.
            prop_assert_eq!(new_root, stored(&mut Loaded::new(), &model));
            root = new_root;
            prop_assert_eq!(&model_of(&full(&nodes, root).expect("loaded")), &model);
            for (event_type, state_key) in model.keys() {
                let found = get(&nodes, root, event_type, state_key).expect("loaded");
                prop_assert_eq!(found, model.get(&(event_type.clone(), state_key.clone())).copied());
            }
            prop_assert_eq!(get(&nodes, root, "m.room.member", "nobody").expect("loaded"), None);
        }
    }

    #[test]
    fn the_order_of_coming_does_not_matter(mut all in prop::collection::vec((key(), 0..50i64), 0..120), at in 0..120usize) {
        all.sort();
        all.dedup_by(|a, b| a.0 == b.0);
        let of = |list: &[((String, String), i64)]| {
            let mut nodes = Loaded::new();
            let mut root = EMPTY;
            for ((event_type, state_key), sn) in list {
                let (next, new) = insert(&nodes, root, &[(event_type, state_key, *sn)]).expect("loaded");
                add(&mut nodes, new);
                root = next;
            }
            root
        };
        let sorted = of(&all);
        let at = at.min(all.len());
        all.rotate_left(at);
        prop_assert_eq!(of(&all), sorted);
        all.reverse();
        prop_assert_eq!(of(&all), sorted);
        prop_assert_eq!(sorted, build(&all.iter().map(|((t, k), sn)| (t.as_str(), k.as_str(), *sn)).collect::<Vec<_>>()).0);
    }

    #[test]
    fn differences_are_those_of_the_maps(a in model(150), changes in model(40), keep in 0..150usize) {
        let mut b: Model = a.iter().take(keep).map(|(k, v)| (k.clone(), *v)).collect();
        b.extend(changes);
        let mut nodes = Loaded::new();
        let (root_a, root_b) = (stored(&mut nodes, &a), stored(&mut nodes, &b));
        prop_assert_eq!(root_a == root_b, a == b);
        let (found, rounds, _) = loading(&nodes, |loaded| diff(loaded, root_a, root_b));
        prop_assert!(rounds <= 5, "{} rounds", rounds);
        let count = found.len();
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(|d| ((d.event_type.to_string(), d.state_key.to_string()), (d.before, d.after)))
            .collect();
        prop_assert_eq!(found.len(), count, "each key once");
        prop_assert_eq!(found, model_diff(&a, &b));
    }

    #[test]
    fn garbage_is_refused_or_is_what_we_would_write(mut bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0..4u8) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(node) = Node::decode(&bytes) {
            prop_assert_eq!(node.encode(), bytes);
        }
    }

    #[test]
    fn a_damaged_node_is_refused_or_is_another(model in model(17), at: prop::sample::Index, bit in 0..8u8, cut: prop::sample::Index) {
        let (_, new) = build(&entries(&model));
        for NewNode { node, body, .. } in new {
            let mut damaged = body.clone();
            damaged[at.index(body.len())] ^= 1 << bit;
            if let Ok(read) = Node::decode(&damaged) {
                prop_assert_ne!(&read, &*node);
                prop_assert_eq!(read.encode(), damaged);
            }
            prop_assert!(Node::decode(&body[..cut.index(body.len())]).is_err());
        }
    }
}

#[test]
fn what_is_not_a_node() {
    for bytes in [
        &[][..],
        &[0],
        &[3],
        &[LEAF_TAG, 0],
        &[LEAF_TAG, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        &[LEAF_TAG, 1, 2, 0, 0x80, 0],
        &[LEAF_TAG, 1, 2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        &[LEAF_TAG, 1, 25, 0, 0],
        &[LEAF_TAG, 1, 2, 1, 0xff, 0],
        &[LEAF_TAG, 2, 2, 0, 0, 2, 0, 0],
        &[LEAF_TAG, 1, 2, 0, 0, 0],
        &[BRANCH_TAG, 0, 0],
        &[BRANCH_TAG, 1, 0, 7],
    ] {
        assert!(Node::decode(bytes).is_err(), "{bytes:?}");
    }
    let leaf = Node::decode(&[LEAF_TAG, 1, 2, 1, b'k', 3]).expect("a leaf");
    let entry = Entry { event_type: "m.room.member".into(), state_key: "k".into(), sn: -2 };
    assert_eq!(leaf, Node::Leaf(vec![entry]));
}

const LEAF_TAG: u8 = 1;
const BRANCH_TAG: u8 = 2;

/// Roots are stored and compared across releases: the encoding may not change unseen.
#[test]
fn the_root_of_a_known_state_stays() {
    let (root, new) = build(&[("m.room.create", "", 1), ("org.example", "ä", -1), ("m.room.member", "@a:b", 300)]);
    assert_eq!(new.len(), 1);
    let body: &[u8] = b"\x01\x03\x01\x00\x02\x02\x04@a:b\xd8\x04\x00\x0borg.example\x02\xc3\xa4\x01";
    assert_eq!(new[0].body, body);
    assert_eq!(format!("{root:?}"), "604ac719b3e89abdd21b2e828c046c20");
    assert_eq!(format!("{:?}", build(&entries(&members(1_000))).0), "7dbcaf6a589df90a781d144a4bcc0d69");
}

#[test]
fn a_change_in_a_large_room_writes_little_and_reads_little() {
    let (mut nodes, mut model) = (Loaded::new(), members(100_000));
    let (root, new) = build(&entries(&model));
    let (count, bytes) = (new.len(), new.iter().map(|n| n.body.len()).sum::<usize>());
    add(&mut nodes, new);
    let change = [("m.room.member", "@newcomer:example.org", 7)];
    let ((joined, new), rounds, read) = loading(&nodes, |loaded| insert(loaded, root, &change));
    let written: usize = new.iter().map(|n| n.body.len()).sum();
    assert!(count < 60_000 && bytes < 4_000_000, "{count} nodes, {bytes} bytes");
    assert!(new.len() <= 7 && written < 1_600, "{} nodes, {written} bytes", new.len());
    assert!(rounds <= 6 && read <= 6, "{rounds} rounds, {read} nodes");
    add(&mut nodes, new);

    let (found, _, read) = loading(&nodes, |loaded| diff(loaded, root, joined));
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].state_key, found[0].before, found[0].after), ("@newcomer:example.org", None, Some(7)));
    assert!(read <= 13, "{read} nodes");

    let (back, _, _) =
        loading(&nodes, |loaded| update(loaded, joined, &[("m.room.member", "@newcomer:example.org", None)]));
    assert_eq!(back.0, root);
    assert!(back.1.iter().all(|new| nodes.contains_key(&new.hash)), "the way back leads to what is there");

    model.insert(("m.room.member".to_owned(), "@newcomer:example.org".to_owned()), 7);
    assert_eq!(build(&entries(&model)).0, joined);
    let (everything, rounds, _) = loading(&nodes, |loaded| full(loaded, joined));
    assert_eq!((model_of(&everything), rounds <= 6), (model, true));
}

#[test]
fn the_empty_state_has_no_node() {
    let nodes = Loaded::new();
    assert_eq!(build(&[]).0, EMPTY);
    assert_eq!(get(&nodes, EMPTY, "m.room.create", ""), Ok(None));
    assert_eq!(full(&nodes, EMPTY), Ok(Vec::new()));
    assert_eq!(diff(&nodes, EMPTY, EMPTY), Ok(Vec::new()));
    assert_eq!(get(&nodes, NodeHash([1; 16]), "m.room.create", ""), Err(Missing(vec![NodeHash([1; 16])])));
}
