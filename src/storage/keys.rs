//! Keys of end-to-end encryption: what devices publish, what is given out of it, and whose lists of devices changed.

pub(crate) mod cross_signing;
pub(crate) mod lists;
pub(crate) mod one_time;

use hearth_core::e2ee::{OneTimeKey, Signable};

use self::{cross_signing::signing_keys, one_time::Uploading};
pub use self::{
    cross_signing::{CrossSigned, CrossSigning, KeySignature, NewSignatures, SigningKeyRow, Target},
    lists::DeviceLists,
    one_time::{Claim, Claimed, KeyCounts},
};
use crate::{
    Error, Result, Sql,
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    DEVICE = "SELECT k.json FROM devices d
        LEFT JOIN device_keys k ON k.user_id = d.user_id AND k.device_id = d.device_id
        WHERE d.user_id = $1 AND d.device_id = $2";
    PUT = "INSERT INTO device_keys (user_id, device_id, json) VALUES ($1, $2, $3)
        ON CONFLICT (user_id, device_id) DO UPDATE SET json = excluded.json";
    OF_USERS = "SELECT k.user_id, k.device_id, k.json, d.display_name FROM device_keys k
        JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id WHERE k.user_id = ANY($1)";
    FORGET = "DELETE FROM device_keys WHERE user_id = $1 AND device_id = ANY($2)";
}

/// What a device publishes.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    pub user_id: String,
    pub device_id: String,
    pub device_keys: Option<String>,
    pub one_time: Vec<OneTimeKey>,
    /// At most one of an algorithm.
    pub fallback: Vec<OneTimeKey>,
    /// The most one-time keys that the device may have, and the most fallback keys.
    pub most: (usize, usize),
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uploaded {
    Done(KeyCounts),
    /// There is another one-time key of this name.
    Differs(String),
    TooMany,
    /// The session has ended.
    NoDevice,
}

/// The identity keys of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceKeysRow {
    pub user_id: String,
    pub device_id: String,
    pub json: String,
    pub display_name: Option<String>,
}

/// What somebody may know of the keys of some users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedKeys {
    pub devices: Vec<DeviceKeysRow>,
    pub signing: Vec<SigningKeyRow>,
    /// Those that the users made themselves, and those of the reader.
    pub signatures: Vec<KeySignature>,
}

/// The aggregate of end-to-end keys.
pub trait Keys: Send + Sync {
    /// Keeps what a device publishes; all of it, or nothing where some of it is refused.
    fn upload_keys(&self, upload: KeyUpload) -> Answer<'_, Uploaded>;
    /// What is known of these users, as `reader` may see it; of user-signing keys only the reader's own.
    fn published_keys(&self, users: Vec<String>, reader: &str) -> Answer<'_, PublishedKeys>;
    /// Takes a key for each of these, each of another device; those that have none are left out.
    fn claim_keys(&self, claims: Vec<Claim>) -> Answer<'_, Vec<Claimed>>;
    /// Whose devices the user has to ask for again since a position, and whose they need not follow any more.
    fn device_lists(&self, user_id: &str, since: i64) -> Answer<'_, DeviceLists>;
    /// Puts these in the place of a user's cross-signing keys.
    fn set_cross_signing(&self, keys: CrossSigning) -> Answer<'_, CrossSigned>;
    /// Adds signatures that were found to be right of keys that are still the same. False: they are not.
    fn add_signatures(&self, signatures: NewSignatures) -> Answer<'_, bool>;
}

impl<E: Engine> Keys for Sql<E> {
    fn upload_keys(&self, upload: KeyUpload) -> Answer<'_, Uploaded> {
        self.0.write(upload)
    }

    fn published_keys(&self, users: Vec<String>, reader: &str) -> Answer<'_, PublishedKeys> {
        self.0.read(Published { users, reader: reader.to_owned() })
    }

    fn claim_keys(&self, claims: Vec<Claim>) -> Answer<'_, Vec<Claimed>> {
        self.0.write(one_time::ClaimKeys(claims))
    }

    fn device_lists(&self, user_id: &str, since: i64) -> Answer<'_, DeviceLists> {
        self.0.read(lists::Changed { user_id: user_id.to_owned(), since })
    }

    fn set_cross_signing(&self, keys: CrossSigning) -> Answer<'_, CrossSigned> {
        self.0.write(keys)
    }

    fn add_signatures(&self, signatures: NewSignatures) -> Answer<'_, bool> {
        self.0.write(signatures)
    }
}

impl Op for KeyUpload {
    const NAME: &'static str = "upload_keys";
    type Out = Uploaded;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Uploaded> {
        let (user, device) = (&self.user_id, &self.device_id);
        let Some(mut row) = tx.query_opt(DEVICE, args![user, device]).await? else { return Ok(Uploaded::NoDevice) };
        let before: Option<String> = row.get(0)?;
        let uploading = match Uploading::look(tx, self).await? {
            Ok(uploading) => uploading,
            Err(refused) => return Ok(refused),
        };
        let changed = self.device_keys.as_ref().filter(|json| before.as_ref() != Some(json));
        if changed.is_none() && uploading.is_nothing() {
            return Ok(Uploaded::Done(uploading.counts));
        }
        let pos = tx.next_pos()?;
        if let Some(json) = changed {
            if let Some(before) = before
                && signed_part(&before)? != signed_part(json)?
            {
                // Whatever was said of the old keys is not said of these.
                cross_signing::forget_devices(tx, user, std::slice::from_ref(device)).await?;
            }
            tx.execute(PUT, args![user, device, json]).await?;
            lists::note(tx, user, pos).await?;
        }
        Ok(Uploaded::Done(uploading.store(tx, self, pos).await?))
    }
}

fn signed_part(json: &str) -> Result<String> {
    let part = Signable::parse(json).and_then(|keys| keys.signed_part());
    part.map_err(|e| Error::Corrupt(format!("keys of a device: {e}")))
}

struct Published {
    users: Vec<String>,
    reader: String,
}

impl Query for Published {
    const NAME: &'static str = "published_keys";
    type Out = PublishedKeys;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<PublishedKeys> {
        let mut signing = signing_keys(tx, &self.users).await?;
        signing.retain(|key| key.usage != "user_signing" || key.user_id == self.reader);
        Ok(PublishedKeys {
            devices: device_keys(tx, &self.users).await?,
            signing,
            signatures: cross_signing::signatures(tx, &self.users, &self.reader).await?,
        })
    }
}

async fn device_keys<R: Reads>(tx: &mut R, users: &[String]) -> Result<Vec<DeviceKeysRow>> {
    let mut devices = Vec::new();
    for mut row in tx.query(OF_USERS, args![users.to_vec()]).await? {
        devices.push(DeviceKeysRow {
            user_id: row.get(0)?,
            device_id: row.get(1)?,
            json: row.get(2)?,
            display_name: row.get(3)?,
        });
    }
    devices.sort_unstable();
    Ok(devices)
}

/// A device is called otherwise, which others see beside its keys.
pub(crate) async fn renamed<T: Tx>(tx: &mut T, user_id: &str, device_id: &str) -> Result<()> {
    let found = tx.query_opt(DEVICE, args![user_id, device_id]).await?;
    let Some(mut row) = found else { return Ok(()) };
    if row.get::<Option<String>>(0)?.is_some() {
        let pos = tx.next_pos()?;
        lists::note(tx, user_id, pos).await?;
    }
    Ok(())
}

/// Removes all keys of devices that are no more, or that begin anew; `pos` is where this happens.
pub(crate) async fn forget_devices<T: Tx>(tx: &mut T, user_id: &str, devices: &[String], pos: i64) -> Result<()> {
    one_time::forget_devices(tx, user_id, devices).await?;
    if tx.execute(FORGET, args![user_id, devices.to_vec()]).await? > 0 {
        cross_signing::forget_devices(tx, user_id, devices).await?;
        lists::note(tx, user_id, pos).await?;
    }
    Ok(())
}

/// Removes the keys of a user who will not come back. Their devices' are gone with the devices.
pub(crate) async fn forget_user<T: Tx>(tx: &mut T, user_id: &str) -> Result<()> {
    if cross_signing::forget_user(tx, user_id).await? {
        let pos = tx.next_pos()?;
        lists::note(tx, user_id, pos).await?;
    }
    Ok(())
}
