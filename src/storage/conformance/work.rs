//! Facts of the deployment, and the work of the outbox.

use super::*;

#[test]
fn facts_and_the_signing_key_are_agreed_on() {
    each_backend(|store| async move {
        let other = store.beside().await;
        assert_eq!(store.server_fact("name").await.expect("reads"), None);
        let (a, b) = join(store.server_fact_or_set("name", "a"), other.server_fact_or_set("name", "b")).await;
        let name = a.expect("written");
        assert_eq!(b.expect("written"), name);
        assert_eq!(store.server_fact("name").await.expect("reads"), Some(name));

        let key = |id: &str| SigningKey { key_id: id.into(), seed: vec![1, 2, 3], created_ms: 5, expired_ms: None };
        let (a, b) = join(store.signing_key_or_set(key("ed25519:a")), other.signing_key_or_set(key("ed25519:b"))).await;
        let agreed = a.expect("written");
        assert_eq!(b.expect("written"), agreed);
        assert_eq!(store.signing_keys().await.expect("reads"), [agreed]);
        store.ping().await.expect("is there");
    });
}

fn ids(items: Result<Vec<Item>>) -> Vec<String> {
    items.expect("leases").into_iter().map(|item| item.id).collect()
}

#[test]
fn texts_sort_by_their_bytes() {
    each_backend(|store| async move {
        let names = ["b", "A", "ä", "_", "a", "Z", "-a", "B"];
        let items: Vec<Step> = names.iter().map(|id| Enqueue("mail", (*id).to_owned(), 0)).collect();
        store.run(1, items).await.expect("written");
        assert_eq!(ids(store.lease("mail", "me", 0, 1, 4).await), ["-a", "A", "B", "Z"]);
        assert_eq!(ids(store.lease("mail", "me", 0, 1, 4).await), ["_", "a", "b", "ä"]);
    });
}

#[test]
fn work_is_leased_done_and_given_back() {
    each_backend(|store| async move {
        let enqueue = |id: &str, due| store.run(1, [Enqueue("mail", id.into(), due)]);
        for (id, due) in [("b", 10), ("a", 10), ("c", 5), ("d", 100), ("a", 1)] {
            enqueue(id, due).await.expect("written");
        }
        assert!(store.sink.take().iter().all(|commit| commit.wakes == [Wake::Queue("mail")]));
        store.run(0, [Enqueue("other", "z".into(), 0)]).await.expect("written");

        assert_eq!(ids(store.lease("mail", "me", 10, 50, 2).await), ["c", "a"]);
        assert_eq!(ids(store.lease("mail", "you", 10, 50, 9).await), ["b"]);
        assert_eq!(ids(store.lease("mail", "you", 59, 50, 9).await), [""; 0]);
        // Only the holder has a say.
        assert_eq!(store.done(vec!["c".into(), "b".into()], "me").await.expect("written"), 1);
        assert_eq!(store.extend(vec!["a".into(), "b".into()], "me", 70).await.expect("written"), 1);
        assert_eq!(store.retry(vec!["b".into()], "you", 65).await.expect("written"), 1);
        assert_eq!(store.retry(vec!["b".into()], "you", 65).await.expect("written"), 0);
        assert_eq!(ids(store.lease("mail", "you", 64, 50, 9).await), [""; 0]);
        let again = store.lease("mail", "you", 75, 50, 9).await.expect("leases");
        let seen: Vec<_> = again.iter().map(|i| (i.id.as_str(), i.due_ms, i.attempts, i.payload.as_str())).collect();
        assert_eq!(seen, [("a", 10, 2, "of a"), ("b", 65, 2, "of b")]);
        assert_eq!(store.done(vec!["a".into()], "me").await.expect("written"), 0, "the lease had run out");
        assert_eq!(store.done(vec!["a".into(), "b".into()], "you").await.expect("written"), 2);
        assert_eq!(ids(store.lease("mail", "me", 1000, 50, 9).await), ["d"]);
    });
}

#[test]
fn planned_work_comes_round_again() {
    each_backend(|store| async move {
        store.plan("round", "it", 10).await.expect("written");
        store.plan("round", "it", 1).await.expect("written");
        assert_eq!(ids(store.lease("round", "me", 9, 50, 9).await), [""; 0], "the first plan holds");
        assert_eq!(ids(store.lease("round", "me", 10, 50, 9).await), ["it"]);
        store.plan("round", "it", 1).await.expect("written");
        assert_eq!(ids(store.lease("round", "you", 20, 50, 9).await), [""; 0], "it is held");
        assert_eq!(store.again(vec!["it".into()], "you", 100).await.expect("written"), 0);
        assert_eq!(store.again(vec!["it".into()], "me", 100).await.expect("written"), 1);
        assert_eq!(ids(store.lease("round", "you", 99, 50, 9).await), [""; 0]);
        let again = store.lease("round", "you", 100, 50, 9).await.expect("leases");
        assert_eq!(again.iter().map(|i| i.attempts).collect::<Vec<_>>(), [1], "each round counts its own attempts");
    });
}

#[test]
fn no_work_is_held_twice_at_one_time() {
    each_backend(|store| async move {
        let one = Arc::new(store);
        let two = Arc::new(one.beside().await);
        let items = (0..200).map(|i| Enqueue("mail", format!("{i:03}"), i)).collect::<Vec<_>>();
        one.run(1, items).await.expect("written");
        let workers = (0..8).map(|i| {
            let store = Arc::clone(if i % 2 == 0 { &one } else { &two });
            tokio::spawn(async move {
                let owner = format!("worker {i}");
                let mut held = Vec::new();
                loop {
                    let leased = ids(store.lease("mail", &owner, 1000, 1000, 7).await);
                    if leased.is_empty() && ids(store.lease("mail", &owner, 1000, 1000, 200).await).is_empty() {
                        return held;
                    }
                    held.extend(leased);
                }
            })
        });
        let mut held: Vec<String> =
            join_all(workers).await.into_iter().flat_map(|worker| worker.expect("no panic")).collect();
        held.sort();
        let leased = held.len();
        held.dedup();
        assert_eq!(held.len(), leased, "something was leased twice");
    });
}
