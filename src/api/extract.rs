//! From a request to what a handler takes: first who is asking, then the body, then its type.

use std::{net::IpAddr, time::Duration};

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use hearth_core::{Error, Kind, Result};
use http::{HeaderMap, Method, header, request::Parts};
use http_body_util::BodyExt as _;
use ruma::api::{
    IncomingRequest, IncomingRequestExt as _,
    auth_scheme::extract_bearer_or_query_token,
    error::{DeserializationError, FromHttpRequestError, HeaderDeserializationError},
};
use serde_json::error::Category;
use tokio::time::{Instant, timeout_at};

use super::Api;
use crate::service::session::Session;

/// A request of a user with an access token.
pub struct Client<R> {
    pub body: R,
    pub auth: Session,
    pub ip: IpAddr,
}

/// A request of anybody.
pub struct Public<R> {
    pub body: R,
    pub ip: IpAddr,
}

/// A request of anybody, who may have an access token.
pub struct Optional<R> {
    pub body: R,
    pub auth: Option<Session>,
    pub ip: IpAddr,
}

/// A request of a user who sends a file, which has not been read.
pub struct Upload<R> {
    pub body: R,
    pub auth: Session,
    /// How much it says that there is.
    pub length: Option<u64>,
    pub file: Incoming,
}

/// A request for a file, of a user or, where the endpoint takes no token, of anybody.
pub struct Download<R> {
    pub body: R,
    /// What it says of the part that it wants, and of what it has.
    pub headers: HeaderMap,
    /// It wants to know of the file, and not to have it.
    pub head: bool,
}

/// A request whose sender is known and whose body is read: everything but its type.
pub(super) struct Call {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    /// Instead of `body`, where the endpoint reads it piece by piece.
    pub(super) unread: Option<Incoming>,
    pub(super) args: Vec<String>,
    pub(super) auth: Option<Session>,
    pub(super) ip: IpAddr,
}

/// What an endpoint does with an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Required,
    Optional,
    Ignored,
}

impl<R: IncomingRequest> Client<R> {
    pub(super) fn from_call(mut call: Call) -> Result<Self> {
        let auth = call.auth.take().ok_or_else(missing_token)?;
        Ok(Self { ip: call.ip, body: parse(call)?, auth })
    }
}

impl<R: IncomingRequest> Public<R> {
    pub(super) fn from_call(call: Call) -> Result<Self> {
        Ok(Self { ip: call.ip, body: parse(call)? })
    }
}

impl<R: IncomingRequest> Optional<R> {
    pub(super) fn from_call(mut call: Call) -> Result<Self> {
        Ok(Self { ip: call.ip, auth: call.auth.take(), body: parse(call)? })
    }
}

impl<R: IncomingRequest> Upload<R> {
    pub(super) fn from_call(mut call: Call) -> Result<Self> {
        let auth = call.auth.take().ok_or_else(missing_token)?;
        let file = call.unread.take().ok_or_else(|| Error::internal("the body was read before its endpoint"))?;
        Ok(Self { length: file.length(), body: parse(call)?, auth, file })
    }
}

impl<R: IncomingRequest> Download<R> {
    pub(super) fn from_call(call: Call) -> Result<Self> {
        let (headers, head) = (call.parts.headers.clone(), call.parts.method == Method::HEAD);
        Ok(Self { body: parse(call)?, headers, head })
    }
}

fn missing_token() -> Error {
    Error::new(Kind::MissingToken, "Missing access token")
}

/// Who sent this request, as far as the endpoint wants to know.
pub(super) async fn session(api: &Api, parts: &Parts, ip: IpAddr, token: Token) -> Result<Option<Session>> {
    if token == Token::Ignored {
        return Ok(None);
    }
    let Some(secret) = access_token(parts) else {
        return if token == Token::Required { Err(missing_token()) } else { Ok(None) };
    };
    let session = api.sessions.authenticate(&secret).await?;
    let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
    api.sessions.seen(&session, ip, agent);
    Ok(Some(session))
}

/// From the Authorization header, else from the query. A header of another scheme counts as none.
fn access_token(parts: &Parts) -> Option<String> {
    let mut probe = http::Request::new(());
    *probe.uri_mut() = parts.uri.clone();
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        probe.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    extract_bearer_or_query_token(&probe).ok().flatten().filter(|token| !token.is_empty())
}

/// Slower senders than this run into the time limit.
const SLOWEST_BYTES_PER_SECOND: u64 = 8 << 10;

/// A body of up to `limit` bytes that comes in piece by piece. The time limit grows with what has come in, so that a large
/// upload over a slow line gets through while a connection that drips does not.
pub struct Incoming {
    body: Body,
    limit: usize,
    got: usize,
    start: Instant,
    patience: Duration,
}

impl Incoming {
    pub(super) fn new(body: Body, limit: usize, patience: Duration) -> Result<Self> {
        let incoming = Self { body, limit, got: 0, start: Instant::now(), patience };
        if incoming.body.size_hint().lower() > limit as u64 { Err(incoming.too_large()) } else { Ok(incoming) }
    }

    fn too_large(&self) -> Error {
        Error::too_large(format!("The request body is larger than {} bytes", self.limit))
    }

    fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece. None: that was all.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let deadline = self.start + self.patience + Duration::from_secs(self.got as u64 / SLOWEST_BYTES_PER_SECOND);
            let frame = match timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(Error::unknown("The request body did not arrive in time")),
                Ok(None) => return Ok(None),
                Ok(Some(Err(e))) => return Err(Error::unknown(format!("The request body broke off: {e}"))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > self.limit - self.got {
                return Err(self.too_large());
            }
            self.got += data.len();
            return Ok(Some(data));
        }
    }

    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::try_unfold(self, async |mut body| Ok(body.next().await?.map(|piece| (piece, body))))
    }
}

/// Reads a whole body.
pub(super) async fn read_body(mut body: Incoming) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(data) = body.next().await? {
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Before a body is taken as JSON: no body counts as an empty object, since clients send none where every field is
/// optional; and bytes that are not UTF-8 are refused even where no type looks at them.
pub(super) fn json_body(body: Bytes) -> Result<Bytes> {
    if body.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    match std::str::from_utf8(&body) {
        Ok(_) => Ok(body),
        Err(_) => Err(Error::not_json("The request body is not UTF-8")),
    }
}

fn parse<R: IncomingRequest>(call: Call) -> Result<R> {
    let Call { parts, body, args, .. } = call;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    R::try_from_http_request(http::Request::from_parts(parts, &body[..]), &args).map_err(|e| refusal(&e))
}

/// What to tell a client whose request does not have the shape that the endpoint wants.
fn refusal(error: &FromHttpRequestError) -> Error {
    use DeserializationError as E;

    let FromHttpRequestError::Deserialization(error) = error else {
        return Error::new(Kind::MethodNotAllowed, error.to_string());
    };
    // serde says so in words only.
    let missing = |text: &str| text.starts_with("missing field");
    let text = error.to_string();
    match error {
        E::Json(e) => match e.classify() {
            Category::Data if missing(&text) => Error::missing_param(text),
            Category::Data => Error::bad_json(text),
            Category::Syntax | Category::Eof | Category::Io => Error::not_json(text),
        },
        E::Utf8(_) => Error::not_json(text),
        E::Header(HeaderDeserializationError::MissingHeader(_)) => Error::missing_param(text),
        _ if missing(&text) => Error::missing_param(text),
        _ => Error::invalid_param(text),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use ruma::api::{
        Metadata as _,
        client::{membership::ban_user, room::create_room, state::get_state_event_for_key},
    };

    use super::*;

    fn call(uri: &str, body: &'static str, args: &[&str]) -> Call {
        let (parts, ()) = http::Request::post(uri).body(()).expect("a request").into_parts();
        Call {
            parts,
            body: json_body(Bytes::from_static(body.as_bytes())).expect("UTF-8"),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            unread: None,
            auth: None,
            ip: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn kind<R: IncomingRequest>(call: Call) -> Option<Kind> {
        match parse::<R>(call) {
            Ok(_) => None,
            Err(Error::Matrix { kind, .. }) => Some(kind),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn no_body_counts_as_an_empty_object() {
        assert_eq!(kind::<create_room::v3::Request>(call("/", "", &[])), None);
    }

    #[test]
    fn a_broken_body_is_not_json_and_an_unfit_one_bad_json() {
        assert_eq!(kind::<create_room::v3::Request>(call("/", "{", &[])), Some(Kind::NotJson));
        assert_eq!(kind::<create_room::v3::Request>(call("/", "{]", &[])), Some(Kind::NotJson));
        assert_eq!(kind::<create_room::v3::Request>(call("/", r#"{"name": 3}"#, &[])), Some(Kind::BadJson));
        assert_eq!(kind::<create_room::v3::Request>(call("/", "3", &[])), Some(Kind::BadJson));
        assert!(json_body(Bytes::from_static(b"{\"a\": \"\x81\"}")).is_err());
    }

    #[test]
    fn a_field_that_is_not_there_is_a_missing_param() {
        let missing = call("/", r#"{"reason": "because"}"#, &["!a:b.c"]);
        assert_eq!(kind::<ban_user::v3::Request>(missing), Some(Kind::MissingParam));
    }

    #[test]
    fn a_bad_path_or_query_is_the_clients_fault() {
        let get = get_state_event_for_key::v3::Request::METHOD;
        let mut path = call("/", "", &["no room", "m.room.name", ""]);
        path.parts.method = get.clone();
        assert_eq!(kind::<get_state_event_for_key::v3::Request>(path), Some(Kind::InvalidParam));
        let mut short = call("/", "", &["!a:b.c", "m.room.name"]);
        short.parts.method = get;
        assert_eq!(kind::<get_state_event_for_key::v3::Request>(short), None);
    }

    #[test]
    fn the_token_comes_from_the_header_or_the_query() {
        let token = |uri: &str, header: Option<&str>| {
            let mut request = http::Request::get(uri);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            access_token(&request.body(()).expect("a request").into_parts().0)
        };
        assert_eq!(token("/", Some("Bearer a")).as_deref(), Some("a"));
        assert_eq!(token("/", Some("bearer a")).as_deref(), Some("a"));
        assert_eq!(token("/?x=1&access_token=b%2B", None).as_deref(), Some("b+"));
        assert_eq!(token("/?access_token=b", Some("Bearer a")).as_deref(), Some("a"));
        assert_eq!(token("/?access_token=", None), None);
        assert_eq!(token("/", Some("Basic abc")), None);
        assert_eq!(token("/", None), None);
    }

    async fn read(body: Body, limit: usize, patience: Duration) -> Result<Bytes> {
        read_body(Incoming::new(body, limit, patience)?).await
    }

    fn pieces(pieces: &[&'static [u8]]) -> Body {
        let frames: Vec<_> =
            pieces.iter().map(|p| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(p)))).collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(read(pieces(&[b"ab", b"c"]), 3, second).await.expect("three bytes"), "abc");
        assert_eq!(read(pieces(&[]), 3, second).await.expect("no bytes"), "");
        let Err(Error::Matrix { kind, .. }) = read(pieces(&[b"ab", b"cd"]), 3, second).await else {
            panic!("four bytes are too many");
        };
        assert_eq!(kind, Kind::TooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let stalled = Body::new(StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>()));
        let mut reading = pin!(read(stalled, 10, Duration::from_secs(5)));
        assert!(tokio::time::timeout(Duration::from_secs(4), &mut reading).await.is_err());
        assert!(reading.await.is_err());
    }
}
