//! Reports of what somebody should look at, and the operator who does.

use hearth::config::Limit;
use serde_json::{Value, json};

use crate::support::{
    Given, Reply, each_backend,
    people::{Person, escaped, open_server},
    program::hearth,
};

/// What the operator is shown, a report a line.
async fn listed(given: &Given) -> Vec<Vec<String>> {
    let said = admin(given, &["report", "list"]).await;
    said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

async fn admin(given: &Given, arguments: &[&str]) -> String {
    let output = hearth(given, &[&["admin"], arguments].concat()).await;
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said.trim_end().to_owned()
}

impl Person {
    async fn reports(&self, room: &str, event: &str, body: Value) -> Reply {
        self.asks(room, &format!("report/{}", escaped(event)), body).await
    }

    async fn reports_user(&self, user: &str, reason: &str) -> Reply {
        self.post(&format!("/users/{}/report", escaped(user)), json!({ "reason": reason })).await
    }
}

each_backend! {
    async fn an_operator_reads_what_was_reported(given: Given) {
        let server = open_server(given).await;
        let (alice, mallory) = (Person::registers(&server, "alice").await, Person::registers(&server, "mallory").await);
        let room = alice.opens_a_room().await;
        mallory.joins(&room).await;
        let spam = mallory.says(&room, "buy now").await;
        assert_eq!(listed(given).await, Vec::<Vec<String>>::new());

        alice.reports(&room, &spam, json!({ "reason": "spam\n\u{1b}[2J\u{202e}", "score": -100 })).await.ok();
        server.clock.advance(1_000);
        alice.asks(&room, "report", json!({ "reason": "" })).await.ok();
        server.clock.advance(1_000);
        alice.reports_user(&mallory.id, "a \"bad\" one").await.ok();
        let list = listed(given).await;
        let told: Vec<Vec<&str>> = list.iter().map(|line| line[1..].iter().map(String::as_str).collect()).collect();
        let (when, by) = ("Tue, 14 Nov 2023 22:13:", alice.id.as_str());
        // What people write is shown so that it can do nothing to a terminal.
        let spam_says = r#""spam\n\u{1b}[2J\u{202e}""#;
        assert_eq!(
            told,
            [
                vec![&format!("{when}20 GMT"), by, &mallory.id, &room, &spam, spam_says],
                vec![&format!("{when}21 GMT"), by, "-", &room, "-", r#""""#],
                vec![&format!("{when}22 GMT"), by, &mallory.id, "-", "-", r#""a \"bad\" one""#],
            ]
        );

        // Whoever says more about the same says it in the same report.
        alice.reports(&room, &spam, json!({})).await.ok();
        let again = listed(given).await;
        assert_eq!(again.len(), 3);
        assert!(again.iter().any(|line| line[0] == list[0][0] && line[6] == r#""""#), "{again:?}");
        // A room that doesn't exist may be called anything.
        let odd = "!\u{1b}[2J\u{202e}:test.example";
        alice.asks(odd, "report", json!({ "reason": "" })).await.ok();
        let line = listed(given).await.into_iter().find(|line| line[4].starts_with(r"!\u{1b}[2J\u{202e}"));
        admin(given, &["report", "delete", &line.expect("the odd one")[0]]).await;
        admin(given, &["report", "delete", &list[0][0]]).await;
        assert_eq!(listed(given).await.len(), 2);
        let refused = hearth(given, &["admin", "report", "delete", &list[0][0]]).await;
        assert!(String::from_utf8_lossy(&refused.stderr).contains("no such report"), "{refused:?}");
        server.stop().await;
    }

    async fn a_report_tells_its_author_nothing(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = alice.opens_a_room().await;
        let early = alice.says(&room, "before").await;
        let joined = json!({ "history_visibility": "joined" });
        alice.sets(&room, "m.room.history_visibility", "", joined).await.ok();
        let hidden = alice.says(&room, "for those who are here").await;

        // Only who is in a room has something to say of its events, and of those only that they may see.
        bob.reports(&room, &early, json!({})).await.refused(404, "M_NOT_FOUND");
        bob.reports("!nowhere:test.example", "$nothing", json!({})).await.refused(404, "M_NOT_FOUND");
        bob.joins(&room).await;
        bob.reports(&room, &early, json!({})).await.ok();
        bob.reports(&room, &hidden, json!({})).await.refused(404, "M_NOT_FOUND");
        bob.reports(&room, "$nothing", json!({})).await.refused(404, "M_NOT_FOUND");
        bob.leaves(&room).await;
        bob.reports(&room, &early, json!({})).await.refused(404, "M_NOT_FOUND");

        // That there is no such user or room is not to be learnt here.
        for user in [&alice.id, "@nobody:test.example", "@somebody:elsewhere.example"] {
            assert_eq!(bob.reports_user(user, "rude").await.ok(), json!({}));
        }
        for somewhere in [&room, "!nowhere:test.example"] {
            assert_eq!(bob.asks(somewhere, "report", json!({ "reason": "odd" })).await.ok(), json!({}));
        }

        bob.reports_user("nobody", "rude").await.refused(400, "M_INVALID_PARAM");
        bob.reports_user(&alice.id, "a\0b").await.refused(400, "M_INVALID_PARAM");
        bob.reports_user(&alice.id, &"x".repeat(4_097)).await.refused(413, "M_TOO_LARGE");
        bob.reports_user(&alice.id, &"x".repeat(4_096)).await.ok();
        bob.post(&format!("/users/{}/report", escaped(&alice.id)), json!({})).await.refused(400, "M_MISSING_PARAM");
        let path = format!("/_matrix/client/v3/users/{}/report", escaped(&alice.id));
        server.post(&path, &json!({ "reason": "" })).await.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
    }

    async fn nobody_reports_without_end(given: Given) {
        let server = given
            .server_with(|config| {
                config.registration.allow_registration = true;
                config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
                config.limits.rate_limit.enabled = true;
                config.limits.rate_limit.report = Limit::of(0.001, 3);
            })
            .await;
        let alice = Person::registers(&server, "alice").await;
        let room = alice.opens_a_room().await;
        let event = alice.says(&room, "hello").await;
        alice.reports(&room, &event, json!({})).await.ok();
        alice.asks(&room, "report", json!({ "reason": "" })).await.ok();
        alice.reports_user("@b:test.example", "").await.ok();
        for refused in [
            alice.reports(&room, &event, json!({})).await,
            alice.asks(&room, "report", json!({ "reason": "" })).await,
            alice.reports_user("@b:test.example", "").await,
        ] {
            refused.refused(429, "M_LIMIT_EXCEEDED");
        }
        server.stop().await;
    }
}
