//! Random histories of devices and their keys, and a naive model that judges what every sync says of them: whose lists of
//! devices changed, whose need not be followed any more, and which keys are left.
//!
//! Run and told as the histories of rooms are: see `model`.

use std::{collections::BTreeSet, fmt, panic::AssertUnwindSafe, sync::atomic::AtomicU64};

use futures_util::{FutureExt as _, StreamExt as _};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{Pair, device_keys, one_time};
use crate::{
    model::{Failure, Outcome, ensure, failure, said_of_panic, shrink::shrink, wanted},
    sliding::Slider,
    support::{
        Server, each_backend,
        people::{Person, open_server},
    },
};

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dora"];
/// Operations in a history.
const LENGTH: usize = 50;
/// Histories that are tried by each run of the tests.
const HISTORIES: u64 = 50;
const AT_A_TIME: usize = 4;
const ROOMS: usize = 2;

/// One of two devices of somebody.
type Place = (usize, usize);

#[derive(Clone, Copy, Debug)]
enum Op {
    Join {
        who: usize,
        room: usize,
    },
    Leave {
        who: usize,
        room: usize,
    },
    Say {
        who: usize,
        room: usize,
    },
    /// New identity keys.
    Publish(Place),
    Rename(Place),
    /// The second device logs out, and another logs in.
    Renew {
        who: usize,
    },
    Upload {
        of: Place,
        keys: usize,
        fallback: bool,
    },
    Claim {
        by: usize,
        of: Place,
    },
    /// From one of the answers before; from the newest, if that is 0.
    Sync {
        of: Place,
        back: usize,
    },
    Slide(Place),
    /// The last answer got lost.
    Lose(Place),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn history(seed: u64) -> Vec<Op> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ops = Vec::new();
    while ops.len() < LENGTH {
        let who = rng.random_range(0..NAMES.len());
        let of = (who, rng.random_range(0..2));
        let room = rng.random_range(0..ROOMS);
        ops.push(match rng.next_u32() % 24 {
            0..4 => Op::Join { who, room },
            4..6 => Op::Leave { who, room },
            6 => Op::Say { who, room },
            7..9 => Op::Publish(of),
            9 => Op::Rename(of),
            10 => Op::Renew { who },
            11..13 => Op::Upload { of, keys: rng.random_range(0..4), fallback: rng.random_range(0..3) == 0 },
            13..16 => Op::Claim { by: rng.random_range(0..NAMES.len()), of },
            16..20 => Op::Sync { of, back: if rng.random_range(0..3) == 0 { rng.random_range(0..4) } else { 0 } },
            20..23 => Op::Slide(of),
            _ => Op::Lose(of),
        });
    }
    ops
}

type Time = usize;

struct Device {
    person: Person,
    /// It has identity keys.
    published: bool,
    /// One-time keys that are left, the oldest first.
    left: Vec<String>,
    /// Whether there is a fallback key that nobody was given.
    fallback: Option<(String, bool)>,
    uploads: usize,
    /// Tokens, and when they were given.
    tokens: Vec<(String, Time)>,
    /// Positions, of which the last two are known to the server.
    positions: Vec<(String, Time)>,
}

impl Device {
    fn of(person: Person) -> Self {
        Self {
            person,
            published: false,
            left: Vec::new(),
            fallback: None,
            uploads: 0,
            tokens: Vec::new(),
            positions: Vec::new(),
        }
    }
}

struct Run<'a> {
    server: &'a Server,
    rooms: Vec<String>,
    devices: Vec<[Device; 2]>,
    now: Time,
    /// Who joined (or left) which room, in this order.
    memberships: Vec<(Time, usize, usize, bool)>,
    /// Whose devices changed.
    changes: Vec<(Time, usize)>,
}

impl<'a> Run<'a> {
    async fn begin(server: &'a Server) -> Run<'a> {
        static BEGUN: AtomicU64 = AtomicU64::new(0);
        let n = BEGUN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut devices = Vec::new();
        for name in NAMES {
            let first = Person::registers(server, &format!("{name}{n}")).await;
            let second = first.logs_in_on(server).await;
            devices.push([Device::of(first), Device::of(second)]);
        }
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            rooms.push(devices[0][0].person.opens_a_room().await);
        }
        let memberships = (0..ROOMS).map(|room| (0, 0, room, true)).collect();
        Self { server, rooms, devices, now: 0, memberships, changes: Vec::new() }
    }

    async fn play(&mut self, ops: &[Op]) -> Outcome<()> {
        for op in ops {
            self.now += 1;
            self.act(*op).await.map_err(|e| failure(format!("{op}: {e}")))?;
        }
        for who in 0..NAMES.len() {
            for device in 0..2 {
                self.now += 1;
                for op in [Op::Sync { of: (who, device), back: 0 }, Op::Slide((who, device))] {
                    self.act(op).await.map_err(|e| failure(format!("in the end, {op}: {e}")))?;
                }
            }
        }
        Ok(())
    }

    async fn act(&mut self, op: Op) -> Outcome<()> {
        let now = self.now;
        match op {
            Op::Join { who, room } if !self.is_in(who, room, now) => {
                self.person(who).joins(&self.rooms[room]).await;
                self.memberships.push((now, who, room, true));
            }
            Op::Leave { who, room } if self.is_in(who, room, now) => {
                self.person(who).leaves(&self.rooms[room]).await;
                self.memberships.push((now, who, room, false));
            }
            Op::Say { who, room } if self.is_in(who, room, now) => {
                self.person(who).says(&self.rooms[room], "hello").await;
            }
            Op::Publish(of) => {
                let device = &mut self.devices[of.0][of.1];
                let keys = device_keys(&device.person, &Pair::called(&device.person.device));
                device.person.uploads(json!({ "device_keys": keys })).await.ok();
                device.published = true;
                self.changes.push((now, of.0));
            }
            Op::Rename(of) => {
                let device = &self.devices[of.0][of.1];
                let path = format!("/devices/{}", device.person.device);
                device.person.put(&path, json!({ "display_name": format!("Device at {now}") })).await.ok();
                if device.published {
                    self.changes.push((now, of.0));
                }
            }
            Op::Renew { who } => {
                let device = &self.devices[who][1];
                device.person.post("/logout", json!({})).await.ok();
                if device.published {
                    self.changes.push((now, who));
                }
                self.devices[who][1] = Device::of(self.person(who).logs_in_on(self.server).await);
            }
            Op::Upload { of, keys, fallback } => self.upload(of, keys, fallback).await?,
            Op::Claim { by, of } => self.claim(by, of).await?,
            Op::Sync { of, back } => self.sync(of, back).await?,
            Op::Slide(of) => self.slide(of).await?,
            Op::Lose(of) => {
                let device = &mut self.devices[of.0][of.1];
                device.tokens.pop();
                if device.positions.len() > 1 {
                    device.positions.pop();
                }
            }
            Op::Join { .. } | Op::Leave { .. } | Op::Say { .. } => {}
        }
        Ok(())
    }

    fn person(&self, who: usize) -> &Person {
        &self.devices[who][0].person
    }

    async fn upload(&mut self, of: Place, keys: usize, fallback: bool) -> Outcome<()> {
        let device = &mut self.devices[of.0][of.1];
        let mut names: Vec<String> = (0..keys).map(|n| format!("{:04}", device.uploads * 10 + n)).collect();
        device.uploads += 1;
        let listed: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut body = json!({ "one_time_keys": one_time(&device.person, &listed, false) });
        if fallback {
            let name = format!("fallback{}", device.uploads);
            body["fallback_keys"] = one_time(&device.person, &[&name], true);
            device.fallback = Some((name, true));
        }
        let said = device.person.uploads(body).await.ok();
        device.left.append(&mut names);
        let count = said["one_time_key_counts"]["signed_curve25519"].as_u64().unwrap_or_default();
        ensure!(count == device.left.len() as u64, "{} are left: {said}", device.left.len());
        if let Some(first) = device.left.first() {
            let other = one_time(&device.person, &[first], false);
            let again = device.person.uploads(json!({ "one_time_keys": other })).await;
            ensure!(again.status == 400, "a key was put in the place of another: {}", again.text);
        }
        Ok(())
    }

    async fn claim(&mut self, by: usize, of: Place) -> Outcome<()> {
        let got = self.person(by).claims(&self.devices[of.0][of.1].person).await.map(|(name, _)| name);
        let device = &mut self.devices[of.0][of.1];
        let expected = match device.left.is_empty() {
            false => Some(device.left.remove(0)),
            true => device.fallback.as_mut().map(|(name, unused)| {
                *unused = false;
                name.clone()
            }),
        };
        let expected = expected.map(|name| format!("signed_curve25519:{name}"));
        ensure!(got == expected, "{got:?} was given, not {expected:?}");
        Ok(())
    }

    async fn sync(&mut self, of: Place, back: usize) -> Outcome<()> {
        let now = self.now;
        let device = &self.devices[of.0][of.1];
        let from = device.tokens.iter().rev().nth(back.min(device.tokens.len().saturating_sub(1))).cloned();
        let since = from.as_ref().map_or(String::new(), |(token, _)| format!("&since={token}"));
        let page = device.person.sync(&format!("timeout=0{since}")).await;
        self.judge_keys(of, &page["device_one_time_keys_count"], &page["device_unused_fallback_key_types"])
            .and_then(|()| self.judge_lists(of.0, from.map(|(_, time)| time), &page["device_lists"]))
            .map_err(|e| failure(format!("{e}\nin {page}")))?;
        let next = page["next_batch"].as_str().unwrap_or_default().to_owned();
        self.devices[of.0][of.1].tokens.push((next, now));
        Ok(())
    }

    async fn slide(&mut self, of: Place) -> Outcome<()> {
        let now = self.now;
        let device = &self.devices[of.0][of.1];
        let from = device.positions.last().cloned();
        let slider = Slider::named(&device.person, "encryption");
        slider.goes_back_to(from.as_ref().map(|(pos, _)| pos.clone()));
        let page = slider.asks(&json!({ "extensions": { "e2ee": { "enabled": true } } })).await;
        let told = &page["extensions"]["e2ee"];
        self.judge_keys(of, &told["device_one_time_keys_count"], &told["device_unused_fallback_key_types"])
            .and_then(|()| self.judge_lists(of.0, from.as_ref().map(|(_, time)| *time), &told["device_lists"]))
            .map_err(|e| failure(format!("{e}\nin {page}")))?;
        let next = slider.pos().unwrap_or_default();
        let positions = &mut self.devices[of.0][of.1].positions;
        positions.push((next, now));
        if positions.len() > 2 {
            positions.remove(0);
        }
        Ok(())
    }

    fn judge_keys(&self, of: Place, counts: &Value, unused: &Value) -> Outcome<()> {
        let device = &self.devices[of.0][of.1];
        let count = counts["signed_curve25519"].as_u64();
        ensure!(count.unwrap_or_default() == device.left.len() as u64, "{} keys are left", device.left.len());
        let is_unused = device.fallback.as_ref().is_some_and(|(_, unused)| *unused);
        let expected = if is_unused { json!(["signed_curve25519"]) } else { json!([]) };
        ensure!(*unused == expected, "unused fallback keys are {expected}");
        Ok(())
    }

    fn judge_lists(&self, me: usize, since: Option<Time>, lists: &Value) -> Outcome<()> {
        let users = |which: &str| -> BTreeSet<&str> {
            lists[which].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let (changed, left) = (users("changed"), users("left"));
        let Some(since) = since else {
            ensure!(changed.is_empty() && left.is_empty(), "who begins is told of changes");
            return Ok(());
        };
        for (who, name) in NAMES.iter().enumerate() {
            let id = self.person(who).id.as_str();
            let (is_changed, has_left) = (changed.contains(id), left.contains(id));
            ensure!(!is_changed || !has_left, "{name} has changed and left");
            let devices = self.changes.iter().any(|(time, of)| *of == who && *time > since);
            if who == me {
                ensure!(is_changed == devices && !has_left, "of {name}'s own devices, which changed: {devices}");
                continue;
            }
            let shared = |time: Time| (0..ROOMS).any(|room| self.is_in(me, room, time) && self.is_in(who, room, time));
            let always = (since..=self.now).all(shared);
            // They came together in a room, if not for the first time.
            let met = self.memberships.iter().any(|(time, _, room, joins)| {
                *time > since && *joins && self.is_in(me, *room, *time) && self.is_in(who, *room, *time)
            });
            if shared(self.now) {
                ensure!(is_changed || !devices && always, "{name} has changed, and is not told of");
                ensure!(!is_changed || devices || met, "{name} has not changed");
                ensure!(!has_left, "{name} is still there");
            } else {
                ensure!(!is_changed, "{name} shares no room, and is called changed");
                ensure!(has_left || !shared(since), "{name} has left, and is not told of");
                ensure!(!has_left || (since..=self.now).any(shared), "{name} was not there");
            }
        }
        Ok(())
    }

    /// Whether they were in the room when this had happened.
    fn is_in(&self, who: usize, room: usize, at: Time) -> bool {
        let mut theirs = self.memberships.iter().rev().filter(|(time, w, r, _)| *time <= at && (*w, *r) == (who, room));
        theirs.next().is_some_and(|(.., joins)| *joins)
    }
}

async fn play(server: &Server, ops: &[Op]) -> Outcome<()> {
    let mut run = Run::begin(server).await;
    let outcome = AssertUnwindSafe(run.play(ops)).catch_unwind().await;
    outcome.unwrap_or_else(|panic| Err(said_of_panic(&*panic)))
}

async fn try_seed(server: &Server, seed: u64) -> Result<(), String> {
    let ops = history(seed);
    let Err(Failure(why)) = play(server, &ops).await else { return Ok(()) };
    let (ops, why) = shrink(ops, why, |ops| async move { play(server, &ops).await }).await;
    let story: Vec<String> = ops.iter().map(|op| format!("  {op}")).collect();
    Err(format!("seed {seed}:\n{}\nand then: {why}", story.join("\n")))
}

each_backend! {
    async fn everybody_is_told_of_devices_and_of_keys(given: Given) {
        let server = open_server(given).await;
        let (first, count) = wanted(HISTORIES);
        let seeds = futures_util::stream::iter(first..first.saturating_add(count));
        let tried = seeds.map(|seed| try_seed(&server, seed)).buffer_unordered(AT_A_TIME);
        let failed: Vec<String> = tried.filter_map(|tried| async { tried.err() }).take(3).collect().await;
        assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    }
}
