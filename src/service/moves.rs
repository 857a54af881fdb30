//! Room upgrades, for those who go along: what somebody keeps of a room, they keep of its successor, too.

use std::sync::Arc;

use hearth_core::{Error, Kind, Result};
use hearth_storage::{Membership, Scope, StateOf, Storage};
use ruma::{RoomId, UserId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    account_data::{Piece, QUOTA, change},
    push_rules::PushRules,
    tags::RoomTags,
};

const DIRECT: &str = "m.direct";

/// Takes along what people keep of their rooms.
pub struct Moves {
    storage: Arc<dyn Storage>,
    tags: Arc<RoomTags>,
    push_rules: Arc<PushRules>,
}

impl Moves {
    pub fn new(storage: Arc<dyn Storage>, tags: Arc<RoomTags>, push_rules: Arc<PushRules>) -> Self {
        Self { storage, tags, push_rules }
    }

    /// The user has joined `to`, which says that it comes after `from`.
    pub async fn follow(&self, user: &UserId, from: &RoomId, to: &RoomId) -> Result<()> {
        if !self.is_one(user, from, to).await? {
            return Ok(());
        }
        let outcomes = [
            self.tags.copy(user, from, to).await,
            self.push_rules.copy(user, from, to).await,
            self.copy_direct(user, from, to).await,
        ];
        outcomes.into_iter().try_for_each(but_go_on)
    }

    /// Anybody may make a room that says so, and then it would stand among the chats with a friend. So the old room, which
    /// the user must have been in, has to say it as well; unless the user made the new one, before there is a tombstone.
    async fn is_one(&self, user: &UserId, from: &RoomId, to: &RoomId) -> Result<bool> {
        #[derive(serde::Deserialize)]
        struct Tombstone {
            content: Closed,
        }
        #[derive(serde::Deserialize)]
        struct Closed {
            replacement_room: Option<String>,
        }
        #[derive(serde::Deserialize)]
        struct Create {
            sender: String,
        }
        let was_in = |m: &Membership| matches!(m.membership.as_str(), "join" | "leave");
        let view = self.storage.room_view(from.as_str(), user.as_str()).await?;
        let Some(old) = view.filter(|view| view.membership.as_ref().is_some_and(was_in)) else { return Ok(false) };
        let closed: Option<Tombstone> = self.state(old.room.room_sn, "m.room.tombstone").await?;
        if closed.is_some_and(|closed| closed.content.replacement_room.as_deref() == Some(to.as_str())) {
            return Ok(true);
        }
        let Some(new) = self.storage.room(to.as_str()).await? else { return Ok(false) };
        let create: Option<Create> = self.state(new.room_sn, "m.room.create").await?;
        Ok(create.is_some_and(|create| create.sender == user.as_str()))
    }

    /// A key of a room's state; None also if it is not what it should be.
    async fn state<T: DeserializeOwned>(&self, room_sn: i64, kind: &str) -> Result<Option<T>> {
        let key = StateOf::Key(kind.to_owned(), String::new());
        let found = self.storage.state(room_sn, key, None).await?;
        Ok(found.first().and_then(|event| serde_json::from_str(&event.json).ok()))
    }

    /// Whoever the user talks to in the old room, they talk to in the new one.
    async fn copy_direct(&self, user: &UserId, from: &RoomId, to: &RoomId) -> Result<()> {
        let piece = Piece { user, scope: Scope::Global, kind: DIRECT, quota: Some(QUOTA) };
        change(&*self.storage, piece, |stored| {
            let Some(Ok(mut direct)) = stored.map(serde_json::from_str::<Map<String, Value>>) else { return Ok(None) };
            let before = direct.clone();
            for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
                if rooms.contains(&json!(from)) && !rooms.contains(&json!(to)) {
                    rooms.push(json!(to));
                }
            }
            Ok((direct != before).then(|| Value::Object(direct).to_string()))
        })
        .await
    }
}

/// Who keeps as much of a kind as they may takes no more of it along, now or later; anything else is worth another try.
fn but_go_on(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(Error::Matrix { kind, message }) if kind != Kind::Unavailable => {
            tracing::debug!(?kind, %message, "something that is kept of a room was not taken along");
            Ok(())
        }
        other => other,
    }
}
