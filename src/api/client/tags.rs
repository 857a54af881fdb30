//! Tags of rooms.

use hearth_core::Result;
use ruma::api::client::tag::{create_tag, delete_tag, get_tags};

use crate::api::{Api, Client, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(tags).client(add).client(remove)
}

async fn tags(api: Api, req: Client<get_tags::v3::Request>) -> Result<get_tags::v3::Response> {
    let tags = api.tags.of(&req.auth, &req.body.user_id, &req.body.room_id).await?;
    Ok(get_tags::v3::Response::new(tags))
}

async fn add(api: Api, req: Client<create_tag::v3::Request>) -> Result<create_tag::v3::Response> {
    let body = req.body;
    api.tags.add(&req.auth, &body.user_id, &body.room_id, &body.tag, &body.tag_info).await?;
    Ok(create_tag::v3::Response::new())
}

async fn remove(api: Api, req: Client<delete_tag::v3::Request>) -> Result<delete_tag::v3::Response> {
    api.tags.remove(&req.auth, &req.body.user_id, &req.body.room_id, &req.body.tag).await?;
    Ok(delete_tag::v3::Response::new())
}
