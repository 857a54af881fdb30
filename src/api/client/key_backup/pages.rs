//! All keys of a backup, or of a room in it, as one JSON object. A backup may be larger than what a process should hold for
//! one request, so it is read and written a page at a time. Each page is as of its own moment; a key that is there all along
//! is in the answer.

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hearth_core::{Error, Result};
use hearth_storage::key_backup::BackedUpKey;
use http::{HeaderValue, Response, header};
use ruma::OwnedRoomId;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{api::Api, service::session::Session};

/// A key as clients read it.
#[derive(Serialize)]
pub(super) struct KeyData<'a> {
    first_message_index: i64,
    forwarded_count: i64,
    is_verified: bool,
    session_data: &'a RawValue,
}

impl<'a> KeyData<'a> {
    pub(super) fn of(key: &'a BackedUpKey) -> Result<Self> {
        Ok(Self {
            first_message_index: key.quality.first_message_index,
            forwarded_count: key.quality.forwarded_count,
            is_verified: key.quality.is_verified,
            session_data: serde_json::from_str(&key.session_data).map_err(Error::internal)?,
        })
    }
}

/// An answer on its way.
pub(super) struct Pages {
    api: Api,
    session: Session,
    version: String,
    /// Only its keys.
    room_id: Option<OwnedRoomId>,
    /// The last key of the page before.
    last: Option<BackedUpKey>,
    ended: bool,
}

impl Pages {
    pub(super) fn new(api: Api, session: Session, version: String, room_id: Option<OwnedRoomId>) -> Self {
        Self { api, session, version, room_id, last: None, ended: false }
    }

    /// An error of the first page is the answer; one of a later page breaks it off, so that no client takes a part for all.
    pub(super) async fn answer(mut self) -> Result<Response<Body>> {
        let first = self.next().await?;
        let mut response = Response::new(if self.ended {
            Body::from(first)
        } else {
            let rest = stream::try_unfold(self, |mut pages| async move {
                if pages.ended {
                    return Ok(None);
                }
                let page = pages.next().await;
                page.map(|page| Some((page, pages)))
            });
            let rest = rest.inspect(|page| {
                if let Err(e) = page {
                    tracing::warn!(error = %e, "the keys of a backup could be told in part only");
                }
            });
            Body::from_stream(stream::iter([Ok(first)]).chain(rest))
        });
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn next(&mut self) -> Result<Bytes> {
        let (room_id, last) = (self.room_id.as_deref(), self.last.take());
        let (keys, more) =
            self.api.key_backups.keys_after(&self.session, &self.version, room_id, last.as_ref()).await?;
        let all = room_id.is_none();
        let mut text = Vec::new();
        if last.is_none() {
            text.extend_from_slice(if all { b"{\"rooms\":{" } else { b"{\"sessions\":{" });
        }
        let mut before = last;
        for key in keys {
            write_key(&mut text, before.as_ref(), &key, all)?;
            before = Some(key);
        }
        if !more {
            self.ended = true;
            text.extend_from_slice(if all && before.is_some() { b"}}}}" } else { b"}}" });
        }
        self.last = before;
        Ok(text.into())
    }
}

/// Writes a key behind the one `before`; in an object by rooms, if there are `rooms`.
fn write_key(text: &mut Vec<u8>, before: Option<&BackedUpKey>, key: &BackedUpKey, rooms: bool) -> Result<()> {
    let json = |value: &str| serde_json::to_string(value).map_err(Error::internal);
    let same_room = before.is_some_and(|before| before.room_id == key.room_id);
    if rooms && !same_room {
        let end = if before.is_some() { "}}," } else { "" };
        text.extend_from_slice(format!("{end}{}:{{\"sessions\":{{", json(&key.room_id)?).as_bytes());
    } else if before.is_some() {
        text.push(b',');
    }
    text.extend_from_slice(json(&key.session_id)?.as_bytes());
    text.push(b':');
    serde_json::to_writer(text, &KeyData::of(key)?).map_err(Error::internal)
}
