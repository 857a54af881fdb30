//! Files that people share.

mod copied;
mod durable;
mod killed;
mod pending;
mod served;
mod shared;
mod thumbnails;
mod tidied;

use reqwest::{Method, RequestBuilder, header};
use serde_json::Value;

use crate::support::{Http, Reply, people::Person};

/// A picture of one pixel.
pub(super) const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDAT\
    x\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\xab\x03\x82Z\0\0\0\0IEND\xaeB`\x82";

/// What somebody got who asked for a file.
pub(crate) struct Got {
    pub(super) reply: Reply,
    pub(crate) bytes: Vec<u8>,
}

impl Got {
    #[track_caller]
    pub(crate) fn is(&self, status: u16, bytes: &[u8]) -> &Self {
        assert_eq!(self.reply.status, status, "{}", self.reply.text);
        assert!(self.bytes == bytes, "{} bytes, not the {} that were expected", self.bytes.len(), bytes.len());
        self
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.reply.header(name).unwrap_or_default()
    }
}

pub(super) async fn gets(http: &Http, request: RequestBuilder) -> Got {
    let (reply, bytes) = http.send_for_bytes(request).await;
    Got { reply, bytes }
}

impl Person {
    pub(crate) fn uploading(&self, bytes: impl Into<reqwest::Body>, content_type: &str, query: &str) -> RequestBuilder {
        let request = self.http().request(Method::POST, &format!("/_matrix/media/v3/upload{query}"));
        request.bearer_auth(&self.token).header(header::CONTENT_TYPE, content_type).body(bytes)
    }

    /// Uploads something; the part of its URI after the scheme.
    pub(super) async fn shares(&self, bytes: impl Into<reqwest::Body>, content_type: &str) -> String {
        self.shares_as(bytes, content_type, "").await
    }

    pub(super) async fn shares_as(&self, bytes: impl Into<reqwest::Body>, content_type: &str, query: &str) -> String {
        uri(&self.http().send(self.uploading(bytes, content_type, query)).await.ok())
    }

    pub(super) fn downloading(&self, uri: &str) -> RequestBuilder {
        self.http().request(Method::GET, &format!("/_matrix/client/v1/media/download/{uri}")).bearer_auth(&self.token)
    }

    pub(crate) async fn downloads(&self, uri: &str) -> Got {
        gets(self.http(), self.downloading(uri)).await
    }

    pub(super) async fn reserves(&self) -> Reply {
        let request = self.http().request(Method::POST, "/_matrix/media/v1/create").bearer_auth(&self.token);
        self.http().send(request.json(&serde_json::json!({}))).await
    }

    pub(super) async fn uploads_to(&self, uri: &str, bytes: &'static [u8]) -> Reply {
        let request = self.http().request(Method::PUT, &format!("/_matrix/media/v3/upload/{uri}"));
        let request = request.bearer_auth(&self.token).header(header::CONTENT_TYPE, "image/png").body(bytes);
        self.http().send(request).await
    }
}

/// `server/id`
pub(super) fn uri(reply: &Value) -> String {
    let uri = reply["content_uri"].as_str().unwrap_or_else(|| panic!("no URI in {reply}"));
    uri.strip_prefix("mxc://").expect("an mxc: URI").to_owned()
}
