//! Profiles.

use hearth_core::Result;
use ruma::api::client::profile::{delete_profile_field, get_profile, get_profile_field, set_profile_field};

use crate::{
    api::{Api, Client, Public, Routes},
    service::rate_limit::Limited,
};

pub(super) fn routes(r: Routes) -> Routes {
    // A change goes to all rooms.
    r.public(whole).public(field).client(set).limited(Limited::Message).client(delete).limited(Limited::Message)
}

async fn whole(api: Api, req: Public<get_profile::v3::Request>) -> Result<get_profile::v3::Response> {
    Ok(api.profiles.profile(&req.body.user_id).await?.into())
}

async fn field(api: Api, req: Public<get_profile_field::v3::Request>) -> Result<get_profile_field::v3::Response> {
    let value = api.profiles.field(&req.body.user_id, &req.body.field).await?;
    Ok(get_profile_field::v3::Response::new(value))
}

async fn set(api: Api, req: Client<set_profile_field::v3::Request>) -> Result<set_profile_field::v3::Response> {
    api.profiles.set(&req.auth, &req.body.user_id, &req.body.value).await?;
    Ok(set_profile_field::v3::Response::new())
}

async fn delete(
    api: Api,
    req: Client<delete_profile_field::v3::Request>,
) -> Result<delete_profile_field::v3::Response> {
    api.profiles.remove(&req.auth, &req.body.user_id, &req.body.field).await?;
    Ok(delete_profile_field::v3::Response::new())
}
