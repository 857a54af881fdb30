//! The same on two servers that share a database.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};

use super::{left, lists, one_time};
use crate::{
    sliding::Slider,
    support::{
        Given,
        people::{Person, open_server},
    },
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

    // The fallback key, which stays; also for who slides.
    let unused = |page: &Value| page["device_unused_fallback_key_types"].as_array().map(Vec::len);
    alice.uploads(json!({ "fallback_keys": one_time(&alice, &["F"], true) })).await.ok();
    let wish = json!({ "extensions": { "e2ee": { "enabled": true } } });
    let (slider, page) = (Slider::of(&alice), alice.syncs().await);
    assert_eq!(unused(&page), Some(1), "{page}");
    assert_eq!(unused(&slider.asks(&wish).await["extensions"]["e2ee"]), Some(1));
    let (poll, slide) = (alice.waits().await, slider.waits(&wish).await);
    for _ in 0..2 {
        assert_eq!(bob.claims(&alice).await.unwrap().0, "signed_curve25519:F");
    }
    let (page, slid) = (poll.ends().await, slide.ends().await);
    assert_eq!((unused(&page), unused(&slid["extensions"]["e2ee"])), (Some(0), Some(0)), "{page} {slid}");
    alice.uploads(json!({ "one_time_keys": one_time(&alice, &["X", "Y"], false) })).await.ok();
    slider.goes_back_to(slid["pos"].as_str().map(str::to_owned));
    let page = slider.asks(&wish).await;
    assert_eq!(left(&page["extensions"]["e2ee"]), 2, "{page}");
    let slide = slider.waits(&wish).await;
    bob.claims(&alice).await.unwrap();
    assert_eq!(left(&slide.ends().await["extensions"]["e2ee"]), 1, "claimed on the other");

    // With whom no room is left.
    alice.syncs().await;
    let poll = alice.waits().await;
    bob.leaves(&room).await;
    assert_eq!(lists(&poll.ends().await).1, [&bob.id]);
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
