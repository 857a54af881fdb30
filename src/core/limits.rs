//! Sizes that the specification fixes, and a few that are ours.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#size-limits>

use serde_json::Value;

/// The longest event, in its federation form with signatures, as canonical JSON.
pub const MAX_PDU_BYTES: usize = 65_536;

/// The longest user id, room id, event id, event type and state key, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// <https://spec.matrix.org/v1.19/rooms/v3/#event-format>
pub const MAX_PREV_EVENTS: usize = 20;

/// <https://spec.matrix.org/v1.19/rooms/v3/#event-format>
pub const MAX_AUTH_EVENTS: usize = 10;

/// The largest integer of canonical JSON, 2^53 - 1; the smallest is its negative.
pub const MAX_INT: i64 = 9_007_199_254_740_991;

/// How deep objects and arrays of an event's content may nest. JSON parsers commonly stop at 128 levels, ours too, and an
/// event is read again inside others: a redaction in `unsigned`, a room in a sync reply. The difference is for those.
pub const MAX_CONTENT_DEPTH: usize = 100;

/// Whether a value nests no deeper. What users keep here is served inside of something else, too, so [`MAX_CONTENT_DEPTH`]
/// holds for all of it.
pub fn nests_at_most(value: &Value, levels: usize) -> bool {
    match (value, levels.checked_sub(1)) {
        (Value::Object(object), Some(left)) => object.values().all(|value| nests_at_most(value, left)),
        (Value::Array(array), Some(left)) => array.iter().all(|value| nests_at_most(value, left)),
        (Value::Object(_) | Value::Array(_), None) => false,
        _ => true,
    }
}

/// The longest transaction id that a client may choose.
pub const MAX_TRANSACTION_ID_BYTES: usize = 255;

/// The longest device id that a client may choose.
pub const MAX_DEVICE_ID_BYTES: usize = 255;

/// The most that one user may keep here as account data: pieces of it, and bytes of all their contents.
pub const MAX_ACCOUNT_DATA_ENTRIES: u32 = 10_000;
pub const MAX_ACCOUNT_DATA_BYTES: u32 = 10 << 20;

/// The largest page of events that a client gets, whatever it asks for.
pub const MAX_PAGE: u64 = 1_000;

/// The identity keys of a device, or a cross-signing key, with their signatures.
pub const MAX_DEVICE_KEYS_BYTES: usize = 16 << 10;

/// One one-time or fallback key.
pub const MAX_ONE_TIME_KEY_BYTES: usize = 2 << 10;

/// One-time keys of a device that nobody has taken yet, of whatever algorithms. Clients keep 50 to 100 here.
pub const MAX_ONE_TIME_KEYS: usize = 200;

/// The fallback keys of a device: one for each algorithm that it knows.
pub const MAX_FALLBACK_KEYS: usize = 10;

/// Users whose keys one request may ask for, and devices of whom it may claim keys.
pub const MAX_QUERIED_USERS: usize = 5_000;
pub const MAX_CLAIMS: usize = 5_000;

/// Signatures that are uploaded together.
pub const MAX_SIGNATURES: usize = 500;
