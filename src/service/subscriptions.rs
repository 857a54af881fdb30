//! Threads that users follow, as their clients keep it for them.
//!
//! Push rules don't ask for it: what is told of threads is told to all, whether they follow them or not.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>

use std::{collections::BTreeMap, sync::Arc};

use hearth_core::{
    Error, Kind, Result,
    token::{SyncToken, Token},
};
use hearth_storage::{Cause, Followed, Follows, Storage, Subscribed, SubscriptionPage};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomId, UInt,
    api::client::threads::get_thread_subscriptions_changes::unstable::{ThreadSubscription, ThreadUnsubscription},
};

use super::{shape::Reader, timeline::Timelines};

/// Changes on one page.
const MOST: u32 = 500;

/// Threads that users follow.
pub struct Subscriptions {
    storage: Arc<dyn Storage>,
    timelines: Arc<Timelines>,
}

/// Which changes are asked for, the newest first.
pub struct ChangesWish {
    /// Those up to here,
    pub from: Option<Token>,
    /// and after here.
    pub to: Option<Token>,
    pub limit: u64,
}

/// Threads by room that somebody follows, or doesn't any more.
#[derive(Default)]
pub struct Changes {
    pub subscribed: BTreeMap<OwnedRoomId, BTreeMap<OwnedEventId, ThreadSubscription>>,
    pub unsubscribed: BTreeMap<OwnedRoomId, BTreeMap<OwnedEventId, ThreadUnsubscription>>,
    /// Where what is left begins.
    pub rest: Option<String>,
}

impl Changes {
    pub fn of(page: SubscriptionPage) -> Result<Self> {
        let mut all = Self::default();
        for change in page.changes {
            let room: OwnedRoomId = change.room_id.try_into().map_err(Error::internal)?;
            let root: OwnedEventId = change.root.try_into().map_err(Error::internal)?;
            let stamp = UInt::try_from(change.pos).map_err(Error::internal)?;
            if change.follows == Follows::No {
                all.unsubscribed.entry(room).or_default().insert(root, ThreadUnsubscription::new(stamp));
            } else {
                let by_client = change.follows == Follows::ByClient;
                all.subscribed.entry(room).or_default().insert(root, ThreadSubscription::new(by_client, stamp));
            }
        }
        let token = |pos| SyncToken { pos, serial: 0, epoch: 0, typing: false, to_device: None };
        all.rest = page.rest.map(|pos| token(pos).to_string());
        Ok(all)
    }
}

impl Subscriptions {
    pub fn new(storage: Arc<dyn Storage>, timelines: Arc<Timelines>) -> Self {
        Self { storage, timelines }
    }

    /// A thread of a room that the reader is in, whose root they may see.
    async fn thread(&self, reader: Reader<'_>, room_id: &RoomId, root: &EventId) -> Result<Followed> {
        let root = self.timelines.stored(reader, room_id, root).await?;
        Ok(Followed { user_id: reader.user.to_string(), room_sn: root.room_sn, root: root.event_id })
    }

    /// Whether the reader follows a thread by what a client found; an error if they don't follow it.
    pub async fn is_by_client(&self, reader: Reader<'_>, room_id: &RoomId, root: &EventId) -> Result<bool> {
        let thread = self.thread(reader, room_id, root).await?;
        match self.storage.follows(thread).await? {
            Follows::No => Err(Error::not_found("You are not subscribed to this thread")),
            follows => Ok(follows == Follows::ByClient),
        }
    }

    /// The reader follows a thread; if there is a `cause`, because of this event of the thread.
    pub async fn subscribe(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        root: &EventId,
        cause: Option<&EventId>,
    ) -> Result<()> {
        let not_in_thread = || Error::new(Kind::NotInThread, "This is no event of the thread");
        let thread = self.thread(reader, room_id, root).await?;
        let cause = match cause {
            None => None,
            Some(cause) => {
                let cause = self.timelines.stored(reader, room_id, cause).await;
                let cause = cause.map_err(|e| if matches!(e, Error::Matrix { .. }) { not_in_thread() } else { e })?;
                Some(Cause { sn: cause.sn, pos: cause.pos.unwrap_or(cause.topo) })
            }
        };
        match self.storage.subscribe(thread, cause).await? {
            Subscribed::Done => Ok(()),
            Subscribed::NotInThread => Err(not_in_thread()),
            Subscribed::Stopped => {
                Err(Error::new(Kind::ConflictingUnsubscription, "The thread was unsubscribed from after this event"))
            }
            Subscribed::Full => Err(Error::too_large("You are subscribed to too many threads")),
        }
    }

    /// The reader doesn't follow a thread any more.
    pub async fn unsubscribe(&self, reader: Reader<'_>, room_id: &RoomId, root: &EventId) -> Result<()> {
        let thread = self.thread(reader, room_id, root).await?;
        Ok(self.storage.unsubscribe(thread).await?)
    }

    /// What changed of the threads that the reader follows.
    pub async fn changes(&self, reader: Reader<'_>, wish: ChangesWish) -> Result<Changes> {
        let pos = |token: Token| match token {
            Token::Sync(token) => Ok(token.pos),
            Token::Position(token) => Ok(token.pos),
            Token::Timeline(_) => Err(Error::invalid_param("This is a place in a room, not one in all changes")),
        };
        let high = wish.from.map_or(Ok(i64::MAX), pos)?;
        let low = wish.to.map_or(Ok(0), pos)?;
        if wish.limit == 0 {
            return Err(Error::invalid_param("`limit` is at least 1"));
        }
        let limit = u32::try_from(wish.limit).unwrap_or(MOST).min(MOST);
        Changes::of(self.storage.subscriptions(reader.user.as_str(), low, high, limit).await?)
    }
}
