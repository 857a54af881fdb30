//! The load, a file a kind of it. Every loop is bounded in count and in time.

mod crowd;
mod fanout;
mod idle;
mod keys;
mod read;
mod send;
mod sliding;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use self::send::{Sending, send};
use crate::{
    http::Http,
    matrix::User,
    process, raw,
    report::{Metrics, Running, Times, Watched},
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
    /// A first sync of `--reader-rooms` rooms with `--reader-events` events each.
    Initialsync,
    /// A message and the sync that tells it; then syncs with nothing to tell.
    Incremental,
    /// Starts of a sliding sync of the same rooms; then a message and the answer that tells it.
    Sliding,
    /// Starts of a sliding sync of an account with `--many-rooms`.
    SlidingMany,
    /// Pages of 100 of a room's history.
    Messages,
    /// A room that grows to `--crowd` members, with a line at each size.
    Join,
    /// All senders into a room of 1,000 members, then of `--crowd`.
    Bigroom,
    /// All senders into an encrypted room of 10 members, then into one of `--crowd`.
    Encrypted,
    /// `--idle` members of one room wait; one message wakes them all.
    Wakeall,
    /// `--devices` publish keys; then keys of 50 users are asked for, and keys of 10 devices claimed.
    Keys,
    /// Memory of the server as it is found: name it first.
    Fresh,
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
    /// Rooms of the one who reads (initialsync, incremental, sliding).
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    reader_rooms: u64,
    /// Messages in each of them.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100))]
    reader_events: u64,
    /// Rooms of the one who has very many (sliding-many).
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    many_rooms: u64,
    /// First syncs at most.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    reads: u64,
    /// Messages in the room that is paged through.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    history: u64,
    /// Members of the big room.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    crowd: u64,
    /// Members of it that sync while it is sent into.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=5000))]
    watching: u64,
    /// Devices with keys, each of a user of its own.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    devices: u64,
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
    let (mut stage, mut shelf, mut crowd) = (None, None, None);
    for scenario in &shape.scenarios {
        use Scenario as S;
        match scenario {
            S::Setup | S::Send | S::SendOneRoom | S::SendOneSender | S::Idle if stage.is_none() => {
                stage = Some(set_up(&http, watched, shape, &run).await?);
            }
            S::Initialsync | S::Incremental | S::Sliding if shelf.is_none() => {
                shelf = Some(read::set_up(&http, shape, &run).await?);
            }
            S::Join | S::Bigroom | S::Wakeall | S::Encrypted if crowd.is_none() => {
                crowd = Some(crowd::Crowd::new(&http, &run).await?);
            }
            _ => {}
        }
        match scenario {
            S::Raw => raw::run(shape, shape.limit().min(Duration::from_secs(3))).await?,
            S::Fresh => {
                Running::begin("fresh", watched).await.end(0, 0, &Times::new(), json!({})).await;
            }
            S::Fanout => fanout::fan_out(&http, watched, shape, &run).await?,
            S::Keys => keys::keys(&http, watched, shape, &run).await?,
            S::SlidingMany => sliding::many_rooms(&http, watched, shape, &run).await?,
            S::Messages => read::messages(&http, watched, shape, &run).await?,
            S::Setup | S::Send | S::SendOneRoom | S::SendOneSender | S::Idle => {
                let stage = stage.as_ref().context("made above")?;
                let Stage { users, rooms } = stage;
                match scenario {
                    S::Send => {
                        let sending = Sending { name: "send", users, rooms, encrypted: false };
                        send(sending, watched, shape, json!({})).await?;
                    }
                    S::SendOneRoom => {
                        let sending = Sending { name: "send-one-room", users, rooms: &rooms[..1], encrypted: false };
                        send(sending, watched, shape, json!({})).await?;
                    }
                    S::SendOneSender => one_sender(stage, watched, shape).await?,
                    S::Idle => idle::idle(&http, stage, watched, shape, &run).await?,
                    _ => {}
                }
            }
            S::Initialsync => read::initial(shelf.as_ref().context("made above")?, watched, shape).await?,
            S::Incremental => read::incremental(shelf.as_ref().context("made above")?, watched, shape).await?,
            S::Sliding => sliding::sliding(shelf.as_ref().context("made above")?, watched, shape).await?,
            S::Join => crowd::joins(crowd.as_mut().context("made above")?, watched, shape).await?,
            S::Bigroom => crowd::big_room(crowd.as_mut().context("made above")?, watched, shape).await?,
            S::Encrypted => crowd::encrypted(crowd.as_mut().context("made above")?, watched, shape).await?,
            S::Wakeall => crowd::wake_all(crowd.as_mut().context("made above")?, watched, shape).await?,
        }
    }
    Ok(())
}

/// One sender, beside what the disk takes by itself in the same moments: a message can't be faster than that.
async fn one_sender(stage: &Stage, watched: &Watched, shape: &Shape) -> Result<()> {
    let limit = shape.limit().min(Duration::from_secs(1));
    let before = raw::sync_times(&shape.raw_folder, limit)?;
    let extra = json!({"fdatasync_p50_ms": before.at(0.5)});
    let (users, rooms) = (&stage.users[..1], &stage.rooms[..1]);
    send(Sending { name: "send-one-sender", users, rooms, encrypted: false }, watched, shape, extra).await?;
    raw::bare_sync(shape, limit).await
}

/// Registers users a few at a time: with real costs a password hash is slow, and a queue of hundreds only tests patience.
async fn register(http: &Http, count: u64, name: impl Fn(u64) -> String) -> Result<Vec<User>> {
    let mut users = Vec::new();
    for first in (0..count).step_by(16) {
        let names: Vec<String> = (first..count.min(first + 16)).map(&name).collect();
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

const QUIET: &str = r#"{"presence":{"types":[]},"account_data":{"types":[]},"room":{"account_data":{"types":[]},"ephemeral":{"types":[]},"state":{"lazy_load_members":true},"timeline":{"limit":100}}}"#;

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
