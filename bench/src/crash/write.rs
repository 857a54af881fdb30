//! Senders that write until they are stopped, or until what they write to is gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Attempt, World, marks::Mark, memberships};
use crate::{http::Reply, matrix::text};

/// How a sender takes a request that was not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    /// The server is gone: leave it for the retry after the restart.
    End,
    /// What is under the server is gone: the same transaction id again, until it is taken.
    Again,
}

/// What one sender met in one cycle.
#[derive(Default)]
pub(super) struct Met {
    pub(super) violations: Vec<String>,
    /// The last moment at which an error was answered.
    pub(super) last_error: Option<Instant>,
}

pub(super) struct Writing {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) tasks: Vec<tokio::task::JoinHandle<Result<Met>>>,
}

pub(super) fn write(world: &Arc<World>, cycle: u32, rng: &mut fastrand::Rng, on_error: OnError) -> Writing {
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
    let mut met = Met::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let room = rng.usize(..world.rooms.len());
        let txn = format!("c{cycle}-s{sender}-n{number}");
        let number = u64::from(cycle) * 10_000_000 + number;
        let body = format!("{txn} {}", "word ".repeat(rng.usize(0..60)));
        let mentions = rng.bool().then(|| rng.usize(..world.senders.len()));
        let attempt = Attempt { sender, room, number, txn: txn.clone(), body, mentions, event_id: None };
        let index = world.notes().begin(attempt.clone());
        let Some(reply) = insist(&mut met, &txn, on_error, || world.send(&attempt)).await else {
            return Ok(met);
        };
        let event_id = text(&reply.json()?, "event_id")?;
        world.notes().acknowledge(index, event_id.clone())?;

        // Now and then something that is no event: the last one written is what has to be there.
        let mark = match number % 8 {
            _ if !world.marks => continue,
            0 => Mark::Receipt { sender, room },
            2 => Mark::Membership { sender },
            4 => Mark::AccountData { sender },
            1 | 6 => {
                let write = world.devices.write(&world, (sender, number, &txn), &mut met, on_error);
                if !write.await? {
                    return Ok(met);
                }
                continue;
            }
            3 => {
                let sender = &world.senders[sender];
                if !world.files.write(sender, number, &txn, &mut met, on_error).await? {
                    return Ok(met);
                }
                continue;
            }
            _ => continue,
        };
        let value = match mark {
            Mark::Receipt { .. } => event_id,
            Mark::AccountData { .. } => txn,
            Mark::Membership { .. } => memberships::next(&world, mark).to_owned(),
        };
        world.notes().try_mark(mark, &value);
        if insist(&mut met, &value, on_error, || mark.write(&world, &value)).await.is_none() {
            return Ok(met);
        }
        world.notes().acknowledge_mark(mark, value);
    }
    Ok(met)
}

/// Asks until there is a 200, where that makes sense; nothing if this sender is done.
pub(super) async fn insist<F: Future<Output = Result<Reply>>>(
    met: &mut Met,
    what: &str,
    on_error: OnError,
    ask: impl Fn() -> F,
) -> Option<Reply> {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(reply) if reply.status.is_success() => return Some(reply),
            // A 4xx would make a client give up for good; with a server that is being killed, even a 5xx is a lie.
            Ok(reply) if reply.status.is_client_error() || on_error == OnError::End => {
                met.violations.push(format!("{what}: {} {}", reply.status, reply.text()));
                return None;
            }
            Err(_) if on_error == OnError::End => return None,
            Ok(_) | Err(_) => {
                met.last_error = Some(Instant::now());
                if began.elapsed() > Duration::from_secs(60) {
                    met.violations.push(format!("{what}: nothing but errors for a minute"));
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
