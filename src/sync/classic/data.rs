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

pub(super) fn raw<T>(value: &serde_json::Value) -> Result<Raw<T>> {
    Ok(Raw::from_json(to_raw_value(value).map_err(Error::internal)?))
}

pub(super) fn account_datum<T>(kind: &str, content: Option<String>) -> Result<Raw<T>> {
    // A deleted value is told as an empty one.
    let content = content.unwrap_or_else(|| "{}".to_owned());
    let kind = serde_json::to_string(kind).map_err(Error::internal)?;
    Raw::from_json_string(format!("{{\"type\":{kind},\"content\":{content}}}")).map_err(Error::internal)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#mreceipt>
pub(super) fn receipts<T>(receipts: &[Receipt]) -> Result<Raw<T>> {
    type ByUser = BTreeMap<OwnedUserId, serde_json::Value>;
    let mut content = BTreeMap::<&str, BTreeMap<&str, ByUser>>::new();
    for r in receipts {
        let mut about = json!({ "ts": r.ts });
        if !r.thread.is_empty() {
            about["thread_id"] = r.thread.as_str().into();
        }
        let user = r.user_id.as_str().try_into().map_err(Error::internal)?;
        let of_type = content.entry(&r.event_id).or_default().entry(&r.receipt_type).or_default();
        // There is room for one receipt of a user at an event: the one for all threads says more.
        if r.thread.is_empty() || !of_type.contains_key(&user) {
            of_type.insert(user, about);
        }
    }
    raw(&json!({ "type": "m.receipt", "content": content }))
}
