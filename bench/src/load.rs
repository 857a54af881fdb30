//! The load: sends, fan-out, idle polls. Every loop is bounded in count and in time.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::{
    http::Http,
    matrix::{User, text},
    process, raw,
    report::{Metrics, Running, Times, Watched, round},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Users, rooms and joins, one after the other. Every other scenario makes what it needs by itself.
    Setup,
    /// All senders into all rooms.
    Send,
    /// All senders into one room.
    SendOneRoom,
    /// One sender, one room, one message after the other.
    SendOneSender,
    /// Members wait in syncs of one room while others send into it.
    Fanout,
    /// Syncs that wait for nothing; then one event for one of them.
    Idle,
    /// What the machine gives without a Matrix server: bare HTTP, bare inserts, bare fdatasync.
    Raw,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Shape {
    #[arg(value_enum, required = true)]
    pub scenarios: Vec<Scenario>,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1000))]
    senders: u64,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rooms: u64,
    /// Messages a send scenario sends at most.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    ops: u64,
    /// Seconds a scenario runs at most.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Size of a message's text.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=30_000))]
    bytes: u64,
    /// Members that wait in syncs (fan-out).
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=5000))]
    members: u64,
    /// Messages sent to them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    messages: u64,
    /// Those who send them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    fanout_senders: u64,
    /// Milliseconds between two messages of one of them: 0 sends as fast as replies come.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    fanout_pause_ms: u64,
    /// Syncs that wait for nothing (idle).
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    idle: u64,
    /// The database for the bare inserts; without one, only SQLite's are measured.
    #[arg(long)]
    pub raw_postgres: Option<String>,
    /// The folder for bare inserts and fdatasync: it decides which disk is measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub raw_folder: PathBuf,
    /// Counters of the server's metrics whose growth gives operations a commit.
    #[arg(long, default_value = "storage_batch_operations_sum")]
    metric_operations: String,
    #[arg(long, default_value = "storage_batch_operations_count")]
    metric_commits: String,
}

impl Shape {
    pub fn metrics(&self, url: &str) -> Result<Metrics> {
        let (base, path) = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .with_context(|| format!("'{url}' is not the address of a metrics page"))?;
        Ok(Metrics {
            http: Http::new(&format!("http://{base}"))?,
            path: format!("/{path}"),
            operations: self.metric_operations.clone(),
            commits: self.metric_commits.clone(),
        })
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Users and rooms, made once and used by all scenarios of a run.
struct Stage {
    users: Vec<User>,
    rooms: Vec<String>,
}

pub async fn run(target: &str, watched: &Watched, shape: &Shape) -> Result<()> {
    process::raise_open_files();
    let http = Http::new(target)?;
    // Names are taken for good, and a run may be one of several against the same server.
    let run = format!("{:x}", std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis());
    let mut stage = None;
    for scenario in &shape.scenarios {
        if stage.is_none() && !matches!(scenario, Scenario::Raw) {
            stage = Some(set_up(&http, watched, shape, &run).await?);
        }
        match (scenario, &stage) {
            (Scenario::Raw, _) => raw::run(shape, shape.limit().min(Duration::from_secs(3))).await?,
            (_, None) | (Scenario::Setup, _) => {}
            (Scenario::Send, Some(stage)) => send("send", &stage.users, &stage.rooms, watched, shape).await?,
            (Scenario::SendOneRoom, Some(stage)) => {
                send("send-one-room", &stage.users, &stage.rooms[..1], watched, shape).await?;
            }
            (Scenario::SendOneSender, Some(stage)) => {
                send("send-one-sender", &stage.users[..1], &stage.rooms[..1], watched, shape).await?;
            }
            (Scenario::Fanout, Some(_)) => fan_out(&http, watched, shape, &run).await?,
            (Scenario::Idle, Some(stage)) => idle(&http, stage, watched, shape, &run).await?,
        }
    }
    Ok(())
}

/// Registers users a few at a time: a password hash is meant to be slow, and a queue of hundreds only tests patience.
async fn register(http: &Http, count: u64, name: impl Fn(u64) -> String) -> Result<Vec<User>> {
    let mut users = Vec::new();
    for first in (0..count).step_by(4) {
        let names: Vec<String> = (first..count.min(first + 4)).map(&name).collect();
        users.extend(try_join_all(names.iter().map(|name| User::register(http, name))).await?);
    }
    Ok(users)
}

async fn set_up(http: &Http, watched: &Watched, shape: &Shape, run: &str) -> Result<Stage> {
    let running = Running::begin("setup", watched).await;
    let mut times = Times::new();
    let users = register(http, shape.senders, |number| format!("u{number}-{run}")).await?;
    let mut rooms = Vec::new();
    for number in 0..shape.rooms {
        let began = Instant::now();
        let room = users[0].create_room(&format!("Room {number}")).await?;
        times.add(began.elapsed());
        for user in &users[1..] {
            let began = Instant::now();
            user.join(&room).await?;
            times.add(began.elapsed());
        }
        rooms.push(room);
    }
    let ops = shape.senders * shape.rooms;
    running.end(ops, 0, &times, json!({"users": shape.senders, "rooms": shape.rooms})).await;
    Ok(Stage { users, rooms })
}

async fn send(name: &str, users: &[User], rooms: &[String], watched: &Watched, shape: &Shape) -> Result<()> {
    let text = "x".repeat(usize::try_from(shape.bytes)?);
    let run = fastrand::u64(..);
    // Warm connections, warm rooms: what a server does all day.
    for (number, user) in users.iter().enumerate() {
        for (place, room) in rooms.iter().enumerate() {
            user.send(room, &format!("warm-{run:x}-{number}-{place}"), &text).await?.ok()?;
        }
    }
    let running = Running::begin(name, watched).await;
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let one_sender = async |number: usize, user: &User| {
        let (mut times, mut ops, mut errors) = (Times::new(), 0_u64, 0_u64);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= shape.ops || began.elapsed() >= shape.limit() {
                return Ok((times, ops, errors));
            }
            let room = &rooms[(usize::try_from(index)? + number) % rooms.len()];
            let sent = Instant::now();
            match user.send(room, &format!("{run:x}-{index}"), &text).await {
                Ok(reply) if reply.status.is_success() => {
                    times.add(sent.elapsed());
                    ops += 1;
                }
                Ok(_) | Err(_) => {
                    errors += 1;
                    // An error must not make a busy loop.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    };
    let parts: Vec<(Times, u64, u64)> =
        try_join_all(users.iter().enumerate().map(|(number, user)| one_sender(number, user)))
            .await
            .map_err(|error: anyhow::Error| error)?;
    let mut times = Times::new();
    for part in &parts {
        times.merge(&part.0);
    }
    let ops = parts.iter().map(|part| part.1).sum();
    let errors = parts.iter().map(|part| part.2).sum();
    let extra = json!({"senders": users.len(), "rooms": rooms.len(), "bytes": shape.bytes});
    running.end(ops, errors, &times, extra).await;
    Ok(())
}

const QUIET: &str = r#"{"presence":{"types":[]},"account_data":{"types":[]},"room":{"account_data":{"types":[]},"ephemeral":{"types":[]},"state":{"lazy_load_members":true},"timeline":{"limit":100}}}"#;

/// What one member has received.
struct Received {
    times: Times,
    /// (sender, number) in the order of arrival.
    order: Vec<(u64, u64)>,
    polls: u64,
    limited: u64,
}

async fn fan_out(http: &Http, watched: &Watched, shape: &Shape, run: &str) -> Result<()> {
    let senders = register(http, shape.fanout_senders, |number| format!("f{number}-{run}")).await?;
    let members = register(http, shape.members, |number| format!("m{number}-{run}")).await?;
    let room = Arc::new(senders[0].create_room("Fan-out").await?);
    for user in senders[1..].iter().chain(&members) {
        user.join(&room).await?;
    }
    let mut tokens = Vec::new();
    for member in &members {
        tokens.push(text(&member.sync(None, QUIET, Duration::ZERO).await?.ok()?, "next_batch")?);
    }

    let per_sender = shape.messages / shape.fanout_senders;
    let expected = per_sender * shape.fanout_senders;
    let epoch = Instant::now();
    let until = epoch + shape.limit() + Duration::from_secs(10);
    let waiting: Vec<_> = members
        .into_iter()
        .zip(tokens)
        .map(|(member, token)| tokio::spawn(receive(member, token, Arc::clone(&room), expected, epoch, until)))
        .collect();
    // The first polls are to be waiting when the first message comes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let running = Running::begin("fanout", watched).await;
    let filler = "x".repeat(usize::try_from(shape.bytes)?);
    let sent = try_join_all(senders.iter().enumerate().map(|(number, sender)| {
        let (room, filler) = (&room, &filler);
        async move {
            let mut sent = 0_u64;
            for index in 0..per_sender {
                if epoch.elapsed() >= shape.limit() {
                    break;
                }
                let body = format!("{number} {index} {} {filler}", epoch.elapsed().as_micros());
                sender.send(room, &format!("f{index}"), &body).await?.ok()?;
                sent += 1;
                if shape.fanout_pause_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(shape.fanout_pause_ms)).await;
                }
            }
            anyhow::Ok(sent)
        }
    }))
    .await?;
    let sent: u64 = sent.iter().sum();

    let (mut times, mut delivered, mut lost, mut duplicated, mut out_of_order) = (Times::new(), 0, 0, 0, 0);
    let (mut polls, mut limited) = (0, 0);
    let mut first_order: Option<HashMap<(u64, u64), usize>> = None;
    for task in waiting {
        let received = task.await??;
        times.merge(&received.times);
        polls += received.polls;
        limited += received.limited;
        let distinct: HashSet<(u64, u64)> = received.order.iter().copied().collect();
        delivered += distinct.len() as u64;
        duplicated += (received.order.len() - distinct.len()) as u64;
        lost += sent.saturating_sub(distinct.len() as u64);
        // All members have to see the order that the first one saw, and each sender's numbers must rise.
        let mut last = HashMap::new();
        for (sender, number) in &received.order {
            if last.insert(*sender, *number).is_some_and(|before| before > *number) {
                out_of_order += 1;
            }
        }
        let places = first_order
            .get_or_insert_with(|| received.order.iter().enumerate().map(|(place, key)| (*key, place)).collect());
        let mine: Vec<usize> = received.order.iter().filter_map(|key| places.get(key).copied()).collect();
        out_of_order += mine.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
    }
    let extra = json!({
        "members": shape.members, "senders": shape.fanout_senders, "sent": sent, "polls": polls, "limited": limited,
        "lost": lost, "duplicated": duplicated, "out_of_order": out_of_order,
    });
    running.end(delivered, 0, &times, extra).await;
    ensure!(
        lost + duplicated + out_of_order == 0,
        "fan-out: {lost} lost, {duplicated} duplicated, {out_of_order} out of order"
    );
    Ok(())
}

async fn receive(
    member: User,
    mut since: String,
    room: Arc<String>,
    expected: u64,
    epoch: Instant,
    until: Instant,
) -> Result<Received> {
    let mut received = Received { times: Times::new(), order: Vec::new(), polls: 0, limited: 0 };
    let mut distinct = HashSet::new();
    while (distinct.len() as u64) < expected && Instant::now() < until {
        let wait = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(10));
        let reply = member.sync(Some(&since), QUIET, wait).await?;
        let arrived = epoch.elapsed();
        let reply = reply.ok()?;
        received.polls += 1;
        since = text(&reply, "next_batch")?;
        let timeline = &reply["rooms"]["join"][room.as_str()]["timeline"];
        received.limited += u64::from(timeline["limited"] == true);
        for event in timeline["events"].as_array().into_iter().flatten() {
            let mut words = event["content"]["body"].as_str().unwrap_or_default().split(' ').map(str::parse::<u64>);
            if let (Some(Ok(sender)), Some(Ok(number)), Some(Ok(sent))) = (words.next(), words.next(), words.next()) {
                received.times.add(arrived.saturating_sub(Duration::from_micros(sent)));
                received.order.push((sender, number));
                distinct.insert((sender, number));
            }
        }
    }
    Ok(received)
}

async fn idle(http: &Http, stage: &Stage, watched: &Watched, shape: &Shape, run: &str) -> Result<()> {
    let files = process::raise_open_files();
    ensure!(files > shape.idle + 200, "{} idle polls need more than the {files} open files allowed here", shape.idle);
    // The last one to wait shares a room with nobody but the one who will wake it.
    let last = User::register(http, &format!("last-{run}")).await?;
    let room = last.create_room("Wake").await?;
    let waker = &stage.users[0];
    waker.join(&room).await?;
    let mut tokens = Vec::new();
    for user in &stage.users {
        tokens.push(text(&user.sync(None, QUIET, Duration::ZERO).await?.ok()?, "next_batch")?);
    }
    let mut last_token = text(&last.sync(None, QUIET, Duration::ZERO).await?.ok()?, "next_batch")?;

    let before = process::usage(&watched.server).rss_kb;
    let hold = shape.limit() + Duration::from_secs(30);
    // The waker's own syncs would all wake with the event; they wait for the others' sake only.
    let sleepers: Vec<(User, String)> =
        stage.users.iter().cloned().zip(tokens).skip(usize::from(stage.users.len() > 1)).collect();
    let polls: Vec<_> = (0..shape.idle)
        .map(|number| {
            let (user, token) = sleepers[usize::try_from(number).unwrap_or(0) % sleepers.len()].clone();
            tokio::spawn(async move { user.sync(Some(&token), QUIET, hold).await.map(|reply| reply.status) })
        })
        .collect();
    // Connections are made as fast as the server takes them; then it is to be quiet.
    tokio::time::sleep(Duration::from_secs(2 + shape.idle / 1000)).await;

    let running = Running::begin("idle", watched).await;
    let quiet = process::usage(&watched.server);
    let began = Instant::now();
    tokio::time::sleep(shape.limit().min(Duration::from_secs(10))).await;
    let quiet_cpu = (process::usage(&watched.server).cpu_s - quiet.cpu_s) / began.elapsed().as_secs_f64();
    let mut times = Times::new();
    let wakes = 20_u64;
    for number in 0..wakes {
        let (user, token) = (last.clone(), last_token.clone());
        let poll =
            tokio::spawn(
                async move { (user.sync(Some(&token), QUIET, Duration::from_secs(20)).await, Instant::now()) },
            );
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        waker.send(&room, &format!("wake-{number}"), "wake up").await?.ok()?;
        let (reply, woke) = poll.await?;
        last_token = text(&reply?.ok()?, "next_batch")?;
        times.add(woke.duration_since(began));
    }
    let mut ended = 0_u64;
    for poll in &polls {
        ended += u64::from(poll.is_finished());
    }
    let rss = process::usage(&watched.server).rss_kb;
    let extra = json!({
        "idle": shape.idle, "users": sleepers.len(), "ended_early": ended,
        "rss_kb_per_idle": round((rss as f64 - before as f64) / shape.idle as f64),
        "quiet_cpu_percent": round(quiet_cpu * 100.0),
    });
    running.end(wakes, 0, &times, extra).await;
    for poll in &polls {
        poll.abort();
    }
    ensure!(ended == 0, "{ended} of {} idle polls ended before their time", shape.idle);
    Ok(())
}

/// The reply of the bare server and the messages of the bare inserts are as large as the real ones.
pub fn sample_event(bytes: u64) -> Value {
    json!({
        "type": "m.room.message", "sender": "@u0:localhost", "origin_server_ts": 1_700_000_000_000_u64,
        "content": {"msgtype": "m.text", "body": "x".repeat(usize::try_from(bytes).unwrap_or(300))},
    })
}

impl Shape {
    pub fn senders(&self) -> u64 {
        self.senders
    }
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
