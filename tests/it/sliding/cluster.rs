//! Connections that several processes answer.

use super::*;
use crate::support::Given;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_may_wander_between_processes() {
    let given = Given::postgres().await;
    let (one, two) = (open_server(&given).await, open_server(&given).await);
    let (alice, bob) = (Person::registers(&one, "alice").await, Person::registers(&one, "bob").await);
    let there = bob.turns_to(&two);
    let room = alice.opens_a_room().await;
    bob.joins(&room).await;
    let wish = all_rooms(10, of_a_list());
    let mut slider = Slider::of(&bob);
    let mut unknown = Vec::new();
    for n in 0..12 {
        let message = alice.says(&room, &n.to_string()).await;
        let reply = slider.tries(&wish).await;
        let page = if reply.status == 200 {
            reply.ok()
        } else {
            reply.refused(400, "M_UNKNOWN_POS");
            unknown.push(n);
            slider.goes_back_to(None);
            slider.asks(&wish).await
        };
        let told = timeline_of(&page, &room);
        assert_eq!(told.last(), Some(&message), "{n}: {page}");
        assert!(page["rooms"][&room]["initial"] == true || told.len() == 1, "{n}: {page}");
        slider.goes_back_to(page["pos"].as_str().map(str::to_owned));
        slider = slider.moves_to(if n % 2 == 0 { &there } else { &bob });
    }
    // The processes notice, and then it works as if they were one.
    assert!(unknown.iter().all(|n| *n < 6), "{unknown:?}");
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
