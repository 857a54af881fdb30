//! The one way in which events become part of a room: checked against what the room has become, then stored whole.

use std::sync::Arc;

use super::{Base, MOVES, NewEvent, OTHER_RULES, Persisted, RoomCommit, Status, pack, unpack};
use crate::{
    Error, Result, directory,
    outbox::{self, NewItem},
    relations::stored::{self, Relating},
    tx::{Message, Op, Tx, Value, Wake, args, statements},
    unread,
};

statements! {
    // The checks of a commit in one round trip: is the state still the one it was decided on, what does the room end in,
    // has this transaction id been used, are these still the rules?
    CHECK = "SELECT r.rev, r.tips,
        (SELECT t.result FROM transactions t
            WHERE t.user_id = $2 AND t.device_id = $3 AND t.txn_id = $4 AND t.scope = $5),
        (SELECT e.sn FROM events e WHERE e.event_id = $6),
        (SELECT MAX(a.pos) FROM account_data a WHERE a.room_sn = 0 AND a.type = 'm.push_rules')
        FROM rooms r WHERE r.room_sn = $1";
    HOW_MANY_STORED = "SELECT COUNT(*) FROM events WHERE sn = ANY($1)";
    ROOM_EXISTS = "SELECT room_sn FROM rooms WHERE room_id = $1";
    EVENT_EXISTS = "SELECT event_id FROM events WHERE event_id = ANY($1)";
    ALIAS_TAKEN = "SELECT alias FROM aliases WHERE alias = $1";
    INSERT_ALIAS = "INSERT INTO aliases (alias, room_sn, creator) VALUES ($1, $2, $3)";
    INSERT_ROOM = "INSERT INTO rooms (room_sn, room_id, version, rev, state_root, joined, invited, tips, last_pos, touched_pos)
        VALUES ($1, $2, $3, 0, $4, 0, 0, $5, 0, 0)";
    UPDATE_ROOM = "UPDATE rooms SET rev = rev + $2, state_root = $3, joined = joined + $4, invited = invited + $5, tips = $6,
        last_pos = CASE WHEN $7 > last_pos THEN $7 ELSE last_pos END, touched_pos = $8,
        bump_pos = CASE WHEN $9 > bump_pos THEN $9 ELSE bump_pos END
        WHERE room_sn = $1";
    INSERT_TRANSACTION = "INSERT INTO transactions (user_id, device_id, txn_id, scope, result, created_ms)
        VALUES ($1, $2, $3, $4, $5, $6)";
    DELETE_CURRENT = "DELETE FROM current_state WHERE room_sn = $1 AND type = $2 AND state_key = $3";
    REDACT = "UPDATE events SET json = $3, redacted_by = $4 WHERE room_sn = $1 AND event_id = $2 AND redacted_by IS NULL
        RETURNING pos, sender, thread, counted";

    bulk INSERT_EVENTS = "events" (
        "sn": Int, "event_id": Text, "room_sn": Int, "pos": Int, "topo": Int, "topo_minor": Int, "depth": Int, "type": Text,
        "state_key": Text, "sender": Text, "status": Int, "state_before": Blob, "state_after": Blob, "prev_sns": Blob,
        "auth_sns": Blob, "device_id": Text, "txn_id": Text, "redacted_by": Text, "thread": Text,
        "counted": Text, "json": Text
    ) "";
    bulk INSERT_NODES = "state_nodes" ("room_sn": Int, "hash": Blob, "body": Blob) "ON CONFLICT DO NOTHING";
    bulk UPSERT_CURRENT = "current_state" ("room_sn": Int, "type": Text, "state_key": Text, "event_sn": Int, "pos": Int)
        "ON CONFLICT (room_sn, type, state_key) DO UPDATE SET event_sn = excluded.event_sn, pos = excluded.pos";
    bulk INSERT_DELTAS = "current_state_delta" (
        "room_sn": Int, "pos": Int, "type": Text, "state_key": Text, "event_sn": Int, "prev_sn": Int
    ) "";
    bulk UPSERT_MEMBERSHIPS = "memberships" (
        "user_id": Text, "room_sn": Int, "membership": Text, "event_sn": Int, "pos": Int, "forgotten": Int
    ) "ON CONFLICT (user_id, room_sn) DO UPDATE SET
        membership = excluded.membership, event_sn = excluded.event_sn, pos = excluded.pos, forgotten = excluded.forgotten";
    bulk INSERT_MEMBERSHIP_CHANGES = "membership_changes" (
        "user_id": Text, "pos": Int, "room_sn": Int, "membership": Text, "prev": Text, "event_sn": Int
    ) "";
    bulk INSERT_REDACTIONS = "redactions" ("room_sn": Int, "target_id": Text, "redaction_sn": Int) "ON CONFLICT DO NOTHING";
}

pub(super) struct Persist(pub(super) RoomCommit);

impl Op for Persist {
    const NAME: &'static str = "persist";
    type Out = Persisted;

    fn positions(&self) -> u32 {
        u32::try_from(self.0.events.len()).unwrap_or(u32::MAX)
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Persisted> {
        let c = &self.0;
        let tips = match self.check(tx).await? {
            Checked::Good { tips } => tips,
            Checked::Answer(answer) => return Ok(answer),
        };
        // After the check: what is repeated has its answer, whatever has happened since.
        let relating = Relating::look(tx, c.events.iter()).await?;
        for event in &c.events {
            if let Some(refused) = relating.check(tx, c.room_sn, event).await? {
                return Ok(refused);
            }
        }
        let tips = c.tips_after(tips);

        let mut positions = Vec::with_capacity(c.events.len());
        let mut threads = Vec::with_capacity(c.events.len());
        let mut rows = Vec::with_capacity(c.events.len());
        for event in &c.events {
            let pos = tx.next_pos()?;
            let thread = unread::thread_of(tx, c.room_sn, &event.notice.place).await?;
            rows.push(event_row(event, c, pos, thread.as_deref())?);
            positions.push(pos);
            threads.push(thread);
        }
        let last_pos = positions.last().copied().unwrap_or_default();
        // What was refused is in nobody's timeline.
        let mut shown = c.events.iter().zip(&positions).filter(|(e, _)| e.status == Status::Accepted);
        let last_shown = shown.next_back().map_or(0, |(_, pos)| *pos);
        let last_bump = c.last_bump(&positions);

        if let Base::New { room_id, version } = &c.base {
            tx.execute(INSERT_ROOM, args![c.room_sn, room_id, version, c.state_root.clone(), Vec::<u8>::new()]).await?;
        }
        tx.insert_rows(INSERT_EVENTS, &rows).await?;
        let placed: Vec<_> = c.events.iter().zip(&positions).map(|(event, pos)| (c.room_sn, *pos, event)).collect();
        relating.store(tx, &placed).await?;
        if !c.nodes.is_empty() {
            let nodes: Vec<_> = c
                .nodes
                .iter()
                .map(|(hash, body)| vec![c.room_sn.into(), hash.clone().into(), body.clone().into()])
                .collect();
            tx.insert_rows(INSERT_NODES, &nodes).await?;
        }
        let (joined, invited) = self.state_changes(tx, &positions).await?;
        let rev_step = i64::from(!c.changes.is_empty());
        let (root, tips) = (c.state_root.clone(), pack(&tips));
        let update = args![c.room_sn, rev_step, root, joined, invited, tips, last_shown, last_pos, last_bump];
        tx.execute(UPDATE_ROOM, update).await?;

        if let Some(t) = &c.transaction {
            tx.execute(INSERT_TRANSACTION, args![&t.user_id, &t.device_id, &t.txn_id, &t.scope, &t.result, c.now_ms])
                .await?;
        }
        self.redactions(tx).await?;
        if let Some(a) = &c.alias {
            tx.execute(INSERT_ALIAS, args![&a.alias, c.room_sn, &a.creator]).await?;
        }
        if c.publish {
            directory::publish(tx, c.room_sn).await?;
        }
        for ((event, pos), thread) in c.events.iter().zip(&positions).zip(&threads) {
            if event.status == Status::Accepted {
                unread::count(tx, c.room_sn, *pos, event.pdu.sender.as_str(), thread.as_deref(), &event.notice).await?;
            }
        }
        if let Some(successor) = c.successor {
            directory::hand_over(tx, c.room_sn, successor).await?;
        }
        self.moves(tx, &positions).await?;
        match (self.message(), &positions[..]) {
            (Some(event), [pos]) => tx.message(Message {
                pos: *pos,
                sn: event.sn,
                room_sn: c.room_sn,
                pdu: Arc::clone(&event.pdu),
                sent_by: event.sent_by.clone(),
                counted: event.notice.counted(threads.into_iter().next().flatten()).map(Arc::new),
            }),
            _ => tx.wake(Wake::Room(c.room_sn)),
        }
        Ok(Persisted::Stored(positions))
    }

    fn merges(&self) -> bool {
        self.merges_with_others()
    }

    async fn run_merged<T: Tx>(ops: &[&Self], tx: &mut T) -> Result<Vec<Result<Persisted>>> {
        Self::run_together(ops, tx).await
    }
}

impl RoomCommit {
    /// Where the room ends after it. Not what the writer took for its ends: another process may have added one since.
    pub(super) fn tips_after(&self, mut tips: Vec<i64>) -> Vec<i64> {
        tips.retain(|sn| !self.consumed.contains(sn) && !self.extremities.contains(sn));
        tips.extend(&self.extremities);
        tips
    }

    /// The position of the last of its events by which people see that something goes on in the room; 0 if there is none.
    fn last_bump(&self, positions: &[i64]) -> i64 {
        let bumps = |(event, _): &(&NewEvent, &i64)| event.bumps();
        self.events.iter().zip(positions).rev().find(bumps).map_or(0, |(_, pos)| *pos)
    }
}

/// What came out before anything was written.
enum Checked {
    /// Nothing is in the way; and where the room ends now.
    Good {
        tips: Vec<i64>,
    },
    Answer(Persisted),
}

impl Persist {
    /// The event, if the commit adds one to the timeline and changes nothing else that a sync shows.
    pub(super) fn message(&self) -> Option<&NewEvent> {
        let c = &self.0;
        match &c.events[..] {
            [event]
                if event.status == Status::Accepted
                    && event.pdu.state_key.is_none()
                    && c.changes.is_empty()
                    && c.redactions.is_empty() =>
            {
                Some(event)
            }
            _ => None,
        }
    }

    /// All that may forbid the commit, before anything is written.
    async fn check<T: Tx>(&self, tx: &mut T) -> Result<Checked> {
        let c = &self.0;
        match &c.base {
            Base::New { room_id, .. } => {
                if tx.query_opt(ROOM_EXISTS, args![room_id]).await?.is_some() {
                    return Ok(Checked::Answer(Persisted::RoomExists));
                }
                if let Some(a) = &c.alias
                    && tx.query_opt(ALIAS_TAKEN, args![&a.alias]).await?.is_some()
                {
                    return Ok(Checked::Answer(Persisted::AliasTaken));
                }
                Ok(Checked::Good { tips: Vec::new() })
            }
            Base::At { rev, prevs } => {
                let (user, device, txn, scope) = match &c.transaction {
                    Some(t) => (t.user_id.as_str(), t.device_id.as_str(), t.txn_id.as_str(), t.scope.as_str()),
                    None => ("", "", "", ""),
                };
                let ids: Vec<String> = c.events.iter().map(|e| e.pdu.event_id.to_string()).collect();
                let first = ids.first().map(String::as_str);
                let row = tx.query_opt(CHECK, args![c.room_sn, user, device, txn, scope, first]).await?;
                let mut row = row.ok_or(Error::Conflict("the room is gone"))?;
                if let Some(result) = row.get::<Option<String>>(2)? {
                    return Ok(Checked::Answer(Persisted::Repeated(result)));
                }
                if row.get::<i64>(0)? != *rev {
                    return Err(Error::Conflict("the state of the room has moved on"));
                }
                if row.get::<Option<i64>>(4)?.is_some_and(|last| last > c.rules_as_of) {
                    return Err(Error::Conflict(OTHER_RULES));
                }
                // Where the room ends is stored, of course; only what builds on something older has to be looked up.
                let tips = unpack(&row.get::<Vec<u8>>(1)?);
                if !prevs.iter().all(|sn| tips.contains(sn)) {
                    let stored: i64 = tx.query_one(HOW_MANY_STORED, args![prevs.clone()]).await?.get(0)?;
                    if stored != i64::try_from(prevs.len()).unwrap_or(i64::MAX) {
                        return Err(Error::Conflict("an event to build on is not stored"));
                    }
                }
                let rest = ids.get(1..).unwrap_or_default();
                let known = row.get::<Option<i64>>(3)?.is_some()
                    || !rest.is_empty() && tx.query_opt(EVENT_EXISTS, args![rest.to_vec()]).await?.is_some();
                if known {
                    return Ok(Checked::Answer(Persisted::Known));
                }
                Ok(Checked::Good { tips })
            }
        }
    }

    /// The current state, its history, and the memberships; by how much the member counts change.
    async fn state_changes<T: Tx>(&self, tx: &mut T, positions: &[i64]) -> Result<(i64, i64)> {
        let c = &self.0;
        let (mut joined, mut invited) = (0, 0);
        if c.changes.is_empty() {
            return Ok((0, 0));
        }
        // A key that changes twice in one commit keeps both deltas, but one current row.
        let mut current = std::collections::BTreeMap::new();
        let mut members = std::collections::BTreeMap::new();
        let mut deltas: std::collections::BTreeMap<(i64, &str, &str), Vec<Value>> = std::collections::BTreeMap::new();
        let mut member_log = Vec::new();
        for change in &c.changes {
            let pos = *positions.get(change.at).ok_or_else(|| Error::Corrupt("a state change without event".into()))?;
            let (kind, key) = (change.event_type.as_str(), change.state_key.as_str());
            current.insert((kind, key), (change.event_sn, pos));
            deltas.insert(
                (pos, kind, key),
                vec![
                    c.room_sn.into(),
                    pos.into(),
                    kind.into(),
                    key.into(),
                    change.event_sn.into(),
                    change.prev_sn.into(),
                ],
            );
            if let Some(m) = &change.membership {
                joined += m.joins();
                invited += m.step("invite");
                let event_sn = change.event_sn.unwrap_or_default();
                members.insert(
                    key,
                    vec![
                        key.into(),
                        c.room_sn.into(),
                        m.membership.as_str().into(),
                        event_sn.into(),
                        pos.into(),
                        0i64.into(),
                    ],
                );
                if m.local {
                    member_log.push(vec![
                        key.into(),
                        pos.into(),
                        c.room_sn.into(),
                        m.membership.as_str().into(),
                        m.prev.as_deref().into(),
                        event_sn.into(),
                    ]);
                    tx.wake(Wake::User(key.into()));
                }
            }
        }
        let mut upserts = Vec::new();
        for ((kind, key), (event_sn, pos)) in current {
            match event_sn {
                Some(sn) => upserts.push(vec![c.room_sn.into(), kind.into(), key.into(), sn.into(), pos.into()]),
                None => {
                    tx.execute(DELETE_CURRENT, args![c.room_sn, kind, key]).await?;
                }
            }
        }
        tx.insert_rows(UPSERT_CURRENT, &upserts).await?;
        tx.insert_rows(INSERT_DELTAS, &deltas.into_values().collect::<Vec<_>>()).await?;
        if !members.is_empty() {
            tx.insert_rows(UPSERT_MEMBERSHIPS, &members.into_values().collect::<Vec<_>>()).await?;
            tx.insert_rows(INSERT_MEMBERSHIP_CHANGES, &member_log).await?;
        }
        Ok((joined, invited))
    }

    async fn moves<T: Tx>(&self, tx: &mut T, positions: &[i64]) -> Result<()> {
        let c = &self.0;
        let last = positions.last().copied().unwrap_or_default();
        let mut items = Vec::with_capacity(c.moves.len());
        for (i, moves) in c.moves.iter().enumerate() {
            let payload = serde_json::to_string(moves).map_err(|e| Error::Internal(e.to_string()))?;
            items.push(NewItem { id: format!("{MOVES}-{last}-{i}"), payload, due_ms: c.now_ms });
        }
        outbox::enqueue(tx, MOVES, items).await
    }

    async fn redactions<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let c = &self.0;
        if c.redactions.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = c
            .redactions
            .iter()
            .map(|r| vec![c.room_sn.into(), r.target_id.as_str().into(), r.redaction_sn.into()])
            .collect();
        tx.insert_rows(INSERT_REDACTIONS, &rows).await?;
        for r in &c.redactions {
            if let Some(json) = &r.redacted_json {
                let was = tx.query_opt(REDACT, args![c.room_sn, &r.target_id, json, &r.redaction_id]).await?;
                let Some(mut was) = was else { continue };
                stored::redacted(tx, c.room_sn, &r.target_id).await?;
                if let (Some(pos), Some(kept)) = (was.get::<Option<i64>>(0)?, was.get::<Option<String>>(3)?) {
                    let (sender, thread): (String, Option<String>) = (was.get(1)?, was.get(2)?);
                    unread::redacted(tx, c.room_sn, pos, &sender, thread.as_deref(), &kept).await?;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn event_row(event: &NewEvent, c: &RoomCommit, pos: i64, thread: Option<&str>) -> Result<Vec<Value>> {
    let pdu = &event.pdu;
    let shown = event.status == Status::Accepted;
    let (device_id, txn_id) = match &event.sent_by {
        Some((device, txn)) => (Some(device.as_str()), Some(txn.as_str())),
        None => (None, None),
    };
    Ok(vec![
        event.sn.into(),
        pdu.event_id.as_str().into(),
        c.room_sn.into(),
        Value::Int(shown.then_some(pos)),
        pos.into(),
        0i64.into(),
        pdu.depth.into(),
        pdu.event_type.to_string().into(),
        pdu.state_key.as_deref().into(),
        pdu.sender.as_str().into(),
        (event.status as i64).into(),
        event.state_before.clone().into(),
        event.state_after.clone().into(),
        pack(&event.prev_sns).into(),
        pack(&event.auth_sns).into(),
        device_id.into(),
        txn_id.into(),
        Value::Text(None),
        thread.into(),
        if shown { unread::kept(&event.notice)? } else { None }.into(),
        Arc::clone(&pdu.json).into(),
    ])
}
