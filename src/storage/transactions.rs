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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts::{Accounts as _, NewUser},
        sessions::{Ending, Sessions as _, tests::session},
        testing::{Store, each_backend},
        tx::Stmt,
    };

    const TAKE: Stmt = Stmt::new(
        "take",
        "INSERT INTO transactions (user_id, device_id, txn_id, scope, result, created_ms) \
            VALUES ($1, $2, $3, 'send', '$e', $4)",
    );

    struct Take(&'static str, String, i64);

    impl Op for Take {
        const NAME: &'static str = "test_take";
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.execute(TAKE, args!["@a:x", self.0, &self.1, self.2]).await.map(drop)
        }
    }

    async fn take(store: &Store, device: &'static str, times: &[i64]) {
        for (i, ms) in times.iter().enumerate() {
            store.write(Take(device, format!("t{i}"), *ms)).await.unwrap();
        }
    }

    #[test]
    fn old_ones_go_in_batches() {
        each_backend(|store| async move {
            take(&store, "D", &[1, 2, 2, 2, 3, 4, 5, 6]).await;
            assert_eq!(store.purge_transactions(5, 2).await.unwrap(), 4, "1, and all of the same time as the second");
            assert_eq!(store.purge_transactions(5, 2).await.unwrap(), 2);
            assert_eq!(store.purge_transactions(5, 2).await.unwrap(), 0);
            assert_eq!(store.purge_transactions(7, 5).await.unwrap(), 2);
        });
    }

    #[test]
    fn those_of_a_device_go_with_it() {
        each_backend(|store| async move {
            let user = NewUser { user_id: "@a:x".to_owned(), password_hash: None, admin: false, created_ms: 1 };
            store.register(user, Some(session("D", 1)), None).await.unwrap();
            take(&store, "D", &[1, 2, 3]).await;
            take(&store, "E", &[1]).await;
            assert_eq!(store.clean_device("@a:x", "D", 2).await.unwrap(), 0, "it is here again");
            let ending = Ending { at_ms: 9, job_id: "j".to_owned() };
            store.end_sessions("@a:x", vec!["D".to_owned()], ending).await.unwrap();
            assert_eq!(store.clean_device("@a:x", "D", 2).await.unwrap(), 2);
            assert_eq!(store.clean_device("@a:x", "D", 2).await.unwrap(), 1);
            assert_eq!(store.purge_transactions(9, 9).await.unwrap(), 1, "those of another device are left");
        });
    }
}
