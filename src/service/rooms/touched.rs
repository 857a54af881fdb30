//! The members of a room who changed their push rules: read once, and kept up with the state of the room and with the rules
//! as they change. What is worked out by old rules is refused when it is to be stored, and worked out anew.

use std::{collections::BTreeSet, sync::Arc};

use hearth_core::{Error, Result, state::trie::NodeHash, visibility::membership_in};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};

use super::{Rooms, state::node_hash, write::Head};
use crate::service::push::Touched;

/// Bytes of rules kept in memory.
pub(super) const BYTES: u64 = 64 << 20;
/// Members whose rules are read at once.
const PAGE: usize = 500;

/// Those in a state of a room.
pub(super) struct RoomTouched {
    root: NodeHash,
    /// By the rules of this position.
    pub(super) as_of: i64,
    pub(super) members: Touched,
}

/// What became of the members between two states.
#[derive(Default)]
struct Moved {
    joined: BTreeSet<OwnedUserId>,
    gone: BTreeSet<OwnedUserId>,
}

impl RoomTouched {
    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.members.bytes() + 128).unwrap_or(u32::MAX)
    }
}

impl Rooms {
    /// Those of our members in the room as it is at this head.
    pub(super) async fn touched(&self, head: &Head) -> Result<Arc<RoomTouched>> {
        let top = self.push.heard().await?;
        if head.rev == 0 {
            // A new room, in which nobody is but who makes it.
            let members = Touched::default();
            return Ok(Arc::new(RoomTouched { root: head.root, as_of: i64::MAX, members }));
        }
        if let Some(known) = self.touched.get(&head.sn) {
            if known.root == head.root && known.as_of >= top {
                return Ok(known);
            }
            // What it was read from may have come to nothing, and be nowhere.
            if let Ok(Some(now)) = self.touched_since(head, &known, top).await {
                return Ok(now);
            }
        }
        let read = self.read_touched(head, top).await?;
        let now = self.touched_since(head, &read, top).await?;
        now.ok_or_else(|| Error::unavailable("Push rules are changing too quickly, try again"))
    }

    /// Carries on what was known; `None` if it is not told who changed their rules since.
    async fn touched_since(&self, head: &Head, known: &RoomTouched, top: i64) -> Result<Option<Arc<RoomTouched>>> {
        let Moved { joined, mut gone } = self.members_moved(head, known.root).await?;
        let mut ask = joined.clone();
        if known.as_of < top {
            let Some(changed) = self.push.changed_after(known.as_of) else { return Ok(None) };
            for user in changed {
                if self.state.get(head.sn, &head.made, head.root, "m.room.member", user.as_str()).await?.is_some() {
                    ask.insert(user);
                }
            }
        }
        let mut members = known.members.clone();
        if !(ask.is_empty() && gone.is_empty()) {
            let asked = ask.iter().map(ToString::to_string).collect();
            let mut found = match ask.is_empty() {
                true => Vec::new(),
                false => self.storage.push_rules_of(head.sn, asked).await?,
            };
            let is = |users: &BTreeSet<OwnedUserId>, user: &str| users.iter().any(|u| u == user);
            found.retain(|of| is(&joined, &of.user_id) || of.joined && !is(&gone, &of.user_id));
            gone.extend(ask);
            members = members.with(&head.id, &gone, found, &self.push)?;
        }
        let now = Arc::new(RoomTouched { root: head.root, as_of: known.as_of.max(top), members });
        self.touched.insert(head.sn, Arc::clone(&now));
        Ok(Some(now))
    }

    /// Of our users.
    async fn members_moved(&self, head: &Head, before: NodeHash) -> Result<Moved> {
        let mut moved = Moved::default();
        if before == head.root {
            return Ok(moved);
        }
        let since = self.state.diff(head.sn, &head.made, before, head.root).await?;
        let since: Vec<_> =
            since.into_iter().filter(|d| d.event_type == "m.room.member" && self.is_ours(&d.state_key)).collect();
        let sns: Vec<i64> = since.iter().filter_map(|d| d.after).collect();
        let events = self.state.events(head.in_room(), &head.made, &sns).await?;
        for d in since {
            let Ok(user) = <&UserId>::try_from(&*d.state_key) else { continue };
            let event = d.after.and_then(|sn| events.get(&sn));
            match event.is_some_and(|pdu| membership_in(&pdu.json) == MembershipState::Join) {
                true => moved.joined.insert(user.to_owned()),
                false => moved.gone.insert(user.to_owned()),
            };
        }
        Ok(moved)
    }

    /// As the database has them.
    async fn read_touched(&self, head: &Head, top: i64) -> Result<RoomTouched> {
        let (mut after, mut first) = (String::new(), None);
        let mut members = Touched::default();
        loop {
            let page = self.storage.push_rules_in(head.sn, &after, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
            let last = page.members.last().map(|last| last.user_id.clone());
            let is_last = page.members.len() < PAGE;
            members = members.with(&head.id, &BTreeSet::new(), page.members, &self.push)?;
            // What changes between two pages is carried on from the first.
            let (root, as_of) = *first.get_or_insert((node_hash(&page.root)?, page.as_of.max(top)));
            match last {
                Some(last) if !is_last => after = last,
                _ => return Ok(RoomTouched { root, as_of, members }),
            }
        }
    }
}
