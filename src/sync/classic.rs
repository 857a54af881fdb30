//! `GET /sync`, version 3.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

pub(super) mod data;
pub(super) mod memory;
mod room;
pub(super) mod to_device;
mod unread;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use hearth_core::{Error, Result, filter, token::SyncToken};
use hearth_storage::{Lazy, StoredEvent, SyncPage, SyncQuery, Told, Wake};
use ruma::{
    OwnedRoomId,
    api::client::{
        filter::{FilterDefinition, LazyLoadOptions},
        sync::sync_events::v3::{GlobalAccountData, InviteState, InvitedRoom, KnockState, KnockedRoom, Response},
    },
};
use serde_json::json;

use self::{
    data::{account_datum, raw, wants_ephemeral},
    memory::Memory,
};
use super::{
    Following, Syncs,
    keys::{self, KeysLeft},
    told,
};
use crate::service::{
    self,
    shape::Reader,
    typing::{Seen, Typers},
};

/// Events of a room that a sync shows if the filter doesn't say.
const DEFAULT_LIMIT: u64 = 10;
/// And the most, whatever it says.
const MOST: u64 = 100;

/// What a client asks for.
pub struct SyncWish {
    pub since: Option<SyncToken>,
    pub timeout: Option<Duration>,
    pub full_state: bool,
    /// The state as it is after the timelines, not before.
    pub state_after: bool,
    pub filter: FilterDefinition,
    /// The session's, of when it was looked up.
    pub session_as_of: u64,
}

impl SyncWish {
    /// How many events of a room are shown.
    fn timeline_limit(&self) -> u64 {
        self.filter.room.timeline.limit.map_or(DEFAULT_LIMIT, u64::from).min(MOST)
    }

    /// If members are loaded lazily: whether again where they were told of, and through which filter.
    fn lazy(&self) -> Option<(bool, u64)> {
        match self.filter.room.state.lazy_load_options {
            LazyLoadOptions::Disabled => None,
            LazyLoadOptions::Enabled { include_redundant_members } => {
                Some((include_redundant_members, told::fingerprint(&self.filter.room)))
            }
        }
    }

    fn tells_threads_apart(&self) -> bool {
        self.filter.room.timeline.unread_thread_notifications
    }

    fn in_all_rooms(&self) -> bool {
        self.filter.room.rooms.is_none() && self.filter.room.not_rooms.is_empty()
    }
}

impl Syncs {
    /// Answers at once if there is something to tell, else when there is or the time is over.
    pub async fn sync(&self, reader: Reader<'_>, wish: &SyncWish) -> Result<Response> {
        let timeout = wish.timeout.unwrap_or(self.timeouts.default).max(self.timeouts.min).min(self.timeouts.max);
        let deadline = tokio::time::Instant::now() + timeout;
        // Whoever was told messages may have more waiting for them, of which memory knows nothing.
        let mut from_memory = !self.acknowledge(reader, wish).await?;
        if from_memory
            && let Memory::Page(page, _) = self.read_memory(reader, wish)?
            && !page.is_empty_page()
        {
            return Ok(self.hand_over(reader, *page));
        }
        let user_key = Wake::User(reader.user.as_str().into());
        let mut known = self.following.get(reader.user).unwrap_or_else(|| Arc::new(Following::nothing()));
        let rooms = known.rooms.iter().map(|sn| Wake::Room(*sn));
        // Subscribed before the read: what is committed after the read wakes us.
        let mut waiter = self.notifier.subscribe(rooms.chain([user_key]));
        loop {
            // The poll of a session that has ended is not to be told what happens now. The next request says whose it was.
            if let Some(since) = wish.since
                && self.sessions.ended_since(reader.user, wish.session_as_of)
            {
                return Ok(Response::new(since.to_string()));
            }
            let over = tokio::time::Instant::now() >= deadline || self.shutdown.is_said();
            // Boxed, as what a read needs is much, and those who wait are many.
            let (page, following) = Box::pin(self.read(reader, wish, from_memory)).await?;
            from_memory = true;
            let news: Vec<Wake> = match Arc::ptr_eq(&known, &following) {
                true => Vec::new(),
                false => {
                    let news = following.rooms.iter().filter(|sn| known.rooms.binary_search(sn).is_err());
                    news.map(|sn| Wake::Room(*sn)).collect()
                }
            };
            let lacked = !news.is_empty();
            waiter.also(news);
            known = following;
            if over || wish.since.is_none() || wish.full_state || !page.is_empty_page() {
                return Ok(self.hand_over(reader, *page));
            }
            drop(page);
            if lacked {
                // What happened in those rooms between the read and the subscription was missed: read again.
                continue;
            }
            tokio::select! {
                () = waiter.woken() => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.shutdown.said() => {}
            }
        }
    }

    async fn read(
        &self,
        reader: Reader<'_>,
        wish: &SyncWish,
        from_memory: bool,
    ) -> Result<(Box<Page>, Arc<Following>)> {
        match if from_memory { self.read_memory(reader, wish)? } else { Memory::No } {
            Memory::Page(page, following) => return Ok((page, following)),
            Memory::Lacks(lacking, following) => {
                self.learn(reader, lacking, &following).await?;
                if let Memory::Page(page, following) = self.read_memory(reader, wish)? {
                    return Ok((page, following));
                }
            }
            Memory::No => {}
        }
        let (page, following) = self.read_database(reader, wish).await?;
        Ok((Box::new(page), following))
    }

    /// This page is the answer.
    fn hand_over(&self, reader: Reader<'_>, page: Page) -> Response {
        if let Some(told) = page.told {
            self.told.give(reader, page.next, told.filter, &told.members);
        }
        page.response
    }

    async fn read_database(&self, reader: Reader<'_>, wish: &SyncWish) -> Result<(Page, Arc<Following>)> {
        let _turn = self.turns.acquire().await.map_err(Error::internal)?;
        // The serial first: a change after this is seen with the next token.
        let serial = self.serial.now();
        let lazy = wish.lazy().map(|(redundant, filter)| {
            let told = wish.since.map(|since| self.told.by(reader, since, filter)).unwrap_or_default();
            (filter, Lazy { told, redundant })
        });
        let page = self.storage.sync_page(query(reader, wish, lazy.as_ref().map(|(_, lazy)| lazy.clone()))).await?;
        let told = lazy.map(|(filter, lazy)| {
            let members = told::and_now(&lazy.told, &page.joined, &page.left, wish.full_state);
            Heard { filter, members }
        });
        if wish.since.is_some_and(|t| t.pos > page.head) {
            return Err(Error::invalid_param("The token is from the future"));
        }
        let before = self.following.get(reader.user);
        let keys = self.keys_left(reader, &page, before.as_deref());
        let following = Arc::new(Following::new(&page, wish.since.map(|t| t.pos), before.as_deref(), keys));
        if wish.in_all_rooms() {
            self.following.insert(reader.user.to_owned(), Arc::clone(&following));
        }
        let presence = self.presence(reader, wish, &page, &following).await?;
        // Who joined a room just now has seen nothing of it.
        let fresh: Vec<i64> = page.joined.iter().filter(|r| r.initial).map(|r| r.room.room_sn).collect();
        let typers = self.typing.typers(&page.following, &fresh, self.seen(wish.since));
        let to_device = to_device::mark(reader, &page.to_device);
        let next = SyncToken { pos: page.head, serial, epoch: self.epoch, typing: typers.somebody, to_device };
        let keys_moved = wish.since.is_some_and(|since| page.keys.1 > since.pos);
        let mut response = self.response(reader, wish, page, typers, next).await?;
        response.presence.events = presence;
        Ok((Page { response, next, told, keys_moved }, following))
    }

    /// What the page tells of this device, and what is known of the user's others if that is still so.
    pub(super) fn keys_left(&self, reader: Reader<'_>, page: &SyncPage, before: Option<&Following>) -> KeysLeft {
        let journal = &self.known.journal;
        // Another process may have written up to the head of the page what nobody here has been woken for.
        let so_still =
            |b: &&Following| journal.reaches(page.head) && journal.is_silent_about(reader.user.as_str(), b.as_of());
        let others = before.filter(so_still).map(|before| before.keys.clone()).unwrap_or_default();
        others.and(reader.device, page.keys.0.clone())
    }

    /// What somebody with this token has seen of who types.
    fn seen(&self, since: Option<SyncToken>) -> Seen {
        match since {
            None => Seen::Nothing,
            Some(since) if since.epoch == self.epoch => Seen::Up { to: since.serial, somebody: since.typing },
            Some(since) => Seen::Elsewhere { somebody: since.typing },
        }
    }

    async fn response(
        &self,
        reader: Reader<'_>,
        wish: &SyncWish,
        page: SyncPage,
        typers: Typers,
        next: SyncToken,
    ) -> Result<Response> {
        let mut response = Response::new(next.to_string());
        keys::show_left(&mut response, &page.keys.0);
        keys::show_lists(&mut response, page.device_lists)?;

        response.account_data = GlobalAccountData::new();
        let wanted = |kind: &str| filter::matches_event(&wish.filter.account_data, kind, None);
        // Rules that were never touched are stored nowhere, yet a client wants them with its first sync.
        let lacks_rules = wish.since.is_none() && !page.account_data.iter().any(|(kind, _)| kind == "m.push_rules");
        if lacks_rules && wanted("m.push_rules") {
            response.account_data.events.push(self.push_rules.push_rules_event(reader.user).await?);
        }
        for (kind, content) in page.account_data {
            if wanted(&kind) {
                response.account_data.events.push(account_datum(&kind, content)?);
            }
        }

        response.to_device.events = service::to_device::events(page.to_device)?;
        for room in page.joined {
            let (id, joined) = self.joined(reader, wish, &room)?;
            response.rooms.join.insert(id, joined);
        }
        if !typers.rooms.is_empty() {
            let ids: BTreeMap<i64, OwnedRoomId> = self.ids_of(&page.room_ids)?;
            for (sn, users) in typers.rooms {
                let Some(id) = ids.get(&sn).filter(|id| wants_ephemeral(wish, id, "m.typing")) else { continue };
                let event = json!({ "type": "m.typing", "content": { "user_ids": users } });
                let room = response.rooms.join.entry(id.clone()).or_default();
                room.ephemeral.events.push(raw(&event)?);
            }
        }
        for room in page.left {
            let (id, left) = self.left(reader, wish, &room)?;
            response.rooms.leave.insert(id, left);
        }
        for stripped in page.invited {
            if page.ignored.holds(&sender_of(&stripped.membership)?) {
                continue;
            }
            let (id, events) = self.stripped(&stripped)?;
            let mut room = InvitedRoom::new();
            room.invite_state = InviteState::from(events);
            response.rooms.invite.insert(id, room);
        }
        for stripped in page.knocked {
            let (id, events) = self.stripped(&stripped)?;
            let mut room = KnockedRoom::new();
            room.knock_state = KnockState::new();
            room.knock_state.events = events;
            response.rooms.knock.insert(id, room);
        }
        Ok(response)
    }

    fn ids_of(&self, rooms: &[(i64, String)]) -> Result<BTreeMap<i64, OwnedRoomId>> {
        rooms.iter().map(|(sn, id)| Ok((*sn, id.as_str().try_into().map_err(Error::internal)?))).collect()
    }
}

fn sender_of(event: &StoredEvent) -> Result<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        sender: Cow<'a, str>,
    }
    Ok(serde_json::from_str::<Event<'_>>(&event.json).map_err(Error::internal)?.sender)
}

fn query(reader: Reader<'_>, wish: &SyncWish, lazy: Option<Lazy>) -> SyncQuery {
    let room = &wish.filter.room;
    SyncQuery {
        user_id: reader.user.to_string(),
        device_id: reader.device.to_owned(),
        to_device_told: to_device::told(reader, wish),
        since: wish.since.map(|t| t.pos),
        timeline_limit: i64::try_from(wish.timeline_limit()).unwrap_or(10),
        filter: room.timeline.clone(),
        full_state: wish.full_state,
        lazy,
        state_after: wish.state_after,
        include_leave: room.include_leave,
        only_rooms: room.rooms.as_ref().map(|rooms| rooms.iter().map(ToString::to_string).collect()),
        not_rooms: room.not_rooms.iter().map(ToString::to_string).collect(),
    }
}

/// What may become the answer.
struct Page {
    response: Response,
    next: SyncToken,
    /// If members are loaded lazily.
    told: Option<Heard>,
    /// What the device has left of its keys is otherwise than at the token.
    keys_moved: bool,
}

/// The members that a device has been told of once it has read a page.
struct Heard {
    filter: u64,
    members: Arc<Told>,
}

impl Page {
    fn is_empty_page(&self) -> bool {
        let r = &self.response;
        r.rooms.is_empty()
            && r.presence.is_empty()
            && r.account_data.events.is_empty()
            && r.to_device.events.is_empty()
            && r.device_lists.is_empty()
            && !self.keys_moved
    }
}
