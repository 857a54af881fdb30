//! Users who left and wanted what they said to be gone: who joins
//! a room after that gets redacted copies, who was there before keeps what they have.
//!
//! <https://spec.matrix.org/v1.18/client-server-api/#post_matrixclientv3accountdeactivate>

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use hearth_core::Result;
use hearth_storage::Storage;
use ruma::UserId;

/// Who was erased. All of them are in memory: any event may be by one, and reading events must not cost a look.
pub struct Erased {
    storage: Arc<dyn Storage>,
    /// Since which position.
    users: RwLock<HashMap<Box<str>, i64>>,
}

impl Erased {
    /// Reads who has been erased so far.
    pub async fn load(storage: Arc<dyn Storage>) -> Result<Arc<Self>> {
        let erased = Self { storage, users: RwLock::default() };
        erased.look(None).await?;
        Ok(Arc::new(erased))
    }

    /// Some of these users, or of all if it is not said whom, may have been erased by another process.
    pub async fn look(&self, among: Option<Vec<String>>) -> Result<()> {
        if among.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let found = self.storage.erased_users(among).await?;
        self.users
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(found.into_iter().map(|(user, at)| (user.into(), at)));
        Ok(())
    }

    /// Whether what this user said is not for somebody whose membership of the room changed like this.
    pub fn hides(&self, sender: &UserId, reader: &[(i64, String)]) -> bool {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.get(sender.as_str()).is_some_and(|at| !reader.iter().any(|(pos, now)| pos < at && now == "join"))
    }
}
