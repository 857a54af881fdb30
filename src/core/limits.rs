//! Sizes that the specification fixes, and a few that are ours.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#size-limits>

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

/// The longest transaction id that a client may choose.
pub const MAX_TRANSACTION_ID_BYTES: usize = 255;

/// The longest device id that a client may choose.
pub const MAX_DEVICE_ID_BYTES: usize = 255;

/// The most that one user may keep here as account data: pieces of it, and bytes of all their contents.
pub const MAX_ACCOUNT_DATA_ENTRIES: u32 = 10_000;
pub const MAX_ACCOUNT_DATA_BYTES: u32 = 10 << 20;

/// The largest page of events that a client gets, whatever it asks for.
pub const MAX_PAGE: u64 = 1_000;
