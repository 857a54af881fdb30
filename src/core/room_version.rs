//! The room versions that this server knows, and their rules.
//!
//! <https://spec.matrix.org/v1.19/rooms/>

use std::sync::LazyLock;

use ruma::{
    RoomVersionId,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
};

use crate::{Error, Kind, Result};

/// A room version and what it changes.
#[derive(Debug, Clone)]
pub struct RoomVersion {
    pub id: RoomVersionId,
    pub rules: RoomVersionRules,
    state_res: StateResolutionV2Rules,
    can_create: bool,
}

/// Versions 1 and 2 are left out: their events carry ids of their own, and version 1 an algorithm of state resolution that
/// nothing else uses. Versions 3 to 5 can be held, but not created: they don't insist on canonical JSON.
static VERSIONS: LazyLock<Vec<RoomVersion>> = LazyLock::new(|| {
    use RoomVersionId::{V3, V4, V5, V6, V7, V8, V9, V10, V11, V12};
    [V3, V4, V5, V6, V7, V8, V9, V10, V11, V12]
        .into_iter()
        .filter_map(|id| {
            let rules = id.rules()?;
            let state_res = *rules.state_res.v2_rules()?;
            let can_create = rules.authorization.strict_canonical_json;
            Some(RoomVersion { id, rules, state_res, can_create })
        })
        .collect()
});

impl RoomVersion {
    /// The version, if a room of it can be held here.
    pub fn get(id: &RoomVersionId) -> Option<&'static Self> {
        VERSIONS.iter().find(|v| v.id == *id)
    }

    /// Every version that can be held here, oldest first.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        VERSIONS.iter()
    }

    /// The version for a room that a client wants created or upgraded to.
    pub fn for_create(id: &RoomVersionId) -> Result<&'static Self> {
        Self::get(id).filter(|v| v.can_create).ok_or_else(|| {
            Error::new(Kind::UnsupportedRoomVersion, format!("This server creates no rooms of version {id:?}"))
        })
    }

    /// The version for a room that exists elsewhere and is to be joined or knocked on.
    pub fn for_join(id: &RoomVersionId) -> Result<&'static Self> {
        Self::get(id).ok_or_else(|| {
            let kind = Kind::IncompatibleRoomVersion { room_version: id.to_string() };
            Error::new(kind, format!("This server holds no rooms of version {id:?}"))
        })
    }

    /// May a new room be of this version?
    pub fn can_create(&self) -> bool {
        self.can_create
    }

    /// Is a room's id the hash of its create event, which then carries no room id?
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v12/#event-format-1>
    pub fn hashes_room_id(&self) -> bool {
        self.rules.authorization.room_create_event_id_as_room_id
    }

    /// Does a redaction name its target in `content`, not beside it?
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v11/#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property>
    pub fn redacts_in_content(&self) -> bool {
        self.rules.redaction.content_field_redacts
    }

    pub fn state_res(&self) -> &StateResolutionV2Rules {
        &self.state_res
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_to_twelve_are_held_and_six_to_twelve_created() {
        let held: Vec<&str> = RoomVersion::all().map(|v| v.id.as_str()).collect();
        assert_eq!(held, ["3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]);
        let created: Vec<&str> = RoomVersion::all().filter(|v| v.can_create()).map(|v| v.id.as_str()).collect();
        assert_eq!(created, ["6", "7", "8", "9", "10", "11", "12"]);
    }

    #[test]
    fn what_is_not_held_is_said_by_its_errcode() {
        let kind = |e: Error| match e {
            Error::Matrix { kind, .. } => kind,
            other => panic!("{other}"),
        };
        let odd = RoomVersionId::try_from("org.example.odd").expect("a valid room version id");
        for id in [RoomVersionId::V1, RoomVersionId::V2, odd] {
            assert!(RoomVersion::get(&id).is_none());
            let refused = kind(RoomVersion::for_join(&id).expect_err("not held"));
            assert_eq!(refused, Kind::IncompatibleRoomVersion { room_version: id.to_string() });
            assert_eq!(kind(RoomVersion::for_create(&id).expect_err("not held")), Kind::UnsupportedRoomVersion);
        }
        assert_eq!(
            kind(RoomVersion::for_create(&RoomVersionId::V5).expect_err("held only")),
            Kind::UnsupportedRoomVersion
        );
        assert!(RoomVersion::for_join(&RoomVersionId::V5).is_ok());
    }

    #[test]
    fn the_rules_turn_where_the_versions_say() {
        let v = |id| RoomVersion::get(&id).expect("held");
        assert!(!v(RoomVersionId::V10).redacts_in_content() && v(RoomVersionId::V11).redacts_in_content());
        assert!(!v(RoomVersionId::V11).hashes_room_id() && v(RoomVersionId::V12).hashes_room_id());
        assert!(!v(RoomVersionId::V11).state_res().consider_conflicted_state_subgraph);
        assert!(v(RoomVersionId::V12).state_res().consider_conflicted_state_subgraph);
    }
}
