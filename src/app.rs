//! The composition root: everything is made here, in the order storage → bus → notifier → services → workers → router,
//! and stopped here in the other order.

use std::{collections::BTreeMap, fs, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hearth_core::{
    clock::{Clock, OsRng, Rng, SystemClock, random_string},
    keys::Signer,
};
use hearth_storage::{Backend, Options, SigningKey, Storage, Work};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    api::{
        Api, Pages, Routes, Services, client, health, metrics_router,
        server::{Limits, Serving, bind},
        sso,
    },
    bus::{Bus, LocalBus},
    config::{self, Config, MediaBackend},
    http_client::{HttpClient, System},
    notify::{self, Known, Notifier},
    service::{
        account_data::AccountData,
        accounts::{self, Accounts},
        directory::Directory,
        ephemeral::Serial,
        erased::Erased,
        filters::Filters,
        key_backup::KeyBackups,
        keys::Keys,
        media::{self, Media},
        moves::Moves,
        notifications::Notifications,
        presence::Presence,
        previews::{self, KeepImage, Previews},
        profiles::Profiles,
        push::Push,
        push_rules::PushRules,
        pushers::{Deliveries, Pushers},
        rate_limit::{self, RateLimits},
        receipts::Receipts,
        reports::Reports,
        rooms::Rooms,
        sessions::Sessions,
        shape::Shapes,
        spaces::Spaces,
        sso::{Sources as SsoSources, Sso},
        subscriptions::Subscriptions,
        tags::RoomTags,
        timeline::Timelines,
        to_device::ToDevice,
        typing::Typing,
    },
    shutdown::Shutdown,
    sync::{Sources, Syncs, Timeouts},
    telemetry,
    worker::{self, Pulse, Supervisor, Workers},
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
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    #[error("cannot collect metrics: {0}")]
    Metrics(String),
    #[error("cannot open the database: {0}")]
    Storage(#[from] hearth_storage::Error),
    #[error("cannot make the folder {folder}: {why}")]
    Folder { folder: String, why: io::Error },
    #[error("cannot open the media store: {0}")]
    Media(#[from] media::store::Failure),
    #[error("`database_url` is missing")]
    NoUrl,
    #[error(
        "this database is that of {stored}, but `server_name` is {configured}; a server name can't be changed once \
         there is a database"
    )]
    OtherName { stored: String, configured: String },
    #[error("{0}")]
    Failed(#[from] hearth_core::Error),
}

/// A server at work.
pub struct Running {
    shutdown: Shutdown,
    notifier: Arc<Notifier>,
    patience: Duration,
    http: Serving,
    metrics: Option<Serving>,
    supervisor: Supervisor,
    syncs: Arc<Syncs>,
    media: Arc<Media>,
    storage: Arc<dyn Storage>,
    first_admin_token: Option<String>,
}

/// The database, and who is told of its commits.
#[derive(Clone)]
pub struct Opened {
    pub storage: Arc<dyn Storage>,
    pub notifier: Arc<Notifier>,
    pub bus: Arc<dyn Bus>,
    pub known: Arc<Known>,
}

/// Opens the database that the configuration names, and makes sure that it is this server's.
pub async fn open(config: &Config, bus: Arc<dyn Bus>) -> Result<Opened, StartError> {
    let database = &config.database;
    let backend = match database.database_backend {
        config::Backend::Sqlite => {
            let folder = &database.database_path;
            fs::create_dir_all(folder)
                .map_err(|why| StartError::Folder { folder: folder.display().to_string(), why })?;
            let readers = std::thread::available_parallelism().map_or(4, |n| n.get().clamp(2, 16));
            Backend::Sqlite { path: folder.join("hearth.db"), readers }
        }
        #[cfg(feature = "postgres")]
        config::Backend::Postgres => {
            let url = database.database_url.as_ref().ok_or(StartError::NoUrl)?.expose().to_owned();
            let pool = usize::try_from(database.database_pool_size.get()).unwrap_or(16);
            Backend::Postgres { url, pool }
        }
        #[cfg(not(feature = "postgres"))]
        config::Backend::Postgres => {
            return Err(hearth_core::Error::internal("this binary was built without Postgres").into());
        }
    };
    let (sink, commits, known) = notify::Sink::new();
    let storage = hearth_storage::open(&Options::new(backend), sink).await?;
    let notifier = Notifier::new();
    tokio::spawn(notify::dispatch(commits, Arc::clone(&notifier), Arc::clone(&bus)));
    known.raise_to(storage.head().await?);

    let name = config.server.server_name.as_str();
    let stored = storage.server_fact_or_set("server_name", name).await?;
    if stored != name {
        return Err(StartError::OtherName { stored, configured: name.to_owned() });
    }
    Ok(Opened { storage, notifier, bus, known })
}

/// The key that the deployment signs with, made at the first start.
async fn signer(config: &Config, storage: &dyn Storage, deps: &Deps) -> Result<Signer, StartError> {
    let mut seed = [0; 32];
    deps.rng.fill(&mut seed);
    let new = SigningKey {
        key_id: format!("ed25519:a_{}", random_string(&*deps.rng, 6)),
        seed: seed.to_vec(),
        created_ms: deps.clock.now_ms(),
        expired_ms: None,
    };
    let key = storage.signing_key_or_set(new).await?;
    let seed = key.seed.as_slice().try_into().map_err(hearth_core::Error::internal)?;
    let key_id = key.key_id.strip_prefix("ed25519:").unwrap_or(&key.key_id);
    Ok(Signer::new(config.server.server_name.clone(), key_id, seed)?)
}

fn accounts(
    config: &Config,
    storage: &Arc<dyn Storage>,
    notifier: &Arc<Notifier>,
    erased: &Arc<Erased>,
    deps: &Deps,
) -> (Arc<Sessions>, Arc<RateLimits>, Accounts) {
    let sessions = Sessions::new(Arc::clone(storage), Arc::clone(&deps.clock), Arc::clone(notifier));
    let counters = rate_limit::InMemory::new(Arc::clone(&deps.clock));
    let limits = RateLimits::new(config.limits.rate_limit.clone(), counters);
    let accounts = Accounts::new(
        config.server.server_name.clone(),
        accounts::Sources {
            storage: Arc::clone(storage),
            clock: Arc::clone(&deps.clock),
            rng: Arc::clone(&deps.rng),
            sessions: Arc::clone(&sessions),
            limits: Arc::clone(&limits),
            erased: Arc::clone(erased),
        },
        config.registration.clone(),
        config.sessions.clone(),
        config.sso.clone(),
    );
    (sessions, limits, accounts)
}

/// Where files are kept: a folder, which is also where uploads wait.
fn media_folder(config: &Config) -> PathBuf {
    let beside = || config.database.database_path.join("media");
    config.media.media.path.clone().unwrap_or_else(beside)
}

/// Where uploads wait until they are whole.
pub fn media_spool(config: &Config) -> PathBuf {
    media_folder(config).join("incoming")
}

/// The store of this kind.
pub fn media_store(config: &Config, backend: MediaBackend) -> Result<Arc<dyn media::store::Store>, StartError> {
    Ok(media::store::open(&config.media.media, backend, &media_folder(config))?)
}

fn media(
    config: &Config,
    storage: &Arc<dyn Storage>,
    notifier: &Arc<Notifier>,
    deps: &Deps,
) -> Result<Arc<Media>, StartError> {
    let store = config.media.media.clone();
    let sources = media::Sources {
        storage: Arc::clone(storage),
        store: media_store(config, store.backend)?,
        spool: media_spool(config),
        notifier: Arc::clone(notifier),
        clock: Arc::clone(&deps.clock),
        rng: Arc::clone(&deps.rng),
    };
    let name = &config.server.server_name;
    let page = store.user_quota_info.clone().or_else(|| config.server.well_known.support_page.clone());
    let rules = media::Rules {
        max_bytes: config.http.max_request_size as u64,
        max_pixels: config.media.media_thumbnail_max_pixels,
        quota_info: page.unwrap_or_else(|| format!("https://{name}/")),
        config: store,
    };
    Ok(Media::new(name.clone(), sources, rules))
}

/// What an operator works with at the command line.
pub struct Offline {
    pub accounts: Accounts,
    pub reports: Arc<Reports>,
    pub storage: Arc<dyn Storage>,
}

/// Opens the database without a server around it. Another process may be serving at the same time.
pub async fn offline(config: &Config, deps: &Deps) -> Result<Offline, StartError> {
    let Opened { storage, notifier, .. } = open(config, Arc::new(LocalBus::default())).await?;
    let erased = Erased::load(Arc::clone(&storage)).await?;
    let (_, _, accounts) = accounts(config, &storage, &notifier, &erased, deps);
    let timelines = Timelines::new(Arc::clone(&storage), Shapes::new(Arc::clone(&deps.clock), erased));
    let reports = Reports::new(Arc::clone(&storage), timelines, Arc::clone(&deps.clock), Arc::clone(&deps.rng));
    Ok(Offline { accounts, reports, storage })
}

/// The server without its sockets: storage → bus → notifier → services → workers.
pub struct House {
    pub services: Services,
    notifier: Arc<Notifier>,
    supervisor: Supervisor,
    storage: Arc<dyn Storage>,
    first_admin_token: Option<String>,
}

/// Opens the database, builds the house, and lets the workers begin.
pub async fn build(config: Arc<Config>, deps: &Deps) -> Result<House, StartError> {
    let opened = open(&config, Arc::new(LocalBus::default())).await?;
    build_on(opened, config, deps).await
}

/// Builds the house on a database that is open: with caches and an epoch of its own, as after a start.
pub async fn build_on(opened: Opened, config: Arc<Config>, deps: &Deps) -> Result<House, StartError> {
    let shutdown = Shutdown::default();
    let supervisor = Supervisor::new(shutdown.clone());
    let Opened { storage, notifier, bus, known } = opened;
    let signer = Arc::new(signer(&config, &*storage, deps).await?);

    let (clock, rng) = (&deps.clock, &deps.rng);
    let name = &config.server.server_name;
    let erased = Erased::load(Arc::clone(&storage)).await?;
    let (sessions, limits, accounts) = accounts(&config, &storage, &notifier, &erased, deps);
    let accounts = Arc::new(accounts);
    let keys = Keys::new(name.clone(), Arc::clone(&storage), Arc::clone(&accounts));
    let profiles = Profiles::new(name.clone(), Arc::clone(&storage), Arc::clone(clock), Arc::clone(rng));
    let profiles = Arc::new(profiles);
    let push = Push::new(name.clone(), Arc::clone(&storage));
    let push_rules = Arc::new(PushRules::new(Arc::clone(&storage), Arc::clone(&push)));
    let shapes = Shapes::new(Arc::clone(clock), Arc::clone(&erased));
    let timelines = Timelines::new(Arc::clone(&storage), Arc::clone(&shapes));
    let serial = Arc::<Serial>::default();
    let typing = Typing::new(Arc::clone(clock), Arc::clone(&notifier), Arc::clone(&serial));
    let presence = Presence::new(Arc::clone(clock), Arc::clone(&serial), config.presence.allow_local_presence);
    let rooms = Rooms::new(
        Arc::clone(&storage),
        Arc::clone(clock),
        Arc::clone(rng),
        signer,
        config.rooms.default_room_version.clone(),
        push,
    );
    let directory = Directory::new(name.clone(), Arc::clone(&storage), Arc::clone(&rooms));
    let to_device = ToDevice::new(name.clone(), Arc::clone(&storage), Arc::clone(clock));
    let key_backups = KeyBackups::new(Arc::clone(&storage), Arc::clone(clock), Arc::clone(rng));
    let media = media(&config, &storage, &notifier, deps)?;
    let http = HttpClient::new(&config.outgoing, Arc::new(System));
    let sso_sources = SsoSources {
        storage: Arc::clone(&storage),
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
        accounts: Arc::clone(&accounts),
        profiles: Arc::clone(&profiles),
        media: Arc::clone(&media),
        http: http.clone(),
        names: Arc::new(System),
    };
    let sso = Sso::new(&config, sso_sources)?;
    let pages = Pages::load(config.sso.sso_templates_path.as_deref(), name.as_str())?;
    let badge_counts = config.push.push_badge_counts;
    let pushers = Pushers::new(Arc::clone(&storage), Arc::clone(clock), Arc::clone(rng), http.clone(), badge_counts);
    let previews = Previews::new(
        &config.url_preview,
        previews::Sources {
            storage: Arc::clone(&storage),
            clock: Arc::clone(clock),
            http: http.clone(),
            pictures: Some(Arc::clone(&media) as Arc<dyn KeepImage>),
            shutdown: shutdown.clone(),
        },
    );
    let mut epoch = [0; 8];
    rng.fill(&mut epoch);
    let sources = Sources {
        storage: Arc::clone(&storage),
        notifier: Arc::clone(&notifier),
        known: Arc::clone(&known),
        serial,
        typing: Arc::clone(&typing),
        presence: Arc::clone(&presence),
        shapes: Arc::clone(&shapes),
        push_rules: Arc::clone(&push_rules),
        sessions: Arc::clone(&sessions),
        shutdown: shutdown.clone(),
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
    };
    let timeouts = Timeouts {
        min: Duration::from_millis(config.sync.client_sync_timeout_min),
        default: Duration::from_millis(config.sync.client_sync_timeout_default),
        max: Duration::from_millis(config.sync.client_sync_timeout_max),
    };
    let syncs = Syncs::new(sources, u64::from_le_bytes(epoch), timeouts);
    let first_admin_token = accounts.first_start().await?;

    let tags = Arc::new(RoomTags::new(Arc::clone(&storage)));
    let moves = Moves::new(Arc::clone(&storage), Arc::clone(&tags), Arc::clone(&push_rules));
    let notifications = Notifications {
        storage: Arc::clone(&storage),
        clock: Arc::clone(clock),
        rooms: Arc::clone(&rooms),
        push_rules: Arc::clone(&push_rules),
        shapes: Arc::clone(&shapes),
    };
    let deliveries = Deliveries {
        storage: Arc::clone(&storage),
        clock: Arc::clone(clock),
        rooms: Arc::clone(&rooms),
        push_rules: Arc::clone(&push_rules),
        http,
        badge_counts: config.push.push_badge_counts,
        shutdown: shutdown.clone(),
    };
    let workers = Workers {
        storage: Arc::clone(&storage),
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
        notifier: Arc::clone(&notifier),
        bus,
        known,
        rooms: Arc::clone(&rooms),
        presence: Arc::clone(&presence),
        sessions: Arc::clone(&sessions),
        erased,
        moves,
        media: Arc::clone(&media),
        syncs: Arc::clone(&syncs),
        deliveries,
        shutdown: shutdown.clone(),
        transaction_retention_s: config.rooms.transaction_id_retention_s,
    };
    let pulse = worker::start(workers, &supervisor);

    let services = Services {
        config,
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
        shutdown: shutdown.clone(),
        sessions,
        limits,
        accounts,
        profiles,
        account_data: Arc::new(AccountData::new(Arc::clone(&storage))),
        directory,
        filters: Arc::new(Filters::new(Arc::clone(&storage))),
        keys: Arc::new(keys),
        key_backups: Arc::new(key_backups),
        media,
        push_rules,
        pushers: Arc::new(pushers),
        notifications: Arc::new(notifications),
        receipts: Receipts::new(Arc::clone(&storage), Arc::clone(&timelines), Arc::clone(clock)),
        reports: Reports::new(Arc::clone(&storage), Arc::clone(&timelines), Arc::clone(clock), Arc::clone(rng)),
        rooms,
        subscriptions: Arc::new(Subscriptions::new(Arc::clone(&storage), Arc::clone(&timelines))),
        timelines,
        typing,
        presence,
        previews,
        spaces: Arc::new(Spaces::new(Arc::clone(&storage))),
        sso: Arc::new(sso),
        pages: Arc::new(pages),
        tags,
        to_device: Arc::new(to_device),
        syncs,
        ready: vec![
            Arc::new(Database(Arc::clone(&storage))),
            Arc::new(WorkersAlive { pulse, clock: Arc::clone(clock) }),
        ],
    };
    Ok(House { services, notifier, supervisor, storage, first_admin_token })
}

/// Starts a server. When this returns, it can be reached.
pub async fn start(config: Arc<Config>, deps: Deps) -> Result<Running, StartError> {
    // Before anything holds a metric: one that is made earlier is counted nowhere.
    let collected = match config.metrics.metrics_port {
        None => None,
        Some(port) => Some((port, telemetry::metrics().map_err(StartError::Metrics)?)),
    };
    let House { services, notifier, supervisor, storage, first_admin_token } =
        build(Arc::clone(&config), &deps).await?;
    let shutdown = services.shutdown.clone();
    let (syncs, media) = (Arc::clone(&services.syncs), Arc::clone(&services.media));

    let metrics = match collected {
        None => None,
        Some((port, handle)) => {
            supervisor.start("tidy_metrics", tidy_metrics(handle, shutdown.clone()));
            let listeners = bind([config.metrics.metrics_address], port).await?;
            let limits = Limits::from(&config.http);
            Some(Serving::start(listeners, metrics_router(handle), TaskTracker::new(), deps.rng.clone(), limits)?)
        }
    };
    let running = TaskTracker::new();
    let router = sso::routes(client::routes(health::routes(Routes::new(Api::new(services))))).into_router(&running);
    let listeners = bind(config.http.address.iter(), config.http.port).await?;
    let http = Serving::start(listeners, router, running, deps.rng, Limits::from(&config.http))?;

    let patience = Duration::from_secs(config.http.stop_timeout_s);
    Ok(Running { shutdown, notifier, supervisor, patience, http, metrics, syncs, media, storage, first_admin_token })
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

/// Ready when the database answers. Its migrations ran before anything was served.
struct Database(Arc<dyn Storage>);

impl health::Ready for Database {
    fn name(&self) -> &'static str {
        "database"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.0.ping().await.map_err(|_| "not available".to_owned()) })
    }
}

/// Ready while the head of the stream is being followed.
struct WorkersAlive {
    pulse: Arc<Pulse>,
    clock: Arc<dyn Clock>,
}

impl health::Ready for WorkersAlive {
    fn name(&self) -> &'static str {
        "workers"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        let behind = self.clock.now_ms().saturating_sub(self.pulse.last_ms());
        let fresh = behind < 10_000;
        Box::pin(async move { if fresh { Ok(()) } else { Err("the stream is not being followed".to_owned()) } })
    }
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

    /// At the first start: the token with which an administrator registers.
    pub fn first_admin_token(&self) -> Option<&str> {
        self.first_admin_token.as_deref()
    }

    /// What the database has been asked to do since the start, by operation.
    pub fn storage_work(&self) -> BTreeMap<&'static str, Work> {
        self.storage.work()
    }

    /// How many syncs wait for news.
    pub fn waiting_syncs(&self) -> usize {
        self.notifier.waiting()
    }

    /// Does at once what is done with files now and then.
    pub async fn tidy_media(&self) -> Result<(), hearth_core::Error> {
        self.media.upkeep().await?;
        self.media.tidy().await
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
        self.supervisor.ended(deadline).await;
        // The last answers have been given.
        if let Err(e) = self.syncs.save_connections().await {
            tracing::warn!(error = %e, "connections are not written down; their clients begin anew");
        }
        if let Err(e) = self.storage.close().await {
            tracing::warn!(error = %e, "the database was not closed in order");
        }
        if let Some(metrics) = self.metrics {
            metrics.stop(Duration::from_millis(100)).await;
        }
        all
    }
}
