//! Which rooms a client looks at, and what of each it has to be told.

use std::collections::{BTreeMap, HashMap};

use hearth_core::sliding::{Filters, ListWish, Scope, SlidingWish, places};
use hearth_storage::Message;

use super::{
    connection::{Configs, Sent, State},
    my_rooms::{Entry, Rooms},
};

/// The rooms that are in ranges of lists, or subscribed to.
pub(super) struct View {
    /// How long each list is.
    pub(super) counts: BTreeMap<String, usize>,
    pub(super) rooms: HashMap<i64, InView>,
    /// The lists that each is in, for those who are told.
    pub(super) in_lists: HashMap<i64, Vec<String>>,
}

/// How a client looks at a room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InView {
    /// What is asked of it.
    pub(super) config: usize,
    pub(super) scopes: Scopes,
}

/// The extensions that apply to a room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scopes {
    pub(super) receipts: bool,
    pub(super) data: bool,
    pub(super) typing: bool,
}

impl Scopes {
    fn of(wish: &SlidingWish, applies: impl Fn(&Scope) -> bool) -> Self {
        let applies = |scope: &Option<Scope>| scope.as_ref().is_some_and(&applies);
        Self { receipts: applies(&wish.receipts), data: applies(&wish.account_data), typing: applies(&wish.typing) }
    }

    fn add(&mut self, other: Self) {
        self.receipts |= other.receipts;
        self.data |= other.data;
        self.typing |= other.typing;
    }
}

/// A room of which there is something to tell, perhaps.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) entry: Entry,
    pub(super) view: InView,
    /// What happened after this position; 0 if nothing of the room was told.
    pub(super) low: i64,
    /// More of the newest events is wanted than was told.
    pub(super) again: bool,
    /// More of the state is.
    pub(super) whole_state: bool,
    pub(super) receipts_from: Option<i64>,
    pub(super) data_from: Option<i64>,
    pub(super) is_dm: bool,
    pub(super) sent: Option<Sent>,
}

impl Asked {
    /// Whether the client has been told who sent the message.
    pub(super) fn knows(&self, message: &Message) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.told.contains(message.pdu.sender.as_str()))
    }

    /// All that there is to tell are messages, if any.
    pub(super) fn follows_closely(&self, pos: i64) -> bool {
        let goes_on = |from: &Option<i64>, changed: i64| from.is_none_or(|from| from > 0 && changed <= from);
        self.entry.is_in()
            && self.low == pos
            && self.entry.room.membership_pos <= pos
            && self.entry.read_pos <= pos
            && !self.again
            && !self.whole_state
            && goes_on(&self.data_from, self.entry.data_pos)
            && self.receipts_from.is_none_or(|from| from == pos)
            && self.sent.as_ref().is_some_and(|sent| sent.is_live() && sent.is_dm == self.is_dm)
    }
}

impl View {
    pub(super) fn new(wish: &SlidingWish, mine: &Rooms, base: Option<&State>, configs: &mut Configs) -> Self {
        let mut view = Self { counts: BTreeMap::new(), rooms: HashMap::new(), in_lists: HashMap::new() };
        let mut both = Both::default();
        for list in &wish.lists {
            let scopes = Scopes::of(wish, |scope| scope.has_list(&list.name));
            let config = configs.index(&list.config);
            let (count, rooms) = in_ranges(list, mine, base);
            view.counts.insert(list.name.clone(), count);
            for room in rooms {
                if wish.tells_beside {
                    view.in_lists.entry(room).or_default().push(list.name.clone());
                }
                view.add(room, InView { config, scopes }, configs, &mut both);
            }
        }
        for (id, wanted) in &wish.subscriptions {
            let Some(entry) = mine.by_id.get(id.as_str()).and_then(|sn| mine.entries.get(sn)) else { continue };
            if !may_be_shown(entry, mine) {
                continue;
            }
            let scopes = Scopes::of(wish, Scope::has_all_subscribed);
            let config = configs.index(wanted);
            view.add(entry.room.room_sn, InView { config, scopes }, configs, &mut both);
        }
        for (sn, room) in &mut view.rooms {
            let named = |scope: &Scope| {
                let id = mine.entries.get(sn).map(|entry| entry.room.room_id.as_str());
                !scope.rooms.is_empty() && id.is_some_and(|id| scope.rooms.iter().any(|room| *room == id))
            };
            if [&wish.receipts, &wish.account_data, &wish.typing].into_iter().flatten().any(named) {
                room.scopes.add(Scopes::of(wish, named));
            }
        }
        view
    }

    fn add(&mut self, room_sn: i64, more: InView, configs: &mut Configs, both: &mut Both) {
        self.rooms
            .entry(room_sn)
            .and_modify(|known| {
                known.config = both.of(known.config, more.config, configs);
                known.scopes.add(more.scopes);
            })
            .or_insert(more);
    }

    /// Those of which there is something to tell, perhaps.
    pub(super) fn asked(&self, mine: &Rooms, base: Option<&State>, configs: &Configs) -> Vec<Asked> {
        let mut widened = HashMap::new();
        let pos = base.map_or(0, |base| base.pos);
        let mut asked = Vec::new();
        for (sn, view) in &self.rooms {
            let (Some(entry), Some(config)) = (mine.entries.get(sn), configs.get(view.config)) else { continue };
            let sent = base.and_then(|base| base.rooms.get(sn));
            let low = sent.map_or(0, |sent| sent.up_to.of(pos));
            let is_dm = mine.direct.contains(&entry.room.room_id);
            let again = entry.is_in() && sent.is_some_and(|sent| config.limit > sent.limit);
            let mut widens = |before: usize| {
                let widens = || configs.get(before).is_none_or(|before| config.required.widens(&before.required));
                before != view.config && *widened.entry((before, view.config)).or_insert_with(widens)
            };
            let whole_state = low == 0 || entry.is_in() && sent.is_some_and(|sent| widens(sent.config));
            let receipts = sent.map_or(0, |sent| sent.receipts.of(pos));
            let data = sent.map_or(0, |sent| sent.data.of(pos));
            let is_news = entry.touched() > low
                || entry.read_pos > low
                || entry.is_in() && mine.ignored_pos > low
                || again
                || whole_state
                || view.scopes.data && !entry.is_stranger() && entry.data_pos > data
                || view.scopes.receipts && entry.is_in() && receipts < low
                || sent.is_some_and(|sent| sent.is_dm != is_dm);
            if is_news {
                asked.push(Asked {
                    low,
                    again,
                    whole_state,
                    receipts_from: view.scopes.receipts.then_some(if again { 0 } else { receipts }),
                    data_from: view.scopes.data.then_some(data),
                    is_dm,
                    sent: sent.cloned(),
                    view: *view,
                    entry: entry.clone(),
                });
            }
        }
        asked
    }
}

/// What two ways of asking come to together.
#[derive(Default)]
struct Both(HashMap<(usize, usize), usize>);

impl Both {
    fn of(&mut self, a: usize, b: usize, configs: &mut Configs) -> usize {
        if a == b {
            return a;
        }
        if let Some(known) = self.0.get(&(a, b)) {
            return *known;
        }
        let both = match (configs.get(a), configs.get(b)) {
            (Some(one), Some(other)) => one.and(other),
            _ => return a,
        };
        let both = configs.index(&both);
        self.0.insert((a, b), both);
        both
    }
}

/// How long the list is, and the rooms in its ranges.
fn in_ranges(list: &ListWish, mine: &Rooms, base: Option<&State>) -> (usize, Vec<i64>) {
    let spaces = mine.in_spaces(&list.filters.spaces);
    let in_space = |entry: &Entry| spaces.iter().any(|rooms| rooms.contains(&entry.room.room_id));
    let is_in = |entry: &&Entry| {
        is_listed(entry, mine, base)
            && passes(&list.filters, entry, mine)
            && (list.filters.spaces.is_empty() || in_space(entry))
    };
    let mut rooms: Vec<(i64, i64)> =
        mine.entries.values().filter(is_in).map(|entry| (-entry.activity(), entry.room.room_sn)).collect();
    let spans = places(&list.ranges, rooms.len());
    // Where all are wanted, in no matter which order.
    if spans != [(0, rooms.len())] {
        rooms.sort_unstable();
    }
    let count = rooms.len();
    (count, spans.into_iter().flat_map(|(start, end)| rooms[start..end].iter().map(|(_, sn)| *sn)).collect())
}

/// Whether a room is in the list of all, before filters.
fn is_listed(entry: &Entry, mine: &Rooms, base: Option<&State>) -> bool {
    if !may_be_shown(entry, mine) {
        return false;
    }
    if !entry.is_out() {
        return true;
    }
    // Who was told of the room has to hear that they are out.
    let unheard = base.is_some_and(|base| {
        base.rooms.get(&entry.room.room_sn).is_some_and(|sent| sent.up_to.of(base.pos) < entry.room.membership_pos)
    });
    let by_others = entry.room.by.as_deref().is_some_and(|by| by != mine.user());
    unheard || by_others && entry.room.was_in && !entry.room.forgotten
}

fn may_be_shown(entry: &Entry, mine: &Rooms) -> bool {
    let by_ignored = || entry.room.by.as_deref().is_some_and(|by| mine.following.ignored.holds(by));
    !(entry.is_invite() && by_ignored())
}

fn passes(filters: &Filters, entry: &Entry, mine: &Rooms) -> bool {
    let room = &entry.room;
    let is = |wanted: Option<bool>, is: &dyn Fn() -> bool| wanted.is_none_or(|wanted| wanted == is());
    let has_tag = |tags: &[String]| tags.iter().any(|tag| entry.tags.contains(tag));
    is(filters.is_invite, &|| entry.is_invite())
        && is(filters.is_encrypted, &|| room.is_encrypted)
        && is(filters.is_dm, &|| mine.direct.contains(&room.room_id))
        && (filters.room_types.is_empty() || filters.room_types.contains(&room.kind))
        && !filters.not_room_types.contains(&room.kind)
        && (filters.tags.is_empty() || has_tag(&filters.tags))
        && !has_tag(&filters.not_tags)
}
