//! Syncs of those who follow closely: from the newest commits, which are in memory.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_core::{
    Error, Result,
    filter::{self, Sieve},
    token::{SyncToken, TimelineToken},
};
use hearth_storage::Message;
use moka::ops::compute::Op;
use ruma::{
    RoomId,
    api::client::sync::sync_events::v3::{Response, State, StateEvents},
    events::AnySyncStateEvent,
    serde::Raw,
};

use super::{Heard, Page, SyncWish, unread};
use crate::{
    service::shape::{Beside, Reader},
    sync::{
        Following, Syncs,
        following::Counted,
        keys,
        speakers::{Member, Speaker},
        told,
    },
};

/// What memory has.
pub(super) enum Memory {
    Page(Box<Page>, Arc<Following>),
    /// All but this.
    Lacks(Lacking, Arc<Following>),
    /// Too little.
    No,
}

/// What it takes a look at the database to know, if only a short one.
#[derive(Default)]
pub(in crate::sync) struct Lacking {
    /// What was unread in these rooms before.
    pub(in crate::sync) unread: Vec<i64>,
    /// Who sent these messages.
    pub(in crate::sync) speakers: Vec<Message>,
}

/// So many members are looked up one by one; a page of more of them is read as a whole.
pub(in crate::sync) const MOST_SPEAKERS: usize = 10;

impl Syncs {
    /// Where messages are all that happened since the token, and this process was there: what a sync shows, without a
    /// look at the database.
    pub(super) fn read_memory(&self, reader: Reader<'_>, wish: &SyncWish) -> Result<Memory> {
        let Some(since) = wish.since else { return Ok(Memory::No) };
        if wish.full_state || !wish.in_all_rooms() {
            return Ok(Memory::No);
        }
        let Some(following) = self.following.get(reader.user) else { return Ok(Memory::No) };
        let Some(keys_left) = following.keys.of(reader.device) else { return Ok(Memory::No) };
        // The serial first: a change after this is seen with the next token.
        let serial = self.serial.now();
        let typers = self.typing.typers(&following.rooms, &[], self.seen(Some(since)));
        let news = self.known.journal.after(since.pos, following.as_of(), reader.user.as_str(), &following.rooms);
        let (true, Some(news)) = (typers.rooms.is_empty(), news) else { return Ok(Memory::No) };
        let Some(presence) = self.presence_from_memory(reader, wish, &following)? else { return Ok(Memory::No) };
        if following.went_on(reader.user.as_str(), &news.messages, news.top) {
            // Unless it is another's turn already.
            self.following.entry(reader.user.to_owned()).and_compute_with(|kept| match kept {
                Some(kept) if Arc::ptr_eq(kept.value(), &following) => Op::Put(Arc::clone(&following)),
                _ => Op::Nop,
            });
        }

        let next = SyncToken { pos: news.top, serial, epoch: self.epoch, typing: typers.somebody, to_device: None };
        let mut response = Response::new(next.to_string());
        response.presence.events = presence;
        keys::show_left(&mut response, &keys_left);
        let limit = wish.timeline_limit();
        let mut counts: HashMap<i64, u64> = HashMap::new();
        let mut lacking = Lacking::default();
        let mut states: HashMap<&RoomId, StateEvents> = HashMap::new();
        let mut heard: HashSet<(i64, String)> = HashSet::new();
        let lazy = wish.lazy().map(|(redundant, filter)| (redundant, filter, self.told.by(reader, since, filter)));
        let sieve = Sieve::new(wish.filter.room.timeline.clone(), Arc::clone(&following.ignored));
        for message in news.messages.iter().filter(|m| m.pos > since.pos) {
            let room_id = &message.pdu.room_id;
            if !sieve.passes(room_id, &message.pdu.json)? {
                continue;
            }
            if let Some((redundant, _, told)) = &lazy {
                let sender = message.pdu.sender.as_str();
                let is_told = told.get(&message.room_sn).is_some_and(|told| told.contains(sender));
                if *redundant {
                    return Ok(Memory::No);
                }
                if !is_told && heard.insert((message.room_sn, sender.to_owned())) {
                    match self.speakers.of(message) {
                        Speaker::Member(member) => {
                            let state = states.entry(room_id).or_default();
                            state.events.extend(self.member(reader, wish, &member)?);
                        }
                        Speaker::Unknown => lacking.speakers.push(message.clone()),
                        Speaker::Special => return Ok(Memory::No),
                    }
                }
            }
            let count = counts.entry(message.room_sn).or_default();
            *count += 1;
            if *count > limit {
                return Ok(Memory::No);
            }
            let room = response.rooms.join.entry(room_id.clone()).or_default();
            if *count == 1 {
                match following.unread(message.room_sn, wish.tells_threads_apart()) {
                    Counted::As(unread) => unread::show(wish, room, &unread)?,
                    Counted::Unknown => lacking.unread.push(message.room_sn),
                    Counted::InSum => return Ok(Memory::No),
                }
                let first = TimelineToken { topo: message.pos, minor: 0 };
                room.timeline.prev_batch = Some(first.to_string());
            }
            room.timeline.events.push(self.shapes.message(message, reader)?);
        }
        if lacking.speakers.len() > MOST_SPEAKERS {
            return Ok(Memory::No);
        }
        if !lacking.unread.is_empty() || !lacking.speakers.is_empty() {
            return Ok(Memory::Lacks(lacking, following));
        }
        for (id, room) in &mut response.rooms.join {
            let state = states.remove(&**id).unwrap_or_default();
            room.state = if wish.state_after { State::After(state) } else { State::Before(state) };
        }
        let told = lazy.map(|(_, filter, members)| Heard { filter, members: told::and_these(members, &heard) });
        Ok(Memory::Page(Box::new(Page { response, next, told, keys_moved: false }), following))
    }

    /// Somebody's membership, unless the filter keeps it out.
    fn member(&self, reader: Reader<'_>, wish: &SyncWish, member: &Member) -> Result<Option<Raw<AnySyncStateEvent>>> {
        let Member { room, event } = member;
        if !filter::passes(&wish.filter.room.state, &room.id, &event.json)? {
            return Ok(None);
        }
        // Only those who are in the room are told from here.
        let memberships = [(0, "join".to_owned())];
        let beside = Beside { in_sync: true, memberships: &memberships, ..Beside::default() };
        self.shapes.event(room, event, reader, beside).map(Some)
    }

    /// Finds what memory lacks, which is little beside a whole page.
    pub(in crate::sync) async fn learn(
        &self,
        reader: Reader<'_>,
        lacking: Lacking,
        following: &Following,
    ) -> Result<()> {
        let _turn = self.turns.acquire().await.map_err(Error::internal)?;
        for message in &lacking.speakers {
            self.speakers.learn(&*self.storage, message).await?;
        }
        if !lacking.unread.is_empty() {
            let ignored = Arc::clone(&following.ignored);
            let found = self.storage.unread(reader.user.as_str(), ignored, lacking.unread.clone()).await?;
            following.learn(&lacking.unread, &found);
        }
        Ok(())
    }
}
