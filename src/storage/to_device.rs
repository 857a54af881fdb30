//! Messages from device to device. Each waits in the queue of its device until that comes back with the token of the answer
//! that told it.
//!
//! A queue has a bound, since a device may never come back. What is beyond it goes at the old end. A device that has been
//! away so long is most in want of the newest keys; a sender whom it never answered begins the encrypted session with each
//! message anew, so the newest can be read without those before them; and to refuse the newest would let whoever fills a
//! queue keep all others out of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Result, Sql,
    rooms::Transaction,
    tx::{Answer, Engine, Op, Reads, Tx, Value, Wake, args, statements},
};

statements! {
    TAKEN = "SELECT 1 FROM transactions WHERE user_id = $1 AND device_id = $2 AND txn_id = $3 AND scope = $4";
    TAKE = "INSERT INTO transactions (user_id, device_id, txn_id, scope, result, created_ms)
        VALUES ($1, $2, $3, $4, $5, $6)";
    // With what is known of the first and the last message that wait there.
    QUEUES = "SELECT d.user_id, d.device_id,
        (SELECT q.n FROM to_device q WHERE q.user_id = d.user_id AND q.device_id = d.device_id ORDER BY q.pos LIMIT 1),
        (SELECT q.total FROM to_device q WHERE q.user_id = d.user_id AND q.device_id = d.device_id
            ORDER BY q.pos LIMIT 1),
        (SELECT q.n FROM to_device q WHERE q.user_id = d.user_id AND q.device_id = d.device_id
            ORDER BY q.pos DESC LIMIT 1),
        (SELECT q.total FROM to_device q WHERE q.user_id = d.user_id AND q.device_id = d.device_id
            ORDER BY q.pos DESC LIMIT 1)
        FROM devices d WHERE d.user_id = ANY($1) AND (d.device_id = ANY($2) OR d.user_id = ANY($3))
        ORDER BY d.user_id, d.device_id";
    // Up to the first that stays: so of those that stay no more is read.
    TRIM = "DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos < COALESCE((SELECT q.pos FROM to_device q
        WHERE q.user_id = $1 AND q.device_id = $2 AND q.n > $3 AND q.total > $4 ORDER BY q.pos LIMIT 1),
        9223372036854775807)";
    WAITING = "SELECT pos, sender, type, content FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos > $3
        ORDER BY pos LIMIT $4";
    // Who has a token of a time that this database does not know was told by another, before a backup was put back.
    ACKNOWLEDGE = "DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos <= $3
        AND EXISTS (SELECT 1 FROM stream_head WHERE pos >= $4)";
    CLEAN = "DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos IN
        (SELECT pos FROM to_device WHERE user_id = $1 AND device_id = $2 ORDER BY pos LIMIT $3)";
    FORGET = "DELETE FROM to_device WHERE user_id = $1 AND device_id = $2";
    bulk PUT = "to_device" (
        "user_id": Text, "device_id": Text, "pos": Int, "n": Int, "sender": Text, "type": Text, "content": Text,
        "total": Int
    ) "";
}

/// Of a queue that is full, this part goes at once: so that room for it is made now and then, not with each message.
const TRIMMED_PART: i64 = 10;

/// How many messages one sync tells.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>
pub(crate) const MOST_AT_ONCE: u32 = 100;

/// A request to send something to devices.
#[derive(Clone, Debug)]
pub struct Sending {
    /// The sender is its user.
    pub transaction: Transaction,
    pub kind: String,
    pub messages: Vec<Addressed>,
    pub bounds: Bounds,
    pub now_ms: i64,
}

/// A message, and for whom.
#[derive(Clone, Debug)]
pub struct Addressed {
    pub user_id: String,
    /// None: all devices of the user that are not named themselves.
    pub device_id: Option<String>,
    /// JSON.
    pub content: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many messages one request may become,
    pub messages: usize,
    /// and of how many bytes together.
    pub bytes: usize,
    /// How many wait for one device,
    pub waiting: u32,
    /// and of how many bytes together, beside the oldest.
    pub waiting_bytes: u32,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many older messages, which nobody had fetched, were dropped for it.
    Done { dropped: u64 },
    /// The transaction id was used before.
    Again,
    /// More than the bounds allow: nothing was sent.
    TooMuch,
}

/// A message that waits for its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub pos: i64,
    pub sender: String,
    pub kind: String,
    pub content: String,
}

/// The aggregate of messages to devices. What waits is read with a page of a sync.
pub trait ToDevice: Send + Sync {
    /// Puts messages into the queues of those devices that there are.
    fn send_to_device(&self, sending: Sending) -> Answer<'_, Sent>;
    /// The device has its messages up to `told`, by a token of position `token`; how many it had still to fetch.
    fn acknowledge_to_device(&self, user_id: &str, device_id: &str, told: i64, token: i64) -> Answer<'_, u64>;
}

impl<E: Engine> ToDevice for Sql<E> {
    fn send_to_device(&self, sending: Sending) -> Answer<'_, Sent> {
        self.0.write(SendToDevice(sending))
    }

    fn acknowledge_to_device(&self, user_id: &str, device_id: &str, told: i64, token: i64) -> Answer<'_, u64> {
        self.0.write(Acknowledge { user_id: user_id.to_owned(), device_id: device_id.to_owned(), told, token })
    }
}

struct SendToDevice(Sending);

/// A device that is there, and what waits for it.
struct Queue {
    user_id: String,
    device_id: String,
    /// The first and the last message in it.
    ends: Option<(End, End)>,
}

/// Where a message stands in its queue.
#[derive(Clone, Copy)]
struct End {
    n: i64,
    /// The bytes of all up to it.
    total: i64,
}

impl Op for SendToDevice {
    const NAME: &'static str = "send_to_device";
    type Out = Sent;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Sent> {
        let Sending { transaction: t, kind, messages, bounds, now_ms } = &self.0;
        if tx.query_opt(TAKEN, args![&t.user_id, &t.device_id, &t.txn_id, &t.scope]).await?.is_some() {
            return Ok(Sent::Again);
        }
        let queues = queues(tx, messages).await?;
        let by_target: BTreeMap<(&str, Option<&str>), &Arc<str>> =
            messages.iter().map(|m| ((m.user_id.as_str(), m.device_id.as_deref()), &m.content)).collect();
        let found: Vec<(&Queue, &Arc<str>)> = queues
            .iter()
            .filter_map(|queue| {
                let (user, device) = (queue.user_id.as_str(), queue.device_id.as_str());
                let content = by_target.get(&(user, Some(device))).or_else(|| by_target.get(&(user, None)))?;
                Some((queue, *content))
            })
            .collect();
        if found.len() > bounds.messages || found.iter().map(|(_, c)| c.len()).sum::<usize>() > bounds.bytes {
            return Ok(Sent::TooMuch);
        }
        tx.execute(TAKE, args![&t.user_id, &t.device_id, &t.txn_id, &t.scope, &t.result, *now_ms]).await?;
        if found.is_empty() {
            return Ok(Sent::Done { dropped: 0 });
        }
        let (pos, sender, kind) = (tx.next_pos()?, Value::from(&t.user_id), Value::from(kind));
        let mut dropped = 0;
        let mut rows = Vec::with_capacity(found.len());
        for (queue, content) in &found {
            let bytes = i64::try_from(content.len()).unwrap_or(i64::MAX);
            dropped += make_room(tx, queue, bytes, *bounds).await?;
            let last = queue.ends.map_or(End { n: 0, total: 0 }, |(_, last)| last);
            let mut row = args![&queue.user_id, &queue.device_id, pos, last.n + 1].to_vec();
            let total = last.total.saturating_add(bytes);
            row.extend([sender.clone(), kind.clone(), Arc::clone(content).into(), total.into()]);
            rows.push(row);
        }
        tx.insert_rows(PUT, &rows).await?;
        for user in found.iter().map(|(queue, _)| queue.user_id.as_str()).collect::<BTreeSet<_>>() {
            tx.wake(Wake::User(user.into()));
        }
        Ok(Sent::Done { dropped })
    }
}

/// The devices among the targets that there are.
async fn queues<R: Reads>(tx: &mut R, messages: &[Addressed]) -> Result<Vec<Queue>> {
    let (mut users, mut devices, mut wholly) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for message in messages {
        users.insert(message.user_id.clone());
        match &message.device_id {
            Some(device) => devices.insert(device.clone()),
            None => wholly.insert(message.user_id.clone()),
        };
    }
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let list = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
    let mut queues = Vec::new();
    for mut row in tx.query(QUEUES, args![list(users), list(devices), list(wholly)]).await? {
        let ends: [Option<i64>; 4] = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
        let ends = match ends {
            [Some(first), Some(before), Some(last), Some(total)] => {
                Some((End { n: first, total: before }, End { n: last, total }))
            }
            _ => None,
        };
        queues.push(Queue { user_id: row.get(0)?, device_id: row.get(1)?, ends });
    }
    Ok(queues)
}

/// Makes room for one more of so many bytes in a queue that is full; how many had to go.
async fn make_room<T: Tx>(tx: &mut T, queue: &Queue, bytes: i64, bounds: Bounds) -> Result<u64> {
    let Some((first, last)) = queue.ends else { return Ok(0) };
    // Up to where those go that are too many, if any are.
    let too_many = |waiting: i64, end: i64, most: i64| (waiting > most).then(|| end - most + most / TRIMMED_PART);
    let n = too_many(last.n + 2 - first.n, last.n + 1, bounds.waiting.into());
    let end = last.total.saturating_add(bytes);
    let total = too_many(end - first.total, end, bounds.waiting_bytes.into());
    if n.is_none() && total.is_none() {
        return Ok(0);
    }
    let (n, total) = (n.unwrap_or(i64::MIN), total.unwrap_or(i64::MIN));
    tx.execute(TRIM, args![&queue.user_id, &queue.device_id, n, total]).await
}

struct Acknowledge {
    user_id: String,
    device_id: String,
    told: i64,
    token: i64,
}

impl Op for Acknowledge {
    const NAME: &'static str = "acknowledge_to_device";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.execute(ACKNOWLEDGE, args![&self.user_id, &self.device_id, self.told, self.token]).await
    }
}

/// The first messages that wait for a device, of those after a position.
pub(crate) async fn waiting<R: Reads>(
    tx: &mut R,
    user_id: &str,
    device_id: &str,
    after: i64,
    limit: u32,
) -> Result<Vec<Waiting>> {
    let mut waiting = Vec::new();
    for mut row in tx.query(WAITING, args![user_id, device_id, after, i64::from(limit)]).await? {
        waiting.push(Waiting { pos: row.get(0)?, sender: row.get(1)?, kind: row.get(2)?, content: row.get(3)? });
    }
    Ok(waiting)
}

/// A new device has nothing of one that had its id before.
pub(crate) async fn forget<T: Tx>(tx: &mut T, user_id: &str, device_id: &str) -> Result<()> {
    tx.execute(FORGET, args![user_id, device_id]).await.map(drop)
}

/// Removes some of what waits for a device that is gone; how many there were, at most `limit`.
pub(crate) async fn clean<T: Tx>(tx: &mut T, user_id: &str, device_id: &str, limit: i64) -> Result<u64> {
    tx.execute(CLEAN, args![user_id, device_id, limit]).await
}

#[cfg(test)]
mod tests;
