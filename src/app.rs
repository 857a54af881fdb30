//! The composition root: everything is made here, in the order storage → bus → notifier → services → workers → router,
//! and stopped here in the other order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hearth_core::clock::{Clock, OsRng, Rng, SystemClock};
use tokio_util::task::TaskTracker;

use crate::{
    api::{
        Api, Routes, Services, client, health, metrics_page,
        server::{Limits, Serving, bind},
    },
    config::Config,
    service::session::NoSessions,
    shutdown::Shutdown,
    telemetry,
};

/// Where time and chance come from.
#[derive(Clone)]
pub struct Deps {
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

impl Default for Deps {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), rng: Arc::new(OsRng) }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {0}")]
    Listen(#[from] io::Error),
    #[error("cannot collect metrics: {0}")]
    Metrics(String),
}

/// A server at work.
pub struct Running {
    shutdown: Shutdown,
    patience: Duration,
    http: Serving,
    metrics: Option<Serving>,
}

/// Starts a server. When this returns, it can be reached.
pub async fn start(config: Arc<Config>, deps: Deps) -> Result<Running, StartError> {
    let shutdown = Shutdown::default();

    // Before anything holds a metric: one that is made earlier is counted nowhere.
    let metrics = match config.metrics.metrics_port {
        None => None,
        Some(port) => {
            let handle = telemetry::metrics().map_err(StartError::Metrics)?;
            let listeners = bind([config.metrics.metrics_address], port).await?;
            let router = Router::new().route("/metrics", metrics_page(handle));
            let running = TaskTracker::new();
            Some(Serving::start(listeners, router, running, deps.rng.clone(), Limits::from(&config.http))?)
        }
    };

    let api = Api::new(Services {
        config: config.clone(),
        clock: deps.clock,
        rng: deps.rng.clone(),
        shutdown: shutdown.clone(),
        sessions: Arc::new(NoSessions),
        ready: Vec::new(),
    });
    let running = TaskTracker::new();
    let router = client::routes(health::routes(Routes::new(api))).into_router(&running);
    let listeners = bind(config.http.address.iter(), config.http.port).await?;
    let http = Serving::start(listeners, router, running, deps.rng, Limits::from(&config.http))?;

    Ok(Running { shutdown, patience: Duration::from_secs(config.http.stop_timeout_s), http, metrics })
}

impl Running {
    /// Where clients reach the server.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// Where the metrics are, if they are.
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        self.metrics.as_ref().map_or(&[], |m| m.addresses())
    }

    /// Resolves when something within says that the server has to stop.
    pub async fn wait(&self) {
        self.shutdown.said().await;
    }

    /// Long polls return at once, requests under way are answered; after the time that `stop_timeout_s` gives, what is
    /// left is cut. Says whether everybody was answered.
    pub async fn stop(self) -> bool {
        self.shutdown.say();
        let all = self.http.stop(self.patience).await;
        if let Some(metrics) = self.metrics {
            metrics.stop(Duration::from_secs(1)).await;
        }
        all
    }
}
