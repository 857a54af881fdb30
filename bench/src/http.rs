//! A small HTTP client: keep-alive connections, JSON in and out, and no way to leave this machine.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// Connections are pooled, so a caller that sends one request after the other keeps one warm connection.
#[derive(Clone)]
pub struct Http {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back: any status; what it means is the caller's to say.
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The body of a 200; any other status is an error that shows what the server said.
    pub fn ok(&self) -> Result<Value> {
        ensure!(self.status == StatusCode::OK, "{}: {}", self.status, self.text());
        self.json()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(400)]).into_owned()
    }
}

impl Http {
    /// Refuses any target that is not a loopback address.
    pub fn new(target: &str) -> Result<Self> {
        let base = loopback(target)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(usize::MAX)
            // A request is sent once: the crash runs must know which of theirs reached a server.
            .retry_canceled_requests(false)
            .build(connector);
        Ok(Self { base, client })
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Reply> {
        let body = body.map(serde_json::to_vec).transpose()?;
        self.send_bytes(method, path, token, body.map(Bytes::from), limit).await
    }

    pub async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default()))?;
        tokio::time::timeout(limit, async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok(Reply { status, body })
        })
        .await
        .with_context(|| format!("no reply to {path} within {limit:?}"))?
    }

    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, None, None, Duration::from_secs(10)).await
    }
}

/// `http://127.0.0.1:8008` from a target that names this machine; an error for any other.
fn loopback(target: &str) -> Result<String> {
    let uri: Uri = target.parse().with_context(|| format!("'{target}' is not a URL"))?;
    ensure!(uri.scheme_str() == Some("http"), "'{target}': only http:// is spoken here");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = match host {
        // Not asked of a resolver, which might have an opinion of its own.
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => host.parse::<std::net::IpAddr>().with_context(|| format!("'{target}': name a loopback address"))?,
    };
    if !address.is_loopback() {
        bail!("'{target}' is not a loopback address: this program only loads a server on its own machine");
    }
    Ok(format!("http://{}", std::net::SocketAddr::new(address, uri.port_u16().unwrap_or(80))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_a_target() {
        for good in ["http://127.0.0.1:8008", "http://localhost:8008", "http://127.3.2.1", "http://[::1]:8008"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for bad in [
            "http://10.0.0.1:8008",
            "http://0.0.0.0:8008",
            "http://example.org",
            "http://localhost.example.org",
            "http://127.0.0.1@10.0.0.1",
            "https://127.0.0.1",
            "127.0.0.1:8008",
            "http://[::ffff:10.0.0.1]",
        ] {
            assert!(loopback(bad).is_err(), "{bad}");
        }
    }
}
