//! Process 1 of the image with PostgreSQL: starts the database, the server once that is ready, ends both, and buries
//! whatever else dies in the container.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            net::{SocketAddr, UnixDatagram},
            process::CommandExt as _,
        },
    },
    path::PathBuf,
    process::{Command, ExitCode},
    sync::mpsc::{self, Sender},
    thread,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::server;

const CLUSTER: &str = "/var/lib/postgresql/complement";
const URL: &str = "postgres://postgres@127.0.0.1/postgres";
const NOTIFY: &str = "complement-postgres";

enum Event {
    /// PostgreSQL takes connections.
    Ready,
    Stop,
    ChildDied,
}

/// The two children, as far as they are alive.
struct Children {
    postgres: Option<Pid>,
    server: Option<Pid>,
    stopping: bool,
    code: ExitCode,
}

pub fn supervise(name: OsString) -> io::Result<ExitCode> {
    let (tell, events) = mpsc::channel();
    watch_signals(tell.clone())?;
    watch_readiness(tell)?;
    let mut children =
        Children { postgres: Some(start(&mut postgres()?)?), server: None, stopping: false, code: ExitCode::SUCCESS };
    let mut server = server(name);
    server.env("CONDUIT_DATABASE_BACKEND", "postgres").env("CONDUIT_DATABASE_URL", URL);

    for event in events {
        match event {
            Event::Ready if children.server.is_none() && !children.stopping => {
                children.server = Some(start(&mut server)?);
            }
            Event::Ready => {}
            Event::Stop => children.stop(),
            Event::ChildDied => children.bury()?,
        }
        if children.postgres.is_none() && children.server.is_none() {
            break;
        }
    }
    Ok(children.code)
}

impl Children {
    /// The server first: it may have something to write yet. The database follows when the server has gone.
    fn stop(&mut self) {
        self.stopping = true;
        // Who is asked and is gone already will be buried in a moment.
        match (self.server, self.postgres) {
            (Some(server), _) => drop(kill_process(server, Signal::TERM)),
            // A "fast" shutdown: it does not wait for its clients.
            (None, Some(postgres)) => drop(kill_process(postgres, Signal::INT)),
            (None, None) => {}
        }
    }

    /// Orphans of the container come to process 1 too.
    fn bury(&mut self) -> io::Result<()> {
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some(dead)) => dead,
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let (child, name) = if self.server == Some(pid) {
                (&mut self.server, "the server")
            } else if self.postgres == Some(pid) {
                (&mut self.postgres, "PostgreSQL")
            } else {
                continue;
            };
            *child = None;
            if !self.stopping || status.exit_status() != Some(0) {
                eprintln!("entrypoint: {name} ended: {}", told(status));
                self.code = ExitCode::FAILURE;
            }
            // One is no use without the other.
            self.stop();
        }
    }
}

fn told(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => format!("{status:?}"),
    }
}

fn start(command: &mut Command) -> io::Result<Pid> {
    let child = command.spawn().map_err(|e| io::Error::new(e.kind(), format!("{:?}: {e}", command.get_program())))?;
    Ok(Pid::from_child(&child))
}

/// It refuses to run as root.
fn postgres() -> io::Result<Command> {
    let (uid, gid) = user("postgres")?;
    // Nothing runs yet in the container, whatever its last life has left; the number in there may be anybody's by now.
    match fs::remove_file(format!("{CLUSTER}/postmaster.pid")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut command = Command::new(binary()?);
    command.arg("-D").arg(CLUSTER).current_dir("/").env("NOTIFY_SOCKET", format!("@{NOTIFY}")).uid(uid).gid(gid);
    Ok(command)
}

fn binary() -> io::Result<PathBuf> {
    fs::read_dir("/usr/lib/postgresql")?
        .flatten()
        .map(|version| version.path().join("bin/postgres"))
        .find(|path| path.is_file())
        .ok_or_else(|| io::Error::other("no PostgreSQL in /usr/lib/postgresql"))
}

/// The ids that `/etc/passwd` gives a user.
fn user(name: &str) -> io::Result<(u32, u32)> {
    let ids = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let passwd = fs::read_to_string("/etc/passwd")?;
    passwd.lines().find_map(ids).ok_or_else(|| io::Error::other(format!("no user {name}")))
}

fn watch_signals(tell: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGCHLD])?;
    thread::spawn(move || {
        for signal in &mut signals {
            let event = if signal == SIGCHLD { Event::ChildDied } else { Event::Stop };
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Debian's PostgreSQL says when it is ready the way systemd has it said: a datagram with the line `READY=1`.
fn watch_readiness(tell: Sender<Event>) -> io::Result<()> {
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(NOTIFY)?)?;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            if buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                let _ = tell.send(Event::Ready);
                return;
            }
        }
    });
    Ok(())
}
