//! Ids that something is uploaded to later.

use std::time::Duration;

use serde_json::json;

use super::{PNG, gets, uri};
use crate::support::{
    each_backend,
    people::{Person, open_server},
};

const DAY: i64 = 24 * 60 * 60 * 1000;

each_backend! {
    async fn an_id_is_made_first_and_filled_later(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let reply = alice.reserves().await.ok();
        let uri = uri(&reply);
        assert_eq!(reply["unused_expires_at"], json!(1_700_000_000_000 + DAY));
        bob.downloads(&format!("{uri}?timeout_ms=0")).await.reply.refused(504, "M_NOT_YET_UPLOADED");
        bob.uploads_to(&uri, PNG).await.refused(403, "M_FORBIDDEN");
        alice.uploads_to("test.example/nothing", PNG).await.refused(404, "M_NOT_FOUND");
        alice.uploads_to("elsewhere.example/nothing", PNG).await.refused(404, "M_NOT_FOUND");
        assert_eq!(alice.uploads_to(&uri, PNG).await.ok(), json!({}));
        bob.downloads(&uri).await.is(200, PNG);
        alice.uploads_to(&uri, b"another").await.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
        // Nor is anything put in place of what was uploaded at once.
        let whole = alice.shares(PNG, "image/png").await;
        alice.uploads_to(&whole, b"another").await.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
        bob.downloads(&whole).await.is(200, PNG);
    }

    async fn who_asks_too_early_waits(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let uri = uri(&alice.reserves().await.ok());
        let asking = bob.downloading(&format!("{uri}?timeout_ms=60000"));
        let (bobs, http) = (asking, bob.http().clone());
        let waiting = tokio::spawn(async move { gets(&http, bobs).await });
        server.is_waited_for_by(1).await;
        alice.uploads_to(&uri, PNG).await.ok();
        let got = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time").expect("an answer");
        got.is(200, PNG);
    }

    async fn an_id_that_nobody_fills_ends(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let uri = uri(&alice.reserves().await.ok());
        server.clock.advance(DAY);
        alice.uploads_to(&uri, PNG).await.refused(404, "M_NOT_FOUND");
        alice.downloads(&uri).await.reply.refused(404, "M_NOT_FOUND");
    }

    async fn somebody_has_so_many_ids_and_no_more(given: Given) {
        let server = given.server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.media.media.max_unused_per_user = 2.try_into().expect("not zero");
        }).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let first = uri(&alice.reserves().await.ok());
        alice.reserves().await.ok();
        let refused = alice.reserves().await.refused(429, "M_LIMIT_EXCEEDED");
        assert!(refused["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
        bob.reserves().await.ok();
        alice.uploads_to(&first, PNG).await.ok();
        alice.reserves().await.ok();
    }

    async fn uploads_and_ids_have_their_rates(given: Given) {
        let server = given.server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.limits.rate_limit.enabled = true;
            config.limits.rate_limit.media_upload = hearth::config::Limit::of(1.0, 2);
            config.limits.rate_limit.media_create = hearth::config::Limit::of(1.0, 2);
        }).await;
        let alice = Person::registers(&server, "alice").await;
        for _ in 0..2 {
            alice.shares(PNG, "image/png").await;
            alice.reserves().await.ok();
        }
        server.send(alice.uploading(PNG, "image/png", "")).await.refused(429, "M_LIMIT_EXCEEDED");
        alice.reserves().await.refused(429, "M_LIMIT_EXCEEDED");
        server.clock.advance(1_000);
        alice.shares(PNG, "image/png").await;
        alice.reserves().await.ok();
    }
}
