//! An event as push rules look at it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::RangeBounds as _,
};

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::room::power_levels::UserPowerLevel,
    push::{RoomMemberCountIs, ScalarJsonValue},
};
use serde_json::Value;

use super::{
    Counts,
    names::{self, CalledBy},
    rules::Rules,
};
use crate::{Error, Result, event::Pdu, power::Power};

/// Where an event says whom it mentions.
pub(super) const MENTIONED: &str = r"content.m\.mentions.user_ids";

/// Which thread of its room an event belongs to.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#threading>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Main,
    /// The thread of this root.
    Thread(OwnedEventId),
    /// Wherever this event is, to which it relates in another way.
    With(OwnedEventId),
}

/// An event as push rules look at it.
pub struct Subject {
    /// What the event has, by the path to it.
    flat: BTreeMap<String, Value>,
    room_id: OwnedRoomId,
    member_count: UInt,
    power: Option<Power>,
    /// In lower case.
    body: Option<String>,
    says_mentions: bool,
    place: Place,
}

/// What an event is to somebody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concern {
    /// It says that it mentions them.
    pub mentioned: bool,
    /// Their display name is in its text,
    pub named: bool,
    /// or the part of their id that is theirs.
    pub called: bool,
    /// It is the state of something that is called after them.
    pub about: bool,
}

impl Concern {
    pub fn mention() -> Self {
        Self { mentioned: true, ..Self::default() }
    }

    pub fn call(by: CalledBy) -> Self {
        Self { named: by == CalledBy::DisplayName, called: by == CalledBy::Localpart, ..Self::default() }
    }
}

impl Subject {
    /// `member_count` is that of the joined members.
    pub fn new(pdu: &Pdu, room_id: &RoomId, member_count: i64) -> Result<Self> {
        let content = serde_json::from_str(pdu.content.get()).map_err(Error::internal)?;
        let mut flat = BTreeMap::new();
        flatten(&mut flat, "content".to_owned(), content);
        let says = |path: &String| *path == r"content.m\.mentions" || path.starts_with(r"content.m\.mentions.");
        let says_mentions = flat.keys().any(says);
        let text = |text: &str| Value::String(text.to_owned());
        flat.insert("event_id".to_owned(), text(pdu.event_id.as_str()));
        flat.insert("origin_server_ts".to_owned(), u64::from(pdu.origin_server_ts.get()).into());
        flat.insert("room_id".to_owned(), text(room_id.as_str()));
        flat.insert("sender".to_owned(), text(pdu.sender.as_str()));
        flat.insert("type".to_owned(), text(&pdu.event_type.to_string()));
        if let Some(key) = &pdu.state_key {
            flat.insert("state_key".to_owned(), text(key));
        }
        let place = if pdu.state_key.is_some() { Place::Main } else { place_of(&flat) };
        Ok(Self {
            body: flat.get("content.body").and_then(Value::as_str).map(str::to_lowercase),
            flat,
            room_id: room_id.to_owned(),
            member_count: UInt::try_from(member_count).unwrap_or_default(),
            power: None,
            says_mentions,
            place,
        })
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Who may do what in the room: asked for by some rules, see [`Rules::asks_for_power`].
    pub fn set_power(&mut self, power: Power) {
        self.power = Some(power);
    }

    /// The text in which to look for the names of members, in lower case. A sender who says whom they mention calls
    /// nobody else.
    pub fn text(&self) -> Option<&str> {
        let says = self.says_mentions || self.flat.contains_key("state_key");
        self.body().filter(|text| !says && !text.is_empty())
    }

    /// Those whom the sender says that it is meant for, in that order.
    pub fn mentioned(&self) -> Vec<OwnedUserId> {
        let users = self.flat.get(MENTIONED).and_then(Value::as_array).into_iter().flatten();
        let ids = users.filter_map(Value::as_str).filter(|id| !id.contains('\0'));
        let mut seen = BTreeSet::new();
        ids.filter(|id| seen.insert(*id)).filter_map(|id| OwnedUserId::try_from(id).ok()).collect()
    }

    /// What it is to a member who calls themselves so in the room.
    pub fn concern(&self, user: &UserId, display_name: Option<&str>) -> Concern {
        let mentions = |id: &Value| id.as_str().is_some_and(|id| id == user);
        let names = |name: &str| self.body().is_some_and(|text| names::is_called(name, text));
        Concern {
            mentioned: self.flat.get(MENTIONED).and_then(Value::as_array).is_some_and(|all| all.iter().any(mentions)),
            named: display_name.is_some_and(names),
            called: names(user.localpart()),
            about: self.text_at("state_key").is_some_and(|key| key == user),
        }
    }

    /// What members with untouched rules are told whom it doesn't concern.
    pub fn by_default(&self) -> Counts {
        Rules::untouched().counts_for_all(self)
    }

    /// What those of them are told whom it does.
    pub fn by_default_if(&self, concern: Concern) -> Counts {
        Rules::untouched().counts(self, concern)
    }

    pub fn is_by(&self, user: &UserId) -> bool {
        self.text_at("sender").is_some_and(|sender| sender == user)
    }

    /// The user whose state it is, if its key is one.
    pub fn is_about(&self) -> Option<&UserId> {
        self.text_at("state_key")?.try_into().ok()
    }

    pub(super) fn text_at(&self, path: &str) -> Option<&str> {
        self.flat.get(path).and_then(Value::as_str)
    }

    /// In lower case.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    pub(super) fn is(&self, path: &str, value: &ScalarJsonValue) -> bool {
        self.flat.get(path).is_some_and(|found| is_same(found, value))
    }

    pub(super) fn contains(&self, path: &str, value: &ScalarJsonValue) -> bool {
        let found = self.flat.get(path).and_then(Value::as_array);
        found.is_some_and(|found| found.iter().any(|found| is_same(found, value)))
    }

    pub(super) fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    pub(super) fn has_members(&self, is: RoomMemberCountIs) -> bool {
        is.contains(&self.member_count)
    }

    pub(super) fn sender_may(&self, key: &str) -> bool {
        let sender = self.text_at("sender").and_then(|sender| <&UserId>::try_from(sender).ok());
        let (Some(power), Some(sender)) = (&self.power, sender) else { return false };
        power.user(sender) >= UserPowerLevel::Int(power.notification(key))
    }

    pub(super) fn says_whom_it_mentions(&self) -> bool {
        self.says_mentions
    }
}

/// <https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths>
fn flatten(flat: &mut BTreeMap<String, Value>, path: String, value: Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let key = match key.contains(['\\', '.']) {
                    true => Cow::Owned(key.replace('\\', r"\\").replace('.', r"\.")),
                    false => Cow::Borrowed(key.as_str()),
                };
                flatten(flat, format!("{path}.{key}"), value);
            }
        }
        value => {
            flat.insert(path, value);
        }
    }
}

fn is_same(found: &Value, value: &ScalarJsonValue) -> bool {
    match value {
        ScalarJsonValue::Null => found.is_null(),
        ScalarJsonValue::Bool(value) => found.as_bool() == Some(*value),
        ScalarJsonValue::Integer(value) => found.as_i64() == Some((*value).into()),
        ScalarJsonValue::String(value) => found.as_str() == Some(value),
    }
}

/// A reaction or an edit is where that is which it belongs to.
fn place_of(flat: &BTreeMap<String, Value>) -> Place {
    let text = |path: &str| flat.get(path).and_then(Value::as_str);
    let target = text(r"content.m\.relates_to.event_id").filter(|id| !id.contains('\0'));
    let target = target.and_then(|id| OwnedEventId::try_from(id).ok());
    match (text(r"content.m\.relates_to.rel_type"), target) {
        (Some("m.thread"), Some(root)) => Place::Thread(root),
        (Some(_), Some(target)) => Place::With(target),
        _ => Place::Main,
    }
}
