//! `hearth serve`

use std::{process::ExitCode, sync::Arc};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    app::{self, Deps},
    config::{Config, Loaded, Sources, Weight},
    telemetry,
};

pub(super) fn run(sources: &Sources) -> ExitCode {
    let loaded = sources.load();
    if loaded.heaviest() == Some(Weight::Wrong) {
        for finding in &loaded.findings {
            eprintln!("{finding}");
        }
        return ExitCode::FAILURE;
    }
    if let Err(e) = telemetry::start_log(&loaded.config.log) {
        eprintln!("error: {e}");
        return ExitCode::FAILURE;
    }
    let Loaded { config, findings } = loaded;
    for finding in findings {
        tracing::warn!("configuration: {}", finding.text);
    }
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(Arc::new(config))),
        Err(e) => Err(e.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Connections and database files count against a limit whose default is meant for programs of another time.
fn raise_file_limit(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files could not be raised: {e}");
    }
    let wanted =
        u64::from(config.http.max_connections.get()) + u64::from(config.database.database_pool_size.get()) + 100;
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < wanted) {
        tracing::warn!(
            "{files} open files are allowed, `max_connections` may need {wanted}: raise the limit (ulimit -n)"
        );
    }
}

async fn serve(config: Arc<Config>) -> Result<(), String> {
    raise_file_limit(&config);
    // Before the start, so that a signal during a long one is not lost.
    let mut signals = Signals::new().map_err(|e| format!("cannot listen for signals: {e}"))?;
    let name = config.server.server_name.clone();
    let start = app::start(config, Deps::default());
    let running = tokio::select! {
        started = start => started.map_err(|e| e.to_string())?,
        signal = signals.next() => {
            tracing::info!("{signal} before the start was done");
            return Ok(());
        }
    };
    if let Some(token) = running.first_admin_token() {
        println!("There is no user yet. Whoever registers with the token {token} becomes an administrator.");
    }
    for address in running.addresses() {
        tracing::info!("{name} is served on http://{address}");
    }
    for address in running.metrics_addresses() {
        tracing::info!("metrics are on http://{address}/metrics");
    }

    let asked = tokio::select! {
        signal = signals.next() => {
            tracing::info!("{signal}: stopping; a second signal ends at once");
            true
        }
        () = running.wait() => false,
    };
    tokio::select! {
        all = running.stop() => {
            if all {
                tracing::info!("stopped");
            } else {
                tracing::warn!("stopped; requests that took longer than `stop_timeout_s` were cut");
            }
        }
        signal = signals.next() => tracing::warn!("{signal} again: ending at once"),
    }
    if asked { Ok(()) } else { Err("the server stopped by itself".to_owned()) }
}

/// The signals that ask for an end.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
