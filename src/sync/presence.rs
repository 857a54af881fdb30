//! Who of the others is there, for those who share a room with them.
//!
//! Most of it is told from memory: somebody who is there syncs, so it is known which rooms they are in.

use std::collections::BTreeSet;

use hearth_core::{Result, filter};
use hearth_storage::SyncPage;
use ruma::{
    OwnedUserId, UInt, UserId,
    events::presence::{PresenceEvent, PresenceEventContent},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::to_raw_value;

use super::{SyncWish, Syncs, following::Following};
use crate::service::{presence::MOST_MEMBERS, shape::Reader};

/// How many changes one sync looks at. Of more, the oldest are told when they change again.
const MOST_LOOKED_AT: usize = 2_000;
/// How many people a sync tells of.
const MOST_TOLD: usize = 500;

/// What is known without asking the database.
struct Sorted {
    shown: Vec<OwnedUserId>,
    unclear: Vec<OwnedUserId>,
}

impl Syncs {
    /// Who changed since the token, where memory can tell; `None` where it can't.
    pub(super) fn presence_from_memory(
        &self,
        reader: Reader<'_>,
        wish: &SyncWish,
        following: &Following,
    ) -> Result<Option<Vec<Raw<PresenceEvent>>>> {
        if !self.presence.is_enabled() || following.small.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let Some(since) = wish.since.filter(|t| t.epoch == self.epoch) else { return Ok(None) };
        let changed = self.presence.changed_after(Some(since.serial), MOST_LOOKED_AT);
        let Sorted { shown, unclear } = self.sort(reader, changed, following);
        match unclear.is_empty() {
            true => self.presence_events(wish, shown).map(Some),
            false => Ok(None),
        }
    }

    /// Who is there, or changed since the token, or became known by a new room.
    pub(super) async fn presence(
        &self,
        reader: Reader<'_>,
        wish: &SyncWish,
        page: &SyncPage,
        following: &Following,
    ) -> Result<Vec<Raw<PresenceEvent>>> {
        if !self.presence.is_enabled() || following.small.is_empty() {
            return Ok(Vec::new());
        }
        let since = wish.since.filter(|t| t.epoch == self.epoch).map(|t| t.serial);
        // In a room that one has just joined everybody is news.
        let moved = page.joined.iter().any(|room| room.initial);
        let mut changed = self.presence.changed_after(since.filter(|_| !moved), MOST_LOOKED_AT);
        if since.is_some() && !moved {
            changed.extend(self.newcomers(page, following)?);
        }
        let Sorted { mut shown, unclear } = self.sort(reader, changed, following);
        if !unclear.is_empty() {
            let among = unclear.iter().map(ToString::to_string).collect();
            let sharing = self.storage.who_shares_a_room(reader.user.as_str(), among, MOST_MEMBERS).await?;
            shown.extend(unclear.into_iter().filter(|user| sharing.iter().any(|s| s == user.as_str())));
        }
        self.presence_events(wish, shown)
    }

    /// Those of them whom the reader shares a room with, as far as that is known.
    fn sort(&self, reader: Reader<'_>, users: Vec<OwnedUserId>, following: &Following) -> Sorted {
        let mut sorted = Sorted { shown: Vec::new(), unclear: Vec::new() };
        for user in users {
            if user == reader.user || following.ignored.holds(user.as_str()) {
                continue;
            }
            let theirs = self.following.get(&user);
            let current = theirs.filter(|f| self.known.journal.is_silent_about(user.as_str(), f.as_of()));
            match current {
                Some(theirs) if theirs.small.iter().any(|sn| following.small.binary_search(sn).is_ok()) => {
                    sorted.shown.push(user);
                }
                Some(_) => {}
                None => sorted.unclear.push(user),
            }
            if sorted.shown.len() + sorted.unclear.len() == MOST_TOLD {
                break;
            }
        }
        sorted
    }

    /// Who came into a room of the reader's: their presence is news, however old.
    fn newcomers(&self, page: &SyncPage, following: &Following) -> Result<BTreeSet<OwnedUserId>> {
        #[derive(Deserialize)]
        struct Member {
            state_key: Option<OwnedUserId>,
        }
        let mut came = BTreeSet::new();
        for room in page.joined.iter().filter(|room| following.small.binary_search(&room.room.room_sn).is_ok()) {
            for event in room.timeline.iter().chain(&room.state) {
                if !event.json.contains("\"m.room.member\"") {
                    continue;
                }
                // Whether they are in now is asked of the rooms that they are in.
                let member = serde_json::from_str::<Member>(&event.json).ok().and_then(|member| member.state_key);
                came.extend(member.filter(|user| self.presence.knows(user)));
            }
        }
        Ok(came)
    }

    fn presence_events(&self, wish: &SyncWish, users: Vec<OwnedUserId>) -> Result<Vec<Raw<PresenceEvent>>> {
        let wanted = |user: &UserId| filter::matches_event(&wish.filter.presence, "m.presence", Some(user));
        let users = users.into_iter().filter(|user| wanted(user));
        let event = |user: OwnedUserId| {
            let told = self.presence.of(&user);
            let mut content = PresenceEventContent::new(told.presence);
            content.status_msg = told.status;
            content.currently_active = told.currently_active;
            content.last_active_ago = told.last_active_ago.and_then(|ms| UInt::try_from(ms).ok());
            let event = PresenceEvent { content, sender: user };
            Ok(Raw::from_json(to_raw_value(&event).map_err(hearth_core::Error::internal)?))
        };
        users.map(event).collect()
    }
}
