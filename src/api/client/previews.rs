//! What is behind a link.

use hearth_core::Result;
use ruma::api::client::{authenticated_media::get_media_preview, media::get_media_preview as old};

use crate::{
    api::{Api, Client, Routes},
    service::rate_limit::Limited,
};

/// Where nothing may be looked at there is no such endpoint, by which clients know that they need not ask.
pub(super) fn routes(r: Routes) -> Routes {
    if r.api().previews.is_on() {
        r.client(preview).limited(Limited::UrlPreview).client(old_preview).limited(Limited::UrlPreview)
    } else {
        r
    }
}

/// As the page is now, or was some hours ago: what it was at another time, nobody has kept.
async fn preview(api: Api, req: Client<get_media_preview::v1::Request>) -> Result<get_media_preview::v1::Response> {
    let told = api.previews.preview(&req.auth.user_id, &req.body.url).await?;
    Ok(get_media_preview::v1::Response::from_raw_value(told))
}

/// By its path of before media was for users only; this always was.
#[allow(deprecated, reason = "the path is")]
async fn old_preview(api: Api, req: Client<old::v3::Request>) -> Result<old::v3::Response> {
    let told = api.previews.preview(&req.auth.user_id, &req.body.url).await?;
    Ok(old::v3::Response::from_raw_value(told))
}
