//! All that one sync shows, read in one snapshot: a fixed number of statements, however many rooms the user is in, and a few
//! for each that they left.

pub(crate) mod members;
pub(crate) mod mine;
pub(crate) mod states;
pub(crate) mod stripped;
pub(crate) mod summaries;
pub(crate) mod timelines;

use std::{collections::HashMap, sync::Arc};

use hearth_core::filter::{Ignored, Sieve};
use ruma::{RoomId, api::client::filter::RoomEventFilter};

pub use self::members::{Lazy, Told};
use self::{
    members::wanted_members,
    mine::{AccountData, Change, Mine, account_data, my_changes, my_rooms, older_account_data},
    states::{Showing, read_deltas, read_states},
    stripped::read_stripped,
    summaries::read_heroes,
    timelines::{TimelinePart, Window, read_timelines},
};
use crate::{
    Result, Sql,
    ephemeral::Receipt,
    rooms::{RoomRow, StoredEvent},
    timeline::{VisibilityLog, redactions_of, visibility_logs},
    tx::{Answer, Engine, Query, Reads, args, statements},
    unread::{self, Unread},
};

statements! {
    HEAD = "SELECT pos FROM stream_head WHERE id = 1";
    RECEIPTS = "SELECT room_sn, user_id, type, thread, event_id, ts FROM receipts
        WHERE room_sn = ANY($1) AND pos > $2 AND pos <= $3 AND (type <> 'm.read.private' OR user_id = $4) ORDER BY pos";
}

/// What a client calls a room after.
const NAMING_TYPES: [&str; 3] = ["m.room.member", "m.room.name", "m.room.canonical_alias"];

/// What a sync asks for.
#[derive(Clone, Debug)]
pub struct SyncQuery {
    pub user_id: String,
    /// Position that the client has seen everything up to; `None` for the first sync.
    pub since: Option<i64>,
    /// The newest so many events of each room
    pub timeline_limit: i64,
    /// that this lets through.
    pub filter: RoomEventFilter,
    pub full_state: bool,
    /// Of members only those whom the client hears of.
    pub lazy: Option<Lazy>,
    /// The state as it is after the timelines, not before.
    pub state_after: bool,
    /// Show left rooms in a first sync too.
    pub include_leave: bool,
    /// Only these rooms, by id.
    pub only_rooms: Option<Vec<String>>,
    pub not_rooms: Vec<String>,
}

impl SyncQuery {
    fn window<'a>(&'a self, (low, high): (i64, i64), sieve: &'a Sieve) -> Window<'a> {
        Window { user_id: &self.user_id, low, high, limit: self.timeline_limit, sieve }
    }
}

/// What a sync shows.
#[derive(Clone, Debug, Default)]
pub struct SyncPage {
    /// Everything up to here is in it.
    pub head: i64,
    pub joined: Vec<RoomSync>,
    pub left: Vec<RoomSync>,
    pub invited: Vec<StrippedRoom>,
    pub knocked: Vec<StrippedRoom>,
    /// Type and content of global account data; `None` where it was deleted.
    pub account_data: Vec<(String, Option<String>)>,
    /// The numbers of all rooms that the user is joined to: whose changes to wait for.
    pub following: Vec<i64>,
    /// How many are in each of them.
    pub sizes: Vec<i64>,
    /// Their ids.
    pub room_ids: Vec<(i64, String)>,
    /// Those of them with events after `since`.
    pub moved: Vec<i64>,
    pub ignored: Arc<Ignored>,
}

/// A room that the user is in, or was.
#[derive(Clone, Debug)]
pub struct RoomSync {
    pub room: RoomRow,
    /// The user joined after `since`, or this is the first sync: the room is shown from its beginning.
    pub initial: bool,
    pub timeline: Vec<StoredEvent>,
    /// There are events between `since` and the timeline.
    pub limited: bool,
    /// Where a page backwards has to begin that is to go on from the timeline.
    pub start: (i64, i64),
    /// The state before the timeline, or if it was asked for, after it: all of it for an initial room, else what changed.
    pub state: Vec<StoredEvent>,
    /// By the number of a state event in the timeline, the one it replaced.
    pub replaced: HashMap<i64, StoredEvent>,
    /// The redactions of redacted events in timeline and state.
    pub because: Vec<StoredEvent>,
    /// The user's membership, from the positions where it became so.
    pub membership: Vec<(i64, String)>,
    /// If members are loaded lazily: those of whom the timeline and the state tell.
    pub told: Vec<String>,
    /// If it may have changed.
    pub summary: Option<Summary>,
    pub receipts: Vec<Receipt>,
    pub account_data: Vec<(String, Option<String>)>,
    pub unread: Unread,
}

/// What to call a room, beside the counts of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whom to call it after if it has no name.
    pub heroes: Vec<String>,
}

/// A room that the user was invited to or knocks on.
#[derive(Clone, Debug)]
pub struct StrippedRoom {
    pub room: RoomRow,
    /// The user's own membership event.
    pub membership: StoredEvent,
    pub state: Vec<StoredEvent>,
}

/// The aggregate of what a sync reads.
pub trait SyncPages: Send + Sync {
    fn sync_page(&self, query: SyncQuery) -> Answer<'_, SyncPage>;
}

impl<E: Engine> SyncPages for Sql<E> {
    fn sync_page(&self, query: SyncQuery) -> Answer<'_, SyncPage> {
        self.0.read(ReadSync(query))
    }
}

struct ReadSync(SyncQuery);

impl Query for ReadSync {
    const NAME: &'static str = "sync_page";
    type Out = SyncPage;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<SyncPage> {
        let q = &self.0;
        let head: i64 = tx.query_one(HEAD, args![]).await?.get(0)?;
        let since = q.since.unwrap_or(0);
        let mut page = SyncPage { head, ..SyncPage::default() };

        let mine = my_rooms(tx, q).await?;
        for m in mine.iter().filter(|m| m.membership == "join") {
            page.following.push(m.room.room_sn);
            page.sizes.push(m.room.joined);
            page.room_ids.push((m.room.room_sn, m.room.room_id.clone()));
            if m.room.last_pos > since {
                page.moved.push(m.room.room_sn);
            }
        }
        let mut account_data = account_data(tx, q, head).await?;
        let ignored = account_data.remove(&-1).unwrap_or_default();
        page.ignored = Arc::new(Ignored::of(ignored.first().and_then(|(_, content)| content.as_deref())));
        page.account_data = account_data.remove(&0).unwrap_or_default();
        if q.since == Some(head) && !q.full_state {
            return Ok(page);
        }
        let changes = my_changes(tx, q).await?;

        // Which rooms are shown, and how.
        let (mut going_on, mut initial, mut left, mut stripped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for m in mine {
            let change = changes.get(&m.room.room_sn);
            let was = change.map_or(Some(m.membership.as_str()), |c| c.prev.as_deref());
            match m.membership.as_str() {
                "join" if q.since.is_some() && was == Some("join") => going_on.push(m),
                "join" => initial.push(m),
                "leave" | "ban" if q.since.is_none() && q.include_leave && !m.forgotten => left.push((m, 0)),
                // Forgotten or not: the user's other devices have to hear that they left.
                "leave" | "ban" if q.since.is_some() => {
                    if let Some(c) = change {
                        // Somebody who joined and left meanwhile sees the room from its beginning, as a joiner does.
                        let from = if c.joined() && was != Some("join") { 0 } else { since };
                        left.push((m, from));
                    }
                }
                "invite" | "knock" if m.pos > since => stripped.push(m),
                _ => {}
            }
        }

        let new: Vec<i64> = initial.iter().map(|m| m.room.room_sn).collect();
        older_account_data(tx, q, new, &mut account_data).await?;

        let from = if q.full_state { 0 } else { since };
        self.joined(tx, &mut page, going_on, (since, from), &changes, &mut account_data).await?;
        self.joined(tx, &mut page, initial, (0, 0), &changes, &mut account_data).await?;
        for (m, from) in left {
            self.left(tx, &mut page, m, from, &mut account_data).await?;
        }
        read_stripped(tx, &mut page, stripped).await?;
        if !page.joined.is_empty() {
            let shown = page.joined.iter().map(|r| r.room.room_sn).collect();
            let mut unread = unread::unread(tx, &q.user_id, &page.ignored, shown).await?;
            for room in &mut page.joined {
                room.unread = unread.remove(&room.room.room_sn).unwrap_or_default();
            }
        }
        Ok(page)
    }
}

impl ReadSync {
    /// Rooms that the user is in: the timeline since `low`; of the state, what changed since `state_from`, or all of it
    /// where that is 0.
    async fn joined<R: Reads>(
        &self,
        tx: &mut R,
        page: &mut SyncPage,
        rooms: Vec<Mine>,
        (low, state_from): (i64, i64),
        changes: &HashMap<i64, Change>,
        account_data: &mut AccountData,
    ) -> Result<()> {
        if rooms.is_empty() {
            return Ok(());
        }
        let (q, head) = (&self.0, page.head);
        let all: Vec<i64> = rooms.iter().map(|m| m.room.room_sn).collect();
        let with_news: Vec<(i64, &RoomId)> = rooms
            .iter()
            .filter(|m| m.room.last_pos > low)
            .map(|m| Ok((m.room.room_sn, m.id()?)))
            .collect::<Result<_>>()?;
        let moved: Vec<i64> = with_news.iter().map(|(sn, _)| *sn).collect();
        let whole_state = state_from == 0;
        let state_rooms = if whole_state { &all } else { &moved };

        // A joiner may not see all of what was before; nor somebody who was away for a while all of what was said then.
        let mut partly_seen = moved.clone();
        partly_seen.retain(|sn| low == 0 || changes.contains_key(sn));
        let mut logs = visibility_logs(tx, &partly_seen, &q.user_id).await?;
        let sieve = Sieve::new(q.filter.clone(), Arc::clone(&page.ignored));
        let mut timelines = read_timelines(tx, &with_news, &logs, q.window((low, head), &sieve)).await?;
        if low == 0 && q.since.is_some() {
            // Who joined anew knows nothing of what was before, wanted or not.
            timelines.values_mut().for_each(|t| t.limited |= t.unwanted_before);
        }
        let showing = Showing {
            rooms: state_rooms,
            low: state_from,
            high: head,
            whole: whole_state,
            after: q.state_after,
            timelines: &timelines,
        };
        let deltas = read_deltas(tx, showing).await?;
        // Whose members or name changed has to be called otherwise, perhaps.
        let touched = |m: &&Mine| whole_state || deltas.touch(m.room.room_sn, &NAMING_TYPES, head);
        let summarised: Vec<(i64, i64)> =
            rooms.iter().filter(touched).map(|m| (m.room.room_sn, m.room.joined + m.room.invited)).collect();
        let mut heroes = read_heroes(tx, &summarised, &q.user_id).await?;
        let members = match &q.lazy {
            None => None,
            Some(lazy) => {
                let mut members = wanted_members(tx, lazy, &timelines, &heroes, whole_state).await?;
                for m in rooms.iter().filter(|_| whole_state) {
                    members.entry(m.room.room_sn).or_default().insert(q.user_id.clone(), m.event_sn);
                }
                Some(members)
            }
        };
        let mut states = read_states(tx, showing, &deltas, members.as_ref()).await?;
        let mut receipts = HashMap::<i64, Vec<Receipt>>::new();
        for mut row in tx.query(RECEIPTS, args![all, low, head, &q.user_id]).await? {
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
        let in_states = states.values().flat_map(|s| &s.events);
        let shown: Vec<&StoredEvent> = timelines.values().flat_map(|t| &t.events).chain(in_states).collect();
        let mut because = HashMap::<i64, Vec<StoredEvent>>::new();
        for redaction in redactions_of(tx, shown).await? {
            because.entry(redaction.room_sn).or_default().push(redaction);
        }
        for m in rooms {
            let sn = m.room.room_sn;
            let timeline = timelines.remove(&sn).unwrap_or_default();
            let state = states.remove(&sn).unwrap_or_default();
            let receipts = receipts.remove(&sn).unwrap_or_default();
            let account_data = account_data.remove(&sn).unwrap_or_default();
            let shown = !(timeline.events.is_empty()
                && !timeline.limited
                && state.events.is_empty()
                && receipts.is_empty()
                && account_data.is_empty());
            if low == 0 || q.full_state || shown {
                // Who is in the room since before the token was a member all along, but for the changes.
                let membership = match logs.remove(&sn) {
                    Some(log) => log.membership,
                    None => {
                        let since = changes.get(&sn).map(|c| c.log.clone()).unwrap_or_default();
                        std::iter::once((0, "join".to_owned())).chain(since).collect()
                    }
                };
                let told = members.as_ref().and_then(|members| members.get(&sn));
                let changed = deltas.members(sn, head).filter(|_| !whole_state && q.lazy.is_some());
                let summary = summarised.iter().any(|(room, _)| *room == sn).then(|| {
                    let heroes = heroes.remove(&sn).unwrap_or_default();
                    Summary { heroes: heroes.into_iter().map(|(user, _)| user).collect() }
                });
                page.joined.push(RoomSync {
                    told: told.into_iter().flat_map(HashMap::keys).cloned().chain(changed.map(str::to_owned)).collect(),
                    summary,
                    membership,
                    initial: low == 0,
                    limited: timeline.limited,
                    start: start_of(&timeline, head),
                    timeline: timeline.events,
                    state: state.events,
                    replaced: state.replaced,
                    because: because.remove(&sn).unwrap_or_default(),
                    receipts,
                    account_data,
                    unread: Unread::default(),
                    room: m.room,
                });
            }
        }
        Ok(())
    }

    /// A room that the user left: up to the leave.
    async fn left<R: Reads>(
        &self,
        tx: &mut R,
        page: &mut SyncPage,
        m: Mine,
        from: i64,
        account_data: &mut AccountData,
    ) -> Result<()> {
        let sn = m.room.room_sn;
        let mut logs = visibility_logs(tx, &[sn], &self.0.user_id).await?;
        let sieve = Sieve::new(self.0.filter.clone(), Arc::clone(&page.ignored));
        let window = self.0.window((from, m.pos), &sieve);
        let mut timelines = read_timelines(tx, &[(sn, m.id()?)], &logs, window).await?;
        // Somebody who was never in the room (an invite that was refused) sees the leave and nothing else. Who left and
        // was then banned sees the ban, but not what the room became in between.
        let left_at = logs.get(&sn).and_then(VisibilityLog::left_at);
        let was_in = left_at.is_some();
        if let Some(timeline) = timelines.get_mut(&sn) {
            match left_at {
                // Also where anybody may read on: that is not what they left.
                Some(until) => timeline.events.retain(|e| {
                    e.pos.is_some_and(|pos| pos <= until) || logs.get(&sn).is_some_and(|l| l.is_own(e, &self.0.user_id))
                }),
                None => {
                    timeline.events.retain(|e| e.sn == m.event_sn);
                    timeline.limited = timeline.events.is_empty();
                }
            }
        }
        let mut states = HashMap::new();
        if was_in {
            let showing = Showing {
                rooms: &[sn],
                low: from,
                high: left_at.unwrap_or(m.pos),
                whole: from == 0,
                after: self.0.state_after,
                timelines: &timelines,
            };
            let deltas = read_deltas(tx, showing).await?;
            let members = match &self.0.lazy {
                None => None,
                Some(lazy) => {
                    let mut members = wanted_members(tx, lazy, &timelines, &HashMap::new(), true).await?;
                    members.entry(sn).or_default().insert(self.0.user_id.clone(), m.event_sn);
                    Some(members)
                }
            };
            states = read_states(tx, showing, &deltas, members.as_ref()).await?;
        }
        let timeline = timelines.remove(&sn).unwrap_or_default();
        let state = states.remove(&sn).unwrap_or_default();
        let because = redactions_of(tx, timeline.events.iter().chain(&state.events)).await?;
        let membership = logs.remove(&sn).unwrap_or_default().membership;
        page.left.push(RoomSync {
            told: Vec::new(),
            summary: None,
            membership,
            initial: from == 0,
            limited: timeline.limited,
            start: start_of(&timeline, m.pos),
            timeline: timeline.events,
            state: state.events,
            replaced: state.replaced,
            because,
            receipts: Vec::new(),
            account_data: account_data.remove(&sn).unwrap_or_default(),
            unread: Unread::default(),
            room: m.room,
        });
        Ok(())
    }
}

/// The boundary before a timeline: that of its first event, else behind what came before it.
fn start_of(timeline: &TimelinePart, end: i64) -> (i64, i64) {
    timeline.start.unwrap_or((timeline.low.unwrap_or(end).saturating_add(1), i64::MIN))
}
