//! The devices of a user.

use hearth_core::{Error, Result, ids};
use hearth_storage::sessions::DeviceRow;
use ruma::{DeviceId, OwnedDeviceId};

use super::{accounts::Accounts, session::Session};

const MAX_DEVICE_NAME_BYTES: usize = 1_000;

impl Accounts {
    /// The user's devices, oldest first.
    pub async fn devices(&self, session: &Session) -> Result<Vec<DeviceRow>> {
        Ok(self.storage.devices(session.user_id.as_str()).await?)
    }

    pub async fn device_of(&self, session: &Session, device: &DeviceId) -> Result<DeviceRow> {
        if ids::check_device_id(device.as_str()).is_err() {
            return Err(no_device());
        }
        let found = self.storage.device(session.user_id.as_str(), device.as_str()).await?;
        found.ok_or_else(no_device)
    }

    /// Gives one of the user's devices a name; without a name nothing changes.
    pub async fn rename_device(&self, session: &Session, device: &DeviceId, name: Option<String>) -> Result<()> {
        self.device_of(session, device).await?;
        let Some(name) = name.map(device_name).transpose()? else { return Ok(()) };
        let known = self.storage.rename_device(session.user_id.as_str(), device.as_str(), Some(&name)).await?;
        if known { Ok(()) } else { Err(no_device()) }
    }

    /// Ends the sessions of some of the user's devices. Those that aren't there are passed over.
    pub async fn end_devices(&self, session: &Session, devices: &[OwnedDeviceId]) -> Result<()> {
        let devices =
            devices.iter().filter(|d| ids::check_device_id(d.as_str()).is_ok()).map(ToString::to_string).collect();
        self.storage.end_sessions(session.user_id.as_str(), devices, self.ending()).await?;
        self.sessions.revoked([&*session.user_id]);
        Ok(())
    }
}

pub(super) fn device_name(name: String) -> Result<String> {
    if name.len() > MAX_DEVICE_NAME_BYTES || name.contains('\0') {
        return Err(Error::invalid_param(format!("A device name has at most {MAX_DEVICE_NAME_BYTES} bytes")));
    }
    Ok(name)
}

fn no_device() -> Error {
    Error::not_found("There is no such device")
}
