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
    service::{rate_limit::Limited, receipts::Read, session::Session},
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
    let _there = api.presence.polls(&req.auth.user_id, &body.set_presence);
    let in_unstable_form = unstable_state_after && !body.use_state_after;
    let wish = Box::pin(wish(&api, &req.auth, body, unstable_state_after)).await?;
    let response = api.syncs.sync(reader(&req.auth), &wish).await?;
    Ok(Json(Reply::new(response, in_unstable_form)))
}

async fn wish(
    api: &Api,
    auth: &Session,
    asked: Box<sync_events::v3::Request>,
    unstable_state_after: bool,
) -> Result<Box<SyncWish>> {
    let filter = match asked.filter {
        None => FilterDefinition::default(),
        Some(sync_events::v3::Filter::FilterDefinition(filter)) => filter,
        Some(sync_events::v3::Filter::FilterId(id)) => api.filters.get(auth, &auth.user_id, &id).await?,
        Some(_) => return Err(Error::invalid_param("A filter is an id or an object")),
    };
    Ok(Box::new(SyncWish {
        since: asked.since.as_deref().map(str::parse).transpose()?,
        timeout: asked.timeout,
        full_state: asked.full_state,
        state_after: asked.use_state_after || unstable_state_after,
        filter,
        session_as_of: auth.as_of,
    }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::edge::Endpoint, sync::Syncs};

    /// Of what a function returns.
    fn size_2<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    fn size_3<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Thousands of them wait at a time: what is large and not needed meanwhile belongs into a box.
    #[test]
    fn a_sync_that_waits_takes_little() {
        let sizes = [size_2(sync), size_3(Syncs::sync), size_2(Endpoint::serve)];
        assert!(sizes.iter().all(|bytes| *bytes <= 1_024), "{sizes:?}");
    }
}
