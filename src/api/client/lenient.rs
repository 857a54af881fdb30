//! Requests that carry more, or less, than their types say: what the specification leaves to servers, and what clients
//! have come to rely on.

use http::{Method, Uri};
use ruma::api::{
    IncomingRequest, Metadata,
    client::{message::get_message_events, sync::sync_events},
    error::DeserializationError,
};
use serde_json::{Map, Value};

/// Says of a type of ours that it is a request to the endpoint of a type of ruma's; or, `for` any such type, of that.
macro_rules! same_endpoint {
    ($ours:ty, $theirs:ty $(, for $any:ident)?) => {
        impl$(<$any: Metadata>)? Metadata for $ours {
            const METHOD: Method = <$theirs as Metadata>::METHOD;
            const RATE_LIMITED: bool = <$theirs as Metadata>::RATE_LIMITED;
            type Authentication = <$theirs as Metadata>::Authentication;
            type PathBuilder = <$theirs as Metadata>::PathBuilder;
            const PATH_BUILDER: Self::PathBuilder = <$theirs as Metadata>::PATH_BUILDER;
        }
    };
}

/// A request, and the whole object that was its body.
pub(super) struct WithContent<R> {
    pub(super) request: R,
    pub(super) content: Map<String, Value>,
}

same_endpoint!(WithContent<R>, R, for R);

impl<R: IncomingRequest> IncomingRequest for WithContent<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let content = serde_json::from_slice(request.body())?;
        Ok(Self { request: R::try_from_http_request_inner(request, path_args)?, content })
    }
}

/// A request whose fields may be null where they may be left out: some clients say so of what they have no value for.
pub(super) struct NullIsAbsent<R>(pub(super) R);

same_endpoint!(NullIsAbsent<R>, R, for R);

impl<R: IncomingRequest> IncomingRequest for NullIsAbsent<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let mut content: Map<String, Value> = serde_json::from_slice(request.body())?;
        content.retain(|_, value| !value.is_null());
        let body = serde_json::to_vec(&content)?;
        R::try_from_http_request_inner(request.map(|_| &body[..]), path_args).map(Self)
    }
}

/// A request for messages; one that doesn't say which way goes forward.
pub(super) struct Messages(pub(super) get_message_events::v3::Request);

same_endpoint!(Messages, get_message_events::v3::Request);

impl IncomingRequest for Messages {
    type EndpointError = <get_message_events::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = get_message_events::v3::Response;

    fn try_from_http_request_inner(
        mut request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        if !query.split('&').any(|pair| pair.starts_with("dir=")) {
            let separator = if query.is_empty() { "" } else { "&" };
            let whole = format!("{}?{query}{separator}dir=f", request.uri().path());
            if let Ok(uri) = whole.parse::<Uri>() {
                *request.uri_mut() = uri;
            }
        }
        get_message_events::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// A request for what relates to an event, which may ask by the name that this had at first for all beneath it.
///
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3981>
pub(super) struct Recursive<R>(pub(super) R);

same_endpoint!(Recursive<R>, R, for R);

impl<R: IncomingRequest> IncomingRequest for Recursive<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        mut request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        if query.contains("org.matrix.msc3981.recurse=") {
            let whole =
                format!("{}?{}", request.uri().path(), query.replace("org.matrix.msc3981.recurse=", "recurse="));
            if let Ok(uri) = whole.parse::<Uri>() {
                *request.uri_mut() = uri;
            }
        }
        R::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// A request that has to say which way it goes, and whether that is forwards, where its type keeps that to itself.
pub(super) struct Directed<R> {
    pub(super) request: R,
    pub(super) forwards: bool,
}

same_endpoint!(Directed<R>, R, for R);

impl<R: IncomingRequest> IncomingRequest for Directed<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        let forwards = query.split('&').any(|pair| pair == "dir=f");
        Ok(Self { request: R::try_from_http_request_inner(request, path_args)?, forwards })
    }
}

/// A request for a sync, which may ask for the state after the timeline by the name that this had at first.
///
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4222>
pub(super) struct Sync {
    /// Boxed, as a filter is large, and those who wait with theirs are many.
    pub(super) request: Box<sync_events::v3::Request>,
    pub(super) unstable_state_after: bool,
}

same_endpoint!(Sync, sync_events::v3::Request);

impl IncomingRequest for Sync {
    type EndpointError = <sync_events::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = sync_events::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        let unstable_state_after = query.split('&').any(|pair| pair == "org.matrix.msc4222.use_state_after=true");
        let request = sync_events::v3::Request::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request: Box::new(request), unstable_state_after })
    }
}

#[cfg(test)]
mod tests {
    use ruma::{
        api::{
            Direction, IncomingRequestExt as _,
            client::{membership::join_room_by_id, receipt::create_receipt, relations::get_relating_events},
        },
        events::receipt::ReceiptThread,
    };

    use super::*;

    #[test]
    fn messages_go_forward_unless_told() {
        let dir = |uri: &str| {
            let request = http::Request::get(uri).body(&b"{}"[..]).expect("a request");
            Messages::try_from_http_request(request, &["!a:b.c"]).expect("a good request").0.dir
        };
        assert_eq!(dir("/messages"), Direction::Forward);
        assert_eq!(dir("/messages?limit=3"), Direction::Forward);
        assert_eq!(dir("/messages?dir=b"), Direction::Backward);
        assert_eq!(dir("/messages?limit=3&dir=b"), Direction::Backward);
    }

    #[test]
    fn all_beneath_an_event_may_be_asked_for_by_an_old_name() {
        let asked = |query: &str| {
            let uri = format!("/relations?limit=3{query}&dir=f");
            let request = http::Request::get(uri).body(&b"{}"[..]).expect("a request");
            let args = ["!a:b.c", "$event"];
            let request = Recursive::<get_relating_events::v1::Request>::try_from_http_request(request, &args);
            let Recursive(request) = request.expect("a good request");
            assert_eq!(request.dir, Direction::Forward);
            request.recurse
        };
        assert!(asked("&recurse=true") && asked("&org.matrix.msc3981.recurse=true"));
        assert!(!asked("") && !asked("&recurse=false") && !asked("&org.matrix.msc3981.recurse=false"));
    }

    #[test]
    fn a_field_that_is_null_is_not_there() {
        let thread = |body: &'static str| {
            let request = http::Request::post("/receipt").body(body.as_bytes()).expect("a request");
            let args = ["!a:b.c", "m.read", "$event"];
            NullIsAbsent::<create_receipt::v3::Request>::try_from_http_request(request, &args).map(|r| r.0.thread)
        };
        assert_eq!(thread(r#"{"thread_id":null}"#).expect("a good request"), ReceiptThread::Unthreaded);
        assert_eq!(thread(r#"{"thread_id":"main","x":null}"#).expect("a good request"), ReceiptThread::Main);
        assert!(thread(r#"{"thread_id":3}"#).is_err());
        assert!(thread("null").is_err());
    }

    #[test]
    fn a_join_keeps_what_its_type_has_no_field_for() {
        let request = http::Request::post("/join").body(&br#"{"reason":"hi","foo":"bar"}"#[..]).expect("a request");
        let join = WithContent::<join_room_by_id::v3::Request>::try_from_http_request(request, &["!a:b.c"])
            .expect("a good request");
        assert_eq!(join.request.reason.as_deref(), Some("hi"));
        assert_eq!(join.content["foo"], "bar");
    }
}
