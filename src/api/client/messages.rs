//! Sending to rooms and reading them.

use hearth_core::{Error, Result, ids};
use hearth_storage::Direction;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::{
        Direction as Dir,
        client::{
            context::get_context,
            message::{get_message_events, send_message_event},
            redact::redact_event,
            room::{get_event_by_timestamp, get_room_event},
            state::{get_state_event_for_key, get_state_events, send_state_event},
        },
    },
    events::{StateEventType, TimelineEventType},
};
use serde_json::{json, value::to_raw_value};

use super::{lenient::Messages, optional_token, reader};
use crate::{
    api::{Api, Client, Routes},
    service::{
        rate_limit::Limited,
        rooms::{Message, Txn},
        timeline::PageWish,
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(send)
        .limited(Limited::Message)
        .client(redact)
        .limited(Limited::Message)
        .client(set_state)
        .limited(Limited::Message)
        .client(state)
        .client(state_key)
        .client(event)
        .client(near)
        .client(messages)
        .client(context)
}

async fn send(api: Api, req: Client<send_message_event::v3::Request>) -> Result<send_message_event::v3::Response> {
    let body = req.body;
    ids::check_transaction_id(body.txn_id.as_str())?;
    let txn = Txn {
        device_id: req.auth.device_id.to_string(),
        txn_id: body.txn_id.to_string(),
        scope: format!("send {}", body.room_id),
    };
    api.presence.acts(&req.auth.user_id);
    let message = Message {
        room_id: body.room_id,
        sender: req.auth.user_id,
        event_type: TimelineEventType::from(body.event_type.to_string()),
        content: body.body.into_json(),
    };
    Ok(send_message_event::v3::Response::new(api.rooms.send(message, txn).await?))
}

async fn redact(api: Api, req: Client<redact_event::v3::Request>) -> Result<redact_event::v3::Response> {
    let body = req.body;
    ids::check_transaction_id(body.txn_id.as_str())?;
    let txn = Txn {
        device_id: req.auth.device_id.to_string(),
        txn_id: body.txn_id.to_string(),
        scope: format!("redact {}", body.room_id),
    };
    let content = match &body.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let content = to_raw_value(&content).map_err(Error::internal)?;
    let id = api.rooms.redact(&body.room_id, &req.auth.user_id, &body.event_id, content, txn).await?;
    Ok(redact_event::v3::Response::new(id))
}

async fn set_state(api: Api, req: Client<send_state_event::v3::Request>) -> Result<send_state_event::v3::Response> {
    let body = req.body;
    if body.event_type == StateEventType::RoomMember {
        // The other way to the same end.
        match body.body.get_field::<String>("membership").ok().flatten().as_deref() {
            Some("invite") => api.limits.user(Limited::Invite, &req.auth, 1).await?,
            Some("join" | "knock") => api.limits.user(Limited::Join, &req.auth, 1).await?,
            _ => {}
        }
    }
    let content = body.body.into_json();
    let id = api.rooms.set_state(&body.room_id, &req.auth.user_id, body.event_type, &body.state_key, content).await?;
    Ok(send_state_event::v3::Response::new(id))
}

async fn state(api: Api, req: Client<get_state_events::v3::Request>) -> Result<get_state_events::v3::Response> {
    let state = api.timelines.state(reader(&req.auth), &req.body.room_id).await?;
    Ok(get_state_events::v3::Response::new(state))
}

async fn state_key(
    api: Api,
    req: Client<get_state_event_for_key::v3::Request>,
) -> Result<get_state_event_for_key::v3::Response> {
    let body = req.body;
    let kind = body.event_type.to_string();
    let (event, content) =
        api.timelines.state_key::<()>(reader(&req.auth), &body.room_id, &kind, &body.state_key).await?;
    let answer = match body.format {
        get_state_event_for_key::v3::StateEventFormat::Event => event.into_json(),
        _ => content,
    };
    Ok(get_state_event_for_key::v3::Response::new(answer))
}

async fn event(api: Api, req: Client<get_room_event::v3::Request>) -> Result<get_room_event::v3::Response> {
    let event = api.timelines.event(reader(&req.auth), &req.body.room_id, &req.body.event_id).await?;
    Ok(get_room_event::v3::Response::new(event))
}

async fn near(
    api: Api,
    req: Client<get_event_by_timestamp::v1::Request>,
) -> Result<get_event_by_timestamp::v1::Response> {
    let body = req.body;
    let direction = match body.dir {
        Dir::Backward => Direction::Back,
        Dir::Forward => Direction::Forward,
    };
    let reader = reader(&req.auth);
    let (event_id, sent) = api.timelines.event_near(reader, &body.room_id, i64::from(body.ts.get()), direction).await?;
    let sent = MilliSecondsSinceUnixEpoch(UInt::try_from(sent).unwrap_or_default());
    Ok(get_event_by_timestamp::v1::Response::new(event_id, sent))
}

async fn messages(api: Api, req: Client<Messages>) -> Result<get_message_events::v3::Response> {
    let Messages(body) = req.body;
    let wish = PageWish {
        from: optional_token(body.from.as_deref())?,
        to: optional_token(body.to.as_deref())?,
        direction: match body.dir {
            Dir::Backward => Direction::Back,
            Dir::Forward => Direction::Forward,
        },
        limit: u64::from(body.limit),
        filter: body.filter,
    };
    let page = api.timelines.messages(reader(&req.auth), &body.room_id, wish).await?;
    let mut response = get_message_events::v3::Response::new();
    response.start = body.from.unwrap_or_else(|| page.start.to_string());
    response.end = page.end.map(|t| t.to_string());
    response.chunk = page.chunk;
    response.state = page.state;
    Ok(response)
}

async fn context(api: Api, req: Client<get_context::v3::Request>) -> Result<get_context::v3::Response> {
    let body = req.body;
    let limit = u64::from(body.limit);
    let around = api.timelines.context(reader(&req.auth), &body.room_id, &body.event_id, limit, body.filter).await?;
    let mut response = get_context::v3::Response::new();
    response.start = Some(around.start.to_string());
    response.end = Some(around.end.to_string());
    response.event = Some(around.event);
    response.events_before = around.before;
    response.events_after = around.after;
    response.state = around.state;
    Ok(response)
}
