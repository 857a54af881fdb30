//! What a client asks for, held to bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hearth_core::{
    Error, Result,
    limits::MAX_ID_BYTES,
    sliding::{Config, Element, Required},
    token::{Position, SyncToken},
};
use ruma::{
    OwnedRoomId, UInt, UserId,
    api::client::sync::sync_events::v5::{
        Request,
        request::{ExtensionRoomConfig, Extensions as AskedExtensions, List, ListFilters},
    },
    events::StateEventType,
};
use serde_json::{Map, Value};

use super::connection::State;

/// Events of a room that an answer shows at most.
const MOST_EVENTS: u64 = 100;
/// Lists, and subscriptions.
const MOST_LISTS: usize = 100;
const MOST_RANGES: usize = 20;
/// Pieces of state that one list or subscription asks for.
const MOST_REQUIRED: usize = 200;
/// Types of rooms, tags, lists and rooms that a filter or an extension names.
const MOST_NAMES: usize = 200;
const MOST_NAME_BYTES: usize = 64;
/// Messages to the device in one answer.
const MOST_TO_DEVICE: u32 = 100;
/// Changes of threads that one follows, likewise.
const MOST_SUBSCRIPTIONS: u32 = 100;

/// What a client asks for.
pub struct SlidingWish {
    pub(super) conn_id: String,
    pub(super) pos: Option<Position>,
    pub(super) timeout: Duration,
    pub(super) lists: Vec<ListWish>,
    pub(super) subscriptions: BTreeMap<OwnedRoomId, Config>,
    pub(super) to_device: Option<ToDeviceWish>,
    pub(super) e2ee: bool,
    pub(super) account_data: Option<Scope>,
    pub(super) receipts: Option<Scope>,
    pub(super) typing: Option<Scope>,
    /// At most so many changes of threads that one follows.
    pub(super) thread_subscriptions: Option<u32>,
    /// Of each room is told in which lists it is, and what the reader is there.
    pub(super) tells_beside: bool,
    /// The session's, of when it was looked up.
    pub(super) session_as_of: u64,
}

/// Which state is asked for, in the words of the proposal as it was accepted.
pub struct StateWish {
    pub include: Vec<Element>,
    pub exclude: Vec<Element>,
    pub lazy: bool,
}

impl StateWish {
    fn required(self) -> Result<Required> {
        let all = || self.include.iter().chain(&self.exclude);
        most(all().count(), MOST_REQUIRED, "elements in `required_state`")?;
        let is_long = |part: &Option<String>| part.as_ref().is_some_and(|part| part.len() > MAX_ID_BYTES);
        if all().any(|(kind, key)| is_long(kind) || is_long(key)) {
            return Err(long_element());
        }
        Ok(Required::chosen(&self.include, &self.exclude, self.lazy))
    }
}

fn long_element() -> Error {
    Error::invalid_param(format!("`required_state` has an element longer than {MAX_ID_BYTES} bytes"))
}

pub(super) struct ListWish {
    pub(super) name: String,
    pub(super) ranges: Vec<(u64, u64)>,
    pub(super) filters: Filters,
    pub(super) config: Config,
}

/// Which rooms are in a list; what is `None` or empty asks for nothing.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) is_dm: Option<bool>,
    pub(super) is_encrypted: Option<bool>,
    pub(super) is_invite: Option<bool>,
    /// `None` among them is a room without a type.
    pub(super) room_types: Vec<Option<String>>,
    pub(super) not_room_types: Vec<Option<String>>,
    pub(super) tags: Vec<String>,
    pub(super) not_tags: Vec<String>,
    /// Rooms that are directly in one of these.
    pub(super) spaces: Vec<String>,
}

pub(super) struct ToDeviceWish {
    pub(super) since: Option<SyncToken>,
    pub(super) limit: u32,
}

/// To which rooms an extension applies.
pub(super) struct Scope {
    lists: Option<BTreeSet<String>>,
    all_subscribed: bool,
    pub(super) rooms: BTreeSet<OwnedRoomId>,
}

impl Scope {
    pub(super) fn has_list(&self, name: &str) -> bool {
        self.lists.as_ref().is_none_or(|lists| lists.contains(name))
    }

    pub(super) fn has_all_subscribed(&self) -> bool {
        self.all_subscribed
    }

    fn new(
        enabled: Option<bool>,
        lists: Option<Vec<String>>,
        rooms: Option<Vec<ExtensionRoomConfig>>,
    ) -> Result<Option<Self>> {
        if enabled != Some(true) {
            return Ok(None);
        }
        most(lists.as_ref().map_or(0, Vec::len), MOST_NAMES, "lists of an extension")?;
        most(rooms.as_ref().map_or(0, Vec::len), MOST_NAMES, "rooms of an extension")?;
        let lists = lists.filter(|lists| !lists.iter().any(|name| name == "*"));
        let mut scope = Self {
            lists: lists.map(|lists| lists.into_iter().collect()),
            all_subscribed: rooms.is_none(),
            rooms: BTreeSet::new(),
        };
        for room in rooms.into_iter().flatten() {
            match room {
                ExtensionRoomConfig::Room(room) => {
                    scope.rooms.insert(room);
                }
                _ => scope.all_subscribed = true,
            }
        }
        Ok(Some(scope))
    }
}

fn most(n: usize, bound: usize, what: &str) -> Result<()> {
    match n > bound {
        true => Err(Error::invalid_param(format!("There are more than {bound} {what}"))),
        false => Ok(()),
    }
}

impl SlidingWish {
    /// Whether no message waited for the device at this state, by what it says of them.
    pub(super) fn has_its_messages(&self, base: Option<&State>) -> bool {
        let Some(wish) = &self.to_device else { return true };
        let had = |since: SyncToken| since.to_device.is_none() && base.is_some_and(|base| since.pos >= base.pos);
        wish.since.is_some_and(had)
    }

    /// From a request and the body that it came with, for what ruma's type has no field.
    pub fn new(request: Request, body: &Map<String, Value>, user: &UserId, session_as_of: u64) -> Result<Self> {
        let conn_id = request.conn_id.unwrap_or_default();
        if conn_id.len() > MOST_NAME_BYTES {
            return Err(Error::invalid_param(format!("`conn_id` is longer than {MOST_NAME_BYTES} bytes")));
        }
        most(request.lists.len(), MOST_LISTS, "lists")?;
        most(request.room_subscriptions.len(), MOST_LISTS, "room subscriptions")?;
        let list = |(name, list): (String, List)| {
            let more = body.get("lists").and_then(|lists| lists.get(&name)?.get("filters"));
            list_wish(name, list, more, user)
        };
        let subscription = |(room, wanted): (OwnedRoomId, _)| {
            let ruma::api::client::sync::sync_events::v5::request::RoomSubscription {
                required_state,
                timeline_limit,
                ..
            } = wanted;
            Ok((room, config(&required_state, timeline_limit, user)?))
        };
        let AskedExtensions { to_device, e2ee, account_data, receipts, typing, thread_subscriptions, .. } =
            request.extensions;
        let to_device = (to_device.enabled == Some(true)).then(|| {
            let limit = to_device.limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(MOST_TO_DEVICE);
            // One that we don't know acknowledges nothing.
            let since = to_device.since.and_then(|since| since.parse().ok());
            ToDeviceWish { since, limit: limit.clamp(1, MOST_TO_DEVICE) }
        });
        Ok(Self {
            conn_id,
            pos: request.pos.filter(|pos| !pos.is_empty()).as_deref().map(str::parse).transpose()?,
            timeout: request.timeout.unwrap_or_default(),
            lists: request.lists.into_iter().map(list).collect::<Result<_>>()?,
            subscriptions: request.room_subscriptions.into_iter().map(subscription).collect::<Result<_>>()?,
            to_device,
            e2ee: e2ee.enabled == Some(true),
            account_data: Scope::new(account_data.enabled, account_data.lists, account_data.rooms)?,
            receipts: Scope::new(receipts.enabled, receipts.lists, receipts.rooms)?,
            typing: Scope::new(typing.enabled, typing.lists, typing.rooms)?,
            thread_subscriptions: (thread_subscriptions.enabled == Some(true)).then(|| {
                let limit = thread_subscriptions.limit.and_then(|limit| u32::try_from(limit).ok());
                limit.unwrap_or(MOST_SUBSCRIPTIONS).clamp(1, MOST_SUBSCRIPTIONS)
            }),
            tells_beside: false,
            session_as_of,
        })
    }

    /// The same of a client that knows the proposal as it was accepted, and says so which state it wants.
    pub fn with_states(
        mut self,
        mut of_lists: BTreeMap<String, StateWish>,
        of_rooms: BTreeMap<OwnedRoomId, StateWish>,
    ) -> Result<Self> {
        for list in &mut self.lists {
            if let Some(wish) = of_lists.remove(&list.name) {
                list.config.required = wish.required()?;
            }
        }
        for (room, wish) in of_rooms {
            if let Some(config) = self.subscriptions.get_mut(&room) {
                config.required = wish.required()?;
            }
        }
        self.tells_beside = true;
        Ok(self)
    }
}

fn list_wish(name: String, list: List, more: Option<&Value>, user: &UserId) -> Result<ListWish> {
    if name.len() > MOST_NAME_BYTES {
        return Err(Error::invalid_param(format!("The name of a list is longer than {MOST_NAME_BYTES} bytes")));
    }
    most(list.ranges.len(), MOST_RANGES, "ranges in a list")?;
    let config = config(&list.room_details.required_state, list.room_details.timeline_limit, user)?;
    let ranges: Vec<(u64, u64)> = list.ranges.iter().map(|(first, last)| ((*first).into(), (*last).into())).collect();
    if ranges.iter().any(|(first, last)| first > last) {
        return Err(Error::invalid_param("A range ends before it begins"));
    }
    Ok(ListWish { name, ranges, filters: filters(list.filters.unwrap_or_default(), more)?, config })
}

fn filters(asked: ListFilters, more: Option<&Value>) -> Result<Filters> {
    let names = |key: &str| -> Result<Vec<String>> {
        let Some(names) = more.and_then(|more| more.get(key)).filter(|names| !names.is_null()) else {
            return Ok(Vec::new());
        };
        let names: Vec<String> =
            serde_json::from_value(names.clone()).map_err(|e| Error::bad_json(format!("`{key}` of a filter: {e}")))?;
        most(names.len(), MOST_NAMES, "names in a filter")?;
        Ok(names)
    };
    let types = |types: Vec<ruma::directory::RoomTypeFilter>| -> Result<Vec<Option<String>>> {
        most(types.len(), MOST_NAMES, "types in a filter")?;
        Ok(types.iter().map(|kind| kind.as_str().map(str::to_owned)).collect())
    };
    // By its name in the proposal as it was accepted, too.
    let is_invited = more.and_then(|more| more.get("is_invited")).and_then(Value::as_bool);
    Ok(Filters {
        is_dm: asked.is_dm,
        is_encrypted: asked.is_encrypted,
        is_invite: asked.is_invite.or(is_invited),
        room_types: types(asked.room_types)?,
        not_room_types: types(asked.not_room_types)?,
        tags: names("tags")?,
        not_tags: names("not_tags")?,
        spaces: names("spaces")?,
    })
}

fn config(required: &[(StateEventType, String)], limit: UInt, user: &UserId) -> Result<Config> {
    most(required.len(), MOST_REQUIRED, "elements in `required_state`")?;
    let elements: Vec<(String, &str)> = required.iter().map(|(kind, key)| (kind.to_string(), key.as_str())).collect();
    if elements.iter().any(|(kind, key)| kind.len() > MAX_ID_BYTES || key.len() > MAX_ID_BYTES) {
        return Err(long_element());
    }
    let elements = elements.iter().map(|(kind, key)| (kind.as_str(), *key));
    Ok(Config { limit: u64::from(limit).min(MOST_EVENTS), required: Required::new(elements, user.as_str()) })
}

/// Shared by all rooms that are asked for alike.
pub(super) type SharedConfig = Arc<Config>;
