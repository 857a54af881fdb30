//! A client that says what it expected.

use std::net::SocketAddr;

use reqwest::{Method, header::HeaderMap};
use serde_json::Value;

/// Speaks to one server.
#[derive(Clone)]
pub struct Http {
    inner: reqwest::Client,
    base: String,
}

/// One answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    what: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Http {
    pub fn to(address: SocketAddr) -> Self {
        let inner = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { inner, base: format!("http://{address}") }
    }

    /// For what the methods below don't offer: headers, bodies that are not JSON. Ends with [`Http::send`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.inner.request(method, format!("{}{path}", self.base))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        self.send_for_bytes(request).await.0
    }

    /// The same where the answer is no text.
    pub async fn send_for_bytes(&self, request: reqwest::RequestBuilder) -> (Reply, Vec<u8>) {
        let request = request.build().expect("a request");
        let what = format!("{} {}", request.method(), request.url().path());
        let reply = self.inner.execute(request).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let bytes = reply.bytes().await.unwrap_or_else(|e| panic!("{what}: {e}")).to_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (Reply { what, status, headers, text }, bytes)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::PUT, path).json(body)).await
    }
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}: {}", self.what, self.text);
        self.json()
    }

    /// The body of a refusal.
    #[track_caller]
    pub fn refused(&self, status: u16, errcode: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["errcode"].as_str()), (status, Some(errcode)), "{}: {}", self.what, self.text);
        body
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{}: {e} in {:?}", self.what, self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}
