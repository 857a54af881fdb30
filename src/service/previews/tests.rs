//! Pictures: where they may come from, and what is kept of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use axum::{Router, body::Body, extract::Request, response::IntoResponse as _};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::*;
use crate::{config::Outgoing, http_client::System};

/// Keeps pictures in memory, and counts them.
#[derive(Default)]
struct Album(Mutex<Vec<(Bytes, String, Option<String>)>>);

impl Album {
    fn pictures(&self) -> Vec<(Bytes, String, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl KeepImage for Album {
    fn keep(&self, bytes: Bytes, content_type: &str, name: Option<&str>) -> BoxFuture<'_, Result<KeptImage>> {
        let mut album = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = bytes.starts_with(b"no picture");
        let kept = KeptImage {
            mxc: format!("mxc://test.example/{}", album.len()).into(),
            width: Some(640),
            height: None,
            bytes: bytes.len() as u64,
            content_type: content_type.to_owned(),
        };
        if !refused {
            album.push((bytes, content_type.to_owned(), name.map(str::to_owned)));
        }
        let answer = if refused { Err(Error::invalid_param("no picture")) } else { Ok(kept) };
        Box::pin(std::future::ready(answer))
    }
}

type Pages = BTreeMap<&'static str, (&'static str, Vec<u8>)>;

/// A site on loopback: a path has a type and a body, or for the type `to` the place it redirects to. How many asked.
async fn site(pages: Pages) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let (pages, seen) = (Arc::new(pages), Arc::clone(&asked));
    let look = move |request: Request| {
        let path = request.uri().path().to_owned();
        let page = pages.get(path.as_str()).cloned();
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        std::future::ready(match page {
            None => StatusCode::NOT_FOUND.into_response(),
            Some(("to", place)) => (StatusCode::FOUND, [(header::LOCATION, place)]).into_response(),
            Some((content_type, body)) => ([(header::CONTENT_TYPE, content_type)], Body::from(body)).into_response(),
        })
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(look)).await });
    (address, asked)
}

/// Looks at pages of 127.0.0.1, and at nothing that is called `localhost`.
fn look(pictures: Option<Arc<dyn KeepImage>>) -> Look {
    let config = UrlPreview {
        url_preview_domain_explicit_allowlist: vec!["127.0.0.1".into()],
        url_preview_domain_explicit_denylist: vec!["localhost".into()],
        ..UrlPreview::default()
    };
    let allowed = ["127.0.0.1", "cdn.example"].map(|to| to.parse().expect("a destination"));
    let outgoing = Outgoing { outgoing_allowlist: allowed.into(), ..Outgoing::default() };
    let http = HttpClient::new(&outgoing, Arc::new(Cdn));
    Look::new(&config, Lists::new(&config), http, pictures)
}

/// A name for this machine that is neither allowed nor denied.
struct Cdn;

impl crate::http_client::Resolve for Cdn {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        match host {
            "cdn.example" => Box::pin(std::future::ready(Ok(vec![[127, 0, 0, 1].into()]))),
            _ => System.addresses(host),
        }
    }
}

fn png() -> (&'static str, Vec<u8>) {
    ("image/png", b"a picture".to_vec())
}

fn page_with(picture: &str) -> (&'static str, Vec<u8>) {
    let html = format!(
        "<title>Page</title><meta property=og:image content='{picture}'><meta property=og:image:alt content='A cat'>\
         <meta property=og:image:width content=1>"
    );
    ("text/html", html.into_bytes())
}

async fn at(look: &Look, address: SocketAddr, path: &str) -> (Value, bool) {
    let seen = look.at(&format!("http://{address}{path}").parse().expect("a URL")).await.expect("a look");
    (Value::Object(seen.told), seen.is_whole)
}

#[tokio::test]
async fn the_picture_of_a_page_is_kept() {
    let pages = [("/page", page_with("/cat%201.png")), ("/cat%201.png", png())];
    let (address, _) = site(pages.into()).await;
    let album = Arc::new(Album::default());
    let told = json!({
        "og:title": "Page", "og:image": "mxc://test.example/0", "og:image:type": "image/png", "og:image:width": 640,
        "og:image:alt": "A cat", "matrix:image:size": 9,
    });
    assert_eq!(at(&look(Some(album.clone())), address, "/page").await, (told, true));
    assert_eq!(album.pictures(), [(Bytes::from("a picture"), "image/png".to_owned(), Some("cat 1.png".to_owned()))]);
    // Where nobody keeps them they are not fetched.
    assert_eq!(at(&look(None), address, "/page").await, (json!({ "og:title": "Page" }), true));
}

#[tokio::test]
async fn a_picture_may_be_what_was_linked_to() {
    let pages = [("/cat.png", png()), ("/bad.png", ("image/png", b"no picture".to_vec()))];
    let (address, _) = site(pages.into()).await;
    let album = Arc::new(Album::default());
    let look = look(Some(album));
    let told = json!({
        "og:title": "cat.png", "og:image": "mxc://test.example/0", "og:image:type": "image/png", "og:image:width": 640,
        "matrix:image:size": 9,
    });
    assert_eq!(at(&look, address, "/cat.png").await, (told, true));
    assert_eq!(at(&look, address, "/bad.png").await, (json!({ "og:title": "bad.png" }), false));
}

#[tokio::test]
async fn cve_2023_32683_a_picture_comes_from_where_it_may() {
    let (cdn, asked_of_cdn) = site([("/cat.png", png())].into()).await;
    let by = |name: &str| format!("http://{name}:{}/cat.png", cdn.port());
    let pages = [
        ("/cdn", page_with(&by("cdn.example"))),
        ("/denied", page_with(&by("localhost"))),
        ("/to-denied", page_with("/on")),
        ("/on", ("to", by("localhost").into_bytes())),
        ("/inside", page_with(&by("[::ffff:127.0.0.2]"))),
        ("/to-inside", page_with("/in")),
        ("/in", ("to", by("127.0.0.2").into_bytes())),
        ("/nobody", page_with("http://nobody.invalid/cat.png")),
    ];
    let (address, _) = site(pages.into()).await;
    let look = look(Some(Arc::<Album>::default()));
    for path in ["/denied", "/to-denied", "/inside", "/to-inside", "/nobody"] {
        assert_eq!(at(&look, address, path).await, (json!({ "og:title": "Page" }), false), "{path}");
    }
    assert!(asked_of_cdn.lock().unwrap_or_else(PoisonError::into_inner).is_empty());
    // A page of another place would not be looked at; its pictures are.
    let (told, is_whole) = at(&look, address, "/cdn").await;
    assert!(is_whole && told["og:image"] == "mxc://test.example/0", "{told}");
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_is_left() {
    let large = |bytes: usize| ("image/png", vec![0; bytes]);
    let pages = [
        ("/a", page_with("/a.svg")),
        ("/a.svg", ("image/svg+xml", b"<svg/>".to_vec())),
        ("/b", page_with("/b.html")),
        ("/b.html", ("text/html", b"a picture".to_vec())),
        ("/c", page_with("/c.png")),
        ("/c.png", large((5 << 20) + 1)),
        ("/d", page_with("/d.png")),
        ("/d.png", ("image/png", b"no picture".to_vec())),
        ("/e", page_with("/e.png")),
        ("/fits", page_with("/fits.png")),
        ("/fits.png", large(5 << 20)),
    ];
    let (address, _) = site(pages.into()).await;
    let album = Arc::new(Album::default());
    let look = look(Some(album.clone()));
    for path in ["/a", "/b", "/c", "/d", "/e"] {
        assert_eq!(at(&look, address, path).await, (json!({ "og:title": "Page" }), false), "{path}");
    }
    assert!(album.pictures().is_empty());
    assert_eq!(at(&look, address, "/fits").await.0["matrix:image:size"], 5 << 20);
}
