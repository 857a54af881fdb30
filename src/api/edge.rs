//! What surrounds each request: its id, the address it came from, CORS, panics, the access log and the metrics.

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts as _, RawPathParams, Request},
    routing::MethodRouter,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use hearth_core::{
    Error, Result,
    clock::{Rng, random_string},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::{
    Api,
    extract::{self, Call, Incoming},
    pages::ForPeople,
    respond,
    router::{BodyKind, Route},
};
use crate::{config::Subnet, telemetry::name};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Around the router.
pub(super) struct Edge {
    router: Router,
    trusted: Vec<Subnet>,
    rng: Arc<dyn Rng>,
}

/// What the edge knows of a request, for those within.
#[derive(Clone)]
struct Origin {
    id: Arc<str>,
    ip: IpAddr,
}

/// The template of the path that a response belongs to: a label that takes few values, unlike a path.
#[derive(Clone)]
struct Template(Arc<str>);

impl Edge {
    pub(super) fn new(router: Router, trusted: Vec<Subnet>, rng: Arc<dyn Rng>) -> Self {
        Self { router, trusted, rng }
    }

    pub(super) async fn answer(&self, peer: SocketAddr, mut request: Request) -> Response<Body> {
        let start = Instant::now();
        let in_flight = metrics::gauge!(name::HTTP_IN_FLIGHT);
        in_flight.increment(1);
        let _leave = scopeguard(move || in_flight.decrement(1));

        let id = request_id(request.headers(), &*self.rng);
        let ip = client_address(peer.ip(), request.headers(), &self.trusted);
        let method = request.method().clone();
        let cors = is_matrix(request.uri().path());
        request.extensions_mut().insert(Origin { id: id.clone(), ip });

        let mut response = if cors && method == Method::OPTIONS {
            preflight()
        } else {
            match self.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };

        let cors = cors && response.extensions().get::<ForPeople>().is_none();
        let headers = response.headers_mut();
        if cors {
            allow_all_origins(headers);
        }
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, value);
        }
        let template = response.extensions_mut().remove::<Template>().map_or_else(|| "none".into(), |t| t.0);
        record(&method, template, response.status(), start.elapsed(), &id, ip);
        response
    }
}

fn record(method: &Method, route: Arc<str>, status: StatusCode, took: Duration, id: &str, ip: IpAddr) {
    let method = known_method(method);
    let (code, ms) = (status.as_u16(), took.as_secs_f64() * 1000.0);
    if status.is_server_error() {
        tracing::info!(target: "hearth::access", %id, %ip, method, %route, status = code, ms, "answered");
    } else {
        tracing::debug!(target: "hearth::access", %id, %ip, method, %route, status = code, ms, "answered");
    }
    metrics::histogram!(name::HTTP_DURATION, "method" => method, "route" => route.clone()).record(took);
    metrics::counter!(name::HTTP_REQUESTS, "method" => method, "route" => route, "status" => status.as_str().to_owned())
        .increment(1);
}

/// Anybody can invent a method; a label must not grow by that.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

fn is_matrix(path: &str) -> bool {
    path.starts_with("/_matrix/") || path.starts_with("/.well-known/matrix/")
}

/// <https://spec.matrix.org/v1.18/client-server-api/#web-browser-clients>
fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    // Else browsers ask again before nearly every request.
    response.headers_mut().insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

fn allow_all_origins(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS, PATCH, HEAD"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization"),
    );
}

/// The id that a proxy gave the request if it is a decent one, else one of ours.
fn request_id(headers: &HeaderMap, rng: &dyn Rng) -> Arc<str> {
    let decent = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).filter(decent) {
        Some(id) => id.into(),
        None => random_string(rng, 16).into(),
    }
}

/// The last hop that is not a proxy of ours: each proxy appends the address it was called from, so what stands left of
/// the first stranger (from the right) may be invented.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Subnet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|subnet| subnet.contains(ip));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let hops: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    for hop in hops.into_iter().rev() {
        // Some proxies add the port.
        let hop = hop.trim();
        let parsed = hop.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|a| a.ip()));
        let Ok(ip) = parsed else { break };
        client = ip.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Runs something when it is dropped.
fn scopeguard<F: FnOnce()>(f: F) -> impl Drop {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(f) = self.0.take() {
                f();
            }
        }
    }
    Guard(Some(f))
}

/// A page for GET that takes nothing from the request.
pub(super) fn page<H, F>(path: &'static str, handler: H) -> MethodRouter
where
    H: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let template = Template(path.into());
    axum::routing::get(async move || {
        let mut response = handler().await;
        response.extensions_mut().insert(template);
        response
    })
}

/// One endpoint at work.
#[derive(Clone)]
pub(super) struct Endpoint {
    api: Api,
    route: Arc<Route>,
    template: Template,
    running: TaskTracker,
}

impl Endpoint {
    pub(super) fn new(api: Api, route: Route, template: Arc<str>, running: TaskTracker) -> Self {
        Self { api, route: Arc::new(route), template: Template(template), running }
    }

    /// The request is boxed, as it goes through many hands, and each of them would keep room for it as long as it waits.
    pub(super) async fn serve(self, request: Box<Request>) -> Response<Body> {
        let origin = request.extensions().get::<Origin>().cloned();
        let origin = origin.unwrap_or_else(|| Origin { id: "none".into(), ip: std::net::Ipv4Addr::UNSPECIFIED.into() });
        let template = self.template.clone();
        let span = tracing::info_span!(
            "request",
            id = %origin.id,
            method = %request.method(),
            route = %template.0,
            user = tracing::field::Empty
        );
        let mut response = self.guarded(request, origin.ip).instrument(span).await;
        response.extensions_mut().insert(template);
        response
    }

    async fn guarded(self, request: Box<Request>, ip: IpAddr) -> Response<Body> {
        let running = self.running.clone();
        let waits = self.route.waits;
        let work = async move {
            let answer = match Box::pin(self.call(*request, ip)).await {
                Ok(call) => (self.route.handler)(self.api.clone(), call).await,
                Err(e) => Err(e),
            };
            answer.unwrap_or_else(|e| (self.route.refuse)(&self.api, &e))
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        let outcome = if waits {
            work.await
        } else {
            // A write that has begun is brought to its end, even when its client hangs up.
            running.spawn(work.in_current_span()).await.unwrap_or_else(|e| Err(Box::new(e)))
        };
        outcome.unwrap_or_else(|_| {
            metrics::counter!(name::HTTP_PANICS).increment(1);
            tracing::error!("a handler panicked");
            respond::internal()
        })
    }

    /// Authentication first: who is not known, or asks too often, shall not make us read a body.
    async fn call(&self, request: Request, ip: IpAddr) -> Result<Call> {
        let (mut parts, body) = request.into_parts();
        let auth = extract::session(&self.api, &parts, ip, self.route.token).await?;
        if let Some(session) = &auth {
            tracing::Span::current().record("user", session.user_id.as_str());
        }
        if let Some(what) = self.route.rate {
            match &auth {
                Some(session) => self.api.limits.user(what, session, 1).await?,
                None => self.api.limits.address(what, ip).await?,
            }
        }
        let patience = Duration::from_secs(self.api.config.http.request_body_timeout_s);
        let incoming = Incoming::new(body, self.route.limit, patience)?;
        let (body, unread) = match self.route.body {
            BodyKind::Json => (extract::json_body(extract::read_body(incoming).await?)?, None),
            BodyKind::Raw => (extract::read_body(incoming).await?, None),
            BodyKind::Streamed => (Bytes::new(), Some(incoming)),
        };
        let args = path_args(&mut parts).await?;
        Ok(Call { parts, body, unread, args, auth, ip })
    }
}

async fn path_args(parts: &mut Parts) -> Result<Vec<String>> {
    match RawPathParams::from_request_parts(parts, &()).await {
        // No identifier has a NUL, and Postgres holds none in a text.
        Ok(params) if params.iter().any(|(_, value)| value.contains('\0')) => {
            Err(Error::invalid_param("A NUL in the path"))
        }
        Ok(params) => Ok(params.iter().map(|(_, value)| value.to_owned()).collect()),
        Err(e) => Err(Error::invalid_param(e.body_text())),
    }
}

#[cfg(test)]
mod tests {
    use hearth_core::clock::SeededRng;

    use super::*;

    fn forwarded(peer: &str, hops: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for hop in hops {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(hop).expect("a header"));
        }
        let trusted: Vec<Subnet> = ["127.0.0.0/8", "10.0.0.0/8"].map(|s| s.parse().expect("a subnet")).into();
        client_address(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(forwarded("1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
        assert_eq!(forwarded("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(forwarded("127.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(forwarded("::ffff:127.0.0.1", &["9.9.9.9"]), "9.9.9.9");
    }

    #[test]
    fn what_stands_left_of_the_first_stranger_is_not_believed() {
        assert_eq!(forwarded("127.0.0.1", &["8.8.8.8, 9.9.9.9"]), "9.9.9.9");
        assert_eq!(forwarded("127.0.0.1", &["8.8.8.8, 9.9.9.9, 10.0.0.7"]), "9.9.9.9");
        assert_eq!(forwarded("127.0.0.1", &["8.8.8.8", "9.9.9.9", "10.0.0.7"]), "9.9.9.9");
        assert_eq!(forwarded("127.0.0.1", &["8.8.8.8, nonsense, 10.0.0.7"]), "10.0.0.7");
        assert_eq!(forwarded("127.0.0.1", &["10.0.0.8, 10.0.0.7"]), "10.0.0.8");
        assert_eq!(forwarded("127.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
    }

    #[test]
    fn a_decent_request_id_is_kept() {
        let rng = SeededRng::new(1);
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).expect("a header"));
            request_id(&headers, &rng).to_string()
        };
        assert_eq!(id("abc-1_2.3"), "abc-1_2.3");
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_ne!(id(bad), bad);
        }
        assert_eq!(request_id(&HeaderMap::new(), &rng).len(), 16);
    }
}
