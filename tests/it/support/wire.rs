//! Endpoints made for a test, behind the real sockets.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hearth::{
    api::{
        Api, Routes, Services,
        server::{Limits, Serving, bind},
    },
    app::{self, Deps},
    config::Config,
    service::session::{Authenticator, Session},
    shutdown::Shutdown,
};
use hearth_core::{Error, Result, clock::OsRng};
use tokio_util::task::TaskTracker;

/// The token of the only user there is.
pub const TOKEN: &str = "alices_token";

struct OnlyAlice;

impl Authenticator for OnlyAlice {
    fn authenticate(&self, token: &str) -> BoxFuture<'_, Result<Session>> {
        let known = token == TOKEN;
        Box::pin(async move {
            if !known {
                return Err(Error::unknown_token("Unknown access token"));
            }
            let user_id = "@alice:test.example".try_into().map_err(Error::internal)?;
            Ok(Session { user_id, device_id: "DEVICE".into(), admin: false, as_of: 0 })
        })
    }
}

/// Endpoints at work.
pub struct Wire {
    serving: Serving,
    pub shutdown: Shutdown,
    _folder: tempfile::TempDir,
}

pub fn limits() -> Limits {
    Limits {
        connections: NonZeroU32::new(100).expect("not zero"),
        head: Duration::from_secs(10),
        write: Duration::from_secs(10),
        trusted: vec!["127.0.0.0/8".parse().expect("a subnet")],
    }
}

impl Wire {
    pub async fn start(limits: Limits, routes: impl FnOnce(Routes) -> Routes) -> Self {
        let mut config = Config::default();
        config.http.request_body_timeout_s = 1;
        config.http.max_request_size = 100_000;
        let folder = tempfile::tempdir().expect("a folder");
        config.database.database_path = folder.path().to_owned();
        let house = app::build(Arc::new(config), &Deps::default()).await.expect("a house");
        let shutdown = house.services.shutdown.clone();
        let api = Api::new(Services { sessions: Arc::new(OnlyAlice), ..house.services });
        let running = TaskTracker::new();
        let router = routes(Routes::new(api)).into_router(&running);
        let listeners = bind([[127, 0, 0, 1].into()], 0).await.expect("a listener");
        let serving = Serving::start(listeners, router, running, Arc::new(OsRng), limits).expect("listeners at work");
        Self { serving, shutdown, _folder: folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.serving.addresses()[0]
    }

    pub async fn stop(self, patience: Duration) -> bool {
        self.shutdown.say();
        self.serving.stop(patience).await
    }
}
