//! Random histories of rooms, and a naive model of the specification that judges what everybody is shown of them.
//!
//! A history is a list of operations that its seed decides. They are done one after another by the services of a server
//! without sockets, many histories at a time on one database; whatever happened is written into a plain list as well. By
//! that list each answer is judged: syncs from tokens of any age, laid one over the other as clients do; pages into the
//! gaps they leave; pages both ways, single events, the state, the members, what belongs to an event, threads, moments and
//! notifications; what is unread, by whatever push rules their reader had. A history that fails is made shorter as long as it fails, and told.
//!
//! `HEARTH_MODEL_HISTORIES` is how many histories are tried on each engine, `HEARTH_MODEL_SEED` the seed of the first.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

mod acts;
mod belonging;
mod client;
mod dice;
mod readers;
pub mod shrink;
mod story;
mod tell;
mod unread;
mod visibility;
mod watch;
mod world;

use std::{
    any::Any,
    collections::BTreeSet,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{FutureExt as _, StreamExt as _};
use hearth::{
    api::Services,
    app::{self, Deps, House, Opened},
    bus::LocalBus,
    config::Config,
};
use hearth_core::{
    clock::{Clock as _, OsRng, TestClock},
    keys::Signer,
};
use hearth_storage::Storage;
use ruma::OwnedUserId;
use serde_json::json;

use crate::support::{Given, each_backend};
use client::{Device, Members};
use story::{DEVICES, NAMES, Op, SAME_LIMIT};
use world::World;

/// Operations in a history.
const LENGTH: usize = 60;
/// Histories that are tried by each run of the tests.
const HISTORIES: u64 = 500;
/// Histories that run side by side, so that a commit of the database holds some of each.
const AT_A_TIME: usize = 8;

/// Why a history fails.
#[derive(Debug)]
pub struct Failure(pub String);

pub type Outcome<T> = Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub fn failure(why: impl fmt::Display) -> Failure {
    Failure(why.to_string())
}

/// The history fails if it isn't so.
macro_rules! ensure {
    ($so:expr, $($why:tt)+) => {
        if !$so {
            return Err($crate::model::failure(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

pub fn said_of_panic(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    failure(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"))
}

/// The database that all histories share.
struct Ground {
    opened: Opened,
    config: Arc<Config>,
    /// Histories that have begun; each has users of its own.
    begun: AtomicU64,
}

/// One history being played.
struct Run<'a> {
    ground: &'a Ground,
    house: House,
    clock: Arc<TestClock>,
    signer: Signer,
    users: Vec<OwnedUserId>,
    devices: Vec<Vec<Device>>,
    world: World,
    /// Who ignored whom at any time.
    ever_ignored: BTreeSet<(OwnedUserId, OwnedUserId)>,
    /// Transaction ids.
    sent: u64,
}

impl Ground {
    async fn new(given: &Given) -> Self {
        let config = Arc::new(given.config());
        let opened = app::open(&config, Arc::new(LocalBus::default())).await.unwrap();
        Self { opened, config, begun: AtomicU64::new(0) }
    }

    async fn house(&self, clock: &Arc<TestClock>) -> House {
        let clock: Arc<TestClock> = Arc::clone(clock);
        let deps = Deps { clock, rng: Arc::new(OsRng) };
        app::build_on(self.opened.clone(), Arc::clone(&self.config), &deps).await.unwrap()
    }

    /// Plays a history to its end, where everybody looks at everything once more.
    async fn play(&self, ops: &[Op]) -> Outcome<()> {
        let mut run = self.begin(&NAMES, devices).await;
        let outcome = AssertUnwindSafe(run.play(ops)).catch_unwind().await;
        run.services().shutdown.say();
        outcome.unwrap_or_else(|panic| Err(said_of_panic(&*panic)))
    }

    /// A history of people of its own, in which nothing has happened yet.
    async fn begin(&self, names: &[&str], devices: impl Fn(&[OwnedUserId]) -> Vec<Vec<Device>>) -> Run<'_> {
        let n = self.begun.fetch_add(1, Ordering::Relaxed);
        let clock = TestClock::at(1_700_000_000_000);
        let user = |name: &&str| OwnedUserId::try_from(format!("@{name}{n}:test.example")).unwrap();
        let users: Vec<OwnedUserId> = names.iter().map(user).collect();
        Run {
            ground: self,
            house: self.house(&clock).await,
            clock,
            signer: Signer::new("test.example".try_into().unwrap(), "elsewhere", &[7; 32]).unwrap(),
            devices: devices(&users),
            users,
            world: World::default(),
            ever_ignored: BTreeSet::new(),
            sent: 0,
        }
    }

    /// Plays the history of a seed. If it fails, how it does, told as shortly as possible.
    async fn try_seed(&self, seed: u64) -> Result<(), String> {
        let ops = dice::history(seed, LENGTH);
        let Err(first) = self.play(&ops).await else { return Ok(()) };
        // Alone now: what others do at the same time is not of the seed.
        let alone = match self.play(&ops).await {
            Ok(()) => return Err(format!("seed {seed} fails, but not alone: {first}")),
            Err(alone) => alone,
        };
        let play = |ops: Vec<Op>| async move { self.play(&ops).await };
        let (ops, why) = shrink::shrink(ops, alone.0, play).await;
        let story: Vec<String> = ops.iter().map(|op| format!("  {op}")).collect();
        Err(format!("seed {seed}:\n{}\nand then: {why}", story.join("\n")))
    }
}

/// All devices of all people: some of them have filters.
fn devices(users: &[OwnedUserId]) -> Vec<Vec<Device>> {
    let filter = |who: usize, device: usize| match (NAMES[who], device) {
        ("bob", 1) => Some(json!({ "types": ["m.room.message", "m.room.topic"] })),
        ("carol", 0) => Some(json!({ "not_senders": [users[0]] })),
        ("carol", 1) => Some(json!({ "not_types": ["m.room.m*"] })),
        _ => None,
    };
    let of = |who: usize| {
        let device = |n: usize| Device {
            name: format!("D{n}"),
            filter: filter(who, n),
            state_after: matches!((NAMES[who], n), ("alice" | "carol", 1) | ("bob", 0 | 2)),
            members: match (NAMES[who], n) {
                ("alice" | "bob", 2) => Members::Needed,
                ("carol", 0) | ("dora", 1) => Members::NeededAgain,
                _ => Members::All,
            },
            threads: matches!((NAMES[who], n), ("alice" | "dora", 1) | ("bob", 0 | 2) | ("carol", 0)),
            ..Device::default()
        };
        // Of whom some want to know only those members who speak.
        let members = if matches!(NAMES[who], "bob" | "carol") { Members::Needed } else { Members::All };
        let slider = Device { name: "S".to_owned(), state_after: true, slides: true, members, ..Device::default() };
        (0..DEVICES[who]).map(device).chain([slider]).collect()
    };
    (0..NAMES.len()).map(of).collect()
}

impl Run<'_> {
    fn services(&self) -> &Services {
        &self.house.services
    }

    fn storage(&self) -> &dyn Storage {
        &*self.ground.opened.storage
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Nothing is in memory any more, and the epoch is another.
    async fn restart(&mut self) -> Outcome<()> {
        let fresh = self.ground.house(&self.clock).await;
        std::mem::replace(&mut self.house, fresh).services.shutdown.say();
        Ok(())
    }

    async fn play(&mut self, ops: &[Op]) -> Outcome<()> {
        for op in ops {
            self.act(*op).await.map_err(|e| failure(format!("{op}: {e}")))?;
        }
        for (who, name) in NAMES.iter().enumerate() {
            self.end_for(who).await.map_err(|e| failure(format!("in the end, {name}: {e}")))?;
        }
        Ok(())
    }

    /// Somebody looks at everything once more, on each of their devices and on a new one.
    async fn end_for(&mut self, who: usize) -> Outcome<()> {
        let last = self.devices[who].len();
        self.devices[who].push(Device { name: "new".to_owned(), threads: true, ..Device::default() });
        for device in 0..=last {
            let limit = match device {
                _ if device == last => 100,
                2 => SAME_LIMIT,
                _ => 10,
            };
            if self.devices[who][device].slides {
                self.slide(who, device, watch::ALL).await?;
            } else {
                self.sync(who, device, limit, false).await?;
            }
            if self.devices[who][device].members == Members::Needed && !self.devices[who][device].slides {
                // Whom an answer told of that got lost, the next one tells of again.
                self.devices[who][device].goes_back(1);
                self.sync(who, device, limit, false).await?;
            }
            for room in 0..self.world.rooms.len() {
                while self.fill_gap(who, device, room, 50).await? {}
            }
            self.has_all(who, device)?;
            self.hears_nothing(who, device).await?;
        }
        self.devices[who].pop();
        for room in 0..self.world.rooms.len() {
            for forward in [false, true] {
                self.page(who, room, forward, 60, None).await?;
            }
            self.look_around(who, room, None).await?;
            self.look_beneath(who, room).await?;
            for back in (who..self.world.rooms[room].events.len()).step_by(9) {
                self.look(who, room, back).await?;
            }
        }
        self.look_back(who).await?;
        Ok(())
    }
}

/// From which seed on, and how many: `usually` so many.
pub fn wanted(usually: u64) -> (u64, u64) {
    let number =
        |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap_or_else(|_| panic!("{name}={v}")));
    (number("HEARTH_MODEL_SEED").unwrap_or(1), number("HEARTH_MODEL_HISTORIES").unwrap_or(usually))
}

each_backend! {
    async fn everybody_is_told_what_happened(given: Given) {
        let ground = Ground::new(given).await;
        let (first, count) = wanted(HISTORIES);
        let seeds = futures_util::stream::iter(first..first.saturating_add(count));
        let tried = seeds.map(|seed| ground.try_seed(seed)).buffer_unordered(AT_A_TIME);
        // The first few tell enough.
        let failed: Vec<String> = tried.filter_map(|tried| async { tried.err() }).take(5).collect().await;
        ground.opened.storage.close().await.unwrap();
        assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    }
}
