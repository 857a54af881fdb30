//! Sync, and what is gone when the moment is: typing, receipts.

mod reply;

use hearth_core::{Error, Result, limits::MAX_ID_BYTES};
use ruma::{
    api::client::{
        filter::FilterDefinition,
        read_marker::set_read_marker,
        receipt::create_receipt,
        sync::sync_events,
        typing::create_typing_event::{self, v3::Typing},
    },
    events::receipt::ReceiptThread,
};

use self::reply::Reply;
use super::{
    lenient::{NullIsAbsent, Sync},
    reader,
};
use crate::{
    api::{Api, Client, Json, Routes},
    service::{rate_limit::Limited, receipts::Read},
    sync::SyncWish,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client_as(sync)
        .client(typing)
        .limited(Limited::Receipt)
        .client(receipt)
        .limited(Limited::Receipt)
        .client(read_marker)
        .limited(Limited::Receipt)
}

async fn sync(api: Api, req: Client<Sync>) -> Result<Json<Reply>> {
    let Sync { request: body, unstable_state_after } = req.body;
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
        state_after: body.use_state_after || unstable_state_after,
        filter,
        session_as_of: req.auth.as_of,
    };
    let _there = api.presence.polls(&req.auth.user_id, &body.set_presence);
    let response = api.syncs.sync(reader(&req.auth), wish).await?;
    Ok(Json(Reply::new(response, unstable_state_after && !body.use_state_after)))
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
    api.presence.acts(&req.auth.user_id);
    api.typing.set(room.room_sn, &req.auth.user_id, timeout);
    Ok(create_typing_event::v3::Response::new())
}

/// matrix-nio says null where a receipt is about no thread.
async fn receipt(
    api: Api,
    req: Client<NullIsAbsent<create_receipt::v3::Request>>,
) -> Result<create_receipt::v3::Response> {
    let NullIsAbsent(body) = req.body;
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
    api.presence.acts(&req.auth.user_id);
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
