//! How far somebody has read.

use std::sync::Arc;

use hearth_core::{Error, Result, clock::Clock, limits::MAX_ID_BYTES};
use hearth_storage::{AccountDataChange, Receipt, Scope, Storage};
use ruma::{EventId, RoomId};
use serde_json::json;

use super::{shape::Reader, timeline::Timelines};

/// Keeps receipts and read markers.
pub struct Receipts {
    storage: Arc<dyn Storage>,
    timelines: Arc<Timelines>,
    clock: Arc<dyn Clock>,
}

/// What is marked as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// All members see it. The thread is empty for a receipt that is not about one.
    Public { thread: String },
    /// Only the reader's own devices see it.
    Private { thread: String },
    /// The line in the timeline up to which everything was read: account data of the room.
    Marker,
}

impl Receipts {
    pub fn new(storage: Arc<dyn Storage>, timelines: Arc<Timelines>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { storage, timelines, clock })
    }

    /// `event_id` is the last that was read.
    pub async fn read(&self, reader: Reader<'_>, room_id: &RoomId, event_id: &EventId, read: Read) -> Result<()> {
        if event_id.as_str().len() > MAX_ID_BYTES {
            return Err(Error::invalid_param("This is no event id"));
        }
        // Clients mark events that they have only heard of, and the specification lets them: what is not here is no fault.
        let room = self.timelines.joined_room(reader, room_id).await?;
        let (receipt_type, thread) = match read {
            Read::Public { thread } => ("m.read", thread),
            Read::Private { thread } => ("m.read.private", thread),
            Read::Marker => {
                let change = AccountDataChange {
                    user_id: reader.user.to_string(),
                    scope: Scope::Room(room_id.to_string()),
                    kind: "m.fully_read".to_owned(),
                    content: Some(json!({ "event_id": event_id }).to_string()),
                    expects: None,
                    quota: None,
                };
                self.storage.set_account_data(change).await?;
                return Ok(());
            }
        };
        let receipt = Receipt {
            room_sn: room.room_sn,
            user_id: reader.user.to_string(),
            receipt_type: receipt_type.to_owned(),
            thread,
            event_id: event_id.to_string(),
            ts: self.clock.now_ms(),
        };
        Ok(self.storage.set_receipt(receipt).await?)
    }
}
