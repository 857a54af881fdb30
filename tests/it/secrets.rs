//! What must not be found: neither in the log, however much of it is asked for, nor in metrics, refusals or the database.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use std::{process::Stdio, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
    sync::mpsc,
    time::timeout,
};

use crate::support::{
    Given, Http,
    browser::{APP, Browser, HOME},
    bucket::Bucket,
    each_backend,
    gateway::{Gateway, pusher},
    people::{Person, escaped},
    provider::{Provider, SECRET},
    site::{Page, Site},
};

const LONG: Duration = Duration::from_secs(20);
const PASSWORD: &str = "planted-password-one";
const SECOND: &str = "planted-password-two";
const WRONG: &str = "planted-password-wrong";
const SHARED: &str = "planted-shared-secret";
const INVITED: &str = "planted-registration-token";
const DATABASE: &str = "planted-database-password";
/// In what people write, keep and publish: stored, of course, but nobody's to read in a log.
const PRIVATE: &str = "planted-private";

/// The address of a database with a password in it. One that trusts everybody doesn't look at it.
fn with_password(url: &str) -> String {
    let (before, after) = url.split_once('@').unwrap();
    let (scheme, user) = before.split_once("://").unwrap();
    let user = user.split(':').next().unwrap();
    format!("{scheme}://{user}:{DATABASE}@{after}")
}

/// Says, keeps and publishes what is nobody else's business; also what is refused.
async fn has_secrets(person: &Person, reader: &Person) {
    let gateway = Gateway::start().await;
    let private = |what: &str| format!("{PRIVATE} {what}");
    let room = person.creates(json!({ "preset": "public_chat", "topic": private("topic") })).await;
    reader.joins(&room).await;
    reader.post("/pushers/set", pusher(&gateway.url(), &private("pushkey"))).await.ok();
    let said = person.says(&room, &private("words")).await;
    gateway.is_told_of(&said).await;
    // One that knows nothing of the pushkey, and one that fails.
    gateway.rejects(&private("pushkey"));
    person.says(&room, &private("words for nobody")).await;
    let rejected = async { while !reader.pushkeys().await.is_empty() {} };
    timeout(LONG, rejected).await.expect("the pusher goes");
    gateway.fails_with(500);
    reader.post("/pushers/set", pusher(&gateway.url(), &private("another pushkey"))).await.ok();
    let tries = gateway.tries();
    person.says(&room, &private("words that are not taken")).await;
    gateway.was_tried(tries + 1).await;

    let file = person.uploading(private("file"), "text/plain", &format!("?filename={PRIVATE}.txt"));
    let uri = person.http().send(file).await.ok()["content_uri"].as_str().unwrap().replace("mxc://", "");
    assert_eq!(reader.downloads(&uri).await.bytes, private("file").into_bytes());
    reader.downloads(&format!("{uri}/{PRIVATE}.txt")).await.is(200, private("file").as_bytes());
    // What somebody links to: what is there, what leads to it, what is not there, not allowed and none.
    let site = Site::start().await;
    site.has(
        &format!("/{PRIVATE}"),
        format!("<title>{PRIVATE}</title><meta property=og:image content=/{PRIVATE}.png>"),
    );
    site.shows(&format!("/to-{PRIVATE}?a={PRIVATE}"), Page::To(format!("/{PRIVATE}")));
    for link in [
        site.url(&format!("/{PRIVATE}")),
        site.url(&format!("/to-{PRIVATE}?a={PRIVATE}")),
        site.url(&format!("/no-{PRIVATE}")),
        format!("http://10.0.0.1/{PRIVATE}"),
        format!("no link {PRIVATE}"),
    ] {
        let path = format!("/_matrix/client/v1/media/preview_url?url={}", escaped(&link));
        person.http().send(person.http().request(Method::GET, &path).bearer_auth(&person.token)).await;
    }
    assert!(site.looks() >= 4);

    let note = json!({ "messages": { &reader.id: { "*": { "note": private("note") } } } });
    person.put("/sendToDevice/m.note/t", note).await.ok();
    let (user, r) = (format!("/user/{}", person.id), escaped(&room));
    person.put(&format!("{user}/account_data/m.note"), json!({ "a": private("data") })).await.ok();
    person.put(&format!("{user}/rooms/{r}/tags/u.{PRIVATE}"), json!({ "order": 0.5 })).await.ok();
    let word = json!({ "pattern": private("word"), "actions": ["notify"] });
    person.put(&format!("/pushrules/global/content/{PRIVATE}"), word).await.ok();
    let backup = json!({ "algorithm": "m", "auth_data": { "a": private("backup") } });
    let version = person.post("/room_keys/version", backup).await.ok()["version"].clone();
    let version = version.as_str().unwrap();
    let mut key = json!({ "first_message_index": 0, "forwarded_count": 0, "is_verified": false });
    key["session_data"] = json!({ "ciphertext": private("key") });
    person.put(&format!("/room_keys/keys/{r}/s?version={version}"), key).await.ok();
    let one_time = json!({ "one_time_keys": { "org.example:A": { "key": private("one-time key") } } });
    person.post("/keys/upload", one_time).await.ok();
    // What is looked up, followed and kept of it.
    let (device, _) = person.publishes().await;
    let one_time = json!({ "one_time_keys": crate::e2ee::one_time(person, &["A"], false) });
    person.uploads(one_time).await.ok();
    let claim = json!({ "one_time_keys": { &person.id: { &person.device: "signed_curve25519" } } });
    reader.post("/keys/claim", claim).await.ok();
    reader.post("/keys/query", json!({ "device_keys": { &person.id: [] } })).await.ok();
    person.post("/keys/signatures/upload", json!({ &person.id: { private("device"): { "a": private("b") } } })).await;
    drop(device);
    person.get(&format!("/room_keys/keys?version={version}")).await.ok();
    reader.get("/notifications?limit=5").await.ok();
    for (path, body) in [
        ("v1/rooms/ROOM/relations/EVENT?recurse=true", None),
        ("unstable/io.element.msc4306/rooms/ROOM/thread/EVENT/subscription", Some(json!({}))),
        (
            "unstable/org.matrix.msc3814.v1/dehydrated_device",
            Some(
                json!({ "device_id": "D", "device_data": { "algorithm": private("a"), "device_pickle": private("p") } }),
            ),
        ),
    ] {
        let path = format!("/_matrix/client/{}", path.replace("ROOM", &r).replace("EVENT", &escaped(&said)));
        let method = if body.is_some() { Method::PUT } else { Method::GET };
        let request = reader.http().request(method, &path).bearer_auth(&reader.token);
        reader.http().send(if let Some(body) = body { request.json(&body) } else { request }).await;
    }
    let slide = json!({
        "conn_id": PRIVATE, "lists": { PRIVATE: { "ranges": [[0, 9]], "timeline_limit": 9, "required_state": [["*", "*"]] } },
        "extensions": { "to_device": { "enabled": true }, "account_data": { "enabled": true } },
    });
    for reader in [person, reader] {
        reader.slides("timeout=0", &slide).await.ok();
    }

    person
        .put("/presence/@alice:test.example/status", json!({ "presence": "online", "status_msg": private("status") }))
        .await;

    for (path, body) in [
        ("/keys/upload", json!({ "device_keys": { "user_id": private("user") } })),
        ("/keys/device_signing/upload", json!({ "master_key": { "user_id": private("user") } })),
        ("/pushers/set", json!({ "kind": "http", "pushkey": [private("pushkey")] })),
        ("/createRoom", json!({ "name": [private("name")] })),
    ] {
        assert!(person.post(path, body).await.status >= 400);
    }
    let too_deep = format!("[\"{PRIVATE}\"");
    let request = person.http().request(Method::PUT, &format!("/_matrix/client/v3{user}/account_data/m.note"));
    person.http().send(request.bearer_auth(&person.token).body(too_deep)).await.refused(400, "M_NOT_JSON");
    let filter = escaped(&json!({ "room": { "timeline": { "types": [PRIVATE] } } }).to_string());
    for reader in [person, reader] {
        reader.sync(&format!("timeout=0&filter={filter}")).await;
        reader.sync("timeout=0").await;
        reader.reads(&room, "messages?dir=b").await.ok();
    }
}

/// Logs in elsewhere. What proves something on the way.
async fn comes_by(provider: &Provider, browser: &Browser, http: &Http) -> Vec<String> {
    provider.knows(json!({ "sub": "1", "sid": "s", "preferred_username": "dora", "name": format!("{PRIVATE} name") }));
    let back = browser.comes_back("house", APP).await;
    let state: url::Url = back.parse().unwrap();
    let mut secrets: Vec<String> =
        state.query_pairs().filter(|(key, _)| key == "state").map(|(_, value)| value.into_owned()).collect();
    let asked = browser.opens(&back).await;
    let token = browser.sends(&asked, "/_hearth/sso/leave", &[("go", "yes")]).await.token();
    let login = json!({ "type": "m.login.token", "token": token });
    let welcome = http.post("/_matrix/client/v3/login", &login).await.ok();
    secrets.extend([asked.ticket(), token, welcome["access_token"].as_str().unwrap().to_owned()]);
    secrets.extend(browser.cookies().into_values());
    assert_eq!(http.post("/_matrix/client/v3/login", &login).await.status, 403);
    let unused = browser.begins("house", APP).await;
    let unused = browser.sends(&unused, "/_hearth/sso/leave", &[("go", "yes")]).await.token();
    let said = provider.says_logged_out("x", &json!({ "sub": "1" }));
    let url = format!("{HOME}/_hearth/sso/backchannel/house");
    assert_eq!(browser.asks(Method::POST, &url, Some(&[("logout_token", &said)])).await.status, 200);
    // Where it stopped once more.
    browser.comes_back("house", APP).await;
    secrets.extend([unused, said]);
    secrets.extend(browser.cookies().into_values());
    secrets
}

/// Runs the program with all the log there is, lets somebody live a short life on it, and stops it. What it wrote, what it
/// measured and what it said to who was refused; and the access tokens that it gave out.
async fn live_a_life(given: &Given, bucket: &Bucket) -> (String, Vec<String>) {
    let config = given.config();
    let provider = Provider::start().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.current_dir(given.dir()).env_clear().kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    for option in [
        "port=0",
        "log=\"trace\"",
        "log_format=\"json\"",
        "server_name=\"test.example\"",
        "allow_registration=true",
        "outgoing_allowlist=[\"127.0.0.1\"]",
        "url_preview_domain_contains_allowlist=[\"*\"]",
        "rate_limit.enabled=false",
        "metrics_port=0",
    ] {
        command.args(["-O", option]);
    }
    for (key, value) in bucket.options() {
        command.args(["-O", &format!("{key}=\"{value}\"")]);
    }
    command.args(["-O", &format!("registration_token=\"{INVITED}\"")]);
    command.args(["-O", &format!("well_known.client=\"{HOME}\"")]);
    let issuer = provider.issuer();
    command.args([
        "-O",
        &format!(
            "identity_provider=[{{ id = \"house\", issuer_url = \"{issuer}\", client_id = \"x\", client_secret = \"{SECRET}\" }}]"
        ),
    ]);
    command.args(["-O", &format!("registration_shared_secret=\"{SHARED}\"")]);
    command.args(["-O", &format!("database_path=\"{}\"", config.database.database_path.display())]);
    if let Some(url) = &config.database.database_url {
        let url = with_password(url.expose());
        command.args(["-O", "database_backend=\"postgres\"", "-O", &format!("database_url=\"{url}\"")]);
    }
    let mut server = command.spawn().unwrap();
    let mut errors = server.stderr.take().unwrap();
    let errors = tokio::spawn(async move {
        let mut all = String::new();
        errors.read_to_string(&mut all).await.unwrap();
        all
    });

    let (send, mut lines) = mpsc::unbounded_channel();
    let mut output = BufReader::new(server.stdout.take().unwrap()).lines();
    let reader = tokio::spawn(async move {
        let mut all = String::new();
        while let Ok(Some(line)) = output.next_line().await {
            // First where the API is, then where the metrics are.
            if let Some((_, url)) = line.split_once(" on http://") {
                let _ = send.send(url.split(['"', '/']).next().unwrap().parse().unwrap());
            }
            all.push_str(&line);
            all.push('\n');
        }
        all
    });
    let address = timeout(LONG, lines.recv()).await.unwrap().expect("a server");
    let http = Http::to(address);
    let metrics = Http::to(timeout(LONG, lines.recv()).await.unwrap().expect("its metrics"));
    // What is said to who is refused may be kept by whatever is between.
    let mut told = Vec::new();

    let mut tokens = Vec::new();
    let asked = http.post("/_matrix/client/v3/register", &json!({})).await.json();
    let auth =
        |token: &str| json!({ "type": "m.login.registration_token", "token": token, "session": asked["session"] });
    let body = |token: &str| json!({ "username": "alice", "password": PASSWORD, "auth": auth(token) });
    let refused = http.post("/_matrix/client/v3/register", &body(&format!("{INVITED} not"))).await;
    assert_eq!(refused.status, 401);
    told.push(refused.text);
    http.get(&format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={INVITED}")).await;
    let body = body(INVITED);
    let alice = http.post("/_matrix/client/v3/register", &body).await.ok();
    tokens.push(alice["access_token"].as_str().unwrap().to_owned());
    let login = |password: &str| json!({ "type": "m.login.password", "user": "alice", "password": password });
    let again = http.post("/_matrix/client/v3/login", &login(PASSWORD)).await.ok();
    tokens.push(again["access_token"].as_str().unwrap().to_owned());
    let wrong = http.post("/_matrix/client/v3/login", &login(WRONG)).await;
    wrong.refused(403, "M_FORBIDDEN");
    // A body that can't be read, and a token in the query.
    let odd = json!({ "type": "m.login.password", "password": [PASSWORD] });
    told.extend([wrong, http.post("/_matrix/client/v3/login", &odd).await].map(|reply| reply.text));
    http.get(&format!("/_matrix/client/v3/account/whoami?access_token={}", tokens[0])).await.ok();
    told.push(http.get(&format!("/_matrix/client/v3/nowhere?access_token={}", tokens[0])).await.text);
    let room = http.request(Method::POST, "/_matrix/client/v3/createRoom").bearer_auth(&tokens[0]).json(&json!({}));
    let room = http.send(room).await.ok()["room_id"].as_str().unwrap().to_owned();
    let send = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/t?access_token={}", tokens[0]);
    http.put(&send, &json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
    http.get(&format!("/_matrix/client/v3/sync?timeout=0&access_token={}", tokens[0])).await.ok();
    http.get(&format!("/_matrix/client/v3/sync?since=odd&access_token={}", tokens[0]))
        .await
        .refused(400, "M_INVALID_PARAM");
    let proof = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "password": PASSWORD });
    let change = http.request(Method::POST, "/_matrix/client/v3/account/password").bearer_auth(&tokens[0]);
    http.send(change.json(&json!({ "new_password": SECOND, "auth": proof }))).await.ok();
    let alice = http.post("/_matrix/client/v3/login", &login(SECOND)).await.ok();
    let asked = http.post("/_matrix/client/v3/register", &json!({})).await.json();
    let auth = json!({ "type": "m.login.registration_token", "token": INVITED, "session": asked["session"] });
    let bob = json!({ "username": "bob", "password": PASSWORD, "auth": auth });
    let bob = http.post("/_matrix/client/v3/register", &bob).await.ok();
    has_secrets(&Person::from(&http, &alice), &Person::from(&http, &bob)).await;
    let mistaken = json!({ "nonce": "n", "username": "carol", "password": PASSWORD, "mac": SHARED });
    told.push(http.post("/_synapse/admin/v1/register", &mistaken).await.text);
    let refresh = json!({ "refresh_token": tokens[0] });
    told.push(http.post("/_matrix/client/v3/refresh", &refresh).await.text);
    http.send(http.request(Method::POST, "/_matrix/client/v3/logout").bearer_auth(&tokens[0])).await.ok();
    let mut last = login(SECOND);
    last["refresh_token"] = true.into();
    let last = http.post("/_matrix/client/v3/login", &last).await.ok();
    let renewed =
        http.post("/_matrix/client/v3/refresh", &json!({ "refresh_token": last["refresh_token"] })).await.ok();
    for answer in [last, renewed] {
        for key in ["access_token", "refresh_token"] {
            tokens.push(answer[key].as_str().unwrap().to_owned());
        }
    }

    // Its own clock is that of the world, and so is the provider's here.
    provider.lives_now();
    tokens.extend(comes_by(&provider, &Browser::at(format!("http://{address}")), &http).await);

    let measured = metrics.get("/metrics").await.text;
    assert!(measured.contains("hearth_"), "{measured}");
    told.push(measured);

    let pid = server.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(timeout(LONG, server.wait()).await.unwrap().unwrap().success());
    (reader.await.unwrap() + &errors.await.unwrap() + &told.join("\n"), tokens)
}

each_backend! {
    async fn cve_2023_41335_no_secret_is_logged_or_stored(given: Given) {
        let bucket = Bucket::new();
        let (log, tokens) = live_a_life(given, &bucket).await;
        assert!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the whole log was asked for");
        let stored = given.everything_stored().await;
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let found = |secret: &str| {
            let forms = [secret.to_owned(), hex(secret.as_bytes()), STANDARD.encode(secret)];
            forms.iter().any(|form| stored.windows(form.len()).any(|w| w == form.as_bytes()))
        };
        assert!(found("@alice:test.example"), "what is stored is looked at");
        let planted = [PASSWORD, SECOND, WRONG, SHARED, INVITED, DATABASE, SECRET, bucket.secret()];
        for secret in planted.into_iter().chain(tokens.iter().map(String::as_str)) {
            for line in log.lines() {
                assert!(!line.contains(secret), "{line}");
            }
            assert!(!found(secret), "{secret} is stored as it is");
        }
        assert!(found(PRIVATE), "what people keep is kept");
        for line in log.lines() {
            assert!(!line.contains(PRIVATE), "{line}");
        }
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let given = Given::sqlite();
    for url in
        ["postgres://somebody:planted-database-password@127.0.0.1:1/x", "postgres://a:planted-database-password@:x"]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.current_dir(given.dir()).env_clear().kill_on_drop(true);
        for option in ["port=0", "log=\"trace\"", "server_name=\"test.example\"", "database_backend=\"postgres\""] {
            command.args(["-O", option]);
        }
        command.args(["-O", &format!("database_url=\"{url}\"")]);
        let output = timeout(LONG, command.output()).await.expect("an end").unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("database"), "{said}");
        assert!(!said.contains(DATABASE), "{said}");
    }
}
