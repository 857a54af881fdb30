//! What stands around a file that is sent: what a browser may do with it, and which part of it this is.

use std::ops::Range;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hearth_core::{
    Error,
    media::{headers, sniff::Sniffed},
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::api::respond;

/// Nothing in a file runs, loads or frames anything, whatever its type, if somebody opens it by itself.
///
/// <https://spec.matrix.org/v1.18/client-server-api/#content-repository>
const POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; \
     media-src 'self'; object-src 'self'; frame-ancestors 'none'",
);
const CROSS_ORIGIN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Who may have it from a cache in between.
#[derive(Clone, Copy)]
pub(super) enum Audience {
    Users,
    Anybody,
}

/// What is said of a file.
pub(super) struct Shown<'a> {
    pub(super) content_type: &'a str,
    /// What its bytes say that it is.
    pub(super) sniffed: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) audience: Audience,
}

/// What of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is there already.
    Nothing,
    /// None: all of it.
    Part(Option<Range<u64>>),
    /// A part that there isn't.
    Beyond,
}

/// The same content is the same tag, on every server.
pub(super) fn etag(sha256: &[u8]) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(sha256))
}

/// What of a file of this size is wanted. Of several parts, as of anything that is no part, all is sent.
///
/// <https://www.rfc-editor.org/rfc/rfc9110#section-14>
pub(super) fn wanted(asked: &HeaderMap, etag: &str, bytes: u64) -> Wanted {
    let text = |name| asked.get(name).and_then(|value| value.to_str().ok());
    let is_this = |tag: &str| tag.trim().trim_start_matches("W/") == etag;
    if text(header::IF_NONE_MATCH).is_some_and(|tags| tags.trim() == "*" || tags.split(',').any(is_this)) {
        return Wanted::Nothing;
    }
    // Files don't change, but it may be another that the client has a part of.
    if text(header::IF_RANGE).is_some_and(|tag| !is_this(tag)) {
        return Wanted::Part(None);
    }
    let Some((from, to)) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return Wanted::Part(None);
    };
    let range = match (number(from), number(to)) {
        (Some(from), Some(to)) if from > to => return Wanted::Part(None),
        (Some(from), Some(to)) => from..to.saturating_add(1).min(bytes),
        (Some(from), None) if to.trim().is_empty() => from..bytes,
        // The last so many.
        (None, Some(last)) if from.trim().is_empty() => bytes.saturating_sub(last)..bytes,
        _ => return Wanted::Part(None),
    };
    if range.is_empty() { Wanted::Beyond } else { Wanted::Part(Some(range)) }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A file, or a part of it.
pub(super) fn file(shown: &Shown<'_>, etag: &str, bytes: u64, part: Option<Range<u64>>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let (length, status) = match &part {
        Some(part) => (part.end - part.start, StatusCode::PARTIAL_CONTENT),
        None => (bytes, StatusCode::OK),
    };
    *response.status_mut() = status;
    let all = response.headers_mut();
    describe(all, shown, etag);
    all.insert(header::CONTENT_LENGTH, length.into());
    all.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(part) = part {
        all.insert(header::CONTENT_RANGE, value(&format!("bytes {}-{}/{bytes}", part.start, part.end - 1)));
    }
    response
}

/// The client has it.
pub(super) fn not_modified(shown: &Shown<'_>, etag: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    describe(response.headers_mut(), shown, etag);
    response
}

/// There is no such part.
pub(super) fn beyond(bytes: u64) -> Response<Body> {
    let kind = hearth_core::Kind::RangeNotSatisfiable;
    let mut response = respond::error(&Error::new(kind, "The file does not have this part"));
    response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{bytes}")));
    response
}

fn describe(all: &mut HeaderMap, shown: &Shown<'_>, etag: &str) {
    let Shown { content_type, sniffed, name, audience } = *shown;
    let content_type = headers::decent_type(Some(content_type));
    let inline = headers::is_inline(&content_type, Sniffed::named(sniffed));
    all.insert(header::CONTENT_TYPE, value(headers::told_type(&content_type)));
    all.insert(header::CONTENT_DISPOSITION, value(&headers::disposition(inline, name)));
    all.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    all.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    all.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    all.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Clients in browsers are pages of other servers.
    all.insert(CROSS_ORIGIN, HeaderValue::from_static("cross-origin"));
    all.insert(header::ETAG, value(etag));
    // What an id stands for never changes.
    all.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static(match audience {
            Audience::Users => "private, max-age=31536000, immutable",
            Audience::Anybody => "public, max-age=31536000, immutable",
        }),
    );
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("what was made here has no character that a header may not have")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(range: &str, bytes: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, value(range));
        wanted(&headers, "\"tag\"", bytes)
    }

    #[test]
    fn a_part_is_what_was_asked_for() {
        for (range, part) in [("bytes=0-0", 0..1), ("bytes=2-5", 2..6), ("bytes=2-", 2..10), ("bytes=-3", 7..10)] {
            assert_eq!(asks(range, 10), Wanted::Part(Some(part)), "{range}");
        }
        assert_eq!(asks("bytes=8-99", 10), Wanted::Part(Some(8..10)));
        assert_eq!(asks("bytes=-99", 10), Wanted::Part(Some(0..10)));
        assert_eq!(asks("bytes=0-18446744073709551615", 10), Wanted::Part(Some(0..10)));
        for range in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(asks(range, 10), Wanted::Beyond, "{range}");
        }
        assert_eq!(asks("bytes=0-", 0), Wanted::Beyond);
    }

    #[test]
    fn what_is_no_part_is_all_of_it() {
        for range in
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=+1-2"]
        {
            assert_eq!(asks(range, 10), Wanted::Part(None), "{range}");
        }
        assert_eq!(wanted(&HeaderMap::new(), "\"tag\"", 10), Wanted::Part(None));
    }

    #[test]
    fn what_is_there_already_is_not_sent() {
        let with = |name: HeaderName, tag: &str, range: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value(tag));
            if range {
                headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-2"));
            }
            wanted(&headers, "\"tag\"", 10)
        };
        for tag in ["\"tag\"", "W/\"tag\"", "\"other\", \"tag\"", "*"] {
            assert_eq!(with(header::IF_NONE_MATCH, tag, false), Wanted::Nothing, "{tag}");
        }
        assert_eq!(with(header::IF_NONE_MATCH, "\"other\"", false), Wanted::Part(None));
        assert_eq!(with(header::IF_RANGE, "\"tag\"", true), Wanted::Part(Some(1..3)));
        assert_eq!(with(header::IF_RANGE, "\"other\"", true), Wanted::Part(None));
    }
}
