//! Sliding sync, as clients use it and as it was accepted.

mod merged;

use std::collections::BTreeMap;

use hearth_core::Result;
use ruma::{
    OwnedRoomId,
    api::client::sync::sync_events::v5::{Request, response},
};
use serde::Serialize;

use super::{lenient::WithContent, reader};
use crate::{
    api::{Api, Client, Json, Routes},
    sync::{Slid, SlidingWish},
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client_as(sliding_sync).waits().client(merged_sync).waits()
}

async fn merged_sync(api: Api, req: Client<merged::Request>) -> Result<Json<merged::Reply>> {
    let _there = api.presence.polls(&req.auth.user_id, &req.body.presence()?);
    let wish = req.body.wish(&req.auth.user_id, req.auth.as_of)?;
    Ok(Json(api.syncs.slide(reader(&req.auth), wish).await?.into()))
}

async fn sliding_sync(api: Api, req: Client<WithContent<Request>>) -> Result<Json<Reply>> {
    let WithContent { request, content } = req.body;
    let _there = api.presence.polls(&req.auth.user_id, &request.set_presence);
    let txn_id = request.txn_id.clone();
    let wish = SlidingWish::new(request, &content, &req.auth.user_id, req.auth.as_of)?;
    let Slid { response, expanded, .. } = api.syncs.slide(reader(&req.auth), wish).await?;
    let room = |(id, room): (OwnedRoomId, response::Room)| {
        let expanded_timeline = expanded.contains(&id);
        (id, Room { room, expanded_timeline })
    };
    Ok(Json(Reply {
        txn_id,
        pos: response.pos,
        lists: response.lists,
        rooms: response.rooms.into_iter().map(room).collect(),
        extensions: response.extensions,
    }))
}

/// Ruma's types, but for the word for a room of which older events are shown because more of them is wanted.
#[derive(Serialize)]
struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    txn_id: Option<String>,
    pos: String,
    lists: BTreeMap<String, response::List>,
    rooms: BTreeMap<OwnedRoomId, Room>,
    extensions: response::Extensions,
}

#[derive(Serialize)]
struct Room {
    #[serde(flatten)]
    room: response::Room,
    #[serde(rename = "unstable_expanded_timeline", skip_serializing_if = "std::ops::Not::not")]
    expanded_timeline: bool,
}
