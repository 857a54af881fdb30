//! Who speaks up: of whom a message tells all those who load members lazily, and have not heard of its sender before.

use std::{sync::Arc, time::Duration};

use hearth_core::{Error, Result, room_version::RoomVersion};
use hearth_storage::{Message, Storage, StoredEvent};
use moka::sync::Cache;
use tokio::sync::OnceCell;

use crate::service::shape::Room;

/// Messages whose senders are kept in memory. All who wait for a message ask within moments.
const MESSAGES: u64 = 256;
const KEPT: Duration = Duration::from_secs(60);

/// The senders of the newest messages; each is read once, for whoever asks.
pub(super) struct Speakers(Cache<i64, Arc<OnceCell<Option<Arc<Member>>>>>);

/// A current membership.
pub(super) struct Member {
    pub(super) room: Room,
    pub(super) event: StoredEvent,
}

/// What is known of who sent a message.
pub(super) enum Speaker {
    Member(Arc<Member>),
    /// It takes more than their membership to tell of them.
    Special,
    Unknown,
}

impl Speakers {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MESSAGES).time_to_live(KEPT).build())
    }

    pub(super) fn of(&self, message: &Message) -> Speaker {
        match self.0.get(&message.sn).as_deref().and_then(OnceCell::get) {
            Some(Some(member)) => Speaker::Member(Arc::clone(member)),
            Some(None) => Speaker::Special,
            None => Speaker::Unknown,
        }
    }

    /// Reads who sent the message, if nobody has yet.
    pub(super) async fn learn(&self, storage: &dyn Storage, message: &Message) -> Result<()> {
        let cell = self.0.get_with(message.sn, Arc::default);
        cell.get_or_try_init(|| read(storage, message)).await?;
        Ok(())
    }
}

async fn read(storage: &dyn Storage, message: &Message) -> Result<Option<Arc<Member>>> {
    let speaker = storage.speaker(message.sn).await?;
    // A redacted event is told with what redacted it.
    let Some(speaker) = speaker.filter(|speaker| speaker.membership.redacted_by.is_none()) else { return Ok(None) };
    let version = speaker.version.as_str().try_into().map_err(Error::internal)?;
    let version = RoomVersion::get(&version).ok_or_else(|| Error::internal("a room of an unknown version"))?;
    let room = Room { sn: message.room_sn, id: message.pdu.room_id.clone(), version };
    Ok(Some(Arc::new(Member { room, event: speaker.membership })))
}
