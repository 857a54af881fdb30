//! A room goes on in another version: a new room takes over what the old one was, and the old one says where it went.
//!
//! The new room is whole before anybody hears of it. If the server dies between, the old room is as it was, and the
//! upgrade can be asked for again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use std::collections::HashMap;

use hearth_core::{Error, Kind, Result, power::Power, room_version::RoomVersion};
use ruma::{Int, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId, events::TimelineEventType};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    Rooms,
    create::{create_content, default_power_levels},
    write::{Head, Intent, Part, Wish},
};

/// State that goes with the room, apart from its power levels.
const CARRIED: [&str; 9] = [
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.canonical_alias",
];

/// Bans, and rooms of a space, that one commit takes over.
const AT_ONCE: usize = 500;
/// The most rooms of a space that go with it.
const MOST_CHILDREN: usize = 1_000;

/// What a client wants of the new room.
#[derive(Debug)]
pub struct Upgrade {
    pub version: RoomVersionId,
    pub additional_creators: Vec<OwnedUserId>,
}

/// The end of a room.
struct Close {
    user: OwnedUserId,
    successor: OwnedRoomId,
    successor_sn: i64,
    /// The tombstone that the room had before.
    closed_by: Option<i64>,
    /// Take the power to write from ordinary members, too.
    quieten: bool,
}

impl Intent for Close {
    async fn wish(&self, rooms: &Rooms, head: &Head) -> Result<Wish> {
        // Two successors would part those who are in the room.
        if rooms.tombstone(head).await? != self.closed_by {
            return Err(Error::bad_state("Somebody else has upgraded this room meanwhile"));
        }
        let content = json!({ "body": "This room has been replaced", "replacement_room": self.successor });
        let state = |kind: &str, content: &Value| -> Result<Part> {
            Ok(Part::state(&self.user, kind, "", to_raw_value(content).map_err(Error::internal)?))
        };
        let mut tombstone = state("m.room.tombstone", &content)?;
        tombstone.successor = Some(self.successor_sn);
        let mut parts = vec![tombstone];

        let power = rooms.power(head).await?;
        let named = rooms.current(head, "m.room.canonical_alias", "").await?;
        let named = named.is_some_and(|(_, pdu)| pdu.content.get() != "{}");
        if named && power.may_send_state(&self.user, &TimelineEventType::RoomCanonicalAlias) {
            parts.push(state("m.room.canonical_alias", &json!({}))?);
        }
        if self.quieten
            && power.may_send_state(&self.user, &TimelineEventType::RoomPowerLevels)
            && let Some((_, levels)) = rooms.current(head, "m.room.power_levels", "").await?
        {
            let mut levels: Map<String, Value> = levels.content_as()?;
            let least = power.users_default().saturating_add(Int::from(1u8)).max(Int::from(50u8));
            for (key, now) in [("events_default", power.events_default()), ("invite", power.invite())] {
                if now < least {
                    levels.insert(key.into(), i64::from(least).into());
                }
            }
            parts.push(state("m.room.power_levels", &levels.into())?);
        }
        Ok(Wish::Write(parts))
    }
}

/// State that one commit takes over.
struct Carry(Vec<Part>);

impl Intent for Carry {
    async fn wish(&self, _: &Rooms, _: &Head) -> Result<Wish> {
        Ok(Wish::Write(self.0.clone()))
    }
}

impl Rooms {
    /// Makes the successor of a room, and closes the room.
    pub async fn upgrade(&self, user: &UserId, room_id: &RoomId, wish: Upgrade) -> Result<OwnedRoomId> {
        let version = RoomVersion::for_create(&wish.version)?;
        let privileged = version.rules.authorization.explicitly_privilege_room_creators;
        if !privileged && !wish.additional_creators.is_empty() {
            return Err(Error::invalid_param(format!("Rooms of version {} have only one creator", version.id)));
        }
        let head = self.load_head(room_id).await?;
        self.must_be_in(&head, user).await?;
        let power = self.power(&head).await?;
        if !power.may_send_state(user, &TimelineEventType::RoomTombstone) {
            return Err(Error::forbidden("You don't have the power to upgrade this room"));
        }

        let (mut parts, creators) = self.successor(&head, user, version, wish.additional_creators, &power).await?;
        let closed_by = self.tombstone(&head).await?;
        let (bans, mut last) = self.bans_after(&head, user, &creators, "").await?;
        // Before there are power levels, who made the room has power enough for all of it.
        let levels = parts.pop().ok_or_else(|| Error::internal("a room without power levels"))?;
        parts.extend(bans);
        let mut levels = Some(levels);
        if last.is_none() {
            parts.extend(levels.take());
        }
        let successor = self.found(user, version, &parts, None, false).await?;
        while let Some(after) = last {
            let (mut rest, next) = self.bans_after(&head, user, &creators, &after).await?;
            if next.is_none() {
                rest.extend(levels.take());
            }
            if !rest.is_empty() {
                self.write(&successor, None, &Carry(rest)).await?;
            }
            last = next;
        }

        let successor_sn = self.load_head(&successor).await?.sn;
        let mut close =
            Close { user: user.to_owned(), successor: successor.clone(), successor_sn, closed_by, quieten: true };
        match self.write(room_id, None, &close).await {
            // Whoever has the power to close a room need not have that to take it from the others.
            Err(Error::Matrix { kind: Kind::Forbidden, .. }) => {
                close.quieten = false;
                self.write(room_id, None, &close).await?;
            }
            done => drop(done?),
        }
        Ok(successor)
    }

    /// The first events of the successor, the power levels last; and its creators.
    async fn successor(
        &self,
        head: &Head,
        user: &UserId,
        version: &'static RoomVersion,
        additional_creators: Vec<OwnedUserId>,
        power: &Power,
    ) -> Result<(Vec<Part>, Vec<String>)> {
        let mut parts = Vec::new();
        let mut state = |kind: &str, key: &str, content: Value| -> Result<()> {
            let content = to_raw_value(&content).map_err(Error::internal)?;
            parts.push(Part::state(user, kind, key, content));
            Ok(())
        };
        let create = self.current(head, "m.room.create", "").await?;
        let (_, create) = create.ok_or_else(|| Error::internal("a room without create event"))?;
        let mut content: Map<String, Value> = create.content_as()?;
        let is_space = content.get("type").is_some_and(|kind| kind == "m.space");
        content.remove("additional_creators");
        let mut predecessor = json!({ "room_id": head.id });
        if !version.hashes_room_id()
            && let Some(tip) = head.tips.last()
        {
            predecessor["event_id"] = tip.id.as_str().into();
        }
        content.insert("predecessor".into(), predecessor);
        let (content, creators) = create_content(user, version, content, &additional_creators)?;
        state("m.room.create", "", content.into())?;
        state("m.room.member", user.as_str(), self.creator_joins(user).await?.into())?;

        let mut carried = HashMap::new();
        for kind in CARRIED {
            if let Some((sn, _)) = self.current(head, kind, "").await? {
                carried.insert(sn, kind);
            }
        }
        // As it is stored: what is cached may have been redacted by another process.
        for event in self.storage.events_by_sn(carried.keys().copied().collect()).await? {
            let Some(kind) = carried.get(&event.sn) else { continue };
            let content: Map<String, Value> = super::state::parse_stored(head.in_room(), event)?.content_as()?;
            if !content.is_empty() {
                state(kind, "", content.into())?;
            }
        }
        if is_space {
            let children = hearth_storage::StateOf::Type("m.space.child".to_owned());
            for child in self.storage.state(head.sn, children, None).await?.into_iter().take(MOST_CHILDREN) {
                let child = super::state::parse_stored(head.in_room(), child)?;
                let content: Map<String, Value> = child.content_as()?;
                // Without content it is a room that was taken out.
                if let (Some(room), false) = (&child.state_key, content.is_empty()) {
                    state("m.space.child", room, content.into())?;
                }
            }
        }
        let levels = match self.current(head, "m.room.power_levels", "").await? {
            Some((_, pdu)) => carried_levels(pdu.content_as()?, power, &creators, head.version, version),
            None if version.rules.authorization.explicitly_privilege_room_creators => {
                default_power_levels(&Map::new(), true)
            }
            None => default_power_levels(&Map::from_iter([(user.to_string(), 100.into())]), false),
        };
        state("m.room.power_levels", "", levels.into())?;
        Ok((parts, creators))
    }

    /// What closed the room.
    async fn tombstone(&self, head: &Head) -> Result<Option<i64>> {
        Ok(self.current(head, "m.room.tombstone", "").await?.map(|(sn, _)| sn))
    }

    /// Some of the bans of a room, to be said again in its successor; and behind whom there may be more.
    async fn bans_after(
        &self,
        head: &Head,
        user: &UserId,
        creators: &[String],
        after: &str,
    ) -> Result<(Vec<Part>, Option<String>)> {
        #[derive(serde::Deserialize)]
        struct Event {
            content: Content,
        }
        #[derive(serde::Deserialize)]
        struct Content {
            reason: Option<Value>,
        }
        let page = self.storage.bans(head.sn, after, i64::try_from(AT_ONCE).unwrap_or(1)).await?;
        let last = page.last().filter(|_| page.len() == AT_ONCE).map(|(user, _)| user.clone());
        let mut parts = Vec::with_capacity(page.len());
        for (banned, json) in page {
            if creators.contains(&banned) {
                continue;
            }
            let mut content = json!({ "membership": "ban" });
            let reason = serde_json::from_str::<Event>(&json).ok().and_then(|event| event.content.reason);
            if let Some(reason) = reason.filter(Value::is_string) {
                content["reason"] = reason;
            }
            let content = to_raw_value(&content).map_err(Error::internal)?;
            parts.push(Part::state(user, "m.room.member", &banned, content));
        }
        Ok((parts, last))
    }
}

/// The power levels of the old room in the words of the new version.
fn carried_levels(
    mut levels: Map<String, Value>,
    power: &Power,
    creators: &[String],
    old: &RoomVersion,
    new: &RoomVersion,
) -> Map<String, Value> {
    integers(&mut levels);
    let were_privileged = old.rules.authorization.explicitly_privilege_room_creators;
    let are_privileged = new.rules.authorization.explicitly_privilege_room_creators;
    let highest = ["users", "events"].iter().filter_map(|key| levels.get(*key)?.as_object());
    let highest = highest.flat_map(Map::values).filter_map(Value::as_i64).max().unwrap_or(0).max(100);
    let mut in_map = |map: &str, change: &mut dyn FnMut(&mut Map<String, Value>)| {
        let map = levels.entry(map).or_insert_with(|| Value::Object(Map::new()));
        if let Some(map) = map.as_object_mut() {
            change(map);
        }
    };
    if are_privileged {
        in_map("users", &mut |users| users.retain(|user, _| !creators.contains(user)));
        if !were_privileged {
            // Only creators may close a room for ever where they have more power than anybody.
            in_map("events", &mut |events| {
                let now = events.get("m.room.tombstone").and_then(Value::as_i64).unwrap_or(0);
                events.insert("m.room.tombstone".into(), now.max(150).into());
            });
        }
    } else if were_privileged {
        in_map("users", &mut |users| {
            users.extend(power.creators().iter().map(|creator| (creator.to_string(), highest.into())));
        });
    }
    levels
}

/// Until version 10 numbers could be written as texts.
fn integers(levels: &mut Map<String, Value>) {
    for value in levels.values_mut() {
        match value {
            Value::String(text) => {
                if let Ok(number) = text.trim().parse::<i64>() {
                    *value = number.into();
                }
            }
            Value::Object(inner) => integers(inner),
            _ => {}
        }
    }
}
