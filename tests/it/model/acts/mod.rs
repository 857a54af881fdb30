//! The acts of people: done to the server, and told to the judge as far as the server let them happen.

mod create;
mod data;
mod events;
mod fork;
mod members;
mod wishes;

use hearth_core::Error;
use hearth_storage::StoredEvent;
use ruma::OwnedEventId;
use serde_json::{Value, json};

use super::{
    Outcome, Run, failure,
    story::{DEVICES, JOIN_RULES, Op, VISIBILITIES, WORDS},
    watch::ALL,
    world::visibility,
};

/// What the server refused did not happen; that it broke is a failure.
fn allowed<T>(what: Result<T, Error>) -> Outcome<Option<T>> {
    match what {
        Ok(done) => Ok(Some(done)),
        Err(Error::Matrix { .. }) => Ok(None),
        Err(e) => Err(failure(format!("the server broke: {e}"))),
    }
}

fn parsed(stored: &StoredEvent) -> Value {
    serde_json::from_str(&stored.json).expect("an event")
}

impl Run<'_> {
    /// Does it. What cannot be done where it stands is nothing.
    pub async fn act(&mut self, op: Op) -> Outcome<()> {
        self.clock.advance(1_000);
        match op {
            Op::Create { by, visibility, version, public, named } => {
                self.create(by, (visibility, version), public, named).await
            }
            Op::Ignore { who, whom, still } => self.ignore(who, whom, still).await,
            Op::Keep { who, room: None, key, value } => self.keep(who, None, key, value).await,
            Op::Restart => self.restart().await,
            Op::Sync { who, device, limit, full_state, lost } => {
                self.sync(who, device, limit, full_state).await?;
                // Now with a view of some rooms, now of all.
                let slider = DEVICES[who];
                self.slide(who, slider, [1, 2, ALL][limit as usize % 3]).await?;
                if lost {
                    self.devices[who][device].goes_back(1);
                    self.devices[who][slider].goes_back(1);
                }
                Ok(())
            }
            Op::StartAnew { who, device } => {
                self.devices[who][device].knows = super::client::Knowledge::default();
                Ok(())
            }
            Op::Rewind { who, device, syncs } => {
                self.devices[who][device].goes_back(syncs);
                Ok(())
            }
            in_room => match self.world.rooms.len().checked_sub(1) {
                Some(last) => self.act_in_room(in_room, last).await,
                None => Ok(()),
            },
        }
    }

    async fn act_in_room(&mut self, op: Op, last: usize) -> Outcome<()> {
        let at = |room: usize| room.min(last);
        match op {
            Op::Join { who, room } => self.join(who, at(room)).await,
            Op::Leave { who, room } => self.membership(who, who, at(room), "leave").await,
            Op::Knock { who, room } => self.membership(who, who, at(room), "knock").await,
            Op::Invite { by, who, room } => self.membership(by, who, at(room), "invite").await,
            Op::Ban { by, who, room } => self.membership(by, who, at(room), "ban").await,
            Op::Kick { by, who, room } => self.kick(by, who, at(room)).await,
            Op::Unban { by, who, room } => self.unban(by, who, at(room)).await,
            Op::Forget { who, room } => self.forget(who, at(room)).await,
            Op::Say { who, device, room } => {
                let content = json!({ "msgtype": "m.text", "body": self.words("said") });
                self.say(who, device, at(room), content).await
            }
            Op::Write { who, room, how, meant } => self.write(who, at(room), how, meant).await,
            Op::Topic { by, room } => {
                let content = json!({ "topic": format!("topic at {}", self.world.now) });
                self.set_state(by, at(room), "m.room.topic", "", content).await
            }
            Op::Odd { by, room, key } => {
                let content = json!({ "at": self.world.now });
                self.set_state(by, at(room), "org.example.odd", &key.to_string(), content).await
            }
            Op::Visibility { by, room, to } => {
                let content = visibility(VISIBILITIES[to]);
                self.set_state(by, at(room), "m.room.history_visibility", "", content).await
            }
            Op::JoinRule { by, room, to } => {
                let content = json!({ "join_rule": JOIN_RULES[to] });
                self.set_state(by, at(room), "m.room.join_rules", "", content).await
            }
            Op::Power { by, room, much } => self.power(by, at(room), much).await,
            Op::Redact { who, room, back } => self.redact(who, at(room), back).await,
            Op::Fork { by, room, back, what } => self.fork(by, at(room), back, what).await,
            Op::Read { who, room, back, how } => self.read(who, at(room), back, how).await,
            Op::Wish { who, room, what, still } => self.wish(who, at(room), what, still).await,
            Op::Keep { who, room, key, value } => self.keep(who, room.map(at), key, value).await,
            Op::FillGap { who, device, room, limit } => self.fill_gap(who, device, at(room), limit).await.map(drop),
            Op::Page { who, room, forward, limit, from_device } => {
                self.page(who, at(room), forward, limit, from_device).await
            }
            Op::Look { who, room, back } => self.look(who, at(room), back).await,
            Op::LookAround { who, room, device } => self.look_around(who, at(room), Some(device)).await,
            _ => Ok(()),
        }
    }

    /// A text, with one of the words in it or with none.
    fn words(&self, how: &str) -> String {
        let word =
            usize::try_from(self.world.now).ok().and_then(|now| WORDS.get(now % 3)).copied().unwrap_or("nothing");
        format!("{how} at {}: {word} to all", self.world.now)
    }

    /// An event of the room by its age.
    pub fn nth_back(&self, room: usize, back: usize) -> Option<OwnedEventId> {
        self.world.rooms[room].events.iter().rev().nth(back).map(|e| e.id.clone())
    }
}
