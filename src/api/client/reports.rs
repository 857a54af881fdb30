//! Reporting what somebody should look at.

use hearth_core::Result;
use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use super::reader;
use crate::{
    api::{Api, Client, Routes},
    service::rate_limit::Limited,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(event).limited(Limited::Report).client(room).limited(Limited::Report).client(user).limited(Limited::Report)
}

async fn event(api: Api, req: Client<report_content::v3::Request>) -> Result<report_content::v3::Response> {
    let body = req.body;
    let reason = body.reason.unwrap_or_default();
    api.reports.event(reader(&req.auth), &body.room_id, &body.event_id, reason).await?;
    Ok(report_content::v3::Response::new())
}

async fn room(api: Api, req: Client<report_room::v3::Request>) -> Result<report_room::v3::Response> {
    api.reports.room(&req.auth.user_id, &req.body.room_id, req.body.reason).await?;
    Ok(report_room::v3::Response::new())
}

async fn user(api: Api, req: Client<report_user::v3::Request>) -> Result<report_user::v3::Response> {
    api.reports.user(&req.auth.user_id, &req.body.user_id, req.body.reason).await?;
    Ok(report_user::v3::Response::new())
}
