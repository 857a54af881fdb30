//! Power levels, parsed once for an event and asked many times.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>

use std::collections::{BTreeMap, HashSet};

use ruma::{
    Int, OwnedUserId, UserId,
    events::{TimelineEventType, room::power_levels::UserPowerLevel},
    int,
    room_version_rules::RoomPowerLevelsRules,
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};

use crate::{Error, Result, event::Pdu, room_version::RoomVersion};

/// Who may do what in a room.
#[derive(Debug, Clone)]
pub struct Power {
    users: BTreeMap<OwnedUserId, Int>,
    users_default: Int,
    events: BTreeMap<TimelineEventType, Int>,
    events_default: Int,
    state_default: Int,
    ban: Int,
    kick: Int,
    redact: Int,
    invite: Int,
    notifications: BTreeMap<String, Int>,
    creators: HashSet<OwnedUserId>,
    rules: RoomPowerLevelsRules,
}

impl Power {
    /// From the room's create event and its power levels, if it has any. Both were accepted into the state, so that they
    /// parse: an error is ours.
    pub fn new(version: &RoomVersion, create: &Pdu, levels: Option<&Pdu>) -> Result<Self> {
        let rules = &version.rules.authorization;
        let creators = RoomCreateEvent::new(create).creators(rules).map_err(Error::internal)?;
        let content = levels.map(RoomPowerLevelsEvent::new);
        let level = |field: RoomPowerLevelsIntField| match &content {
            Some(content) => content.get_as_int_or_default(field, rules).map_err(Error::internal),
            None => Ok(field.default_value()),
        };
        let (users, events, notifications) = match &content {
            Some(content) => (
                content.users(rules).map_err(Error::internal)?.cloned().unwrap_or_default(),
                content.events(rules).map_err(Error::internal)?.unwrap_or_default(),
                // Before room version 6 nobody checked these.
                content.notifications(rules).ok().flatten().unwrap_or_default(),
            ),
            // Whoever made the room runs it until it says otherwise.
            None => (creators.iter().map(|user| (user.clone(), int!(100))).collect(), BTreeMap::new(), BTreeMap::new()),
        };
        Ok(Self {
            users,
            users_default: level(RoomPowerLevelsIntField::UsersDefault)?,
            events,
            events_default: level(RoomPowerLevelsIntField::EventsDefault)?,
            state_default: level(RoomPowerLevelsIntField::StateDefault)?,
            ban: level(RoomPowerLevelsIntField::Ban)?,
            kick: level(RoomPowerLevelsIntField::Kick)?,
            redact: level(RoomPowerLevelsIntField::Redact)?,
            invite: level(RoomPowerLevelsIntField::Invite)?,
            notifications,
            rules: RoomPowerLevelsRules::new(rules, creators.iter().cloned()),
            creators,
        })
    }

    /// The sender of the create event, or who it names, and from version 12 on those made creators beside.
    pub fn creators(&self) -> &HashSet<OwnedUserId> {
        &self.creators
    }

    /// Creators, and whoever has a level of their own; some may be both.
    pub fn named(&self) -> impl Iterator<Item = &UserId> {
        self.creators.iter().chain(self.users.keys()).map(AsRef::as_ref)
    }

    pub fn users_default(&self) -> Int {
        self.users_default
    }

    pub fn events_default(&self) -> Int {
        self.events_default
    }

    /// From version 12 on creators stand above every number.
    pub fn user(&self, user: &UserId) -> UserPowerLevel {
        if self.rules.privileged_creators.as_ref().is_some_and(|creators| creators.contains(user)) {
            UserPowerLevel::Infinite
        } else {
            UserPowerLevel::Int(self.users.get(user).copied().unwrap_or(self.users_default))
        }
    }

    /// What it takes to send a message of this type.
    pub fn for_message(&self, event_type: &TimelineEventType) -> Int {
        self.events.get(event_type).copied().unwrap_or(self.events_default)
    }

    /// What it takes to send a state event of this type.
    pub fn for_state(&self, event_type: &TimelineEventType) -> Int {
        self.events.get(event_type).copied().unwrap_or(self.state_default)
    }

    pub fn ban(&self) -> Int {
        self.ban
    }

    pub fn kick(&self) -> Int {
        self.kick
    }

    /// What it takes to redact the events of others.
    pub fn redact(&self) -> Int {
        self.redact
    }

    pub fn invite(&self) -> Int {
        self.invite
    }

    /// What it takes to notify everybody, with `room` as the key.
    pub fn notification(&self, key: &str) -> Int {
        self.notifications.get(key).copied().unwrap_or(int!(50))
    }

    pub fn may_send_message(&self, user: &UserId, event_type: &TimelineEventType) -> bool {
        self.user(user) >= self.for_message(event_type)
    }

    pub fn may_send_state(&self, user: &UserId, event_type: &TimelineEventType) -> bool {
        self.user(user) >= self.for_state(event_type)
    }

    /// May this user redact an event of that sender?
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v11/#handling-redactions>
    pub fn may_redact(&self, user: &UserId, sender: &UserId) -> bool {
        self.may_send_message(user, &TimelineEventType::RoomRedaction)
            && (user == sender || self.user(user) >= self.redact)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use ruma::{RoomVersionId, events::StateEventType};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        auth,
        testing::{VERSIONS, fake, user, version},
    };

    const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
    const TYPES: [&str; 4] = ["m.room.message", "m.room.topic", "m.reaction", "org.example.other"];

    fn create(id: &RoomVersionId) -> Pdu {
        let content = json!({ "creator": user("alice"), "additional_creators": [user("bob")], "room_version": id });
        fake(TimelineEventType::RoomCreate, "alice", Some(""), &content)
    }

    fn levels(content: &Value) -> Pdu {
        fake(TimelineEventType::RoomPowerLevels, "alice", Some(""), content)
    }

    #[test]
    fn without_power_levels_the_creator_runs_the_room() {
        for id in &VERSIONS {
            let power = Power::new(version(id), &create(id), None).expect("power");
            let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
            assert_eq!(power.user(&carol), int!(0));
            if *id == RoomVersionId::V12 {
                assert_eq!(
                    (power.user(&alice), power.user(&bob)),
                    (UserPowerLevel::Infinite, UserPowerLevel::Infinite)
                );
            } else {
                assert_eq!((power.user(&alice), power.user(&bob)), (int!(100).into(), int!(0).into()));
                assert_eq!(power.creators().iter().collect::<Vec<_>>(), [&alice]);
            }
            let levels = [power.ban(), power.kick(), power.redact(), power.invite(), power.notification("room")];
            assert_eq!(levels, [int!(50), int!(50), int!(50), int!(0), int!(50)]);
            let topic = TimelineEventType::RoomTopic;
            assert!(power.may_send_state(&alice, &topic) && !power.may_send_state(&carol, &topic));
            assert!(power.may_send_message(&carol, &TimelineEventType::RoomMessage));
            assert!(power.may_redact(&carol, &carol) && !power.may_redact(&carol, &alice));
            assert!(power.may_redact(&alice, &carol));
        }
    }

    #[test]
    fn levels_of_an_event_are_read() {
        let id = RoomVersionId::V10;
        let content = json!({
            "users": { "@bob:example.org": 60 }, "users_default": 5, "ban": 61, "kick": 62, "redact": 63, "invite": 64,
            "events": { "m.room.redaction": 60 }, "notifications": { "room": 20, "other": 7 },
        });
        let power = Power::new(version(&id), &create(&id), Some(&levels(&content))).expect("power");
        assert_eq!((power.user(&user("bob")), power.user(&user("alice"))), (int!(60).into(), int!(5).into()));
        let read = [power.ban(), power.kick(), power.redact(), power.invite()];
        assert_eq!(read, [int!(61), int!(62), int!(63), int!(64)]);
        let notifications = ["room", "other", "unknown"].map(|key| power.notification(key));
        assert_eq!(notifications, [int!(20), int!(7), int!(50)]);
        assert!(power.may_redact(&user("bob"), &user("bob")) && !power.may_redact(&user("carol"), &user("carol")));
        assert!(!power.may_redact(&user("bob"), &user("carol")));
        let broken = levels(&json!({ "ban": "50" }));
        assert!(Power::new(version(&id), &create(&id), Some(&broken)).is_err());
        // Numbers could be texts until version 10.
        let old = Power::new(version(&RoomVersionId::V6), &create(&RoomVersionId::V6), Some(&broken)).expect("power");
        assert_eq!(old.ban(), int!(50));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// The rules stay the judge: who may send what must come out as it does there.
        #[test]
        fn agrees_with_the_rules(
            version_at in 0..VERSIONS.len(),
            with_levels: bool,
            users in prop::collection::btree_map(2..NAMES.len(), -1..4i64, 0..3),
            events in prop::collection::btree_map(0..TYPES.len(), -1..4i64, 0..4),
            defaults in prop::collection::btree_map(
                prop::sample::select(&["users_default", "events_default", "state_default"][..]), -1..4i64, 0..4,
            ),
        ) {
            let id = &VERSIONS[version_at];
            let mut content = json!({ "users": {}, "events": {} });
            for (n, level) in users {
                content["users"][user(NAMES[n]).as_str()] = level.into();
            }
            for (n, level) in events {
                content["events"][TYPES[n]] = level.into();
            }
            for (field, level) in defaults {
                content[field] = level.into();
            }
            let create = Arc::new(create(id));
            let levels = with_levels.then(|| Arc::new(levels(&content)));
            let power = Power::new(version(id), &create, levels.as_deref()).expect("power");
            let fetch = |event_type: &StateEventType, state_key: &str| match event_type {
                StateEventType::RoomCreate => Some(create.clone()),
                StateEventType::RoomPowerLevels => levels.clone(),
                StateEventType::RoomMember => {
                    let joined = json!({ "membership": "join" });
                    Some(Arc::new(fake(TimelineEventType::RoomMember, "alice", Some(state_key), &joined)))
                }
                _ => None,
            };
            for name in NAMES {
                for event_type in TYPES.map(TimelineEventType::from) {
                    for state_key in [None, Some("")] {
                        let event = fake(event_type.clone(), name, state_key, &json!({}));
                        let allowed = auth::check_dependent(&event, version(id), fetch).is_ok();
                        let power = match state_key {
                            None => power.may_send_message(&user(name), &event_type),
                            Some(_) => power.may_send_state(&user(name), &event_type),
                        };
                        prop_assert_eq!(power, allowed, "{} {} {:?}", name, event_type, state_key);
                    }
                }
            }
        }
    }
}
