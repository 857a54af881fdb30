//! The rooms of a user, as their lists are sorted and filtered: in memory for those who sync, following the stream. Messages
//! move them by what the journal tells; anything else by a look at what changed in the database.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hearth_core::{Error, Result, sliding};
use hearth_storage::{ListedRoom, RoomListPage, SyncPage};
use serde::Deserialize;

use super::spaces::Spaces;
use crate::{
    notify::Journal,
    service::shape::Reader,
    sync::{Following, Syncs},
};

/// One of a user's rooms.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) room: ListedRoom,
    pub(super) tags: Vec<String>,
    /// Where something last changed of what the user keeps for it, and of what they read in private.
    pub(super) data_pos: i64,
    pub(super) read_pos: i64,
}

impl Entry {
    pub(super) fn is_in(&self) -> bool {
        self.room.membership == "join"
    }

    pub(super) fn is_invite(&self) -> bool {
        self.room.membership == "invite"
    }

    /// Not in the room yet.
    pub(super) fn is_stranger(&self) -> bool {
        matches!(self.room.membership.as_str(), "invite" | "knock")
    }

    /// Not in the room any more, whoever's doing it was.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.room.membership.as_str(), "leave" | "ban")
    }

    /// What lists are sorted by: the last thing that happened there, as far as it is for the user.
    pub(super) fn activity(&self) -> i64 {
        if self.is_in() { self.room.last_pos } else { self.room.membership_pos }
    }

    /// What clients may sort by.
    pub(super) fn bump(&self) -> i64 {
        if self.is_in() { self.room.bump_pos } else { self.room.membership_pos }
    }

    /// The last change of any kind that the user is told of.
    pub(super) fn touched(&self) -> i64 {
        let touched = if self.is_in() { self.room.touched_pos } else { 0 };
        touched.max(self.room.membership_pos)
    }

    fn bytes(&self) -> usize {
        320 + self.room.room_id.len() + self.tags.iter().map(|tag| tag.len() + 24).sum::<usize>()
    }
}

/// The rooms of one user.
pub(in crate::sync) struct MyRooms(Mutex<Rooms>);

pub(super) struct Rooms {
    /// It is all so at this position.
    pub(super) as_of: i64,
    pub(super) entries: HashMap<i64, Entry>,
    pub(super) by_id: HashMap<String, i64>,
    /// The rooms that the user calls direct chats.
    pub(super) direct: HashSet<String>,
    /// Where it last changed whom they ignore, and so what is unread.
    pub(super) ignored_pos: i64,
    pub(super) following: Arc<Following>,
    /// What is in spaces, where that was asked.
    pub(super) spaces: Spaces,
    user: String,
}

impl MyRooms {
    pub(super) fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on by what is in memory; whether that is enough.
    fn goes_on(&self, journal: &Journal, user: &str) -> bool {
        let mut rooms = self.rooms();
        let rooms = &mut *rooms;
        let Some(news) = journal.after(rooms.as_of, rooms.as_of, user, &rooms.following.rooms) else { return false };
        rooms.following.went_on(user, &news.messages, news.top);
        for message in &news.messages {
            let Some(entry) = rooms.entries.get_mut(&message.room_sn) else { continue };
            entry.room.last_pos = entry.room.last_pos.max(message.pos);
            entry.room.touched_pos = entry.room.touched_pos.max(message.pos);
            if sliding::bumps(&message.pdu.event_type.to_string()) {
                entry.room.bump_pos = entry.room.bump_pos.max(message.pos);
            }
        }
        rooms.as_of = news.top;
        true
    }

    pub(in crate::sync) fn bytes(&self) -> usize {
        let rooms = self.rooms();
        let direct: usize = rooms.direct.iter().map(|id| id.len() + 48).sum();
        512 + rooms.spaces.bytes()
            + rooms.entries.values().map(|entry| entry.bytes() + entry.room.room_id.len() + 64).sum::<usize>()
            + direct
    }
}

impl Rooms {
    fn nothing(user: &str) -> Self {
        Self {
            as_of: 0,
            entries: HashMap::new(),
            by_id: HashMap::new(),
            direct: HashSet::new(),
            ignored_pos: 0,
            following: Arc::new(Following::nothing()),
            spaces: Spaces::default(),
            user: user.to_owned(),
        }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Takes over what a look at the database showed.
    fn take(&mut self, page: &RoomListPage) {
        if page.whole {
            *self = Self::nothing(&self.user);
        }
        for room in &page.rooms {
            let old = self.entries.remove(&room.room_sn);
            let mut entry = Entry { room: room.clone(), tags: Vec::new(), data_pos: 0, read_pos: 0 };
            if let Some(old) = old {
                entry = Entry { room: room.clone(), ..old };
            }
            self.by_id.insert(room.room_id.clone(), room.room_sn);
            self.entries.insert(room.room_sn, entry);
        }
        for (room_sn, kind, pos) in &page.data {
            if *room_sn == 0 && kind == "m.ignored_user_list" {
                self.ignored_pos = self.ignored_pos.max(*pos);
            }
            if let Some(entry) = self.entries.get_mut(room_sn) {
                entry.data_pos = entry.data_pos.max(*pos);
            }
        }
        for (room_sn, pos) in &page.read {
            if let Some(entry) = self.entries.get_mut(room_sn) {
                entry.read_pos = entry.read_pos.max(*pos);
            }
        }
        for (room_sn, tags) in &page.tags {
            if let Some(entry) = self.entries.get_mut(room_sn) {
                entry.tags = tags_in(tags.as_deref());
            }
        }
        if let Some(direct) = &page.direct {
            self.direct = direct_in(direct.as_deref());
        }
        self.as_of = page.head;
    }

    /// The same in terms of what a sync reads.
    fn as_page(&self, page: &RoomListPage) -> SyncPage {
        let joined: Vec<&Entry> = self.entries.values().filter(|entry| entry.is_in()).collect();
        let mut moved: Vec<i64> = page.rooms.iter().map(|room| room.room_sn).collect();
        moved.extend(page.read.iter().map(|(room_sn, _)| *room_sn));
        let global = page.data.iter().filter(|(room_sn, ..)| *room_sn == 0);
        SyncPage {
            head: page.head,
            following: joined.iter().map(|entry| entry.room.room_sn).collect(),
            sizes: joined.iter().map(|entry| entry.room.joined).collect(),
            moved,
            account_data: global.map(|(_, kind, _)| (kind.clone(), None)).collect(),
            ignored: page.ignored.clone().map_or_else(|| Arc::clone(&self.following.ignored), Arc::new),
            keys: page.keys.clone(),
            ..SyncPage::default()
        }
    }
}

/// The user's own to write: what is no such list names no tags.
fn tags_in(content: Option<&str>) -> Vec<String> {
    #[derive(Deserialize)]
    struct Content {
        tags: HashMap<String, serde::de::IgnoredAny>,
    }
    let content = content.and_then(|content| serde_json::from_str::<Content>(content).ok());
    content.map(|content| content.tags.into_keys().collect()).unwrap_or_default()
}

fn direct_in(content: Option<&str>) -> HashSet<String> {
    let content = content.and_then(|content| serde_json::from_str::<HashMap<String, serde_json::Value>>(content).ok());
    let rooms = content.iter().flat_map(HashMap::values).filter_map(|rooms| rooms.as_array()).flatten();
    rooms.filter_map(|room| room.as_str()).map(str::to_owned).collect()
}

impl Syncs {
    /// The user's rooms, as they are at `at_least` this position or later.
    pub(super) async fn my_rooms(&self, reader: Reader<'_>, at_least: i64) -> Result<Arc<MyRooms>> {
        let known = self.my_rooms.get(reader.user);
        if let Some(known) = &known
            && known.goes_on(&self.known.journal, reader.user.as_str())
            && known.rooms().as_of >= at_least
        {
            return Ok(Arc::clone(known));
        }
        let _turn = self.turns.acquire().await.map_err(Error::internal)?;
        let since = known.as_ref().map(|known| known.rooms().as_of);
        let page = self.storage.room_list(reader.user.as_str(), reader.device, since).await?;
        let mine = known.unwrap_or_else(|| Arc::new(MyRooms(Mutex::new(Rooms::nothing(reader.user.as_str())))));
        self.take_over(reader, &mine, &page, since);
        self.my_rooms.insert(reader.user.to_owned(), Arc::clone(&mine));
        Ok(mine)
    }

    fn take_over(&self, reader: Reader<'_>, mine: &MyRooms, page: &RoomListPage, since: Option<i64>) {
        let before = self.following.get(reader.user);
        let mut rooms = mine.rooms();
        // Another poll of the user's may have looked later and have been quicker.
        if page.head < rooms.as_of {
            return;
        }
        let ignored = Arc::clone(&rooms.following.ignored);
        rooms.take(page);
        let mut sync = rooms.as_page(page);
        if page.ignored.is_none() && !page.whole {
            sync.ignored = ignored;
        }
        let keys = self.keys_left(reader, &sync, before.as_deref());
        let since = since.filter(|_| !page.whole);
        let following = Arc::new(Following::new(&sync, since, before.as_deref(), keys));
        if before.is_none_or(|before| before.as_of() <= following.as_of()) {
            self.following.insert(reader.user.to_owned(), Arc::clone(&following));
        }
        rooms.following = following;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_for_themselves_may_be_anything() {
        assert_eq!(tags_in(Some(r#"{"tags":{"m.favourite":{"order":0.1}}}"#)), ["m.favourite"]);
        for odd in [None, Some("{}"), Some(r#"{"tags":[]}"#), Some("3")] {
            assert!(tags_in(odd).is_empty());
        }
        assert_eq!(direct_in(Some(r#"{"@a:x":["!1","!2",3],"@b:x":"!3"}"#)), ["!1", "!2"].map(str::to_owned).into());
        for odd in [None, Some("{}"), Some("[]")] {
            assert!(direct_in(odd).is_empty());
        }
    }
}
