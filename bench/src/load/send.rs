//! Messages, as many as go in.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::Shape;
use crate::{
    matrix::User,
    report::{Running, Times, Watched},
};

/// Who sends what, and where.
pub(super) struct Sending<'a> {
    pub(super) name: &'a str,
    pub(super) users: &'a [User],
    pub(super) rooms: &'a [String],
    /// As clients send it who have encrypted it.
    pub(super) encrypted: bool,
}

pub(super) async fn send(sending: Sending<'_>, watched: &Watched, shape: &Shape, extra: Value) -> Result<()> {
    let Sending { name, users, rooms, encrypted } = sending;
    let text = "x".repeat(usize::try_from(shape.bytes)?);
    let (kind, content) = match encrypted {
        false => ("m.room.message", json!({"msgtype": "m.text", "body": text})),
        true => ("m.room.encrypted", sealed(&text)),
    };
    let (kind, content) = (&kind, &content);
    let run = fastrand::u64(..);
    // Warm connections, warm rooms: what a server does all day.
    for (number, user) in users.iter().enumerate() {
        for (place, room) in rooms.iter().enumerate() {
            user.send_event(room, kind, &format!("warm-{run:x}-{number}-{place}"), content).await?.ok()?;
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
            match user.send_event(room, kind, &format!("{run:x}-{index}"), content).await {
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
    let mut said = json!({"senders": users.len(), "rooms": rooms.len(), "bytes": shape.bytes});
    if let (Value::Object(said), Value::Object(extra)) = (&mut said, extra) {
        said.extend(extra);
    }
    running.end(ops, errors, &times, said).await;
    Ok(())
}

/// Of the right shape: nobody here has the key.
fn sealed(text: &str) -> Value {
    json!({
        "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": text, "device_id": "BENCH",
        "sender_key": "A".repeat(43), "session_id": "B".repeat(43),
    })
}
