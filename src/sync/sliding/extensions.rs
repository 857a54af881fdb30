//! What is told beside rooms, to those who ask for it.

use std::sync::Arc;

use hearth_core::{
    Error, Result,
    token::{Mark, SyncToken},
};
use hearth_storage::{SlidingPage, keys::KeyCounts, to_device::Waiting};
use ruma::{
    OwnedRoomId,
    api::client::sync::sync_events::{DeviceLists, v5::response},
};
use serde_json::json;

use super::{
    answer::{Draft, Look},
    connection::State,
    wish::SlidingWish,
};
use crate::{
    service::{self, shape::Reader, subscriptions::Changes, typing::Seen},
    sync::{
        Syncs,
        classic::{
            data::{account_datum, raw},
            to_device,
        },
        keys,
    },
};

/// The keys that a device has left.
pub(super) fn keys_left(counts: &KeyCounts) -> response::E2EE {
    let mut e2ee = response::E2EE::default();
    e2ee.device_one_time_keys_count = keys::shown(counts);
    e2ee.device_unused_fallback_key_types = Some(keys::unused(counts));
    e2ee
}

impl Syncs {
    /// Removes the messages that the device has, by the token that it brings of an answer that told them; that mark.
    pub(super) async fn acknowledge_by(&self, reader: Reader<'_>, wish: &SlidingWish) -> Result<Option<Mark>> {
        let since = wish.to_device.as_ref().and_then(|wish| wish.since);
        let Some(SyncToken { pos, to_device: Some(mark), .. }) = since else { return Ok(None) };
        if !mark.is_of(reader.user.as_str(), reader.device) {
            return Ok(None);
        }
        self.storage.acknowledge_to_device(reader.user.as_str(), reader.device, mark.pos, pos).await?;
        Ok(Some(mark))
    }

    /// What is of no room.
    pub(super) async fn tell_of_user(
        &self,
        reader: Reader<'_>,
        wish: &SlidingWish,
        base: Option<&State>,
        page: &mut SlidingPage,
        known_keys: Option<Arc<KeyCounts>>,
        draft: &mut Draft,
    ) -> Result<()> {
        if wish.account_data.is_some() {
            let global = &mut draft.extensions.account_data.global;
            // Rules that were never touched are stored nowhere, yet a client wants them from the beginning.
            if base.is_none() && !page.account_data.iter().any(|(kind, _)| kind == "m.push_rules") {
                global.push(self.push_rules.push_rules_event(reader.user).await?);
            }
            for (kind, content) in std::mem::take(&mut page.account_data) {
                global.push(account_datum(&kind, content)?);
            }
        }
        if wish.e2ee {
            if let Some((counts, moved)) = &page.keys {
                draft.extensions.e2ee = keys_left(counts);
                draft.keys_moved = base.is_some_and(|base| *moved > base.pos);
            } else if let Some(counts) = known_keys {
                draft.extensions.e2ee = keys_left(&counts);
            }
            let mut lists = DeviceLists::new();
            lists.changed = keys::users(std::mem::take(&mut page.device_lists.changed))?;
            lists.left = keys::users(std::mem::take(&mut page.device_lists.left))?;
            draft.extensions.e2ee.device_lists = lists;
        }
        let followed = Changes::of(std::mem::take(&mut page.subscriptions))?;
        let shown = &mut draft.extensions.thread_subscriptions;
        (shown.subscribed, shown.unsubscribed) = (followed.subscribed, followed.unsubscribed);
        shown.prev_batch = followed.rest;
        Ok(())
    }

    /// Messages to the device, and the token by which it says that it has them.
    pub(super) fn show_to_device(
        &self,
        reader: Reader<'_>,
        wish: &SlidingWish,
        head: i64,
        waiting: Vec<Waiting>,
        draft: &mut Draft,
    ) -> Result<()> {
        if wish.to_device.is_none() {
            return Ok(());
        }
        let mark = to_device::mark(reader, &waiting);
        let mut shown = response::ToDevice::default();
        let next = SyncToken { pos: head, serial: 0, epoch: 0, typing: false, to_device: mark };
        shown.next_batch = next.to_string();
        shown.events = service::to_device::events(waiting)?;
        draft.extensions.to_device = Some(shown);
        Ok(())
    }

    /// Who types in the rooms that are looked at; whether somebody does.
    pub(super) fn typing_of(
        &self,
        wish: &SlidingWish,
        base: Option<&State>,
        look: &Look,
        draft: &mut Draft,
    ) -> Result<bool> {
        if wish.typing.is_none() {
            return Ok(false);
        }
        let seen = match base {
            None => Seen::Nothing,
            Some(base) if base.epoch == self.epoch => Seen::Up { to: base.serial, somebody: base.typing },
            Some(base) => Seen::Elsewhere { somebody: base.typing },
        };
        let is_here = |sn: &i64| look.following.rooms.binary_search(sn).is_ok();
        let rooms = look.view.rooms.iter().filter(|(sn, view)| view.scopes.typing && is_here(sn));
        let mut rooms: Vec<i64> = rooms.map(|(sn, _)| *sn).collect();
        rooms.sort_unstable();
        // Of a room that comes into view nothing is known.
        let is_new = |sn: &&i64| base.is_none_or(|base| base.rooms.get(sn).is_none_or(|sent| !sent.is_live()));
        let fresh: Vec<i64> = rooms.iter().filter(is_new).copied().collect();
        let typers = self.typing.typers(&rooms, &fresh, seen);
        for (sn, users) in typers.rooms {
            let Some(id) = look.mine.rooms().entries.get(&sn).map(|entry| entry.room.room_id.clone()) else { continue };
            let id: OwnedRoomId = id.as_str().try_into().map_err(Error::internal)?;
            let event = raw(&json!({ "type": "m.typing", "content": { "user_ids": users } }))?;
            draft.extensions.typing.rooms.insert(id, event);
        }
        Ok(typers.somebody)
    }
}
