//! What somebody is shown of the keys of others.

use std::collections::BTreeMap;

use hearth_core::{
    Error, Result,
    e2ee::{self, CrossSigningKey, Usage},
};
use hearth_storage::keys::{KeySignature, PublishedKeys, SigningKeyRow, Target};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, api::client::keys::get_keys::v3::Response, serde::Raw};

/// Of each user all devices, or those that are named.
pub(super) fn show(
    response: &mut Response,
    published: &PublishedKeys,
    wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
) -> Result<()> {
    let mut signatures: BTreeMap<(&str, &Target), Vec<&KeySignature>> = BTreeMap::new();
    for signature in &published.signatures {
        signatures.entry((&signature.target_user, &signature.target)).or_default().push(signature);
    }
    let of = |user: &str, target: &Target| -> Vec<[&str; 3]> {
        let found = signatures.get(&(user, target)).map(Vec::as_slice).unwrap_or_default();
        found.iter().map(|s| [s.signer.as_str(), s.signer_key.as_str(), s.signature.as_str()]).collect()
    };
    for user in wanted.keys() {
        response.device_keys.insert(user.clone(), BTreeMap::new());
    }
    for device in &published.devices {
        let user = user_id(&device.user_id)?;
        let id: OwnedDeviceId = device.device_id.as_str().into();
        let named = wanted.get(&user).is_some_and(|devices| devices.is_empty() || devices.contains(&id));
        if let (true, Some(devices)) = (named, response.device_keys.get_mut(&user)) {
            let signatures = of(&device.user_id, &Target::Device(device.device_id.clone()));
            let shown = e2ee::shown(&device.json, signatures, device.display_name.as_deref())?;
            devices.insert(id, raw(shown)?);
        }
    }
    for key in &published.signing {
        let user = user_id(&key.user_id)?;
        match usage_of(key)? {
            Usage::Master => {
                let public = parsed(key)?.public;
                let shown = e2ee::shown(&key.json, of(&key.user_id, &Target::Master(public)), None)?;
                response.master_keys.insert(user, raw(shown)?);
            }
            Usage::SelfSigning => {
                response.self_signing_keys.insert(user, raw(key.json.clone())?);
            }
            Usage::UserSigning => {
                response.user_signing_keys.insert(user, raw(key.json.clone())?);
            }
        }
    }
    Ok(())
}

/// A key as it is stored, read again.
pub(super) fn parsed(key: &SigningKeyRow) -> Result<CrossSigningKey> {
    CrossSigningKey::parse(&key.json, &user_id(&key.user_id)?, usage_of(key)?).map_err(Error::internal)
}

/// A user's key for this use, and the row that it is in.
pub(super) fn find<'a>(
    published: &'a PublishedKeys,
    user: &UserId,
    usage: Usage,
) -> Result<Option<(CrossSigningKey, &'a SigningKeyRow)>> {
    let is_it = |key: &&SigningKeyRow| key.user_id == user.as_str() && key.usage == usage.as_str();
    published.signing.iter().find(is_it).map(|row| Ok((parsed(row)?, row))).transpose()
}

fn usage_of(key: &SigningKeyRow) -> Result<Usage> {
    let all = [Usage::Master, Usage::SelfSigning, Usage::UserSigning];
    let usage = all.into_iter().find(|usage| usage.as_str() == key.usage);
    usage.ok_or_else(|| Error::internal(format_args!("a stored key is for {}", key.usage)))
}

fn user_id(user: &str) -> Result<OwnedUserId> {
    user.try_into().map_err(Error::internal)
}

fn raw<T>(json: String) -> Result<Raw<T>> {
    Raw::from_json_string(json).map_err(Error::internal)
}
