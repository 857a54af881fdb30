//! Requests to places that somebody else chose: the one client for all of them.
//!
//! A user who names a URL must not be able to reach with it what only this machine or its network can reach. So each
//! connection, however it came about, is made to an address that was looked at after the name was resolved, and to no
//! other (`connect`). What is sent is never redirected, what is asked for (`get`) a few times, each place looked at like
//! the first. No proxy is asked, no cookie is kept; an answer has a size and a time.

mod connect;
mod get;
mod guard;
mod send;
#[cfg(test)]
mod tests;

use std::{error::Error as StdError, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use url::Url;

use self::{
    connect::{Forbidden, Guarded},
    guard::Guard,
};
pub use self::{
    connect::{Resolve, System},
    get::{ContentType, Opened},
};
use crate::config::Outgoing;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("Hearth/", env!("CARGO_PKG_VERSION")));
/// Connections that nobody uses are closed after this time, and more than so many to one host at once.
const IDLE: Duration = Duration::from_secs(60);
const MOST_IDLE: usize = 4;

/// Makes requests. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<HttpsConnector<Guarded>, Full<Bytes>>,
    guard: Arc<Guard>,
}

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the first look at the name to the last byte of the answer.
    pub time: Duration,
    /// Of the answer's body.
    pub bytes: usize,
}

/// What came back. It may be a redirection: nobody went there.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    BadUrl(&'static str),
    #[error("{0} may not be reached from here")]
    Forbidden(String),
    /// It leads to a place that the asker does not want to go to.
    #[error("it leads to where it may not")]
    Unwanted,
    #[error("{0}")]
    Astray(&'static str),
    #[error("no answer in time")]
    TooLate,
    #[error("the answer is too large")]
    TooLarge,
    #[error("{0}")]
    Failed(String),
}

impl HttpClient {
    pub fn new(config: &Outgoing, names: Arc<dyn Resolve>) -> Self {
        let guard = Arc::new(Guard::new(config));
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls()).https_or_http().enable_all_versions();
        let connector = tls.wrap_connector(Guarded::new(Arc::clone(&guard), names));
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build(connector);
        Self { inner, guard }
    }

    /// What is wrong with a URL, as far as it can be told without asking anybody.
    pub fn check(&self, url: &Url) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::BadUrl("a URL begins with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failure::BadUrl("a URL has no name and password in it"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Failure::BadUrl("a URL names a host"))?;
        match connect::literal(host) {
            Some(address) if !self.guard.allows(host, address) => Err(Failure::Forbidden(host.to_owned())),
            _ => Ok(()),
        }
    }

    /// Sends JSON and reads what comes back.
    pub async fn post_json(&self, url: &Url, body: Bytes, bounds: Bounds) -> Result<Answer, Failure> {
        self.check(url)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.as_str())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(header::USER_AGENT, AGENT)
            .body(Full::new(body))
            .map_err(|e| Failure::Failed(e.to_string()))?;
        let exchange = async {
            let answer = self.inner.request(request).await.map_err(|e| failure(&e))?;
            let status = answer.status();
            match Limited::new(answer.into_body(), bounds.bytes).collect().await {
                Ok(body) => Ok(Answer { status, body: body.to_bytes() }),
                Err(e) if e.is::<LengthLimitError>() => Err(Failure::TooLarge),
                Err(e) => Err(failure(&*e)),
            }
        };
        tokio::time::timeout(bounds.time, exchange).await.unwrap_or(Err(Failure::TooLate))
    }
}

/// The innermost reason, which is the one that says something.
fn failure(error: &(dyn StdError + 'static)) -> Failure {
    let mut reason = error;
    loop {
        if let Some(Forbidden(host)) = reason.downcast_ref() {
            return Failure::Forbidden(host.clone());
        }
        match reason.source() {
            Some(source) => reason = source,
            None => return Failure::Failed(reason.to_string()),
        }
    }
}

/// Trusts whom the machine trusts; and where that is nobody, those whom browsers trust.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
