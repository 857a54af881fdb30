//! `GET /sync`, version 3.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use hearth_core::{
    Error, Result, filter,
    token::{SyncToken, TimelineToken},
};
use hearth_storage::{Receipt, RoomSync, Scope, StoredEvent, StrippedRoom, SyncPage, SyncQuery, Wake, membership_at};
use ruma::{
    OwnedRoomId, OwnedUserId, UInt, UserId,
    api::client::{
        filter::FilterDefinition,
        sync::sync_events::v3::{
            Ephemeral, GlobalAccountData, InviteState, InvitedRoom, JoinedRoom, KnockState, KnockedRoom, LeftRoom,
            Response, RoomAccountData, State, StateEvents, Timeline,
        },
    },
    serde::Raw,
};
use serde_json::{json, value::to_raw_value};

use super::{Following, Syncs};
use crate::service::shape::{Beside, Reader, Room, passes, redaction_of};

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
        let mut known = self.following.get(reader.user).unwrap_or_else(|| Arc::new(Following::new(Vec::new(), 0)));
        let rooms = known.rooms.iter().map(|sn| Wake::Room(*sn));
        // Subscribed before the read: what is committed after the read wakes us.
        let mut waiter = self.notifier.subscribe(rooms.chain([user_key]));
        loop {
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

    /// Where messages are all that happened since the token, and this process was there: what a sync shows, without a
    /// look at the database. `None` where it takes one.
    fn read_memory(&self, reader: Reader<'_>, wish: &SyncWish) -> Result<Option<(Page, Arc<Following>)>> {
        let Some(since) = wish.since else { return Ok(None) };
        if wish.full_state || !wish.in_all_rooms() {
            return Ok(None);
        }
        let Some(following) = self.following.get(reader.user) else { return Ok(None) };
        // Typing first: a change after this is seen with the next token.
        let serial = self.typing.serial();
        let typing = self.typing.changed(&following.rooms, (since.epoch == self.epoch).then_some(since.serial));
        let news = self.known.journal.after(since.pos, following.as_of(), reader.user.as_str(), &following.rooms);
        let (true, Some(news)) = (typing.is_empty(), news) else { return Ok(None) };
        following.holds_at(news.top);

        let next = SyncToken { pos: news.top, serial, epoch: self.epoch };
        let mut response = Response::new(next.to_string());
        let limit = wish.timeline_limit();
        let mut counts: HashMap<i64, u64> = HashMap::new();
        for message in &news.messages {
            let count = counts.entry(message.room_sn).or_default();
            *count += 1;
            if *count > limit {
                return Ok(None);
            }
            let room_id = &message.pdu.room_id;
            let room = response.rooms.join.entry(room_id.clone()).or_default();
            if *count == 1 {
                let first = TimelineToken { topo: message.pos, minor: 0 };
                room.timeline.prev_batch = Some(first.to_string());
            }
            if passes(&wish.filter.room.timeline, room_id, &message.pdu.json)? {
                room.timeline.events.push(self.shapes.message(message, reader)?);
            }
        }
        Ok(Some((Page(response), following)))
    }

    async fn read_database(&self, reader: Reader<'_>, wish: &SyncWish) -> Result<(Page, Arc<Following>)> {
        // Typing first: a change after this is seen with the next token.
        let serial = self.typing.serial();
        let page = self.storage.sync_page(self.query(reader, wish)).await?;
        if wish.since.is_some_and(|t| t.pos > page.head) {
            return Err(Error::invalid_param("The token is from the future"));
        }
        let following = Arc::new(Following::new(page.following.clone(), page.head));
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
        if !typing.is_empty() && wants_ephemeral(wish, "m.typing") {
            let ids: BTreeMap<i64, OwnedRoomId> = self.ids_of(&page.room_ids)?;
            for (sn, users) in typing {
                let Some(id) = ids.get(&sn) else { continue };
                let event = json!({ "type": "m.typing", "content": { "user_ids": users } });
                let room = response.rooms.join.entry(id.clone()).or_default();
                room.ephemeral.events.push(raw(&event)?);
            }
        }
        for room in page.left {
            let (id, left) = self.left(reader, wish, &room)?;
            response.rooms.leave.insert(id, left);
        }
        let ignored = if page.invited.is_empty() { BTreeSet::new() } else { self.ignored_by(reader.user).await? };
        for stripped in page.invited {
            if ignored.contains(&*sender_of(&stripped.membership)?) {
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

    /// Whose invites the user doesn't want to see.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
    async fn ignored_by(&self, user: &UserId) -> Result<BTreeSet<String>> {
        #[derive(serde::Deserialize)]
        struct IgnoredUsers {
            ignored_users: BTreeMap<String, serde::de::IgnoredAny>,
        }
        let list = self.storage.account_data(user.as_str(), &Scope::Global, "m.ignored_user_list").await?;
        // The list is the user's own to write: one that is no list ignores nobody.
        let list = list.and_then(|list| serde_json::from_str::<IgnoredUsers>(&list).ok());
        Ok(list.map(|list| list.ignored_users.into_keys().collect()).unwrap_or_default())
    }

    fn ids_of(&self, rooms: &[(i64, String)]) -> Result<BTreeMap<i64, OwnedRoomId>> {
        rooms.iter().map(|(sn, id)| Ok((*sn, id.as_str().try_into().map_err(Error::internal)?))).collect()
    }

    fn joined(&self, reader: Reader<'_>, wish: &SyncWish, part: &RoomSync) -> Result<(OwnedRoomId, JoinedRoom)> {
        let room = Room::new(&part.room)?;
        let mut joined = JoinedRoom::new();
        joined.timeline = self.timeline(reader, wish, &room, part)?;
        joined.state = State::Before(self.state(reader, wish, &room, part)?);
        joined.account_data = room_account_data(part)?;
        joined.ephemeral = Ephemeral::new();
        if !part.receipts.is_empty() && wants_ephemeral(wish, "m.receipt") {
            joined.ephemeral.events.push(receipts(&part.receipts)?);
        }
        joined.summary.joined_member_count = UInt::try_from(part.room.joined).ok();
        joined.summary.invited_member_count = UInt::try_from(part.room.invited).ok();
        Ok((room.id, joined))
    }

    fn left(&self, reader: Reader<'_>, wish: &SyncWish, part: &RoomSync) -> Result<(OwnedRoomId, LeftRoom)> {
        let room = Room::new(&part.room)?;
        let mut left = LeftRoom::new();
        left.timeline = self.timeline(reader, wish, &room, part)?;
        left.state = State::Before(self.state(reader, wish, &room, part)?);
        left.account_data = room_account_data(part)?;
        Ok((room.id, left))
    }

    fn timeline(&self, reader: Reader<'_>, wish: &SyncWish, room: &Room, part: &RoomSync) -> Result<Timeline> {
        let mut timeline = Timeline::new();
        timeline.limited = part.limited;
        let first =
            part.timeline.first().map_or(TimelineToken { topo: part.low.saturating_add(1), minor: i64::MIN }, |e| {
                TimelineToken { topo: e.topo, minor: e.topo_minor }
            });
        timeline.prev_batch = Some(first.to_string());
        for event in &part.timeline {
            if passes(&wish.filter.room.timeline, &room.id, &event.json)? {
                let beside = Beside {
                    because: redaction_of(event, &part.because),
                    replaced: part.replaced.get(&event.sn),
                    membership: Some(membership_at(&part.membership, event)),
                    in_sync: true,
                };
                timeline.events.push(self.shapes.event(room, event, reader, beside)?);
            }
        }
        Ok(timeline)
    }

    fn state(&self, reader: Reader<'_>, wish: &SyncWish, room: &Room, part: &RoomSync) -> Result<StateEvents> {
        let mut state = StateEvents::new();
        // A change that the timeline's filter drops is a change all the same: it is told here. (The last of each key.)
        let mut untold = BTreeMap::new();
        for event in &part.timeline {
            if !passes(&wish.filter.room.timeline, &room.id, &event.json)?
                && let Some(key) = state_key_of(event)?
            {
                untold.insert(key, event);
            }
        }
        let mut before = Vec::with_capacity(part.state.len());
        for event in &part.state {
            if untold.is_empty() || state_key_of(event)?.is_none_or(|key| !untold.contains_key(&key)) {
                before.push(event);
            }
        }
        for event in before.into_iter().chain(untold.into_values()) {
            if passes(&wish.filter.room.state, &room.id, &event.json)? {
                let beside = Beside { in_sync: true, ..Beside::default() };
                state.events.push(self.shapes.event(room, event, reader, beside)?);
            }
        }
        Ok(state)
    }

    fn stripped<T>(&self, stripped: &StrippedRoom) -> Result<(OwnedRoomId, Vec<Raw<T>>)> {
        let room = Room::new(&stripped.room)?;
        let mut events = Vec::with_capacity(stripped.state.len() + 1);
        for event in stripped.state.iter().chain([&stripped.membership]) {
            events.push(Raw::from_json(self.shapes.stripped(&room, event)?));
        }
        Ok((room.id, events))
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

/// The type and state key of a state event.
fn state_key_of(event: &StoredEvent) -> Result<Option<(Cow<'_, str>, Cow<'_, str>)>> {
    #[derive(serde::Deserialize)]
    struct Fields<'a> {
        #[serde(rename = "type", borrow)]
        event_type: Cow<'a, str>,
        #[serde(borrow, default)]
        state_key: Option<Cow<'a, str>>,
    }
    let fields: Fields<'_> = serde_json::from_str(&event.json).map_err(Error::internal)?;
    Ok(fields.state_key.map(|key| (fields.event_type, key)))
}

/// A response, of which it can be asked whether it tells anything.
struct Page(Response);

impl Page {
    fn is_empty_page(&self) -> bool {
        let r = &self.0;
        r.rooms.is_empty() && r.account_data.events.is_empty() && r.to_device.events.is_empty()
    }
}

fn wants_ephemeral(wish: &SyncWish, event_type: &str) -> bool {
    let wanted = &wish.filter.room.ephemeral;
    let named = |types: &[String]| types.iter().any(|pattern| filter::wildcard(pattern, event_type));
    wanted.types.as_deref().is_none_or(named) && !named(&wanted.not_types)
}

fn raw<T>(value: &serde_json::Value) -> Result<Raw<T>> {
    Ok(Raw::from_json(to_raw_value(value).map_err(Error::internal)?))
}

fn account_datum<T>(kind: &str, content: Option<String>) -> Result<Raw<T>> {
    // A deleted value is told as an empty one.
    let content = content.unwrap_or_else(|| "{}".to_owned());
    let kind = serde_json::to_string(kind).map_err(Error::internal)?;
    Raw::from_json_string(format!("{{\"type\":{kind},\"content\":{content}}}")).map_err(Error::internal)
}

fn room_account_data(part: &RoomSync) -> Result<RoomAccountData> {
    let mut data = RoomAccountData::new();
    for (kind, content) in &part.account_data {
        data.events.push(account_datum(kind, content.clone())?);
    }
    Ok(data)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#mreceipt>
fn receipts<T>(receipts: &[Receipt]) -> Result<Raw<T>> {
    type ByUser = BTreeMap<OwnedUserId, serde_json::Value>;
    let mut content = BTreeMap::<&str, BTreeMap<&str, ByUser>>::new();
    for r in receipts {
        let mut about = json!({ "ts": r.ts });
        if !r.thread.is_empty() {
            about["thread_id"] = r.thread.as_str().into();
        }
        let user = r.user_id.as_str().try_into().map_err(Error::internal)?;
        content.entry(&r.event_id).or_default().entry(&r.receipt_type).or_default().insert(user, about);
    }
    raw(&json!({ "type": "m.receipt", "content": content }))
}
