//! Cross-signing keys, and signatures that came after what they are of. Nothing is looked into here: who writes has
//! verified it, and says what it was verified against, in case that is not there any more.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{device_keys, lists};
use crate::{
    Result,
    error::corrupt,
    tx::{Op, Reads, Tx, Value, Wake, args, statements},
};

statements! {
    OF_USERS = "SELECT user_id, usage, json FROM cross_signing_keys WHERE user_id = ANY($1) ORDER BY user_id, usage";
    IS_DEVICE = "SELECT device_id FROM devices WHERE user_id = $1 AND device_id = ANY($2) LIMIT 1";
    FORGET = "DELETE FROM cross_signing_keys WHERE user_id = $1";
    SIGNATURES = "SELECT target_user, kind, target, signer, signer_key, signature FROM key_signatures
        WHERE target_user = ANY($1) AND (signer = target_user OR signer = $2)
        ORDER BY target_user, kind, target, signer, signer_key";
    FORGET_TARGETS = "DELETE FROM key_signatures WHERE target_user = $1 AND kind = $2 AND target = ANY($3)";
    FORGET_KIND = "DELETE FROM key_signatures WHERE target_user = $1 AND kind = $2";
    FORGET_SIGNERS = "DELETE FROM key_signatures WHERE signer = $1 AND signer_key = ANY($2)";
    FORGET_ALL_OF = "DELETE FROM key_signatures WHERE target_user = $1";
    FORGET_ALL_BY = "DELETE FROM key_signatures WHERE signer = $1";
    bulk PUT = "cross_signing_keys" ("user_id": Text, "usage": Text, "json": Text)
        "ON CONFLICT (user_id, usage) DO UPDATE SET json = excluded.json";
    bulk SIGN = "key_signatures" (
        "target_user": Text, "kind": Text, "target": Text, "signer": Text, "signer_key": Text, "signature": Text, "pos": Int
    ) "ON CONFLICT (target_user, kind, target, signer, signer_key) DO UPDATE
        SET signature = excluded.signature, pos = excluded.pos";
}

/// A cross-signing key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyRow {
    pub user_id: String,
    /// `master`, `self_signing` or `user_signing`.
    pub usage: String,
    pub json: String,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The keys of a device, by its id.
    Device(String),
    /// A master key, by its public half.
    Master(String),
}

impl Target {
    fn columns(&self) -> (&'static str, &str) {
        match self {
            Self::Device(id) => ("device", id),
            Self::Master(public) => ("master", public),
        }
    }
}

/// A signature of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySignature {
    pub target_user: String,
    pub target: Target,
    pub signer: String,
    /// `ed25519:…`
    pub signer_key: String,
    pub signature: String,
}

/// Cross-signing keys of a user that are to take the place of others.
#[derive(Clone, Debug, Default)]
pub struct CrossSigning {
    pub user_id: String,
    /// Usage and JSON.
    pub keys: Vec<(&'static str, String)>,
    /// The public halves of those keys, which may not be called like a device.
    pub public: Vec<String>,
    /// By the user's devices, of the new master key.
    pub signatures: Vec<KeySignature>,
    /// The keys whose place they take, by their names: what these have signed counts no more.
    pub replaced: Vec<String>,
    /// There is a new master key: only what comes with it stays.
    pub new_master: bool,
    /// All keys that the user had when this was decided.
    pub expected: Vec<SigningKeyRow>,
}

/// What became of new cross-signing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSigned {
    Done,
    /// One is called like a device of the user.
    KeyInUse,
    /// The user's keys are others by now.
    Moved,
}

/// Signatures by one user, and the keys that they were verified with.
#[derive(Clone, Debug, Default)]
pub struct NewSignatures {
    pub signer: String,
    pub signatures: Vec<KeySignature>,
    /// Keys of devices, by user, id and JSON.
    pub devices: Vec<(String, String, String)>,
    pub signing: Vec<SigningKeyRow>,
}

pub(super) async fn signing_keys<R: Reads>(tx: &mut R, users: &[String]) -> Result<Vec<SigningKeyRow>> {
    let mut keys = Vec::new();
    for mut row in tx.query(OF_USERS, args![users.to_vec()]).await? {
        keys.push(SigningKeyRow { user_id: row.get(0)?, usage: row.get(1)?, json: row.get(2)? });
    }
    Ok(keys)
}

/// Whether a device of this name could be taken for one of the user's cross-signing keys.
pub(crate) async fn is_called_like_a_key<R: Reads>(tx: &mut R, user_id: &str, device_id: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Key {
        keys: BTreeMap<String, String>,
    }
    for row in signing_keys(tx, &[user_id.to_owned()]).await? {
        let key: Key = serde_json::from_str(&row.json).map_err(corrupt)?;
        if key.keys.values().any(|public| public == device_id) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) async fn signatures<R: Reads>(tx: &mut R, users: &[String], reader: &str) -> Result<Vec<KeySignature>> {
    let mut signatures = Vec::new();
    for mut row in tx.query(SIGNATURES, args![users.to_vec(), reader]).await? {
        let (kind, target): (String, String) = (row.get(1)?, row.get(2)?);
        signatures.push(KeySignature {
            target_user: row.get(0)?,
            target: if kind == "device" { Target::Device(target) } else { Target::Master(target) },
            signer: row.get(3)?,
            signer_key: row.get(4)?,
            signature: row.get(5)?,
        });
    }
    Ok(signatures)
}

async fn sign<T: Tx>(tx: &mut T, signatures: &[&KeySignature], pos: i64) -> Result<()> {
    let row = |s: &&KeySignature| -> Vec<Value> {
        let (kind, target) = s.target.columns();
        let (user, signer) = (s.target_user.as_str(), s.signer.as_str());
        let (key, signature) = (s.signer_key.as_str(), s.signature.as_str());
        vec![user.into(), kind.into(), target.into(), signer.into(), key.into(), signature.into(), pos.into()]
    };
    tx.insert_rows(SIGN, &signatures.iter().map(row).collect::<Vec<_>>()).await?;
    Ok(())
}

impl Op for CrossSigning {
    const NAME: &'static str = "set_cross_signing";
    type Out = CrossSigned;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<CrossSigned> {
        let user = &self.user_id;
        if signing_keys(tx, std::slice::from_ref(user)).await? != self.expected {
            return Ok(CrossSigned::Moved);
        }
        if tx.query_opt(IS_DEVICE, args![user, self.public.clone()]).await?.is_some() {
            return Ok(CrossSigned::KeyInUse);
        }
        let pos = tx.next_pos()?;
        if self.new_master {
            tx.execute(FORGET, args![user]).await?;
        }
        let row = |(usage, json): &(&'static str, String)| vec![user.into(), (*usage).into(), json.into()];
        tx.insert_rows(PUT, &self.keys.iter().map(row).collect::<Vec<_>>()).await?;
        tx.execute(FORGET_SIGNERS, args![user, self.replaced.clone()]).await?;
        if self.new_master {
            tx.execute(FORGET_KIND, args![user, "master"]).await?;
        }
        sign(tx, &self.signatures.iter().collect::<Vec<_>>(), pos).await?;
        lists::note(tx, user, pos).await?;
        Ok(CrossSigned::Done)
    }
}

impl Op for NewSignatures {
    const NAME: &'static str = "add_signatures";
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let mut users: Vec<String> = self.signatures.iter().map(|s| s.target_user.clone()).collect();
        users.push(self.signer.clone());
        users.sort_unstable();
        users.dedup();
        let devices = device_keys(tx, &users).await?;
        let there = |(user, device, json): &(String, String, String)| {
            devices.iter().any(|d| (&d.user_id, &d.device_id, &d.json) == (user, device, json))
        };
        let signing = signing_keys(tx, &users).await?;
        if !self.devices.iter().all(there) || !self.signing.iter().all(|key| signing.contains(key)) {
            return Ok(false);
        }
        let known = signatures(tx, &users, &self.signer).await?;
        let new: Vec<&KeySignature> = self.signatures.iter().filter(|s| !known.contains(s)).collect();
        if new.is_empty() {
            return Ok(true);
        }
        let pos = tx.next_pos()?;
        sign(tx, &new, pos).await?;
        if new.iter().any(|s| s.target_user == self.signer) {
            lists::note(tx, &self.signer, pos).await?;
        }
        // Of what was said of others only the signer knows.
        tx.wake(Wake::User(self.signer.as_str().into()));
        Ok(true)
    }
}

/// What was signed of these devices, or with their keys.
pub(super) async fn forget_devices<T: Tx>(tx: &mut T, user_id: &str, devices: &[String]) -> Result<()> {
    tx.execute(FORGET_TARGETS, args![user_id, "device", devices.to_vec()]).await?;
    let keys: Vec<String> = devices.iter().map(|device| format!("ed25519:{device}")).collect();
    tx.execute(FORGET_SIGNERS, args![user_id, keys]).await?;
    Ok(())
}

/// Whether there was anything that others could see.
pub(super) async fn forget_user<T: Tx>(tx: &mut T, user_id: &str) -> Result<bool> {
    tx.execute(FORGET_ALL_OF, args![user_id]).await?;
    tx.execute(FORGET_ALL_BY, args![user_id]).await?;
    Ok(tx.execute(FORGET, args![user_id]).await? > 0)
}
