//! For the endpoints that ruma has no types for: a type of ours as the body of a request or an answer.

use bytes::BufMut;
use http::{HeaderValue, Response};
use ruma::api::{OutgoingBody, OutgoingResponse, error::IntoHttpError};
use serde::Serialize;

/// Anything that serialises, as an answer.
pub struct Json<T>(pub T);

impl<T: Serialize> OutgoingResponse for Json<T> {
    type Body = Self;

    fn try_into_http_response_inner(self) -> Result<Response<Self>, IntoHttpError> {
        Ok(Response::new(self))
    }
}

impl<T: Serialize> OutgoingBody for Json<T> {
    type Error = serde_json::Error;

    fn content_type(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("application/json"))
    }

    fn try_into_buf<B: Default + BufMut + AsRef<[u8]>>(self) -> serde_json::Result<B> {
        ruma::serde::json_to_buf(&self.0)
    }
}
