//! What users may do here.

use hearth_core::{Error, Result};
use ruma::{
    RoomVersionId,
    api::client::discovery::get_capabilities::v3::{
        Capabilities, ProfileFieldsCapability, Request, RoomVersionStability, RoomVersionsCapability,
        ThirdPartyIdChangesCapability,
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json, to_value};

use crate::{
    api::{Api, Client, Json, Routes},
    config::CREATABLE,
};

pub fn routes(r: Routes) -> Routes {
    r.client_as::<Request, Json<Answer>, _, _>(capabilities)
}

/// Rooms of these versions can be joined, not created.
const HELD: [RoomVersionId; 3] = [RoomVersionId::V3, RoomVersionId::V4, RoomVersionId::V5];

#[derive(Serialize)]
struct Answer {
    capabilities: Map<String, Value>,
}

async fn capabilities(api: Api, _: Client<Request>) -> Result<Json<Answer>> {
    let stable = CREATABLE.into_iter().map(|v| (v, RoomVersionStability::Stable));
    let held = HELD.into_iter().map(|v| (v, RoomVersionStability::Unstable));
    let mut capabilities = Capabilities::new();
    capabilities.room_versions =
        RoomVersionsCapability::new(api.config.rooms.default_room_version.clone(), stable.chain(held).collect());
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    let Value::Object(mut capabilities) = to_value(capabilities).map_err(Error::internal)? else {
        return Err(Error::internal("capabilities are an object"));
    };
    // The type leaves out what is so by default, but the specification wants this one to be said.
    capabilities.insert("m.change_password".to_owned(), json!({ "enabled": true }));
    Ok(Json(Answer { capabilities }))
}
