//! What a device knows after all that it was told.

use std::collections::BTreeMap;

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::Value;

use super::eyes::{Eyes, passes};
use crate::model::{
    Outcome, Run,
    client::{Members, View},
    ensure,
    world::{Room, Sight},
};

impl Run<'_> {
    pub fn kept_by(&self, user: &OwnedUserId, room: Option<usize>) -> BTreeMap<String, Value> {
        let all = self.world.kept.iter().filter(|((u, r, _), _)| u == user && *r == room);
        all.map(|((_, _, kind), (_, content))| (kind.clone(), content.clone())).collect()
    }

    /// What a device knows of a room that its owner is in.
    pub fn holds(&self, eyes: &Eyes<'_>, n: usize, view: &View, members: Members) -> Outcome<()> {
        let room = &self.world.rooms[n];
        view.has_state(room.state(), members)?;
        let receipts = room.receipts_for(eyes.user);
        ensure!(view.receipts == receipts, "the receipts are {receipts:?}, not {:?}", view.receipts);
        Ok(())
    }

    /// Now that all gaps are closed: the timeline of each room is what its owner is to see of it.
    pub fn has_all(&self, who: usize, device: usize) -> Outcome<()> {
        let (user, device) = (&self.users[who], &self.devices[who][device]);
        for (n, view) in &device.knows.rooms {
            let room = &self.world.rooms[*n];
            let eyes = self.eyes(*n, user, &device.name);
            let is_in = room.membership(user) == "join";
            if !view.complete || view.joined != is_in || view.newest_gap().is_some() {
                continue;
            }
            let until = if is_in { Some(room.events.len() - 1) } else { room.left_at(user) };
            let Some(until) = until else { continue };
            let ids = view.ids();
            let mut next = 0;
            for (at, event) in room.events.iter().enumerate() {
                if ids.get(next) == Some(&event.id) {
                    next += 1;
                } else {
                    // What was missed while its sender was ignored is not told afterwards.
                    let missed =
                        event.state_key.is_none() && self.ever_ignored.contains(&(user.clone(), event.sender.clone()));
                    let must = eyes.sights[at] == Sight::Must && at <= until && !missed;
                    ensure!(
                        !must || !passes(device.filter.as_ref(), room, event),
                        "room {n}: {} {} is missing on {}, which has {:?} of {:?}",
                        event.kind,
                        event.id,
                        device.name,
                        room.places(&ids),
                        eyes.sights
                    );
                }
            }
            ensure!(next == ids.len(), "room {n}: the order is another one: {:?}", room.places(&ids));
        }
        Ok(())
    }
}

impl Room {
    /// The places of events in the list.
    pub fn places(&self, ids: &[OwnedEventId]) -> Vec<usize> {
        ids.iter().filter_map(|id| self.find(id.as_str())).map(|(at, _)| at).collect()
    }
}
