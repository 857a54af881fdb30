//! Which rooms are in which spaces, for lists that are filtered by it: read when such a list is asked for, and again once
//! something has happened in the space.

use std::collections::{HashMap, HashSet};

use hearth_core::{Error, Result};

use super::{
    my_rooms::{MyRooms, Rooms},
    wish::SlidingWish,
};
use crate::{service::spaces::linked_by, sync::Syncs};

/// What spaces held when they were looked at.
#[derive(Default)]
pub(super) struct Spaces(HashMap<i64, Space>);

struct Space {
    /// Nothing had happened in the space after this.
    as_of: i64,
    rooms: HashSet<String>,
}

impl Spaces {
    pub(super) fn bytes(&self) -> usize {
        let space = |space: &Space| 96 + space.rooms.iter().map(|id| id.len() + 48).sum::<usize>();
        self.0.values().map(space).sum()
    }
}

impl Rooms {
    /// Those of these spaces that the user is in, by number, and where something last happened in them.
    fn joined_spaces<'a>(&'a self, ids: impl Iterator<Item = &'a String>) -> impl Iterator<Item = (i64, i64)> {
        let entries = ids.filter_map(|id| self.entries.get(self.by_id.get(id)?));
        let spaces = entries.filter(|entry| entry.is_in() && entry.room.kind.as_deref() == Some("m.space"));
        spaces.map(|entry| (entry.room.room_sn, entry.touched()))
    }

    /// The rooms in each of these spaces that the user is in.
    pub(super) fn in_spaces(&self, ids: &[String]) -> Vec<&HashSet<String>> {
        self.joined_spaces(ids.iter()).filter_map(|(sn, _)| Some(&self.spaces.0.get(&sn)?.rooms)).collect()
    }
}

impl Syncs {
    /// Looks at the spaces by which lists are filtered, where that was not done since something happened there.
    pub(super) async fn look_into_spaces(&self, mine: &MyRooms, wish: &SlidingWish) -> Result<()> {
        let wanted: HashMap<i64, i64> = {
            let rooms = mine.rooms();
            let all = rooms.joined_spaces(wish.lists.iter().flat_map(|list| &list.filters.spaces));
            all.filter(|(sn, pos)| rooms.spaces.0.get(sn).is_none_or(|known| known.as_of != *pos)).collect()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let _turn = self.turns.acquire().await.map_err(Error::internal)?;
        let mut found: HashMap<i64, Space> =
            wanted.iter().map(|(sn, pos)| (*sn, Space { as_of: *pos, rooms: HashSet::new() })).collect();
        for (sn, link) in self.storage.space_children(wanted.into_keys().collect()).await? {
            if let (Some(space), Some(room)) = (found.get_mut(&sn), linked_by(&link)?) {
                space.rooms.insert(room);
            }
        }
        mine.rooms().spaces.0.extend(found);
        Ok(())
    }
}
