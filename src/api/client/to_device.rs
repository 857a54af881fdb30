//! Messages from device to device.

use hearth_core::Result;
use ruma::api::client::to_device::send_event_to_device;

use crate::{
    api::{Api, Client, Routes},
    service::rate_limit::Limited,
};

/// Clients send keys to hundreds of devices at once.
const BODY_BYTES: usize = 4 << 20;

pub(super) fn routes(r: Routes) -> Routes {
    r.client(send).with_limit(BODY_BYTES).limited(Limited::ToDevice)
}

async fn send(api: Api, req: Client<send_event_to_device::v3::Request>) -> Result<send_event_to_device::v3::Response> {
    let send_event_to_device::v3::Request { event_type, txn_id, messages, .. } = req.body;
    api.to_device.send(&req.auth, &event_type.to_string(), txn_id.as_str(), &messages).await?;
    Ok(send_event_to_device::v3::Response::new())
}
