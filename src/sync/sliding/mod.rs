//! Sliding sync: a client says which rooms it looks at, and is told of those.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>, in the form that clients use.

mod answer;
mod connection;
mod extensions;
mod memory;
mod my_rooms;
mod room;
mod spaces;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_core::{Result, sliding::SlidingWish, token::Position};
use hearth_storage::Wake;
use ruma::{OwnedRoomId, api::client::sync::sync_events::v5::Response};

use self::{answer::Turn, extensions::has_its_messages};
pub(super) use self::{connection::Connections, my_rooms::MyRooms};
use super::{Following, Syncs};
use crate::service::shape::Reader;

/// An answer, and what ruma's type can't say of it.
pub struct Slid {
    pub response: Response,
    /// Rooms that are shown with events from before, because more of them is wanted now.
    pub expanded: BTreeSet<OwnedRoomId>,
    /// Of clients that know the proposal as it was accepted, what else there is to tell of each room.
    pub beside: BTreeMap<OwnedRoomId, Beside>,
}

/// What ruma's type of a room has no field for.
#[derive(Default)]
pub struct Beside {
    pub membership: Option<String>,
    /// The lists that it is in.
    pub lists: Vec<String>,
    pub has_lost_its_name: bool,
}

impl Syncs {
    /// Answers at once if there is something to tell, else when there is or the time is over.
    pub async fn slide(&self, reader: Reader<'_>, wish: SlidingWish) -> Result<Slid> {
        let base = match wish.pos {
            Some(position) => Some(self.connections.state(&*self.storage, reader, &wish.conn_id, position).await?),
            None => None,
        };
        let told = self.acknowledge_by(reader, &wish).await?;
        let deadline = tokio::time::Instant::now() + wish.timeout.min(self.timeouts.max);
        let mut known = self.following.get(reader.user).unwrap_or_else(|| Arc::new(Following::nothing()));
        let rooms = known.rooms.iter().map(|sn| Wake::Room(*sn));
        // Subscribed before the read: what is committed after the read wakes us.
        let mut waiter = self.notifier.subscribe(rooms.chain([Wake::User(reader.user.as_str().into())]));
        // Whoever may have messages waiting for them, of which memory knows nothing, has to look.
        let mut from_memory = has_its_messages(&wish, base.as_deref());
        loop {
            // The poll of a session that has ended is not to be told what happens now. The next request says whose it was.
            if let Some(position) = wish.pos
                && self.sessions.ended_since(reader.user, wish.session_as_of)
            {
                return Ok(nothing(position));
            }
            let over = tokio::time::Instant::now() >= deadline || self.shutdown.is_said();
            // Boxed, as what a read needs is much, and those who wait are many.
            let turn = Box::pin(self.turn(reader, &wish, base.as_deref(), told, from_memory)).await?;
            from_memory = true;
            let following = Arc::clone(&turn.following);
            let news = following.rooms.iter().filter(|sn| known.rooms.binary_search(sn).is_err());
            let news: Vec<Wake> = news.map(|sn| Wake::Room(*sn)).collect();
            let lacked = !news.is_empty();
            waiter.also(news);
            known = following;
            if over || base.is_none() || turn.says_something() {
                let Turn { slid, state, .. } = turn;
                self.connections.give(reader, &wish.conn_id, base.as_ref(), state, self.clock.now_ms());
                self.connections.save_if_it_wanders(&*self.storage, reader).await?;
                self.connections.save_those_parting(&*self.storage).await?;
                return Ok(slid);
            }
            drop(turn);
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

    /// Writes down what connections were told, for the next process.
    pub async fn save_connections(&self) -> Result<()> {
        self.connections.save(&*self.storage).await
    }
}

fn nothing(position: Position) -> Slid {
    Slid { response: Response::new(position.to_string()), expanded: BTreeSet::new(), beside: BTreeMap::new() }
}
