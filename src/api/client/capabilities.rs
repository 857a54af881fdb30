//! What users may do here.

use hearth_core::Result;
use ruma::{
    RoomVersionId,
    api::client::discovery::get_capabilities::v3::{
        Capabilities, ChangePasswordCapability, Request, Response, RoomVersionStability, RoomVersionsCapability,
        ThirdPartyIdChangesCapability,
    },
};

use crate::{
    api::{Api, Client, Routes},
    config::CREATABLE,
};

pub fn routes(r: Routes) -> Routes {
    r.client(capabilities)
}

/// Rooms of these versions can be joined, not created.
const HELD: [RoomVersionId; 3] = [RoomVersionId::V3, RoomVersionId::V4, RoomVersionId::V5];

async fn capabilities(api: Api, _: Client<Request>) -> Result<Response> {
    let stable = CREATABLE.into_iter().map(|v| (v, RoomVersionStability::Stable));
    let held = HELD.into_iter().map(|v| (v, RoomVersionStability::Unstable));
    let mut capabilities = Capabilities::new();
    capabilities.room_versions =
        RoomVersionsCapability::new(api.config.rooms.default_room_version.clone(), stable.chain(held).collect());
    capabilities.change_password = ChangePasswordCapability::new(false);
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    Ok(Response::new(capabilities))
}
