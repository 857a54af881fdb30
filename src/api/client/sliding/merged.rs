//! Sliding sync in the form in which the proposal was accepted: what a request says otherwise than clients do at its
//! unstable path, and what an answer does. In between they are the same.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4186-simplified-sliding-sync.md>

use std::{collections::BTreeMap, time::Duration};

use hearth_core::{Error, Result};
use ruma::{
    JsOption, OwnedMxcUri, OwnedRoomId, UInt,
    api::{
        IncomingRequest,
        auth_scheme::AccessToken,
        client::sync::sync_events::v5::{self, request, response},
        error::{DeserializationError, Error as ApiError},
        metadata,
    },
    events::{AnyStrippedStateEvent, AnySyncStateEvent, AnySyncTimelineEvent},
    presence::PresenceState,
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    api::Json,
    sync::{Slid, SlidingWish, StateWish},
};

/// A request, and the whole object that was its body.
pub(super) struct Request {
    asked: Asked,
    content: Map<String, Value>,
}

metadata! {
    @for Request,
    method: POST,
    rate_limited: true,
    authentication: AccessToken,
    path: "/_matrix/client/v4/sync",
}

impl IncomingRequest for Request {
    type EndpointError = ApiError;
    type OutgoingResponse = Json<Reply>;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        let body = request.body();
        Ok(Self { asked: serde_json::from_slice(body)?, content: serde_json::from_slice(body)? })
    }
}

#[derive(Deserialize)]
struct Asked {
    conn_id: Option<String>,
    pos: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<String>,
    #[serde(default)]
    lists: BTreeMap<String, List>,
    #[serde(default)]
    room_subscriptions: BTreeMap<OwnedRoomId, Config>,
    #[serde(default)]
    extensions: request::Extensions,
}

#[derive(Deserialize)]
struct List {
    /// Without it, all of the list.
    range: Option<(UInt, UInt)>,
    filters: Option<request::ListFilters>,
    #[serde(flatten)]
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    timeline_limit: UInt,
    required_state: RequiredState,
}

#[derive(Deserialize)]
struct RequiredState {
    #[serde(default)]
    include: Vec<Element>,
    #[serde(default)]
    exclude: Vec<Element>,
    #[serde(default)]
    lazy_members: bool,
}

#[derive(Deserialize)]
struct Element {
    #[serde(rename = "type")]
    kind: Option<String>,
    state_key: Option<String>,
}

impl From<RequiredState> for StateWish {
    fn from(asked: RequiredState) -> Self {
        let elements = |all: Vec<Element>| all.into_iter().map(|element| (element.kind, element.state_key)).collect();
        Self { include: elements(asked.include), exclude: elements(asked.exclude), lazy: asked.lazy_members }
    }
}

impl Request {
    pub(super) fn presence(&self) -> Result<PresenceState> {
        match self.asked.set_presence.as_deref() {
            None | Some("online") => Ok(PresenceState::Online),
            Some("offline") => Ok(PresenceState::Offline),
            Some("unavailable") => Ok(PresenceState::Unavailable),
            Some(_) => Err(Error::invalid_param("`set_presence` is one of online, offline, unavailable")),
        }
    }

    /// The same in the words of the unstable path.
    pub(super) fn wish(self, user: &ruma::UserId, session_as_of: u64) -> Result<SlidingWish> {
        let Asked { conn_id, pos, timeout, lists, room_subscriptions, extensions, .. } = self.asked;
        let mut request = v5::Request::new();
        request.conn_id = conn_id;
        request.pos = pos;
        request.timeout = timeout.map(Duration::from_millis);
        request.extensions = extensions;
        let (mut of_lists, mut of_rooms) = (BTreeMap::new(), BTreeMap::new());
        for (name, List { range, filters, config }) in lists {
            let mut list = request::List::default();
            list.ranges = vec![range.unwrap_or((UInt::MIN, UInt::MAX))];
            list.filters = filters;
            list.room_details.timeline_limit = config.timeline_limit;
            of_lists.insert(name.clone(), config.required_state.into());
            request.lists.insert(name, list);
        }
        for (room, config) in room_subscriptions {
            let mut subscription = request::RoomSubscription::default();
            subscription.timeline_limit = config.timeline_limit;
            of_rooms.insert(room.clone(), config.required_state.into());
            request.room_subscriptions.insert(room, subscription);
        }
        SlidingWish::new(request, &self.content, user, session_as_of)?.with_states(of_lists, of_rooms)
    }
}

#[derive(Serialize)]
pub(super) struct Reply {
    pos: String,
    lists: BTreeMap<String, response::List>,
    rooms: BTreeMap<OwnedRoomId, Room>,
    extensions: response::Extensions,
}

#[derive(Serialize)]
struct Room {
    #[serde(skip_serializing_if = "Option::is_none")]
    bump_stamp: Option<UInt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lists: Vec<String>,
    #[serde(skip_serializing_if = "JsOption::is_undefined")]
    name: JsOption<String>,
    #[serde(skip_serializing_if = "JsOption::is_undefined")]
    avatar: JsOption<OwnedMxcUri>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heroes: Option<Vec<response::Hero>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_dm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expanded_timeline: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_state: Vec<Raw<AnySyncStateEvent>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<Raw<AnySyncTimelineEvent>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_live: Option<UInt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined_count: Option<UInt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invited_count: Option<UInt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stripped_state: Option<Vec<Raw<AnyStrippedStateEvent>>>,
}

impl From<Slid> for Reply {
    fn from(slid: Slid) -> Self {
        let Slid { response, expanded, mut beside } = slid;
        let room = |(id, room): (OwnedRoomId, response::Room)| {
            let beside = beside.remove(&id).unwrap_or_default();
            let room = Room {
                bump_stamp: room.bump_stamp,
                membership: beside.membership,
                lists: beside.lists,
                name: match room.name {
                    None if beside.has_lost_its_name => JsOption::Null,
                    name => JsOption::from_implicit_option(name),
                },
                avatar: room.avatar,
                heroes: room.heroes,
                is_dm: room.is_dm,
                initial: room.initial,
                expanded_timeline: expanded.contains(&id),
                required_state: room.required_state,
                timeline: room.timeline,
                prev_batch: room.prev_batch,
                limited: room.limited,
                num_live: room.num_live,
                joined_count: room.joined_count,
                invited_count: room.invited_count,
                stripped_state: room.invite_state,
            };
            (id, room)
        };
        Self {
            rooms: response.rooms.into_iter().map(room).collect(),
            pos: response.pos,
            lists: response.lists,
            extensions: response.extensions,
        }
    }
}
