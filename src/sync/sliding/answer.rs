//! One answer: what the client looks at, what of it is news, and what the client knows once it has read it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use hearth_core::{Error, Result, sliding::SlidingWish, token::Mark};
use hearth_storage::{AskedRoom, SlidingPage, SlidingQuery, Unread, UnreadNow};
use ruma::{
    OwnedRoomId, RoomId, UInt,
    api::client::sync::sync_events::v5::{Response, response},
};

use super::{
    Beside, Slid,
    connection::{Configs, Sent, State, UpTo},
    my_rooms::MyRooms,
    view::{Asked, InView, View},
};
use crate::{
    service::shape::Reader,
    sync::{Following, Syncs, following::Counted},
};

/// What may become the answer.
pub(super) struct Turn {
    pub(super) slid: Slid,
    /// What the client knows once it has read it.
    pub(super) state: State,
    pub(super) following: Arc<Following>,
    /// What is left of the device's keys is otherwise than it was told.
    pub(super) keys_moved: bool,
}

impl Turn {
    pub(super) fn says_something(&self) -> bool {
        let Response { rooms, extensions: e, .. } = &self.slid.response;
        self.keys_moved
            || !rooms.is_empty()
            || !e.account_data.is_empty()
            || !e.receipts.is_empty()
            || !e.typing.is_empty()
            || !e.thread_subscriptions.is_empty()
            || !e.e2ee.device_lists.is_empty()
            || e.to_device.as_ref().is_some_and(|to_device| !to_device.events.is_empty())
    }
}

/// What a client looks at, as it is at one position.
pub(super) struct Look {
    pub(super) as_of: i64,
    pub(super) mine: Arc<MyRooms>,
    pub(super) view: View,
    pub(super) asked: Vec<Asked>,
    pub(super) following: Arc<Following>,
    pub(super) configs: Configs,
    /// What went out of a state is told.
    pub(super) tells_of_gone: bool,
}

/// Rooms as they are told, with what else is told of them.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) rooms: HashMap<OwnedRoomId, response::Room>,
    pub(super) expanded: BTreeSet<OwnedRoomId>,
    pub(super) nameless: BTreeSet<OwnedRoomId>,
    pub(super) extensions: response::Extensions,
    /// What was told of rooms after this answer.
    pub(super) sent: HashMap<i64, Sent>,
    pub(super) keys_moved: bool,
}

impl Syncs {
    pub(super) async fn turn(
        &self,
        reader: Reader<'_>,
        wish: &SlidingWish,
        base: Option<&State>,
        told: Option<Mark>,
        from_memory: bool,
    ) -> Result<Turn> {
        // The serial first: a change after this is seen with the next position.
        let serial = self.serial.now();
        let pos = base.map_or(0, |base| base.pos);
        let look = self.look(reader, wish, base).await?;
        if look.as_of < pos {
            // Of a time that this database does not know.
            return Err(Error::unknown_pos());
        }
        let quiet = from_memory.then_some(base).flatten().and_then(|base| {
            let rooms = &look.following.rooms;
            self.known.journal.after(base.pos, look.as_of, reader.user.as_str(), rooms)
        });
        let from_memory = match &quiet {
            Some(news) => self.draft_from_memory(reader, wish, pos, &look, &news.messages).await?,
            None => None,
        };
        let mut draft = match from_memory {
            Some(draft) => draft,
            None => self.draft_from_database(reader, wish, base, &look, told, quiet.is_some()).await?,
        };
        let typing = self.typing_of(wish, base, &look, &mut draft)?;

        let mut state =
            State { key: self.random_key(), pos: look.as_of, serial, epoch: self.epoch, typing, ..State::default() };
        let mut response = Response::new(state.position().to_string());
        for (name, count) in &look.view.counts {
            let mut list = response::List::default();
            list.count = UInt::try_from(*count).unwrap_or(UInt::MAX);
            response.lists.insert(name.clone(), list);
        }
        let Draft { rooms, expanded, nameless, extensions, sent, keys_moved } = draft;
        let beside = if wish.tells_beside { look.beside(&rooms, &nameless) } else { BTreeMap::new() };
        response.rooms = rooms.into_iter().collect();
        response.extensions = extensions;
        know(&mut state, base, &look, sent);
        Ok(Turn { slid: Slid { response, expanded, beside }, state, following: look.following, keys_moved })
    }

    async fn look(&self, reader: Reader<'_>, wish: &SlidingWish, base: Option<&State>) -> Result<Look> {
        let mine = self.my_rooms(reader, base.map_or(0, |base| base.pos)).await?;
        self.look_into_spaces(&mine, wish).await?;
        let mut configs = base.map(|base| Configs::clone(&base.configs)).unwrap_or_default();
        let rooms = mine.rooms();
        let view = View::new(wish, &rooms, base, &mut configs);
        let asked = view.asked(&rooms, base, &configs);
        let (as_of, following) = (rooms.as_of, Arc::clone(&rooms.following));
        drop(rooms);
        Ok(Look { as_of, mine, view, asked, following, configs, tells_of_gone: wish.tells_beside })
    }

    /// `quiet`: of what is of no room, nothing has changed.
    async fn draft_from_database(
        &self,
        reader: Reader<'_>,
        wish: &SlidingWish,
        base: Option<&State>,
        look: &Look,
        told: Option<Mark>,
        quiet: bool,
    ) -> Result<Draft> {
        let known_keys = look.following.keys.of(reader.device).filter(|_| quiet);
        let to_device = wish.to_device.as_ref().filter(|_| !quiet);
        let mut counted = look.counted();
        let query = SlidingQuery {
            user_id: reader.user.to_string(),
            device_id: reader.device.to_owned(),
            since: base.map(|base| base.pos),
            high: look.as_of,
            rooms: look.asked.iter().filter_map(|asked| asked_room(asked, &look.configs, &counted)).collect(),
            told: Arc::new(told_members(&look.asked)),
            ignored: Arc::clone(&look.following.ignored),
            account_data: wish.account_data.is_some() && !quiet,
            keys: wish.e2ee && known_keys.is_none(),
            to_device: to_device.map(|wish| (told.map_or(0, |mark| mark.pos), wish.limit)),
            subscriptions: wish.thread_subscriptions.filter(|_| !quiet),
        };
        let is_nothing = query.rooms.is_empty()
            && !query.account_data
            && !query.keys
            && query.to_device.is_none()
            && query.subscriptions.is_none();
        let mut page = SlidingPage::default();
        if !is_nothing {
            let _turn = self.turns.acquire().await.map_err(Error::internal)?;
            page = self.storage.sliding_page(query).await?;
            let found = page.rooms.iter().filter(|room| !room.is_left).map(|room| &room.part);
            let found = found.filter(|part| !counted.contains_key(&part.room.room_sn));
            let rooms: HashMap<_, _> = found.map(|part| (part.room.room_sn, part.unread.clone())).collect();
            let read: Vec<i64> = rooms.keys().copied().collect();
            look.following.learn(&read, &UnreadNow { head: page.head, rooms });
            for room in &mut page.rooms {
                if let Some(unread) = counted.remove(&room.part.room.room_sn) {
                    room.part.unread = unread;
                }
            }
        }
        let mut draft = Draft::default();
        self.show_to_device(reader, wish, look.as_of, std::mem::take(&mut page.to_device), &mut draft)?;
        self.tell_of_user(reader, wish, base, &mut page, known_keys, &mut draft).await?;
        self.tell_of_rooms(reader, base, look, page, &mut draft)?;
        Ok(draft)
    }

    fn random_key(&self) -> u64 {
        let mut key = [0; 8];
        self.rng.fill(&mut key);
        u64::from_le_bytes(key)
    }
}

impl Look {
    /// What is unread in the rooms that are asked for, where memory knows.
    fn counted(&self) -> HashMap<i64, Unread> {
        let known = |asked: &Asked| match self.following.unread(asked.entry.room.room_sn, false) {
            Counted::As(unread) => Some((asked.entry.room.room_sn, unread)),
            Counted::Unknown | Counted::InSum => None,
        };
        self.asked.iter().filter_map(known).collect()
    }

    /// What is told beside the rooms of an answer.
    fn beside(
        &self,
        rooms: &HashMap<OwnedRoomId, response::Room>,
        nameless: &BTreeSet<OwnedRoomId>,
    ) -> BTreeMap<OwnedRoomId, Beside> {
        let beside = self.asked.iter().filter_map(|asked| {
            let room = &asked.entry.room;
            let (id, _) = rooms.get_key_value(<&RoomId>::try_from(room.room_id.as_str()).ok()?)?;
            let beside = Beside {
                membership: Some(room.membership.clone()),
                lists: self.view.in_lists.get(&room.room_sn).cloned().unwrap_or_default(),
                has_lost_its_name: nameless.contains(id),
            };
            Some((id.clone(), beside))
        });
        beside.collect()
    }
}

fn asked_room(asked: &Asked, configs: &Configs, counted: &HashMap<i64, Unread>) -> Option<AskedRoom> {
    let config = configs.get(asked.view.config)?;
    Some(AskedRoom {
        room_sn: asked.entry.room.room_sn,
        low: asked.low,
        limit: i64::try_from(config.limit).unwrap_or(i64::MAX),
        again: asked.again,
        required: Arc::new(config.required.clone()),
        whole_state: asked.whole_state,
        receipts_from: asked.receipts_from,
        data_from: asked.data_from,
        unread: !counted.contains_key(&asked.entry.room.room_sn),
    })
}

fn told_members(asked: &[Asked]) -> hearth_storage::Told {
    let told = asked.iter().filter(|asked| !asked.whole_state).filter_map(|asked| {
        let sent = asked.sent.as_ref()?;
        Some((asked.entry.room.room_sn, Arc::clone(&sent.told)))
    });
    told.collect()
}

/// What the client knows after the answer, of each room.
fn know(state: &mut State, base: Option<&State>, look: &Look, told: HashMap<i64, Sent>) {
    let pos = base.map_or(0, |base| base.pos);
    let before = base.map(|base| Arc::clone(&base.rooms)).unwrap_or_default();
    let asked: HashSet<i64> = look.asked.iter().map(|asked| asked.entry.room.room_sn).collect();
    let mut changed = told;
    for (sn, sent) in before.iter().filter(|(sn, _)| !changed.contains_key(sn)).collect::<Vec<_>>() {
        // What was asked and could not be told goes on from where it was.
        let now = match look.view.rooms.get(sn).filter(|_| !asked.contains(sn)) {
            Some(view) => looked_at(sent, *view, pos),
            None => {
                let mut sent = sent.clone();
                sent.leave_behind(pos);
                sent
            }
        };
        if now.up_to != sent.up_to
            || now.receipts != sent.receipts
            || now.data != sent.data
            || now.config != sent.config
        {
            changed.insert(*sn, now);
        }
    }
    state.rooms = before;
    if !changed.is_empty() {
        Arc::make_mut(&mut state.rooms).extend(changed);
    }
    let same = base.filter(|base| base.configs.len() == look.configs.len());
    state.configs = same.map_or_else(|| Arc::new(look.configs.clone()), |base| Arc::clone(&base.configs));
    if state.configs.is_too_many() {
        let tidied = state.configs.tidied(Arc::make_mut(&mut state.rooms));
        state.configs = Arc::new(tidied);
    }
}

/// Nothing has happened in the room, so the client knows all of it.
fn looked_at(sent: &Sent, view: InView, pos: i64) -> Sent {
    let mut now = sent.clone();
    now.leave_behind(pos);
    now.up_to = UpTo::NOW;
    // What else was told of it goes on where it is told still.
    if view.scopes.receipts {
        now.receipts = sent.receipts;
    }
    if view.scopes.data {
        now.data = sent.data;
    }
    now.config = view.config;
    now
}
