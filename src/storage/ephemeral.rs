//! Receipts. (Typing is never stored.)

use crate::{
    Result, Sql,
    tx::{Answer, Engine, Op, Tx, Wake, args, statements},
};

statements! {
    // Whoever reads an event that is not here has still read what they had read before. Older history that fills a gap
    // before an event has that one's place, and a lower place in it.
    UPSERT = "INSERT INTO receipts (room_sn, user_id, type, thread, event_id, ts, pos, read_pos)
        VALUES ($1, $2, $3, $4, $5, $6, $7, COALESCE((
            SELECT CASE WHEN e.topo_minor < 0 THEN e.topo - 1 ELSE e.topo END FROM events e
            WHERE e.event_id = $5 AND e.room_sn = $1), 0))
        ON CONFLICT (room_sn, user_id, type, thread) DO UPDATE SET
        event_id = excluded.event_id, ts = excluded.ts, pos = excluded.pos,
        read_pos = CASE WHEN excluded.read_pos > receipts.read_pos THEN excluded.read_pos ELSE receipts.read_pos END";
    // The event is that of the receipt before, and has not become known since; or both are known, and the one that was
    // read before is the later; or it is one of another room, of which there is nothing to read here.
    IS_NOTHING_NEW = "SELECT 1 WHERE EXISTS (
            SELECT 1 FROM receipts r WHERE r.room_sn = $1 AND r.user_id = $2 AND r.type = $3 AND r.thread = $4
                AND r.event_id = $5 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.event_id = $5 AND e.room_sn = $1
                    AND CASE WHEN e.topo_minor < 0 THEN e.topo - 1 ELSE e.topo END > r.read_pos)
        ) OR EXISTS (
            SELECT 1 FROM receipts r JOIN events o ON o.event_id = r.event_id AND o.room_sn = $1
                JOIN events n ON n.event_id = $5 AND n.room_sn = $1
            WHERE r.room_sn = $1 AND r.user_id = $2 AND r.type = $3 AND r.thread = $4 AND n.pos < o.pos
        ) OR EXISTS (SELECT 1 FROM events n WHERE n.event_id = $5 AND n.room_sn <> $1)";
    TOUCH = "UPDATE rooms SET touched_pos = $2 WHERE room_sn = $1";
}

/// That a user has read up to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub room_sn: i64,
    pub user_id: String,
    /// `m.read` or `m.read.private`.
    pub receipt_type: String,
    /// Empty when the receipt is not about a thread.
    pub thread: String,
    pub event_id: String,
    pub ts: i64,
}

/// The aggregate of receipts.
pub trait Receipts: Send + Sync {
    /// A receipt never goes back: one for an event before the one that was read changes nothing. Neither does the same
    /// receipt again, nor one for an event of another room.
    fn set_receipt(&self, receipt: Receipt) -> Answer<'_, ()>;
}

impl<E: Engine> Receipts for Sql<E> {
    fn set_receipt(&self, receipt: Receipt) -> Answer<'_, ()> {
        self.0.write(SetReceipt(receipt))
    }
}

struct SetReceipt(Receipt);

impl Op for SetReceipt {
    const NAME: &'static str = "set_receipt";
    type Out = ();
    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let r = &self.0;
        let (user, kind, thread) = (&r.user_id, &r.receipt_type, &r.thread);
        if tx.query_opt(IS_NOTHING_NEW, args![r.room_sn, user, kind, thread, &r.event_id]).await?.is_some() {
            return Ok(());
        }
        let pos = tx.next_pos()?;
        tx.execute(UPSERT, args![r.room_sn, &r.user_id, &r.receipt_type, &r.thread, &r.event_id, r.ts, pos]).await?;
        if r.receipt_type == "m.read.private" {
            tx.wake(Wake::User(r.user_id.as_str().into()));
        } else {
            tx.execute(TOUCH, args![r.room_sn, pos]).await?;
            tx.wake(Wake::Room(r.room_sn));
        }
        Ok(())
    }
}
