//! The directory of rooms: their names, and the list of those that show themselves to strangers.

use hearth_core::{Error, Result};
use ruma::{
    ServerName, UInt,
    api::client::{
        alias::{create_alias, delete_alias, get_alias},
        directory::{get_public_rooms, get_public_rooms_filtered, get_room_visibility, set_room_visibility},
        room::{Visibility, aliases},
    },
    directory::RoomNetwork,
};

use super::reader;
use crate::{
    api::{Api, Client, Public, Routes},
    service::{
        directory::{List, ListWish},
        rate_limit::Limited,
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(add)
        .limited(Limited::Message)
        .public(get)
        .client(delete)
        .limited(Limited::Message)
        .client(of_room)
        .public(visibility)
        .client(set_visibility)
        .public(list)
        .client(search)
}

async fn add(api: Api, req: Client<create_alias::v3::Request>) -> Result<create_alias::v3::Response> {
    api.directory.add_alias(&req.auth.user_id, &req.body.room_alias, &req.body.room_id).await?;
    Ok(create_alias::v3::Response::new())
}

async fn get(api: Api, req: Public<get_alias::v3::Request>) -> Result<get_alias::v3::Response> {
    let room_id = api.rooms.by_alias(&req.body.room_alias).await?;
    Ok(get_alias::v3::Response::new(room_id, vec![api.directory.server_name().clone()]))
}

async fn delete(api: Api, req: Client<delete_alias::v3::Request>) -> Result<delete_alias::v3::Response> {
    api.directory.delete_alias(&req.auth.user_id, &req.body.room_alias).await?;
    Ok(delete_alias::v3::Response::new())
}

async fn of_room(api: Api, req: Client<aliases::v3::Request>) -> Result<aliases::v3::Response> {
    let room = api.timelines.open_room(reader(&req.auth), &req.body.room_id).await?;
    let aliases = api.directory.aliases(room.room_sn).await?;
    let aliases = aliases.into_iter().map(|alias| alias.try_into().map_err(Error::internal));
    Ok(aliases::v3::Response::new(aliases.collect::<Result<_>>()?))
}

async fn visibility(
    api: Api,
    req: Public<get_room_visibility::v3::Request>,
) -> Result<get_room_visibility::v3::Response> {
    let public = api.directory.is_public(&req.body.room_id).await?;
    let visibility = if public { Visibility::Public } else { Visibility::Private };
    Ok(get_room_visibility::v3::Response::new(visibility))
}

async fn set_visibility(
    api: Api,
    req: Client<set_room_visibility::v3::Request>,
) -> Result<set_room_visibility::v3::Response> {
    let public = match req.body.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => return Err(Error::invalid_param(format!("There is no visibility {}", other.as_str()))),
    };
    api.directory.publish(&req.auth.user_id, &req.body.room_id, public).await?;
    Ok(set_room_visibility::v3::Response::new())
}

/// The lists of other servers can't be had until there is federation.
fn must_be_ours(api: &Api, server: Option<&ServerName>) -> Result<()> {
    match server {
        Some(server) if server != &**api.directory.server_name() => {
            Err(Error::not_found("This server doesn't federate, so it has no other server's list"))
        }
        _ => Ok(()),
    }
}

async fn list(api: Api, req: Public<get_public_rooms::v3::Request>) -> Result<get_public_rooms::v3::Response> {
    must_be_ours(&api, req.body.server.as_deref())?;
    let wish = ListWish { limit: req.body.limit.map(u64::from), since: req.body.since, ..ListWish::default() };
    let List { rooms, next, before, total } = api.directory.list(wish).await?;
    let mut response = get_public_rooms::v3::Response::new(rooms);
    response.next_batch = next;
    response.prev_batch = before;
    response.total_room_count_estimate = UInt::try_from(total).ok();
    Ok(response)
}

async fn search(
    api: Api,
    req: Client<get_public_rooms_filtered::v3::Request>,
) -> Result<get_public_rooms_filtered::v3::Response> {
    let body = req.body;
    must_be_ours(&api, body.server.as_deref())?;
    if let RoomNetwork::ThirdParty(_) = body.room_network {
        return Err(Error::invalid_param("This server is bridged to no other network"));
    }
    let wish = ListWish {
        limit: body.limit.map(u64::from),
        since: body.since,
        search: body.filter.generic_search_term,
        types: body.filter.room_types,
    };
    let List { rooms, next, before, total } = api.directory.list(wish).await?;
    let mut response = get_public_rooms_filtered::v3::Response::new();
    response.chunk = rooms;
    response.next_batch = next;
    response.prev_batch = before;
    response.total_room_count_estimate = UInt::try_from(total).ok();
    Ok(response)
}
