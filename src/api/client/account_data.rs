//! Account data.

use hearth_core::Result;
use ruma::{
    api::client::config::{
        get_global_account_data, get_room_account_data, set_global_account_data, set_room_account_data,
    },
    serde::Raw,
};

use crate::{
    api::{Api, Client, Routes},
    service::rate_limit::Limited,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(get_global)
        .client(set_global)
        .limited(Limited::AccountData)
        .client(get_room)
        .client(set_room)
        .limited(Limited::AccountData)
}

async fn get_global(
    api: Api,
    req: Client<get_global_account_data::v3::Request>,
) -> Result<get_global_account_data::v3::Response> {
    let kind = req.body.event_type.to_string();
    let content = if kind == "m.push_rules" && req.auth.user_id == req.body.user_id {
        api.push_rules.content(&req.body.user_id).await?
    } else {
        api.account_data.get(&req.auth, &req.body.user_id, None, &kind).await?
    };
    Ok(get_global_account_data::v3::Response::new(Raw::from_json(content)))
}

async fn set_global(
    api: Api,
    req: Client<set_global_account_data::v3::Request>,
) -> Result<set_global_account_data::v3::Response> {
    let set_global_account_data::v3::Request { user_id, event_type, data, .. } = req.body;
    api.account_data.set(&req.auth, &user_id, None, &event_type.to_string(), data.json()).await?;
    Ok(set_global_account_data::v3::Response::new())
}

async fn get_room(
    api: Api,
    req: Client<get_room_account_data::v3::Request>,
) -> Result<get_room_account_data::v3::Response> {
    let get_room_account_data::v3::Request { user_id, room_id, event_type, .. } = req.body;
    let content = api.account_data.get(&req.auth, &user_id, Some(&room_id), &event_type.to_string()).await?;
    Ok(get_room_account_data::v3::Response::new(Raw::from_json(content)))
}

async fn set_room(
    api: Api,
    req: Client<set_room_account_data::v3::Request>,
) -> Result<set_room_account_data::v3::Response> {
    let set_room_account_data::v3::Request { user_id, room_id, event_type, data, .. } = req.body;
    api.account_data.set(&req.auth, &user_id, Some(&room_id), &event_type.to_string(), data.json()).await?;
    Ok(set_room_account_data::v3::Response::new())
}
