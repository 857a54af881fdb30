//! Is what was acknowledged still there after a kill?
//!
//! Writers send messages with transaction ids and note every 200 outside of the server's process tree, in memory and in a
//! file. The server, or PostgreSQL under it, is killed at a random moment. Then every room is paged from its end to its
//! beginning, and a sync goes on from the token held before the kill, and both are compared with the notes.

mod compare;
mod devices;
mod files;
mod marks;
mod memberships;
mod unread;
mod write;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::{
    compare::{compare_history, compare_sync},
    devices::Devices,
    files::Files,
    marks::{Mark, Written},
    write::{OnError, write},
};
use crate::{
    http::{Http, Reply},
    matrix::{User, text},
    postgres::Postgres,
    server::{Backend, Server, ServerOptions},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    Server,
    Postgres,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// What is killed.
    #[arg(long, value_enum, default_value = "server")]
    kill: Victim,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    cycles: u32,
    /// The same seed kills at the same moments; without one it is taken from the clock and printed.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    senders: u32,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    rooms: u32,
    /// From the kill of the server until it is ready again.
    #[arg(long, default_value_t = 2000)]
    ready_ms: u64,
    /// From the kill of PostgreSQL until every sender has had a 200 again.
    #[arg(long, default_value_t = 10_000)]
    errors_ms: u64,
    /// Write nothing but messages to rooms: no receipts, no account data, no joins, nothing for devices, no files.
    #[arg(long)]
    messages_only: bool,
}

/// One message as its sender knows it.
#[derive(Clone)]
struct Attempt {
    sender: usize,
    room: usize,
    number: u64,
    txn: String,
    body: String,
    /// The sender that it mentions.
    mentions: Option<usize>,
    /// Set by a 200.
    event_id: Option<String>,
}

/// What was sent and what was answered. It survives the server, being no part of it.
struct Notes {
    attempts: Vec<Attempt>,
    marks: HashMap<Mark, Written>,
    file: File,
}

impl Notes {
    fn begin(&mut self, attempt: Attempt) -> usize {
        self.attempts.push(attempt);
        self.attempts.len() - 1
    }

    /// Something that is no message is about to be written.
    fn try_mark(&mut self, mark: Mark, value: &str) {
        let written = self.marks.entry(mark).or_default();
        written.attempted = Some(value.to_owned());
        written.attempts += 1;
    }

    fn acknowledge_mark(&mut self, mark: Mark, value: String) {
        let written = self.marks.entry(mark).or_default();
        written.acknowledged = Some(value);
        written.acknowledgements += 1;
    }

    fn acknowledge(&mut self, index: usize, event_id: String) -> Result<()> {
        let attempt = &mut self.attempts[index];
        let line = json!({"event_id": event_id, "room": attempt.room, "sender": attempt.sender, "txn": attempt.txn, "body": attempt.body});
        writeln!(self.file, "{line}")?;
        attempt.event_id = Some(event_id);
        Ok(())
    }
}

struct World {
    senders: Vec<User>,
    observer: User,
    rooms: Vec<String>,
    /// A room that senders come into and leave, and in which nobody speaks.
    lobby: String,
    /// Receipts, account data and memberships are written beside the messages, messages to a device and files, and keys are
    /// claimed.
    marks: bool,
    devices: Devices,
    files: Files,
    notes: Mutex<Notes>,
}

impl World {
    async fn send(&self, attempt: &Attempt) -> Result<Reply> {
        let mut content = json!({"msgtype": "m.text", "body": attempt.body});
        if let Some(mentioned) = attempt.mentions {
            content["m.mentions"] = json!({"user_ids": [self.senders[mentioned].id]});
        }
        self.senders[attempt.sender].send_content(&self.rooms[attempt.room], &attempt.txn, &content).await
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().expect("no sender panics while it holds the notes")
    }
}

/// Checks that held and checks that did not, each in a sentence.
#[derive(Default)]
struct Verdict {
    passed: u32,
    failed: u32,
}

impl Verdict {
    fn check(&mut self, what: &str, violations: &[String]) {
        if violations.is_empty() {
            self.passed += 1;
        } else {
            self.failed += 1;
            println!("FAILED {what}: {} violations", violations.len());
            for violation in violations.iter().take(10) {
                println!("    {violation}");
            }
        }
    }
}

pub async fn run(options: Options) -> Result<bool> {
    ensure!(
        options.kill == Victim::Server || options.server.backend == Backend::Postgres,
        "--kill postgres needs --backend postgres"
    );
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut rng = fastrand::Rng::with_seed(seed);
    let name = format!("{:?} on {}", options.kill, options.server.backend.name()).to_lowercase();
    println!("crash: killing {name}, {} cycles, seed {seed}", options.cycles);

    let mut folder = tempfile::Builder::new().prefix("hearth-crash-").tempdir_in(&options.server.folder)?;
    folder.disable_cleanup(options.server.keep);
    if options.server.keep {
        println!("kept in {}", folder.path().display());
    }
    let mut postgres = match options.server.backend {
        Backend::Sqlite => None,
        // Its own user has to reach it, which the folder above may not let it.
        Backend::Postgres => Some(Postgres::start(&options.server.folder)?),
    };
    let mut server = Server::new(&options.server, folder.path(), postgres.as_ref())?;
    server.spawn()?;
    server.ready(Duration::from_secs(60)).await?;
    let world = Arc::new(set_up(&server.url(), folder.path(), &options).await?);

    let mut verdict = Verdict::default();
    let mut since = settle(&world).await?;
    let mut seen = HashSet::new();
    let mut recoveries = Vec::new();
    for cycle in 1..=options.cycles {
        let pause = Duration::from_millis(rng.u64(200..=2000));
        let first = world.notes().attempts.len();
        if world.marks {
            world.devices.publish(cycle).await?;
        }
        let this =
            Cycle { world: &world, options: &options, number: cycle, pause, rng: &mut rng, verdict: &mut verdict };
        let recovery = match options.kill {
            Victim::Server => kill_server(&mut server, this).await,
            Victim::Postgres => {
                kill_postgres(&mut server, postgres.as_mut().context("no PostgreSQL to kill")?, this).await
            }
        };
        let recovery =
            recovery.with_context(|| format!("cycle {cycle}; the server's log ends:\n{}", server.last_log()))?;
        recoveries.push(recovery.took);

        // Paging everything in every cycle would cost the square of the cycles.
        let whole = options.cycles <= 20 || cycle % 20 == 0 || cycle == options.cycles;
        let histories = if whole {
            let (histories, violations) = compare_history(&world).await?;
            verdict.check(&format!("cycle {cycle}: history"), &violations);
            Some(histories)
        } else {
            None
        };
        let (next, violations) = compare_sync(&world, &since, first, &mut seen).await?;
        verdict.check(&format!("cycle {cycle}: sync from before the kill"), &violations);
        since = next;
        if world.marks {
            let violations = marks::compare(&world).await?;
            verdict.check(&format!("cycle {cycle}: receipts, account data, memberships"), &violations);
            let violations = world.devices.compare().await?;
            verdict.check(&format!("cycle {cycle}: messages to a device, one-time keys"), &violations);
            let violations = world.files.compare(&world.observer, &mut rng).await?;
            verdict.check(&format!("cycle {cycle}: files"), &violations);
        }
        if let Some(histories) = histories {
            let violations = unread::compare(&world, &histories).await?;
            verdict.check(&format!("cycle {cycle}: unread counts"), &violations);
            if world.marks {
                let violations = memberships::compare(&world).await?;
                verdict.check(&format!("cycle {cycle}: history of memberships"), &violations);
            }
        }
        let sent = world.notes().attempts.len() - first;
        println!(
            "cycle {cycle}: killed after {} ms, {sent} sent, {} unanswered, back after {} ms",
            pause.as_millis(),
            recovery.unanswered,
            recovery.took.as_millis()
        );
    }

    let stopped = server.stop(Duration::from_secs(10)).await;
    verdict.check("a stop within 10 s", &stopped.err().map(|e| format!("{e:#}")).into_iter().collect::<Vec<_>>());
    if options.server.backend == Backend::Sqlite {
        verdict.check("the database's own check", &integrity(&server.data())?);
    }
    if world.marks {
        let (messages, keys) = world.devices.totals();
        let files = world.files.total();
        println!("{messages} messages to a device, {keys} keys given, {files} files");
        let nothing = messages == 0 || keys == 0 || files == 0;
        let none = nothing.then(|| "no message came, no key was given, or no file was taken".to_owned());
        verdict.check("something was for devices, and files", &none.into_iter().collect::<Vec<_>>());
    }
    recoveries.sort();
    println!(
        "{} events acknowledged; back after {} ms (median), {} ms (worst)",
        world.notes().attempts.len(),
        recoveries[recoveries.len() / 2].as_millis(),
        recoveries[recoveries.len() - 1].as_millis()
    );
    if verdict.failed > 0 {
        folder.disable_cleanup(true);
        println!("notes, data and log are kept in {}", folder.path().display());
        println!("the server's log ends:\n{}", server.last_log());
    }
    println!("{} passed, {} failed", verdict.passed, verdict.failed);
    Ok(verdict.failed == 0)
}

async fn set_up(url: &str, folder: &Path, options: &Options) -> Result<World> {
    let http = Http::new(url)?;
    let observer = User::register(&http, "observer").await?;
    let mut rooms = Vec::new();
    for number in 0..options.rooms {
        rooms.push(observer.create_room(&format!("Room {number}")).await?);
    }
    let lobby = observer.create_room("The lobby").await?;
    let mut senders = Vec::new();
    for number in 0..options.senders {
        let sender = User::register(&http, &format!("sender{number}")).await?;
        for room in &rooms {
            sender.join(room).await?;
        }
        senders.push(sender);
    }
    let file = File::create(folder.join("acknowledged.jsonl"))?;
    let notes = Mutex::new(Notes { attempts: Vec::new(), marks: HashMap::new(), file });
    let devices = Devices::new(&http).await?;
    Ok(World {
        senders,
        observer,
        rooms,
        lobby,
        marks: !options.messages_only,
        devices,
        files: Files::default(),
        notes,
    })
}

const FILTER: &str = r#"{"presence":{"types":[]},"room":{"timeline":{"limit":1000,"types":["m.room.message"]},"ephemeral":{"types":[]}}}"#;

/// The token of a sync that shows all that happened so far.
async fn settle(world: &World) -> Result<String> {
    let reply = world.observer.sync(None, FILTER, Duration::ZERO).await?.ok()?;
    text(&reply, "next_batch")
}

/// One kill, and what it needs.
struct Cycle<'a> {
    world: &'a Arc<World>,
    options: &'a Options,
    number: u32,
    /// How long the writers write before it.
    pause: Duration,
    rng: &'a mut fastrand::Rng,
    verdict: &'a mut Verdict,
}

/// What a kill cost.
struct Recovery {
    took: Duration,
    /// Requests that had no 200 when the kill was over: sent again since, or in flight while the database was away.
    unanswered: usize,
}

async fn kill_server(server: &mut Server, cycle: Cycle<'_>) -> Result<Recovery> {
    let Cycle { world, options, number: cycle, pause, rng, verdict } = cycle;
    let first = world.notes().attempts.len();
    let writing = write(world, cycle, rng, OnError::End);
    tokio::time::sleep(pause).await;
    let killed = Instant::now();
    server.kill().await?;
    server.spawn()?;
    // Far more than is allowed, so that a slow start is told as a number.
    server.ready(Duration::from_secs(60)).await?;
    let recovery = killed.elapsed();
    let limit = Duration::from_millis(options.ready_ms);
    let late = (recovery >= limit).then(|| format!("{} ms from the kill until ready", recovery.as_millis()));
    verdict
        .check(&format!("cycle {cycle}: ready within {} ms", limit.as_millis()), &late.into_iter().collect::<Vec<_>>());

    writing.stop.store(true, Ordering::Relaxed);
    let mut violations = Vec::new();
    for task in writing.tasks {
        violations.extend(task.await??.violations);
    }
    verdict.check(&format!("cycle {cycle}: no error before the kill"), &violations);

    // What was not acknowledged is sent again under the same id; the last acknowledged one of each sender too, which has
    // to give the event that it gave before.
    let attempts = world.notes().attempts[first..].to_vec();
    let mut violations = Vec::new();
    let mut last = HashMap::new();
    for (offset, attempt) in attempts.iter().enumerate() {
        if attempt.event_id.is_some() {
            last.insert(attempt.sender, offset);
        }
    }
    for (offset, attempt) in attempts.iter().enumerate() {
        if attempt.event_id.is_some() && last.get(&attempt.sender) != Some(&offset) {
            continue;
        }
        match (world.send(attempt).await, &attempt.event_id) {
            (Ok(reply), known) if reply.status.is_success() => {
                let event_id = text(&reply.json()?, "event_id")?;
                match known {
                    Some(known) if *known != event_id => {
                        violations.push(format!("{}: was {known}, is {event_id} now", attempt.txn));
                    }
                    Some(_) => {}
                    None => world.notes().acknowledge(first + offset, event_id)?,
                }
            }
            (Ok(reply), _) => violations.push(format!("{}: {} {}", attempt.txn, reply.status, reply.text())),
            (Err(error), _) => violations.push(format!("{}: {error:#}", attempt.txn)),
        }
    }
    verdict.check(&format!("cycle {cycle}: transaction ids after the kill"), &violations);
    Ok(Recovery { took: recovery, unanswered: attempts.iter().filter(|attempt| attempt.event_id.is_none()).count() })
}

async fn kill_postgres(server: &mut Server, postgres: &mut Postgres, cycle: Cycle<'_>) -> Result<Recovery> {
    let Cycle { world, options, number: cycle, pause, rng, verdict } = cycle;
    let pid = server.pid()?;
    let writing = write(world, cycle, rng, OnError::Again);
    tokio::time::sleep(pause).await;
    let killed = Instant::now();
    tokio::task::block_in_place(|| {
        postgres.kill()?;
        postgres.launch()
    })?;
    let database_back = killed.elapsed();
    // A pool may still hold broken connections: those who write on would meet them.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Each sender ends after its current message, which it repeats until it is taken.
    writing.stop.store(true, Ordering::Relaxed);
    let mut violations = Vec::new();
    let (mut recovery, mut unanswered) = (database_back, 0);
    for task in writing.tasks {
        let met = task.await??;
        violations.extend(met.violations);
        if let Some(at) = met.last_error {
            recovery = recovery.max(at.duration_since(killed));
            unanswered += 1;
        }
    }
    verdict.check(&format!("cycle {cycle}: no final error"), &violations);
    let limit = Duration::from_millis(options.errors_ms);
    let late = (recovery > limit).then(|| {
        format!(
            "errors until {} ms after the kill; the database was back after {} ms",
            recovery.as_millis(),
            database_back.as_millis()
        )
    });
    verdict.check(
        &format!("cycle {cycle}: errors end within {} ms", limit.as_millis()),
        &late.into_iter().collect::<Vec<_>>(),
    );
    let restarted = (!server.runs() || server.pid()? != pid).then(|| "the server did not live through it".to_owned());
    verdict.check(&format!("cycle {cycle}: the same server"), &restarted.into_iter().collect::<Vec<_>>());
    Ok(Recovery { took: recovery, unanswered })
}

/// `PRAGMA integrity_check` on every SQLite database in the folder.
fn integrity(folder: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    let mut databases = 0;
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let is_database =
            path.is_file() && std::fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
        if !is_database {
            continue;
        }
        databases += 1;
        let connection = rusqlite::Connection::open(&path)?;
        let answer: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if answer != "ok" {
            violations.push(format!("{}: {answer}", path.display()));
        }
    }
    if databases == 0 {
        violations.push(format!("no SQLite database in {}", folder.display()));
    }
    Ok(violations)
}
