//! Unread counts as a sync shows them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use hearth_core::{Error, Result, push::Counts};
use hearth_storage::Unread;
use ruma::{
    OwnedEventId, UInt,
    api::client::sync::sync_events::{UnreadNotificationsCount, v3::JoinedRoom},
};

use super::SyncWish;

/// Who asks for threads gets them apart, others get one sum.
pub(super) fn show(wish: &SyncWish, room: &mut JoinedRoom, unread: &Unread) -> Result<()> {
    if !wish.filter.room.timeline.unread_thread_notifications {
        room.unread_notifications = shown(unread.all());
        return Ok(());
    }
    room.unread_notifications = shown(unread.main());
    for (root, counts) in unread.threads().filter(|(_, counts)| !counts.is_none()) {
        let root: OwnedEventId = root.try_into().map_err(Error::internal)?;
        room.unread_thread_notifications.insert(root, shown(counts));
    }
    Ok(())
}

fn shown(counts: Counts) -> UnreadNotificationsCount {
    let mut shown = UnreadNotificationsCount::new();
    shown.notification_count = Some(UInt::new_saturating(counts.notify.max(0).unsigned_abs()));
    shown.highlight_count = Some(UInt::new_saturating(counts.highlight.max(0).unsigned_abs()));
    shown
}
