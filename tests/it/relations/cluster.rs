//! Two servers on one Postgres.

#![cfg(feature = "postgres")]

use crate::support::{
    Given,
    people::{Person, open_server},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_reactions_by_two_servers_one_is_taken() {
    let given = Given::postgres().await;
    let (one, two) = (open_server(&given).await, open_server(&given).await);
    let here = Person::registers(&one, "alice").await;
    let there = here.turns_to(&two);
    let room = here.opens_a_room().await;
    for n in 0..10 {
        let message = here.says(&room, &n.to_string()).await;
        let (a, b) = futures_util::future::join(
            here.tries_to_relate(&room, "m.reaction", &format!("here {n}"), super::reaction(&message, "+1")),
            there.tries_to_relate(&room, "m.reaction", &format!("there {n}"), super::reaction(&message, "+1")),
        )
        .await;
        let (taken, refused) = if a.status == 200 { (a, b) } else { (b, a) };
        taken.ok();
        refused.refused(400, "M_DUPLICATE_ANNOTATION");
        // And what one has just stored, the other tells.
        let answer = here.answers_in_thread(&room, &message, "answer").await;
        assert_eq!(there.bundle(&room, &message).await["m.thread"]["latest_event"]["event_id"], answer);
    }
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
