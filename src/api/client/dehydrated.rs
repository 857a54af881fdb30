//! Dehydrated devices, an experiment that clients use.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use hearth_core::{Error, Result};
use ruma::{
    OwnedDeviceId,
    api::{
        IncomingRequest,
        auth_scheme::AccessToken,
        client::dehydrated_device::{
            delete_dehydrated_device, get_dehydrated_device, get_events, put_dehydrated_device,
        },
        error::DeserializationError,
        metadata,
    },
    events::AnyToDeviceEvent,
    serde::Raw,
};
use serde::Serialize;

use crate::{
    api::{Api, Client, Json, Routes},
    service::to_device,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(put).client(get).client(delete).client(events).client(events_by_get)
}

async fn put(
    api: Api,
    req: Client<put_dehydrated_device::unstable::Request>,
) -> Result<put_dehydrated_device::unstable::Response> {
    let device = api.keys.dehydrate(&req.auth, req.body).await?;
    Ok(put_dehydrated_device::unstable::Response::new(device))
}

async fn get(
    api: Api,
    req: Client<get_dehydrated_device::unstable::Request>,
) -> Result<get_dehydrated_device::unstable::Response> {
    let (device, data) = api.keys.dehydrated(&req.auth).await?;
    let data = Raw::from_json_string(data).map_err(Error::internal)?;
    Ok(get_dehydrated_device::unstable::Response::new(device, data))
}

async fn delete(
    api: Api,
    req: Client<delete_dehydrated_device::unstable::Request>,
) -> Result<delete_dehydrated_device::unstable::Response> {
    Ok(delete_dehydrated_device::unstable::Response::new(api.keys.end_dehydrated(&req.auth).await?))
}

/// Who asks like this goes on until there is an answer without events; so each says where.
async fn events(api: Api, req: Client<get_events::unstable::Request>) -> Result<get_events::unstable::Response> {
    let get_events::unstable::Request { device_id, next_batch, .. } = req.body;
    let found = api.keys.dehydrated_messages(&req.auth, &device_id, next_batch.as_deref(), None).await?;
    let mut response = get_events::unstable::Response::new(to_device::events(found.events)?);
    response.next_batch = Some(found.next);
    Ok(response)
}

/// The same by GET, as the proposal has it by now: the last answer says nothing of a next.
struct Events {
    device_id: OwnedDeviceId,
    from: Option<String>,
    limit: Option<u32>,
}

metadata! {
    @for Events,
    method: GET,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events",
}

#[derive(Serialize)]
struct Told {
    events: Vec<Raw<AnyToDeviceEvent>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

impl IncomingRequest for Events {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Json<Told>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        // Our tokens are written in an address as they are.
        let query = request.uri().query().unwrap_or_default();
        let value = |name| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        Ok(Self {
            device_id: path_args.first().copied().unwrap_or_default().into(),
            from: value("from").map(str::to_owned),
            limit: value("limit").and_then(|limit| limit.parse().ok()),
        })
    }
}

async fn events_by_get(api: Api, req: Client<Events>) -> Result<Json<Told>> {
    let Events { device_id, from, limit } = req.body;
    let found = api.keys.dehydrated_messages(&req.auth, &device_id, from.as_deref(), limit).await?;
    let next_batch = found.is_part.then_some(found.next);
    Ok(Json(Told { events: to_device::events(found.events)?, next_batch }))
}
