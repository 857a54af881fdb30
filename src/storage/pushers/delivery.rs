//! The lease of a pusher, and how it moves on.

use crate::{
    error::Result,
    tx::{Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    DUE = "SELECT pusher_id FROM pushers
        WHERE wanted_pos > done_pos AND due_ms <= $1 AND lease_until_ms <= $1 ORDER BY due_ms, pusher_id LIMIT $2";
    TAKE = "UPDATE pushers SET lease_owner = $1, lease_until_ms = $2 WHERE pusher_id = ANY($3) AND lease_until_ms <= $4
        RETURNING pusher_id, user_id, app_id, pushkey, body, set_ms, done_pos, badge, failures";
    STEP = "UPDATE pushers SET done_pos = $3, badge = $4, failures = $5, due_ms = $6, lease_until_ms = $7
        WHERE pusher_id = $1 AND lease_owner = $2 AND lease_until_ms > 0";
    REJECT = "DELETE FROM pushers WHERE pusher_id = $1 AND set_ms = $2";
}

/// A pusher that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub pusher_id: String,
    pub user_id: String,
    pub app_id: String,
    pub pushkey: String,
    pub body: String,
    pub set_ms: i64,
    /// All up to here was looked at.
    pub done_pos: i64,
    /// What was told last of how much is unread.
    pub badge: i64,
    /// How often it could not be told, since it last could.
    pub failures: i64,
}

/// Where a pusher is from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub done_pos: i64,
    pub badge: i64,
    pub failures: i64,
    /// Not to be tried before.
    pub due_ms: i64,
    /// How long it is held; 0: no longer.
    pub until_ms: i64,
}

pub(super) struct DuePushers {
    pub(super) now_ms: i64,
}

impl Query for DuePushers {
    const NAME: &'static str = "any_pusher_due";
    const SINGLE: bool = true;
    type Out = bool;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<bool> {
        Ok(tx.query_opt(DUE, args![self.now_ms, 1]).await?.is_some())
    }
}

pub(super) struct LeasePushers {
    pub(super) owner: String,
    pub(super) now_ms: i64,
    pub(super) until_ms: i64,
    pub(super) limit: i64,
}

impl Op for LeasePushers {
    const NAME: &'static str = "lease_pushers";
    type Out = Vec<Held>;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Vec<Held>> {
        let due = tx.query(DUE, args![self.now_ms, self.limit]).await?;
        let ids: Vec<String> = due.into_iter().map(|mut row| row.get(0)).collect::<Result<_>>()?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // Another process may have been quicker with some: the condition is looked at again when a row is locked.
        let taken = tx.query(TAKE, args![&self.owner, self.until_ms, ids, self.now_ms]).await?;
        let held = |mut row: Row| {
            Ok(Held {
                pusher_id: row.get(0)?,
                user_id: row.get(1)?,
                app_id: row.get(2)?,
                pushkey: row.get(3)?,
                body: row.get(4)?,
                set_ms: row.get(5)?,
                done_pos: row.get(6)?,
                badge: row.get(7)?,
                failures: row.get(8)?,
            })
        };
        taken.into_iter().map(held).collect()
    }
}

pub(super) struct StepPusher {
    pub(super) pusher_id: String,
    pub(super) owner: String,
    pub(super) step: Step,
}

impl Op for StepPusher {
    const NAME: &'static str = "step_pusher";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let Step { done_pos, badge, failures, due_ms, until_ms } = self.step;
        let args = args![&self.pusher_id, &self.owner, done_pos, badge, failures, due_ms, until_ms];
        Ok(tx.execute(STEP, args).await? > 0)
    }
}

pub(super) struct RejectPusher {
    pub(super) pusher_id: String,
    pub(super) set_ms: i64,
}

impl Op for RejectPusher {
    const NAME: &'static str = "reject_pusher";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.execute(REJECT, args![&self.pusher_id, self.set_ms]).await.map(drop)
    }
}
