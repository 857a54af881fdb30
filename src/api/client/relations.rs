//! What relates to an event, and the threads of a room.

use hearth_core::{Error, Result};
use hearth_storage::Direction;
use ruma::{
    OwnedEventId, OwnedRoomId, UInt,
    api::{
        Direction as Dir,
        client::{
            relations::{
                get_relating_events, get_relating_events_with_rel_type,
                get_relating_events_with_rel_type_and_event_type,
            },
            threads::get_threads,
        },
    },
    events::AnyMessageLikeEvent,
};

use super::{lenient::Recursive, optional_token, reader};
use crate::{
    api::{Api, Client, Routes},
    service::{
        session::Session,
        timeline::{RelationWish, Relations, ThreadWish},
    },
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(all).client(of_type).client(of_types).client(threads)
}

/// Where a page of them is to begin and end.
struct Paging {
    from: Option<String>,
    to: Option<String>,
    dir: Dir,
    limit: Option<UInt>,
    recurse: bool,
}

async fn related(
    api: &Api,
    session: &Session,
    (room, event): (OwnedRoomId, OwnedEventId),
    (rel_type, event_type): (Option<String>, Option<String>),
    paging: &Paging,
) -> Result<Relations<AnyMessageLikeEvent>> {
    let wish = RelationWish {
        rel_type,
        event_type,
        recurse: paging.recurse,
        from: optional_token(paging.from.as_deref())?,
        to: optional_token(paging.to.as_deref())?,
        direction: match paging.dir {
            Dir::Backward => Direction::Back,
            Dir::Forward => Direction::Forward,
        },
        limit: paging.limit.map(u64::from),
    };
    api.timelines.related(reader(session), &room, &event, wish).await
}

/// The three requests differ in what they name, and their answers in nothing.
macro_rules! answer {
    ($endpoint:ident, $api:ident, $req:ident, |$body:ident| $kinds:expr) => {{
        let Recursive($body) = $req.body;
        let kinds = $kinds;
        let (from, to, recurse) = ($body.from, $body.to, $body.recurse);
        let paging = Paging { from, to, dir: $body.dir, limit: $body.limit, recurse };
        let page = related(&$api, &$req.auth, ($body.room_id, $body.event_id), kinds, &paging).await?;
        let mut response = $endpoint::v1::Response::new(page.chunk);
        response.next_batch = page.end.map(|token| token.to_string());
        response.prev_batch = paging.from;
        response.recursion_depth = page.depth.map(UInt::from);
        Ok(response)
    }};
}

async fn all(
    api: Api,
    req: Client<Recursive<get_relating_events::v1::Request>>,
) -> Result<get_relating_events::v1::Response> {
    answer!(get_relating_events, api, req, |body| (None, None))
}

async fn of_type(
    api: Api,
    req: Client<Recursive<get_relating_events_with_rel_type::v1::Request>>,
) -> Result<get_relating_events_with_rel_type::v1::Response> {
    answer!(get_relating_events_with_rel_type, api, req, |body| (Some(body.rel_type.to_string()), None))
}

async fn of_types(
    api: Api,
    req: Client<Recursive<get_relating_events_with_rel_type_and_event_type::v1::Request>>,
) -> Result<get_relating_events_with_rel_type_and_event_type::v1::Response> {
    answer!(get_relating_events_with_rel_type_and_event_type, api, req, |body| (
        Some(body.rel_type.to_string()),
        Some(body.event_type.to_string())
    ))
}

async fn threads(api: Api, req: Client<get_threads::v1::Request>) -> Result<get_threads::v1::Response> {
    let body = req.body;
    let wish = ThreadWish {
        participated: match body.include {
            get_threads::v1::IncludeThreads::All => false,
            get_threads::v1::IncludeThreads::Participated => true,
            other => return Err(Error::invalid_param(format!("`include` can't be {other}"))),
        },
        from: optional_token(body.from.as_deref())?,
        limit: body.limit.map(u64::from),
    };
    let page = api.timelines.threads(reader(&req.auth), &body.room_id, wish).await?;
    let mut response = get_threads::v1::Response::new(page.chunk);
    response.next_batch = page.end.map(|token| token.to_string());
    Ok(response)
}
