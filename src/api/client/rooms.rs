//! Making rooms, and who is in them.

use std::collections::BTreeMap;

use hearth_core::{Error, Result};
use http::Method;
use ruma::{
    OwnedMxcUri, OwnedRoomId, OwnedUserId, RoomOrAliasId,
    api::{
        IncomingRequest, Metadata,
        client::{
            knock::knock_room,
            membership::{
                ban_user, forget_room, get_member_events, invite_user, join_room_by_id, join_room_by_id_or_alias,
                joined_members, joined_rooms, kick_user, leave_room, unban_user,
            },
            room::{Visibility, create_room, upgrade_room},
        },
        error::DeserializationError,
    },
    serde::Raw,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{lenient::WithContent, optional_token, reader};
use crate::{
    api::{Api, Client, Json, Routes},
    service::{
        rate_limit::Limited,
        rooms::{CreateRoom, Join, Preset, Target, Upgrade},
        timeline::MemberWish,
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(create)
        .limited(Limited::RoomCreation)
        .client(upgrade)
        .limited(Limited::RoomCreation)
        .client(invite)
        .limited(Limited::Invite)
        .client(join_by_id)
        .limited(Limited::Join)
        .client(join)
        .limited(Limited::Join)
        .client(knock)
        .limited(Limited::Join)
        .client(leave)
        .limited(Limited::Message)
        .client(kick)
        .limited(Limited::Message)
        .client(ban)
        .limited(Limited::Message)
        .client(unban)
        .limited(Limited::Message)
        .client(forget)
        .client(rooms)
        .client(members)
        .client(joined)
}

fn parse<T: DeserializeOwned, R>(raw: &Raw<R>) -> Result<T> {
    serde_json::from_str(raw.json().get()).map_err(|e| Error::bad_json(e.to_string()))
}

fn preset(preset: &create_room::v3::RoomPreset) -> Result<Preset> {
    match preset {
        create_room::v3::RoomPreset::PrivateChat => Ok(Preset::Private),
        create_room::v3::RoomPreset::TrustedPrivateChat => Ok(Preset::TrustedPrivate),
        create_room::v3::RoomPreset::PublicChat => Ok(Preset::Public),
        other => Err(Error::invalid_param(format!("There is no preset {other}"))),
    }
}

async fn create(api: Api, req: Client<create_room::v3::Request>) -> Result<create_room::v3::Response> {
    let body = req.body;
    if !body.invite_3pid.is_empty() {
        return Err(Error::invalid_param("This server has no identity server to invite by e-mail or phone number"));
    }
    let mut initial_state = Vec::with_capacity(body.initial_state.len());
    for state in &body.initial_state {
        initial_state.push(parse(state)?);
    }
    if !matches!(body.visibility, Visibility::Public | Visibility::Private) {
        return Err(Error::invalid_param("`visibility` is public or private"));
    }
    let wish = CreateRoom {
        version: body.room_version,
        preset: body.preset.as_ref().map(preset).transpose()?,
        public: body.visibility == Visibility::Public,
        creation_content: body.creation_content.as_ref().map_or_else(|| Ok(Map::new()), parse)?,
        power_levels: body.power_level_content_override.as_ref().map_or_else(|| Ok(Map::new()), parse)?,
        initial_state,
        name: body.name,
        topic: body.topic,
        alias_localpart: body.room_alias_name,
        invite: body.invite,
        is_direct: body.is_direct,
    };
    api.limits.user(Limited::Invite, &req.auth, wish.invited()).await?;
    let room_id = api.rooms.create(&req.auth.user_id, wish).await?;
    Ok(create_room::v3::Response::new(room_id))
}

async fn upgrade(api: Api, req: Client<upgrade_room::v3::Request>) -> Result<upgrade_room::v3::Response> {
    let wish = Upgrade { version: req.body.new_version, additional_creators: req.body.additional_creators };
    let successor = api.rooms.upgrade(&req.auth.user_id, &req.body.room_id, wish).await?;
    Ok(upgrade_room::v3::Response::new(successor))
}

fn target(user: OwnedUserId, membership: &'static str, reason: Option<String>) -> Target {
    Target { user, membership, reason, extra: Map::<String, Value>::new() }
}

async fn invite(api: Api, req: Client<invite_user::v3::Request>) -> Result<invite_user::v3::Response> {
    let user = match req.body.recipient {
        invite_user::v3::InvitationRecipient::UserId(invite) => target(invite.user_id, "invite", invite.reason),
        _ => {
            return Err(Error::invalid_param("This server has no identity server to invite by e-mail or phone number"));
        }
    };
    api.rooms.set_membership(&req.body.room_id, &req.auth.user_id, user).await?;
    Ok(invite_user::v3::Response::new())
}

async fn join_by_id(
    api: Api,
    req: Client<WithContent<join_room_by_id::v3::Request>>,
) -> Result<join_room_by_id::v3::Response> {
    let WithContent { request, content } = req.body;
    api.rooms.join(&request.room_id, &req.auth.user_id, Join { reason: request.reason, content }).await?;
    Ok(join_room_by_id::v3::Response::new(request.room_id))
}

async fn join(
    api: Api,
    req: Client<WithContent<join_room_by_id_or_alias::v3::Request>>,
) -> Result<join_room_by_id_or_alias::v3::Response> {
    let WithContent { request, content } = req.body;
    let room_id = resolve(&api, &request.room_id_or_alias).await?;
    api.rooms.join(&room_id, &req.auth.user_id, Join { reason: request.reason, content }).await?;
    Ok(join_room_by_id_or_alias::v3::Response::new(room_id))
}

/// The room that an id or an alias names.
pub(super) async fn resolve(api: &Api, name: &RoomOrAliasId) -> Result<OwnedRoomId> {
    match OwnedRoomId::try_from(name.to_owned()) {
        Ok(id) => Ok(id),
        Err(alias) => api.rooms.by_alias(&alias).await,
    }
}

async fn knock(api: Api, req: Client<knock_room::v3::Request>) -> Result<knock_room::v3::Response> {
    let room_id = resolve(&api, &req.body.room_id_or_alias).await?;
    api.rooms.knock(&room_id, &req.auth.user_id, req.body.reason).await?;
    Ok(knock_room::v3::Response::new(room_id))
}

async fn leave(api: Api, req: Client<leave_room::v3::Request>) -> Result<leave_room::v3::Response> {
    let me = target(req.auth.user_id.clone(), "leave", req.body.reason);
    api.rooms.set_membership(&req.body.room_id, &req.auth.user_id, me).await?;
    Ok(leave_room::v3::Response::new())
}

async fn kick(api: Api, req: Client<kick_user::v3::Request>) -> Result<kick_user::v3::Response> {
    let user = target(req.body.user_id, "leave", req.body.reason);
    api.rooms.kick(&req.body.room_id, &req.auth.user_id, user).await?;
    Ok(kick_user::v3::Response::new())
}

async fn ban(api: Api, req: Client<ban_user::v3::Request>) -> Result<ban_user::v3::Response> {
    let user = target(req.body.user_id, "ban", req.body.reason);
    api.rooms.set_membership(&req.body.room_id, &req.auth.user_id, user).await?;
    Ok(ban_user::v3::Response::new())
}

async fn unban(api: Api, req: Client<unban_user::v3::Request>) -> Result<unban_user::v3::Response> {
    api.rooms.unban(&req.body.room_id, &req.auth.user_id, &req.body.user_id, req.body.reason).await?;
    Ok(unban_user::v3::Response::new())
}

async fn forget(api: Api, req: Client<forget_room::v3::Request>) -> Result<forget_room::v3::Response> {
    api.rooms.forget(&req.body.room_id, &req.auth.user_id).await?;
    Ok(forget_room::v3::Response::new())
}

async fn rooms(api: Api, req: Client<joined_rooms::v3::Request>) -> Result<joined_rooms::v3::Response> {
    Ok(joined_rooms::v3::Response::new(api.rooms.joined_by(&req.auth.user_id).await?))
}

async fn members(api: Api, req: Client<get_member_events::v3::Request>) -> Result<get_member_events::v3::Response> {
    let wish = MemberWish {
        at: optional_token(req.body.at.as_deref())?,
        membership: req.body.membership.map(|m| m.to_string()),
        not_membership: req.body.not_membership.map(|m| m.to_string()),
    };
    let members = api.timelines.members(reader(&req.auth), &req.body.room_id, wish).await?;
    Ok(get_member_events::v3::Response::new(members))
}

/// Like [`joined_members`], with a place for what a member has not: clients look for it.
struct JoinedMembers(joined_members::v3::Request);

impl Metadata for JoinedMembers {
    const METHOD: Method = joined_members::v3::Request::METHOD;
    const RATE_LIMITED: bool = joined_members::v3::Request::RATE_LIMITED;
    type Authentication = <joined_members::v3::Request as Metadata>::Authentication;
    type PathBuilder = <joined_members::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = joined_members::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for JoinedMembers {
    type EndpointError = <joined_members::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Json<Joined>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        joined_members::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

#[derive(Serialize)]
struct Joined {
    joined: BTreeMap<OwnedUserId, JoinedMember>,
}

#[derive(Serialize)]
struct JoinedMember {
    display_name: Option<String>,
    avatar_url: Option<OwnedMxcUri>,
}

async fn joined(api: Api, req: Client<JoinedMembers>) -> Result<Json<Joined>> {
    #[derive(serde::Deserialize)]
    struct Member {
        state_key: OwnedUserId,
        content: Profile,
    }
    #[derive(serde::Deserialize)]
    struct Profile {
        displayname: Option<String>,
        avatar_url: Option<OwnedMxcUri>,
    }
    let (reader, room_id) = (reader(&req.auth), &req.body.0.room_id);
    api.timelines.joined_room(reader, room_id).await?;
    let wish = MemberWish { membership: Some("join".to_owned()), ..MemberWish::default() };
    let mut joined = BTreeMap::new();
    for event in api.timelines.members::<()>(reader, room_id, wish).await? {
        let Member { state_key, content } = parse(&event)?;
        let Profile { displayname, avatar_url } = content;
        joined.insert(state_key, JoinedMember { display_name: displayname, avatar_url });
    }
    Ok(Json(Joined { joined }))
}
