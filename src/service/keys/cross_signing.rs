//! The keys by which a user vouches for their devices, and for other users.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>

use hearth_core::{
    Error, Result,
    e2ee::{CrossSigningKey, Signable, Usage, invalid_signature},
};
use hearth_storage::keys::{CrossSigned, CrossSigning, KeySignature, PublishedKeys, Target};
use ruma::{UserId, api::client::uiaa::AuthData};

use super::{
    Keys, TRIES,
    published::{find, parsed},
};
use crate::service::{confirm::Deed, session::Session};

/// What somebody uploads, as JSON.
#[derive(Default)]
pub struct NewCrossSigning {
    pub master: Option<String>,
    pub self_signing: Option<String>,
    pub user_signing: Option<String>,
}

/// The same, parsed.
struct Uploaded {
    master: Option<CrossSigningKey>,
    others: Vec<CrossSigningKey>,
}

impl Keys {
    /// Sets the user's cross-signing keys. The first may be set by whoever has a session; to replace them takes a proof of
    /// who they are, and to say the same again takes nothing.
    pub async fn set_cross_signing(
        &self,
        session: &Session,
        new: NewCrossSigning,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        let user = &session.user_id;
        let uploaded = Uploaded::parse(user, &new)?;
        let mut confirmed = false;
        for _ in 0..TRIES {
            let published = self.storage.published_keys(vec![user.to_string()], user.as_str()).await?;
            let Some(decided) = uploaded.decide(user, &published)? else { return Ok(()) };
            if !published.signing.is_empty() && !confirmed {
                self.accounts.confirm(session, auth, Deed::ReplaceKeys).await?;
                // Once is enough, and some proofs are good for once.
                confirmed = true;
            }
            match self.storage.set_cross_signing(decided).await? {
                CrossSigned::Done => return Ok(()),
                CrossSigned::KeyInUse => return Err(Error::forbidden("One of your devices is called like this key")),
                CrossSigned::Moved => {}
            }
        }
        Err(Error::unavailable("Your keys are being changed by somebody else"))
    }
}

impl Uploaded {
    fn parse(user: &UserId, new: &NewCrossSigning) -> Result<Self> {
        let parse = |json: &Option<String>, usage| {
            json.as_ref().map(|json| CrossSigningKey::parse(json, user, usage)).transpose()
        };
        let master = parse(&new.master, Usage::Master)?;
        let self_signing = parse(&new.self_signing, Usage::SelfSigning)?;
        let user_signing = parse(&new.user_signing, Usage::UserSigning)?;
        Ok(Self { master, others: self_signing.into_iter().chain(user_signing).collect() })
    }

    fn all(&self) -> impl Iterator<Item = &CrossSigningKey> {
        self.master.iter().chain(&self.others)
    }

    /// What is to be stored; nothing if all of it is there.
    fn decide(&self, user: &UserId, published: &PublishedKeys) -> Result<Option<CrossSigning>> {
        let stored: Vec<CrossSigningKey> = published.signing.iter().map(parsed).collect::<Result<_>>()?;
        let stored_master = stored.iter().find(|key| key.usage == Usage::Master);
        let Some(master) = self.master.as_ref().or(stored_master) else {
            return Err(Error::missing_param("There is no master key"));
        };
        let mut is_new = false;
        for key in self.all() {
            let before = stored.iter().find(|old| old.usage == key.usage);
            let before = before.map(|old| old.object().signed_part()).transpose()?;
            is_new |= before != Some(key.object().signed_part()?);
        }
        if !is_new {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for key in self.all() {
            let signer = (key.usage != Usage::Master).then(|| master.key_id());
            if signer.is_some() && !master.has_signed(user, key.object()) {
                return Err(invalid_signature("The key is not signed by the master key"));
            }
            keys.push((key.usage.as_str(), key.stored_with(user, signer.as_deref())?));
        }
        let new_master = stored_master.is_none_or(|old| old.public != master.public);
        // What the old master key has signed goes with it.
        let goes = |old: &&CrossSigningKey| {
            let again = self.all().find(|key| key.usage == old.usage);
            again.map_or(new_master, |key| key.public != old.public)
        };
        Ok(Some(CrossSigning {
            user_id: user.to_string(),
            keys,
            public: self.all().map(|key| key.public.clone()).collect(),
            signatures: if new_master {
                by_devices(user, published, master.object(), &master.public)?
            } else {
                Vec::new()
            },
            replaced: stored.iter().filter(goes).map(CrossSigningKey::key_id).collect(),
            new_master,
            expected: published.signing.clone(),
        }))
    }
}

/// Of the signatures of a user's master key, those that devices of theirs have really made.
pub(super) fn by_devices(
    user: &UserId,
    published: &PublishedKeys,
    master: &Signable,
    public: &str,
) -> Result<Vec<KeySignature>> {
    let mut found = Vec::new();
    for (key_id, signature) in master.signatures(user) {
        let device = key_id.strip_prefix("ed25519:").unwrap_or_default();
        let is_it =
            |row: &&hearth_storage::keys::DeviceKeysRow| row.user_id == user.as_str() && row.device_id == device;
        let Some(row) = published.devices.iter().find(is_it) else { continue };
        let keys = Signable::parse(&row.json).map_err(Error::internal)?;
        if keys.key(key_id).is_some_and(|key| master.is_signed_by(user, key_id, &key)) {
            found.push(KeySignature {
                target_user: user.to_string(),
                target: Target::Master(public.to_owned()),
                signer: user.to_string(),
                signer_key: key_id.to_owned(),
                signature: signature.to_owned(),
            });
        }
    }
    Ok(found)
}

/// A user's master key, or that there is none.
pub(super) fn master_of(published: &PublishedKeys, user: &UserId) -> Result<CrossSigningKey> {
    let master = find(published, user, Usage::Master)?;
    master.map(|(key, _)| key).ok_or_else(|| Error::not_found("This user has no master key"))
}
