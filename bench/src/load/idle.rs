//! Syncs that wait for nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{QUIET, Shape, Stage};
use crate::{
    http::Http,
    matrix::{User, text},
    process,
    report::{Running, Times, Watched, round},
};

pub(super) async fn idle(http: &Http, stage: &Stage, watched: &Watched, shape: &Shape, run: &str) -> Result<()> {
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
