//! How events relate to each other: what an event says of the one that it belongs to.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use std::borrow::Cow;

use ruma::{OwnedEventId, events::TimelineEventType};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Result, event::Pdu, limits::MAX_ID_BYTES};

/// A reaction, most of all.
pub const ANNOTATION: &str = "m.annotation";
/// An edit.
pub const REPLACE: &str = "m.replace";
pub const REFERENCE: &str = "m.reference";
pub const THREAD: &str = "m.thread";

/// The longest key of an annotation.
pub const MAX_KEY_BYTES: usize = 500;

/// What an event says of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The other event, which may be none that is here, or of another room.
    pub target: OwnedEventId,
    pub rel_type: String,
    /// What an annotation says.
    pub key: Option<String>,
    /// Whether the event has what it takes to replace another, for all that can be told without the other.
    pub can_replace: bool,
}

/// Where a content says what it relates to. Content is canonical, so the name stands there as it is.
const NAME: &str = "m.relates_to";

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(rename = "m.relates_to", borrow)]
    relates_to: RelatesTo<'a>,
    #[serde(rename = "m.new_content", borrow)]
    new_content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RelatesTo<'a> {
    #[serde(borrow)]
    rel_type: Cow<'a, str>,
    event_id: OwnedEventId,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
}

impl<'a> Content<'a> {
    /// What is said in another form than the specification's says nothing.
    fn of(content: &'a RawValue) -> Option<Self> {
        if !content.get().contains(NAME) {
            return None;
        }
        let content: Self = serde_json::from_str(content.get()).ok()?;
        let RelatesTo { rel_type, event_id, .. } = &content.relates_to;
        let is_name = |name: &str| !name.is_empty() && name.len() <= MAX_ID_BYTES && !name.contains('\0');
        (is_name(rel_type) && is_name(event_id.as_str())).then_some(content)
    }
}

impl Relation {
    pub fn of(pdu: &Pdu) -> Option<Self> {
        let Content { relates_to, new_content } = Content::of(&pdu.content)?;
        let RelatesTo { rel_type, event_id: target, key } = relates_to;
        let key = key.and_then(|key| serde_json::from_str(key.get()).ok());
        let is_new = new_content.is_some_and(|new| new.get().starts_with('{'));
        // What replaces an encrypted event says with what in the encrypted part.
        let can_replace = pdu.state_key.is_none() && (is_new || pdu.event_type == TimelineEventType::RoomEncrypted);
        Some(Self { target, rel_type: rel_type.into_owned(), key, can_replace })
    }

    /// What can be refused of an event of our own users, without a look at others.
    pub fn check(&self) -> Result<()> {
        match (self.rel_type.as_str(), &self.key) {
            (ANNOTATION, None) => Err(Error::invalid_param("An annotation has a `key`")),
            (ANNOTATION, Some(key)) if key.len() > MAX_KEY_BYTES || key.contains('\0') => {
                Err(Error::invalid_param(format!("The key of an annotation has at most {MAX_KEY_BYTES} bytes")))
            }
            _ => Ok(()),
        }
    }
}

/// What there is to know of an event, given as JSON, about those that relate to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    pub sender: String,
    pub kind: String,
    pub is_state: bool,
    /// How it relates itself to another.
    pub rel_type: Option<String>,
}

impl Parent {
    pub fn of(json: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Event<'a> {
            sender: String,
            #[serde(rename = "type")]
            kind: String,
            #[serde(borrow)]
            state_key: Option<&'a RawValue>,
            #[serde(borrow)]
            content: &'a RawValue,
        }
        let event: Event<'_> = serde_json::from_str(json).map_err(Error::internal)?;
        let content = Content::of(event.content);
        Ok(Self {
            sender: event.sender,
            kind: event.kind,
            is_state: event.state_key.is_some(),
            rel_type: content.map(|content| content.relates_to.rel_type.into_owned()),
        })
    }

    /// Nothing that relates to another can be the root of a thread.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#threading>
    pub fn can_be_root(&self) -> bool {
        !self.is_state && self.rel_type.is_none()
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>
    pub fn can_be_replaced(&self) -> bool {
        !self.is_state && self.rel_type.as_deref() != Some(REPLACE)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, event_id, room_id};
    use serde_json::{Value, json};

    use super::*;
    use crate::room_version::RoomVersion;

    fn event(kind: &str, state_key: Option<&str>, content: &Value) -> Pdu {
        let mut json = json!({
            "sender": "@a:x", "type": kind, "content": content, "origin_server_ts": 1, "prev_events": [],
            "auth_events": [], "depth": 1,
        });
        if let Some(key) = state_key {
            json["state_key"] = key.into();
        }
        let version = RoomVersion::get(&RoomVersionId::V11).expect("a version that is held");
        let pdu = Pdu::parse(json.to_string().into(), event_id!("$e").to_owned(), room_id!("!r:x").to_owned(), version);
        pdu.expect("an event")
    }

    fn of(relates_to: &Value) -> Option<Relation> {
        Relation::of(&event("m.room.message", None, &json!({ "body": "m", "m.relates_to": relates_to })))
    }

    #[test]
    fn an_event_says_what_it_belongs_to() {
        let thread = of(&json!({ "rel_type": "m.thread", "event_id": "$root", "key": 3 })).expect("a relation");
        assert_eq!((thread.target.as_str(), &*thread.rel_type, thread.key), ("$root", "m.thread", None));
        let reaction = of(&json!({ "rel_type": "m.annotation", "event_id": "$e", "key": "+" })).expect("a relation");
        assert_eq!(reaction.key.as_deref(), Some("+"));
        assert!(reaction.check().is_ok() && !reaction.can_replace);
        for key in [None, Some("x".repeat(501)), Some("a\0b".to_owned())] {
            assert!(Relation { key, ..reaction.clone() }.check().is_err());
        }
        let plain = event("m.room.message", None, &json!({ "body": "m.relates_to" }));
        assert_eq!(Relation::of(&plain), None);
    }

    #[test]
    fn what_is_no_relation_is_none() {
        let reply = json!({ "m.in_reply_to": { "event_id": "$e" } });
        let nameless = json!({ "rel_type": "", "event_id": "$e" });
        let long = json!({ "rel_type": "x".repeat(256), "event_id": "$e" });
        let nul = json!({ "rel_type": "m.th\0read", "event_id": "$e" });
        let number = json!({ "rel_type": 3, "event_id": "$e" });
        let no_id = json!({ "rel_type": "m.thread", "event_id": "e" });
        let list = json!([{ "rel_type": "m.thread", "event_id": "$e" }]);
        for bad in [reply, nameless, long, nul, number, no_id, list, json!(null), json!("m.thread")] {
            assert_eq!(of(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_replacement_brings_something_new() {
        let relates_to = json!({ "rel_type": "m.replace", "event_id": "$e" });
        let can = |kind: &str, state_key: Option<&str>, content: &Value| {
            Relation::of(&event(kind, state_key, content)).expect("a relation").can_replace
        };
        let with = json!({ "m.new_content": {}, "m.relates_to": relates_to });
        let without = json!({ "m.relates_to": relates_to });
        assert!(can("m.room.message", None, &with));
        assert!(!can("m.room.message", None, &without));
        assert!(!can("m.room.message", None, &json!({ "m.new_content": "x", "m.relates_to": relates_to })));
        assert!(!can("m.room.topic", Some(""), &with));
        assert!(can("m.room.encrypted", None, &without));
    }

    #[test]
    fn a_parent_is_known_by_its_json() {
        let parent = |kind: &str, key: Option<&str>, content: &Value| {
            Parent::of(&event(kind, key, content).json).expect("an event")
        };
        let plain =
            parent("m.room.message", None, &json!({ "m.relates_to": { "m.in_reply_to": { "event_id": "$e" } } }));
        assert!(plain.can_be_root() && plain.can_be_replaced());
        assert_eq!((plain.sender.as_str(), plain.kind.as_str()), ("@a:x", "m.room.message"));
        let relating = |rel_type: &str| json!({ "m.relates_to": { "rel_type": rel_type, "event_id": "$e" } });
        let edit = parent("m.room.message", None, &relating("m.replace"));
        assert!(!edit.can_be_root() && !edit.can_be_replaced());
        let threaded = parent("m.room.message", None, &relating("m.thread"));
        assert!(!threaded.can_be_root() && threaded.can_be_replaced());
        let state = parent("m.room.topic", Some(""), &json!({}));
        assert!(!state.can_be_root() && !state.can_be_replaced());
    }
}
