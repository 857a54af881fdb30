//! Transaction ids: what one led to is remembered for a while. They are taken inside the operation they belong to; here
//! they only grow old.

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Tx, args, statements},
};

statements! {
    CUT = "SELECT created_ms FROM transactions WHERE created_ms < $1 ORDER BY created_ms LIMIT 1 OFFSET $2";
    PURGE = "DELETE FROM transactions WHERE created_ms < $1";
}

/// The memory for transaction ids.
pub trait Transactions: Send + Sync {
    /// Forgets about `batch` of those older than `before_ms`, oldest first; how many there were. Fewer than `batch`:
    /// nothing is left to purge.
    fn purge_transactions(&self, before_ms: i64, batch: u32) -> Answer<'_, u64>;
}

impl<E: Engine> Transactions for Sql<E> {
    fn purge_transactions(&self, before_ms: i64, batch: u32) -> Answer<'_, u64> {
        self.0.write(Purge { before_ms, batch })
    }
}

struct Purge {
    before_ms: i64,
    batch: u32,
}

impl Op for Purge {
    const NAME: &'static str = "purge_transactions";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        // Rows have no number of their own, so a batch ends at a time. Those of the very millisecond of its last row go
        // with it: a batch may be a little larger, and always makes progress.
        let last = i64::from(self.batch.max(1)) - 1;
        let cut = match tx.query_opt(CUT, args![self.before_ms, last]).await? {
            Some(mut row) => row.get::<i64>(0)? + 1,
            None => self.before_ms,
        };
        tx.execute(PURGE, args![cut]).await
    }
}
