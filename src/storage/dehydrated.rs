//! Dehydrated devices: one of a user's devices that has no session. Others send to it as to any; its messages wait until
//! another device of the user takes them over, and are read as often as it likes.

use crate::{
    Error, Result, Sql,
    keys::{self, KeyUpload, Uploaded, cross_signing},
    sessions::{self, Ending},
    to_device::{self, Waiting},
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    OF_USER = "SELECT device_id, data FROM dehydrated_devices WHERE user_id = $1";
    IS_DEVICE = "SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2";
    SET = "INSERT INTO dehydrated_devices (user_id, device_id, data) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET device_id = excluded.device_id, data = excluded.data";
    SET_DEVICE = "INSERT INTO devices (user_id, device_id, display_name, created_ms) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id, device_id) DO UPDATE SET display_name = excluded.display_name,
        created_ms = excluded.created_ms";
    FORGET = "DELETE FROM dehydrated_devices WHERE user_id = $1 AND device_id = ANY($2)";
}

/// A device that is to be dehydrated.
#[derive(Clone, Debug)]
pub struct Dehydration {
    pub display_name: Option<String>,
    /// JSON.
    pub data: String,
    /// Whose it is, its id, and what it publishes.
    pub keys: KeyUpload,
    /// Of the one before.
    pub ending: Ending,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dehydrated {
    Done,
    /// A device with a session, or one of the user's cross-signing keys, has this id.
    Taken,
}

/// The aggregate of dehydrated devices.
pub trait DehydratedDevices: Send + Sync {
    /// Puts it in the place of the one that the user has, whose keys and messages go.
    fn dehydrate(&self, device: Dehydration) -> Answer<'_, Dehydrated>;
    /// Its id and its data.
    fn dehydrated_device(&self, user_id: &str) -> Answer<'_, Option<(String, String)>>;
    /// Ends it; its id.
    fn end_dehydrated_device(&self, user_id: &str, ending: Ending) -> Answer<'_, Option<String>>;
    /// The first messages that wait for it after a position; `None`: this is not the user's dehydrated device.
    fn dehydrated_messages(
        &self,
        user_id: &str,
        device_id: &str,
        after: i64,
        limit: u32,
    ) -> Answer<'_, Option<Vec<Waiting>>>;
}

impl<E: Engine> DehydratedDevices for Sql<E> {
    fn dehydrate(&self, device: Dehydration) -> Answer<'_, Dehydrated> {
        self.0.write(device)
    }

    fn dehydrated_device(&self, user_id: &str) -> Answer<'_, Option<(String, String)>> {
        self.0.read(OfUser(user_id.to_owned()))
    }

    fn end_dehydrated_device(&self, user_id: &str, ending: Ending) -> Answer<'_, Option<String>> {
        self.0.write(End { user_id: user_id.to_owned(), ending })
    }

    fn dehydrated_messages(
        &self,
        user_id: &str,
        device_id: &str,
        after: i64,
        limit: u32,
    ) -> Answer<'_, Option<Vec<Waiting>>> {
        self.0.read(Messages { user_id: user_id.to_owned(), device_id: device_id.to_owned(), after, limit })
    }
}

async fn of_user<R: Reads>(tx: &mut R, user_id: &str) -> Result<Option<(String, String)>> {
    match tx.query_opt(OF_USER, args![user_id]).await? {
        Some(mut row) => Ok(Some((row.get(0)?, row.get(1)?))),
        None => Ok(None),
    }
}

/// These devices are dehydrated no more: they are gone, or somebody has logged in with their id.
pub(crate) async fn forget<T: Tx>(tx: &mut T, user_id: &str, devices: &[String]) -> Result<()> {
    tx.execute(FORGET, args![user_id, devices.to_vec()]).await.map(drop)
}

impl Op for Dehydration {
    const NAME: &'static str = "dehydrate";
    type Out = Dehydrated;

    fn positions(&self) -> u32 {
        2
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Dehydrated> {
        let KeyUpload { user_id, device_id, .. } = &self.keys;
        let before = of_user(tx, user_id).await?.map(|(device, _)| device);
        match before {
            Some(before) if before == *device_id => {
                let pos = tx.next_pos()?;
                keys::forget_devices(tx, user_id, std::slice::from_ref(device_id), pos).await?;
            }
            before => {
                if tx.query_opt(IS_DEVICE, args![user_id, device_id]).await?.is_some()
                    || cross_signing::is_called_like_a_key(tx, user_id, device_id).await?
                {
                    return Ok(Dehydrated::Taken);
                }
                sessions::end(tx, user_id, before.into_iter().collect(), &self.ending).await?;
            }
        }
        to_device::forget(tx, user_id, device_id).await?;
        let name = self.display_name.clone();
        tx.execute(SET_DEVICE, args![user_id, device_id, name, self.ending.at_ms]).await?;
        tx.execute(SET, args![user_id, device_id, &self.data]).await?;
        match self.keys.run(tx).await? {
            Uploaded::Done(_) => Ok(Dehydrated::Done),
            refused => Err(Error::Internal(format!("the keys of a new device are refused: {refused:?}"))),
        }
    }
}

struct OfUser(String);

impl Query for OfUser {
    const NAME: &'static str = "dehydrated_device";
    const SINGLE: bool = true;
    type Out = Option<(String, String)>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        of_user(tx, &self.0).await
    }
}

struct End {
    user_id: String,
    ending: Ending,
}

impl Op for End {
    const NAME: &'static str = "end_dehydrated_device";
    type Out = Option<String>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<String>> {
        let Some((device, _)) = of_user(tx, &self.user_id).await? else { return Ok(None) };
        sessions::end(tx, &self.user_id, vec![device.clone()], &self.ending).await?;
        Ok(Some(device))
    }
}

struct Messages {
    user_id: String,
    device_id: String,
    after: i64,
    limit: u32,
}

impl Query for Messages {
    const NAME: &'static str = "dehydrated_messages";
    type Out = Option<Vec<Waiting>>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        match of_user(tx, &self.user_id).await? {
            Some((device, _)) if device == self.device_id => {
                to_device::waiting(tx, &self.user_id, &self.device_id, self.after, self.limit).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}
