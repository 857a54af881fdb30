//! What is shot at is a server on loopback, which counts who reaches it.

mod get;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, response::IntoResponse as _, routing::post};
use futures_util::{future::BoxFuture, stream};

use super::*;

const BOUNDS: Bounds = Bounds { time: Duration::from_secs(20), bytes: 1_000 };

/// A server that whoever is outside must not reach.
struct Inside {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Inside {
    async fn start() -> Self {
        let connections = Arc::<AtomicUsize>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let endless = || stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b' '; 1_000])));
        let router = Router::new()
            .route("/", post(async |body: String| body))
            .route("/elsewhere", post(async move || away(&format!("http://{address}/"))))
            .route("/to-the-name", post(async move || away(&format!("http://localhost:{}/", address.port()))))
            .route("/endless", post(async move || Body::from_stream(endless())))
            .route("/silent", post(std::future::pending::<String>));
        let counted = Counted { listener, connections: Arc::clone(&connections) };
        tokio::spawn(async move { axum::serve(counted, router).await });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }
}

fn away(to: &str) -> axum::response::Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to.to_owned())]).into_response()
}

struct Counted {
    listener: tokio::net::TcpListener,
    connections: Arc<AtomicUsize>,
}

impl axum::serve::Listener for Counted {
    type Io = tokio::net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let accepted = self.listener.accept().await.expect("a connection");
        self.connections.fetch_add(1, Ordering::SeqCst);
        accepted
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A name server that says something else each time it is asked.
struct Answers(Mutex<Vec<Vec<IpAddr>>>);

impl Answers {
    fn these(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|a| a.parse().expect("an address")).collect();
        Arc::new(Self(Mutex::new(answers.iter().rev().map(parse).collect())))
    }
}

impl Resolve for Answers {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let next = self.0.lock().expect("not poisoned").pop();
        Box::pin(async move { next.ok_or_else(|| io::Error::other("asked too often")) })
    }
}

fn client(names: Arc<dyn Resolve>, allowed: &[&str]) -> HttpClient {
    let outgoing_allowlist = allowed.iter().map(|s| s.parse().expect("a destination")).collect();
    HttpClient::new(&Outgoing { outgoing_allowlist, ..Outgoing::default() }, names)
}

async fn post_to(client: &HttpClient, url: &str) -> Result<Answer, Failure> {
    client.post_json(&url.parse().expect("a URL"), Bytes::from_static(b"{}"), BOUNDS).await
}

#[tokio::test]
async fn cve_2023_32683_what_is_inside_is_not_reached_however_it_is_written() {
    let inside = Inside::start().await;
    let outside = client(Arc::new(System), &[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "１２７.0.0.1",
        "localhost",
        "LOCALHOST",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        let refused = post_to(&outside, &inside.url(host, "/")).await;
        assert!(matches!(refused, Err(Failure::Forbidden(_))), "{host}: {refused:?}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_name_that_only_the_resolver_understands_is_looked_at_when_it_is_resolved() {
    // Past the check of the URL: the forms of an address that the machine's resolver still takes for one.
    let inside = Inside::start().await;
    let outside = client(Arc::new(System), &[]);
    for host in ["2130706433", "0x7f.1", "127.1", "localhost"] {
        let uri = inside.url(host, "/").parse().expect("a URI");
        let refused = Guarded::new(Arc::clone(&outside.guard), Arc::new(System)).connect(uri).await;
        assert!(refused.is_err_and(|e| e.is::<Forbidden>()), "{host}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn what_the_operator_allows_is_reached() {
    let inside = Inside::start().await;
    for allowed in ["127.0.0.1", "127.0.0.0/8"] {
        let outside = client(Arc::new(System), &[allowed]);
        let answer = post_to(&outside, &inside.url("127.0.0.1", "/")).await.expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"{}"[..]));
    }
    let named = client(Arc::new(System), &["localhost"]);
    post_to(&named, &inside.url("localhost", "/")).await.expect("an answer");
    let refused = post_to(&named, &inside.url("127.0.0.1", "/")).await;
    assert!(matches!(refused, Err(Failure::Forbidden(_))), "the name was allowed, not the address: {refused:?}");
}

#[tokio::test]
async fn a_name_that_changes_its_mind_leads_nowhere_else() {
    let inside = Inside::start().await;
    // The first answer passes a look that is not the one which the connection is made by; the second does not.
    let rebinding = client(Answers::these(&[&["127.0.0.1"], &["192.0.2.1", "127.0.0.1"], &["::ffff:127.0.0.1"]]), &[]);
    for _ in 0..3 {
        let refused = post_to(&rebinding, &inside.url("rebind.example", "/")).await;
        assert!(matches!(refused, Err(Failure::Forbidden(_))), "{refused:?}");
    }
    assert_eq!(inside.connections(), 0);
    // Of several addresses only those are tried that may be reached; and the name is asked for once.
    let both = client(Answers::these(&[&["10.0.0.1", "127.0.0.1"]]), &["127.0.0.1"]);
    post_to(&both, &inside.url("both.example", "/")).await.expect("an answer");
    assert_eq!(inside.connections(), 1);
}

#[tokio::test]
async fn cve_2021_21273_and_cve_2024_52594_a_redirection_is_not_followed() {
    let (inside, gateway) = (Inside::start().await, Inside::start().await);
    let outside = client(Arc::new(System), &["127.0.0.1"]);
    for path in ["/elsewhere", "/to-the-name"] {
        let answer = post_to(&outside, &gateway.url("127.0.0.1", path)).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    }
    assert_eq!((inside.connections(), gateway.connections()), (0, 1));
}

#[tokio::test]
async fn cve_2021_21274_and_cve_2022_41952_an_answer_has_an_end() {
    let inside = Inside::start().await;
    let outside = client(Arc::new(System), &["127.0.0.1"]);
    let endless = post_to(&outside, &inside.url("127.0.0.1", "/endless")).await;
    assert!(matches!(endless, Err(Failure::TooLarge)), "{endless:?}");
    let url = inside.url("127.0.0.1", "/silent").parse().expect("a URL");
    let impatient = Bounds { time: Duration::from_millis(50), ..BOUNDS };
    let silent = outside.post_json(&url, Bytes::new(), impatient).await;
    assert!(matches!(silent, Err(Failure::TooLate)), "{silent:?}");
}

#[test]
fn a_url_is_checked_before_anybody_is_asked() {
    let client = client(Answers::these(&[]), &[]);
    let check = |url: &str| client.check(&url.parse().expect("a URL"));
    assert!(check("https://push.example.org/_matrix/push/v1/notify").is_ok());
    assert!(check("http://push.example.org:8080/").is_ok() && check("https://[2606:4700::1111]/").is_ok());
    for bad in [
        "ftp://example.org/",
        "file:///etc/passwd",
        "data:text/plain,x",
        "https://a:b@example.org/",
        "https://a@example.org/",
    ] {
        assert!(matches!(check(bad), Err(Failure::BadUrl(_))), "{bad}");
    }
    for forbidden in ["http://127.0.0.1/", "http://2130706433/", "https://[::1]:8448/", "https://192.168.1.1/"] {
        assert!(matches!(check(forbidden), Err(Failure::Forbidden(_))), "{forbidden}");
    }
}
