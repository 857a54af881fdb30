//! Account data: what users keep here for themselves.

use std::sync::Arc;

use hearth_core::{
    Error, Kind, Result,
    limits::{MAX_ACCOUNT_DATA_BYTES, MAX_ACCOUNT_DATA_ENTRIES, MAX_CONTENT_DEPTH, nests_at_most},
};
use hearth_storage::{
    Storage,
    account_data::{AccountDataChange, AccountDataSet, Quota, Scope},
};
use ruma::{RoomId, UserId};
use serde_json::{Map, Value, value::RawValue};

use super::session::Session;

/// Element keeps the direct chats of thousands of contacts in one piece.
const MAX_CONTENT_BYTES: usize = 512 << 10;
const MAX_KIND_BYTES: usize = 255;
/// What the server writes itself, by endpoints of their own.
const SERVER_MANAGED: [&str; 2] = ["m.fully_read", "m.push_rules"];

pub struct AccountData {
    storage: Arc<dyn Storage>,
}

impl AccountData {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// What the user keeps under this type, for one room or for the account.
    pub async fn get(
        &self,
        session: &Session,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
    ) -> Result<Box<RawValue>> {
        check(session, user, kind)?;
        let content = self.storage.account_data(user.as_str(), &scope(room), kind).await?;
        let content = content.ok_or_else(|| Error::not_found("There is no such account data"))?;
        RawValue::from_string(content).map_err(Error::internal)
    }

    /// Keeps something for the user under this type, for one room or for the account.
    pub async fn set(
        &self,
        session: &Session,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        content: &RawValue,
    ) -> Result<()> {
        check(session, user, kind)?;
        if SERVER_MANAGED.contains(&kind) {
            return Err(Error::new(Kind::ReadOnly, format!("{kind} can't be set through this API")));
        }
        if content.get().len() > MAX_CONTENT_BYTES {
            return Err(Error::too_large(format!("Account data has at most {MAX_CONTENT_BYTES} bytes")));
        }
        // Written anew, so that what we serve later has no key twice and no number that isn't one.
        let content: Map<String, Value> =
            serde_json::from_str(content.get()).map_err(|_| Error::bad_json("Account data is a JSON object"))?;
        let content = Value::Object(content);
        if !nests_at_most(&content, MAX_CONTENT_DEPTH) {
            return Err(Error::bad_json(format!("Account data has at most {MAX_CONTENT_DEPTH} levels")));
        }
        let change = AccountDataChange {
            user_id: user.to_string(),
            scope: scope(room),
            kind: kind.to_owned(),
            content: Some(content.to_string()),
            expects: None,
            quota: Some(QUOTA),
        };
        match self.storage.set_account_data(change).await? {
            AccountDataSet::Done(_) => Ok(()),
            AccountDataSet::NoRoom => Err(Error::not_found("There is no such room")),
            AccountDataSet::Full => Err(full()),
            AccountDataSet::Stale => Err(Error::internal("account data was set without looking at what was there")),
        }
    }
}

/// Two devices of one user may change the same at the same time; five won't.
pub(super) const TRIES: usize = 5;

/// A piece of account data that is changed by what it is now.
pub(super) struct Piece<'a> {
    pub user: &'a UserId,
    pub scope: Scope,
    pub kind: &'static str,
    pub quota: Option<Quota>,
}

/// Changes a piece by what is stored of it, once more if somebody else does at the same time. None: it stays as it is.
pub(super) async fn change(
    storage: &dyn Storage,
    piece: Piece<'_>,
    change: impl Fn(Option<&str>) -> Result<Option<String>>,
) -> Result<()> {
    let Piece { user, scope, kind, quota } = piece;
    for _ in 0..TRIES {
        let stored = storage.account_data(user.as_str(), &scope, kind).await?;
        let Some(content) = change(stored.as_deref())? else { return Ok(()) };
        let change = AccountDataChange {
            user_id: user.to_string(),
            scope: scope.clone(),
            kind: kind.to_owned(),
            content: Some(content),
            expects: Some(stored),
            quota,
        };
        match storage.set_account_data(change).await? {
            AccountDataSet::Done(_) => return Ok(()),
            AccountDataSet::Stale => {}
            AccountDataSet::Full => return Err(full()),
            AccountDataSet::NoRoom => return Err(Error::not_found("There is no such room")),
        }
    }
    Err(Error::unavailable("Somebody else is changing this at the same time"))
}

/// The most that one user may keep here.
pub(super) const QUOTA: Quota = Quota { entries: MAX_ACCOUNT_DATA_ENTRIES, bytes: MAX_ACCOUNT_DATA_BYTES };

fn full() -> Error {
    Error::too_large(format!(
        "All account data of a user together is at most {MAX_ACCOUNT_DATA_ENTRIES} pieces and \
         {MAX_ACCOUNT_DATA_BYTES} bytes"
    ))
}

fn scope(room: Option<&RoomId>) -> Scope {
    room.map_or(Scope::Global, |room| Scope::Room(room.to_string()))
}

fn check(session: &Session, user: &UserId, kind: &str) -> Result<()> {
    if session.user_id != user {
        return Err(Error::forbidden("This is not your account data"));
    }
    if kind.len() > MAX_KIND_BYTES || kind.contains('\0') {
        return Err(Error::invalid_param(format!("A type has at most {MAX_KIND_BYTES} bytes")));
    }
    Ok(())
}
