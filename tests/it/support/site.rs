//! A web site, which remembers how often somebody looked at what.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream;

/// What is to be seen at a path.
#[derive(Clone, Debug)]
pub enum Page {
    Of {
        content_type: &'static str,
        body: Vec<u8>,
    },
    To(String),
    Fails(u16),
    /// Sends its beginning, then spaces for ever.
    Endless {
        content_type: &'static str,
        begins: &'static str,
    },
    /// Never answers.
    Silent,
}

#[derive(Clone, Default)]
struct Inner {
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    looks: Arc<Mutex<BTreeMap<String, usize>>>,
}

pub struct Site {
    address: SocketAddr,
    inner: Inner,
}

impl Site {
    pub async fn start() -> Self {
        Self::start_at([127, 0, 0, 1].into()).await
    }

    pub async fn start_at(ip: IpAddr) -> Self {
        let inner = Inner::default();
        let router = Router::new().fallback(look).with_state(inner.clone());
        let listener = tokio::net::TcpListener::bind((ip, 0)).await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, inner }
    }

    pub fn shows(&self, path: &str, page: Page) {
        self.inner.pages.lock().expect("not poisoned").insert(path.to_owned(), page);
    }

    /// A page in HTML.
    pub fn has(&self, path: &str, html: impl Into<Vec<u8>>) {
        self.shows(path, Page::Of { content_type: "text/html", body: html.into() });
    }

    /// Something else.
    pub fn has_a(&self, content_type: &'static str, path: &str, body: impl Into<Vec<u8>>) {
        self.shows(path, Page::Of { content_type, body: body.into() });
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn url_by(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    /// How often somebody looked at this.
    pub fn looks_at(&self, path: &str) -> usize {
        self.inner.looks.lock().expect("not poisoned").get(path).copied().unwrap_or_default()
    }

    /// How often somebody looked at anything.
    pub fn looks(&self) -> usize {
        self.inner.looks.lock().expect("not poisoned").values().sum()
    }
}

async fn look(State(inner): State<Inner>, request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *inner.looks.lock().expect("not poisoned").entry(path.clone()).or_default() += 1;
    let page = inner.pages.lock().expect("not poisoned").get(&path).cloned();
    let of = |content_type: &'static str, body: Body| {
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    };
    let empty = |status: StatusCode| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    };
    match page.unwrap_or(Page::Fails(404)) {
        Page::Of { content_type, body } => of(content_type, body.into()),
        Page::To(location) => {
            let mut response = empty(StatusCode::FOUND);
            response.headers_mut().insert(header::LOCATION, location.parse().expect("a header"));
            response
        }
        Page::Fails(status) => empty(StatusCode::from_u16(status).expect("a status")),
        Page::Endless { content_type, begins } => {
            let rest = stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b' '; 1_000])));
            let whole = stream::StreamExt::chain(stream::iter([Ok(Bytes::from_static(begins.as_bytes()))]), rest);
            of(content_type, Body::from_stream(whole))
        }
        Page::Silent => std::future::pending().await,
    }
}
