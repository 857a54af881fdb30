//! Sliding sync, as a client with a room list asks for it: its start, one change, and the start of an account with very many
//! rooms.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use hyper::Method;
use serde_json::{Value, json};

use super::{Shape, read::Shelf, register};
use crate::{
    matrix::{User, segment, text},
    report::{Running, Times, Watched},
};

/// Rooms at a time while they are made.
const AT_ONCE: usize = 8;
/// Rooms that a client's screen shows.
const SCREEN: u64 = 20;

/// What a room list wants of its rooms.
fn wish(rooms: u64, events: u64) -> Value {
    let mut state: Vec<Value> = ["m.room.name", "m.room.encryption", "m.room.avatar", "m.room.topic", "m.room.create"]
        .into_iter()
        .chain(["m.room.canonical_alias", "m.room.power_levels", "m.room.tombstone", "m.room.join_rules"])
        .map(|kind| json!([kind, ""]))
        .collect();
    state.extend([json!(["m.room.member", "$LAZY"]), json!(["m.room.member", "$ME"])]);
    let on = json!({"enabled": true});
    json!({
        "conn_id": "room-list",
        "lists": {"all": {"ranges": [[0, rooms - 1]], "timeline_limit": events, "required_state": state}},
        "extensions": {"account_data": on, "receipts": on, "typing": on},
    })
}

async fn slide(user: &User, pos: Option<&str>, wish: &Value) -> Result<(Value, Duration, usize)> {
    let mut path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0".to_owned();
    if let Some(pos) = pos {
        path.push_str("&pos=");
        path.push_str(&segment(pos));
    }
    let asked = Instant::now();
    let reply = user.call(Method::POST, &path, Some(wish)).await?;
    let (took, bytes) = (asked.elapsed(), reply.body.len());
    Ok((reply.ok()?, took, bytes))
}

fn shown(reply: &Value) -> usize {
    reply["rooms"].as_object().map_or(0, serde_json::Map::len)
}

/// A connection begins, again and again; then a message in a room that is looked at, and the answer that tells it.
pub(super) async fn sliding(shelf: &Shelf, watched: &Watched, shape: &Shape) -> Result<()> {
    let Shelf { reader, rooms, .. } = shelf;
    for events in [1, shape.reader_events] {
        starts(reader, rooms.len() as u64, events, watched, shape).await?;
    }

    let wish = wish(rooms.len() as u64, shape.reader_events);
    let follow = async || text(&slide(reader, None, &wish).await?.0, "pos");
    let told = async |room: &str, pos: &str| {
        let (reply, took, _) = slide(reader, Some(pos), &wish).await?;
        let told = reply["rooms"][room]["timeline"].as_array().map_or(0, Vec::len);
        ensure!(told == 1, "{told} events were told of one");
        Ok((took, text(&reply, "pos")?))
    };
    shelf.message_and_answer("sliding-change", watched, shape, follow, told).await?;
    Ok(())
}

async fn starts(reader: &User, rooms: u64, events: u64, watched: &Watched, shape: &Shape) -> Result<()> {
    let wish = wish(rooms, events);
    let running = Running::begin("sliding-start", watched).await;
    let (mut times, mut ops, mut bytes, began) = (Times::new(), 0, 0, Instant::now());
    while ops < shape.reads && began.elapsed() < shape.limit() {
        let (reply, took, size) = slide(reader, None, &wish).await?;
        times.add(took);
        ensure!(shown(&reply) as u64 == rooms, "{} rooms were told of {rooms}", shown(&reply));
        bytes = size;
        ops += 1;
    }
    running.end(ops, 0, &times, json!({"rooms": rooms, "events": events, "reply_bytes": bytes})).await;
    Ok(())
}

/// An account with very many rooms: the first screen of its list, by a server that knows the account and by one that does
/// not; then all of it, and a change.
pub(super) async fn many_rooms(http: &crate::http::Http, watched: &Watched, shape: &Shape, run: &str) -> Result<()> {
    let mut users = register(http, 2, |number| format!("m{number}-{run}")).await?;
    let (reader, writer) = (users.remove(0), users.remove(0));
    let numbers: Vec<u64> = (0..shape.many_rooms).collect();
    let mut rooms = Vec::new();
    for some in numbers.chunks(AT_ONCE) {
        let (reader, writer) = (&reader, &writer);
        let made = some.iter().map(|number| async move {
            let room = writer.create_room(&format!("Room {number}")).await?;
            reader.join(&room).await?;
            writer.send(&room, "hello", "hello").await?.ok()?;
            anyhow::Ok(room)
        });
        rooms.extend(try_join_all(made).await?);
    }
    let (count, all) = (rooms.len(), rooms.len() as u64);
    for (name, range, most) in [
        // Nobody has asked for this account yet.
        ("sliding-many-first", SCREEN.min(all), 1),
        ("sliding-many-start", SCREEN.min(all), shape.reads),
        ("sliding-many-all", all, shape.reads.min(20)),
    ] {
        let wish = wish(range, 1);
        let running = Running::begin(name, watched).await;
        let (mut times, mut ops, mut bytes, began) = (Times::new(), 0, 0, Instant::now());
        while ops < most && began.elapsed() < shape.limit() {
            let (reply, took, size) = slide(&reader, None, &wish).await?;
            times.add(took);
            ensure!(shown(&reply) as u64 == range, "{} rooms were told of {range}", shown(&reply));
            let counted = reply["lists"]["all"]["count"].as_u64().context("no count")?;
            ensure!(counted == all, "{counted} rooms were counted of {count}");
            bytes = size;
            ops += 1;
        }
        running.end(ops, 0, &times, json!({"rooms": count, "shown": range, "reply_bytes": bytes})).await;
    }
    Ok(())
}
