//! The names of a room's members, for texts that call somebody without saying so: read once, and kept up with the state of
//! the room as it changes.

use std::{collections::HashMap, sync::Arc};

use hearth_core::{Result, event::Pdu, push::Names, state::trie::NodeHash, visibility::membership_in};
use ruma::{UserId, events::room::member::MembershipState};

use super::{Rooms, write::Head};

/// In a room of more members only who is mentioned is called. To read so many names takes too long for one message.
const MOST_MEMBERS: i64 = 2_000;
/// Bytes of names kept in memory.
pub(super) const BYTES: u64 = 32 << 20;

/// The names in a state of a room.
pub(super) struct RoomNames {
    root: NodeHash,
    names: Names,
}

impl RoomNames {
    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.names.bytes() + 256).unwrap_or(u32::MAX)
    }
}

impl Rooms {
    /// Our members' names in the room as it is at this head; `None` where there are too many.
    pub(super) async fn names(&self, head: &Head) -> Result<Option<Arc<RoomNames>>> {
        if head.joined > MOST_MEMBERS {
            return Ok(None);
        }
        let known = self.names.get(&head.sn);
        if let Some(known) = &known
            && known.root == head.root
        {
            return Ok(Some(Arc::clone(known)));
        }
        let mut names = Names::default();
        let mut changed: HashMap<String, Option<i64>> = HashMap::new();
        let since = match &known {
            // What they were read from may have come to nothing, and be nowhere.
            Some(known) => self.state.diff(head.sn, &head.made, known.root, head.root).await.ok(),
            None => None,
        };
        if let (Some(known), Some(since)) = (known, since) {
            names.clone_from(&known.names);
            let members = since.into_iter().filter(|d| d.event_type == "m.room.member");
            changed.extend(members.map(|d| (d.state_key.into(), d.after)));
        } else {
            let all = self.state.full(head.sn, &head.made, head.root).await?;
            let members = all.into_iter().filter(|entry| *entry.event_type == *"m.room.member");
            changed.extend(members.map(|entry| (entry.state_key.into(), Some(entry.sn))));
        }
        changed.retain(|user, _| self.is_ours(user));
        let sns: Vec<i64> = changed.values().copied().flatten().collect();
        let events = self.state.events(head.in_room(), &head.made, &sns).await?;
        for (user, sn) in changed {
            let Ok(user) = <&UserId>::try_from(user.as_str()) else { continue };
            match sn.and_then(|sn| events.get(&sn)).filter(|pdu| membership_in(&pdu.json) == MembershipState::Join) {
                Some(pdu) => names.set(user, display_name(pdu).as_deref()),
                None => names.remove(user),
            }
        }
        let names = Arc::new(RoomNames { root: head.root, names });
        self.names.insert(head.sn, Arc::clone(&names));
        Ok(Some(names))
    }
}

impl AsRef<Names> for RoomNames {
    fn as_ref(&self) -> &Names {
        &self.names
    }
}

fn display_name(pdu: &Pdu) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default)]
        displayname: serde_json::Value,
    }
    pdu.content_as::<Content>().ok()?.displayname.as_str().map(str::to_owned)
}
