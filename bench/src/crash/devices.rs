//! What is for a device: each message comes once and in the order of its sender, and each one-time key is given once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::{
    World,
    write::{Met, OnError, insist},
};
use crate::{
    http::{Http, Reply},
    matrix::{User, segment, text},
};

/// As many keys are there at the beginning of a cycle.
const KEYS: u64 = 150;
const NO_ROOMS: &str = r#"{"presence":{"types":[]},"room":{"rooms":[]}}"#;

/// A device that senders write to, and take keys of.
pub(super) struct Devices {
    keeper: User,
    device: String,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    since: Option<String>,
    /// Messages that may still come, by their transaction, and whether they have to.
    messages: HashMap<String, bool>,
    came: usize,
    uploaded: u64,
    left: u64,
    /// Claims without an answer, each of which may have taken a key.
    unanswered: u64,
    given: Vec<String>,
}

impl Devices {
    pub(super) async fn new(http: &Http) -> Result<Self> {
        let keeper = User::register(http, "keeper").await?;
        let me = keeper.call(Method::GET, "/_matrix/client/v3/account/whoami", None).await?.ok()?;
        Ok(Self { device: text(&me, "device_id")?, keeper, notes: Mutex::default() })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no sender panics while it holds the notes")
    }

    /// Fills up what is there to be claimed.
    pub(super) async fn publish(&self, cycle: u32) -> Result<()> {
        let missing = KEYS.saturating_sub(self.notes().left);
        let signatures = json!({ &self.keeper.id: { format!("ed25519:{}", self.device): "A".repeat(86) } });
        let key = |n| {
            let key = json!({ "key": format!("{:042}A", u64::from(cycle) * KEYS + n), "signatures": signatures });
            (format!("signed_curve25519:C{cycle}N{n:03}"), key)
        };
        let keys: Map<String, Value> = (0..missing).map(key).collect();
        let body = json!({ "one_time_keys": keys });
        self.keeper.call(Method::POST, "/_matrix/client/v3/keys/upload", Some(&body)).await?.ok()?;
        self.notes().uploaded += missing;
        Ok(())
    }

    async fn send(&self, from: &User, txn: &str, number: u64) -> Result<Reply> {
        let path = format!("/_matrix/client/v3/sendToDevice/org.example.bench/{}", segment(txn));
        let body = json!({ "messages": { &self.keeper.id: { &self.device: { "txn": txn, "number": number } } } });
        from.call(Method::PUT, &path, Some(&body)).await
    }

    async fn claim(&self, by: &User) -> Result<Reply> {
        self.notes().unanswered += 1;
        let body = json!({ "one_time_keys": { &self.keeper.id: { &self.device: "signed_curve25519" } } });
        by.call(Method::POST, "/_matrix/client/v3/keys/claim", Some(&body)).await
    }

    /// A message of a sender (with an even number) or a claim (with an odd one); false if the sender is done.
    pub(super) async fn write(
        &self,
        world: &World,
        (sender, number, txn): (usize, u64, &str),
        met: &mut Met,
        on_error: OnError,
    ) -> Result<bool> {
        let sender = &world.senders[sender];
        if number.is_multiple_of(2) {
            self.notes().messages.insert(txn.to_owned(), false);
            if insist(met, txn, on_error, || self.send(sender, txn, number)).await.is_none() {
                return Ok(false);
            }
            self.notes().messages.insert(txn.to_owned(), true);
            return Ok(true);
        }
        let Some(reply) = insist(met, "a claim", on_error, || self.claim(sender)).await else { return Ok(false) };
        self.notes().unanswered -= 1;
        let keys = reply.json()?["one_time_keys"][&self.keeper.id][&self.device].take();
        self.notes().given.extend(keys.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        Ok(true)
    }

    /// How many messages came, and how many keys were given.
    pub(super) fn totals(&self) -> (usize, usize) {
        let notes = self.notes();
        (notes.came, notes.given.len())
    }

    /// Fetches what came, and looks at what is left.
    pub(super) async fn compare(&self) -> Result<Vec<String>> {
        let (mut came, mut since) = (Vec::new(), self.notes().since.clone());
        let left = loop {
            let page = self.keeper.sync(since.as_deref(), NO_ROOMS, Duration::ZERO).await?.ok()?;
            since = Some(text(&page, "next_batch")?);
            let events = page["to_device"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            for event in events {
                let number = event["content"]["number"].as_u64().context("no number")?;
                came.push((text(event, "sender")?, text(&event["content"], "txn")?, number));
            }
            if events.is_empty() {
                break page["device_one_time_keys_count"]["signed_curve25519"].as_u64().context("no count of keys")?;
            }
        };
        let mut notes = self.notes();
        (notes.since, notes.left) = (since, left);
        notes.came += came.len();
        Ok(notes.judge(&came))
    }
}

impl Notes {
    fn judge(&mut self, came: &[(String, String, u64)]) -> Vec<String> {
        let mut violations = Vec::new();
        let mut last = HashMap::new();
        for (sender, txn, number) in came {
            if self.messages.remove(txn).is_none() {
                violations.push(format!("message {txn} came twice, or nobody sent it"));
            }
            if last.insert(sender, number).is_some_and(|before| before > number) {
                violations.push(format!("message {txn} comes after a later one of its sender"));
            }
        }
        // What was not acknowledged and is not there has to stay away.
        let lost = self.messages.drain().filter(|(_, acknowledged)| *acknowledged);
        violations.extend(lost.map(|(txn, _)| format!("message {txn} was acknowledged and is lost")));
        let names: HashSet<&String> = self.given.iter().collect();
        if names.len() < self.given.len() {
            violations.push(format!("{} keys were given, of {} names", self.given.len(), names.len()));
        }
        let given = self.uploaded - self.left.min(self.uploaded);
        let known = self.given.len() as u64;
        if !(known..=known + self.unanswered).contains(&given) {
            let unanswered = self.unanswered;
            violations.push(format!("{given} keys are gone; {known} were given, {unanswered} claims have no answer"));
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Notes {
        let messages = [("a".to_owned(), true), ("b".to_owned(), true), ("c".to_owned(), false)];
        Notes {
            messages: messages.into(),
            uploaded: 10,
            left: 7,
            unanswered: 2,
            given: vec!["x".to_owned(), "y".to_owned()],
            ..Notes::default()
        }
    }

    #[test]
    fn what_is_lost_doubled_or_given_twice_is_seen() {
        let of = |txns: &[&str]| -> Vec<(String, String, u64)> {
            let number = |txn: &str| u64::from(txn.as_bytes()[0]);
            txns.iter().map(|txn| ("sender".to_owned(), (*txn).to_owned(), number(txn))).collect()
        };
        for right in [&["a", "b"][..], &["a", "b", "c"]] {
            assert_eq!(notes().judge(&of(right)), [""; 0], "{right:?}");
        }
        for wrong in [&["a"][..], &["b", "a"], &["a", "b", "b"], &["a", "b", "z"]] {
            assert_eq!(notes().judge(&of(wrong)).len(), 1, "{wrong:?}");
        }
        let mut doubled = notes();
        doubled.given[1] = "x".to_owned();
        assert_eq!(doubled.judge(&of(&["a", "b"])).len(), 1);
        for left in [5, 9] {
            let mut miscounted = notes();
            miscounted.left = left;
            assert_eq!(miscounted.judge(&of(&["a", "b"])).len(), 1, "{left}");
        }
    }
}
