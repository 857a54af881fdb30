//! A room of very many: what a join costs as it grows, a message into it, and how long it takes to wake them all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{
    QUIET, Shape, register,
    send::{Sending, send},
};
use crate::{
    http::Http,
    matrix::{User, text},
    process,
    report::{Running, Times, Watched, round},
};

/// Sizes at which a line says what a join cost since the size before.
const STEPS: [usize; 8] = [100, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000];
/// Those who join at the same time.
const AT_ONCE: usize = 4;
/// Members of a room of a few.
const SMALL: usize = 10;

pub(super) struct Crowd {
    http: Http,
    run: String,
    room: String,
    members: Vec<User>,
}

impl Crowd {
    pub(super) async fn new(http: &Http, run: &str) -> Result<Self> {
        let first = User::register(http, &format!("c0-{run}")).await?;
        let room = first.create_room("Crowd").await?;
        Ok(Self { http: http.clone(), run: run.to_owned(), room, members: vec![first] })
    }

    /// Registers those who are missing; joins them once they are all there, which is all that is measured.
    async fn grow(&mut self, size: usize, line: Option<&Watched>) -> Result<()> {
        let before = self.members.len();
        if size <= before {
            return Ok(());
        }
        let new =
            register(&self.http, (size - before) as u64, |number| format!("c{}-{}", before as u64 + number, self.run))
                .await?;
        let running = match line {
            Some(watched) => Some(Running::begin("join", watched).await),
            None => None,
        };
        let next = AtomicU64::new(0);
        let parts = try_join_all((0..AT_ONCE).map(|_| async {
            let mut times = Times::new();
            while let Some(user) = new.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed))?) {
                let began = Instant::now();
                user.join(&self.room).await?;
                times.add(began.elapsed());
            }
            anyhow::Ok(times)
        }))
        .await?;
        let mut times = Times::new();
        for part in &parts {
            times.merge(part);
        }
        if let Some(running) = running {
            let extra = json!({"from_members": before, "to_members": size, "at_once": AT_ONCE});
            running.end(new.len() as u64, 0, &times, extra).await;
        }
        self.members.extend(new);
        Ok(())
    }

    /// Long polls of this many members; they wait when this returns.
    async fn wait(&self, many: usize, hold: Duration, watched: &Watched) -> Result<Vec<JoinHandle<Result<Instant>>>> {
        // A token is a place in the stream: all may begin at the same.
        let token = Arc::new(text(&self.members[0].sync(None, QUIET, Duration::ZERO).await?.ok()?, "next_batch")?);
        let mut polls = Vec::new();
        for some in self.members[self.members.len() - many..].chunks(500) {
            for user in some {
                let (user, token) = (user.clone(), Arc::clone(&token));
                polls.push(tokio::spawn(async move {
                    let reply = user.sync(Some(&token), QUIET, hold).await?;
                    let woke = Instant::now();
                    ensure!(reply.status.is_success(), "{}", reply.text());
                    Ok(woke)
                }));
            }
            quiet(watched).await;
        }
        Ok(polls)
    }
}

/// Until the server has nothing to do, or for ten seconds.
async fn quiet(watched: &Watched) {
    for _ in 0..40 {
        let before = process::usage(&watched.server).cpu_s;
        tokio::time::sleep(Duration::from_millis(250)).await;
        if process::usage(&watched.server).cpu_s - before < 0.02 {
            return;
        }
    }
}

pub(super) async fn joins(crowd: &mut Crowd, watched: &Watched, shape: &Shape) -> Result<()> {
    let size = usize::try_from(shape.crowd)?;
    for step in STEPS.into_iter().filter(|step| *step < size).chain([size]) {
        crowd.grow(step, Some(watched)).await?;
    }
    Ok(())
}

/// Sixteen members send into the room: at a thousand members and at all of them, first with nobody and then with some
/// who wait for it.
pub(super) async fn big_room(crowd: &mut Crowd, watched: &Watched, shape: &Shape) -> Result<()> {
    let size = usize::try_from(shape.crowd)?;
    for step in [1000, size] {
        if step < crowd.members.len() || step > size {
            continue;
        }
        crowd.grow(step, None).await?;
        let senders = usize::try_from(shape.senders)?.min(step);
        let watching = usize::try_from(shape.watching)?.min(step - senders);
        let rooms = std::slice::from_ref(&crowd.room);
        let users = &crowd.members[..senders];
        let extra = json!({"members": step, "syncing": 0});
        send(Sending { name: "bigroom", users, rooms, encrypted: false }, watched, shape, extra).await?;
        if watching > 0 {
            let polls: Vec<_> =
                crowd.members[step - watching..].iter().cloned().map(|u| tokio::spawn(follow(u))).collect();
            quiet(watched).await;
            let extra = json!({"members": step, "syncing": watching});
            send(Sending { name: "bigroom-syncing", users, rooms, encrypted: false }, watched, shape, extra).await?;
            for poll in polls {
                poll.abort();
            }
        }
        if step == size {
            break;
        }
    }
    Ok(())
}

/// The same members send into an encrypted room of their own, and into one of all.
pub(super) async fn encrypted(crowd: &mut Crowd, watched: &Watched, shape: &Shape) -> Result<()> {
    crowd.grow(usize::try_from(shape.crowd)?, None).await?;
    let users = &crowd.members[..SMALL.min(crowd.members.len())];
    let small = users[0].create_room("Few").await?;
    for user in &users[1..] {
        user.join(&small).await?;
    }
    for (room, members) in [(&small, users.len()), (&crowd.room, crowd.members.len())] {
        users[0].encrypt(room).await?;
        let sending = Sending { name: "encrypted", users, rooms: std::slice::from_ref(room), encrypted: true };
        send(sending, watched, shape, json!({"members": members})).await?;
    }
    Ok(())
}

/// Syncs on and on, until it is aborted.
async fn follow(user: User) -> Result<()> {
    let mut since = text(&user.sync(None, QUIET, Duration::ZERO).await?.ok()?, "next_batch")?;
    loop {
        since = text(&user.sync(Some(&since), QUIET, Duration::from_secs(30)).await?.ok()?, "next_batch")?;
    }
}

/// As many members as `--idle` says wait; one message wakes them all. An operation is a member who has been told.
pub(super) async fn wake_all(crowd: &mut Crowd, watched: &Watched, shape: &Shape) -> Result<()> {
    let many = usize::try_from(shape.idle)?;
    let files = process::raise_open_files();
    ensure!(files > shape.idle + 200, "{many} polls need more than the {files} open files allowed here");
    crowd.grow(many + 1, None).await?;
    quiet(watched).await;
    let before = process::usage(&watched.server).rss_kb;
    let polls = crowd.wait(many, shape.limit() + Duration::from_secs(120), watched).await?;
    let waiting = process::usage(&watched.server).rss_kb;
    let early = polls.iter().filter(|poll| poll.is_finished()).count();
    ensure!(early == 0, "{early} of {many} polls ended before their time");

    let running = Running::begin("wakeall", watched).await;
    let mut times = Times::new();
    let began = Instant::now();
    crowd.members[0].send(&crowd.room, "wake-all", "wake up").await?.ok()?;
    for poll in polls {
        times.add(poll.await??.duration_since(began));
    }
    let extra = json!({
        "idle": many, "members": crowd.members.len(),
        "rss_kb_per_idle": round((waiting as f64 - before as f64) / many as f64),
    });
    running.end(many as u64, 0, &times, extra).await;
    Ok(())
}
