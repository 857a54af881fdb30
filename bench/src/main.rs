//! Load, limits and crashes for the homeserver. Loopback only; every loop ends by count or by time.

mod crash;
mod http;
mod load;
mod matrix;
mod media;
mod postgres;
mod process;
mod raw;
mod report;
mod server;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    postgres::Postgres,
    report::Watched,
    server::{Backend, Server, ServerOptions},
};

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Loads a server that runs already, and prints one JSON line a scenario.
    Load {
        /// Its address: http://127.0.0.1:8008
        #[arg(long)]
        target: String,
        /// Process of the server; its descendants are counted with it. May be given several times.
        #[arg(long)]
        pid: Vec<u32>,
        /// Process of the database, counted apart.
        #[arg(long)]
        db_pid: Vec<u32>,
        /// The server's metrics page.
        #[arg(long)]
        metrics: Option<String>,
        #[command(flatten)]
        shape: load::Shape,
    },
    /// Starts a server in a folder of its own, loads it, stops it.
    Run {
        #[command(flatten)]
        server: ServerOptions,
        #[command(flatten)]
        shape: load::Shape,
    },
    /// Sends large and small files up and down.
    Media(media::Options),
    /// Kills the server or its database while it is written to, and looks for what was acknowledged.
    Crash(crash::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let work = async {
        match command {
            Command::Load { target, pid, db_pid, metrics, shape } => load(&target, pid, db_pid, metrics, &shape).await,
            Command::Run { server, shape } => run(&server, shape).await,
            Command::Media(options) => media::run(options).await,
            Command::Crash(options) => crash::run(options).await,
        }
    };
    // What was started ends with the work, and so it does when the work is broken off.
    let outcome = tokio::select! {
        outcome = work => outcome,
        signal = told_to_stop() => signal.and_then(|()| bail!("stopped")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn told_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn load(
    target: &str,
    server: Vec<u32>,
    database: Vec<u32>,
    metrics: Option<String>,
    shape: &load::Shape,
) -> Result<bool> {
    let metrics = metrics.map(|url| shape.metrics(&url)).transpose()?;
    load::run(target, &Watched { server, database, metrics }, shape).await?;
    Ok(true)
}

async fn run(options: &ServerOptions, mut shape: load::Shape) -> Result<bool> {
    let mut folder = tempfile::Builder::new().prefix("hearth-bench-").tempdir_in(&options.folder)?;
    folder.disable_cleanup(options.keep);
    let postgres = match options.backend {
        Backend::Sqlite => None,
        Backend::Postgres => Some(Postgres::start(&options.folder)?),
    };
    shape.raw_folder.clone_from(&options.folder);
    if let Some(postgres) = &postgres {
        shape.raw_postgres.get_or_insert_with(|| postgres.url());
    }
    let mut server = Server::new(options, folder.path(), postgres.as_ref())?;
    server.spawn()?;
    server.ready(Duration::from_secs(60)).await?;
    let watched = Watched {
        server: vec![server.pid()?],
        database: postgres.as_ref().map(Postgres::pid).transpose()?.into_iter().collect(),
        metrics: Some(shape.metrics(&server.metrics_url())?),
    };
    let loaded = load::run(&server.url(), &watched, &shape).await;
    let stopped = server.stop(Duration::from_secs(10)).await;
    if loaded.is_err() || stopped.is_err() {
        eprintln!("the server's log ends:\n{}", server.last_log());
    }
    loaded?;
    stopped?;
    Ok(true)
}
