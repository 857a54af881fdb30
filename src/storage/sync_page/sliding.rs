//! What an answer of sliding sync shows: of each room as much as is asked for, and what is of no room. All is shown as it was
//! at one position, which may lie behind the newest: that of the list by which the rooms were chosen.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_core::{filter::Ignored, sliding::Required};
use ruma::api::client::filter::RoomEventFilter;

use super::{
    Lazy, RoomSync, StrippedRoom, SyncPage, SyncQuery, Told,
    mine::{Change, Mine, my_changes, my_rooms_among},
    shown::{Reading, Shown},
    stripped::read_stripped,
};
use crate::{
    Result,
    keys::{self, DeviceLists, KeyCounts},
    rooms::StoredEvent,
    subscriptions::{self, SubscriptionPage},
    timeline::events_by_sn,
    to_device::{self, Waiting},
    tx::{Query, Reads, args, statements},
    unread,
};

statements! {
    HEAD = "SELECT pos FROM stream_head WHERE id = 1";
    GLOBAL_DATA = "SELECT type, content FROM account_data WHERE user_id = $1 AND room_sn = 0 AND pos > $2 AND pos <= $3
        ORDER BY pos";
    ROOM_DATA = "SELECT room_sn, type, content FROM account_data
        WHERE user_id = $1 AND room_sn = $2 AND pos > $3 AND pos <= $4 ORDER BY pos";
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct SlidingQuery {
    pub user_id: String,
    pub device_id: String,
    /// Of what is of no room, what changed after this position; `None` for the first answer of a connection.
    pub since: Option<i64>,
    /// All is shown as it was here.
    pub high: i64,
    pub rooms: Vec<AskedRoom>,
    /// The members that the client has been told of.
    pub told: Arc<Told>,
    pub ignored: Arc<Ignored>,
    pub account_data: bool,
    /// Keys that are left, and whose devices changed.
    pub keys: bool,
    /// The first so many messages to the device after those up to a position.
    pub to_device: Option<(i64, u32)>,
    /// The newest so many changes of threads that the user follows.
    pub subscriptions: Option<u32>,
}

/// How much of a room is asked for.
#[derive(Clone, Debug)]
pub struct AskedRoom {
    pub room_sn: i64,
    /// What happened after this position; 0 if nothing of the room was told.
    pub low: i64,
    /// The newest so many events,
    pub limit: i64,
    /// whether they were told or not.
    pub again: bool,
    /// Of the state this,
    pub required: Arc<Required>,
    /// whether it was told or not.
    pub whole_state: bool,
    pub receipts_from: Option<i64>,
    pub data_from: Option<i64>,
    /// And what is unread there.
    pub unread: bool,
}

/// What an answer shows.
#[derive(Clone, Debug, Default)]
pub struct SlidingPage {
    /// When it was read: what is unread is as of now.
    pub head: i64,
    pub rooms: Vec<SlidingRoom>,
    pub invited: Vec<StrippedRoom>,
    pub knocked: Vec<StrippedRoom>,
    /// Where the user's membership has changed since `high`: they are told of these rooms then.
    pub later: Vec<i64>,
    /// Type and content; `None` where it was deleted.
    pub account_data: Vec<(String, Option<String>)>,
    /// What the device has left, and where that last changed.
    pub keys: Option<(KeyCounts, i64)>,
    pub device_lists: DeviceLists,
    pub to_device: Vec<Waiting>,
    pub subscriptions: SubscriptionPage,
}

/// A room that the user is in, or was.
#[derive(Clone, Debug)]
pub struct SlidingRoom {
    pub part: RoomSync,
    /// The client is shown all of it, and may forget what it knew.
    pub initial: bool,
    pub is_left: bool,
    /// The memberships of those after whom a client may call it.
    pub heroes: Vec<StoredEvent>,
}

pub(super) struct ReadSliding(pub(super) SlidingQuery);

impl Query for ReadSliding {
    const NAME: &'static str = "sliding_page";
    type Out = SlidingPage;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<SlidingPage> {
        let q = &self.0;
        let mut page = SlidingPage { head: tx.query_one(HEAD, args![]).await?.get(0)?, ..SlidingPage::default() };
        self.read_rooms(tx, &mut page).await?;
        if q.account_data {
            for mut row in tx.query(GLOBAL_DATA, args![&q.user_id, q.since.unwrap_or(0), q.high]).await? {
                let datum: (String, Option<String>) = (row.get(0)?, row.get(1)?);
                // Who begins need not hear of what was deleted before.
                if q.since.is_some() || datum.1.is_some() {
                    page.account_data.push(datum);
                }
            }
        }
        if q.keys {
            page.keys = Some(keys::one_time::counts(tx, &q.user_id, &q.device_id).await?);
            if let Some(since) = q.since {
                page.device_lists = keys::lists::changed(tx, &q.user_id, since).await?;
            }
        }
        if let Some((told, limit)) = q.to_device {
            page.to_device = to_device::waiting(tx, &q.user_id, &q.device_id, told, limit).await?;
        }
        if let Some(limit) = q.subscriptions {
            page.subscriptions = subscriptions::newest(tx, &q.user_id, (q.since.unwrap_or(0), q.high), limit).await?;
        }
        Ok(page)
    }
}

impl ReadSliding {
    async fn read_rooms<R: Reads>(&self, tx: &mut R, page: &mut SlidingPage) -> Result<()> {
        let q = &self.0;
        if q.rooms.is_empty() {
            return Ok(());
        }
        let asked: HashMap<i64, &AskedRoom> = q.rooms.iter().map(|room| (room.room_sn, room)).collect();
        let as_sync = self.as_sync();
        let mine = my_rooms_among(tx, &q.user_id, asked.keys().copied().collect()).await?;
        let changes = my_changes(tx, &as_sync).await?;
        let (mut shown, mut stripped, mut initial) = (Vec::new(), Vec::new(), HashSet::new());
        for mine in mine {
            let Some(asked) = asked.get(&mine.room.room_sn) else { continue };
            if mine.pos > q.high {
                page.later.push(asked.room_sn);
            } else if matches!(mine.membership.as_str(), "invite" | "knock") {
                stripped.push(mine);
            } else {
                let from = from(&mine, asked, changes.get(&asked.room_sn));
                if from == 0 {
                    initial.insert(asked.room_sn);
                }
                shown.extend(self.how_much(mine, asked, from));
            }
        }
        let reading = Reading { q: &as_sync, head: q.high, ignored: Arc::clone(&q.ignored), changes: &changes };
        let mut contents = reading.read(tx, &shown).await?;
        // Of a room that the user is in, the heroes; of one that they have left, they themselves.
        let own = shown.iter().filter(|room| room.is_left() && room.wants_member(&q.user_id));
        let members = contents.heroes().chain(own.map(|room| room.mine.event_sn)).collect();
        let mut heroes = HashMap::new();
        for event in events_by_sn(tx, members).await? {
            heroes.entry(event.room_sn).or_insert_with(Vec::new).push(event);
        }
        let mut data = self.account_data(tx, &shown, &asked).await?;
        let here = shown.iter().filter(|room| !room.is_left()).map(|room| room.mine.room.room_sn);
        let here = here.filter(|sn| asked.get(sn).is_some_and(|asked| asked.unread)).collect();
        let mut unread = unread::unread(tx, &q.user_id, &q.ignored, here).await?;
        for room in shown {
            let (sn, is_left) = (room.mine.room.room_sn, room.is_left());
            let mut part = reading.shown(room, &mut contents, data.remove(&sn).unwrap_or_default());
            part.unread = unread.remove(&sn).unwrap_or_default();
            let mut heroes = heroes.remove(&sn).unwrap_or_default();
            if is_left {
                show_that_it_was_left(&mut part, std::mem::take(&mut heroes));
            }
            page.rooms.push(SlidingRoom { part, initial: initial.contains(&sn), is_left, heroes });
        }
        let mut strangers = SyncPage::default();
        read_stripped(tx, &mut strangers, stripped).await?;
        (page.invited, page.knocked) = (strangers.invited, strangers.knocked);
        Ok(())
    }

    /// The same in terms of a sync.
    fn as_sync(&self) -> SyncQuery {
        let q = &self.0;
        let known = q.rooms.iter().map(|room| room.low).filter(|low| *low > 0);
        SyncQuery {
            user_id: q.user_id.clone(),
            device_id: q.device_id.clone(),
            to_device_told: 0,
            // Changes of memberships are read from here on.
            since: Some(known.min().unwrap_or(q.high)),
            timeline_limit: 0,
            filter: RoomEventFilter::default(),
            full_state: false,
            lazy: Some(Lazy { told: Arc::clone(&q.told), redundant: false }),
            state_after: true,
            include_leave: false,
            only_rooms: None,
            not_rooms: Vec::new(),
        }
    }

    /// How much is shown of a room that the user is in, or was; `None` for one that they have put away.
    fn how_much(&self, mine: Mine, asked: &AskedRoom, from: i64) -> Option<Shown> {
        let is_left = mine.membership != "join";
        // Who was told of it has to hear that it ended.
        if is_left && mine.forgotten && asked.low == 0 {
            return None;
        }
        Some(Shown {
            high: if is_left { mine.pos } else { self.0.high },
            low: if asked.again { 0 } else { from },
            state_from: if asked.whole_state { 0 } else { from },
            limit: asked.limit,
            receipts_from: asked.receipts_from.map(|low| if from == 0 { 0 } else { low }),
            required: Some(Arc::clone(&asked.required)),
            mine,
        })
    }

    async fn account_data<R: Reads>(
        &self,
        tx: &mut R,
        shown: &[Shown],
        asked: &HashMap<i64, &AskedRoom>,
    ) -> Result<HashMap<i64, Vec<(String, Option<String>)>>> {
        let q = &self.0;
        let lows = shown.iter().filter_map(|room| {
            let sn = room.mine.room.room_sn;
            Some((sn, asked.get(&sn)?.data_from?))
        });
        let lows: HashMap<i64, i64> = lows.collect();
        let each: Vec<_> = lows.iter().map(|(sn, low)| args![&q.user_id, *sn, *low, q.high].to_vec()).collect();
        let mut data = HashMap::<i64, Vec<_>>::new();
        for mut row in tx.query_each(ROOM_DATA, &each).await?.into_iter().flatten() {
            let (sn, datum): (i64, (String, Option<String>)) = (row.get(0)?, (row.get(1)?, row.get(2)?));
            if datum.1.is_some() || lows.get(&sn).is_some_and(|low| *low > 0) {
                data.entry(sn).or_default().push(datum);
            }
        }
        Ok(data)
    }
}

/// Clients go by the membership in the state that is shown. Who was never in the room, and whose invite was taken back, is
/// shown no other state; who was banned after they left, what it was before.
fn show_that_it_was_left(part: &mut RoomSync, own: Vec<StoredEvent>) {
    for own in own {
        if !part.state.iter().any(|event| event.sn == own.sn) {
            part.state.push(own);
        }
    }
}

/// From where on a room that the user is in, or was, goes on for them; 0 where it begins anew.
fn from(mine: &Mine, asked: &AskedRoom, change: Option<&Change>) -> i64 {
    let was = change.map_or(Some(mine.membership.as_str()), |c| c.at(asked.low));
    let was_in = asked.low > 0 && was == Some("join");
    match mine.membership == "join" {
        // Somebody who joined and left meanwhile sees the room from its beginning, as a joiner does.
        false if !was_in && change.is_some_and(|c| c.joined_after(asked.low)) => 0,
        true if !was_in => 0,
        _ => asked.low,
    }
}
