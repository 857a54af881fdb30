//! Signatures of keys that are here already. Three are taken: of one's own devices by one's self-signing key, of one's own
//! master key by one's devices, and of another's master key by one's user-signing key.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::collections::BTreeMap;

use hearth_core::{
    Error, Result,
    e2ee::{Signable, Usage, invalid_signature},
    limits::MAX_SIGNATURES,
};
use hearth_storage::keys::{KeySignature, NewSignatures, PublishedKeys, Target};
use ruma::{OwnedUserId, UserId, api::client::keys::upload_signatures::v3::SignedKeys};

use super::{
    Keys, TRIES,
    cross_signing::{by_devices, master_of},
    is_text,
    published::find,
};
use crate::service::session::Session;

/// What was not taken, by user and key.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, Error>>;

impl Keys {
    /// Adds signatures that the user has made; says which are not right.
    pub async fn add_signatures(
        &self,
        session: &Session,
        signed: &BTreeMap<OwnedUserId, SignedKeys>,
    ) -> Result<Failures> {
        if signed.values().map(|keys| keys.iter().count()).sum::<usize>() > MAX_SIGNATURES {
            return Err(Error::too_large(format!("One may upload {MAX_SIGNATURES} signatures at once")));
        }
        let me = &*session.user_id;
        let ours = signed.keys().filter(|user| self.is_ours(user) && is_text(user.as_str()));
        let mut users: Vec<String> = ours.map(ToString::to_string).chain([me.to_string()]).collect();
        users.sort_unstable();
        users.dedup();
        for _ in 0..TRIES {
            let published = self.storage.published_keys(users.clone(), me.as_str()).await?;
            let (mut found, mut failures) = (Vec::new(), Failures::new());
            for (user, keys) in signed {
                for (key, object) in keys {
                    match judge(me, user, key, object.get(), &published) {
                        Ok(signatures) => found.extend(signatures),
                        Err(e @ Error::Internal(_)) => return Err(e),
                        Err(why) => {
                            failures.entry(user.clone()).or_default().insert(key.to_owned(), why);
                        }
                    }
                }
            }
            if found.is_empty() || self.storage.add_signatures(with_grounds(me, found, published)).await? {
                return Ok(failures);
            }
        }
        Err(Error::unavailable("These keys are being changed by somebody else"))
    }
}

/// The signatures, and the keys on which it was found that they are right: those of the signer, and of whom was signed.
fn with_grounds(me: &UserId, signatures: Vec<KeySignature>, published: PublishedKeys) -> NewSignatures {
    let signed = |user: &str| user == me.as_str() || signatures.iter().any(|s| s.target_user == user);
    let devices = published.devices.into_iter().filter(|row| row.user_id == me.as_str());
    let mut signing = published.signing;
    signing.retain(|row| signed(&row.user_id));
    NewSignatures {
        signer: me.to_string(),
        devices: devices.map(|row| (row.user_id, row.device_id, row.json)).collect(),
        signing,
        signatures,
    }
}

/// What `me` has signed of the key of this name.
fn judge(me: &UserId, user: &UserId, name: &str, json: &str, published: &PublishedKeys) -> Result<Vec<KeySignature>> {
    let object = Signable::parse(json)?;
    if object.text("user_id") != Some(user.as_str()) {
        return Err(Error::invalid_param("This is a key of another user"));
    }
    if user != me {
        let master = master_of(published, user)?;
        is_the_same(&object, master.object(), name, &master.public)?;
        return by(me, Usage::UserSigning, published, &object, user, Target::Master(master.public));
    }
    let Some(device) = object.text("device_id") else {
        let master = master_of(published, user)?;
        is_the_same(&object, master.object(), name, &master.public)?;
        let signatures = by_devices(me, published, &object, &master.public)?;
        let none = || invalid_signature("No device of yours has signed this");
        return if signatures.is_empty() { Err(none()) } else { Ok(signatures) };
    };
    let row = published.devices.iter().find(|row| row.user_id == user.as_str() && row.device_id == device);
    let row = row.ok_or_else(|| Error::not_found("There are no keys of this device"))?;
    is_the_same(&object, &Signable::parse(&row.json).map_err(Error::internal)?, name, device)?;
    by(me, Usage::SelfSigning, published, &object, user, Target::Device(device.to_owned()))
}

fn is_the_same(object: &Signable, stored: &Signable, name: &str, stored_name: &str) -> Result<()> {
    if name != stored_name {
        return Err(Error::not_found("There is no key of this name"));
    }
    if object.signed_part()? != stored.signed_part()? {
        return Err(invalid_signature("The key is not the one that is here"));
    }
    Ok(())
}

/// The signature of one's own key for this use.
fn by(
    me: &UserId,
    usage: Usage,
    published: &PublishedKeys,
    object: &Signable,
    user: &UserId,
    target: Target,
) -> Result<Vec<KeySignature>> {
    let Some((key, _)) = find(published, me, usage)? else {
        return Err(Error::not_found(format!("You have no key for this: {}", usage.as_str())));
    };
    let signer_key = key.key_id();
    let signature = object.signatures(me).find(|(id, _)| *id == signer_key).map(|(_, signature)| signature.to_owned());
    let Some(signature) = signature.filter(|_| key.has_signed(me, object)) else {
        return Err(invalid_signature("This is not signed by your key for it"));
    };
    let (target_user, signer) = (user.to_string(), me.to_string());
    Ok(vec![KeySignature { target_user, target, signer, signer_key, signature }])
}
