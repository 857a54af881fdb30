//! Syncs of those who follow closely: from the newest commits, which are in memory.

use std::{collections::HashMap, sync::Arc};

use hearth_core::{
    Error, Result,
    filter::Sieve,
    token::{SyncToken, TimelineToken},
};
use moka::ops::compute::Op;
use ruma::api::client::sync::sync_events::v3::{Response, State, StateEvents};

use super::{Heard, Page, SyncWish, unread};
use crate::{
    service::shape::Reader,
    sync::{Following, Syncs, following::Counted, keys},
};

/// What memory has.
pub(super) enum Memory {
    Page(Box<Page>, Arc<Following>),
    /// All but what was unread in these rooms before.
    Lacks(Vec<i64>, Arc<Following>),
    /// Too little.
    No,
}

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
        let mut lacking = Vec::new();
        let lazy = wish.lazy().map(|(redundant, filter)| (redundant, filter, self.told.by(reader, since, filter)));
        let sieve = Sieve::new(wish.filter.room.timeline.clone(), Arc::clone(&following.ignored));
        for message in news.messages.iter().filter(|m| m.pos > since.pos) {
            let room_id = &message.pdu.room_id;
            if !sieve.passes(room_id, &message.pdu.json)? {
                continue;
            }
            if let Some((redundant, _, told)) = &lazy {
                let is_told = told.get(&message.room_sn).is_some_and(|told| told.contains(message.pdu.sender.as_str()));
                if *redundant || !is_told {
                    return Ok(Memory::No);
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
                    Counted::Unknown => lacking.push(message.room_sn),
                    Counted::InSum => return Ok(Memory::No),
                }
                if wish.state_after {
                    room.state = State::After(StateEvents::new());
                }
                let first = TimelineToken { topo: message.pos, minor: 0 };
                room.timeline.prev_batch = Some(first.to_string());
            }
            room.timeline.events.push(self.shapes.message(message, reader)?);
        }
        if !lacking.is_empty() {
            return Ok(Memory::Lacks(lacking, following));
        }
        let told = lazy.map(|(_, filter, members)| Heard { filter, members });
        Ok(Memory::Page(Box::new(Page { response, next, told, keys_moved: false }), following))
    }

    /// Finds what memory lacks, which is little beside a whole page.
    pub(in crate::sync) async fn learn(
        &self,
        reader: Reader<'_>,
        rooms: Vec<i64>,
        following: &Following,
    ) -> Result<()> {
        let _turn = self.turns.acquire().await.map_err(Error::internal)?;
        let ignored = Arc::clone(&following.ignored);
        let found = self.storage.unread(reader.user.as_str(), ignored, rooms.clone()).await?;
        following.learn(&rooms, &found);
        Ok(())
    }
}
