//! Files by the paths of before they were for users only, where the operator still wants that.
#![allow(deprecated, reason = "these paths are")]

use axum::body::Body;
use hearth_core::Result;
use http::Response;
use ruma::api::client::media::{
    get_content::v3 as content, get_content_as_filename::v3 as content_named,
    get_content_thumbnail::v3 as content_thumbnail, get_media_config::v3 as config,
};

use super::{file, serve::Audience, thumbnail, upload_size};
use crate::api::{Api, Client, Download, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    // This one always took a token.
    let r = r.client(config);
    if r.api().config.media.allow_legacy_media {
        r.download(content).download(content_named).download(content_thumbnail)
    } else {
        r
    }
}

async fn config(api: Api, _: Client<config::Request>) -> Result<config::Response> {
    Ok(config::Response::new(upload_size(&api)))
}

async fn content(api: Api, req: Download<content::Request>) -> Result<Response<Body>> {
    let content::Request { server_name, media_id, timeout_ms, .. } = &req.body;
    file(&api, &req, (server_name, media_id), *timeout_ms, None, Audience::Anybody).await
}

async fn content_named(api: Api, req: Download<content_named::Request>) -> Result<Response<Body>> {
    let content_named::Request { server_name, media_id, timeout_ms, filename, .. } = &req.body;
    file(&api, &req, (server_name, media_id), *timeout_ms, Some(filename), Audience::Anybody).await
}

async fn content_thumbnail(api: Api, req: Download<content_thumbnail::Request>) -> Result<Response<Body>> {
    let content_thumbnail::Request { server_name, media_id, method, width, height, timeout_ms, animated, .. } =
        &req.body;
    let wish = thumbnail::wish((*width, *height), method.as_ref(), *animated)?;
    let picture = api.media.find(server_name, media_id, *timeout_ms).await?;
    thumbnail::shown(&api, (&req.headers, req.head), &picture, wish, Audience::Anybody).await
}
