//! The contents of the rooms that a sync shows. A room that goes on, one that is new and one that was left differ in how
//! much of them is asked for, not in how; so all are read at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use hearth_core::{
    filter::{Ignored, Sieve},
    sliding::Required,
};

use super::{
    RoomSync, Summary, SyncQuery,
    members::{Members, named_members, wanted_members},
    mine::{Change, Mine},
    states::{Deltas, Showing, StatePart, StateSpan, read_deltas, read_states},
    summaries::{Heroes, read_heroes},
    timelines::{Span, TimelinePart, Wanted, read_timelines},
};
use crate::{
    Result,
    ephemeral::Receipt,
    relations::bundles::{Beheld, Bundles, Onlooker, bundles},
    rooms::StoredEvent,
    timeline::{Stretch, VisibilityLog, redactions_of, visibility_logs},
    tx::{Reads, args, statements},
    unread::Unread,
};

statements! {
    RECEIPTS = "SELECT room_sn, user_id, type, thread, event_id, ts FROM receipts
        WHERE room_sn = ANY($1) AND pos > $2 AND pos <= $3 AND (type <> 'm.read.private' OR user_id = $4) ORDER BY pos";
}

/// What a client calls a room after.
const NAMING_TYPES: [&str; 3] = ["m.room.member", "m.room.name", "m.room.canonical_alias"];

/// A room that is shown, and how much of it.
pub(super) struct Shown {
    pub(super) mine: Mine,
    /// The timeline after this position,
    pub(super) low: i64,
    /// and up to this one.
    pub(super) high: i64,
    /// Of the state, what changed after this position; all of it where this is 0.
    pub(super) state_from: i64,
    /// The newest so many events.
    pub(super) limit: i64,
    /// Receipts after this position, if any.
    pub(super) receipts_from: Option<i64>,
    /// If not all of the state is wanted.
    pub(super) required: Option<Arc<Required>>,
}

impl Shown {
    fn sn(&self) -> i64 {
        self.mine.room.room_sn
    }

    fn span(&self) -> Result<Span<'_>> {
        let (room_sn, room_id) = (self.sn(), self.mine.id()?);
        Ok(Span { room_sn, room_id, low: self.low, high: self.high, limit: self.limit })
    }

    pub(super) fn is_left(&self) -> bool {
        self.mine.membership != "join"
    }

    fn has_news(&self) -> bool {
        self.mine.room.last_pos > self.low
    }

    fn is_whole(&self) -> bool {
        self.state_from == 0
    }

    /// If members are loaded lazily at all, whether they are here.
    fn is_lazy(&self) -> bool {
        self.required.as_ref().is_none_or(|required| required.is_lazy())
    }

    pub(super) fn wants_member(&self, user: &str) -> bool {
        self.required.as_ref().is_none_or(|required| required.wants("m.room.member", user))
    }
}

/// Who reads what.
pub(super) struct Reading<'a> {
    pub(super) q: &'a SyncQuery,
    pub(super) head: i64,
    pub(super) ignored: Arc<Ignored>,
    pub(super) changes: &'a HashMap<i64, Change>,
}

/// What was read, by room.
pub(super) struct Contents {
    logs: HashMap<i64, VisibilityLog>,
    timelines: HashMap<i64, TimelinePart>,
    deltas: Deltas,
    heroes: HashMap<i64, Heroes>,
    /// If they are loaded lazily.
    members: Option<Members>,
    states: HashMap<i64, StatePart>,
    receipts: HashMap<i64, Vec<Receipt>>,
    because: HashMap<i64, Vec<StoredEvent>>,
    /// Of all rooms.
    bundles: Bundles,
}

impl Contents {
    /// The numbers of the memberships of those after whom rooms may be called.
    pub(super) fn heroes(&self) -> impl Iterator<Item = i64> {
        self.heroes.values().flatten().map(|(_, event_sn)| *event_sn)
    }
}

impl Reading<'_> {
    pub(super) async fn read<R: Reads>(&self, tx: &mut R, rooms: &[Shown]) -> Result<Contents> {
        // A joiner may not see all of what was before; nor somebody who was away for a while all of what was said then.
        let partly_seen = |r: &&Shown| r.has_news() && (r.low == 0 || self.changes.contains_key(&r.sn()));
        let partly_seen: Vec<i64> = rooms.iter().filter(partly_seen).map(Shown::sn).collect();
        let logs = visibility_logs(tx, &partly_seen, &self.q.user_id).await?;
        let timelines = self.timelines(tx, rooms, &logs).await?;
        let spans: Vec<StateSpan> = rooms.iter().filter_map(|r| self.state_span(r, logs.get(&r.sn()))).collect();
        let showing = Showing { rooms: &spans, after: self.q.state_after, timelines: &timelines };
        let deltas = read_deltas(tx, showing).await?;
        let heroes = self.heroes(tx, rooms, &deltas).await?;
        let members = self.members(tx, rooms, &timelines, &heroes).await?;
        let states = read_states(tx, showing, &deltas, members.as_ref()).await?;
        let receipts = self.receipts(tx, rooms).await?;
        let in_states = states.values().flat_map(|s| &s.events);
        let shown = timelines.values().flat_map(|t| &t.events).chain(in_states);
        let mut because = HashMap::<i64, Vec<StoredEvent>>::new();
        for redaction in redactions_of(tx, shown).await? {
            because.entry(redaction.room_sn).or_default().push(redaction);
        }
        let bundles = self.bundles(tx, rooms, &timelines, &logs).await?;
        Ok(Contents { logs, timelines, deltas, heroes, members, states, receipts, because, bundles })
    }

    /// What relates to the events of timelines that lack some.
    async fn bundles<R: Reads>(
        &self,
        tx: &mut R,
        rooms: &[Shown],
        timelines: &HashMap<i64, TimelinePart>,
        logs: &HashMap<i64, VisibilityLog>,
    ) -> Result<Bundles> {
        let limited = |r: &Shown| timelines.get(&r.sn()).is_some_and(|t| t.limited && !t.events.is_empty());
        let limited = rooms.iter().filter(|r| limited(r)).map(|room| {
            let log = logs.get(&room.sn());
            let until = log.filter(|_| room.is_left()).and_then(VisibilityLog::left_at);
            // Who was in the room all along sees all that came since.
            (room.sn(), log.map_or_else(|| vec![(0, i64::MAX)], |log| log.stretches(until)))
        });
        let seen: Vec<(i64, Vec<Stretch>)> = limited.collect();
        let events = seen.iter().filter_map(|(sn, seen)| Some((timelines.get(sn)?, seen)));
        let events = events.flat_map(|(t, seen)| t.events.iter().map(move |event| Beheld { event, seen }));
        let who = Onlooker { user_id: &self.q.user_id, ignored: &self.ignored };
        bundles(tx, who, &events.collect::<Vec<_>>()).await
    }

    async fn timelines<R: Reads>(
        &self,
        tx: &mut R,
        rooms: &[Shown],
        logs: &HashMap<i64, VisibilityLog>,
    ) -> Result<HashMap<i64, TimelinePart>> {
        let sieve = Sieve::new(self.q.filter.clone(), Arc::clone(&self.ignored));
        let wanted = Wanted { user_id: &self.q.user_id, sieve: &sieve };
        let with_news = rooms.iter().filter(|r| r.has_news());
        let spans: Vec<Span<'_>> = with_news.map(Shown::span).collect::<Result<_>>()?;
        let mut timelines = read_timelines(tx, &spans, logs, wanted).await?;
        for room in rooms {
            let Some(timeline) = timelines.get_mut(&room.sn()) else { continue };
            if room.is_left() {
                end_at_the_leave(timeline, &room.mine, logs.get(&room.sn()), &self.q.user_id);
            } else if room.low == 0 && self.q.since.is_some() {
                // Who joined anew knows nothing of what was before, wanted or not.
                timeline.limited |= timeline.unwanted_before;
            }
        }
        Ok(timelines)
    }

    /// Of the rooms that have to be called otherwise, perhaps: those whose members or name changed.
    async fn heroes<R: Reads>(&self, tx: &mut R, rooms: &[Shown], deltas: &Deltas) -> Result<HashMap<i64, Heroes>> {
        let touched = |r: &&Shown| r.is_whole() || deltas.touch(r.sn(), &NAMING_TYPES, self.head);
        let touched = rooms.iter().filter(|r| !r.is_left()).filter(touched);
        let touched: Vec<(i64, i64)> = touched.map(|r| (r.sn(), r.mine.room.joined + r.mine.room.invited)).collect();
        read_heroes(tx, &touched, &self.q.user_id).await
    }

    async fn members<R: Reads>(
        &self,
        tx: &mut R,
        rooms: &[Shown],
        timelines: &HashMap<i64, TimelinePart>,
        heroes: &HashMap<i64, Heroes>,
    ) -> Result<Option<Members>> {
        let Some(lazy) = &self.q.lazy else { return Ok(None) };
        let afresh = || rooms.iter().filter(|r| r.is_left() || r.is_whole());
        let sns: HashSet<i64> = afresh().map(Shown::sn).collect();
        let lazily: HashSet<i64> = rooms.iter().filter(|r| r.is_lazy()).map(Shown::sn).collect();
        let speak = timelines.iter().filter(|(sn, _)| lazily.contains(sn)).flat_map(|(_, t)| &t.events);
        let heroes = heroes.iter().filter(|(sn, _)| lazily.contains(sn));
        let mut members = wanted_members(tx, lazy, speak, heroes, &sns).await?;
        for room in afresh().filter(|room| room.wants_member(&self.q.user_id)) {
            members.entry(room.sn()).or_default().insert(self.q.user_id.clone(), room.mine.event_sn);
        }
        let named = afresh().filter_map(|room| Some((room.sn(), &**room.required.as_ref()?))).collect::<Vec<_>>();
        named_members(tx, &named, &mut members).await?;
        Ok(Some(members))
    }

    /// How much of the state is shown, if any.
    fn state_span(&self, room: &Shown, log: Option<&VisibilityLog>) -> Option<StateSpan> {
        let high = match room.is_left() {
            true => log.and_then(VisibilityLog::left_at)?,
            false => room.high,
        };
        let shown = room.is_whole() || room.has_news();
        let all_members = room.required.as_ref().is_some_and(|required| required.all_members());
        shown.then(|| StateSpan {
            room_sn: room.sn(),
            low: room.state_from,
            high,
            lazily: self.q.lazy.is_some() && !all_members,
            required: room.required.clone(),
        })
    }

    /// Of the rooms that the user is in: one statement for those that go on, one for the new.
    async fn receipts<R: Reads>(&self, tx: &mut R, rooms: &[Shown]) -> Result<HashMap<i64, Vec<Receipt>>> {
        let mut by_low = BTreeMap::<i64, Vec<i64>>::new();
        for room in rooms.iter().filter(|r| !r.is_left()) {
            if let Some(low) = room.receipts_from {
                by_low.entry(low).or_default().push(room.sn());
            }
        }
        let mut receipts = HashMap::<i64, Vec<Receipt>>::new();
        for (low, rooms) in by_low {
            for mut row in tx.query(RECEIPTS, args![rooms, low, self.head, &self.q.user_id]).await? {
                let receipt = Receipt {
                    room_sn: row.get(0)?,
                    user_id: row.get(1)?,
                    receipt_type: row.get(2)?,
                    thread: row.get(3)?,
                    event_id: row.get(4)?,
                    ts: row.get(5)?,
                };
                receipts.entry(receipt.room_sn).or_default().push(receipt);
            }
        }
        Ok(receipts)
    }

    /// The room with what was read of it.
    pub(super) fn shown(
        &self,
        room: Shown,
        contents: &mut Contents,
        account_data: Vec<(String, Option<String>)>,
    ) -> RoomSync {
        let sn = room.sn();
        let told = if room.is_left() { Vec::new() } else { self.told(&room, contents) };
        let timeline = contents.timelines.remove(&sn).unwrap_or_default();
        let state = contents.states.remove(&sn).unwrap_or_default();
        // Who is in the room since before the token was a member all along, but for the changes.
        let membership = match contents.logs.remove(&sn) {
            Some(log) => log.membership,
            None => {
                let since = self.changes.get(&sn).map(|c| c.log.clone()).unwrap_or_default();
                std::iter::once((0, "join".to_owned())).chain(since).collect()
            }
        };
        let bundles = timeline.events.iter().filter_map(|e| contents.bundles.remove_entry(&e.sn)).collect();
        let summary = contents.heroes.remove(&sn);
        let summary = summary.map(|heroes| Summary { heroes: heroes.into_iter().map(|(user, _)| user).collect() });
        RoomSync {
            initial: room.low == 0,
            limited: timeline.limited,
            start: start_of(&timeline, room.high),
            timeline: timeline.events,
            state: state.events,
            replaced: state.replaced,
            gone: state.gone,
            because: contents.because.remove(&sn).unwrap_or_default(),
            bundles,
            membership,
            told,
            summary,
            receipts: contents.receipts.remove(&sn).unwrap_or_default(),
            account_data,
            unread: Unread::default(),
            room: room.mine.room,
        }
    }

    /// If members are loaded lazily: of whom the room tells.
    fn told(&self, room: &Shown, contents: &Contents) -> Vec<String> {
        let Some(members) = &contents.members else { return Vec::new() };
        let members = members.get(&room.sn()).filter(|_| room.is_lazy());
        let loaded = members.into_iter().flat_map(HashMap::keys).cloned();
        let changed = contents.deltas.members(room.sn(), self.head).filter(|_| room.is_lazy() && !room.is_whole());
        loaded.chain(changed.map(str::to_owned)).collect()
    }
}

/// Somebody who was never in the room (an invite that was refused) sees the leave and nothing else. Who left and was then
/// banned sees the ban, but not what the room became in between.
fn end_at_the_leave(timeline: &mut TimelinePart, mine: &Mine, log: Option<&VisibilityLog>, user_id: &str) {
    match log.and_then(VisibilityLog::left_at) {
        // Also where anybody may read on: that is not what they left.
        Some(until) => timeline
            .events
            .retain(|e| e.pos.is_some_and(|pos| pos <= until) || log.is_some_and(|log| log.is_own(e, user_id))),
        None => {
            timeline.events.retain(|e| e.sn == mine.event_sn);
            timeline.limited = timeline.events.is_empty();
        }
    }
}

/// The boundary before a timeline: that of its first event, else behind what came before it.
fn start_of(timeline: &TimelinePart, end: i64) -> (i64, i64) {
    timeline.start.unwrap_or((timeline.low.unwrap_or(end).saturating_add(1), i64::MIN))
}
