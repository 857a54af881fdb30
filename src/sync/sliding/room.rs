//! One room of an answer.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_core::{Error, Result, push::Counts, sliding::Config};
use hearth_storage::{Receipt, RoomSync, SlidingPage, SlidingRoom, StoredEvent, StrippedRoom};
use ruma::{
    JsOption, OwnedMxcUri, UInt,
    api::client::sync::sync_events::{
        UnreadNotificationsCount,
        v5::response::{self, Hero},
    },
};
use serde::Deserialize;
use serde_json::json;

use super::{
    answer::{Draft, Look},
    connection::{ALL_EVENTS, Sent, State, UpTo},
    view::Asked,
};
use crate::{
    service::shape::{Beside, Reader, Room, redaction_of},
    sync::{
        Syncs,
        classic::data::{account_datum, raw, receipts},
    },
};

/// Members remembered of a room. With more, it begins anew.
const MOST_TOLD: usize = 5_000;

impl Syncs {
    pub(super) fn tell_of_rooms(
        &self,
        reader: Reader<'_>,
        base: Option<&State>,
        look: &Look,
        page: SlidingPage,
        draft: &mut Draft,
    ) -> Result<()> {
        let asked: HashMap<i64, &Asked> = look.asked.iter().map(|asked| (asked.entry.room.room_sn, asked)).collect();
        let asked = |sn: i64| asked.get(&sn).copied();
        for room in page.rooms {
            let Some(asked) = asked(room.part.room.room_sn) else { continue };
            let Some(config) = look.configs.get(asked.view.config) else { continue };
            let telling = Telling { asked, config, pos: base.map(|base| base.pos), tells_of_gone: look.tells_of_gone };
            self.tell_of_room(reader, telling, &room, draft)?;
        }
        for stranger in page.invited.iter().chain(&page.knocked) {
            if let Some(asked) = asked(stranger.room.room_sn) {
                self.tell_of_stranger(asked, stranger, draft)?;
            }
        }
        Ok(())
    }

    fn tell_of_room(
        &self,
        reader: Reader<'_>,
        telling: Telling<'_>,
        found: &SlidingRoom,
        draft: &mut Draft,
    ) -> Result<()> {
        let SlidingRoom { part, initial, is_left, heroes } = found;
        let Telling { asked, config, pos, tells_of_gone } = telling;
        let room = Room::new(&part.room)?;
        let mut sent = telling.sent_after(found);
        let mut shown = response::Room::new();
        let mut says = *initial || *is_left;

        let timeline = self.timeline(reader, &room, part)?;
        says |= !timeline.events.is_empty() || timeline.limited;
        shown.num_live = UInt::try_from(part.timeline.iter().filter(|e| e.pos > pos.or(e.pos)).count()).ok();
        shown.timeline = timeline.events;
        shown.limited = timeline.limited;
        shown.prev_batch = timeline.prev_batch;

        // Who left and was then banned is told of the end of it, not of both.
        let mut own = None;
        for event in &part.state {
            let shape = self.shapes.shape(&room, event)?;
            let Some((kind, key)) = shape.key() else { continue };
            if key.is_empty() {
                name(&mut shown, kind, event, *initial);
                if kind == "m.room.name" && shown.name.is_none() && !initial {
                    draft.nameless.insert(room.id.clone());
                    says = true;
                }
            }
            if config.required.wants(kind, key) || kind == "m.room.member" {
                let because = redaction_of(event, &part.because);
                let beside = Beside { because, in_sync: true, memberships: &part.membership, ..Beside::default() };
                let told = self.shapes.event(&room, event, reader, beside)?;
                if *is_left && kind == "m.room.member" && key == reader.user.as_str() {
                    own = Some(told);
                } else {
                    shown.required_state.push(told);
                }
            }
        }
        shown.required_state.extend(own);
        for (kind, key) in &part.gone {
            match (kind.as_str(), key.as_str()) {
                ("m.room.avatar", "") => shown.avatar = JsOption::Null,
                ("m.room.name", "") => says |= draft.nameless.insert(room.id.clone()),
                _ => {}
            }
            if tells_of_gone && config.required.wants(kind, key) {
                shown.required_state.push(raw(&json!({ "type": kind, "state_key": key }))?);
            }
        }
        says |= !shown.required_state.is_empty() || shown.name.is_some() || !shown.avatar.is_undefined();
        if let Some(summary) = part.summary.as_ref().filter(|_| !is_left) {
            says = true;
            shown.joined_count = UInt::try_from(part.room.joined).ok();
            shown.invited_count = UInt::try_from(part.room.invited).ok();
            let heroes = heroes_of(&summary.heroes, heroes)?;
            shown.heroes = (!heroes.is_empty()).then_some(heroes);
        }
        if !is_left {
            says |= show_unread(&mut shown, &mut sent, part.unread.all());
        }
        says |= show_dm(&mut shown, &mut sent, asked, *initial);
        if asked.again && !initial {
            says = true;
            draft.expanded.insert(room.id.clone());
        }
        shown.initial = initial.then_some(true);
        shown.bump_stamp = stamp(asked.entry.bump());
        self.tell_beside(reader, telling, found, &room, draft)?;
        draft.sent.insert(room.sn, sent);
        // Of the end of a room is told once.
        if says && !(*is_left && asked.low >= asked.entry.room.membership_pos) {
            draft.rooms.insert(room.id, shown);
        }
        Ok(())
    }

    /// Receipts, and what the user keeps for the room.
    fn tell_beside(
        &self,
        reader: Reader<'_>,
        Telling { asked, .. }: Telling<'_>,
        SlidingRoom { part, initial, .. }: &SlidingRoom,
        room: &Room,
        draft: &mut Draft,
    ) -> Result<()> {
        let mut told: Vec<Receipt> = part.receipts.clone();
        if *initial || asked.receipts_from == Some(0) {
            // Of a room that begins, who has read what is shown of it, and what the user has read.
            let shown: HashSet<&str> = part.timeline.iter().map(|event| event.event_id.as_str()).collect();
            told.retain(|r| r.user_id == reader.user.as_str() || shown.contains(r.event_id.as_str()));
        }
        // An event that somebody has read in two threads can be told of once: in the room as a whole first.
        told.sort_by_key(|receipt| !receipt.thread.is_empty());
        if let Some(first) = receipts(&told)?.into_iter().next() {
            draft.extensions.receipts.rooms.insert(room.id.clone(), first);
        }
        if !part.account_data.is_empty() {
            let data = part.account_data.iter().map(|(kind, content)| account_datum(kind, content.clone()));
            let data = data.collect::<Result<Vec<_>>>()?;
            draft.extensions.account_data.rooms.insert(room.id.clone(), data);
        }
        Ok(())
    }

    /// A room that the user was invited to or knocks on.
    fn tell_of_stranger(&self, asked: &Asked, stranger: &StrippedRoom, draft: &mut Draft) -> Result<()> {
        let (id, events) = self.stripped(stranger)?;
        let mut sent = Sent { up_to: UpTo::NOW, config: asked.view.config, ..Sent::default() };
        let mut shown = response::Room::new();
        shown.initial = Some(true);
        shown.invite_state = Some(events);
        shown.bump_stamp = stamp(asked.entry.bump());
        show_dm(&mut shown, &mut sent, asked, true);
        draft.sent.insert(stranger.room.room_sn, sent);
        draft.rooms.insert(id, shown);
        Ok(())
    }
}

/// What is told of a room, by how it was asked.
#[derive(Clone, Copy)]
struct Telling<'a> {
    asked: &'a Asked,
    config: &'a Config,
    /// Up to where the client had seen the stream; `None` if it begins.
    pos: Option<i64>,
    tells_of_gone: bool,
}

impl Telling<'_> {
    /// What the client knows of the room once it has been told.
    fn sent_after(&self, SlidingRoom { part, initial, is_left, .. }: &SlidingRoom) -> Sent {
        let Self { asked, config, pos, .. } = self;
        let mut sent = asked.sent.clone().unwrap_or_default();
        sent.leave_behind(pos.unwrap_or(0));
        sent.up_to = UpTo::NOW;
        if asked.view.scopes.receipts {
            sent.receipts = UpTo::NOW;
        }
        if asked.view.scopes.data {
            sent.data = UpTo::NOW;
        }
        sent.config = asked.view.config;
        let all = !part.limited && (*initial || asked.again);
        if all {
            sent.limit = ALL_EVENTS;
        } else if *initial || asked.again || part.limited {
            sent.limit = config.limit;
        }
        if *is_left || !config.required.is_lazy() {
            sent.told = Arc::default();
        } else {
            let anew = *initial || asked.whole_state || sent.told.len() > MOST_TOLD;
            sent.told = told_after(sent.told, part, anew);
        }
        sent
    }
}

fn told_after(told: Arc<HashSet<String>>, part: &RoomSync, anew: bool) -> Arc<HashSet<String>> {
    match anew {
        true => Arc::new(part.told.iter().cloned().collect()),
        false if part.told.iter().all(|user| told.contains(user)) => told,
        false => Arc::new(told.iter().chain(&part.told).cloned().collect()),
    }
}

pub(super) fn stamp(pos: i64) -> Option<UInt> {
    UInt::try_from(pos).ok()
}

/// Shows what is unread; whether that is otherwise than what was told.
pub(super) fn show_unread(room: &mut response::Room, sent: &mut Sent, counts: Counts) -> bool {
    let number = |n: i64| UInt::new_saturating(n.max(0).unsigned_abs());
    let mut unread = UnreadNotificationsCount::new();
    unread.notification_count = Some(number(counts.notify));
    unread.highlight_count = Some(number(counts.highlight));
    room.unread_notifications = unread;
    let counts = (counts.notify, counts.highlight);
    std::mem::replace(&mut sent.counts, counts) != counts
}

/// Says whether it is a direct chat, if that is news; whether it is.
fn show_dm(room: &mut response::Room, sent: &mut Sent, asked: &Asked, initial: bool) -> bool {
    let changed = std::mem::replace(&mut sent.is_dm, asked.is_dm) != asked.is_dm;
    if changed && !initial || asked.is_dm && initial {
        room.is_dm = Some(asked.is_dm);
    }
    changed && !initial
}

fn parsed<'e, T: Deserialize<'e>>(event: &'e StoredEvent) -> Result<T> {
    serde_json::from_str(&event.json).map_err(Error::internal)
}

/// What the room is called and looks like, if this says so.
fn name(room: &mut response::Room, event_type: &str, event: &StoredEvent, initial: bool) {
    #[derive(Deserialize)]
    struct Event<C> {
        content: C,
    }
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    #[derive(Deserialize)]
    struct Avatar {
        url: OwnedMxcUri,
    }
    match event_type {
        "m.room.name" => {
            let name = parsed::<Event<Name>>(event).ok().map(|event| event.content.name);
            room.name = name.filter(|name| !name.is_empty());
        }
        "m.room.avatar" => {
            let url = parsed::<Event<Avatar>>(event).ok().map(|event| event.content.url);
            let url = url.filter(|url| !url.as_str().is_empty());
            room.avatar = match url {
                None if initial => JsOption::Undefined,
                url => JsOption::from_option(url),
            };
        }
        _ => {}
    }
}

/// Those after whom a client may call the room, as they call themselves there.
fn heroes_of(heroes: &[String], members: &[StoredEvent]) -> Result<Vec<Hero>> {
    #[derive(Deserialize)]
    struct Member {
        state_key: String,
        content: serde_json::Value,
    }
    let members = members.iter().map(parsed::<Member>).collect::<Result<Vec<_>>>()?;
    let hero = |user: &str| {
        let mut hero = Hero::new(user.try_into().map_err(Error::internal)?);
        let content = members.iter().find(|member| member.state_key == user).map(|member| &member.content);
        let text = |key: &str| content?.get(key)?.as_str().filter(|text| !text.is_empty());
        hero.name = text("displayname").map(str::to_owned);
        hero.avatar = text("avatar_url").map(Into::into);
        Ok(hero)
    };
    heroes.iter().map(|user| hero(user)).collect()
}
