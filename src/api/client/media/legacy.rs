//! Files by the paths of before they were for users only, where the operator still wants that.
#![allow(deprecated, reason = "these paths are")]

use axum::body::Body;
use hearth_core::Result;
use http::Response;
use ruma::api::client::media::{
    get_content::v3 as content, get_content_as_filename::v3 as content_named, get_media_config::v3 as config,
};

use super::{file, serve::Audience, upload_size};
use crate::api::{Api, Client, Download, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    // This one always took a token.
    let r = r.client(config);
    if r.api().config.media.allow_legacy_media { r.download(content).download(content_named) } else { r }
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
