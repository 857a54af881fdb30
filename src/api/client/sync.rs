//! Sync, and what is gone when the moment is: typing, receipts.

use std::collections::BTreeMap;

use hearth_core::{Error, Result, limits::MAX_ID_BYTES};
use ruma::{
    OneTimeKeyAlgorithm, OwnedRoomId, UInt,
    api::client::{
        filter::FilterDefinition,
        read_marker::set_read_marker,
        receipt::create_receipt,
        sync::sync_events::{
            self, DeviceLists,
            v3::{
                GlobalAccountData, InvitedRoom, JoinedRoom, KnockedRoom, LeftRoom, Presence, RoomAccountData, State,
                Timeline, ToDevice,
            },
        },
        typing::create_typing_event::{self, v3::Typing},
    },
    events::{AnySyncStateEvent, receipt::ReceiptThread},
    serde::Raw,
};
use serde::Serialize;

use super::reader;
use crate::{
    api::{Api, Client, Json, Routes},
    service::receipts::Read,
    sync::SyncWish,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client_as(sync).client(typing).client(receipt).client(read_marker)
}

async fn sync(api: Api, req: Client<sync_events::v3::Request>) -> Result<Json<Reply>> {
    let body = req.body;
    let filter = match body.filter {
        None => FilterDefinition::default(),
        Some(sync_events::v3::Filter::FilterDefinition(filter)) => filter,
        Some(sync_events::v3::Filter::FilterId(id)) => api.filters.get(&req.auth, &req.auth.user_id, &id).await?,
        Some(_) => return Err(Error::invalid_param("A filter is an id or an object")),
    };
    let wish = SyncWish {
        since: body.since.as_deref().map(str::parse).transpose()?,
        timeout: body.timeout,
        full_state: body.full_state,
        filter,
    };
    let response = api.syncs.sync(reader(&req.auth), wish).await?;
    Ok(Json(Reply::from(response)))
}

async fn typing(api: Api, req: Client<create_typing_event::v3::Request>) -> Result<create_typing_event::v3::Response> {
    if req.body.user_id != req.auth.user_id {
        return Err(Error::forbidden("You can't type for others"));
    }
    let room = api.timelines.joined_room(reader(&req.auth), &req.body.room_id).await?;
    let timeout = match req.body.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    api.typing.set(room.room_sn, &req.auth.user_id, timeout);
    Ok(create_typing_event::v3::Response::new())
}

async fn receipt(api: Api, req: Client<create_receipt::v3::Request>) -> Result<create_receipt::v3::Response> {
    let body = req.body;
    let thread = match &body.thread {
        ReceiptThread::Unthreaded => String::new(),
        ReceiptThread::Main => "main".to_owned(),
        ReceiptThread::Thread(root) if root.as_str().len() <= MAX_ID_BYTES => root.to_string(),
        _ => return Err(Error::invalid_param("`thread_id` is `main` or the id of a thread's root")),
    };
    if body.receipt_type == create_receipt::v3::ReceiptType::FullyRead && !thread.is_empty() {
        return Err(Error::invalid_param("The read marker belongs to no thread"));
    }
    let read = match body.receipt_type {
        create_receipt::v3::ReceiptType::Read => Read::Public { thread },
        create_receipt::v3::ReceiptType::ReadPrivate => Read::Private { thread },
        create_receipt::v3::ReceiptType::FullyRead => Read::Marker,
        other => return Err(Error::invalid_param(format!("There is no receipt type {}", other.as_str()))),
    };
    api.receipts.read(reader(&req.auth), &body.room_id, &body.event_id, read).await?;
    Ok(create_receipt::v3::Response::new())
}

async fn read_marker(api: Api, req: Client<set_read_marker::v3::Request>) -> Result<set_read_marker::v3::Response> {
    let body = req.body;
    let reader = reader(&req.auth);
    let unthreaded = String::new;
    if let Some(event) = &body.fully_read {
        api.receipts.read(reader, &body.room_id, event, Read::Marker).await?;
    }
    if let Some(event) = &body.read_receipt {
        api.receipts.read(reader, &body.room_id, event, Read::Public { thread: unthreaded() }).await?;
    }
    if let Some(event) = &body.private_read_receipt {
        api.receipts.read(reader, &body.room_id, event, Read::Private { thread: unthreaded() }).await?;
    }
    Ok(set_read_marker::v3::Response::new())
}

/// [`sync_events::v3::Response`], but for left rooms: clients in use want their `state` also where it is empty, and
/// ruma's type leaves it out.
#[derive(Serialize)]
struct Reply {
    next_batch: String,
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    rooms: Rooms,
    #[serde(skip_serializing_if = "Presence::is_empty")]
    presence: Presence,
    #[serde(skip_serializing_if = "GlobalAccountData::is_empty")]
    account_data: GlobalAccountData,
    #[serde(skip_serializing_if = "ToDevice::is_empty")]
    to_device: ToDevice,
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    device_lists: DeviceLists,
    device_one_time_keys_count: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_unused_fallback_key_types: Option<Vec<OneTimeKeyAlgorithm>>,
}

#[derive(Serialize)]
struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<OwnedRoomId, Left>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<OwnedRoomId, JoinedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<OwnedRoomId, InvitedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<OwnedRoomId, KnockedRoom>,
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.leave.is_empty() && self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty()
    }
}

#[derive(Serialize)]
struct Left {
    timeline: Timeline,
    state: Events,
    #[serde(skip_serializing_if = "RoomAccountData::is_empty")]
    account_data: RoomAccountData,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Raw<AnySyncStateEvent>>,
}

impl From<sync_events::v3::Response> for Reply {
    fn from(r: sync_events::v3::Response) -> Self {
        let leave = r.rooms.leave.into_iter().map(|(id, left)| (id, left.into())).collect();
        Self {
            next_batch: r.next_batch,
            rooms: Rooms { leave, join: r.rooms.join, invite: r.rooms.invite, knock: r.rooms.knock },
            presence: r.presence,
            account_data: r.account_data,
            to_device: r.to_device,
            device_lists: r.device_lists,
            device_one_time_keys_count: r.device_one_time_keys_count,
            device_unused_fallback_key_types: r.device_unused_fallback_key_types,
        }
    }
}

impl From<LeftRoom> for Left {
    fn from(left: LeftRoom) -> Self {
        let state = match left.state {
            State::Before(state) | State::After(state) => state.events,
            _ => Vec::new(),
        };
        Self { timeline: left.timeline, state: Events { events: state }, account_data: left.account_data }
    }
}
