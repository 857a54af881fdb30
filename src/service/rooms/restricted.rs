//! Rooms that members of other rooms may join without an invite. The server of whoever vouches for a join signs that it has
//! checked that; for a join of ours that is this server.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>

use hearth_core::{
    Error, Result,
    room_version::RoomVersion,
    visibility::{membership_in, membership_in_content},
};
use ruma::{
    OwnedUserId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Rooms,
    write::{Head, Part},
};

/// How many are asked whether they are in and can vouch.
const MOST_ASKED: usize = 100;

/// Which rooms' members may join, by the content of `m.room.join_rules`; `None` where that is no question here.
pub fn allowed_rooms(content: &str, version: &RoomVersion) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Content {
        join_rule: String,
        #[serde(default)]
        allow: Value,
    }
    let content: Content = serde_json::from_str(content).ok()?;
    let rules = &version.rules.authorization;
    let restricted = match content.join_rule.as_str() {
        "restricted" => rules.restricted_join_rule,
        "knock_restricted" => rules.knock_restricted_join_rule,
        _ => false,
    };
    // Members write this: what has not the right form allows nobody.
    let allowed = content.allow.as_array().into_iter().flatten().filter_map(|condition| {
        (condition.get("type")? == "m.room_membership").then_some(())?;
        Some(condition.get("room_id")?.as_str()?.to_owned())
    });
    restricted.then(|| allowed.collect())
}

impl Rooms {
    /// The part, with the name of who vouches if it is a join that needs somebody to.
    pub(super) async fn admitted(&self, head: &Head, part: Part) -> Result<Part> {
        let is_own =
            part.event_type == TimelineEventType::RoomMember && part.state_key.as_deref() == Some(part.sender.as_str());
        if !is_own || membership_in_content(part.content.get()) != MembershipState::Join {
            return Ok(part);
        }
        match self.standing(head, &part.sender).await? {
            MembershipState::Join | MembershipState::Invite | MembershipState::Ban => return Ok(part),
            _ => {}
        }
        let rules = self.current(head, "m.room.join_rules", "").await?;
        let Some(allowed) = rules.and_then(|(_, rules)| allowed_rooms(rules.content.get(), head.version)) else {
            return Ok(part);
        };
        if !self.storage.is_in_any(part.sender.as_str(), allowed).await? {
            return Err(Error::forbidden("You are in none of the rooms whose members may join this one"));
        }
        let voucher = self.voucher(head).await?;
        let voucher = voucher.ok_or_else(|| Error::forbidden("Nobody of this server can let you in"))?;
        Ok(Part { authorised_by: Some(voucher), ..part })
    }

    /// What the user is to the room.
    pub(super) async fn standing(&self, head: &Head, user: &UserId) -> Result<MembershipState> {
        let member = self.current(head, "m.room.member", user.as_str()).await?;
        Ok(member.map_or(MembershipState::Leave, |(_, member)| membership_in(&member.json)))
    }

    /// One of our users who is in the room and may invite: those with a power of their own first.
    async fn voucher(&self, head: &Head) -> Result<Option<OwnedUserId>> {
        let power = self.power(head).await?;
        let may = |user: &UserId| power.user(user) >= power.invite();
        let mut asked: Vec<OwnedUserId> =
            power.named().filter(|user| self.is_local(user) && may(user)).map(ToOwned::to_owned).collect();
        asked.sort_by(|a, b| power.user(b).cmp(&power.user(a)).then_with(|| a.cmp(b)));
        asked.truncate(MOST_ASKED);
        if power.users_default() >= power.invite() {
            let server = self.signer.server_name().as_str();
            for user in self.storage.members_of_server(head.sn, server, 10).await? {
                asked.push(user.try_into().map_err(Error::internal)?);
            }
        }
        for user in asked {
            if self.is_local(&user) && may(&user) && self.standing(head, &user).await? == MembershipState::Join {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }
}
