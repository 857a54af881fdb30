//! Who comes and goes.

use hearth::service::rooms::{Join, Target};
use hearth_storage::StateOf;
use ruma::OwnedUserId;
use serde_json::Map;

use super::{allowed, events::What, parsed};
use crate::model::{
    Outcome, Run, failure,
    world::{Event, member},
};

impl Run<'_> {
    pub async fn join(&mut self, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        if allowed(self.services().rooms.join(&id, &self.users[who], Join::default()).await)?.is_some() {
            self.membership_became(who, who, room).await?;
        }
        Ok(())
    }

    pub async fn membership(&mut self, by: usize, who: usize, room: usize, to: &'static str) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        let target = self.target(who, to);
        if allowed(self.services().rooms.set_membership(&id, &self.users[by], target).await)?.is_some() {
            self.membership_became(by, who, room).await?;
        }
        Ok(())
    }

    pub async fn kick(&mut self, by: usize, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        let target = self.target(who, "leave");
        if allowed(self.services().rooms.kick(&id, &self.users[by], target).await)?.is_some() {
            self.membership_became(by, who, room).await?;
        }
        Ok(())
    }

    pub async fn unban(&mut self, by: usize, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        let unbanned = self.services().rooms.unban(&id, &self.users[by], &self.users[who], None).await;
        if allowed(unbanned)?.is_some() {
            self.membership_became(by, who, room).await?;
        }
        Ok(())
    }

    fn target(&self, who: usize, membership: &'static str) -> Target {
        Target { user: self.users[who].clone(), membership, reason: None, extra: Map::new() }
    }

    /// Which event it became, the services don't always say.
    async fn membership_became(&mut self, by: usize, who: usize, room: usize) -> Outcome<()> {
        let of = StateOf::Key("m.room.member".to_owned(), self.users[who].to_string());
        let state = self.storage().state(self.world.rooms[room].sn, of, None).await.map_err(failure)?;
        let stored = state.first().ok_or_else(|| failure("no membership after it was set"))?;
        let id = stored.event_id.clone().try_into().expect("an id");
        let (content, user) = (parsed(stored)["content"].clone(), self.users[who].clone());
        let what = What { kind: "m.room.member", state_key: Some(user.as_str()), content };
        self.happened(room, id, (by, None), what);
        Ok(())
    }

    pub async fn forget(&mut self, who: usize, room: usize) -> Outcome<()> {
        let id = self.world.rooms[room].id.clone();
        if allowed(self.services().rooms.forget(&id, &self.users[who]).await)?.is_some() {
            let user = self.users[who].clone();
            self.world.rooms[room].forgotten.insert(user);
        }
        Ok(())
    }

    /// The event of a user's membership now.
    pub fn member_event(&self, room: usize, user: &OwnedUserId) -> Option<&Event> {
        let room = &self.world.rooms[room];
        room.find(room.state().get(&member(user))?.as_str()).map(|(_, e)| e)
    }
}
