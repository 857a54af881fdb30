//! The state beside a timeline, of many rooms.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use hearth_core::sliding::Required;

use super::{members::Members, timelines::TimelinePart};
use crate::{
    Result,
    rooms::StoredEvent,
    timeline::events_by_sn,
    tx::{Reads, args, statements},
};

statements! {
    DELTAS = "SELECT room_sn, pos, type, state_key, event_sn, prev_sn FROM current_state_delta
        WHERE room_sn = $1 AND pos > $2 ORDER BY pos";
    STATES = "SELECT room_sn, type, state_key, event_sn FROM current_state WHERE room_sn = ANY($1)";
    // In two ranges of the key, so that no member is looked at.
    STATES_BUT_MEMBERS = "SELECT room_sn, type, state_key, event_sn FROM current_state
            WHERE room_sn = ANY($1) AND type < 'm.room.member'
        UNION ALL SELECT room_sn, type, state_key, event_sn FROM current_state
            WHERE room_sn = ANY($1) AND type > 'm.room.member'";
}

/// What a room is called and looks like is told beside its state, wanted or not.
const SHOWN_BESIDE: [&str; 2] = ["m.room.name", "m.room.avatar"];

/// Type and state key.
type Key = (String, String);

/// A change of a room's current state.
pub(super) struct Delta {
    pos: i64,
    key: Key,
    event: Option<i64>,
    prev: Option<i64>,
}

/// Changes of rooms' current states, in their order.
#[derive(Default)]
pub(super) struct Deltas(HashMap<i64, Vec<Delta>>);

impl Deltas {
    /// Whether one of these types changed in the room, up to `high`.
    pub(super) fn touch(&self, room: i64, types: &[&str], high: i64) -> bool {
        self.of(room).iter().any(|d| d.pos <= high && types.contains(&d.key.0.as_str()))
    }

    /// Whose memberships of the room changed, up to `high`.
    pub(super) fn members(&self, room: i64, high: i64) -> impl Iterator<Item = &str> {
        let of_members = move |d: &&Delta| d.pos <= high && is_member(&d.key);
        self.of(room).iter().filter(of_members).map(|d| d.key.1.as_str())
    }

    /// What of the state that is wanted there was, and is no more.
    fn gone(&self, room: &StateSpan) -> Vec<Key> {
        let within = |d: &&Delta| room.low < d.pos && d.pos <= room.high;
        let last: BTreeMap<&Key, Option<i64>> =
            self.of(room.room_sn).iter().filter(within).map(|d| (&d.key, d.event)).collect();
        let gone = last.into_iter().filter(|(key, event)| event.is_none() && room.keeps(key, None));
        gone.map(|(key, _)| key.clone()).collect()
    }

    fn of(&self, room: i64) -> &[Delta] {
        self.0.get(&room).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Which states are shown.
#[derive(Clone, Copy)]
pub(super) struct Showing<'a> {
    pub(super) rooms: &'a [StateSpan],
    /// As they are after the timelines, not before.
    pub(super) after: bool,
    pub(super) timelines: &'a HashMap<i64, TimelinePart>,
}

/// How much of a room's state is shown.
pub(super) struct StateSpan {
    pub(super) room_sn: i64,
    /// What changed after this position; if this is 0, all of it,
    pub(super) low: i64,
    /// as it was here.
    pub(super) high: i64,
    /// Of members only those who are loaded lazily.
    pub(super) lazily: bool,
    /// If not all of it is wanted.
    pub(super) required: Option<Arc<Required>>,
}

impl StateSpan {
    fn is_whole(&self) -> bool {
        self.low == 0
    }

    /// Whether this piece of the state is to be read, once it is clear which members are loaded.
    fn keeps(&self, key: &Key, members: Option<&HashMap<String, i64>>) -> bool {
        let Some(required) = &self.required else { return true };
        let of_room = key.1.is_empty() && SHOWN_BESIDE.contains(&key.0.as_str());
        let is_loaded = || required.is_lazy() || members.is_some_and(|members| members.contains_key(&key.1));
        of_room || required.wants(&key.0, &key.1) || is_member(key) && is_loaded()
    }
}

impl Showing<'_> {
    /// Where the timeline begins.
    fn timeline_of(&self, room: &StateSpan) -> i64 {
        let low = self.timelines.get(&room.room_sn).and_then(|t| t.low);
        low.unwrap_or(room.high).min(room.high)
    }

    /// Between this position and the timeline nothing changes.
    fn start(&self, room: &StateSpan) -> i64 {
        if self.after { room.high } else { self.timeline_of(room) }
    }
}

/// What a client needs of the state beside a timeline.
#[derive(Default)]
pub(super) struct StatePart {
    pub(super) events: Vec<StoredEvent>,
    /// By the number of a state event in the timeline, the one it replaced.
    pub(super) replaced: HashMap<i64, StoredEvent>,
    /// Of a state of which some is wanted, and not the whole: types and keys that are not there any more.
    pub(super) gone: Vec<(String, String)>,
}

/// The changes that decide what is shown.
pub(super) async fn read_deltas<R: Reads>(tx: &mut R, showing: Showing<'_>) -> Result<Deltas> {
    let mut deltas = Deltas::default();
    // Of a whole state, only what changed from the timeline on has to be undone. Who left before their token, and is told
    // of what was done to them since, is shown what was when they left.
    let from = |room: &StateSpan| {
        let timeline = showing.timeline_of(room);
        if room.is_whole() { timeline } else { room.low.min(timeline) }
    };
    let asked: Vec<_> = showing.rooms.iter().map(|room| args![room.room_sn, from(room)].to_vec()).collect();
    for mut row in tx.query_each(DELTAS, &asked).await?.into_iter().flatten() {
        let room: i64 = row.get(0)?;
        let (pos, key, event, prev) = (row.get(1)?, (row.get(2)?, row.get(3)?), row.get(4)?, row.get(5)?);
        deltas.0.entry(room).or_default().push(Delta { pos, key, event, prev });
    }
    Ok(deltas)
}

/// Of each room, the state before its timeline: the whole of it, or what changed. A client lays the timeline over it; so
/// what a merge of forks made current without an event of its own in the timeline is in it, too. Members are in it if
/// they changed, or if they are `lazy` ones; if that is none, all.
pub(super) async fn read_states<R: Reads>(
    tx: &mut R,
    showing: Showing<'_>,
    deltas: &Deltas,
    lazy: Option<&Members>,
) -> Result<HashMap<i64, StatePart>> {
    let mut parts = HashMap::new();
    if showing.rooms.is_empty() {
        return Ok(parts);
    }
    let mut states = HashMap::<i64, BTreeMap<Key, Option<i64>>>::new();
    for (stmt, lazily) in [(STATES_BUT_MEMBERS, true), (STATES, false)] {
        let whole = showing.rooms.iter().filter(|room| room.is_whole() && room.lazily == lazily);
        let whole: Vec<i64> = whole.map(|room| room.room_sn).collect();
        if whole.is_empty() {
            continue;
        }
        for mut row in tx.query(stmt, args![whole]).await? {
            let room: i64 = row.get(0)?;
            states.entry(room).or_default().insert((row.get(1)?, row.get(2)?), Some(row.get(3)?));
        }
    }
    for (room, members) in lazy.into_iter().flatten() {
        let state = states.entry(*room).or_default();
        for (user, event_sn) in members {
            state.insert(("m.room.member".to_owned(), user.clone()), Some(*event_sn));
        }
    }

    let mut wanted = BTreeSet::new();
    let mut replaced = HashMap::<i64, Vec<(i64, i64)>>::new();
    for room in showing.rooms {
        let (room_sn, start) = (room.room_sn, showing.start(room));
        let timeline = showing.timelines.get(&room_sn);
        let in_timeline: HashSet<i64> = timeline.iter().flat_map(|t| t.events.iter().map(|e| e.sn)).collect();
        let state = states.entry(room_sn).or_default();
        let members = lazy.and_then(|lazy| lazy.get(&room_sn));
        let is_lazy = |key: &Key| members.is_some_and(|members| is_member(key) && members.contains_key(&key.1));
        let mut undone = HashSet::new();
        for d in deltas.of(room_sn) {
            if let (Some(event), Some(prev)) = (d.event, d.prev)
                && in_timeline.contains(&event)
            {
                replaced.entry(room_sn).or_default().push((event, prev));
                wanted.insert(prev);
            }
            // What the state holds as it is now.
            let is_now = room.is_whole() && !(room.lazily && is_member(&d.key)) || is_lazy(&d.key);
            if room.is_whole() && !is_now {
                continue;
            }
            if d.pos <= start {
                // Before the timeline: the last change counts. (What is now has these already.)
                if !is_now && d.pos > room.low {
                    state.insert(d.key.clone(), d.event);
                }
                continue;
            }
            if is_now && undone.insert(&d.key) {
                state.insert(d.key.clone(), d.prev);
            }
            // Became current without being in the timeline.
            if d.pos <= room.high && d.event.is_none_or(|event| !in_timeline.contains(&event)) {
                state.insert(d.key.clone(), d.event);
            }
        }
        state.retain(|key, _| room.keeps(key, members));
        wanted.extend(state.values().flatten());
    }
    let mut events: HashMap<i64, StoredEvent> =
        events_by_sn(tx, wanted.into_iter().collect()).await?.into_iter().map(|e| (e.sn, e)).collect();
    for span in showing.rooms {
        let room = span.room_sn;
        let gone = if span.is_whole() || span.required.is_none() { Vec::new() } else { deltas.gone(span) };
        let replaced = replaced.remove(&room).unwrap_or_default();
        let replaced = replaced.into_iter().filter_map(|(event, prev)| Some((event, events.get(&prev)?.clone())));
        let replaced = replaced.collect();
        let state = states.remove(&room).unwrap_or_default();
        let state = state.into_values().flatten().filter_map(|sn| events.remove(&sn)).collect();
        parts.insert(room, StatePart { events: state, replaced, gone });
    }
    Ok(parts)
}

fn is_member(key: &Key) -> bool {
    key.0 == "m.room.member"
}
