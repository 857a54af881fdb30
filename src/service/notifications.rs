//! What somebody was told of, or would have been: found by reading their rooms back from now and asking their push rules,
//! so that an event costs nothing for those whom it tells.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3notifications>

use std::sync::Arc;

use hearth_core::{Error, Result, clock::Clock};
use hearth_storage::{
    RoomRow, Storage,
    pushers::{PastOf, Tellable},
};
use ruma::{
    api::client::push::get_notifications::v3::Notification, events::AnySyncTimelineEvent, push::Action, serde::Raw,
};

use super::{
    push_rules::PushRules,
    pushers::{Judged, Owner, judge},
    rooms::Rooms,
    shape::{Beside, Reader, Room, Shapes},
};

const PAGE: usize = 20;
const MOST: usize = 100;
/// How often one request reads a piece of the past. One that found little goes on where it ended.
const PIECES: usize = 20;
/// What is older is forgotten.
const KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Finds notifications.
pub struct Notifications {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub rooms: Arc<Rooms>,
    pub push_rules: Arc<PushRules>,
    pub shapes: Arc<Shapes>,
}

/// What of them is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// Where the page before ended.
    pub from: Option<&'a str>,
    pub limit: Option<u64>,
    pub highlights_only: bool,
}

/// Some of them, the newest first.
pub struct Found {
    pub notifications: Vec<Notification>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

impl Notifications {
    pub async fn page(&self, reader: Reader<'_>, wish: Wish<'_>) -> Result<Found> {
        let mut before = match wish.from {
            Some(token) => token.parse().map_err(|_| Error::invalid_param("`from` is no token of this endpoint"))?,
            None => i64::MAX,
        };
        let limit = wish.limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(MOST).clamp(1, MOST));
        let rules = self.push_rules.compiled(reader.user).await?;
        let owner = Owner { user: reader.user, rules: &rules };
        let oldest = self.clock.now_ms() - KEPT_MS;
        let mut notifications = Vec::new();
        for _ in 0..PIECES {
            let past = self.storage.past_of(reader.user.as_str(), before).await?;
            let mut all_old = !past.events.is_empty();
            for told in &past.events {
                let Some(row) = past.rooms.get(&told.event.room_sn) else { continue };
                let Some(judged) = judge(&self.rooms, &owner, row, &told.event, &past.state).await? else {
                    all_old = false;
                    continue;
                };
                if i64::from(judged.pdu.origin_server_ts.0) < oldest {
                    continue;
                }
                all_old = false;
                if wish.highlights_only && !judged.actions.iter().any(Action::is_highlight) {
                    continue;
                }
                if notifications.len() == limit {
                    // The page begins with this one.
                    return Ok(Found { notifications, next: Some((told.event.topo + 1).to_string()) });
                }
                notifications.push(self.shown(reader, row, &past, told, judged)?);
            }
            match past.next.filter(|_| !all_old) {
                Some(next) => before = next,
                None => return Ok(Found { notifications, next: None }),
            }
        }
        Ok(Found { notifications, next: Some(before.to_string()) })
    }

    fn shown(
        &self,
        reader: Reader<'_>,
        row: &RoomRow,
        past: &PastOf,
        told: &Tellable,
        judged: Judged,
    ) -> Result<Notification> {
        let room = Room::new(row)?;
        let memberships = past.logs.get(&row.room_sn).map(|log| &log.membership[..]).unwrap_or_default();
        let beside = Beside { memberships, in_sync: true, ..Beside::default() };
        let event: Raw<AnySyncTimelineEvent> = self.shapes.event(&room, &told.event, reader, beside)?;
        let Judged { pdu, actions } = judged;
        Ok(Notification::new(actions, event, told.read, room.id, pdu.origin_server_ts))
    }
}
