//! The same on two servers that share a database.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::json;

use super::{left, lists, one_time};
use crate::support::{
    Given,
    people::{Person, open_server},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_given_once_by_two_servers_and_both_know_what_is_left() {
    let given = Given::postgres().await;
    let (one, two) = (open_server(&given).await, open_server(&given).await);
    let alice = Person::registers(&one, "alice").await;
    let bob = Person::registers(&two, "bob").await;
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    alice.syncs().await;
    alice.uploads(json!({ "one_time_keys": one_time(&alice, &names, false) })).await.ok();
    assert_eq!(left(&alice.syncs().await), 20);

    let poll = alice.waits().await;
    bob.claims(&alice).await.unwrap();
    assert_eq!(left(&poll.ends().await), 19, "claimed on the other");
    let here = join_all((0..15).map(|_| alice.claims(&alice)));
    let there = join_all((0..15).map(|_| bob.claims(&alice)));
    let (here, there) = join(here, there).await;
    let names: Vec<String> = here.into_iter().chain(there).flatten().map(|(name, _)| name).collect();
    assert_eq!((names.len(), names.iter().collect::<BTreeSet<_>>().len()), (19, 19));
    let there = alice.turns_to(&two);
    assert_eq!((left(&alice.syncs().await), left(&there.syncs().await)), (0, 0));

    // Whose devices changed on the one is told on the other.
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    bob.syncs().await;
    bob.syncs().await;
    let poll = bob.waits().await;
    alice.publishes().await;
    assert_eq!(lists(&poll.ends().await).0, [&alice.id]);
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
