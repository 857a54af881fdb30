//! What connections of sliding sync were told, so that they outlive the process that told it. It is written down after the
//! answers, not with them: who loses it begins anew.

use crate::{
    Result, Sql,
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    // The newest first.
    OF_DEVICE = "SELECT conn_id, body, used_ms FROM sliding_connections WHERE user_id = $1 AND device_id = $2
        ORDER BY used_ms DESC, conn_id";
    DEVICE_EXISTS = "SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2";
    // Another process may have told more since.
    SAVE = "INSERT INTO sliding_connections (user_id, device_id, conn_id, body, used_ms) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (user_id, device_id, conn_id) DO UPDATE SET body = excluded.body, used_ms = excluded.used_ms
        WHERE excluded.used_ms >= sliding_connections.used_ms";
    DROP_OLDEST = "DELETE FROM sliding_connections WHERE user_id = $1 AND device_id = $2 AND conn_id NOT IN (
        SELECT conn_id FROM sliding_connections WHERE user_id = $1 AND device_id = $2
        ORDER BY used_ms DESC, conn_id LIMIT $3)";
    FORGET = "DELETE FROM sliding_connections WHERE user_id = $1 AND device_id = ANY($2)";
}

/// A connection as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedConnection {
    pub conn_id: String,
    /// What only those know who write and read it.
    pub body: String,
    pub used_ms: i64,
}

/// The aggregate of connections of sliding sync.
pub trait Connections: Send + Sync {
    fn connections(&self, user_id: &str, device_id: &str) -> Answer<'_, Vec<SavedConnection>>;
    /// Of a device so many are kept as `most` says, the newest. Of one that is gone none.
    fn save_connections(
        &self,
        user_id: &str,
        device_id: &str,
        saved: Vec<SavedConnection>,
        most: u32,
    ) -> Answer<'_, ()>;
}

impl<E: Engine> Connections for Sql<E> {
    fn connections(&self, user_id: &str, device_id: &str) -> Answer<'_, Vec<SavedConnection>> {
        self.0.read(Load { user_id: user_id.to_owned(), device_id: device_id.to_owned() })
    }

    fn save_connections(
        &self,
        user_id: &str,
        device_id: &str,
        saved: Vec<SavedConnection>,
        most: u32,
    ) -> Answer<'_, ()> {
        self.0.write(Save { user_id: user_id.to_owned(), device_id: device_id.to_owned(), saved, most })
    }
}

struct Load {
    user_id: String,
    device_id: String,
}

impl Query for Load {
    const NAME: &'static str = "sliding_connections";
    const SINGLE: bool = true;
    type Out = Vec<SavedConnection>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(OF_DEVICE, args![&self.user_id, &self.device_id]).await?;
        let saved = |mut row: crate::tx::Row| {
            Ok(SavedConnection { conn_id: row.get(0)?, body: row.get(1)?, used_ms: row.get(2)? })
        };
        rows.into_iter().map(saved).collect()
    }
}

struct Save {
    user_id: String,
    device_id: String,
    saved: Vec<SavedConnection>,
    most: u32,
}

impl Op for Save {
    const NAME: &'static str = "save_sliding_connections";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let (user, device) = (&self.user_id, &self.device_id);
        if tx.query_opt(DEVICE_EXISTS, args![user, device]).await?.is_none() {
            return Ok(());
        }
        for saved in &self.saved {
            tx.execute(SAVE, args![user, device, &saved.conn_id, &saved.body, saved.used_ms]).await?;
        }
        tx.execute(DROP_OLDEST, args![user, device, i64::from(self.most)]).await.map(drop)
    }
}

/// These devices are gone, or are others from now on.
pub(crate) async fn forget<T: Tx>(tx: &mut T, user_id: &str, devices: &[String]) -> Result<()> {
    tx.execute(FORGET, args![user_id, devices.to_vec()]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts::{Accounts as _, NewUser},
        sessions::{Ending, Sessions as _, tests::session},
        testing::{Store, each_backend},
    };

    fn saved(conn_id: &str, body: &str, used_ms: i64) -> SavedConnection {
        SavedConnection { conn_id: conn_id.to_owned(), body: body.to_owned(), used_ms }
    }

    async fn of(store: &Store, device: &str) -> Vec<String> {
        let saved = store.connections("@a:x", device).await.unwrap();
        saved.into_iter().map(|saved| format!("{}={}", saved.conn_id, saved.body)).collect()
    }

    #[test]
    fn the_newest_of_a_device_are_kept_as_long_as_there_is_one() {
        each_backend(|store| async move {
            let new =
                NewUser { user_id: "@a:x".into(), password_hash: Some("hash".into()), admin: false, created_ms: 1 };
            store.register(new, None, None).await.unwrap();
            for (n, device) in ["A", "B"].into_iter().enumerate() {
                let token = u8::try_from(n).unwrap();
                store.login("@a:x", Some("hash"), session(device, token)).await.unwrap();
            }
            let save = async |device: &str, all: &[SavedConnection]| {
                store.save_connections("@a:x", device, all.to_vec(), 3).await.unwrap();
            };
            save("A", &[saved("a", "1", 10), saved("b", "1", 11)]).await;
            save("B", &[saved("a", "other", 10)]).await;
            save("A", &[saved("a", "2", 12), saved("b", "0", 9)]).await;
            assert_eq!(of(&store, "A").await, ["a=2", "b=1"], "an older word is none");
            save("A", &[saved("c", "1", 13), saved("d", "1", 14)]).await;
            assert_eq!(of(&store, "A").await, ["d=1", "c=1", "a=2"]);
            // A device that is gone, or begins anew, has none.
            let ending = Ending { at_ms: 20, job_id: "j".into() };
            store.end_sessions("@a:x", vec!["A".into()], ending).await.unwrap();
            save("A", &[saved("a", "3", 15)]).await;
            assert_eq!((of(&store, "A").await, of(&store, "B").await), (vec![], vec!["a=other".to_owned()]));
            store.login("@a:x", Some("hash"), session("B", 7)).await.unwrap();
            assert!(of(&store, "B").await.is_empty());
        });
    }
}
