//! The directory: the names of rooms, and the list of those that show themselves to strangers.

use std::sync::Arc;

use hearth_core::{Error, Kind, Result, limits::MAX_PAGE};
use hearth_storage::{Direction, Membership, RoomView, Storage, directory::ListedRoom};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, UserId,
    directory::{PublicRoomsChunk, PublicRoomsChunkInit, RoomTypeFilter},
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::{Value, json, value::to_raw_value};

use super::rooms::Rooms;

/// Rooms that are read at once.
const BATCH: i64 = 100;
/// How many rooms a page may look at to find those that a search lets through.
const MOST_LOOKED_AT: usize = 5_000;

/// Names rooms and lists them.
pub struct Directory {
    server_name: OwnedServerName,
    storage: Arc<dyn Storage>,
    rooms: Arc<Rooms>,
}

/// Which public rooms are asked for.
#[derive(Default)]
pub struct ListWish {
    pub limit: Option<u64>,
    /// Where the last page ended.
    pub since: Option<String>,
    /// What name, topic or alias have to contain.
    pub search: Option<String>,
    /// Only rooms of these types, unless it is empty.
    pub types: Vec<RoomTypeFilter>,
}

/// A page of public rooms.
pub struct List {
    pub rooms: Vec<PublicRoomsChunk>,
    pub next: Option<String>,
    pub before: Option<String>,
    pub total: i64,
}

impl Directory {
    pub fn new(server_name: OwnedServerName, storage: Arc<dyn Storage>, rooms: Arc<Rooms>) -> Arc<Self> {
        Arc::new(Self { server_name, storage, rooms })
    }

    pub fn server_name(&self) -> &OwnedServerName {
        &self.server_name
    }

    /// Gives a room a name. Any of its members may, as long as the name is free.
    pub async fn add_alias(&self, user: &UserId, alias: &RoomAliasId, room_id: &RoomId) -> Result<()> {
        if alias.server_name() != &*self.server_name {
            return Err(Error::invalid_param("Only aliases of this server can be given here"));
        }
        let room = self.joined(user, room_id).await?;
        if !self.storage.add_alias(alias.as_str(), room.room.room_sn, user.as_str()).await? {
            return Err(Error::new(Kind::Conflict, "The alias is taken"));
        }
        Ok(())
    }

    async fn joined(&self, user: &UserId, room_id: &RoomId) -> Result<RoomView> {
        let view = self.storage.room_view(room_id.as_str(), user.as_str()).await?;
        let is_in = |m: &Membership| m.membership == "join";
        view.filter(|view| view.membership.as_ref().is_some_and(is_in))
            .ok_or_else(|| Error::forbidden("You are not in this room"))
    }

    /// Whether the user has the power to name the room: what it takes to delete names that others gave, and to publish.
    async fn may_name(&self, user: &UserId, room_id: &RoomId) -> Result<bool> {
        match self.joined(user, room_id).await {
            Ok(_) => {}
            Err(Error::Matrix { .. }) => return Ok(false),
            Err(other) => return Err(other),
        }
        let head = self.rooms.load_head(room_id).await?;
        Ok(self.rooms.power(&head).await?.may_send_state(user, &TimelineEventType::RoomCanonicalAlias))
    }

    /// Takes a name away: one's own, or anybody's with the power to.
    pub async fn delete_alias(&self, user: &UserId, alias: &RoomAliasId) -> Result<()> {
        let unknown = || Error::not_found("There is no such room alias");
        let found = self.storage.alias(alias.as_str()).await?.ok_or_else(unknown)?;
        let room_id = OwnedRoomId::try_from(found.room_id).map_err(Error::internal)?;
        if found.creator != user.as_str() && !self.may_name(user, &room_id).await? {
            return Err(Error::forbidden("This is not your alias"));
        }
        if !self.storage.delete_alias(alias.as_str()).await? {
            return Err(unknown());
        }
        match self.drop_from_room(user, alias, &room_id).await {
            // The room goes on calling itself so until somebody changes it who may.
            Err(Error::Matrix { kind: Kind::Forbidden | Kind::NotFound, .. }) => Ok(()),
            done => done,
        }
    }

    /// The room no longer calls itself what doesn't lead to it any more.
    async fn drop_from_room(&self, user: &UserId, alias: &RoomAliasId, room_id: &RoomId) -> Result<()> {
        let head = self.rooms.load_head(room_id).await?;
        let Some((_, named)) = self.rooms.current(&head, "m.room.canonical_alias", "").await? else { return Ok(()) };
        let mut content: serde_json::Map<String, Value> = named.content_as()?;
        let before = content.clone();
        if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
            content.remove("alias");
        }
        if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
            others.retain(|other| other.as_str() != Some(alias.as_str()));
            if others.is_empty() {
                content.remove("alt_aliases");
            }
        }
        if content == before {
            return Ok(());
        }
        let content = to_raw_value(&json!(content)).map_err(Error::internal)?;
        self.rooms.set_state(room_id, user, StateEventType::RoomCanonicalAlias, "", content).await?;
        Ok(())
    }

    /// All names of a room.
    pub async fn aliases(&self, room_sn: i64) -> Result<Vec<String>> {
        Ok(self.storage.aliases_of(room_sn).await?)
    }

    /// Whether the list of public rooms shows the room.
    pub async fn is_public(&self, room_id: &RoomId) -> Result<bool> {
        let published = self.storage.is_published(room_id.as_str()).await?;
        published.ok_or_else(|| Error::not_found("Unknown room"))
    }

    /// Puts a room on the list of public rooms, or takes it off.
    pub async fn publish(&self, user: &UserId, room_id: &RoomId, published: bool) -> Result<()> {
        if !self.may_name(user, room_id).await? {
            return Err(Error::forbidden("You don't have the power to publish this room"));
        }
        let room = self.joined(user, room_id).await?;
        Ok(self.storage.publish_room(room.room.room_sn, published).await?)
    }

    /// A page of the list of public rooms, the largest first.
    pub async fn list(&self, wish: ListWish) -> Result<List> {
        let limit = usize::try_from(wish.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE)).unwrap_or(1);
        let search = wish.search.filter(|s| !s.is_empty()).map(|s| s.to_lowercase());
        let (mut at, direction) = match &wish.since {
            Some(token) => place(token).ok_or_else(|| Error::invalid_param("There is no such page"))?,
            None => ((i64::MAX, i64::MAX), Direction::Forward),
        };
        let (mut rooms, mut keys, mut looked_at, mut goes_on) = (Vec::new(), Vec::new(), 0, false);
        'pages: loop {
            let page = self.storage.published_rooms(at, direction, BATCH).await?;
            let last_page = page.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
            for room in &page {
                if rooms.len() == limit || looked_at == MOST_LOOKED_AT {
                    goes_on = true;
                    break 'pages;
                }
                at = (room.joined, room.room_sn);
                looked_at += 1;
                let shown = show(room)?;
                if search.as_deref().is_none_or(|search| mentions(&shown, search)) && fits(&shown, &wish.types) {
                    rooms.push(shown);
                    keys.push(at);
                }
            }
            if last_page {
                break;
            }
        }
        let further = goes_on.then(|| token(at, direction));
        // Where there is a page before this one, it ends at the first room of this.
        let opposite = if direction == Direction::Forward { Direction::Back } else { Direction::Forward };
        let came_from = wish.since.and(keys.first()).map(|first| token(*first, opposite));
        let total = self.storage.published_rooms_count().await?;
        Ok(match direction {
            Direction::Forward => List { rooms, next: further, before: came_from, total },
            Direction::Back => {
                rooms.reverse();
                List { rooms, next: came_from, before: further, total }
            }
        })
    }
}

/// A place in the list, and which way a page goes from there.
fn token((joined, room_sn): (i64, i64), direction: Direction) -> String {
    let way = if direction == Direction::Forward { 'f' } else { 'b' };
    format!("{way}_{joined}_{room_sn}")
}

fn place(token: &str) -> Option<((i64, i64), Direction)> {
    let mut parts = token.split('_');
    let direction = match parts.next()? {
        "f" => Direction::Forward,
        "b" => Direction::Back,
        _ => return None,
    };
    let at = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((at, direction))
}

fn mentions(room: &PublicRoomsChunk, search: &str) -> bool {
    let alias = room.canonical_alias.as_ref().map(|alias| alias.as_str());
    [room.name.as_deref(), room.topic.as_deref(), alias]
        .into_iter()
        .flatten()
        .any(|text| text.to_lowercase().contains(search))
}

fn fits(room: &PublicRoomsChunk, types: &[RoomTypeFilter]) -> bool {
    types.is_empty() || types.contains(&RoomTypeFilter::from(room.room_type.clone()))
}

/// What the list shows of a room.
pub(super) fn show(room: &ListedRoom) -> Result<PublicRoomsChunk> {
    #[derive(Deserialize)]
    struct Event {
        content: serde_json::Map<String, Value>,
    }
    let mut shown = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: room.joined.try_into().unwrap_or_default(),
        room_id: room.room_id.as_str().try_into().map_err(Error::internal)?,
        world_readable: false,
        guest_can_join: false,
    });
    for (kind, json) in &room.state {
        let Event { content } = serde_json::from_str(json).map_err(Error::internal)?;
        // Members write these contents: what has not the right form counts as not there.
        let text = |key: &str| content.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        match kind.as_str() {
            "m.room.create" => shown.room_type = text("type").map(Into::into),
            "m.room.name" => shown.name = text("name").map(str::to_owned),
            "m.room.topic" => shown.topic = text("topic").map(str::to_owned),
            "m.room.avatar" => shown.avatar_url = text("url").map(Into::into),
            "m.room.canonical_alias" => shown.canonical_alias = text("alias").and_then(|alias| alias.try_into().ok()),
            "m.room.join_rules" => shown.join_rule = text("join_rule").map(Into::into).unwrap_or_default(),
            "m.room.history_visibility" => {
                shown.world_readable = text("history_visibility") == Some("world_readable");
            }
            "m.room.guest_access" => shown.guest_can_join = text("guest_access") == Some("can_join"),
            _ => {}
        }
    }
    Ok(shown)
}
