//! Keys of end-to-end encryption: published by devices, asked for and taken by others.

mod cross_signing;
mod dehydrated;
mod published;
mod signatures;

use std::{collections::BTreeMap, sync::Arc};

use hearth_core::{
    Error, Result, e2ee, ids,
    limits::{MAX_CLAIMS, MAX_FALLBACK_KEYS, MAX_ID_BYTES, MAX_ONE_TIME_KEYS, MAX_QUERIED_USERS},
};
use hearth_storage::{
    Storage,
    keys::{Claim, DeviceLists, KeyCounts, KeyUpload, Uploaded},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedServerName, OwnedUserId, UserId,
    api::client::keys::{claim_keys, get_keys, upload_keys},
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::json;

use super::{accounts::Accounts, session::Session};

pub use self::{cross_signing::NewCrossSigning, dehydrated::Messages};

/// Keys that one transaction takes, so that nobody waits long behind it.
const CLAIMED_AT_ONCE: usize = 100;
/// How often something is decided whose grounds change meanwhile.
const TRIES: usize = 5;

/// Which keys whose devices have.
pub struct Keys {
    server_name: OwnedServerName,
    storage: Arc<dyn Storage>,
    accounts: Arc<Accounts>,
}

impl Keys {
    pub fn new(server_name: OwnedServerName, storage: Arc<dyn Storage>, accounts: Arc<Accounts>) -> Self {
        Self { server_name, storage, accounts }
    }

    /// Keeps what a device publishes; what it has left then to be given out.
    pub async fn upload(&self, session: &Session, request: upload_keys::v3::Request) -> Result<KeyCounts> {
        let (user, device) = (&session.user_id, session.device_id.as_str());
        let upload_keys::v3::Request { device_keys, one_time_keys, fallback_keys, .. } = request;
        let upload = checked(user, device, device_keys.as_ref(), &one_time_keys, &fallback_keys)?;
        match self.storage.upload_keys(upload).await? {
            Uploaded::Done(counts) => Ok(counts),
            Uploaded::Differs(name) => {
                Err(Error::invalid_param(format!("One time key {name} already exists, with another value")))
            }
            Uploaded::TooMany => Err(too_many()),
            Uploaded::NoDevice => Err(Error::unknown_token("This device has been logged out")),
        }
    }

    /// The keys of users and their devices, as the reader may see them.
    pub async fn query(
        &self,
        session: &Session,
        wanted: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<get_keys::v3::Response> {
        if wanted.len() > MAX_QUERIED_USERS {
            return Err(Error::too_large(format!("One may ask for the keys of {MAX_QUERIED_USERS} users at once")));
        }
        let mut response = get_keys::v3::Response::new();
        let mut ours = BTreeMap::new();
        for (user, devices) in wanted {
            if self.is_ours(&user) {
                ours.insert(user, devices);
            } else {
                response.failures.insert(user.server_name().to_string(), unreachable());
            }
        }
        if ours.is_empty() {
            return Ok(response);
        }
        let names = ours.keys().filter(|user| is_text(user.as_str())).map(ToString::to_string).collect();
        let published = self.storage.published_keys(names, session.user_id.as_str()).await?;
        published::show(&mut response, &published, &ours)?;
        Ok(response)
    }

    /// Takes a key of each device for whoever wants to write to it.
    pub async fn claim(
        &self,
        wanted: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>,
    ) -> Result<claim_keys::v3::Response> {
        if wanted.values().map(BTreeMap::len).sum::<usize>() > MAX_CLAIMS {
            return Err(Error::too_large(format!("One may claim {MAX_CLAIMS} keys at once")));
        }
        let mut response = claim_keys::v3::Response::new(BTreeMap::new());
        let mut claims = Vec::new();
        for (user, devices) in wanted {
            if !self.is_ours(&user) {
                response.failures.insert(user.server_name().to_string(), unreachable());
                continue;
            }
            for (device, algorithm) in devices {
                let is_known = is_text(user.as_str()) && ids::check_device_id(device.as_str()).is_ok();
                if is_known && is_text(algorithm.as_str()) {
                    let algorithm = algorithm.to_string();
                    claims.push(Claim { user_id: user.to_string(), device_id: device.to_string(), algorithm });
                }
            }
        }
        for claims in claims.chunks(CLAIMED_AT_ONCE) {
            for claimed in self.storage.claim_keys(claims.to_vec()).await? {
                let user: OwnedUserId = claimed.of.user_id.try_into().map_err(Error::internal)?;
                let name = format!("{}:{}", claimed.of.algorithm, claimed.key_id);
                let name: OwnedOneTimeKeyId = name.try_into().map_err(Error::internal)?;
                let key = Raw::from_json_string(claimed.json).map_err(Error::internal)?;
                let devices = response.one_time_keys.entry(user).or_default();
                devices.entry(claimed.of.device_id.into()).or_default().insert(name, key);
            }
        }
        Ok(response)
    }

    /// Whose devices changed since a position.
    pub async fn changes(&self, session: &Session, since: i64) -> Result<DeviceLists> {
        Ok(self.storage.device_lists(session.user_id.as_str(), since).await?)
    }

    fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == &*self.server_name
    }
}

/// What a device of the user is to publish, looked through.
fn checked(
    user: &UserId,
    device: &str,
    device_keys: Option<&Raw<DeviceKeys>>,
    one_time_keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    fallback_keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
) -> Result<KeyUpload> {
    if one_time_keys.len() > MAX_ONE_TIME_KEYS || fallback_keys.len() > MAX_FALLBACK_KEYS {
        return Err(too_many());
    }
    let device_keys = device_keys.map(|keys| e2ee::device_keys(keys.json().get(), user, device)).transpose()?;
    let mut fallback = one_time(fallback_keys)?;
    let all = fallback.len();
    fallback.dedup_by(|a, b| a.algorithm == b.algorithm);
    if fallback.len() < all {
        return Err(Error::invalid_param("There can be one fallback key of an algorithm"));
    }
    Ok(KeyUpload {
        user_id: user.to_string(),
        device_id: device.to_owned(),
        device_keys,
        one_time: one_time(one_time_keys)?,
        fallback,
        most: (MAX_ONE_TIME_KEYS, MAX_FALLBACK_KEYS),
    })
}

fn too_many() -> Error {
    Error::too_large(format!(
        "A device has at most {MAX_ONE_TIME_KEYS} one-time keys and {MAX_FALLBACK_KEYS} fallback keys"
    ))
}

fn one_time<K: AsRef<str>, T>(keys: &BTreeMap<K, Raw<T>>) -> Result<Vec<e2ee::OneTimeKey>> {
    keys.iter().map(|(name, key)| e2ee::one_time_key(name.as_ref(), key.json().get())).collect()
}

/// Of another name there is nothing here, and the database should not be asked for it.
fn is_text(name: &str) -> bool {
    name.len() <= MAX_ID_BYTES && !name.chars().any(char::is_control)
}

/// What is said of another server while there is no federation.
fn unreachable() -> serde_json::Value {
    json!({ "errcode": "M_UNKNOWN", "error": "This server does not speak to others yet" })
}
