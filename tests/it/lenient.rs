//! What clients send that the specification has not, and have come to rely on.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use serde_json::{Value, json};

use crate::support::{
    each_backend,
    people::{Person, escaped, joined, of_type, open_server},
};

each_backend! {
    async fn a_receipt_may_say_null_for_no_thread(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let event = alice.says(&room, "hello").await;
        alice.syncs().await;
        let receipt = async |kind: &str, body: Value| alice.asks(&room, &format!("receipt/{kind}/{}", escaped(&event)), body).await;
        for kind in ["m.read", "m.read.private", "m.fully_read"] {
            receipt(kind, json!({ "thread_id": null })).await.ok();
        }
        let page = alice.syncs().await;
        let shown = of_type(&joined(&page, &room)["ephemeral"]["events"], "m.receipt").unwrap();
        for kind in ["m.read", "m.read.private"] {
            let about = &shown["content"][&event][kind][&alice.id];
            assert!(about.is_object() && about.get("thread_id").is_none(), "{shown}");
        }
        assert!(of_type(&joined(&page, &room)["account_data"]["events"], "m.fully_read").is_some(), "{page}");
        // Null is no answer to what has to be said, and a body is still an object.
        receipt("m.read", json!({ "thread_id": 3 })).await.refused(400, "M_BAD_JSON");
        receipt("m.read", json!([])).await.refused(400, "M_BAD_JSON");
        receipt("m.read", json!(null)).await.refused(400, "M_BAD_JSON");
        server.stop().await;
    }
}
