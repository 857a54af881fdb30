//! `GET /sync`, version 3.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

mod data;
mod memory;
mod room;
mod unread;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use hearth_core::{Error, Result, filter, token::SyncToken};
use hearth_storage::{StoredEvent, SyncPage, SyncQuery, Wake};
use ruma::{
    OwnedRoomId,
    api::client::{
        filter::FilterDefinition,
        sync::sync_events::v3::{GlobalAccountData, InviteState, InvitedRoom, KnockState, KnockedRoom, Response},
    },
};
use serde_json::json;

use self::data::{account_datum, raw, wants_ephemeral};
use super::{Following, Syncs};
use crate::service::shape::Reader;

/// Events of a room that a sync shows if the filter doesn't say.
const DEFAULT_LIMIT: u64 = 10;
/// And the most, whatever it says.
const MOST: u64 = 100;

/// What a client asks for.
pub struct SyncWish {
    pub since: Option<SyncToken>,
    pub timeout: Option<Duration>,
    pub full_state: bool,
    pub filter: FilterDefinition,
    /// The session's, of when it was looked up.
    pub session_as_of: u64,
}

impl SyncWish {
    /// How many events of a room are shown.
    fn timeline_limit(&self) -> u64 {
        self.filter.room.timeline.limit.map_or(DEFAULT_LIMIT, u64::from).min(MOST)
    }

    fn in_all_rooms(&self) -> bool {
        self.filter.room.rooms.is_none() && self.filter.room.not_rooms.is_empty()
    }
}

impl Syncs {
    /// Answers at once if there is something to tell, else when there is or the time is over.
    pub async fn sync(&self, reader: Reader<'_>, wish: SyncWish) -> Result<Response> {
        let timeout = wish.timeout.unwrap_or(self.timeouts.default).max(self.timeouts.min).min(self.timeouts.max);
        let deadline = tokio::time::Instant::now() + timeout;
        if let Some((page, _)) = self.read_memory(reader, &wish)?
            && !page.is_empty_page()
        {
            return Ok(page.0);
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
            let (page, following) = match self.read_memory(reader, &wish)? {
                Some(read) => read,
                None => self.read_database(reader, &wish).await?,
            };
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
                return Ok(page.0);
            }
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

    async fn read_database(&self, reader: Reader<'_>, wish: &SyncWish) -> Result<(Page, Arc<Following>)> {
        // Typing first: a change after this is seen with the next token.
        let serial = self.typing.serial();
        let page = self.storage.sync_page(self.query(reader, wish)).await?;
        if wish.since.is_some_and(|t| t.pos > page.head) {
            return Err(Error::invalid_param("The token is from the future"));
        }
        let before = self.following.get(reader.user);
        let following = Arc::new(Following::new(&page, wish.since.map(|t| t.pos), before.as_deref()));
        if wish.in_all_rooms() {
            self.following.insert(reader.user.to_owned(), Arc::clone(&following));
        }
        Ok((self.response(reader, wish, page, serial).await?, following))
    }

    fn query(&self, reader: Reader<'_>, wish: &SyncWish) -> SyncQuery {
        let room = &wish.filter.room;
        SyncQuery {
            user_id: reader.user.to_string(),
            since: wish.since.map(|t| t.pos),
            timeline_limit: i64::try_from(wish.timeline_limit()).unwrap_or(10),
            filter: room.timeline.clone(),
            full_state: wish.full_state,
            include_leave: room.include_leave,
            only_rooms: room.rooms.as_ref().map(|rooms| rooms.iter().map(ToString::to_string).collect()),
            not_rooms: room.not_rooms.iter().map(ToString::to_string).collect(),
        }
    }

    async fn response(&self, reader: Reader<'_>, wish: &SyncWish, page: SyncPage, serial: u64) -> Result<Page> {
        let next = SyncToken { pos: page.head, serial, epoch: self.epoch };
        let mut response = Response::new(next.to_string());

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

        for room in page.joined {
            let (id, joined) = self.joined(reader, wish, &room)?;
            response.rooms.join.insert(id, joined);
        }
        // A token of another process says nothing of who types here: tell who does.
        let since = wish.since.filter(|t| t.epoch == self.epoch).map(|t| t.serial);
        let typing = self.typing.changed(&page.following, since);
        if !typing.is_empty() {
            let ids: BTreeMap<i64, OwnedRoomId> = self.ids_of(&page.room_ids)?;
            for (sn, users) in typing {
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
        Ok(Page(response))
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

/// A response, of which it can be asked whether it tells anything.
struct Page(Response);

impl Page {
    fn is_empty_page(&self) -> bool {
        let r = &self.0;
        r.rooms.is_empty() && r.account_data.events.is_empty() && r.to_device.events.is_empty()
    }
}
