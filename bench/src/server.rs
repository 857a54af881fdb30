//! The server under test as a process: started in a folder of its own, stopped or killed.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::{
    http::Http,
    postgres::{Postgres, free_port},
    process,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct ServerOptions {
    /// The server's binary.
    #[arg(long)]
    pub server: PathBuf,
    #[arg(long, value_enum)]
    pub backend: Backend,
    /// Where data folders are made; it decides which disk is measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub folder: PathBuf,
    /// Answers 200 once the server takes requests.
    #[arg(long, default_value = "/health/ready")]
    pub ready_path: String,
    /// The server's log level.
    #[arg(long, default_value = "warn")]
    pub log: String,
    /// Keep the data folder and the server's log when a run ends.
    #[arg(long)]
    pub keep: bool,
}

pub struct Server {
    options: ServerOptions,
    folder: PathBuf,
    port: u16,
    metrics_port: u16,
    database_url: Option<String>,
    settings: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Server {
    pub fn new(options: &ServerOptions, folder: &Path, postgres: Option<&Postgres>) -> Result<Self> {
        let server = options.server.canonicalize();
        let options = ServerOptions {
            server: server.with_context(|| format!("no server at {}", options.server.display()))?,
            ..options.clone()
        };
        std::fs::create_dir_all(folder.join("data"))?;
        Ok(Self {
            options,
            folder: folder.to_owned(),
            port: free_port()?,
            metrics_port: free_port()?,
            database_url: postgres.map(Postgres::url),
            settings: Vec::new(),
            child: None,
        })
    }

    /// Something that the next start is told.
    pub fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.settings.push((variable, value.into()));
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.metrics_port)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().and_then(Child::id).context("the server does not run")
    }

    /// Starts the process; it may not be ready yet.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.options.server);
        // What the machine happens to have set for a server of the family is not for this one.
        for (name, _) in std::env::vars_os() {
            let prefixes = ["CONDUIT_", "CONDUWUIT_", "CONTINUWUITY_", "TUWUNEL_"];
            if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .env("CONDUIT_SERVER_NAME", "localhost")
            .env("CONDUIT_ADDRESS", "127.0.0.1")
            .env("CONDUIT_PORT", self.port.to_string())
            .env("CONDUIT_METRICS_PORT", self.metrics_port.to_string())
            .env("CONDUIT_DATABASE_PATH", self.data())
            .env("CONDUIT_DATABASE_BACKEND", self.options.backend.name())
            .env("CONDUIT_ALLOW_REGISTRATION", "true")
            .env("CONDUIT_YES_I_AM_VERY_VERY_SURE_I_WANT_AN_OPEN_REGISTRATION_SERVER_PRONE_TO_ABUSE", "true")
            // What a password costs is measured nowhere here, and 10,000 users would take minutes.
            .env("CONDUIT_PASSWORD_HASH_MEMORY_KIB", "8")
            .env("CONDUIT_PASSWORD_HASH_PASSES", "1")
            // Room for 10,000 long polls and for those who wake them.
            .env("CONDUIT_MAX_CONNECTIONS", "15000")
            .env("CONDUIT_RATE_LIMIT__ENABLED", "false")
            .env("CONDUIT_LOG", &self.options.log)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        command.envs(self.settings.iter().map(|(name, value)| (*name, value)));
        if let Some(url) = &self.database_url {
            command.env("CONDUIT_DATABASE_URL", url);
        }
        self.child = Some(command.spawn().context("starting the server")?);
        Ok(())
    }

    /// Waits until the server says that it is ready.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let http = Http::new(&self.url())?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().context("the server was not started")?.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.last_log());
            }
            let ready =
                http.send(hyper::Method::GET, &self.options.ready_path, None, None, Duration::from_secs(1)).await;
            if ready.is_ok_and(|reply| reply.status.is_success()) {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("the server was not ready within {limit:?}:\n{}", self.last_log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL, and the process is gone when this returns.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill().await.context("killing the server")
    }

    /// SIGTERM; how long it took to end.
    pub async fn stop(&mut self, limit: Duration) -> Result<Duration> {
        let mut child = self.child.take().context("the server does not run")?;
        let began = Instant::now();
        process::signal(child.id().context("the server has ended already")?, Signal::TERM)?;
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(began.elapsed()),
            Ok(status) => bail!("asked to stop, the server ended with {status:?}:\n{}", self.last_log()),
            Err(_) => {
                child.kill().await?;
                bail!("asked to stop, the server still ran after {limit:?}")
            }
        }
    }

    /// True while the process that was started still runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn last_log(&self) -> String {
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
