//! Answers to those who follow closely: from the newest commits, which are in memory.

use std::{collections::BTreeMap, sync::Arc};

use hearth_core::{Error, Result, filter::Sieve, push::Counts, sliding::SlidingWish, token::TimelineToken};
use hearth_storage::Message;
use ruma::{
    UInt,
    api::client::{filter::RoomEventFilter, sync::sync_events::v5::response},
};

use super::{
    answer::{Draft, Look},
    room,
    view::Asked,
};
use crate::{
    service::shape::{Beside, Reader},
    sync::{
        Syncs,
        classic::memory::{Lacking, MOST_SPEAKERS},
        following::Counted,
        speakers::{Member, Speaker},
    },
};

impl Syncs {
    /// Where messages are all that happened since the position, and nobody is looked at otherwise than before: what they
    /// are told, without a look at the database.
    pub(super) async fn draft_from_memory(
        &self,
        reader: Reader<'_>,
        wish: &SlidingWish,
        pos: i64,
        look: &Look,
        messages: &[Message],
    ) -> Result<Option<Draft>> {
        let following = &look.following;
        let keys = following.keys.of(reader.device);
        if !look.asked.iter().all(|asked| asked.follows_closely(pos)) || wish.e2ee && keys.is_none() {
            return Ok(None);
        }
        let news = |sn: i64| messages.iter().filter(move |m| m.room_sn == sn && pos < m.pos && m.pos <= look.as_of);
        let sieve = Sieve::new(RoomEventFilter::default(), Arc::clone(&following.ignored));
        let (mut told, mut lacking) = (Vec::new(), Lacking::default());
        for asked in &look.asked {
            let Some(config) = look.configs.get(asked.view.config) else { return Ok(None) };
            let mut seen = Vec::new();
            for message in news(asked.entry.room.room_sn) {
                if sieve.passes(&message.pdu.room_id, &message.pdu.json)? {
                    seen.push(message);
                }
            }
            if seen.len() as u64 > config.limit {
                return Ok(None);
            }
            let strangers = seen.iter().copied().filter(|message| config.required.is_lazy() && !asked.knows(message));
            let strangers: Vec<&Message> = strangers.collect();
            let unknown = |message: &&Message| matches!(self.speakers.of(message), Speaker::Unknown);
            lacking.speakers.extend(strangers.iter().copied().filter(unknown).cloned());
            if following.unread(asked.entry.room.room_sn, false) == Counted::Unknown {
                lacking.unread.push(asked.entry.room.room_sn);
            }
            told.push((asked, seen, strangers));
        }
        if lacking.speakers.len() > MOST_SPEAKERS {
            return Ok(None);
        }
        if !lacking.speakers.is_empty() || !lacking.unread.is_empty() {
            self.learn(reader, lacking, following).await?;
        }
        let mut draft = Draft::default();
        if let Some(keys) = keys.filter(|_| wish.e2ee) {
            draft.extensions.e2ee = super::extensions::keys_left(&keys);
        }
        self.show_to_device(reader, wish, look.as_of, Vec::new(), &mut draft)?;
        for (asked, seen, strangers) in told {
            let mut members = BTreeMap::new();
            for message in strangers {
                let Speaker::Member(member) = self.speakers.of(message) else { return Ok(None) };
                members.insert(message.pdu.sender.as_str(), member);
            }
            // Another of the user's polls may have gone on meanwhile, and what was learned was too old for it.
            let Counted::As(unread) = following.unread(asked.entry.room.room_sn, false) else { return Ok(None) };
            self.tell_messages(reader, asked, &seen, members, unread.all(), &mut draft)?;
        }
        Ok(Some(draft))
    }

    fn tell_messages(
        &self,
        reader: Reader<'_>,
        asked: &Asked,
        seen: &[&Message],
        members: BTreeMap<&str, Arc<Member>>,
        unread: Counts,
        draft: &mut Draft,
    ) -> Result<()> {
        let Some(mut sent) = asked.sent.clone() else { return Ok(()) };
        let mut room = response::Room::new();
        let says = room::show_unread(&mut room, &mut sent, unread) || !seen.is_empty();
        if let Some(first) = seen.first() {
            room.prev_batch = Some(TimelineToken { topo: first.pos, minor: 0 }.to_string());
            room.num_live = UInt::try_from(seen.len()).ok();
            for message in seen {
                room.timeline.push(self.shapes.message(message, reader)?);
            }
            for (user, member) in members {
                // Only those who are in the room are told from here.
                let memberships = [(0, "join".to_owned())];
                let beside = Beside { in_sync: true, memberships: &memberships, ..Beside::default() };
                room.required_state.push(self.shapes.event(&member.room, &member.event, reader, beside)?);
                Arc::make_mut(&mut sent.told).insert(user.to_owned());
            }
        }
        if says {
            room.bump_stamp = room::stamp(asked.entry.bump());
            let id = asked.entry.room.room_id.as_str().try_into().map_err(Error::internal)?;
            draft.rooms.insert(id, room);
        }
        sent.config = asked.view.config;
        draft.sent.insert(asked.entry.room.room_sn, sent);
        Ok(())
    }
}
