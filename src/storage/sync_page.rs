//! All that one sync shows, read in one snapshot: a fixed number of statements, however many rooms the user is in or left.

pub(crate) mod members;
pub(crate) mod mine;
pub(crate) mod shown;
pub(crate) mod sliding;
pub(crate) mod states;
pub(crate) mod stripped;
pub(crate) mod summaries;
pub(crate) mod timelines;

use std::{collections::HashMap, sync::Arc};

use hearth_core::filter::Ignored;
use ruma::api::client::filter::RoomEventFilter;

use self::members::ReadSpeaker;
pub use self::{
    members::{Lazy, Speaker, Told},
    sliding::{AskedRoom, SlidingPage, SlidingQuery, SlidingRoom},
};
use self::{
    mine::{AccountData, Change, Mine, account_data, my_changes, my_rooms, older_account_data},
    shown::{Reading, Shown},
    stripped::read_stripped,
};
use crate::{
    Result, Sql,
    ephemeral::Receipt,
    keys::{self, DeviceLists, KeyCounts},
    relations::Bundles,
    rooms::{RoomRow, StoredEvent},
    to_device::{self, Waiting},
    tx::{Answer, Engine, Query, Reads, args, statements},
    unread::{self, Unread},
};

statements! {
    HEAD = "SELECT pos FROM stream_head WHERE id = 1";
}

/// What a sync asks for.
#[derive(Clone, Debug)]
pub struct SyncQuery {
    pub user_id: String,
    pub device_id: String,
    /// Of the messages to the device, those up to here have been told to it.
    pub to_device_told: i64,
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
    /// What the device has left to be given out, and where that last changed.
    pub keys: (KeyCounts, i64),
    pub device_lists: DeviceLists,
    /// The first of the messages that wait for the device, not all if there are many.
    pub to_device: Vec<Waiting>,
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
    /// Types and keys that went out of the state, if only some of it is wanted.
    pub gone: Vec<(String, String)>,
    /// The redactions of redacted events in timeline and state.
    pub because: Vec<StoredEvent>,
    /// What relates to the events of a timeline that lacks some: who gets all of them adds it up for themselves.
    pub bundles: Bundles,
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

impl RoomSync {
    fn says_something(&self) -> bool {
        let is_silent = self.timeline.is_empty()
            && !self.limited
            && self.state.is_empty()
            // A merge of forks can take somebody out without an event: the count of members tells.
            && self.summary.is_none()
            && self.receipts.is_empty()
            && self.account_data.is_empty();
        !is_silent
    }
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
    /// The same for an answer of sliding sync, in which each room is asked for by itself.
    fn sliding_page(&self, query: SlidingQuery) -> Answer<'_, SlidingPage>;
    /// Of a page no more than what the user has not read in these rooms.
    fn unread(&self, user_id: &str, ignored: Arc<Ignored>, rooms: Vec<i64>) -> Answer<'_, UnreadNow>;
    /// And no more than who sent this message. `None` if they never were a member of its room.
    fn speaker(&self, message_sn: i64) -> Answer<'_, Option<Speaker>>;
}

/// What somebody has not read.
#[derive(Clone, Debug)]
pub struct UnreadNow {
    /// When.
    pub head: i64,
    /// A room without any is left out.
    pub rooms: HashMap<i64, Unread>,
}

impl<E: Engine> SyncPages for Sql<E> {
    fn sync_page(&self, query: SyncQuery) -> Answer<'_, SyncPage> {
        self.0.read(ReadSync(query))
    }

    fn sliding_page(&self, query: SlidingQuery) -> Answer<'_, SlidingPage> {
        self.0.read(sliding::ReadSliding(query))
    }

    fn unread(&self, user_id: &str, ignored: Arc<Ignored>, rooms: Vec<i64>) -> Answer<'_, UnreadNow> {
        self.0.read(ReadUnread { user_id: user_id.to_owned(), ignored, rooms })
    }

    fn speaker(&self, message_sn: i64) -> Answer<'_, Option<Speaker>> {
        self.0.read(ReadSpeaker(message_sn))
    }
}

struct ReadUnread {
    user_id: String,
    ignored: Arc<Ignored>,
    rooms: Vec<i64>,
}

impl Query for ReadUnread {
    const NAME: &'static str = "unread";
    type Out = UnreadNow;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<UnreadNow> {
        let head = tx.query_one(HEAD, args![]).await?.get(0)?;
        let rooms = unread::unread(tx, &self.user_id, &self.ignored, self.rooms.clone()).await?;
        Ok(UnreadNow { head, rooms })
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
        page.keys = keys::one_time::counts(tx, &q.user_id, &q.device_id).await?;
        page.to_device =
            to_device::waiting(tx, &q.user_id, &q.device_id, q.to_device_told, to_device::MOST_AT_ONCE).await?;
        if q.since == Some(head) && !q.full_state {
            return Ok(page);
        }
        if let Some(since) = q.since {
            page.device_lists = keys::lists::changed(tx, &q.user_id, since).await?;
        }
        let changes = my_changes(tx, q).await?;

        let (shown, stripped) = self.choose(mine, head, &changes);
        let new = shown.iter().filter(|r| r.low == 0 && !r.is_left()).map(|r| r.mine.room.room_sn).collect();
        older_account_data(tx, q, new, &mut account_data).await?;
        self.read_shown(tx, &mut page, shown, &changes, account_data).await?;
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

/// A room with all its state, and no receipts.
fn all_of(mine: Mine, low: i64, high: i64, state_from: i64, q: &SyncQuery) -> Shown {
    Shown { mine, low, high, state_from, limit: q.timeline_limit, receipts_from: None, required: None }
}

impl ReadSync {
    /// Which rooms are shown, and how much of them; and of which no more than a stranger may know.
    fn choose(&self, mine: Vec<Mine>, head: i64, changes: &HashMap<i64, Change>) -> (Vec<Shown>, Vec<Mine>) {
        let q = &self.0;
        let since = q.since.unwrap_or(0);
        let (mut shown, mut stripped) = (Vec::new(), Vec::new());
        for mine in mine {
            let change = changes.get(&mine.room.room_sn);
            let was = change.map_or(Some(mine.membership.as_str()), |c| c.prev.as_deref());
            let was_in = q.since.is_some() && was == Some("join");
            match mine.membership.as_str() {
                "join" => {
                    let low = if was_in { since } else { 0 };
                    let state_from = if q.full_state { 0 } else { low };
                    shown.push(Shown { receipts_from: Some(low), ..all_of(mine, low, head, state_from, q) });
                }
                "leave" | "ban" => {
                    let is_wanted = match q.since {
                        None => q.include_leave && !mine.forgotten,
                        // Forgotten or not: the user's other devices have to hear that they left.
                        Some(_) => change.is_some(),
                    };
                    // Somebody who joined and left meanwhile sees the room from its beginning, as a joiner does.
                    let from = if change.is_some_and(Change::joined) && !was_in { 0 } else { since };
                    if is_wanted {
                        let high = mine.pos;
                        shown.push(all_of(mine, from, high, from, q));
                    }
                }
                "invite" | "knock" if mine.pos > since => stripped.push(mine),
                _ => {}
            }
        }
        (shown, stripped)
    }

    async fn read_shown<R: Reads>(
        &self,
        tx: &mut R,
        page: &mut SyncPage,
        rooms: Vec<Shown>,
        changes: &HashMap<i64, Change>,
        mut account_data: AccountData,
    ) -> Result<()> {
        let reading = Reading { q: &self.0, head: page.head, ignored: Arc::clone(&page.ignored), changes };
        let mut contents = reading.read(tx, &rooms).await?;
        for room in rooms {
            let account_data = account_data.remove(&room.mine.room.room_sn).unwrap_or_default();
            let is_left = room.is_left();
            let shown = reading.shown(room, &mut contents, account_data);
            if is_left {
                page.left.push(shown);
            } else if shown.initial || self.0.full_state || shown.says_something() {
                page.joined.push(shown);
            }
        }
        Ok(())
    }
}
