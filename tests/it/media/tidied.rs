//! What is old goes.

use hearth::config::{Retention, RetentionScope};

use super::PNG;
use crate::support::{Given, each_store, people::Person, server::Server};

const DAY: i64 = 24 * 60 * 60 * 1000;

async fn server(given: &Given, rule: Option<Retention>) -> Server {
    given
        .server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.media.media.retention = rule.into_iter().collect();
        })
        .await
}

fn days(days: u64) -> Option<hearth::config::Age> {
    Some(format!("{days}d").parse().expect("a time"))
}

each_store! {
    async fn files_are_kept_unless_the_operator_says_otherwise(given: Given) {
        let server = server(given, None).await;
        let alice = Person::registers(&server, "alice").await;
        let uri = alice.shares(PNG, "image/png").await;
        server.clock.advance(10_000 * DAY);
        server.tidies_media().await;
        alice.downloads(&uri).await.is(200, PNG);
    }

    async fn old_files_go_with_their_bytes(given: Given) {
        let rule = Retention { scope: RetentionScope::Local, created: days(30), accessed: None };
        let server = server(given, Some(rule)).await;
        let alice = Person::registers(&server, "alice").await;
        let (old, same) = (alice.shares(PNG, "image/png").await, alice.shares("old", "text/plain").await);
        server.clock.advance(20 * DAY);
        let young = alice.shares(PNG, "image/png").await;
        server.clock.advance(10 * DAY + 1);
        server.tidies_media().await;
        for gone in [old, same] {
            alice.downloads(&gone).await.reply.refused(404, "M_NOT_FOUND");
        }
        alice.downloads(&young).await.is(200, PNG);
        assert_eq!(given.stored_files().await, 1);
        server.clock.advance(20 * DAY);
        server.tidies_media().await;
        assert_eq!(given.stored_files().await, 0);
    }

    async fn files_stay_as_long_as_somebody_looks_at_them(given: Given) {
        let rule = Retention { scope: RetentionScope::Local, created: None, accessed: days(30) };
        let server = server(given, Some(rule)).await;
        let alice = Person::registers(&server, "alice").await;
        let (seen, unseen) = (alice.shares("seen", "text/plain").await, alice.shares("unseen", "text/plain").await);
        for _ in 0..3 {
            server.clock.advance(20 * DAY);
            alice.downloads(&seen).await.is(200, b"seen");
            server.tidies_media().await;
        }
        alice.downloads(&seen).await.is(200, b"seen");
        alice.downloads(&unseen).await.reply.refused(404, "M_NOT_FOUND");
        assert_eq!(given.stored_files().await, 1);
    }
}
