//! What is asked for, and where that leads.

use std::collections::HashMap;

use axum::{extract::Request, response::Response, routing::get};
use futures_util::StreamExt as _;
use http::HeaderName;

use super::*;

const TIME: Duration = Duration::from_secs(20);

/// A server that sends its guests on to wherever their query says, and has something of every kind.
async fn site() -> Inside {
    let connections = Arc::<AtomicUsize>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let endless = || Body::from_stream(stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b' '; 1_000]))));
    let router = Router::new()
        .route("/", get(async || ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], "here")))
        .route("/to", get(sent_on))
        .route("/round", get(async || sent_to("/round")))
        .route("/seven", get(counted_down))
        .route("/nowhere", get(async || StatusCode::FOUND))
        .route("/silent", get(std::future::pending::<String>))
        .route("/film", get(async move || ([(header::CONTENT_TYPE, "video/mp4")], endless())))
        .route("/endless", get(async move || ([(header::CONTENT_TYPE, "text/html")], endless())))
        .route("/stalls", get(async || Body::from_stream(begun())))
        .route("/packed", get(async || ([(header::CONTENT_ENCODING, "gzip")], "packed")))
        .route("/asks", get(asked));
    let counted = Counted { listener, connections: Arc::clone(&connections) };
    tokio::spawn(async move { axum::serve(counted, router).await });
    Inside { address, connections }
}

/// A body that begins, and never ends.
fn begun() -> impl stream::Stream<Item = io::Result<&'static str>> + Send {
    stream::iter([Ok("begun")]).chain(stream::pending())
}

fn sent_to(location: &str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, location.to_owned())]).into_response()
}

async fn sent_on(request: Request) -> Response {
    sent_to(request.uri().query().unwrap_or_default())
}

/// `/seven?3` leads to `/seven?2`, and so on.
async fn counted_down(request: Request) -> Response {
    match request.uri().query().and_then(|left| left.parse::<u32>().ok()) {
        Some(left @ 1..) => sent_to(&format!("/seven?{}", left - 1)),
        _ => "arrived".into_response(),
    }
}

/// What came along.
async fn asked(request: Request) -> String {
    let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names.join(" ")
}

/// Names that lead somewhere, as long as nobody asks for them again.
struct Names(Mutex<HashMap<String, Vec<IpAddr>>>);

impl Names {
    fn of(names: &[(&str, &[&str])]) -> Arc<Self> {
        let parse = |addresses: &[&str]| addresses.iter().rev().map(|a| a.parse().expect("an address")).collect();
        Arc::new(Self(Mutex::new(names.iter().map(|(name, a)| ((*name).to_owned(), parse(a))).collect())))
    }
}

impl Resolve for Names {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let next = self.0.lock().expect("not poisoned").get_mut(host).and_then(Vec::pop);
        Box::pin(async move { next.map(|address| vec![address]).ok_or_else(|| io::Error::other("unknown")) })
    }
}

/// Who may reach the site by the name `open`, and nothing inside by any other.
fn outside(names: &[(&str, &[&str])]) -> HttpClient {
    let open: &[(&str, &[&str])] = &[("open.example", &["127.0.0.1"; 9])];
    client(Names::of(&[open, names].concat()), &["open.example"])
}

async fn open_at(client: &HttpClient, url: &str) -> Result<Opened, Failure> {
    client.get(&url.parse().expect("a URL"), &[], TIME, |_| true).await
}

#[tokio::test]
async fn what_is_there_is_known_before_it_is_read() {
    let site = site().await;
    let outside = outside(&[]);
    let opened = open_at(&outside, &site.url("open.example", "/#part")).await.expect("an answer");
    assert_eq!((opened.status, opened.url.path()), (StatusCode::OK, "/"));
    let of = opened.content_type.clone().expect("a type");
    assert_eq!((of.essence.as_str(), of.charset.as_deref()), ("text/html", Some("utf-8")));
    assert_eq!(opened.whole(4).await.expect("a body"), "here");
    let again = open_at(&outside, &site.url("open.example", "/")).await.expect("an answer");
    assert_eq!(again.beginning(3).await.expect("a piece"), "her");
    let packed = open_at(&outside, &site.url("open.example", "/packed")).await;
    assert!(matches!(packed, Err(Failure::Failed(_))), "{packed:?}");
}

#[tokio::test]
async fn a_redirection_is_followed_so_many_times() {
    let site = site().await;
    let outside = outside(&[]);
    let opened = open_at(&outside, &site.url("open.example", "/seven?5")).await.expect("an answer");
    assert_eq!(opened.url.as_str(), site.url("open.example", "/seven?0"));
    assert_eq!(opened.whole(99).await.expect("a body"), "arrived");
    for path in ["/seven?6", "/round"] {
        let lost = open_at(&outside, &site.url("open.example", path)).await;
        assert!(matches!(lost, Err(Failure::Astray(_))), "{lost:?}");
    }
    let nowhere = open_at(&outside, &site.url("open.example", "/nowhere")).await.expect("an answer");
    assert_eq!(nowhere.status, StatusCode::FOUND);
    for bad in ["http://", "http://[x", "ftp://open.example/", "http://a:b@open.example/", "file:///etc/passwd"] {
        let refused = open_at(&outside, &site.url("open.example", &format!("/to?{bad}"))).await;
        assert!(matches!(refused, Err(Failure::Astray(_) | Failure::BadUrl(_))), "{bad}: {refused:?}");
    }
}

#[tokio::test]
async fn cve_2023_32683_and_cve_2021_21392_a_redirection_leads_to_nothing_inside() {
    let (site, inside) = (site().await, Inside::start().await);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "10.0.0.1",
        "inside.example",
        "mapped.example",
        "tunnel.example",
    ] {
        let names: &[(&str, &[&str])] = &[
            ("inside.example", &["127.0.0.1"]),
            ("mapped.example", &["::ffff:127.0.0.1"]),
            ("tunnel.example", &["2002:7f00:1::"]),
        ];
        let outside = outside(names);
        let to = format!("/to?{}", inside.url(host, "/"));
        let refused = open_at(&outside, &site.url("open.example", &to)).await;
        assert!(matches!(refused, Err(Failure::Forbidden(_))), "{host}: {refused:?}");
        let direct = open_at(&outside, &inside.url(host, "/")).await;
        assert!(direct.is_err(), "{host}: {direct:?}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_on_the_way_leads_nowhere_else() {
    let (site, inside) = (site().await, Inside::start().await);
    // It leads outside when it is first asked, to where nobody answers; and inside from then on.
    let outside = outside(&[("rebind.example", &["192.0.2.1", "127.0.0.1", "::1"])]);
    let to = format!("/to?{}", inside.url("rebind.example", "/"));
    for _ in 0..3 {
        let refused = open_at(&outside, &site.url("open.example", &to)).await;
        assert!(matches!(refused, Err(Failure::Forbidden(_))), "{refused:?}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn the_asker_is_asked_for_each_place_on_the_way() {
    let site = site().await;
    let outside = outside(&[]);
    let asked = Mutex::new(Vec::new());
    let may = |url: &Url| {
        asked.lock().expect("not poisoned").push(url.path().to_owned());
        url.path() != "/"
    };
    let to = site.url("open.example", "/to?/to?/");
    let refused = outside.get(&to.parse().expect("a URL"), &[], TIME, may).await;
    assert!(matches!(refused, Err(Failure::Unwanted)), "{refused:?}");
    assert_eq!(*asked.lock().expect("not poisoned"), ["/to", "/to", "/"]);
    let at_once = outside.get(&to.parse().expect("a URL"), &[], TIME, |_| false).await;
    assert!(matches!(at_once, Err(Failure::Unwanted)), "{at_once:?}");
}

#[tokio::test]
async fn what_is_safe_does_not_lead_to_what_is_not() {
    let leads = |from: &str, to: &str| {
        let answer = Response::builder().status(302).header(header::LOCATION, to).body(()).expect("an answer");
        crate::http_client::get::elsewhere(&from.parse().expect("a URL"), answer.status(), answer.headers())
    };
    assert!(matches!(leads("https://a.example/", "http://a.example/"), Err(Failure::Astray(_))));
    let same = leads("https://a.example/x/y", "../z#part").expect("it leads somewhere").expect("elsewhere");
    assert_eq!(same.as_str(), "https://a.example/z");
    assert!(leads("http://a.example/", "https://b.example/").is_ok_and(|to| to.is_some()));
    assert!(leads("https://a.example/", "//b.example/").is_ok_and(|to| to.is_some_and(|to| to.scheme() == "https")));
}

#[tokio::test]
async fn cve_2022_41952_what_has_no_end_is_left_alone() {
    let site = site().await;
    let outside = outside(&[]);
    // Its type is known, and nothing of it is read.
    let film = open_at(&outside, &site.url("open.example", "/film")).await.expect("an answer");
    assert_eq!(film.content_type.map(|of| of.essence).as_deref(), Some("video/mp4"));
    let endless = async || open_at(&outside, &site.url("open.example", "/endless")).await.expect("an answer");
    assert_eq!(endless().await.beginning(2_500).await.expect("a piece").len(), 2_500);
    assert!(matches!(endless().await.whole(2_500).await, Err(Failure::TooLarge)));
}

#[tokio::test]
async fn the_time_is_one_for_all_of_it() {
    let site = site().await;
    let outside = outside(&[]);
    let hurried = async |path: &str| {
        let url = site.url("open.example", path).parse().expect("a URL");
        outside.get(&url, &[], Duration::from_millis(100), |_| true).await
    };
    for path in ["/silent", "/to?/silent"] {
        let late = hurried(path).await;
        assert!(matches!(late, Err(Failure::TooLate)), "{late:?}");
    }
    for whole in [true, false] {
        let stalled = hurried("/stalls").await.expect("an answer");
        let read = if whole { stalled.whole(99).await } else { stalled.beginning(99).await };
        assert!(matches!(read, Err(Failure::TooLate)), "{read:?}");
    }
}

#[tokio::test]
async fn nothing_goes_along_but_what_was_said() {
    let site = site().await;
    let outside = outside(&[]);
    let accept = [(header::ACCEPT, HeaderValue::from_static("text/html"))];
    let url = site.url("open.example", "/to?/asks").parse().expect("a URL");
    let opened = outside.get(&url, &accept, TIME, |_| true).await.expect("an answer");
    assert_eq!(opened.whole(999).await.expect("a body"), "accept host user-agent");
}
