//! The composition root: everything is made here, in the order storage → bus → notifier → services → workers → router,
//! and stopped here in the other order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hearth_core::clock::{Clock, OsRng, Rng, SystemClock};
use hearth_storage::{CommitSink, Committed, Storage};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::task::TaskTracker;

use crate::{
    api::{
        Api, Routes, Services, client, health, metrics_router,
        server::{Limits, Serving, bind},
    },
    config::{Backend, Config, Database},
    service::{
        account_data::AccountData, accounts::Accounts, filters::Filters, profiles::Profiles, push_rules::PushRules,
        sessions::Sessions,
    },
    shutdown::Shutdown,
    telemetry, worker,
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
    #[error("cannot use the database: {0}")]
    Storage(#[from] hearth_storage::Error),
    #[error("cannot start: {0}")]
    Service(#[from] hearth_core::Error),
    #[error("cannot collect metrics: {0}")]
    Metrics(String),
}

/// A server at work.
pub struct Running {
    shutdown: Shutdown,
    patience: Duration,
    http: Serving,
    metrics: Option<Serving>,
    storage: Arc<dyn Storage>,
    workers: TaskTracker,
    first_admin_token: Option<String>,
}

/// Starts a server. When this returns, it can be reached.
pub async fn start(config: Arc<Config>, deps: Deps) -> Result<Running, StartError> {
    let shutdown = Shutdown::default();

    // Before anything holds a metric: one that is made earlier is counted nowhere.
    let metrics = match config.metrics.metrics_port {
        None => None,
        Some(port) => {
            let handle = telemetry::metrics().map_err(StartError::Metrics)?;
            tokio::spawn(tidy_metrics(handle, shutdown.clone()));
            let listeners = bind([config.metrics.metrics_address], port).await?;
            let running = TaskTracker::new();
            Some(Serving::start(
                listeners,
                metrics_router(handle),
                running,
                deps.rng.clone(),
                Limits::from(&config.http),
            )?)
        }
    };

    let storage = open(&config.database).await?;
    let head = storage.head().await?;
    let sessions = Sessions::new(storage.clone(), deps.clock.clone());
    let services = services(&config, &deps, &shutdown, &storage, &sessions);
    let first_admin_token = services.accounts.first_start().await?;

    let workers = TaskTracker::new();
    workers.spawn(worker::sessions::run(sessions, head, shutdown.clone()));
    workers.close();

    let api = Api::new(services);
    let running = TaskTracker::new();
    let router = client::routes(health::routes(Routes::new(api))).into_router(&running);
    let listeners = bind(config.http.address.iter(), config.http.port).await?;
    let http = Serving::start(listeners, router, running, deps.rng, Limits::from(&config.http))?;

    Ok(Running {
        shutdown,
        patience: Duration::from_secs(config.http.stop_timeout_s),
        http,
        metrics,
        storage,
        workers,
        first_admin_token,
    })
}

/// All that handlers may call.
pub fn services(
    config: &Arc<Config>,
    deps: &Deps,
    shutdown: &Shutdown,
    storage: &Arc<dyn Storage>,
    sessions: &Arc<Sessions>,
) -> Services {
    let name = &config.server.server_name;
    let Deps { clock, rng } = deps;
    Services {
        config: config.clone(),
        clock: clock.clone(),
        rng: rng.clone(),
        shutdown: shutdown.clone(),
        sessions: sessions.clone(),
        accounts: Arc::new(Accounts::new(
            name.clone(),
            storage.clone(),
            clock.clone(),
            rng.clone(),
            sessions.clone(),
            config.registration.clone(),
        )),
        profiles: Arc::new(Profiles::new(name.clone(), storage.clone(), clock.clone(), rng.clone())),
        account_data: Arc::new(AccountData::new(storage.clone())),
        filters: Arc::new(Filters::new(storage.clone())),
        push_rules: Arc::new(PushRules::new(storage.clone())),
        ready: Vec::new(),
    }
}

/// The database that the configuration names.
async fn open(database: &Database) -> Result<Arc<dyn Storage>, StartError> {
    let pool = usize::try_from(database.database_pool_size.get()).unwrap_or(usize::MAX);
    let backend = match database.database_backend {
        Backend::Sqlite => {
            std::fs::create_dir_all(&database.database_path)?;
            hearth_storage::Backend::Sqlite { path: database.database_path.join("hearth.db"), readers: pool }
        }
        #[cfg(feature = "postgres")]
        Backend::Postgres => {
            let url = database.database_url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default();
            hearth_storage::Backend::Postgres { url, pool }
        }
        #[cfg(not(feature = "postgres"))]
        Backend::Postgres => {
            return Err(StartError::Service(hearth_core::Error::internal("this program was built without Postgres")));
        }
    };
    Ok(hearth_storage::open(&hearth_storage::Options::new(backend), Arc::new(Unheard)).await?)
}

/// Nobody waits for a commit yet.
struct Unheard;

impl CommitSink for Unheard {
    fn committed(&self, _: Committed) {}
}

/// Samples pile up between two readings unless somebody sorts them in; nobody may be reading.
async fn tidy_metrics(handle: &'static PrometheusHandle, shutdown: Shutdown) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = every.tick() => handle.run_upkeep(),
            () = shutdown.said() => return,
        }
    }
}

impl Running {
    /// Where clients reach the server.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// With this token somebody can register as the administrator of a server that has no user yet. For the operator's
    /// eyes, and for no log.
    pub fn first_admin_token(&self) -> Option<&str> {
        self.first_admin_token.as_deref()
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
        self.workers.wait().await;
        if let Err(e) = self.storage.close().await {
            tracing::error!(error = %e, "the database was not closed in order");
        }
        if let Some(metrics) = self.metrics {
            metrics.stop(Duration::from_secs(1)).await;
        }
        all
    }
}
