//! What holds for every request, whatever it is about.

use std::{
    num::NonZeroU32,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearth::api::{Api, Client, Optional, Public, Routes};
use hearth_core::{Error, Result};
use reqwest::Method;
use ruma::api::client::{
    discovery::get_supported_versions,
    membership::joined_rooms,
    room::create_room,
    session::get_login_types,
    state::{get_state_event_for_key, send_state_event},
    sync::sync_events,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

use crate::support::{
    Given, Http, Reply,
    server::Server,
    wire::{TOKEN, Wire, limits},
};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

async fn bare_server() -> Server {
    Given::sqlite().server().await
}

#[tokio::test]
async fn an_unknown_path_is_unrecognized() {
    let server = bare_server().await;
    for path in [
        "/_matrix/unknown",
        "/_matrix/client/unknown",
        "/_matrix/client/v3/unknown",
        "/_matrix/client/v3/login/",
        "/_matrix/federation/v1/unknown",
        "/_matrix/key/unknown",
        "/_matrix/media/v3/unknown",
        "/",
    ] {
        server.get(path).await.refused(404, "M_UNRECOGNIZED");
        server.post(path, &json!({})).await.refused(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn a_wrong_method_is_unrecognized() {
    let server = bare_server().await;
    let path = "/_matrix/client/versions";
    server.post(path, &json!({})).await.refused(405, "M_UNRECOGNIZED");
    server.send(server.request(Method::PATCH, path)).await.refused(405, "M_UNRECOGNIZED");
    let head = server.send(server.request(Method::HEAD, path)).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn browsers_may_ask_from_anywhere() {
    let server = bare_server().await;
    for path in ["/_matrix/client/versions", "/_matrix/client/unknown", "/_matrix/media/v3/upload"] {
        let preflight = server.send(server.request(Method::OPTIONS, path)).await;
        assert_eq!((preflight.status, preflight.text.as_str()), (200, ""), "{path}");
        let error = server.get("/_matrix/client/v3/capabilities").await;
        for reply in [preflight, error] {
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{path}");
            let methods = reply.header("access-control-allow-methods").expect("methods");
            assert!(["GET", "POST", "PUT", "DELETE", "OPTIONS"].iter().all(|m| methods.contains(m)), "{methods}");
            let headers = reply.header("access-control-allow-headers").expect("headers");
            assert!(["X-Requested-With", "Content-Type", "Authorization"].iter().all(|h| headers.contains(h)));
        }
    }
    assert_eq!(server.get("/health").await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_request_id_goes_in_and_out() {
    let server = bare_server().await;
    let path = "/_matrix/client/versions";
    let kept = server.send(server.request(Method::GET, path).header("x-request-id", "proxy-7")).await;
    assert_eq!(kept.header("x-request-id"), Some("proxy-7"));
    let forged = server.send(server.request(Method::GET, path).header("x-request-id", "a b\"c")).await;
    assert_ne!(forged.header("x-request-id"), Some("a b\"c"));
    let ours = |reply: &Reply| reply.header("x-request-id").expect("an id").to_owned();
    assert_ne!(ours(&server.get(path).await), ours(&server.get(path).await));
}

async fn create(_: Api, _: Client<create_room::v3::Request>) -> Result<create_room::v3::Response> {
    Ok(create_room::v3::Response::new("!room:test.example".try_into().map_err(Error::internal)?))
}

/// Answers with the state key.
async fn state(
    _: Api,
    req: Client<get_state_event_for_key::v3::Request>,
) -> Result<get_state_event_for_key::v3::Response> {
    let body = serde_json::value::to_raw_value(&req.body.state_key).map_err(Error::internal)?;
    Ok(get_state_event_for_key::v3::Response::new(body))
}

async fn send_state(_: Api, req: Client<send_state_event::v3::Request>) -> Result<send_state_event::v3::Response> {
    assert_eq!(req.body.state_key, "");
    Ok(send_state_event::v3::Response::new("$event".try_into().map_err(Error::internal)?))
}

/// Answers with the address of the client.
async fn address(_: Api, req: Public<get_supported_versions::Request>) -> Result<get_supported_versions::Response> {
    Ok(get_supported_versions::Response::new(vec![req.ip.to_string()]))
}

struct Alice<'a>(&'a Http);

impl Alice<'_> {
    async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.0.send(self.0.request(method, path).bearer_auth(TOKEN).body(body)).await
    }
}

const CREATE: &str = "/_matrix/client/v3/createRoom";

#[tokio::test]
async fn who_asks_comes_first() {
    let wire = Wire::start(limits(), |r| r.client(create)).await;
    let http = Http::to(wire.address());
    http.post(CREATE, &json!({ "name": 3 })).await.refused(401, "M_MISSING_TOKEN");
    let unknown = http.send(http.request(Method::POST, CREATE).bearer_auth("nobodys")).await;
    assert_eq!(unknown.refused(401, "M_UNKNOWN_TOKEN")["soft_logout"], false);
    http.post(&format!("{CREATE}?access_token={TOKEN}"), &json!({})).await.ok();
    // Nobody waits for the body of a stranger.
    let mut stream = TcpStream::connect(wire.address()).await.expect("a connection");
    let head = format!("POST {CREATE} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("half a request");
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.expect("an answer").expect("text");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn a_token_that_is_sent_must_be_a_known_one() {
    async fn flows(_: Api, req: Optional<get_login_types::v3::Request>) -> Result<get_login_types::v3::Response> {
        if req.auth.is_some() { Err(Error::forbidden("known")) } else { Ok(get_login_types::v3::Response::new(vec![])) }
    }
    let wire = Wire::start(limits(), |r| r.optional(flows)).await;
    let http = Http::to(wire.address());
    http.get("/_matrix/client/v3/login").await.ok();
    let with = |token| http.send(http.request(Method::GET, "/_matrix/client/v3/login").bearer_auth(token));
    with(TOKEN).await.refused(403, "M_FORBIDDEN");
    with("nobodys").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_body_has_to_be_what_the_endpoint_wants() {
    let wire = Wire::start(limits(), |r| r.client(create).with_limit(1000).client(state).client(send_state)).await;
    let http = Http::to(wire.address());
    let alice = Alice(&http);
    alice.send(Method::POST, CREATE, "").await.ok();
    alice.send(Method::POST, "/_matrix/client/r0/createRoom", "{}").await.ok();
    alice.send(Method::POST, CREATE, "{").await.refused(400, "M_NOT_JSON");
    alice.send(Method::POST, CREATE, &b"{\"x\":\"a\x81\"}"[..]).await.refused(400, "M_NOT_JSON");
    alice.send(Method::POST, CREATE, "{\"name\":3}").await.refused(400, "M_BAD_JSON");
    alice.send(Method::POST, CREATE, "[]").await.refused(400, "M_BAD_JSON");
    alice.send(Method::POST, CREATE, "x".repeat(1001)).await.refused(413, "M_TOO_LARGE");

    let bad = alice.send(Method::GET, "/_matrix/client/v3/rooms/nonsense/state/m.room.name/", "").await;
    bad.refused(400, "M_INVALID_PARAM");
    let bad = alice.send(Method::GET, "/_matrix/client/v3/rooms/%81/state/m.room.name/", "").await;
    bad.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn the_configuration_limits_every_body() {
    let wire = Wire::start(limits(), |r| r.client(create).raw_body()).await;
    let http = Http::to(wire.address());
    Alice(&http).send(Method::POST, CREATE, "x".repeat(100_001)).await.refused(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn a_state_key_may_be_left_out_or_hold_anything() {
    let wire = Wire::start(limits(), |r| r.client(state).client(send_state)).await;
    let http = Http::to(wire.address());
    let alice = Alice(&http);
    let path = "/_matrix/client/v3/rooms/!a:b.c/state/m.room.name";
    for (path, key) in [
        (path.to_owned(), ""),
        (format!("{path}/"), ""),
        (format!("{path}/key"), "key"),
        (format!("{path}/a%2Fb%20%C3%A4"), "a/b ä"),
    ] {
        assert_eq!(alice.send(Method::GET, &path, "").await.ok(), key, "{path}");
    }
    alice.send(Method::PUT, path, "{}").await.ok();
    alice.send(Method::PUT, &format!("{path}/"), "{}").await.ok();
    alice.send(Method::PUT, path, "[").await.refused(400, "M_NOT_JSON");
}

#[tokio::test]
async fn a_proxy_says_who_the_client_is() {
    let wire = Wire::start(limits(), |r| r.public(address)).await;
    let http = Http::to(wire.address());
    let path = "/_matrix/client/versions";
    assert_eq!(http.get(path).await.ok()["versions"][0], "127.0.0.1");
    let forwarded = http.request(Method::GET, path).header("x-forwarded-for", "6.6.6.6, 9.9.9.9");
    assert_eq!(http.send(forwarded).await.ok()["versions"][0], "9.9.9.9");

    let mut strict = limits();
    strict.trusted.clear();
    let wire = Wire::start(strict, |r| r.public(address)).await;
    let http = Http::to(wire.address());
    let forwarded = http.request(Method::GET, path).header("x-forwarded-for", "9.9.9.9");
    assert_eq!(http.send(forwarded).await.ok()["versions"][0], "127.0.0.1");
}

#[tokio::test]
async fn a_panic_costs_its_own_request_only() {
    async fn flows(_: Api, _: Public<get_login_types::v3::Request>) -> Result<get_login_types::v3::Response> {
        panic!("on purpose");
    }
    async fn creates(_: Api, _: Client<create_room::v3::Request>) -> Result<create_room::v3::Response> {
        panic!("on purpose");
    }
    let wire = Wire::start(limits(), |r| r.public(flows).client(creates).public(address)).await;
    let http = Http::to(wire.address());
    let body = http.get("/_matrix/client/v3/login").await.refused(500, "M_UNKNOWN");
    assert_eq!(body["error"], "Internal server error");
    Alice(&http).send(Method::POST, CREATE, "").await.refused(500, "M_UNKNOWN");
    http.get("/_matrix/client/versions").await.ok();
}

#[tokio::test]
async fn a_write_goes_on_when_its_client_hangs_up() {
    #[derive(Default)]
    struct Stages {
        begun: Notify,
        go_on: Notify,
        done: Notify,
    }
    let stages = Arc::new(Stages::default());
    let handler = {
        let stages = stages.clone();
        move |_: Api, _: Client<create_room::v3::Request>| {
            let stages = stages.clone();
            async move {
                stages.begun.notify_one();
                stages.go_on.notified().await;
                stages.done.notify_one();
                Err::<create_room::v3::Response, _>(Error::unknown("nobody hears this"))
            }
        }
    };
    let wire = Wire::start(limits(), |r| r.client(handler)).await;
    let mut stream = TcpStream::connect(wire.address()).await.expect("a connection");
    let head = format!("POST {CREATE}?access_token={TOKEN} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
    stream.write_all(head.as_bytes()).await.expect("a request");
    timeout(LONG, stages.begun.notified()).await.expect("the handler begins");
    drop(stream);
    // A stop waits for it, too.
    let mut stopped = pin!(wire.stop(LONG));
    assert!(timeout(SHORT, &mut stopped).await.is_err(), "a stop waits for the write");
    stages.go_on.notify_one();
    assert!(timeout(LONG, stopped).await.expect("the stop ends"));
    timeout(LONG, stages.done.notified()).await.expect("the handler ended");
}

#[tokio::test]
async fn a_stop_answers_those_who_wait() {
    // A long poll as it should be: it returns when the server stops.
    let begun = Arc::new(Notify::new());
    let sync = {
        let begun = begun.clone();
        move |api: Api, _: Client<sync_events::v3::Request>| {
            let begun = begun.clone();
            async move {
                begun.notify_one();
                api.shutdown.said().await;
                Ok(sync_events::v3::Response::new("next".into()))
            }
        }
    };
    let wire = Wire::start(limits(), |r| r.client(sync).public(address)).await;
    let http = Http::to(wire.address());
    // Neither an idle connection nor a silent one holds up the stop.
    http.get("/_matrix/client/versions").await.ok();
    let _silent = TcpStream::connect(wire.address()).await.expect("a connection");
    let waiting = tokio::spawn({
        let http = http.clone();
        async move { Alice(&http).send(Method::GET, "/_matrix/client/v3/sync?timeout=30000", "").await }
    });
    timeout(LONG, begun.notified()).await.expect("the handler begins");

    let address = wire.address();
    assert!(timeout(LONG, wire.stop(LONG)).await.expect("a quick stop"), "everybody was answered");
    assert_eq!(waiting.await.expect("a reply").ok()["next_batch"], "next");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let begun = Arc::new(Notify::new());
    let handler = {
        let begun = begun.clone();
        move |_: Api, _: Client<joined_rooms::v3::Request>| {
            let begun = begun.clone();
            async move {
                begun.notify_one();
                std::future::pending::<Result<joined_rooms::v3::Response>>().await
            }
        }
    };
    let wire = Wire::start(limits(), |r| r.client(handler)).await;
    let http = Http::to(wire.address());
    let path = "/_matrix/client/v3/joined_rooms";
    let stuck = tokio::spawn(http.request(Method::GET, path).bearer_auth(TOKEN).send());
    timeout(LONG, begun.notified()).await.expect("the handler begins");
    assert!(!wire.stop(SHORT).await, "somebody was not answered");
    assert!(stuck.await.expect("an outcome").is_err(), "the connection is cut");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_who_has_asked_nothing() {
    let mut patient = limits();
    patient.head = Duration::from_secs(3600);
    let wire = Wire::start(patient, |r: Routes| r.public(address)).await;
    let mut silent = Vec::new();
    for start in ["", "PRI * HT"] {
        let mut stream = TcpStream::connect(wire.address()).await.expect("a connection");
        stream.write_all(start.as_bytes()).await.expect("a few bytes");
        silent.push(stream);
    }
    // Whoever is answered came after them.
    let mut stream = TcpStream::connect(wire.address()).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("a request");
    assert!(rest(stream).await.starts_with("HTTP/1.1 404"));
    assert!(wire.stop(Duration::from_secs(3600)).await);
}

#[tokio::test]
async fn a_wait_ends_with_its_client() {
    struct Gone(Arc<Notify>, Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
            self.0.notify_one();
        }
    }
    let (begun, gone, was) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let handler = {
        let (begun, gone, was) = (begun.clone(), gone.clone(), was.clone());
        move |_: Api, _: Client<create_room::v3::Request>| {
            let (begun, guard) = (begun.clone(), Gone(gone.clone(), was.clone()));
            async move {
                begun.notify_one();
                let outcome = std::future::pending::<Result<create_room::v3::Response>>().await;
                drop(guard);
                outcome
            }
        }
    };
    let wire = Wire::start(limits(), |r| r.client(handler).waits()).await;
    let http = Http::to(wire.address());
    let asking = tokio::spawn(http.request(Method::POST, CREATE).bearer_auth(TOKEN).send());
    timeout(LONG, begun.notified()).await.expect("the handler begins");
    assert!(!was.load(Ordering::SeqCst));
    asking.abort();
    timeout(LONG, gone.notified()).await.expect("the handler ends with its client");
}

/// What a connection says until it is closed.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = timeout(LONG, stream.read_to_end(&mut text)).await.expect("the connection is closed");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_stalled_connection_is_cut() {
    let mut quick = limits();
    quick.head = Duration::from_millis(300);
    let wire = Wire::start(quick, |r: Routes| r.public(address).client(create)).await;
    let connect = async || TcpStream::connect(wire.address()).await.expect("a connection");

    // Silence, the beginning of either protocol, and half a head.
    for start in ["", "G", "PRI * HT", "GET /_matrix/client/versions HTTP/1.1\r\nhost"] {
        let mut stream = connect().await;
        stream.write_all(start.as_bytes()).await.expect("a few bytes");
        rest(stream).await;
    }
    // Idle after a request.
    let mut stream = connect().await;
    stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    assert!(rest(stream).await.starts_with("HTTP/1.1 200"));
    // Half a body.
    let mut stream = connect().await;
    let head = format!("POST {CREATE}?access_token={TOKEN} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.expect("half a request");
    let answer = rest(stream).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("in time"), "{answer}");
}

#[tokio::test]
async fn a_short_request_may_take_long_to_answer() {
    async fn slow(_: Api, req: Public<get_supported_versions::Request>) -> Result<get_supported_versions::Response> {
        tokio::time::sleep(Duration::from_millis(600)).await;
        Ok(get_supported_versions::Response::new(vec![req.ip.to_string()]))
    }
    let mut quick = limits();
    quick.head = Duration::from_millis(300);
    let wire = Wire::start(quick, |r| r.public(slow).plain("/", async |_| http::Response::new("hi".into()))).await;
    let http = Http::to(wire.address());
    http.get("/_matrix/client/versions").await.ok();
    // Shorter than the preface of HTTP/2 by which the protocol is told.
    let mut stream = TcpStream::connect(wire.address()).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("a request");
    assert!(rest(stream).await.ends_with("hi"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let mut quick = limits();
    quick.write = Duration::from_millis(300);
    // More than the kernel takes on behalf of a client.
    let large = async |_| http::Response::new("x".repeat(64 << 20).into());
    let wire = Wire::start(quick, |r| r.plain("/large", large)).await;
    let mut stream = TcpStream::connect(wire.address()).await.expect("a connection");
    stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").await.expect("a request");
    // A connection that hangs would hold up the stop for all its patience.
    let mut first = [0];
    timeout(LONG, stream.read_exact(&mut first)).await.expect("the answer begins").expect("a byte");
    assert!(wire.stop(LONG).await);
    drop(stream);
}

#[tokio::test]
async fn more_connections_than_allowed_have_to_wait() {
    let mut narrow = limits();
    narrow.connections = NonZeroU32::new(1).expect("not zero");
    let wire = Wire::start(narrow, |r| r.public(address)).await;
    let ask = async || {
        let mut stream = TcpStream::connect(wire.address()).await.expect("a connection");
        stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
        stream
    };
    let mut buffer = [0; 12];
    let mut first = ask().await;
    timeout(LONG, first.read_exact(&mut buffer)).await.expect("an answer").expect("bytes");
    let mut second = ask().await;
    assert!(timeout(SHORT, second.read_exact(&mut buffer)).await.is_err(), "the only place is taken");
    drop(first);
    timeout(LONG, second.read_exact(&mut buffer)).await.expect("an answer").expect("bytes");
    assert_eq!(&buffer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn http2_is_spoken_too() {
    let wire = Wire::start(limits(), |r| r.public(address)).await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    let url = format!("http://{}/_matrix/client/versions", wire.address());
    let reply = client.get(url).send().await.expect("a reply");
    assert_eq!((reply.status().as_u16(), reply.version()), (200, reqwest::Version::HTTP_2));
}
