//! Is what was acknowledged still there after a kill?
//!
//! Writers send messages with transaction ids and note every 200 outside of the server's process tree, in memory and in a
//! file. The server, or PostgreSQL under it, is killed at a random moment. Then every room is paged from its end to its
//! beginning, and a sync goes on from the token held before the kill, and both are compared with the notes.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    http::Http,
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
}

/// One message as its sender knows it.
#[derive(Clone)]
struct Attempt {
    sender: usize,
    room: usize,
    number: u64,
    txn: String,
    body: String,
    /// Set by a 200.
    event_id: Option<String>,
}

/// What was sent and what was answered. It survives the server, being no part of it.
struct Notes {
    attempts: Vec<Attempt>,
    file: File,
}

impl Notes {
    fn begin(&mut self, attempt: Attempt) -> usize {
        self.attempts.push(attempt);
        self.attempts.len() - 1
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
    notes: Mutex<Notes>,
}

impl World {
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
        if whole {
            verdict.check(&format!("cycle {cycle}: history"), &compare_history(&world).await?);
        }
        let (next, violations) = compare_sync(&world, &since, first, &mut seen).await?;
        verdict.check(&format!("cycle {cycle}: sync from before the kill"), &violations);
        since = next;
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
    let mut senders = Vec::new();
    for number in 0..options.senders {
        let sender = User::register(&http, &format!("sender{number}")).await?;
        for room in &rooms {
            sender.join(room).await?;
        }
        senders.push(sender);
    }
    let file = File::create(folder.join("acknowledged.jsonl"))?;
    Ok(World { senders, observer, rooms, notes: Mutex::new(Notes { attempts: Vec::new(), file }) })
}

const FILTER: &str = r#"{"presence":{"types":[]},"room":{"timeline":{"limit":1000,"types":["m.room.message"]},"ephemeral":{"types":[]}}}"#;

/// The token of a sync that shows all that happened so far.
async fn settle(world: &World) -> Result<String> {
    let reply = world.observer.sync(None, FILTER, Duration::ZERO).await?.ok()?;
    text(&reply, "next_batch")
}

// --- writing ---------------------------------------------------------------------------------------------------------

/// How a sender takes a request that was not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnError {
    /// The server is gone: leave it for the retry after the restart.
    End,
    /// What is under the server is gone: the same transaction id again, until it is taken.
    Again,
}

/// What one sender met in one cycle.
#[derive(Default)]
struct Met {
    violations: Vec<String>,
    /// The last moment at which an error was answered.
    last_error: Option<Instant>,
}

struct Writing {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<Met>>>,
}

fn write(world: &Arc<World>, cycle: u32, rng: &mut fastrand::Rng, on_error: OnError) -> Writing {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = (0..world.senders.len())
        .map(|sender| {
            let (world, stop, rng) = (Arc::clone(world), Arc::clone(&stop), rng.fork());
            tokio::spawn(write_as(world, sender, cycle, rng, on_error, stop))
        })
        .collect();
    Writing { stop, tasks }
}

async fn write_as(
    world: Arc<World>,
    sender: usize,
    cycle: u32,
    mut rng: fastrand::Rng,
    on_error: OnError,
    stop: Arc<AtomicBool>,
) -> Result<Met> {
    let user = &world.senders[sender];
    let mut met = Met::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let room = rng.usize(..world.rooms.len());
        let txn = format!("c{cycle}-s{sender}-n{number}");
        let number = u64::from(cycle) * 10_000_000 + number;
        let body = format!("{txn} {}", "word ".repeat(rng.usize(0..60)));
        let attempt = Attempt { sender, room, number, txn: txn.clone(), body: body.clone(), event_id: None };
        let index = world.notes().begin(attempt);
        let began = Instant::now();
        loop {
            match user.send(&world.rooms[room], &txn, &body).await {
                Ok(reply) if reply.status.is_success() => {
                    let event_id = text(&reply.json()?, "event_id")?;
                    world.notes().acknowledge(index, event_id)?;
                    break;
                }
                // A 4xx would make a client give up for good; with a server that is being killed, even a 5xx is a lie.
                Ok(reply) if reply.status.is_client_error() || on_error == OnError::End => {
                    met.violations.push(format!("{txn}: {} {}", reply.status, reply.text()));
                    return Ok(met);
                }
                Ok(_) | Err(_) if on_error == OnError::Again => {
                    met.last_error = Some(Instant::now());
                    if began.elapsed() > Duration::from_secs(60) {
                        met.violations.push(format!("{txn}: nothing but errors for a minute"));
                        return Ok(met);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(_) | Err(_) => return Ok(met),
            }
        }
    }
    Ok(met)
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
        let user = &world.senders[attempt.sender];
        let reply = user.send(&world.rooms[attempt.room], &attempt.txn, &attempt.body).await;
        match (reply, &attempt.event_id) {
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

// --- comparing -------------------------------------------------------------------------------------------------------

/// A message as a server tells it.
struct Found {
    event_id: String,
    sender: String,
    body: String,
}

fn messages(events: &[Value]) -> Vec<Found> {
    let field = |event: &Value, pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    events
        .iter()
        .filter(|event| event.get("type").and_then(Value::as_str) == Some("m.room.message"))
        .map(|event| Found {
            event_id: field(event, "/event_id"),
            sender: field(event, "/sender"),
            body: field(event, "/content/body"),
        })
        .collect()
}

/// Compares what is found in one room, oldest first, with those of the noted attempts that belong there.
fn compare(senders: &[User], room: usize, attempts: &[Attempt], found: &[Found]) -> Vec<String> {
    let mut violations = Vec::new();
    let sent: HashMap<&str, &Attempt> = attempts
        .iter()
        .filter(|attempt| attempt.room == room)
        .map(|attempt| (attempt.body.as_str(), attempt))
        .collect();
    let mut bodies = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for message in found {
        let Some(attempt) = sent.get(message.body.as_str()) else {
            violations.push(format!("{} in room {room} was never sent there: {}", message.event_id, message.body));
            continue;
        };
        if !bodies.insert(message.body.as_str()) {
            violations.push(format!("{} is there twice, once as {}", attempt.txn, message.event_id));
            continue;
        }
        if attempt.event_id.as_ref().is_some_and(|known| *known != message.event_id) {
            violations.push(format!("{} was acknowledged under another id than {}", attempt.txn, message.event_id));
        }
        if message.sender != senders[attempt.sender].id {
            violations.push(format!("{} has the sender {}", attempt.txn, message.sender));
        }
        let before = last.insert(message.sender.as_str(), attempt.number);
        if before.is_some_and(|before| before > attempt.number) {
            violations.push(format!("{} comes after a later message of its sender", attempt.txn));
        }
    }
    for attempt in attempts.iter().filter(|attempt| attempt.room == room) {
        if attempt.event_id.is_some() && !bodies.contains(attempt.body.as_str()) {
            violations.push(format!("{} was acknowledged and is lost", attempt.txn));
        }
    }
    violations
}

/// Every room from its end to its beginning.
async fn compare_history(world: &World) -> Result<Vec<String>> {
    let attempts = world.notes().attempts.clone();
    let mut violations = Vec::new();
    for (number, room) in world.rooms.iter().enumerate() {
        let mut found = Vec::new();
        let mut from: Option<String> = None;
        let mut began = false;
        for _ in 0..100_000 {
            let page = world.observer.messages(room, from.as_deref()).await?;
            let chunk = page["chunk"].as_array().context("no chunk")?;
            found.extend(messages(chunk));
            began |= chunk.iter().any(|event| event["type"] == "m.room.create");
            let end = page.get("end").and_then(Value::as_str).map(str::to_owned);
            // Some servers answer a last page that is empty, some leave its `end` out.
            if end.is_none() || chunk.is_empty() || end == from {
                break;
            }
            from = end;
        }
        if !began {
            violations.push(format!("paging room {number} ended before its beginning"));
        }
        found.reverse();
        violations.extend(compare(&world.senders, number, &attempts, &found));
    }
    Ok(violations)
}

/// Syncs from `since` until nothing more comes, closing the gaps of limited timelines; the new token and the violations.
async fn compare_sync(
    world: &World,
    since: &str,
    first: usize,
    seen: &mut HashSet<String>,
) -> Result<(String, Vec<String>)> {
    let attempts = world.notes().attempts[first..].to_vec();
    let mut since = since.to_owned();
    let mut violations = Vec::new();
    let mut found: Vec<Vec<Found>> = world.rooms.iter().map(|_| Vec::new()).collect();
    for _ in 0..1000 {
        let reply = world.observer.sync(Some(&since), FILTER, Duration::ZERO).await?.ok()?;
        let next = text(&reply, "next_batch")?;
        let mut news = false;
        for (number, room) in world.rooms.iter().enumerate() {
            let timeline = &reply["rooms"]["join"][room]["timeline"];
            let Some(events) = timeline["events"].as_array() else { continue };
            let mut part = messages(events);
            news |= !part.is_empty();
            if timeline["limited"] == true {
                part = fill_gap(world, room, timeline, part, seen).await?;
            }
            found[number].extend(part);
        }
        since = next;
        if !news {
            break;
        }
    }
    for (number, found) in found.iter().enumerate() {
        for message in found {
            if !seen.insert(message.event_id.clone()) {
                violations.push(format!("{} came in a sync for the second time", message.event_id));
            }
        }
        violations.extend(compare(&world.senders, number, &attempts, found));
    }
    Ok((since, violations))
}

/// Pages back from a limited timeline until something that an earlier sync has shown.
async fn fill_gap(
    world: &World,
    room: &str,
    timeline: &Value,
    part: Vec<Found>,
    seen: &HashSet<String>,
) -> Result<Vec<Found>> {
    let mut newest_first: Vec<Found> = part.into_iter().rev().collect();
    let mut from = text(timeline, "prev_batch")?;
    'pages: for _ in 0..10_000 {
        let page = world.observer.messages(room, Some(&from)).await?;
        let chunk = page["chunk"].as_array().context("no chunk")?;
        for message in messages(chunk) {
            if seen.contains(&message.event_id) {
                break 'pages;
            }
            newest_first.push(message);
        }
        match page.get("end").and_then(Value::as_str) {
            Some(end) if !chunk.is_empty() && end != from => end.clone_into(&mut from),
            _ => break,
        }
    }
    newest_first.reverse();
    Ok(newest_first)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u64, event_id: Option<&str>) -> Attempt {
        let name = format!("n{number}");
        Attempt { sender: 0, room: 0, number, txn: name.clone(), body: name, event_id: event_id.map(str::to_owned) }
    }

    fn found(number: u64) -> Found {
        Found { event_id: format!("$e{number}"), sender: "@s:localhost".into(), body: format!("n{number}") }
    }

    fn judge(attempts: &[Attempt], found: &[Found]) -> Vec<String> {
        let http = Http::new("http://127.0.0.1:1").expect("a loopback address");
        let sender = User { http, id: "@s:localhost".into(), token: String::new() };
        compare(&[sender], 0, attempts, found)
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let sent = [attempt(1, Some("$e1")), attempt(2, Some("$e2")), attempt(3, None)];
        assert!(judge(&sent, &[found(1), found(2)]).is_empty(), "the unacknowledged one may be missing");
        assert!(judge(&sent, &[found(1), found(2), found(3)]).is_empty(), "or be there");
        let one = |violations: Vec<String>, text: &str| {
            assert_eq!(violations.len(), 1, "{violations:?}");
            assert!(violations[0].contains(text), "{violations:?}");
        };
        one(judge(&sent, &[found(1)]), "is lost");
        one(judge(&sent, &[found(1), found(2), found(3), found(3)]), "is there twice");
        one(judge(&sent, &[found(2), found(1)]), "after a later message");
        one(judge(&sent, &[found(1), found(2), found(4)]), "was never sent");
        one(judge(&sent, &[found(1), Found { event_id: "$other".into(), ..found(2) }]), "under another id");
        one(judge(&sent, &[found(1), Found { sender: "@t:localhost".into(), ..found(2) }]), "has the sender");
    }
}
