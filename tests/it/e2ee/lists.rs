//! Whose devices changed, told to those who share a room with them.

use serde_json::json;

use super::{device_keys, lists};
use crate::support::{
    each_backend,
    people::{Person, open_server},
};

each_backend! {
    async fn a_change_is_told_to_those_who_share_a_room(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.opens_a_room().await;
        bob.joins(&room).await;
        alice.syncs().await;
        carol.syncs().await;
        let first = bob.syncs().await;
        assert_eq!(lists(&first), (vec![], vec![]), "the first sync is no change");
        bob.syncs().await;

        let poll = bob.waits().await;
        let (pair, keys) = alice.publishes().await;
        let page = poll.ends().await;
        assert_eq!(lists(&page), (vec![alice.id.as_str()], vec![]));
        assert_eq!(lists(&bob.syncs().await).0, [&alice.id]);
        assert_eq!(lists(&bob.syncs().await), (vec![], vec![]), "told once");
        assert_eq!(lists(&alice.syncs().await).0, [&alice.id], "other devices of hers have to know, too");
        assert_eq!(lists(&carol.syncs().await), (vec![], vec![]));

        // The same keys are no change; others are, and so is a new name, and an end.
        alice.uploads(json!({ "device_keys": keys })).await.ok();
        assert_eq!(lists(&bob.syncs().await), (vec![], vec![]));
        alice.uploads(json!({ "device_keys": device_keys(&alice, &pair) })).await.ok();
        assert_eq!(lists(&bob.syncs().await).0, [&alice.id]);
        alice.put(&format!("/devices/{}", alice.device), json!({ "display_name": "Laptop" })).await.ok();
        assert_eq!(lists(&bob.syncs().await).0, [&alice.id]);
        let phone = alice.logs_in_on(&server).await;
        phone.put(&format!("/devices/{}", phone.device), json!({ "display_name": "Phone" })).await.ok();
        assert_eq!(lists(&bob.syncs().await), (vec![], vec![]), "a device without keys is nobody's business");
        phone.publishes().await;
        assert_eq!(lists(&bob.syncs().await).0, [&alice.id]);
        let poll = bob.waits().await;
        phone.post("/logout", json!({})).await.ok();
        assert_eq!(lists(&poll.ends().await).0, [&alice.id]);
    }

    async fn who_comes_is_changed_and_who_goes_has_left(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let (room, other) = (alice.opens_a_room().await, alice.opens_a_room().await);
        carol.joins(&room).await;
        alice.syncs().await;
        bob.syncs().await;

        // She sees him come; he sees all who are there.
        bob.joins(&room).await;
        assert_eq!(lists(&alice.syncs().await), (vec![bob.id.as_str()], vec![]));
        let page = bob.syncs().await;
        assert_eq!(lists(&page), (vec![alice.id.as_str(), carol.id.as_str()], vec![]));
        // A new name in a room is no meeting.
        bob.put(&format!("/profile/{}/displayname", bob.id), json!({ "displayname": "Bob" })).await.ok();
        alice.says(&room, "hello").await;
        assert_eq!(lists(&alice.syncs().await), (vec![], vec![]));
        bob.joins(&other).await;
        alice.syncs().await;
        bob.syncs().await;

        // As long as one room is left, nobody has left.
        bob.leaves(&room).await;
        assert_eq!(lists(&alice.syncs().await), (vec![], vec![]));
        assert_eq!(lists(&bob.syncs().await), (vec![], vec![carol.id.as_str()]));
        assert_eq!(lists(&carol.syncs().await).0.len(), 0);
        bob.leaves(&other).await;
        assert_eq!(lists(&alice.syncs().await), (vec![], vec![bob.id.as_str()]));
        assert_eq!(lists(&bob.syncs().await), (vec![], vec![alice.id.as_str()]));
        // What happens to who has left is nobody's business.
        bob.publishes().await;
        assert_eq!(lists(&alice.syncs().await), (vec![], vec![]));

        // Back again: changed. Away and back between two syncs: changed as well.
        bob.joins(&room).await;
        assert_eq!(lists(&alice.syncs().await), (vec![bob.id.as_str()], vec![]));
        bob.syncs().await;
        bob.leaves(&room).await;
        bob.joins(&room).await;
        assert_eq!(lists(&alice.syncs().await), (vec![bob.id.as_str()], vec![]));
        let page = bob.syncs().await;
        assert_eq!(lists(&page), (vec![alice.id.as_str(), carol.id.as_str()], vec![]));
        // An invite that is refused is neither.
        let dave = Person::registers(&server, "dave").await;
        alice.invites(&room, &dave).await;
        assert_eq!(lists(&alice.syncs().await), (vec![], vec![]));
        dave.leaves(&room).await;
        assert_eq!(lists(&alice.syncs().await), (vec![], vec![]));
        // Both leave, one after the other, and somebody comes whom neither of them has met.
        let erin = Person::registers(&server, "erin").await;
        erin.syncs().await;
        let before = alice.since();
        alice.leaves(&room).await;
        bob.leaves(&room).await;
        erin.joins(&room).await;
        assert_eq!(lists(&erin.syncs().await), (vec![carol.id.as_str()], vec![]));
        assert_eq!(lists(&alice.sync(&format!("since={before}")).await), (vec![], vec![bob.id.as_str(), carol.id.as_str()]));
    }

    async fn changes_between_two_tokens_can_be_asked_for(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        alice.syncs().await;
        let from = alice.since();
        bob.joins(&room).await;
        bob.publishes().await;
        alice.syncs().await;
        let to = alice.since();
        let changes = async |from: &str, to: &str| alice.get(&format!("/keys/changes?from={from}&to={to}")).await;
        assert_eq!(changes(&from, &to).await.ok(), json!({ "changed": [bob.id], "left": [] }));
        assert_eq!(changes(&to, &to).await.ok(), json!({ "changed": [], "left": [] }));
        bob.leaves(&room).await;
        assert_eq!(changes(&to, &to).await.ok(), json!({ "changed": [], "left": [bob.id] }));
        changes("nonsense", &to).await.refused(400, "M_INVALID_PARAM");
        alice.get("/keys/changes").await.refused(400, "M_MISSING_PARAM");
    }
}
