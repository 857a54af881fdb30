//! The composition root: everything is made here, in the order storage → bus → notifier → services → workers → router,
//! and stopped here in the other order.

use std::{io, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use hearth_core::clock::{Clock, OsRng, Rng, SystemClock};
use hearth_storage::{CommitSink, Committed, Storage};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{Instant, timeout_at};
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

/// The tasks that work for as long as the server does.
struct Workers {
    tasks: TaskTracker,
    shutdown: Shutdown,
}

impl Workers {
    /// `work` returns soon after the shutdown is said. One that ends before that, or panics, takes the server with it:
    /// a supervisor starts it again, while nobody would notice that a queue has stood still since yesterday.
    fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            if outcome.is_err() || !shutdown.is_said() {
                tracing::error!(worker = name, "a worker ended by itself; the server stops");
                shutdown.say();
            }
        });
    }
}

/// A server at work.
pub struct Running {
    shutdown: Shutdown,
    workers: TaskTracker,
    patience: Duration,
    http: Serving,
    metrics: Option<Serving>,
    storage: Arc<dyn Storage>,
    first_admin_token: Option<String>,
}

/// Starts a server. When this returns, it can be reached.
pub async fn start(config: Arc<Config>, deps: Deps) -> Result<Running, StartError> {
    let shutdown = Shutdown::default();
    let workers = Workers { tasks: TaskTracker::new(), shutdown: shutdown.clone() };

    // Before anything holds a metric: one that is made earlier is counted nowhere.
    let metrics = match config.metrics.metrics_port {
        None => None,
        Some(port) => {
            let handle = telemetry::metrics().map_err(StartError::Metrics)?;
            workers.start("tidy_metrics", tidy_metrics(handle, shutdown.clone()));
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

    workers.start("sessions", worker::sessions::run(sessions, head, shutdown.clone()));

    let api = Api::new(services);
    let running = TaskTracker::new();
    let router = client::routes(health::routes(Routes::new(api))).into_router(&running);
    let listeners = bind(config.http.address.iter(), config.http.port).await?;
    let http = Serving::start(listeners, router, running, deps.rng, Limits::from(&config.http))?;

    let patience = Duration::from_secs(config.http.stop_timeout_s);
    Ok(Running { shutdown, workers: workers.tasks, patience, http, metrics, storage, first_admin_token })
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

/// The accounts without a server around them, for an operator at the command line. Another process may be serving them
/// at the same time.
pub async fn offline(config: &Arc<Config>, deps: &Deps) -> Result<(Arc<Accounts>, Arc<dyn Storage>), StartError> {
    let storage = open(&config.database).await?;
    let sessions = Sessions::new(storage.clone(), deps.clock.clone());
    Ok((services(config, deps, &Shutdown::default(), &storage, &sessions).accounts, storage))
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
        let deadline = Instant::now() + self.patience;
        self.shutdown.say();
        let all = self.http.stop(self.patience).await;
        // The workers have heard it at the same time.
        self.workers.close();
        if timeout_at(deadline, self.workers.wait()).await.is_err() {
            tracing::warn!(left = self.workers.len(), "some workers did not end in time");
        }
        if let Err(e) = self.storage.close().await {
            tracing::error!(error = %e, "the database was not closed in order");
        }
        if let Some(metrics) = self.metrics {
            metrics.stop(Duration::from_millis(100)).await;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers() -> Workers {
        Workers { tasks: TaskTracker::new(), shutdown: Shutdown::default() }
    }

    #[tokio::test]
    async fn a_worker_that_ends_takes_the_server_with_it() {
        let returned = workers();
        returned.start("returns", async {});
        returned.shutdown.said().await;
        let panicked = workers();
        panicked.start("panics", async { panic!("on purpose") });
        panicked.shutdown.said().await;
    }

    #[tokio::test]
    async fn a_worker_ends_with_the_server() {
        let good = workers();
        let shutdown = good.shutdown.clone();
        good.start("good", async move { shutdown.said().await });
        assert_eq!(good.tasks.len(), 1);
        good.shutdown.say();
        good.tasks.close();
        good.tasks.wait().await;
    }
}
