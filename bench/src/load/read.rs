//! What one who reads asks for: a first sync, the sync after a message, a sync with no news, pages of history.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use hyper::Method;
use serde_json::{Value, json};

use super::{Shape, register};
use crate::{
    http::Http,
    matrix::{User, segment, text},
    report::{Running, Times, Watched, round},
};

/// Rooms at a time while things are made ready.
const AT_ONCE: usize = 8;
/// Events of a page of history.
const PAGE: usize = 100;

/// One who reads, one who writes, the rooms they share.
pub(super) struct Shelf {
    pub(super) reader: User,
    pub(super) writer: User,
    pub(super) rooms: Vec<String>,
}

pub(super) async fn set_up(http: &Http, shape: &Shape, run: &str) -> Result<Shelf> {
    let mut users = register(http, 2, |number| format!("r{number}-{run}")).await?;
    let (reader, writer) = (users.remove(0), users.remove(0));
    let numbers: Vec<u64> = (0..shape.reader_rooms).collect();
    let mut rooms = Vec::new();
    for some in numbers.chunks(AT_ONCE) {
        let made = try_join_all(some.iter().map(|number| {
            let (reader, writer) = (&reader, &writer);
            async move {
                let room = writer.create_room(&format!("Room {number}")).await?;
                reader.join(&room).await?;
                for index in 0..shape.reader_events {
                    let words = format!("{index} {}", "x".repeat(usize::try_from(shape.bytes)?));
                    writer.send(&room, &format!("r{index}"), &words).await?.ok()?;
                }
                anyhow::Ok(room)
            }
        }));
        rooms.extend(made.await?);
    }
    Ok(Shelf { reader, writer, rooms })
}

/// A first sync, again and again.
pub(super) async fn initial(shelf: &Shelf, watched: &Watched, shape: &Shape) -> Result<()> {
    let filter = json!({"room": {"timeline": {"limit": shape.reader_events}}}).to_string();
    let running = Running::begin("initialsync", watched).await;
    let (mut times, began, mut bytes, mut ops) = (Times::new(), Instant::now(), 0, 0);
    while ops < shape.reads && began.elapsed() < shape.limit() {
        let asked = Instant::now();
        let reply = shelf.reader.sync(None, &filter, Duration::ZERO).await?;
        times.add(asked.elapsed());
        bytes = reply.body.len();
        if ops == 0 {
            let reply = reply.ok()?;
            let joined = reply["rooms"]["join"].as_object().context("no rooms")?;
            let events = |room: &Value| room["timeline"]["events"].as_array().map_or(0, Vec::len) as u64;
            ensure!(joined.len() as u64 == shape.reader_rooms, "{} rooms were told", joined.len());
            ensure!(joined.values().all(|room| events(room) == shape.reader_events), "a timeline was cut");
        } else {
            ensure!(reply.status.is_success(), "{}", reply.text());
        }
        ops += 1;
    }
    let extra = json!({"rooms": shape.reader_rooms, "events": shape.reader_events, "reply_bytes": bytes});
    running.end(ops, 0, &times, extra).await;
    Ok(())
}

impl Shelf {
    /// Again and again a message, and the answer that tells it: `follow` gives a token of now, `told` reads on from a token,
    /// and says how long that took. What messages cost by themselves is measured first, and taken off.
    pub(super) async fn message_and_answer(
        &self,
        name: &str,
        watched: &Watched,
        shape: &Shape,
        follow: impl AsyncFnOnce() -> Result<String>,
        told: impl AsyncFn(&str, &str) -> Result<(Duration, String)>,
    ) -> Result<String> {
        let Self { writer, rooms, .. } = self;
        let words = "x".repeat(usize::try_from(shape.bytes)?);
        let run = fastrand::u64(..);
        let message = async |kind: &str, index: u64| {
            let room = &rooms[usize::try_from(index)? % rooms.len()];
            writer.send(room, &format!("{kind}-{run:x}-{index}"), &words).await?.ok()?;
            anyhow::Ok(room)
        };
        let (before, began, mut sends) = (watched.cpu_s(), Instant::now(), 0);
        while sends < shape.ops && began.elapsed() < shape.limit() {
            message("send", sends).await?;
            sends += 1;
        }
        let send_ms = (watched.cpu_s() - before) * 1000.0 / sends as f64;

        let mut token = follow().await?;
        let running = Running::begin(name, watched).await;
        let (mut times, mut ops, began, before) = (Times::new(), 0, Instant::now(), watched.cpu_s());
        while ops < shape.ops && began.elapsed() < shape.limit() {
            let room = message("told", ops).await?;
            let (took, next) = told(room, &token).await?;
            times.add(took);
            token = next;
            ops += 1;
        }
        let pair_ms = (watched.cpu_s() - before) * 1000.0 / ops as f64;
        let extra = json!({
            "rooms": rooms.len(), "send_cpu_ms": round(send_ms), "sync_cpu_ms": round(pair_ms - send_ms),
        });
        running.end(ops, 0, &times, extra).await;
        Ok(token)
    }
}

/// A message in a room that is followed, then the sync that tells it; and a sync that has nothing to tell.
pub(super) async fn incremental(shelf: &Shelf, watched: &Watched, shape: &Shape) -> Result<()> {
    let Shelf { reader, rooms, .. } = shelf;
    let follow = async || text(&reader.sync(None, "{}", Duration::ZERO).await?.ok()?, "next_batch");
    let told = async |room: &str, since: &str| {
        let asked = Instant::now();
        let reply = reader.sync(Some(since), "{}", Duration::ZERO).await?;
        let took = asked.elapsed();
        let reply = reply.ok()?;
        let told = reply["rooms"]["join"][room]["timeline"]["events"].as_array().map_or(0, Vec::len);
        ensure!(told == 1, "{told} events were told of one");
        Ok((took, text(&reply, "next_batch")?))
    };
    let since = shelf.message_and_answer("incremental", watched, shape, follow, told).await?;

    let running = Running::begin("empty", watched).await;
    let (mut times, mut ops, began) = (Times::new(), 0, Instant::now());
    while ops < shape.ops && began.elapsed() < shape.limit() {
        let asked = Instant::now();
        let reply = reader.sync(Some(&since), "{}", Duration::ZERO).await?;
        times.add(asked.elapsed());
        ensure!(reply.status.is_success(), "{}", reply.text());
        ops += 1;
    }
    running.end(ops, 0, &times, json!({"rooms": rooms.len()})).await;
    Ok(())
}

/// Full pages from the end of a long room to its beginning, over and over: first as they were never read, then again.
pub(super) async fn messages(http: &Http, watched: &Watched, shape: &Shape, run: &str) -> Result<()> {
    let users = register(http, 16, |number| format!("h{number}-{run}")).await?;
    let room = users[0].create_room("History").await?;
    for user in &users[1..] {
        user.join(&room).await?;
    }
    let words = "x".repeat(usize::try_from(shape.bytes)?);
    let each = shape.history.div_ceil(users.len() as u64);
    try_join_all(users.iter().map(|user| {
        let (room, words) = (&room, &words);
        async move {
            for index in 0..each {
                user.send(room, &format!("h{index}"), words).await?.ok()?;
            }
            anyhow::Ok(())
        }
    }))
    .await?;
    for (name, rounds) in [("messages", 1), ("messages-again", u64::MAX)] {
        let running = Running::begin(name, watched).await;
        let (mut times, mut ops, began, mut from, mut bytes, mut round) = (Times::new(), 0, Instant::now(), None, 0, 0);
        while ops < shape.ops && round < rounds && began.elapsed() < shape.limit() {
            let mut path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit={PAGE}", segment(&room));
            if let Some(from) = &from {
                path.push_str(&format!("&from={from}"));
            }
            let asked = Instant::now();
            let reply = users[0].call(Method::GET, &path, None).await?;
            let took = asked.elapsed();
            bytes = bytes.max(reply.body.len());
            let reply = reply.ok()?;
            if reply["chunk"].as_array().map_or(0, Vec::len) == PAGE {
                times.add(took);
                ops += 1;
            }
            from = reply["end"].as_str().map(segment);
            round += u64::from(from.is_none());
        }
        running.end(ops, 0, &times, json!({"page": PAGE, "history": shape.history, "reply_bytes": bytes})).await;
    }
    Ok(())
}
