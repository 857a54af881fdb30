//! A new room: all its first events in one commit, so that there is never half a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use std::collections::HashSet;

use hearth_core::{Error, Kind, Result, ids, limits::MAX_INT, room_version::RoomVersion, state::trie};
use hearth_storage::{Base, NewAlias, Persisted};
use ruma::{OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, UserId};
use serde_json::{Map, Value, json, value::RawValue, value::to_raw_value};

use super::{
    Rooms, Target,
    send::Aliases,
    state::Held,
    write::{Chain, Decided, Head, Part},
};

/// The most rooms of one person that begin in the same millisecond with the same wishes.
const MOST_AT_ONCE: i64 = 100;

/// All of a room's first events are one commit, behind which others wait.
const MOST_INVITED: usize = 200;
const MOST_STATE: usize = 200;

const MEMBER: &str = "m.room.member";

/// What a client wants of a new room.
#[derive(Debug, Default)]
pub struct CreateRoom {
    pub version: Option<RoomVersionId>,
    pub preset: Option<Preset>,
    /// Shown in the room directory; also decides the preset where none is named.
    pub public: bool,
    pub creation_content: Map<String, Value>,
    pub power_levels: Map<String, Value>,
    pub initial_state: Vec<InitialState>,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub alias_localpart: Option<String>,
    pub invite: Vec<OwnedUserId>,
    pub is_direct: bool,
}

/// A set of default rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    Private,
    TrustedPrivate,
    Public,
}

/// A state event that a client wants in the room from the start.
#[derive(Debug, serde::Deserialize)]
pub struct InitialState {
    #[serde(rename = "type")]
    pub event_type: String,
    #[serde(default)]
    pub state_key: String,
    pub content: Box<RawValue>,
}

impl CreateRoom {
    /// How many people are invited, or otherwise named as members, from the start.
    pub fn invited(&self) -> usize {
        self.invite.len() + self.initial_state.iter().filter(|s| s.event_type == MEMBER).count()
    }
}

impl Rooms {
    /// Makes the room.
    pub async fn create(&self, creator: &UserId, mut wish: CreateRoom) -> Result<OwnedRoomId> {
        let version = RoomVersion::for_create(wish.version.as_ref().unwrap_or(&self.default_version))?;
        if wish.invite.len() > MOST_INVITED || wish.initial_state.len() > MOST_STATE {
            let most = format!("At most {MOST_INVITED} invites and {MOST_STATE} events of initial state at once");
            return Err(Error::invalid_param(most));
        }
        let mut invited = HashSet::new();
        wish.invite.retain(|user| invited.insert(user.clone()));
        for user in &wish.invite {
            self.must_be_local(user)?;
        }
        for initial in wish.initial_state.iter().filter(|s| s.event_type == MEMBER) {
            let user = <&UserId>::try_from(initial.state_key.as_str());
            self.must_be_local(user.map_err(|_| Error::bad_json("The state key is not a user id"))?)?;
        }
        let server_name = self.signer.server_name();
        let alias = wish.alias_localpart.as_ref().map(|localpart| format!("#{localpart}:{server_name}"));
        if let Some(alias) = &alias {
            let alias = RoomAliasId::parse(alias).ok().filter(|alias| !alias.alias().is_empty());
            alias.ok_or_else(|| Error::invalid_param("Not a valid room alias"))?;
        }
        check_creation(&wish.creation_content)?;
        check_names(&wish, alias.as_deref())?;
        let parts = self.first_events(creator, &wish, version, alias.as_deref()).await?;
        self.found(creator, version, &parts, alias.as_deref(), wish.public).await
    }

    /// Stores a new room that begins with these events.
    pub(super) async fn found(
        &self,
        creator: &UserId,
        version: &'static RoomVersion,
        parts: &[Part],
        alias: Option<&str>,
        publish: bool,
    ) -> Result<OwnedRoomId> {
        // A room that is named after its create event has the name of another one that was made in the same moment with
        // the same wishes: it is a little younger, then.
        for later_ms in 0..MOST_AT_ONCE {
            let room_id = if version.hashes_room_id() {
                // Replaced by the hash of the create event as soon as there is one.
                RoomId::parse("!pending").map_err(Error::internal)?
            } else {
                ids::new_room_id(&*self.rng, self.signer.server_name())?
            };
            let (room_id, mut decided) = self.begin(room_id, version, parts, later_ms, alias, creator).await?;
            decided.commit.publish = publish;
            match self.storage.persist(decided.commit.clone()).await? {
                Persisted::Stored(_) => {
                    decided.remember(self);
                    return Ok(room_id);
                }
                Persisted::AliasTaken => return Err(Error::new(Kind::RoomInUse, "The alias is taken")),
                Persisted::RoomExists => {}
                other => return Err(Error::internal(format!("a new room met {other:?}"))),
            }
        }
        Err(Error::unavailable("Too many rooms at once, try again"))
    }

    /// The first events, decided but not stored.
    async fn begin(
        &self,
        room_id: OwnedRoomId,
        version: &'static RoomVersion,
        parts: &[Part],
        later_ms: i64,
        alias: Option<&str>,
        creator: &UserId,
    ) -> Result<(OwnedRoomId, Decided)> {
        let sns: Vec<i64> = self.numbers.take(parts.len()).await?.collect();
        let room_sn = *sns.first().ok_or_else(|| Error::internal("a room without events"))?;
        let mut chain = Chain::new(Head {
            sn: room_sn,
            id: room_id,
            version,
            rev: 0,
            root: trie::EMPTY,
            joined: 0,
            tips: vec![],
            made: Held::default(),
        });
        chain.later_ms = later_ms;
        for (part, sn) in parts.iter().zip(sns) {
            self.append(&mut chain, part, sn, None).await.map_err(|e| match e {
                // What the rules forbid here is what the client asked to start with.
                Error::Matrix { kind: Kind::Forbidden, message } => Error::new(Kind::InvalidRoomState, message),
                other => other,
            })?;
        }
        let room_id = chain.head.id.clone();
        let base = Base::New { room_id: room_id.to_string(), version: version.id.to_string() };
        let mut decided = chain.finish(base, None, self.clock.now_ms());
        decided.commit.alias = alias.map(|alias| NewAlias { alias: alias.to_owned(), creator: creator.to_string() });
        Ok((room_id, decided))
    }

    /// The content of the creator's own member event.
    pub(super) async fn creator_joins(&self, creator: &UserId) -> Result<Map<String, Value>> {
        let me = Target { user: creator.to_owned(), membership: "join", reason: None, extra: Map::new() };
        serde_json::from_str(self.member_content(&me).await?.get()).map_err(Error::internal)
    }

    async fn first_events(
        &self,
        creator: &UserId,
        wish: &CreateRoom,
        version: &RoomVersion,
        alias: Option<&str>,
    ) -> Result<Vec<Part>> {
        let preset = wish.preset.unwrap_or(if wish.public { Preset::Public } else { Preset::Private });
        let rules = &version.rules.authorization;
        let mut parts = Vec::new();
        let mut state = |kind: &str, key: &str, content: Value| -> Result<()> {
            let content = to_raw_value(&content).map_err(Error::internal)?;
            parts.push(Part::state(creator, kind, key, content));
            Ok(())
        };

        let trusted: &[OwnedUserId] = if preset == Preset::TrustedPrivate { &wish.invite } else { &[] };
        let (create, creators) = create_content(creator, version, wish.creation_content.clone(), trusted)?;
        state("m.room.create", "", create.into())?;

        let me = self.creator_joins(creator).await?;
        state("m.room.member", creator.as_str(), me.into())?;

        let privileged = rules.explicitly_privilege_room_creators;
        let mut users = Map::new();
        if !privileged {
            users.insert(creator.to_string(), 100.into());
            users.extend(trusted.iter().map(|u| (u.to_string(), 100.into())));
        }
        let mut levels = default_power_levels(&users, privileged);
        if preset == Preset::Private || preset == Preset::TrustedPrivate {
            // In a private room everybody may bring others in.
            levels.insert("invite".into(), 0.into());
        }
        levels.extend(wish.power_levels.clone());
        if privileged {
            only_creators_close(&mut levels, &wish.power_levels);
        }
        if privileged
            && let Some(named) = levels.get("users").and_then(Value::as_object)
            && creators.iter().any(|c| named.contains_key(c))
        {
            return Err(no_level_for_creators());
        }
        state("m.room.power_levels", "", levels.into())?;

        if let Some(alias) = alias {
            state("m.room.canonical_alias", "", json!({ "alias": alias }))?;
        }
        let (join_rule, guest_access) = match preset {
            Preset::Public => ("public", "forbidden"),
            Preset::Private | Preset::TrustedPrivate => ("invite", "can_join"),
        };
        let initially = |kind: &str| wish.initial_state.iter().any(|s| s.event_type == kind && s.state_key.is_empty());
        if !initially("m.room.join_rules") {
            state("m.room.join_rules", "", json!({ "join_rule": join_rule }))?;
        }
        if !initially("m.room.history_visibility") {
            state("m.room.history_visibility", "", json!({ "history_visibility": "shared" }))?;
        }
        if !initially("m.room.guest_access") {
            state("m.room.guest_access", "", json!({ "guest_access": guest_access }))?;
        }
        for initial in &wish.initial_state {
            if initial.event_type == "m.room.create" {
                return Err(Error::new(Kind::InvalidRoomState, "A room is created only once"));
            }
            parts.push(Part::state(creator, &initial.event_type, &initial.state_key, initial.content.clone()));
        }
        let mut state = |kind: &str, key: &str, content: Value| -> Result<()> {
            let content = to_raw_value(&content).map_err(Error::internal)?;
            parts.push(Part::state(creator, kind, key, content));
            Ok(())
        };
        if let Some(name) = &wish.name {
            state("m.room.name", "", json!({ "name": name }))?;
        }
        if let Some(topic) = &wish.topic {
            let text = json!({ "m.text": [{ "body": topic, "mimetype": "text/plain" }] });
            state("m.room.topic", "", json!({ "topic": topic, "m.topic": text }))?;
        }
        for user in &wish.invite {
            let mut extra = Map::new();
            if wish.is_direct {
                extra.insert("is_direct".into(), true.into());
            }
            let target = Target { user: user.clone(), membership: "invite", reason: None, extra };
            let content = self.member_content(&target).await?;
            parts.push(Part::state(creator, "m.room.member", user.as_str(), content));
        }
        Ok(parts)
    }
}

/// What is read of a create event later has to be what it should be.
fn check_creation(content: &Map<String, Value>) -> Result<()> {
    let odd = |key: &str, fits: fn(&Value) -> bool| content.get(key).is_some_and(|value| !fits(value));
    if odd("m.federate", Value::is_boolean) || odd("type", Value::is_string) {
        return Err(Error::bad_json("`m.federate` is true or false, and `type` is a text"));
    }
    Ok(())
}

/// What a room calls itself from the start must lead to it: that is the alias it is made with, and no other.
fn check_names(wish: &CreateRoom, alias: Option<&str>) -> Result<()> {
    for state in wish.initial_state.iter().filter(|s| s.event_type == "m.room.canonical_alias") {
        let named = Aliases::of(&state.content).map_err(|e| Error::bad_json(e.to_string()))?;
        if let Some(other) = named.all().find(|named| Some(*named) != alias) {
            return Err(Error::new(Kind::BadAlias, format!("{other} does not lead to this room")));
        }
    }
    Ok(())
}

/// Where creators have more power than anybody, only they close the room for ever, unless a client asked for another
/// level: `events` that it replaces as a whole, or a higher default, must not open that to others.
fn only_creators_close(levels: &mut Map<String, Value>, asked: &Map<String, Value>) {
    const TOMBSTONE: &str = "m.room.tombstone";
    if asked.get("events").is_some_and(|events| events.get(TOMBSTONE).is_some()) {
        return;
    }
    let default = levels.get("state_default").and_then(Value::as_i64).unwrap_or(50);
    if let Some(events) = levels.get_mut("events").and_then(Value::as_object_mut) {
        events.insert(TOMBSTONE.into(), default.saturating_add(1).clamp(150, MAX_INT).into());
    }
}

pub(super) fn no_level_for_creators() -> Error {
    Error::invalid_param("Creators have all power; they can't be in `users`")
}

/// The content of a create event, and who the room's creators are.
pub(super) fn create_content(
    creator: &UserId,
    version: &RoomVersion,
    mut content: Map<String, Value>,
    trusted: &[OwnedUserId],
) -> Result<(Map<String, Value>, Vec<String>)> {
    let rules = &version.rules.authorization;
    content.insert("room_version".into(), version.id.as_str().into());
    if rules.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".into(), creator.as_str().into());
    }
    let mut creators = vec![creator.to_string()];
    if rules.explicitly_privilege_room_creators {
        let mut additional = additional_creators(&content)?;
        additional.extend(trusted.iter().map(ToString::to_string));
        additional.sort();
        additional.dedup();
        creators.extend(additional.iter().cloned());
        if !additional.is_empty() {
            content.insert("additional_creators".into(), additional.into());
        }
    }
    Ok((content, creators))
}

fn additional_creators(create: &Map<String, Value>) -> Result<Vec<String>> {
    let wrong = || Error::invalid_param("`additional_creators` must be a list of user ids");
    let Some(named) = create.get("additional_creators") else { return Ok(Vec::new()) };
    let named = named.as_array().ok_or_else(wrong)?;
    named
        .iter()
        .map(|user| {
            let user = user.as_str().ok_or_else(wrong)?;
            <&UserId>::try_from(user).map_err(|_| wrong())?;
            Ok(user.to_owned())
        })
        .collect()
}

pub(super) fn default_power_levels(users: &Map<String, Value>, privileged_creators: bool) -> Map<String, Value> {
    let levels = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.encryption": 100,
            "m.room.server_acl": 100,
            // Only creators may close a room for ever where they have more power than anybody.
            "m.room.tombstone": if privileged_creators { 150 } else { 100 },
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 50,
        "historical": 100,
        "notifications": { "room": 50 },
    });
    match levels {
        Value::Object(levels) => levels,
        _ => Map::new(),
    }
}
