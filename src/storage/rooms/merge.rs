//! Messages of many senders, stored together: the statements of one, for all.
//!
//! On Postgres a statement is a round trip, and four for each message were most of what a message cost.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    Base, NewEvent, OTHER_RULES, Persisted, RoomCommit, pack,
    persist::{INSERT_EVENTS, Persist, event_row},
    unpack,
};
use crate::{
    Error, Result,
    relations::stored::Relating,
    tx::{Message, Tx, args, statements},
    unread::{self, Addition, Roots},
};

statements! {
    ROOMS_NOW = "SELECT room_sn, rev, tips, bump_pos,
        (SELECT MAX(a.pos) FROM account_data a WHERE a.room_sn = 0 AND a.type = 'm.push_rules')
        FROM rooms WHERE room_sn = ANY($1)";
    WHICH_STORED = "SELECT sn FROM events WHERE sn = ANY($1)";
    alter MOVE_ROOMS = "rooms" ("room_sn": Int, "tips": Blob, "last_pos": Int, "touched_pos": Int, "bump_pos": Int);
    bulk TAKE_TRANSACTIONS = "transactions" (
        "user_id": Text, "device_id": Text, "txn_id": Text, "scope": Text, "result": Text, "created_ms": Int
    ) "ON CONFLICT DO NOTHING";
}

/// A room between two messages.
struct Now {
    rev: i64,
    tips: Vec<i64>,
    last_pos: Option<i64>,
    bump_pos: i64,
    /// Where somebody changed their push rules last.
    rules: i64,
}

impl Persist {
    /// A message and nothing else, in a room that is there.
    pub(super) fn merges_with_others(&self) -> bool {
        let c = &self.0;
        self.message().is_some_and(|event| event.notice.is_plain() && !event.is_annotation())
            && matches!(c.base, Base::At { .. })
            && c.nodes.is_empty()
            && c.alias.is_none()
            && !c.publish
            && c.successor.is_none()
    }

    /// In the order of `ops`, each on top of those before it.
    pub(super) async fn run_together<T: Tx>(ops: &[&Self], tx: &mut T) -> Result<Vec<Result<Persisted>>> {
        let mut rooms = rooms_now(tx, ops).await?;
        let stored = stored_elsewhere(tx, ops, &rooms).await?;
        let named: BTreeSet<&str> = ops.iter().flat_map(|op| &op.0.events).filter_map(|e| e.notice.root()).collect();
        let roots = Roots::of(tx, named.into_iter().map(str::to_owned).collect()).await?;
        let relating = Relating::look(tx, ops.iter().flat_map(|op| &op.0.events)).await?;
        let mut made = HashSet::new();
        let (mut answers, mut events, mut transactions, mut messages) = (vec![], vec![], vec![], vec![]);
        let (mut additions, mut placed) = (vec![], vec![]);
        for op in ops {
            let c = &op.0;
            let (event, base) = op.parts()?;
            if event.own && event.relation.as_ref().is_some_and(|relation| relating.is_no_root(relation)) {
                // Unless it is a repetition.
                return Err(Error::Conflict("a thread has no root"));
            }
            let there = |sn: &i64, now: &Now| now.tips.contains(sn) || stored.contains(sn) || made.contains(sn);
            let now = match rooms.get_mut(&c.room_sn) {
                None => Err(Error::Conflict("the room is gone")),
                Some(now) if now.rev != base.0 => Err(Error::Conflict("the state of the room has moved on")),
                Some(now) if now.rules > c.rules_as_of => Err(Error::Conflict(OTHER_RULES)),
                Some(now) if !base.1.iter().all(|sn| there(sn, now)) => {
                    Err(Error::Conflict("an event to build on is not stored"))
                }
                Some(now) => Ok(now),
            };
            let now = match now {
                Ok(now) => now,
                Err(conflict) => {
                    answers.push(Err(conflict));
                    continue;
                }
            };
            let pos = tx.next_pos()?;
            now.move_to(c, event, pos);
            made.insert(event.sn);
            let thread = roots.thread(c.room_sn, &event.notice);
            events.push(event_row(event, c, pos, thread)?);
            placed.push((c.room_sn, pos, event));
            let sender = event.pdu.sender.as_str();
            additions.push(Addition { room_sn: c.room_sn, pos, sender, thread, notice: &event.notice });
            if let Some(t) = &c.transaction {
                let (device, txn) = (t.device_id.as_str(), t.txn_id.as_str());
                let taken = args![&t.user_id, device, txn, &t.scope, &t.result, c.now_ms];
                transactions.push(taken.to_vec());
            }
            messages.push(Message {
                pos,
                sn: event.sn,
                room_sn: c.room_sn,
                pdu: Arc::clone(&event.pdu),
                sent_by: event.sent_by.clone(),
                counted: event.notice.counted(thread.map(str::to_owned)).map(Arc::new),
            });
            answers.push(Ok(Persisted::Stored(vec![pos])));
        }
        // First what may show that one of them is a repetition, which only a look at each by itself can answer.
        let taken = tx.insert_rows(TAKE_TRANSACTIONS, &transactions).await?;
        if taken != transactions.len() as u64 {
            return Err(Error::Conflict("a transaction id has been used"));
        }
        tx.insert_rows(INSERT_EVENTS, &events).await?;
        relating.store(tx, &placed).await?;
        let moved = |(sn, now): (i64, Now)| {
            Some(args![sn, pack(&now.tips), now.last_pos?, now.last_pos?, now.bump_pos].to_vec())
        };
        let moved: Vec<_> = rooms.into_iter().filter_map(moved).collect();
        tx.insert_rows(MOVE_ROOMS, &moved).await?;
        unread::count_all(tx, &additions).await?;
        for message in messages {
            tx.message(message);
        }
        Ok(answers)
    }

    /// The message, and what it was decided on: the revision, the events before it.
    fn parts(&self) -> Result<(&NewEvent, (i64, &[i64]))> {
        match (self.message(), &self.0.base) {
            (Some(event), Base::At { rev, prevs }) => Ok((event, (*rev, prevs))),
            _ => Err(Error::Internal("what was to be merged is no message".into())),
        }
    }
}

impl Now {
    fn move_to(&mut self, c: &RoomCommit, event: &NewEvent, pos: i64) {
        self.tips = c.tips_after(std::mem::take(&mut self.tips));
        self.last_pos = Some(pos);
        if event.bumps() {
            self.bump_pos = pos;
        }
    }
}

async fn rooms_now<T: Tx>(tx: &mut T, ops: &[&Persist]) -> Result<BTreeMap<i64, Now>> {
    let mut sns: Vec<i64> = ops.iter().map(|op| op.0.room_sn).collect();
    sns.sort_unstable();
    sns.dedup();
    let mut rooms = BTreeMap::new();
    for mut row in tx.query(ROOMS_NOW, args![sns]).await? {
        let rules = row.get::<Option<i64>>(4)?.unwrap_or(0);
        let (rev, tips, bump_pos) = (row.get(1)?, unpack(&row.get::<Vec<u8>>(2)?), row.get(3)?);
        let now = Now { rev, tips, last_pos: None, bump_pos, rules };
        rooms.insert(row.get(0)?, now);
    }
    Ok(rooms)
}

/// Of the events that they build on, those that are stored although no room ends in them any more. That the others are
/// made here, or are where a room ends, is the rule; so mostly nothing is asked.
async fn stored_elsewhere<T: Tx>(tx: &mut T, ops: &[&Persist], rooms: &BTreeMap<i64, Now>) -> Result<HashSet<i64>> {
    let made: HashSet<i64> = ops.iter().flat_map(|op| op.0.events.iter().map(|e| e.sn)).collect();
    let mut wanted: Vec<i64> = Vec::new();
    for op in ops {
        let tips = rooms.get(&op.0.room_sn).map(|now| now.tips.as_slice()).unwrap_or_default();
        let (_, (_, prevs)) = op.parts()?;
        wanted.extend(prevs.iter().filter(|sn| !tips.contains(sn) && !made.contains(sn)));
    }
    if wanted.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = tx.query(WHICH_STORED, args![wanted]).await?;
    rows.into_iter().map(|mut row| row.get(0)).collect()
}
