//! What is no event of a room: account data, receipts, and who wants them.

use std::collections::BTreeMap;

use hearth_core::{Error, Result, filter};
use hearth_storage::Receipt;
use ruma::{OwnedUserId, RoomId, serde::Raw};
use serde_json::{json, value::to_raw_value};

use super::SyncWish;

pub(super) fn wants_ephemeral(wish: &SyncWish, room_id: &RoomId, event_type: &str) -> bool {
    filter::matches_type(&wish.filter.room.ephemeral, room_id, event_type)
}

pub(in crate::sync) fn raw<T>(value: &serde_json::Value) -> Result<Raw<T>> {
    Ok(Raw::from_json(to_raw_value(value).map_err(Error::internal)?))
}

pub(in crate::sync) fn account_datum<T>(kind: &str, content: Option<String>) -> Result<Raw<T>> {
    // A deleted value is told as an empty one.
    let content = content.unwrap_or_else(|| "{}".to_owned());
    let kind = serde_json::to_string(kind).map_err(Error::internal)?;
    Raw::from_json_string(format!("{{\"type\":{kind},\"content\":{content}}}")).map_err(Error::internal)
}

/// In an `m.receipt` nobody can have read the same event in two threads: what doesn't fit goes into another one.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#mreceipt>
pub(in crate::sync) fn receipts<T>(receipts: &[Receipt]) -> Result<Vec<Raw<T>>> {
    type ByUser = BTreeMap<OwnedUserId, serde_json::Value>;
    type ByEvent<'a> = BTreeMap<&'a str, BTreeMap<&'a str, ByUser>>;
    let mut contents: Vec<ByEvent<'_>> = Vec::new();
    for r in receipts {
        let mut about = json!({ "ts": r.ts });
        if !r.thread.is_empty() {
            about["thread_id"] = r.thread.as_str().into();
        }
        let user: OwnedUserId = r.user_id.as_str().try_into().map_err(Error::internal)?;
        let (event, kind) = (r.event_id.as_str(), r.receipt_type.as_str());
        let is_free = |c: &ByEvent<'_>| c.get(event).and_then(|e| e.get(kind)).is_none_or(|k| !k.contains_key(&user));
        let free = contents.iter().position(is_free).unwrap_or(contents.len());
        if free == contents.len() {
            contents.push(ByEvent::new());
        }
        contents[free].entry(event).or_default().entry(kind).or_default().insert(user, about);
    }
    contents.iter().map(|content| raw(&json!({ "type": "m.receipt", "content": content }))).collect()
}
