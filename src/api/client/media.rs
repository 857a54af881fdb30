//! Files that people share: up, and down again.

mod legacy;
mod serve;
mod thumbnail;

use axum::body::Body;
use futures_util::TryStreamExt as _;
use hearth_core::Result;
use hearth_storage::media::File;
use http::{HeaderMap, Response};
use ruma::{
    ServerName,
    api::client::{
        authenticated_media::{
            get_content::v1 as content, get_content_as_filename::v1 as content_named, get_media_config::v1 as config,
        },
        media::{create_content::v3 as upload, create_content_async::v3 as upload_to, create_mxc_uri::v1 as create},
    },
};

use serde::Serialize;

use self::serve::Audience;
use crate::{
    api::{Api, Client, Download, Json, Routes, Upload},
    service::{media::About, rate_limit::Limited},
};

pub(super) fn routes(r: Routes) -> Routes {
    let r = r
        .upload(upload)
        .limited(Limited::MediaUpload)
        .upload(upload_to)
        .limited(Limited::MediaUpload)
        .client(create)
        .limited(Limited::MediaCreate)
        .client(config)
        .download(content)
        .download(content_named);
    legacy::routes(thumbnail::routes(r))
}

async fn upload(api: Api, req: Upload<upload::Request>) -> Result<upload::Response> {
    let upload::Request { filename, content_type, .. } = req.body;
    let about = About { content_type: content_type.as_deref(), file_name: filename.as_deref(), bytes: req.length };
    let uri = api.media.upload(&req.auth.user_id, about, req.file.into_stream()).await?;
    Ok(upload::Response::new(uri))
}

/// Ruma's answer can't be made outside of it.
#[derive(Serialize)]
struct Done {}

async fn upload_to(api: Api, req: Upload<upload_to::Request>) -> Result<Json<Done>> {
    let upload_to::Request { server_name, media_id, filename, content_type, .. } = req.body;
    let about = About { content_type: content_type.as_deref(), file_name: filename.as_deref(), bytes: req.length };
    api.media.upload_to(&req.auth.user_id, &server_name, &media_id, about, req.file.into_stream()).await?;
    Ok(Json(Done {}))
}

async fn create(api: Api, req: Client<create::Request>) -> Result<create::Response> {
    let (uri, expires_at) = api.media.create(&req.auth.user_id).await?;
    let mut response = create::Response::new(uri);
    response.unused_expires_at = Some(expires_at);
    Ok(response)
}

async fn config(api: Api, _: Client<config::Request>) -> Result<config::Response> {
    Ok(config::Response::new(upload_size(&api)))
}

fn upload_size(api: &Api) -> ruma::UInt {
    ruma::UInt::new_saturating(api.media.max_bytes())
}

async fn content(api: Api, req: Download<content::Request>) -> Result<Response<Body>> {
    let content::Request { server_name, media_id, timeout_ms, .. } = &req.body;
    file(&api, &req, (server_name, media_id), *timeout_ms, None, Audience::Users).await
}

async fn content_named(api: Api, req: Download<content_named::Request>) -> Result<Response<Body>> {
    let content_named::Request { server_name, media_id, timeout_ms, filename, .. } = &req.body;
    file(&api, &req, (server_name, media_id), *timeout_ms, Some(filename), Audience::Users).await
}

/// A file, or what of it is asked for.
async fn file<R>(
    api: &Api,
    req: &Download<R>,
    (server, media_id): (&ServerName, &str),
    patience: std::time::Duration,
    name: Option<&str>,
    audience: Audience,
) -> Result<Response<Body>> {
    let found = api.media.find(server, media_id, patience).await?;
    let shown = serve::Shown {
        content_type: &found.content_type,
        sniffed: &found.file.sniffed,
        name: name.or(found.file_name.as_deref()),
        audience,
    };
    send(api, (&req.headers, req.head), &found.file, &shown).await
}

/// A file of the store, or what of it is asked for.
async fn send(
    api: &Api,
    (asked, head): (&HeaderMap, bool),
    file: &File,
    shown: &serve::Shown<'_>,
) -> Result<Response<Body>> {
    let etag = serve::etag(&file.sha256);
    match serve::wanted(asked, &etag, file.bytes) {
        serve::Wanted::Nothing => Ok(serve::not_modified(shown, &etag)),
        serve::Wanted::Beyond => Ok(serve::beyond(file.bytes)),
        serve::Wanted::Part(range) if head => Ok(serve::file(shown, &etag, file.bytes, range, Body::empty())),
        serve::Wanted::Part(range) => {
            let part = api.media.read(file, range.clone()).await?;
            let body = Body::from_stream(part.pieces.inspect_err(|e| {
                tracing::error!(error = %e, "a file broke off while it was sent");
            }));
            Ok(serve::file(shown, &etag, file.bytes, range, body))
        }
    }
}
