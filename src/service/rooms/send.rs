//! Messages, state and redactions.

use hearth_core::{Error, Kind, Result, canonical, power::Power};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Rooms,
    write::{AUTHORISED_BY, Head, Intent, Part, Txn, Wish},
};

/// A message event as a client sends it.
pub struct Message {
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub event_type: TimelineEventType,
    pub content: Box<RawValue>,
}

struct Send(Part);

impl Intent for Send {
    fn sender(&self) -> Option<&UserId> {
        Some(&self.0.sender)
    }

    async fn wish(&self, _: &Rooms, _: &Head) -> Result<Wish> {
        Ok(Wish::Write(vec![self.0.clone()]))
    }
}

struct SetState(Part);

impl Intent for SetState {
    async fn wish(&self, rooms: &Rooms, head: &Head) -> Result<Wish> {
        let part = &self.0;
        let state_key = part.state_key.as_deref().unwrap_or_default();
        if let Some((sn, current)) = rooms.current(head, &part.event_type.to_string(), state_key).await?
            && current.sender == part.sender
            && same_json(&current.content, &part.content)
            // What is cached may have been redacted by another process.
            && rooms.storage.events_by_sn(vec![sn]).await?.iter().all(|e| e.redacted_by.is_none())
        {
            rooms.must_be_in(head, &part.sender).await?;
            return Ok(Wish::Nothing(current.event_id.clone()));
        }
        if part.event_type == TimelineEventType::RoomPowerLevels {
            rooms.check_levels(head, &part.content).await?;
        }
        Ok(Wish::Write(vec![rooms.admitted(head, part.clone()).await?]))
    }
}

struct Redact {
    part: Part,
    target: OwnedEventId,
}

impl Intent for Redact {
    fn sender(&self) -> Option<&UserId> {
        Some(&self.part.sender)
    }

    async fn wish(&self, rooms: &Rooms, head: &Head) -> Result<Wish> {
        rooms.check_redaction(head, &self.part.sender, &self.target).await?;
        Ok(Wish::Write(vec![self.part.clone()]))
    }
}

impl Rooms {
    /// Sends an event that is no state. A repeat of the transaction answers with the first event.
    pub async fn send(&self, message: Message, txn: Txn) -> Result<OwnedEventId> {
        if message.event_type == TimelineEventType::RoomRedaction {
            let target = redacts(&message.content)?;
            return self.redact(&message.room_id, &message.sender, &target, message.content, txn).await;
        }
        let part = Part {
            sender: message.sender,
            event_type: message.event_type,
            state_key: None,
            content: message.content,
            redacts: None,
            authorised_by: None,
            successor: None,
        };
        last(self.write(&message.room_id, Some(&txn), &Send(part)).await?)
    }

    /// Sets a key of the state. If the key has this very content already, by the same sender, nothing is sent.
    pub async fn set_state(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        event_type: StateEventType,
        state_key: &str,
        content: Box<RawValue>,
    ) -> Result<OwnedEventId> {
        let kind = event_type.to_string();
        if event_type == StateEventType::RoomCreate {
            return Err(Error::invalid_param("A room is created only once"));
        }
        let mut part = Part::state(sender, &kind, state_key, content);
        if part.event_type == TimelineEventType::RoomMember {
            let user = <&UserId>::try_from(state_key).map_err(|_| Error::bad_json("The state key is not a user id"))?;
            self.must_be_local(user)?;
            part.content = without_authorisation(part.content)?;
        }
        if part.event_type == TimelineEventType::RoomCanonicalAlias {
            self.check_aliases(room_id, &part.content).await?;
        }
        last(self.write(room_id, None, &SetState(part)).await?)
    }

    /// What the rules would refuse as forbidden is a mistake in the request: from version 12 on creators have no level.
    async fn check_levels(&self, head: &Head, content: &RawValue) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Content {
            #[serde(default)]
            users: std::collections::HashMap<String, serde::de::IgnoredAny>,
        }
        if !head.version.rules.authorization.explicitly_privilege_room_creators {
            return Ok(());
        }
        let Ok(Content { users }) = serde_json::from_str(content.get()) else { return Ok(()) };
        let power = self.power(head).await?;
        match power.creators().iter().any(|creator| users.contains_key(creator.as_str())) {
            true => Err(super::create::no_level_for_creators()),
            false => Ok(()),
        }
    }

    /// What a room calls itself must lead to it, as far as that is new.
    async fn check_aliases(&self, room_id: &RoomId, content: &RawValue) -> Result<()> {
        let named = Aliases::of(content).map_err(|e| Error::bad_json(e.to_string()))?;
        let head = self.load_head(room_id).await?;
        let before = self.current(&head, "m.room.canonical_alias", "").await?;
        let before = before.and_then(|(_, pdu)| Aliases::of(&pdu.content).ok()).unwrap_or_default();
        let fresh: Vec<&str> = named.all().filter(|alias| before.all().all(|known| known != *alias)).collect();
        for alias in &fresh {
            <&RoomAliasId>::try_from(*alias)
                .map_err(|_| Error::invalid_param(format!("{alias} is not a room alias")))?;
        }
        for alias in fresh {
            if self.storage.alias(alias).await?.is_none_or(|found| found.room_id != room_id.as_str()) {
                return Err(Error::new(Kind::BadAlias, format!("{alias} does not lead to this room")));
            }
        }
        Ok(())
    }

    /// Redacts an event of the room: one's own, or anybody's with the power to.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#redactions>
    pub async fn redact(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &EventId,
        content: Box<RawValue>,
        txn: Txn,
    ) -> Result<OwnedEventId> {
        let part = Part {
            sender: sender.to_owned(),
            event_type: TimelineEventType::RoomRedaction,
            state_key: None,
            content,
            redacts: Some(target.to_owned()),
            authorised_by: None,
            successor: None,
        };
        last(self.write(room_id, Some(&txn), &Redact { part, target: target.to_owned() }).await?)
    }

    async fn check_redaction(&self, head: &Head, sender: &UserId, target: &EventId) -> Result<()> {
        let found = self.storage.events_by_id(vec![target.to_string()]).await?;
        let event = found
            .into_iter()
            .find(|e| e.room_sn == head.sn)
            .ok_or_else(|| Error::not_found("There is no such event in this room"))?;
        let target = super::state::parse_stored(head.in_room(), event)?;
        if target.event_type == TimelineEventType::RoomCreate {
            return Err(Error::forbidden("The create event can't be redacted"));
        }
        let power = self.power(head).await?;
        if !power.may_redact(sender, &target.sender) {
            return Err(Error::forbidden("You don't have the power to redact this event"));
        }
        Ok(())
    }

    /// Who may do what in the room now.
    pub async fn power(&self, head: &Head) -> Result<Power> {
        let levels = self.current(head, "m.room.power_levels", "").await?;
        let (_, create) = self
            .current(head, "m.room.create", "")
            .await?
            .ok_or_else(|| Error::internal(format!("room {} has no create event", head.id)))?;
        Power::new(head.version, &create, levels.as_ref().map(|(_, pdu)| &**pdu))
    }
}

/// The names in the content of an `m.room.canonical_alias`.
#[derive(Default, serde::Deserialize)]
pub(super) struct Aliases {
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Vec<String>,
}

impl Aliases {
    pub(super) fn of(content: &RawValue) -> serde_json::Result<Self> {
        serde_json::from_str(content.get())
    }

    /// An empty one is how some clients take the name away.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.alias.iter().filter(|alias| !alias.is_empty()).chain(&self.alt_aliases).map(String::as_str)
    }
}

pub(super) fn last(ids: Vec<OwnedEventId>) -> Result<OwnedEventId> {
    ids.into_iter().next_back().ok_or_else(|| Error::internal("a write without event"))
}

/// Clients send back what they read in a member event; who vouched for somebody is not theirs to say.
fn without_authorisation(content: Box<RawValue>) -> Result<Box<RawValue>> {
    if !content.get().contains(AUTHORISED_BY) {
        return Ok(content);
    }
    let mut object = canonical::parse_object(content.get())?;
    object.remove(AUTHORISED_BY);
    to_raw_value(&object).map_err(Error::internal)
}

/// Whether two texts are the same JSON.
fn same_json(a: &RawValue, b: &RawValue) -> bool {
    a.get() == b.get()
        || serde_json::from_str::<serde_json::Value>(a.get()).ok()
            == serde_json::from_str::<serde_json::Value>(b.get()).ok()
}

/// The target of a redaction that is sent as an ordinary event.
fn redacts(content: &RawValue) -> Result<OwnedEventId> {
    #[derive(serde::Deserialize)]
    struct Content {
        redacts: Option<OwnedEventId>,
    }
    serde_json::from_str::<Content>(content.get())
        .map_err(|e| Error::bad_json(e.to_string()))?
        .redacts
        .ok_or_else(|| Error::missing_param("A redaction needs `redacts`"))
}
