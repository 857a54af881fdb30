//! HTTP, and nothing else: a request comes in, is checked and typed, one service is called, its answer goes out.

pub mod client;
mod edge;
mod extract;
pub mod health;
mod json;
mod pages;
mod respond;
mod router;
pub mod server;
pub mod sso;

use std::{ops::Deref, sync::Arc};

use axum::{Router, body::Body};
use hearth_core::clock::{Clock, Rng};
use http::{HeaderValue, Response, header};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    config::Config,
    service::{
        account_data::AccountData, accounts::Accounts, directory::Directory, filters::Filters, key_backup::KeyBackups,
        keys::Keys, media::Media, notifications::Notifications, presence::Presence, previews::Previews,
        profiles::Profiles, push_rules::PushRules, pushers::Pushers, rate_limit::RateLimits, receipts::Receipts,
        reports::Reports, rooms::Rooms, session::Authenticator, spaces::Spaces, sso::Sso, subscriptions::Subscriptions,
        tags::RoomTags, timeline::Timelines, to_device::ToDevice, typing::Typing,
    },
    shutdown::Shutdown,
    sync::Syncs,
    telemetry,
};

pub use extract::{Client, Download, Optional, Public, Upload};
pub use json::Json;
pub use pages::Pages;
pub use router::Routes;

/// What handlers may call. Cheap to clone. A new service is a field of [`Services`], filled in `app`.
#[derive(Clone)]
pub struct Api(Arc<Services>);

pub struct Services {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub shutdown: Shutdown,
    pub sessions: Arc<dyn Authenticator>,
    pub limits: Arc<RateLimits>,
    pub accounts: Arc<Accounts>,
    pub profiles: Arc<Profiles>,
    pub account_data: Arc<AccountData>,
    pub directory: Arc<Directory>,
    pub filters: Arc<Filters>,
    pub keys: Arc<Keys>,
    pub key_backups: Arc<KeyBackups>,
    pub media: Arc<Media>,
    pub push_rules: Arc<PushRules>,
    pub pushers: Arc<Pushers>,
    pub notifications: Arc<Notifications>,
    pub rooms: Arc<Rooms>,
    pub timelines: Arc<Timelines>,
    pub receipts: Arc<Receipts>,
    pub reports: Arc<Reports>,
    pub typing: Arc<Typing>,
    pub presence: Arc<Presence>,
    pub previews: Arc<Previews>,
    pub spaces: Arc<Spaces>,
    pub sso: Arc<Sso>,
    pub pages: Arc<Pages>,
    pub subscriptions: Arc<Subscriptions>,
    pub tags: Arc<RoomTags>,
    pub to_device: Arc<ToDevice>,
    pub syncs: Arc<Syncs>,
    /// What has to be in order before this process should be sent requests.
    pub ready: Vec<Arc<dyn health::Ready>>,
}

impl Api {
    pub fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for Api {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// The page that Prometheus reads, for a listener of its own.
pub fn metrics_router(handle: &'static PrometheusHandle) -> Router {
    let page = edge::page("/metrics", move || async move {
        telemetry::look_at_process();
        let mut response = Response::new(Body::from(handle.render()));
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    });
    router::refuse_the_rest(Router::new().route("/metrics", page))
}
