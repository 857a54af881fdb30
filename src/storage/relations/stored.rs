//! What is written of relations with the events that make and unmake them.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::relation::{ANNOTATION, MAX_KEY_BYTES, Relation, THREAD};

use crate::{
    Result,
    rooms::{NewEvent, Persisted, Status},
    tx::{Reads, Tx, Value, args, statements},
};

statements! {
    ANNOTATED = "SELECT 1 FROM relations WHERE room_sn = $1 AND target = $2 AND rel_type = 'm.annotation' AND sender = $3
        AND type = $4 AND key = $5 LIMIT 1";
    RELATING = "SELECT e.event_id FROM events e JOIN relations r ON r.sn = e.sn WHERE e.event_id = ANY($1)";
    FORGET = "DELETE FROM relations WHERE sn = (SELECT sn FROM events WHERE event_id = $2 AND room_sn = $1)
        RETURNING target, rel_type";
    FORGET_THREAD = "DELETE FROM threads WHERE room_sn = $1 AND root = $2";
    NEWEST = "SELECT topo, topo_minor FROM relations WHERE room_sn = $1 AND target = $2 AND rel_type = 'm.thread'
        ORDER BY topo DESC, topo_minor DESC LIMIT 1";
    MOVE_THREAD = "UPDATE threads SET topo = $3, topo_minor = $4 WHERE room_sn = $1 AND root = $2";
    bulk RELATE = "relations" (
        "room_sn": Int, "target": Text, "topo": Int, "topo_minor": Int, "rel_type": Text, "sn": Int, "event_id": Text,
        "type": Text, "sender": Text, "key": Text, "replaces": Int, "ts": Int
    ) "";
    bulk GO_ON = "threads" ("room_sn": Int, "root": Text, "topo": Int, "topo_minor": Int)
        "ON CONFLICT (room_sn, root) DO UPDATE SET
        topo = CASE WHEN (excluded.topo, excluded.topo_minor) > (threads.topo, threads.topo_minor)
            THEN excluded.topo ELSE threads.topo END,
        topo_minor = CASE WHEN (excluded.topo, excluded.topo_minor) > (threads.topo, threads.topo_minor)
            THEN excluded.topo_minor ELSE threads.topo_minor END";
}

/// How the events of a commit relate to others: what there is to know of that before they are stored.
#[derive(Default)]
pub(crate) struct Relating {
    /// Of the roots that threads would have, those that relate to something themselves.
    no_roots: BTreeSet<String>,
}

impl Relating {
    pub(crate) async fn look<R: Reads>(tx: &mut R, events: impl Iterator<Item = &NewEvent>) -> Result<Self> {
        let threads = events.filter_map(|e| e.relation.as_ref()).filter(|r| r.rel_type == THREAD);
        let roots: BTreeSet<String> = threads.map(|r| r.target.to_string()).collect();
        if roots.is_empty() {
            return Ok(Self::default());
        }
        let rows = tx.query(RELATING, args![roots.into_iter().collect::<Vec<_>>()]).await?;
        let no_roots = rows.into_iter().map(|mut row| row.get(0)).collect::<Result<_>>()?;
        Ok(Self { no_roots })
    }

    /// Whether an event is to be the root of a thread that can be none.
    pub(crate) fn is_no_root(&self, relation: &Relation) -> bool {
        relation.rel_type == THREAD && self.no_roots.contains(relation.target.as_str())
    }

    /// What forbids an event that is sent from here, if anything does.
    pub(crate) async fn check<R: Reads>(
        &self,
        tx: &mut R,
        room_sn: i64,
        event: &NewEvent,
    ) -> Result<Option<Persisted>> {
        let Some(relation) = event.relation.as_ref().filter(|_| event.own) else { return Ok(None) };
        if self.is_no_root(relation) {
            return Ok(Some(Persisted::NoRoot));
        }
        if relation.rel_type == ANNOTATION {
            let (sender, kind) = (event.pdu.sender.as_str(), event.pdu.event_type.to_string());
            let said = args![room_sn, relation.target.as_str(), sender, kind, key(relation)];
            if tx.query_opt(ANNOTATED, said).await?.is_some() {
                return Ok(Some(Persisted::Annotated));
            }
        }
        Ok(None)
    }

    /// Writes how these events of rooms relate, each at its position.
    pub(crate) async fn store<T: Tx>(&self, tx: &mut T, events: &[(i64, i64, &NewEvent)]) -> Result<()> {
        let (mut rows, mut threads) = (Vec::new(), BTreeMap::new());
        for (room_sn, pos, event) in events {
            let Some(relation) = event.relation.as_ref().filter(|_| event.status == Status::Accepted) else { continue };
            rows.push(row(*room_sn, *pos, event, relation));
            if relation.rel_type == THREAD && !self.is_no_root(relation) {
                threads.insert((*room_sn, relation.target.as_str()), *pos);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        tx.insert_rows(RELATE, &rows).await?;
        if threads.is_empty() {
            return Ok(());
        }
        let threads: Vec<_> =
            threads.into_iter().map(|((room_sn, root), pos)| args![room_sn, root, pos, 0i64].to_vec()).collect();
        tx.insert_rows(GO_ON, &threads).await.map(drop)
    }
}

/// What an annotation says, as far as it is compared: others' servers may let anything pass.
fn key(relation: &Relation) -> &str {
    let is_short = |key: &&str| key.len() <= MAX_KEY_BYTES && !key.contains('\0');
    let key = relation.key.as_deref().filter(|_| relation.rel_type == ANNOTATION);
    key.filter(is_short).unwrap_or_default()
}

fn row(room_sn: i64, pos: i64, event: &NewEvent, relation: &Relation) -> Vec<Value> {
    let pdu = &event.pdu;
    vec![
        room_sn.into(),
        relation.target.as_str().into(),
        pos.into(),
        0i64.into(),
        relation.rel_type.as_str().into(),
        event.sn.into(),
        pdu.event_id.as_str().into(),
        pdu.event_type.to_string().into(),
        pdu.sender.as_str().into(),
        key(relation).into(),
        relation.can_replace.into(),
        i64::from(pdu.origin_server_ts.0).into(),
    ]
}

/// An event has been redacted: it relates to nothing any more.
pub(crate) async fn redacted<T: Tx>(tx: &mut T, room_sn: i64, event_id: &str) -> Result<()> {
    let Some(mut was) = tx.query_opt(FORGET, args![room_sn, event_id]).await? else { return Ok(()) };
    let (target, rel_type): (String, String) = (was.get(0)?, was.get(1)?);
    if rel_type != THREAD {
        return Ok(());
    }
    match tx.query_opt(NEWEST, args![room_sn, &target]).await? {
        Some(mut newest) => {
            let (topo, minor): (i64, i64) = (newest.get(0)?, newest.get(1)?);
            tx.execute(MOVE_THREAD, args![room_sn, &target, topo, minor]).await.map(drop)
        }
        None => tx.execute(FORGET_THREAD, args![room_sn, &target]).await.map(drop),
    }
}
