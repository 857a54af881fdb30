//! What is unread, counted one event after the other by the push rules that everybody has at first.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::collections::BTreeSet;

use ruma::OwnedUserId;

use super::watch::Eyes;

impl Eyes<'_> {
    /// Messages of others since the reader came in and read last. An edit, a redaction, and what was redacted rings no bell;
    /// nor does anybody who is ignored. All messages of these histories stand in the main timeline, so a receipt for a
    /// thread reads none of them.
    pub fn unread(&self, ignored: &BTreeSet<OwnedUserId>) -> u64 {
        let joins = self.memberships.windows(2).rposition(|pair| pair[0] != "join" && pair[1] == "join");
        let read = self.room.receipts.iter().filter(|((of, _, thread), _)| of == self.user && thread.is_empty());
        let read = read.filter_map(|(_, (_, event))| self.room.find(event.as_str()).map(|(at, _)| at)).max();
        let from = joins.map(|at| at + 1).max(read).map_or(0, |at| at + 1);
        let rings = self.room.events.iter().skip(from).filter(|event| {
            event.kind == "m.room.message"
                && event.content["m.relates_to"]["rel_type"] != "m.replace"
                && event.redacted_by.is_none()
                && event.sender != *self.user
                && !ignored.contains(&event.sender)
        });
        rings.count() as u64
    }
}
