//! Where users want to be told of what happens while they don't sync.

use hearth_core::Result;
use ruma::api::client::push::{
    get_pushers,
    set_pusher::{
        self,
        v3::{PusherAction, PusherPostData},
    },
};

use crate::{
    api::{Api, Client, Routes},
    service::rate_limit::Limited,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(all).client(set).limited(Limited::AccountData)
}

async fn all(api: Api, req: Client<get_pushers::v3::Request>) -> Result<get_pushers::v3::Response> {
    Ok(get_pushers::v3::Response::new(api.pushers.all(&req.auth.user_id).await?))
}

async fn set(api: Api, req: Client<set_pusher::v3::Request>) -> Result<set_pusher::v3::Response> {
    match req.body.action {
        PusherAction::Post(PusherPostData { pusher, append, .. }) => api.pushers.set(&req.auth, pusher, append).await?,
        PusherAction::Delete(ids) => api.pushers.remove(&req.auth.user_id, &ids).await?,
        _ => return Err(hearth_core::Error::bad_json("A pusher is set or removed")),
    }
    Ok(set_pusher::v3::Response::new())
}
