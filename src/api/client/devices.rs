//! The devices of a user.

use hearth_core::Result;
use hearth_storage::sessions::DeviceRow;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{Device, delete_device, delete_devices, get_device, get_devices, update_device},
};

use crate::{
    api::{Api, Client, Routes},
    service::confirm::Deed,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(list).client(get).client(rename).client(delete).client(delete_many)
}

async fn list(api: Api, req: Client<get_devices::v3::Request>) -> Result<get_devices::v3::Response> {
    let devices = api.accounts.devices(&req.auth).await?;
    Ok(get_devices::v3::Response::new(devices.into_iter().map(device).collect()))
}

async fn get(api: Api, req: Client<get_device::v3::Request>) -> Result<get_device::v3::Response> {
    let found = api.accounts.device_of(&req.auth, &req.body.device_id).await?;
    Ok(get_device::v3::Response::new(device(found)))
}

async fn rename(api: Api, req: Client<update_device::v3::Request>) -> Result<update_device::v3::Response> {
    api.accounts.rename_device(&req.auth, &req.body.device_id, req.body.display_name).await?;
    Ok(update_device::v3::Response::new())
}

async fn delete(api: Api, req: Client<delete_device::v3::Request>) -> Result<delete_device::v3::Response> {
    api.accounts.confirm(&req.auth, req.body.auth.as_ref(), Deed::EndDevices).await?;
    api.accounts.end_devices(&req.auth, &[req.body.device_id]).await?;
    Ok(delete_device::v3::Response::new())
}

async fn delete_many(api: Api, req: Client<delete_devices::v3::Request>) -> Result<delete_devices::v3::Response> {
    api.accounts.confirm(&req.auth, req.body.auth.as_ref(), Deed::EndDevices).await?;
    api.accounts.end_devices(&req.auth, &req.body.devices).await?;
    Ok(delete_devices::v3::Response::new())
}

fn device(row: DeviceRow) -> Device {
    let mut device = Device::new(row.device_id.into());
    device.display_name = row.display_name;
    device.last_seen_ip = row.last_seen_ip;
    device.last_seen_ts = row.last_seen_ms.and_then(|ms| UInt::try_from(ms).ok()).map(MilliSecondsSinceUnixEpoch);
    device
}
