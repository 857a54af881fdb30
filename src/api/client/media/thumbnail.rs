//! Thumbnails of pictures.

use axum::body::Body;
use hearth_core::{
    Error, Result,
    media::thumbnail::{Method, Wish},
};
use http::Response;
use ruma::{UInt, api::client::authenticated_media::get_content_thumbnail::v1::Request, media::Method as Asked};

use super::{
    send,
    serve::{Audience, Shown},
};
use crate::api::{Api, Download, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    r.download(thumbnail)
}

async fn thumbnail(api: Api, req: Download<Request>) -> Result<Response<Body>> {
    let Request { server_name, media_id, method, width, height, timeout_ms, animated, .. } = &req.body;
    let wish = wish((*width, *height), method.as_ref(), *animated)?;
    let picture = api.media.find(server_name, media_id, *timeout_ms).await?;
    shown(&api, (&req.headers, req.head), &picture, wish, Audience::Users).await
}

/// What is asked for, in the words of those who make it.
pub(super) fn wish((width, height): (UInt, UInt), method: Option<&Asked>, animated: Option<bool>) -> Result<Wish> {
    let method = match method {
        Some(Asked::Crop) => Method::Crop,
        _ => Method::Scale,
    };
    let wish = Wish::standard(width.into(), height.into(), method, animated.unwrap_or_default());
    wish.ok_or_else(|| Error::invalid_param("A thumbnail has a width and a height, of some pixels each"))
}

pub(super) async fn shown(
    api: &Api,
    asked: (&http::HeaderMap, bool),
    picture: &crate::service::media::Found,
    wish: Wish,
    audience: Audience,
) -> Result<Response<Body>> {
    let made = api.media.thumbnail(picture, wish).await?;
    let shown = Shown {
        content_type: &made.content_type,
        sniffed: &made.file.sniffed,
        name: Some(match made.content_type.as_str() {
            "image/jpeg" => "thumbnail.jpg",
            "image/webp" => "thumbnail.webp",
            _ => "thumbnail.png",
        }),
        audience,
    };
    send(api, asked, &made.file, &shown).await
}
