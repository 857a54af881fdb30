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

/// So many threads of a room are told apart, those first that highlight something; the others are counted with the main
/// timeline.
const MOST_THREADS: usize = 100;

/// Who asks for threads gets them apart, others get one sum.
pub(super) fn show(wish: &SyncWish, room: &mut JoinedRoom, unread: &Unread) -> Result<()> {
    if !wish.tells_threads_apart() {
        room.unread_notifications = shown(unread.all());
        return Ok(());
    }
    let mut threads: Vec<_> = unread.threads().filter(|(_, counts)| !counts.is_none()).collect();
    threads.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.highlight));
    let rest = threads.split_off(threads.len().min(MOST_THREADS));
    let main = rest.into_iter().fold(unread.main(), |all, (_, counts)| all + counts);
    room.unread_notifications = shown(main);
    for (root, counts) in threads {
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
