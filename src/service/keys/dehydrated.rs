//! Dehydrated devices: devices without a session, which receive keys of encrypted rooms for a user whose other devices are
//! all away.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use hearth_core::{Error, Result, canonical, ids};
use hearth_storage::{
    dehydrated::{Dehydrated, Dehydration},
    to_device::Waiting,
};
use ruma::{DeviceId, OwnedDeviceId, api::client::dehydrated_device::put_dehydrated_device};

use super::{Keys, checked};
use crate::service::{devices::device_name, session::Session};

/// The secret part of a device, encrypted: its account with all one-time keys.
const MAX_DATA_BYTES: usize = 64 << 10;
/// Messages that one answer tells.
const MOST_AT_ONCE: u32 = 100;

/// Some messages that wait for a dehydrated device.
pub struct Messages {
    pub events: Vec<Waiting>,
    /// Where to go on.
    pub next: String,
    /// Whether there are more.
    pub is_part: bool,
}

impl Keys {
    /// Keeps a device without a session, in the place of the one before.
    pub async fn dehydrate(
        &self,
        session: &Session,
        request: put_dehydrated_device::unstable::Request,
    ) -> Result<OwnedDeviceId> {
        let put_dehydrated_device::unstable::Request {
            device_id,
            initial_device_display_name,
            device_data,
            device_keys,
            one_time_keys,
            fallback_keys,
            ..
        } = request;
        ids::check_device_id(device_id.as_str())?;
        let data = device_data.json().get();
        if data.len() > MAX_DATA_BYTES {
            return Err(Error::too_large(format!("`device_data` has at most {MAX_DATA_BYTES} bytes")));
        }
        let data = canonical::parse_object(data)?;
        if data.get("algorithm").and_then(|algorithm| algorithm.as_str()).is_none() {
            return Err(Error::bad_json("`device_data` names its algorithm"));
        }
        let user = &session.user_id;
        let device = Dehydration {
            display_name: initial_device_display_name.map(device_name).transpose()?,
            data: serde_json::to_string(&data).map_err(Error::internal)?,
            keys: checked(user, device_id.as_str(), Some(&device_keys), &one_time_keys, &fallback_keys)?,
            ending: self.accounts.ending(),
        };
        match self.storage.dehydrate(device).await? {
            Dehydrated::Done => Ok(device_id),
            Dehydrated::Taken => {
                Err(Error::invalid_param("A device that is logged in has this id, or one of your keys"))
            }
        }
    }

    /// The user's device without a session, and its data.
    pub async fn dehydrated(&self, session: &Session) -> Result<(OwnedDeviceId, String)> {
        let found = self.storage.dehydrated_device(session.user_id.as_str()).await?;
        let (device, data) = found.ok_or_else(nothing)?;
        Ok((device.into(), data))
    }

    pub async fn end_dehydrated(&self, session: &Session) -> Result<OwnedDeviceId> {
        let ended = self.storage.end_dehydrated_device(session.user_id.as_str(), self.accounts.ending()).await?;
        Ok(ended.ok_or_else(nothing)?.into())
    }

    /// What waits for it, from where an answer before ended. It goes on waiting: who takes the device over may fail to.
    pub async fn dehydrated_messages(
        &self,
        session: &Session,
        device: &DeviceId,
        from: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Messages> {
        let not_it = || Error::forbidden("This is not your dehydrated device");
        if ids::check_device_id(device.as_str()).is_err() {
            return Err(not_it());
        }
        let after = from.map_or(Ok(0), after)?;
        let limit = limit.unwrap_or(MOST_AT_ONCE).clamp(1, MOST_AT_ONCE);
        let (user, device) = (session.user_id.as_str(), device.as_str());
        // One more than is told, to know whether there is more.
        let found = self.storage.dehydrated_messages(user, device, after, limit + 1).await?;
        let mut events = found.ok_or_else(not_it)?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_part = events.len() > most;
        events.truncate(most);
        let next = format!("d{}", events.last().map_or(after, |last| last.pos));
        Ok(Messages { events, next, is_part })
    }
}

/// The position that a token of ours means.
fn after(token: &str) -> Result<i64> {
    let pos: Option<i64> = token.strip_prefix('d').and_then(|pos| pos.parse().ok());
    pos.filter(|pos| *pos >= 0).ok_or_else(|| Error::invalid_param("This token was not made here"))
}

fn nothing() -> Error {
    Error::not_found("There is no dehydrated device")
}
