//! What an operator does at the command line, beside a running server or without one.

use hearth::config::{Limit, RateLimit};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    Given, Http, Reply, Server, each_backend,
    people::{LONG, Person},
    program::hearth,
};

/// The operator's clock is that of the machine, which is later than that of the test; but not by so much.
const A_CENTURY_MS: i64 = 100 * 365 * 24 * 3_600_000;
const REGISTER: &str = "/_matrix/client/v3/register";

/// Does it, and says what was printed.
async fn admin(given: &Given, arguments: &[&str]) -> String {
    let output = hearth(given, &[&["admin"], arguments].concat()).await;
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said.trim_end().to_owned()
}

/// Is told why not.
async fn admin_refused(given: &Given, arguments: &[&str], why: &str) {
    let output = hearth(given, &[&["admin"], arguments].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
}

fn last_word(said: &str) -> &str {
    said.rsplit(' ').next().expect("a word")
}

async fn login(http: &Http, user: &str, password: &str) -> Reply {
    let identifier = json!({ "type": "m.id.user", "user": user });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    http.post("/_matrix/client/v3/login", &body).await
}

async fn register_by(http: &Http, name: &str, token: &str) -> Reply {
    let auth = json!({ "type": "m.login.registration_token", "token": token });
    http.post(REGISTER, &json!({ "username": name, "password": "secret", "auth": auth })).await
}

/// A server where people come by token, and one may not say much.
async fn server_by_token(given: &Given) -> Server {
    given
        .server_with(|config| {
            config.registration.allow_registration = true;
            config.limits.rate_limit = RateLimit { enabled: true, message: Limit::of(0.001, 2), ..generous() };
        })
        .await
}

fn generous() -> RateLimit {
    let much = Limit(None);
    RateLimit {
        login_address: much,
        login_account: much,
        registration: much,
        registration_token_validity: much,
        ..RateLimit::default()
    }
}

async fn is_valid(http: &Http, token: &str) -> bool {
    let path = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
    http.get(&path).await.ok()["valid"].as_bool().expect("a yes or a no")
}

/// Asks until the running server has heard of what another process did.
async fn heard<F: Future<Output = bool>>(ask: impl Fn() -> F) {
    timeout(LONG, async { while !ask().await {} }).await.expect("it hears of it");
}

each_backend! {
    async fn accounts_are_made_where_no_server_runs(given: Given) {
        let said = admin(given, &["user", "create", "root", "--admin"]).await;
        admin(given, &["user", "create", "alice"]).await;
        admin_refused(given, &["user", "create", "alice"], "taken").await;
        admin_refused(given, &["user", "create", "a!"], "user name").await;
        assert_eq!(admin(given, &["user", "list"]).await, "@alice:test.example\n@root:test.example\tadmin");
        let server = given.server().await;
        assert_eq!(server.first_admin_token(), None, "somebody is here already");
        login(&server, "root", last_word(&said)).await.ok();
    }

    async fn a_forgotten_password_is_replaced(given: Given) {
        let server = server_by_token(given).await;
        let first = admin(given, &["user", "create", "alice"]).await;
        let session = login(&server, "alice", last_word(&first)).await.ok();
        let alice = Person::from(&server, &session);
        let second = admin(given, &["user", "password", "alice", "--keep-sessions"]).await;
        login(&server, "alice", last_word(&first)).await.refused(403, "M_FORBIDDEN");
        login(&server, "alice", last_word(&second)).await.ok();
        alice.get("/account/whoami").await.ok();
        let third = admin(given, &["user", "password", "@alice:test.example"]).await;
        heard(async || alice.get("/account/whoami").await.status == 401).await;
        login(&server, "alice", last_word(&second)).await.refused(403, "M_FORBIDDEN");
        login(&server, "alice", last_word(&third)).await.ok();
        for (name, why) in [("bob", "no active user"), ("@alice:elsewhere.example", "not a user of"), ("@", "not a user id")] {
            for what in ["password", "promote", "demote", "deactivate"] {
                admin_refused(given, &["user", what, name], why).await;
            }
        }
    }

    async fn somebody_is_an_administrator_for_a_while(given: Given) {
        let server = server_by_token(given).await;
        let said = admin(given, &["user", "create", "alice"]).await;
        let alice = Person::from(&server, &login(&server, "alice", last_word(&said)).await.ok());
        let room = alice.opens_a_room().await;
        alice.says(&room, "one").await;
        alice.says(&room, "two").await;
        alice.sends(&room, "t", "three").await.refused(429, "M_LIMIT_EXCEEDED");
        admin(given, &["user", "promote", "alice"]).await;
        heard(async || alice.sends(&room, "t", "three").await.status == 200).await;
        assert_eq!(admin(given, &["user", "list"]).await, "@alice:test.example\tadmin");
        admin(given, &["user", "demote", "alice"]).await;
        heard(async || alice.sends(&room, "t", "three").await.status == 429).await;
        assert_eq!(admin(given, &["user", "list"]).await, "@alice:test.example");
    }

    async fn an_operator_ends_an_account(given: Given) {
        let server = crate::support::people::open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let room = bob.opens_a_room().await;
        alice.joins(&room).await;
        let secret = alice.says(&room, "a secret").await;
        admin(given, &["user", "deactivate", "alice", "--erase"]).await;
        server.clock.advance(A_CENTURY_MS);
        heard(async || alice.get("/account/whoami").await.status == 401).await;
        let joined = async || bob.reads(&room, "joined_members").await.ok()["joined"].get(&alice.id).is_some();
        // What has to be tried once more is tried when its time has come.
        heard(async || {
            server.clock.advance(1_000);
            !joined().await
        })
        .await;
        admin_refused(given, &["user", "deactivate", "alice"], "no active user").await;
        admin_refused(given, &["user", "password", "alice"], "no active user").await;
        assert_eq!(admin(given, &["user", "list"]).await, "@alice:test.example\tdeactivated\n@bob:test.example");
        // Who heard it keeps it; who comes later gets what is left of it.
        assert_eq!(bob.event(&room, &secret).await.ok()["content"]["body"], "a secret");
        let carol = Person::registers(&server, "carol").await;
        carol.joins(&room).await;
        heard(async || carol.event(&room, &secret).await.ok()["content"] == json!({})).await;
    }

    async fn the_first_token_ends_when_the_operator_makes_an_account(given: Given) {
        let server = given.server().await;
        let token = server.first_admin_token().expect("a token, as there is nobody yet");
        let friends = admin(given, &["token", "create", "--uses", "9"]).await;
        assert!(is_valid(&server, &token).await);
        admin(given, &["user", "create", "root", "--admin"]).await;
        assert!(!is_valid(&server, &token).await);
        // The server that runs takes no registrations any more, as the one that starts next will not.
        for token in [&token, &friends] {
            register_by(&server, "mallory", token).await.refused(403, "M_FORBIDDEN");
        }
        server.stop().await;
        let server = server_by_token(given).await;
        assert_eq!(register_by(&server, "mallory", &token).await.status, 401);
        register_by(&server, "alice", &friends).await.ok();
        assert_eq!(admin(given, &["user", "list"]).await, "@alice:test.example\n@root:test.example\tadmin");
    }

    async fn people_come_by_tokens_that_count(given: Given) {
        let server = server_by_token(given).await;
        let asked = server.post(REGISTER, &json!({})).await.json();
        assert_eq!(asked["flows"], json!([{ "stages": ["m.login.registration_token"] }]));
        let token = admin(given, &["token", "create", "--uses", "2"]).await;
        assert!(token.len() >= 32, "{token}");
        assert!(is_valid(&server, &token).await);
        // Flows that run at the same time take no more than there are.
        let names: Vec<String> = (0..6).map(|n| format!("user{n}")).collect();
        let all = futures_util::future::join_all(names.iter().map(|name| register_by(&server, name, &token))).await;
        assert_eq!(all.iter().filter(|reply| reply.status == 200).count(), 2);
        for lost in all.iter().filter(|reply| reply.status != 200) {
            assert_eq!(lost.refused(401, "M_FORBIDDEN")["completed"], json!([]));
        }
        assert!(!is_valid(&server, &token).await);
        assert!(admin(given, &["token", "list"]).await.lines().any(|line| line == format!("{token}\t2/2\tspent")));
        // A name that is taken costs no use.
        admin(given, &["token", "create", "single", "--uses", "1"]).await;
        let taken = all.iter().position(|reply| reply.status == 200).expect("somebody got in");
        register_by(&server, &names[taken], "single").await.refused(400, "M_USER_IN_USE");
        assert!(is_valid(&server, "single").await);
    }

    async fn tokens_end_by_time_or_by_the_operator(given: Given) {
        let server = server_by_token(given).await;
        admin(given, &["token", "create", "short", "--days", "3"]).await;
        admin(given, &["token", "create", "long"]).await;
        admin(given, &["token", "create", "boss", "--admin"]).await;
        admin_refused(given, &["token", "create", "long"], "already").await;
        admin_refused(given, &["token", "create", "no good"], "characters").await;
        admin_refused(given, &["token", "create", "none", "--uses", "0"], "uses").await;
        let list = admin(given, &["token", "list"]).await;
        for line in ["short\t0\tvalid", "long\t0\tvalid", "boss\t0\tvalid\tadmin"] {
            assert!(list.lines().any(|l| l == line), "{line} in {list}");
        }
        assert!(is_valid(&server, "short").await);
        register_by(&server, "alice", "long").await.ok();
        register_by(&server, "bob", "long").await.ok();
        register_by(&server, "root", "boss").await.ok();
        let users = admin(given, &["user", "list"]).await;
        assert_eq!(users, "@alice:test.example\n@bob:test.example\n@root:test.example\tadmin");
        admin(given, &["token", "revoke", "long"]).await;
        admin_refused(given, &["token", "revoke", "long"], "no such token").await;
        assert!(!is_valid(&server, "long").await);
        let refused: Value = register_by(&server, "carol", "long").await.refused(401, "M_FORBIDDEN");
        assert!(refused["session"].is_string());
        server.clock.advance(A_CENTURY_MS);
        assert!(!is_valid(&server, "short").await);
        register_by(&server, "carol", "short").await.refused(401, "M_FORBIDDEN");
    }
}
