//! A PostgreSQL cluster of one's own: plain settings, fsync on, killed and started as a test wants.

use std::{
    ffi::OsString,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process;

pub struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    port: u16,
    postmaster: Option<Child>,
}

/// PostgreSQL refuses to run as root. `setpriv` becomes the program, so the child is ours to wait for: a killed postmaster
/// that nobody waited for would still count as running for the next one.
fn as_postgres(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn bin_folder() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    Ok(found.pop().context("no initdb under /usr/lib/postgresql: install PostgreSQL")?.1)
}

/// A port that nothing listens on now, and below those that the kernel gives to clients: while a killed server is down,
/// a client's own connection must not take its port.
pub fn free_port() -> Result<u16> {
    (0..200)
        .map(|_| fastrand::u16(20_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port")
}

impl Postgres {
    pub fn start(parent: &Path) -> Result<Self> {
        let bin = bin_folder()?;
        let folder = tempfile::Builder::new().prefix("postgres-").tempdir_in(parent)?;
        if rustix::process::geteuid().is_root() {
            let status = Command::new("chown").arg("postgres:").arg(folder.path()).status()?;
            ensure!(status.success(), "chown of the cluster's folder");
        }
        let mut postgres = Self { folder, bin, port: free_port()?, postmaster: None };
        let output = as_postgres(&postgres.bin.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .arg("--pgdata")
            .arg(postgres.data())
            .current_dir(postgres.folder.path())
            .output()?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        postgres.launch()?;
        Ok(postgres)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the cluster and waits until it takes connections.
    pub fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut sockets = OsString::from("unix_socket_directories=");
        sockets.push(self.folder.path());
        let mut child = as_postgres(&self.bin.join("postgres"))
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c"])
            .arg(sockets)
            .arg("-D")
            .arg(self.data())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let began = Instant::now();
        loop {
            // The last line of this file tells how far the start has come; the first, whose start it is.
            let file = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let ours = file.lines().next() == Some(child.id().to_string().as_str());
            if ours && file.trim_end().ends_with("ready") {
                self.postmaster = Some(child);
                return Ok(());
            }
            if child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(60) {
                // Not reached with a child that still starts, unless it takes far too long.
                let _ = child.kill();
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("PostgreSQL did not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The postmaster, whose children do the work.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.postmaster.as_ref().context("PostgreSQL does not run")?.id())
    }

    /// SIGKILL for the postmaster and all its children at once, as a machine that dies would have it.
    pub fn kill(&mut self) -> Result<()> {
        let mut postmaster = self.postmaster.take().context("PostgreSQL does not run")?;
        // Stopped first, so that it starts no child between the look and the kill.
        process::signal(postmaster.id(), Signal::STOP)?;
        let all = process::family(postmaster.id());
        for pid in &all {
            // A child may have ended by itself meanwhile.
            let _ = process::signal(*pid, Signal::KILL);
        }
        postmaster.wait()?;
        let began = Instant::now();
        while all.iter().any(|pid| process::alive(*pid)) {
            ensure!(began.elapsed() < Duration::from_secs(10), "PostgreSQL outlived its kill");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.postmaster.is_some() {
            let _ = self.kill();
        }
    }
}
