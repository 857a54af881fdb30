//! What a sync tells of end-to-end keys: what the device has left to be given out, in every sync; and whose devices
//! changed.

use std::{collections::BTreeMap, sync::Arc};

use hearth_core::{Error, Result};
use hearth_storage::keys::{DeviceLists, KeyCounts};
use ruma::{OneTimeKeyAlgorithm, OwnedUserId, UInt, api::client::sync::sync_events::v3::Response};

/// Of a user with more devices that sync here, some ask the database.
const MOST_DEVICES: usize = 16;
/// About what one takes.
const DEVICE_BYTES: usize = 256;

/// What the devices of a user have left. It is so until the user is woken.
#[derive(Clone, Default)]
pub(super) struct KeysLeft(BTreeMap<String, Arc<KeyCounts>>);

impl KeysLeft {
    /// What was read just now, beside what is known still to be so.
    pub(super) fn and(mut self, device: &str, counts: KeyCounts) -> Self {
        if self.0.len() >= MOST_DEVICES {
            self.0.clear();
        }
        self.0.insert(device.to_owned(), Arc::new(counts));
        self
    }

    pub(super) fn of(&self, device: &str) -> Option<Arc<KeyCounts>> {
        self.0.get(device).cloned()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len() * DEVICE_BYTES
    }
}

/// A client that finds no number of its keys may think that the server has lost them, and one that finds no list of
/// fallback keys that the server knows none.
pub(super) fn show_left(response: &mut Response, counts: &KeyCounts) {
    response.device_one_time_keys_count = shown(counts);
    response.device_unused_fallback_key_types = Some(unused(counts));
}

pub(super) fn unused(counts: &KeyCounts) -> Vec<OneTimeKeyAlgorithm> {
    counts.unused_fallbacks.iter().map(|algorithm| algorithm.as_str().into()).collect()
}

pub(super) fn shown(counts: &KeyCounts) -> BTreeMap<OneTimeKeyAlgorithm, UInt> {
    let none = std::iter::once((OneTimeKeyAlgorithm::SignedCurve25519, UInt::MIN));
    let left = |(algorithm, n): (&String, &i64)| (algorithm.as_str().into(), UInt::try_from(*n).unwrap_or_default());
    none.chain(counts.one_time.iter().map(left)).collect()
}

pub(super) fn show_lists(response: &mut Response, lists: DeviceLists) -> Result<()> {
    response.device_lists.changed = users(lists.changed)?;
    response.device_lists.left = users(lists.left)?;
    Ok(())
}

pub(super) fn users(users: Vec<String>) -> Result<Vec<OwnedUserId>> {
    users.into_iter().map(|user| user.try_into().map_err(Error::internal)).collect()
}
