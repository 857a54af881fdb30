//! Keys of devices: published, asked for, claimed.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::{Shape, register};
use crate::{
    http::Http,
    matrix::User,
    report::{Running, Times, Watched},
};

/// One-time keys that a device publishes at once, as clients do.
const KEYS: u64 = 50;
/// How often each device does: the server keeps no more of it.
const UPLOADS: u64 = 3;
/// Users whose devices are asked for at once.
const ASKED: u64 = 50;
/// Devices of which one request claims a key each.
const CLAIMED: u64 = 10;

struct Device {
    user: User,
    id: String,
}

/// All of them publish, then `--senders` of them ask and claim. Keys and signatures are of the right shape, no more.
pub(super) async fn keys(http: &Http, watched: &Watched, shape: &Shape, run: &str) -> Result<()> {
    let devices = register(http, shape.devices, |number| format!("k{number}-{run}")).await?;
    let devices = devices.into_iter().map(|user| async {
        let me = user.call(Method::GET, "/_matrix/client/v3/account/whoami", None).await?.ok()?;
        let id = me["device_id"].as_str().context("no device")?.to_owned();
        anyhow::Ok(Device { user, id })
    });
    let mut all = Vec::new();
    for device in devices {
        all.push(device.await?);
    }
    let devices = &all;
    let of = |index: u64| &devices[usize::try_from(index).unwrap_or(0) % devices.len()];

    let uploads = shape.devices * UPLOADS;
    measured("keys-upload", watched, shape, uploads, json!({"keys": KEYS}), |index| async move {
        let device = of(index);
        let body = json!({
            "device_keys": device.keys(),
            "one_time_keys": device.one_time_keys(index / shape.devices * KEYS),
        });
        device.user.call(Method::POST, "/_matrix/client/v3/keys/upload", Some(&body)).await?.ok()?;
        Ok(())
    })
    .await?;

    let users = ASKED.min(shape.devices);
    measured("keys-query", watched, shape, shape.ops, json!({"users": users}), |index| async move {
        let first = fastrand::u64(..shape.devices);
        let asked: Map<String, Value> = (0..users).map(|n| (of(first + n).user.id.clone(), json!([]))).collect();
        let body = json!({ "device_keys": asked });
        let found = of(index).user.call(Method::POST, "/_matrix/client/v3/keys/query", Some(&body)).await?.ok()?;
        let found = found["device_keys"].as_object().context("no keys")?.values();
        let found = found.filter(|devices| devices.as_object().is_some_and(|devices| !devices.is_empty())).count();
        ensure!(found as u64 == users, "{found} users were found");
        Ok(())
    })
    .await?;

    let claimed = CLAIMED.min(shape.devices);
    let claims = shape.ops.min(uploads * KEYS / claimed);
    measured("keys-claim", watched, shape, claims, json!({"devices": claimed}), |index| async move {
        // Round and round, so that all devices have keys as long as one has.
        let wanted = (0..claimed).map(|n| of(index * claimed + n));
        let wanted: Map<String, Value> =
            wanted.map(|d| (d.user.id.clone(), json!({ d.id.as_str(): "signed_curve25519" }))).collect();
        let body = json!({ "one_time_keys": wanted });
        let got = of(index).user.call(Method::POST, "/_matrix/client/v3/keys/claim", Some(&body)).await?.ok()?;
        let got = got["one_time_keys"].as_object().map_or(0, Map::len);
        ensure!(got as u64 == claimed, "{got} keys were given");
        Ok(())
    })
    .await
}

/// `--senders` at once do it `ops` times in all.
async fn measured<F: Future<Output = Result<()>>>(
    name: &str,
    watched: &Watched,
    shape: &Shape,
    ops: u64,
    mut extra: Value,
    one: impl Fn(u64) -> F,
) -> Result<()> {
    let running = Running::begin(name, watched).await;
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let parts = try_join_all((0..shape.senders).map(|_| async {
        let mut times = Times::new();
        let mut done = 0;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= ops || began.elapsed() >= shape.limit() {
                return anyhow::Ok((times, done));
            }
            let sent = Instant::now();
            one(index).await?;
            times.add(sent.elapsed());
            done += 1;
        }
    }))
    .await?;
    let (mut times, mut done) = (Times::new(), 0);
    for (some, count) in &parts {
        times.merge(some);
        done += count;
    }
    extra["at_once"] = shape.senders.into();
    running.end(done, 0, &times, extra).await;
    Ok(())
}

impl Device {
    fn signatures(&self) -> Value {
        json!({ self.user.id.as_str(): { format!("ed25519:{}", self.id): "A".repeat(86) } })
    }

    fn keys(&self) -> Value {
        json!({
            "user_id": self.user.id, "device_id": self.id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { format!("curve25519:{}", self.id): key(1), format!("ed25519:{}", self.id): key(2) },
            "signatures": self.signatures(),
        })
    }

    fn one_time_keys(&self, first: u64) -> Map<String, Value> {
        let one = |number: u64| {
            let name = format!("signed_curve25519:AAAA{number:04}");
            (name, json!({ "key": key(number), "signatures": self.signatures() }))
        };
        (first..first + KEYS).map(one).collect()
    }
}

/// 32 bytes in unpadded base64, others for each number.
fn key(number: u64) -> String {
    format!("{number:042}A")
}
