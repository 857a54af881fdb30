//! Threads that somebody follows: none of it is in a version of the specification yet.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>,
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4308>

use hearth_core::{Error, Result};
use ruma::api::client::threads::{
    get_thread_subscription, get_thread_subscriptions_changes, subscribe_thread, unsubscribe_thread,
};

use super::{lenient::Directed, optional_token, reader};
use crate::{
    api::{Api, Client, Routes},
    service::{
        rate_limit::Limited,
        subscriptions::{Changes, ChangesWish},
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(get)
        .client(subscribe)
        .limited(Limited::AccountData)
        .client(unsubscribe)
        .limited(Limited::AccountData)
        .client(changes)
}

async fn get(
    api: Api,
    req: Client<get_thread_subscription::unstable::Request>,
) -> Result<get_thread_subscription::unstable::Response> {
    let get_thread_subscription::unstable::Request { room_id, thread_root, .. } = req.body;
    let automatic = api.subscriptions.is_by_client(reader(&req.auth), &room_id, &thread_root).await?;
    Ok(get_thread_subscription::unstable::Response::new(automatic))
}

async fn subscribe(
    api: Api,
    req: Client<subscribe_thread::unstable::Request>,
) -> Result<subscribe_thread::unstable::Response> {
    let subscribe_thread::unstable::Request { room_id, thread_root, automatic, .. } = req.body;
    api.subscriptions.subscribe(reader(&req.auth), &room_id, &thread_root, automatic.as_deref()).await?;
    Ok(subscribe_thread::unstable::Response::new())
}

async fn unsubscribe(
    api: Api,
    req: Client<unsubscribe_thread::unstable::Request>,
) -> Result<unsubscribe_thread::unstable::Response> {
    let unsubscribe_thread::unstable::Request { room_id, thread_root, .. } = req.body;
    api.subscriptions.unsubscribe(reader(&req.auth), &room_id, &thread_root).await?;
    Ok(unsubscribe_thread::unstable::Response::new())
}

async fn changes(
    api: Api,
    req: Client<Directed<get_thread_subscriptions_changes::unstable::Request>>,
) -> Result<get_thread_subscriptions_changes::unstable::Response> {
    let Directed { request, forwards } = req.body;
    if forwards {
        return Err(Error::invalid_param("`dir` can be b only"));
    }
    let wish = ChangesWish {
        from: optional_token(request.from.as_deref())?,
        to: optional_token(request.to.as_deref())?,
        limit: request.limit.map_or(100, u64::from),
    };
    let Changes { subscribed, unsubscribed, rest } = api.subscriptions.changes(reader(&req.auth), wish).await?;
    let mut response = get_thread_subscriptions_changes::unstable::Response::new();
    (response.subscribed, response.unsubscribed, response.end) = (subscribed, unsubscribed, rest);
    Ok(response)
}
