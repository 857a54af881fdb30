//! Tags: under which headings a user sorts their rooms. Account data of a room, changed a piece at a time.

use std::sync::Arc;

use hearth_core::{Error, Result};
use hearth_storage::{Scope, Storage};
use ruma::{
    RoomId, UserId,
    events::tag::{TagInfo, Tags},
};
use serde_json::{Map, Value, json};

use super::{
    account_data::{Piece, QUOTA, change},
    session::Session,
};

const KIND: &str = "m.tag";
/// <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>
const MAX_TAG_BYTES: usize = 255;
const MAX_TAGS: usize = 100;

/// Tags rooms.
pub struct RoomTags {
    storage: Arc<dyn Storage>,
}

impl RoomTags {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// The tags of a room.
    pub async fn of(&self, session: &Session, user: &UserId, room_id: &RoomId) -> Result<Tags> {
        must_be_own(session, user)?;
        let (content, _) = self.load(user, room_id).await?;
        // Clients write this as account data, too: what is no tag is none.
        let tags = content.get("tags").and_then(Value::as_object).into_iter().flatten();
        Ok(tags.filter_map(|(tag, info)| Some((tag.as_str().into(), tag_info(info)?))).collect())
    }

    pub async fn add(
        &self,
        session: &Session,
        user: &UserId,
        room_id: &RoomId,
        tag: &str,
        info: &TagInfo,
    ) -> Result<()> {
        must_be_own(session, user)?;
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.contains('\0') {
            return Err(Error::invalid_param(format!("A tag has at most {MAX_TAG_BYTES} bytes")));
        }
        self.change(user, room_id, |tags| {
            tags.insert(tag.to_owned(), json!(info));
            match tags.len() > MAX_TAGS {
                true => Err(Error::invalid_param(format!("A room has at most {MAX_TAGS} tags"))),
                false => Ok(()),
            }
        })
        .await
    }

    pub async fn remove(&self, session: &Session, user: &UserId, room_id: &RoomId, tag: &str) -> Result<()> {
        must_be_own(session, user)?;
        self.change(user, room_id, |tags| {
            tags.remove(tag);
            Ok(())
        })
        .await
    }

    /// The content of the account data, and what is stored of it.
    async fn load(&self, user: &UserId, room_id: &RoomId) -> Result<(Map<String, Value>, Option<String>)> {
        let scope = Scope::Room(room_id.to_string());
        let stored = self.storage.account_data(user.as_str(), &scope, KIND).await?;
        Ok((parsed(stored.as_deref()), stored))
    }

    /// The tags of one room for another, unless the user has ever sorted that.
    pub(super) async fn copy(&self, user: &UserId, from: &RoomId, to: &RoomId) -> Result<()> {
        let (_, stored) = self.load(user, from).await?;
        change(&*self.storage, of(user, to), |there| Ok(stored.clone().filter(|_| there.is_none()))).await
    }

    async fn change(
        &self,
        user: &UserId,
        room_id: &RoomId,
        edit: impl Fn(&mut Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        change(&*self.storage, of(user, room_id), |stored| {
            let mut content = parsed(stored);
            let tags = content.entry("tags").or_insert_with(|| json!({}));
            if !tags.is_object() {
                *tags = json!({});
            }
            let before = tags.clone();
            if let Some(tags) = tags.as_object_mut() {
                edit(tags)?;
            }
            Ok((*tags != before).then(|| Value::Object(content).to_string()))
        })
        .await
    }
}

/// The account data that the tags of a room are.
fn of<'a>(user: &'a UserId, room_id: &RoomId) -> Piece<'a> {
    Piece { user, scope: Scope::Room(room_id.to_string()), kind: KIND, quota: Some(QUOTA) }
}

fn parsed(stored: Option<&str>) -> Map<String, Value> {
    stored.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

fn tag_info(info: &Value) -> Option<TagInfo> {
    serde_json::from_value(info.clone()).ok()
}

fn must_be_own(session: &Session, user: &UserId) -> Result<()> {
    if session.user_id == user { Ok(()) } else { Err(Error::forbidden("These are not your tags")) }
}
