//! Messages from device to device.
//!
//! A token that came with some carries a mark: who brings it back has them. Then they wait no longer, and the database is
//! asked what else does. A token without a mark says that nothing waited when it was given, so memory knows the rest: what
//! was sent since is a change that concerns the user.

use hearth_core::{
    Result,
    token::{Mark, SyncToken},
};
use hearth_storage::to_device::Waiting;

use super::SyncWish;
use crate::{service::shape::Reader, sync::Syncs};

impl Syncs {
    /// Removes what the device has by the token that it brings. Whether the token has a mark.
    pub(super) async fn acknowledge(&self, reader: Reader<'_>, wish: &SyncWish) -> Result<bool> {
        let Some(SyncToken { pos, to_device: Some(mark), .. }) = wish.since else { return Ok(false) };
        if mark.is_of(reader.user.as_str(), reader.device) {
            self.storage.acknowledge_to_device(reader.user.as_str(), reader.device, mark.pos, pos).await?;
        }
        Ok(true)
    }
}

/// Up to where the device has been told of its messages. By another device's token: nothing.
pub(super) fn told(reader: Reader<'_>, wish: &SyncWish) -> i64 {
    let mark = wish.since.and_then(|since| since.to_device);
    mark.filter(|mark| mark.is_of(reader.user.as_str(), reader.device)).map_or(0, |mark| mark.pos)
}

/// What the token carries of an answer with these messages.
pub(in crate::sync) fn mark(reader: Reader<'_>, told: &[Waiting]) -> Option<Mark> {
    told.last().map(|last| Mark::new(last.pos, reader.user.as_str(), reader.device))
}
