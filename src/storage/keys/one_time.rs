//! Keys that are given out: one-time keys once each, in the order of their uploads, and a fallback key to whoever comes
//! when there are none left. How far they were given is written down for each device. The newest that were given stay, for
//! a client may upload again what it does not know to have arrived: that is no key to be given once more.
//!
//! Whatever changes their number takes a position, so one such operation follows on another across all processes: what
//! is read within is so until it is written. The user's syncs are woken, as they tell how many are left.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::e2ee::OneTimeKey;

use super::{KeyUpload, Uploaded};
use crate::{
    Result,
    tx::{Op, Reads, Tx, Value, Wake, args, statements},
};

statements! {
    OF_DEVICE = "SELECT key_sn, algorithm, fallback, key_id, json FROM one_time_keys
        WHERE user_id = $1 AND device_id = $2 ORDER BY key_sn DESC";
    GIVEN = "SELECT algorithm, given FROM key_counts WHERE user_id = $1 AND device_id = $2";
    // And where that last changed.
    COUNTS = "SELECT k.algorithm, k.fallback, COUNT(*) FROM one_time_keys k WHERE k.user_id = $1 AND k.device_id = $2
                AND (k.fallback > 0 OR k.key_sn > COALESCE((
                    SELECT c.given FROM key_counts c
                    WHERE c.user_id = $1 AND c.device_id = $2 AND c.algorithm = k.algorithm
                ), 0))
            GROUP BY k.algorithm, k.fallback
        UNION ALL SELECT '', -1, MAX(c.pos) FROM key_counts c WHERE c.user_id = $1 AND c.device_id = $2
            HAVING MAX(c.pos) IS NOT NULL";
    // The first that was not given out, and the fallback key.
    LEFT = "SELECT k.key_sn, k.fallback, k.key_id, k.json FROM one_time_keys k WHERE k.key_sn = (
                SELECT MIN(n.key_sn) FROM one_time_keys n
                WHERE n.user_id = $1 AND n.device_id = $2 AND n.algorithm = $3 AND n.fallback = 0
                    AND n.key_sn > COALESCE((
                        SELECT c.given FROM key_counts c
                        WHERE c.user_id = $1 AND c.device_id = $2 AND c.algorithm = $3
                    ), 0))
        UNION ALL SELECT k.key_sn, k.fallback, k.key_id, k.json FROM one_time_keys k
            WHERE k.user_id = $1 AND k.device_id = $2 AND k.algorithm = $3 AND k.fallback > 0";
    REMOVE = "DELETE FROM one_time_keys WHERE key_sn = ANY($1)";
    MARK_USED = "UPDATE one_time_keys SET fallback = 2 WHERE key_sn = ANY($1)";
    FORGET = "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = ANY($2)";
    FORGET_COUNTS = "DELETE FROM key_counts WHERE user_id = $1 AND device_id = ANY($2)";
    bulk ADD = "one_time_keys" (
        "key_sn": Int, "user_id": Text, "device_id": Text, "algorithm": Text, "fallback": Int, "key_id": Text, "json": Text
    ) "";
    bulk CHANGED = "key_counts" ("user_id": Text, "device_id": Text, "algorithm": Text, "pos": Int, "given": Int)
        "ON CONFLICT (user_id, device_id, algorithm) DO UPDATE SET pos = excluded.pos,
            given = CASE WHEN excluded.given > key_counts.given THEN excluded.given ELSE key_counts.given END";
}

/// What `one_time_keys.fallback` says.
const ONCE: i64 = 0;
const UNUSED: i64 = 1;

/// Keys that were given and stay, of a device: more than clients upload at once.
const REMEMBERED: usize = 100;

/// Numbers that an upload has for its keys: more than it may have keys.
const NUMBERS: i64 = 1 << 10;

/// What a device has left to be given out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// One-time keys by algorithm.
    pub one_time: BTreeMap<String, i64>,
    /// The algorithms of fallback keys that nobody was given yet.
    pub unused_fallbacks: BTreeSet<String>,
}

/// A key that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub user_id: String,
    pub device_id: String,
    pub algorithm: String,
}

/// A key that they got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub of: Claim,
    pub key_id: String,
    pub json: String,
}

/// What of an upload is new.
pub(super) struct Uploading<'a> {
    new: Vec<&'a OneTimeKey>,
    fallbacks: Vec<&'a OneTimeKey>,
    /// Fallback keys in whose place others come, and one-time keys that were given out long ago.
    gone: Vec<i64>,
    pub(super) counts: KeyCounts,
}

impl<'a> Uploading<'a> {
    pub(super) async fn look<R: Reads>(tx: &mut R, upload: &'a KeyUpload) -> Result<Result<Self, Uploaded>> {
        let (mut once, mut fallbacks) = (BTreeMap::new(), BTreeMap::new());
        let (mut counts, mut gone, mut remembered) = (KeyCounts::default(), Vec::new(), 0);
        let mut left = 0;
        let mut given = BTreeMap::<String, i64>::new();
        for mut row in tx.query(GIVEN, args![&upload.user_id, &upload.device_id]).await? {
            given.insert(row.get(0)?, row.get(1)?);
        }
        for mut row in tx.query(OF_DEVICE, args![&upload.user_id, &upload.device_id]).await? {
            let (sn, algorithm, fallback): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (key_id, json): (String, String) = (row.get(3)?, row.get(4)?);
            if fallback == ONCE && given.get(&algorithm).is_some_and(|given| sn <= *given) {
                if remembered == REMEMBERED {
                    gone.push(sn);
                } else {
                    remembered += 1;
                    once.insert((algorithm, key_id), json);
                }
                continue;
            }
            counts.add(&algorithm, fallback, 1);
            if fallback == ONCE {
                left += 1;
                once.insert((algorithm, key_id), json);
            } else {
                fallbacks.insert(algorithm, (sn, key_id, json));
            }
        }
        let mut it = Self { new: Vec::new(), fallbacks: Vec::new(), gone, counts };
        for key in &upload.one_time {
            match once.get(&(key.algorithm.clone(), key.key_id.clone())) {
                None => it.new.push(key),
                Some(json) if *json == key.json => {}
                Some(_) => return Ok(Err(Uploaded::Differs(format!("{}:{}", key.algorithm, key.key_id)))),
            }
        }
        let mut kinds = fallbacks.len();
        for key in &upload.fallback {
            match fallbacks.get(&key.algorithm) {
                None => kinds += 1,
                // One that was used is not unused for being uploaded again.
                Some((_, key_id, json)) if (key_id, json) == (&key.key_id, &key.json) => continue,
                Some((sn, ..)) => it.gone.push(*sn),
            }
            it.fallbacks.push(key);
        }
        let too_many = left + it.new.len() > upload.most.0 || kinds > upload.most.1;
        if !it.is_nothing() && too_many {
            return Ok(Err(Uploaded::TooMany));
        }
        it.new.sort_by_key(|key| &key.key_id);
        Ok(Ok(it))
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.new.is_empty() && self.fallbacks.is_empty()
    }

    /// What the device has then.
    pub(super) async fn store<T: Tx>(self, tx: &mut T, upload: &KeyUpload, pos: i64) -> Result<KeyCounts> {
        if self.is_nothing() {
            return Ok(self.counts);
        }
        let Self { new, fallbacks, gone, mut counts } = self;
        if !gone.is_empty() {
            tx.execute(REMOVE, args![gone]).await?;
        }
        let all = new.iter().map(|key| (ONCE, key)).chain(fallbacks.iter().map(|key| (UNUSED, key)));
        let mut rows: Vec<Vec<Value>> = Vec::new();
        let mut changed = Changes::new();
        for (sn, (fallback, key)) in (pos * NUMBERS..).zip(all) {
            counts.add(&key.algorithm, fallback, 1);
            changed.insert((&upload.user_id, &upload.device_id, &key.algorithm), 0);
            rows.push(vec![
                sn.into(),
                upload.user_id.as_str().into(),
                upload.device_id.as_str().into(),
                key.algorithm.as_str().into(),
                fallback.into(),
                key.key_id.as_str().into(),
                key.json.as_str().into(),
            ]);
        }
        tx.insert_rows(ADD, &rows).await?;
        write_down(tx, changed, pos).await?;
        Ok(counts)
    }
}

impl KeyCounts {
    fn add(&mut self, algorithm: &str, fallback: i64, n: i64) {
        match fallback {
            ONCE => *self.one_time.entry(algorithm.to_owned()).or_default() += n,
            UNUSED => {
                self.unused_fallbacks.insert(algorithm.to_owned());
            }
            _ => {}
        }
    }
}

/// What a device has left, and where that last changed.
pub(crate) async fn counts<R: Reads>(tx: &mut R, user_id: &str, device_id: &str) -> Result<(KeyCounts, i64)> {
    let (mut counts, mut changed) = (KeyCounts::default(), 0);
    for mut row in tx.query(COUNTS, args![user_id, device_id]).await? {
        let (algorithm, fallback, n): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        match fallback {
            -1 => changed = n,
            _ => counts.add(&algorithm, fallback, n),
        }
    }
    Ok((counts, changed))
}

/// By user, device and algorithm: the last key that was given out just now; 0 if none was.
type Changes<'a> = BTreeMap<(&'a str, &'a str, &'a str), i64>;

async fn write_down<T: Tx>(tx: &mut T, changes: Changes<'_>, pos: i64) -> Result<()> {
    let row = |((user, device, algorithm), given): (&(&str, &str, &str), &i64)| {
        vec![(*user).into(), (*device).into(), (*algorithm).into(), pos.into(), (*given).into()]
    };
    tx.insert_rows(CHANGED, &changes.iter().map(row).collect::<Vec<_>>()).await?;
    for (user, ..) in changes.into_keys() {
        tx.wake(Wake::User(user.into()));
    }
    Ok(())
}

pub(super) struct ClaimKeys(pub(super) Vec<Claim>);

impl Op for ClaimKeys {
    const NAME: &'static str = "claim_keys";
    type Out = Vec<Claimed>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Vec<Claimed>> {
        let row = |c: &Claim| vec![c.user_id.as_str().into(), c.device_id.as_str().into(), c.algorithm.as_str().into()];
        let found = tx.query_each(LEFT, &self.0.iter().map(row).collect::<Vec<_>>()).await?;
        let (mut claimed, mut used, mut changes) = (Vec::new(), Vec::new(), Changes::new());
        for (of, rows) in self.0.iter().zip(found) {
            let keys = rows.into_iter().map(|mut row| Ok((row.get::<i64>(1)?, row)));
            let Some((fallback, mut row)) = keys.collect::<Result<Vec<_>>>()?.into_iter().min_by_key(|(f, _)| *f)
            else {
                continue;
            };
            let sn: i64 = row.get(0)?;
            let of_device = (of.user_id.as_str(), of.device_id.as_str(), of.algorithm.as_str());
            match fallback {
                ONCE => {
                    changes.insert(of_device, sn);
                }
                UNUSED => {
                    changes.insert(of_device, 0);
                    used.push(sn);
                }
                _ => {}
            }
            claimed.push(Claimed { of: of.clone(), key_id: row.get(2)?, json: row.get(3)? });
        }
        if changes.is_empty() {
            return Ok(claimed);
        }
        let pos = tx.next_pos()?;
        if !used.is_empty() {
            tx.execute(MARK_USED, args![used]).await?;
        }
        write_down(tx, changes, pos).await?;
        Ok(claimed)
    }
}

pub(super) async fn forget_devices<T: Tx>(tx: &mut T, user_id: &str, devices: &[String]) -> Result<()> {
    tx.execute(FORGET, args![user_id, devices.to_vec()]).await?;
    tx.execute(FORGET_COUNTS, args![user_id, devices.to_vec()]).await?;
    Ok(())
}
