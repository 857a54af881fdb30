//! Whether there is anything to tell.

use ruma::OwnedUserId;
use serde_json::Value;

use super::{
    events,
    eyes::{Eyes, passes},
};
use crate::model::{
    Outcome, Run, ensure,
    world::{Sight, State, Time},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    None,
    /// Only what the device's filter drops.
    Perhaps,
    Some,
}

impl Run<'_> {
    /// Whether anything happened in a room that somebody in it is to be told.
    pub fn news(&self, eyes: &Eyes<'_>, n: usize, user: &OwnedUserId, filter: Option<&Value>, since: Time) -> News {
        let room = eyes.room;
        let kept = self.world.kept.iter().any(|((u, r, _), (time, _))| u == user && *r == Some(n) && *time > since);
        let read = room
            .receipts
            .iter()
            .any(|((of, kind, _), (time, _))| *time > since && (of == user || kind != "m.read.private"));
        let (before, now) = (room.last_at(since).map(|at| &*room.events[at].current), &**room.state());
        let new = now.iter().any(|(key, id)| before.and_then(|state| state.get(key)) != Some(id));
        // What a merge of forks took away has no event; of a member, the summary tells.
        let mut gone = before.into_iter().flat_map(State::keys).filter(|key| !now.contains_key(*key));
        if kept || read || new || gone.any(|(kind, _)| kind == "m.room.member") {
            return News::Some;
        }
        let young = room.events.iter().enumerate().filter(|(_, e)| e.time > since);
        let (mut any, mut seen) = (false, false);
        for (at, event) in young {
            any = true;
            seen |= eyes.sights[at] == Sight::Must && passes(filter, room, event);
        }
        if seen {
            News::Some
        } else if any {
            News::Perhaps
        } else {
            News::None
        }
    }

    /// A device that has just synced is told nothing by the next sync.
    pub async fn hears_nothing(&self, who: usize, device: usize) -> Outcome<()> {
        if self.devices[who][device].slides {
            let page = self.ask_to_slide(who, device, super::ALL).await?.unwrap_or_default();
            let silent = page["rooms"].as_object().is_some_and(serde_json::Map::is_empty);
            ensure!(silent && page["extensions"] == serde_json::json!({}), "news, and nothing happened: {page}");
            return Ok(());
        }
        let page = self.ask_to_sync(who, device, 10, false).await?;
        let sections = ["join", "leave", "invite", "knock"];
        let silent = |section: &str| page["rooms"][section].as_object().is_none_or(serde_json::Map::is_empty);
        ensure!(
            sections.into_iter().all(silent) && events(&page["account_data"]).is_empty(),
            "news, and nothing happened: {page}"
        );
        Ok(())
    }
}
