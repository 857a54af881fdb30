//! Who is in a room: invite, join, knock, leave, kick, ban, unban. One function writes them all; the authorisation rules
//! decide.

use hearth_core::{Error, Kind, Result, visibility::membership_in};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId, events::room::member::MembershipState,
};
use serde_json::{Map, Value, value::RawValue};

use super::{
    Rooms,
    send::last,
    write::{AUTHORISED_BY, Head, Intent, Part, Wish},
};

/// A change of somebody's membership.
#[derive(Clone, Debug)]
pub struct Target {
    pub user: OwnedUserId,
    /// What it becomes.
    pub membership: &'static str,
    pub reason: Option<String>,
    /// Further fields of the content.
    pub extra: Map<String, Value>,
}

/// A wish to join.
#[derive(Clone, Debug, Default)]
pub struct Join {
    pub reason: Option<String>,
    /// Further fields of the member event.
    pub content: Map<String, Value>,
}

struct SetMembership {
    part: Part,
    target: Target,
    only_from: Only,
}

/// From which memberships a change may start. A `leave` means several things.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Any,
    /// A kick: whoever is in, invited, or knocks.
    Present,
    /// An unban.
    Banned,
}

impl Intent for SetMembership {
    async fn wish(&self, rooms: &Rooms, head: &Head) -> Result<Wish> {
        let target = &self.target;
        let current = rooms.current(head, "m.room.member", target.user.as_str()).await?;
        let was = current.as_ref().map(|(_, pdu)| membership_in(&pdu.json).to_string());
        // First who asks: strangers learn nothing of who is in the room or banned.
        if self.part.sender != target.user {
            rooms.must_be_in(head, &self.part.sender).await?;
        }
        match (self.only_from, was.as_deref()) {
            (Only::Any, _) | (Only::Present, Some("join" | "invite" | "knock")) | (Only::Banned, Some("ban")) => {}
            (Only::Present, _) => return Err(Error::forbidden(format!("{} is not in the room", target.user))),
            (Only::Banned, _) => return Err(Error::new(Kind::BadState, format!("{} is not banned", target.user))),
        }
        match (target.membership, was.as_deref()) {
            ("join", Some("join")) | ("invite", Some("invite")) | ("ban", Some("ban")) => {
                if let Some((_, pdu)) = current
                    && (target.membership != "invite" || pdu.sender == self.part.sender)
                {
                    return Ok(Wish::Nothing(pdu.event_id.clone()));
                }
            }
            // Out is out, whoever asks for it once more. Who was put out learns that it wasn't them.
            ("leave", Some("leave")) if self.part.sender == target.user => {
                if let Some((_, pdu)) = current.filter(|(_, pdu)| pdu.sender == target.user) {
                    return Ok(Wish::Nothing(pdu.event_id.clone()));
                }
                return Err(Error::forbidden("You are not in the room"));
            }
            ("leave", None | Some("leave")) => {
                return Err(Error::forbidden(format!("{} is not in the room", target.user)));
            }
            ("leave", Some("ban")) if self.part.sender == target.user => {
                return Err(Error::forbidden("You are banned from the room"));
            }
            _ => {}
        }
        Ok(Wish::Write(vec![rooms.admitted(head, self.part.clone()).await?]))
    }
}

struct ShowProfile {
    user: OwnedUserId,
    /// A member event's content with the profile as it is now.
    profile: Map<String, Value>,
}

impl Intent for ShowProfile {
    async fn wish(&self, rooms: &Rooms, head: &Head) -> Result<Wish> {
        let gone = || Error::forbidden("Not in the room any more");
        let (_, current) = rooms.current(head, "m.room.member", self.user.as_str()).await?.ok_or_else(gone)?;
        let mut content: Map<String, Value> = current.content_as()?;
        if content.get("membership").and_then(Value::as_str) != Some("join") {
            return Err(gone());
        }
        let same = |key| content.get(key) == self.profile.get(key);
        if same("displayname") && same("avatar_url") {
            return Ok(Wish::Nothing(current.event_id.clone()));
        }
        // What else the member event says (who let them in, say) goes on being true.
        for key in ["displayname", "avatar_url"] {
            match self.profile.get(key) {
                Some(value) => content.insert(key.into(), value.clone()),
                None => content.remove(key),
            };
        }
        content.remove("reason");
        content.remove(AUTHORISED_BY);
        let content = serde_json::value::to_raw_value(&content).map_err(Error::internal)?;
        Ok(Wish::Write(vec![Part::state(&self.user, "m.room.member", self.user.as_str(), content)]))
    }
}

impl Rooms {
    /// Joins; joining once more changes nothing.
    pub async fn join(&self, room_id: &RoomId, user: &UserId, join: Join) -> Result<()> {
        let mut extra = join.content;
        // What the server says, or the request and not the event.
        for key in [AUTHORISED_BY, "third_party_signed", "reason"] {
            extra.remove(key);
        }
        let target = Target { user: user.to_owned(), membership: "join", reason: join.reason, extra };
        self.set_membership(room_id, user, target).await?;
        Ok(())
    }

    /// Asks to be let in.
    pub async fn knock(&self, room_id: &RoomId, user: &UserId, reason: Option<String>) -> Result<()> {
        let target = Target { user: user.to_owned(), membership: "knock", reason, extra: Map::new() };
        self.set_membership(room_id, user, target).await?;
        Ok(())
    }

    /// Writes a membership, `sender` being the one who acts.
    pub async fn set_membership(&self, room_id: &RoomId, sender: &UserId, target: Target) -> Result<OwnedEventId> {
        self.membership(room_id, sender, target, Only::Any).await
    }

    async fn membership(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: Target,
        only_from: Only,
    ) -> Result<OwnedEventId> {
        self.must_be_local(&target.user)?;
        let content = self.member_content(&target).await?;
        let part = Part::state(sender, "m.room.member", target.user.as_str(), content);
        last(self.write(room_id, None, &SetMembership { part, target, only_from }).await?)
    }

    /// Only who is in a room may do anything to it.
    pub(super) async fn must_be_in(&self, head: &Head, user: &UserId) -> Result<()> {
        match self.standing(head, user).await? {
            MembershipState::Join => Ok(()),
            _ => Err(Error::forbidden("You are not in this room")),
        }
    }

    /// Takes somebody out who is in, or invited, or knocks.
    pub async fn kick(&self, room_id: &RoomId, sender: &UserId, target: Target) -> Result<()> {
        self.membership(room_id, sender, target, Only::Present).await.map(drop)
    }

    /// Takes a room that the user has left off their list.
    pub async fn forget(&self, room_id: &RoomId, user: &UserId) -> Result<()> {
        let view = self.storage.room_view(room_id.as_str(), user.as_str()).await?;
        let forgotten = match view {
            Some(view) => self.storage.forget(user.as_str(), view.room.room_sn).await?,
            None => false,
        };
        if forgotten { Ok(()) } else { Err(Error::unknown("Only a room that you have left can be forgotten")) }
    }

    /// The rooms that the user is in, oldest first.
    pub async fn joined_by(&self, user: &UserId) -> Result<Vec<OwnedRoomId>> {
        let rooms = self.storage.rooms_of(user.as_str(), "join").await?;
        rooms.into_iter().map(|id| id.try_into().map_err(Error::internal)).collect()
    }

    /// Whether there is a room that both are in.
    pub async fn share_a_room(&self, user: &UserId, other: &UserId) -> Result<bool> {
        Ok(self.storage.share_a_room(user.as_str(), other.as_str()).await?)
    }

    /// The room that an alias of this server names.
    pub async fn by_alias(&self, alias: &RoomAliasId) -> Result<OwnedRoomId> {
        let alias = self.storage.alias(alias.as_str()).await?;
        let alias = alias.ok_or_else(|| Error::not_found("There is no such room alias"))?;
        alias.room_id.try_into().map_err(Error::internal)
    }

    /// Lets somebody in again: a ban becomes a leave, and nothing else does.
    pub async fn unban(&self, room_id: &RoomId, sender: &UserId, user: &UserId, reason: Option<String>) -> Result<()> {
        let target = Target { user: user.to_owned(), membership: "leave", reason, extra: Map::new() };
        self.membership(room_id, sender, target, Only::Banned).await.map(drop)
    }

    /// A member event's content: the membership, and for those who are to be seen in the room, their profile.
    pub(super) async fn member_content(&self, target: &Target) -> Result<Box<RawValue>> {
        let mut content = target.extra.clone();
        content.insert("membership".into(), target.membership.into());
        if let Some(reason) = &target.reason {
            content.insert("reason".into(), reason.as_str().into());
        }
        if matches!(target.membership, "join" | "invite" | "knock") {
            for (key, value) in self.storage.profile(target.user.as_str()).await?.unwrap_or_default() {
                if matches!(key.as_str(), "displayname" | "avatar_url") {
                    let value: Value = serde_json::from_str(&value).map_err(Error::internal)?;
                    if !value.is_null() {
                        content.insert(key, value);
                    }
                }
            }
        }
        serde_json::value::to_raw_value(&content).map_err(Error::internal)
    }

    /// Takes the user out of all rooms, and refuses their invites.
    pub async fn leave_all(&self, user: &UserId) -> Result<()> {
        let mut outcome = Ok(());
        for membership in ["join", "invite", "knock"] {
            for room_id in self.storage.rooms_of(user.as_str(), membership).await? {
                let room_id = OwnedRoomId::try_from(room_id).map_err(Error::internal)?;
                let target = Target { user: user.to_owned(), membership: "leave", reason: None, extra: Map::new() };
                let left = self.set_membership(&room_id, user, target).await;
                outcome = outcome.and(but_go_on(&room_id, left));
            }
        }
        outcome
    }

    /// Tells the user's rooms of a changed profile, by a new member event in each.
    pub async fn profile_changed(&self, user: &UserId) -> Result<()> {
        let mut outcome = Ok(());
        for room_id in self.storage.rooms_of(user.as_str(), "join").await? {
            let room_id = OwnedRoomId::try_from(room_id).map_err(Error::internal)?;
            let target = Target { user: user.to_owned(), membership: "join", reason: None, extra: Map::new() };
            let content = self.member_content(&target).await?;
            let profile = serde_json::from_str(content.get()).map_err(Error::internal)?;
            let wrote = self.write(&room_id, None, &ShowProfile { user: user.to_owned(), profile }).await;
            outcome = outcome.and(but_go_on(&room_id, wrote));
        }
        outcome
    }
}

/// One room that refuses does not keep the others from being told. A refusal is final (who is out already, whose event
/// would be too large); anything else is worth another try of the whole.
fn but_go_on<T>(room_id: &RoomId, outcome: Result<T>) -> Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(Error::Matrix { kind, message }) if kind != Kind::Unavailable => {
            tracing::debug!(%room_id, ?kind, %message, "a room refused what was to be written to all");
            Ok(())
        }
        Err(e) => Err(e),
    }
}
