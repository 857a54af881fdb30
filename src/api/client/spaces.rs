//! Rooms as one sees them before one is in.

use hearth_core::Result;
use ruma::api::client::{room::get_summary, space::get_hierarchy};

use super::rooms::resolve;
use crate::{
    api::{Api, Client, Optional, Routes},
    service::spaces::TreeWish,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.optional(summary).client(hierarchy)
}

async fn summary(api: Api, req: Optional<get_summary::v1::Request>) -> Result<get_summary::v1::Response> {
    let room_id = resolve(&api, &req.body.room_id_or_alias).await?;
    let user = req.auth.as_ref().map(|session| &*session.user_id);
    let (summary, membership) = api.spaces.summary(user, &room_id).await?;
    let mut response = get_summary::v1::Response::new(summary);
    response.membership = membership;
    Ok(response)
}

async fn hierarchy(api: Api, req: Client<get_hierarchy::v1::Request>) -> Result<get_hierarchy::v1::Response> {
    let body = req.body;
    let wish = TreeWish {
        from: body.from,
        limit: body.limit.map(u64::from),
        max_depth: body.max_depth.map(u64::from),
        suggested_only: body.suggested_only,
    };
    let tree = api.spaces.tree(&req.auth.user_id, &body.room_id, wish).await?;
    let mut response = get_hierarchy::v1::Response::new();
    response.rooms = tree.rooms;
    response.next_batch = tree.next;
    Ok(response)
}
