//! From a handler's result to a response: the only place that knows which error has which status and errcode.

use std::borrow::Cow;

use axum::body::Body;
use hearth_core::{Error, Kind, Result};
use http::{HeaderValue, Response, StatusCode, header};
use ruma::api::{OutgoingResponse, OutgoingResponseExt as _};
use serde::Serialize;

/// The answer of a handler, as bytes.
pub fn ok<T: OutgoingResponse>(answer: T) -> Result<Response<Body>> {
    let response = answer.try_into_http_response::<Vec<u8>>().map_err(Error::internal)?;
    Ok(response.map(Body::from))
}

/// Says an error to the client. An internal one is said to the log only, within the span of its request.
pub fn error(error: &Error) -> Response<Body> {
    match error {
        Error::Matrix { kind, message } => refuse(kind, message),
        Error::Uia(uia) => json(StatusCode::UNAUTHORIZED, uia),
        Error::Internal(what) => {
            tracing::error!(error = %what, "the request failed");
            internal()
        }
    }
}

/// An error that is told within an answer: its errcode, and why.
pub(super) fn in_words(error: &Error) -> (&'static str, String) {
    match error {
        Error::Matrix { kind, message } => (name(kind).1, message.clone().into_owned()),
        Error::Uia(_) | Error::Internal(_) => ("M_UNKNOWN", "Internal server error".to_owned()),
    }
}

/// What a client hears when the fault is ours.
pub(super) fn internal() -> Response<Body> {
    let body = Refusal { errcode: "M_UNKNOWN", error: "Internal server error".into(), ..Refusal::default() };
    json(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

/// The body of an error, with the further fields that some errcodes have.
#[derive(Default, Serialize)]
struct Refusal<'a> {
    errcode: &'static str,
    error: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info_uri: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    soft_logout: Option<bool>,
}

fn refuse(kind: &Kind, message: &str) -> Response<Body> {
    let (status, errcode) = name(kind);
    let mut body = Refusal { errcode, error: message.into(), ..Refusal::default() };
    let mut retry_after = None;
    match kind {
        Kind::LimitExceeded { retry_after_ms } => {
            body.retry_after_ms = Some(*retry_after_ms);
            retry_after = Some(retry_after_ms.div_ceil(1000));
        }
        Kind::Unavailable => retry_after = Some(1),
        Kind::IncompatibleRoomVersion { room_version } => body.room_version = Some(room_version),
        Kind::UnknownToken { soft_logout } => body.soft_logout = Some(*soft_logout),
        // <https://spec.matrix.org/v1.12/client-server-api/#account-locking>
        Kind::UserLocked => body.soft_logout = Some(true),
        Kind::UserLimitExceeded { info_uri } => body.info_uri = Some(info_uri),
        Kind::WrongRoomKeysVersion { current_version } => body.current_version = Some(current_version),
        _ => {}
    }
    let mut response = json(status, &body);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// <https://spec.matrix.org/v1.18/client-server-api/#standard-error-response>
fn name(kind: &Kind) -> (StatusCode, &'static str) {
    use StatusCode as S;
    match kind {
        Kind::BadAlias => (S::BAD_REQUEST, "M_BAD_ALIAS"),
        Kind::BadJson => (S::BAD_REQUEST, "M_BAD_JSON"),
        Kind::BadState => (S::FORBIDDEN, "M_BAD_STATE"),
        Kind::CannotLeaveServerNoticeRoom => (S::FORBIDDEN, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"),
        Kind::CannotOverwriteMedia => (S::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA"),
        Kind::Conflict => (S::CONFLICT, "M_UNKNOWN"),
        // <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>
        Kind::ConflictingUnsubscription => (S::CONFLICT, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"),
        Kind::DuplicateAnnotation => (S::BAD_REQUEST, "M_DUPLICATE_ANNOTATION"),
        Kind::Exclusive => (S::BAD_REQUEST, "M_EXCLUSIVE"),
        Kind::Forbidden => (S::FORBIDDEN, "M_FORBIDDEN"),
        Kind::GuestAccessForbidden => (S::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN"),
        Kind::IncompatibleRoomVersion { .. } => (S::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION"),
        Kind::InvalidParam => (S::BAD_REQUEST, "M_INVALID_PARAM"),
        Kind::InvalidRoomState => (S::BAD_REQUEST, "M_INVALID_ROOM_STATE"),
        Kind::InvalidSignature => (S::BAD_REQUEST, "M_INVALID_SIGNATURE"),
        Kind::InvalidUsername => (S::BAD_REQUEST, "M_INVALID_USERNAME"),
        Kind::KeyTooLarge => (S::BAD_REQUEST, "M_KEY_TOO_LARGE"),
        Kind::LimitExceeded { .. } => (S::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
        Kind::MissingParam => (S::BAD_REQUEST, "M_MISSING_PARAM"),
        Kind::MissingToken => (S::UNAUTHORIZED, "M_MISSING_TOKEN"),
        Kind::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"),
        Kind::NotFound => (S::NOT_FOUND, "M_NOT_FOUND"),
        Kind::NotInThread => (S::BAD_REQUEST, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"),
        Kind::NotJson => (S::BAD_REQUEST, "M_NOT_JSON"),
        Kind::NotYetUploaded => (S::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED"),
        Kind::ProfileTooLarge => (S::BAD_REQUEST, "M_PROFILE_TOO_LARGE"),
        Kind::RangeNotSatisfiable => (S::RANGE_NOT_SATISFIABLE, "M_INVALID_PARAM"),
        Kind::ReadOnly => (S::METHOD_NOT_ALLOWED, "M_BAD_JSON"),
        Kind::RoomInUse => (S::BAD_REQUEST, "M_ROOM_IN_USE"),
        Kind::TooLarge => (S::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
        Kind::Unavailable => (S::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        Kind::Unknown => (S::BAD_REQUEST, "M_UNKNOWN"),
        Kind::Unreachable => (S::BAD_GATEWAY, "M_UNKNOWN"),
        Kind::UnknownPos => (S::BAD_REQUEST, "M_UNKNOWN_POS"),
        Kind::UnknownToken { .. } => (S::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
        Kind::Unrecognized => (S::NOT_FOUND, "M_UNRECOGNIZED"),
        Kind::UnsupportedRoomVersion => (S::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION"),
        Kind::UserDeactivated => (S::FORBIDDEN, "M_USER_DEACTIVATED"),
        Kind::UserInUse => (S::BAD_REQUEST, "M_USER_IN_USE"),
        Kind::UserLimitExceeded { .. } => (S::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
        Kind::UserLocked => (S::UNAUTHORIZED, "M_USER_LOCKED"),
        Kind::WeakPassword => (S::BAD_REQUEST, "M_WEAK_PASSWORD"),
        Kind::WrongRoomKeysVersion { .. } => (S::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION"),
    }
}

/// A JSON response of our own making.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let (status, bytes) = match serde_json::to_vec(body) {
        Ok(bytes) => (status, bytes),
        Err(e) => {
            tracing::error!(error = %e, "a response is not JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, br#"{"errcode":"M_UNKNOWN","error":"Internal server error"}"#.to_vec())
        }
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use hearth_core::error::{Uia, UiaFlow};
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;

    async fn said(e: &Error) -> (u16, Option<String>, Value) {
        let response = error(e);
        let retry = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().expect("text").to_owned());
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, retry, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn every_kind_has_its_status_and_errcode() {
        let kinds = [
            (Kind::BadAlias, 400, "M_BAD_ALIAS"),
            (Kind::BadJson, 400, "M_BAD_JSON"),
            (Kind::BadState, 403, "M_BAD_STATE"),
            (Kind::CannotLeaveServerNoticeRoom, 403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"),
            (Kind::CannotOverwriteMedia, 409, "M_CANNOT_OVERWRITE_MEDIA"),
            (Kind::Conflict, 409, "M_UNKNOWN"),
            (Kind::DuplicateAnnotation, 400, "M_DUPLICATE_ANNOTATION"),
            (Kind::Exclusive, 400, "M_EXCLUSIVE"),
            (Kind::Forbidden, 403, "M_FORBIDDEN"),
            (Kind::GuestAccessForbidden, 403, "M_GUEST_ACCESS_FORBIDDEN"),
            (Kind::IncompatibleRoomVersion { room_version: "6".into() }, 400, "M_INCOMPATIBLE_ROOM_VERSION"),
            (Kind::InvalidParam, 400, "M_INVALID_PARAM"),
            (Kind::InvalidRoomState, 400, "M_INVALID_ROOM_STATE"),
            (Kind::InvalidSignature, 400, "M_INVALID_SIGNATURE"),
            (Kind::InvalidUsername, 400, "M_INVALID_USERNAME"),
            (Kind::KeyTooLarge, 400, "M_KEY_TOO_LARGE"),
            (Kind::LimitExceeded { retry_after_ms: 1 }, 429, "M_LIMIT_EXCEEDED"),
            (Kind::MissingParam, 400, "M_MISSING_PARAM"),
            (Kind::MissingToken, 401, "M_MISSING_TOKEN"),
            (Kind::MethodNotAllowed, 405, "M_UNRECOGNIZED"),
            (Kind::NotFound, 404, "M_NOT_FOUND"),
            (Kind::NotJson, 400, "M_NOT_JSON"),
            (Kind::NotYetUploaded, 504, "M_NOT_YET_UPLOADED"),
            (Kind::RangeNotSatisfiable, 416, "M_INVALID_PARAM"),
            (Kind::ProfileTooLarge, 400, "M_PROFILE_TOO_LARGE"),
            (Kind::ReadOnly, 405, "M_BAD_JSON"),
            (Kind::RoomInUse, 400, "M_ROOM_IN_USE"),
            (Kind::TooLarge, 413, "M_TOO_LARGE"),
            (Kind::Unavailable, 503, "M_UNKNOWN"),
            (Kind::Unknown, 400, "M_UNKNOWN"),
            (Kind::Unreachable, 502, "M_UNKNOWN"),
            (Kind::UnknownToken { soft_logout: false }, 401, "M_UNKNOWN_TOKEN"),
            (Kind::Unrecognized, 404, "M_UNRECOGNIZED"),
            (Kind::UnsupportedRoomVersion, 400, "M_UNSUPPORTED_ROOM_VERSION"),
            (Kind::UserDeactivated, 403, "M_USER_DEACTIVATED"),
            (Kind::UserInUse, 400, "M_USER_IN_USE"),
            (Kind::UserLimitExceeded { info_uri: "https://x".into() }, 403, "M_USER_LIMIT_EXCEEDED"),
            (Kind::UserLocked, 401, "M_USER_LOCKED"),
            (Kind::WeakPassword, 400, "M_WEAK_PASSWORD"),
            (Kind::WrongRoomKeysVersion { current_version: "2".into() }, 403, "M_WRONG_ROOM_KEYS_VERSION"),
        ];
        for (kind, status, errcode) in kinds {
            let (got, _, body) = said(&Error::new(kind.clone(), "why")).await;
            assert_eq!((got, body["errcode"].as_str()), (status, Some(errcode)), "{kind:?}");
            assert_eq!(body["error"], "why");
        }
    }

    #[tokio::test]
    async fn some_errors_say_more() {
        let (_, retry, body) = said(&Error::new(Kind::LimitExceeded { retry_after_ms: 1500 }, "slower")).await;
        assert_eq!((retry.as_deref(), &body["retry_after_ms"]), (Some("2"), &json!(1500)));
        let (_, _, body) = said(&Error::new(Kind::UnknownToken { soft_logout: true }, "gone")).await;
        assert_eq!(body["soft_logout"], true);
        let (_, _, body) = said(&Error::new(Kind::UserLocked, "locked")).await;
        assert_eq!(body["soft_logout"], true);
        let version = Kind::IncompatibleRoomVersion { room_version: "2".into() };
        assert_eq!(said(&Error::new(version, "no")).await.2["room_version"], "2");
        let limit = Kind::UserLimitExceeded { info_uri: "https://example.org".into() };
        assert_eq!(said(&Error::new(limit, "no")).await.2["info_uri"], "https://example.org");
        let newer = Kind::WrongRoomKeysVersion { current_version: "42".into() };
        assert_eq!(said(&Error::new(newer, "no")).await.2["current_version"], "42");
    }

    #[tokio::test]
    async fn an_internal_error_keeps_its_text_to_itself() {
        let (status, _, body) = said(&Error::internal("the secret of the database")).await;
        assert_eq!(status, 500);
        assert_eq!(body, json!({ "errcode": "M_UNKNOWN", "error": "Internal server error" }));
    }

    #[tokio::test]
    async fn uia_says_what_to_do() {
        let uia = Uia {
            flows: vec![UiaFlow { stages: vec!["m.login.dummy".into()] }],
            completed: vec![],
            params: json!({}),
            session: "s".into(),
            error: None,
        };
        let (status, _, body) = said(&Error::Uia(Box::new(uia))).await;
        assert_eq!(status, 401);
        assert_eq!(body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
        assert_eq!(body["session"], "s");
    }
}
