//! Who is there.

use std::time::Duration;

use hearth_core::{Error, Result};
use ruma::api::client::presence::{get_presence, set_presence};

use crate::api::{Api, Client, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(get).client(set)
}

async fn get(api: Api, req: Client<get_presence::v3::Request>) -> Result<get_presence::v3::Response> {
    let (reader, user) = (&req.auth.user_id, &req.body.user_id);
    if reader != user && !api.rooms.share_a_room(reader, user).await? {
        return Err(Error::forbidden("You share no room with this user"));
    }
    let told = api.presence.of(user);
    let mut response = get_presence::v3::Response::new(told.presence);
    response.status_msg = told.status;
    response.currently_active = told.currently_active;
    response.last_active_ago = told.last_active_ago.map(Duration::from_millis);
    Ok(response)
}

async fn set(api: Api, req: Client<set_presence::v3::Request>) -> Result<set_presence::v3::Response> {
    if req.auth.user_id != req.body.user_id {
        return Err(Error::forbidden("This is not you"));
    }
    api.presence.set(&req.auth.user_id, &req.body.presence, req.body.status_msg)?;
    Ok(set_presence::v3::Response::new())
}
