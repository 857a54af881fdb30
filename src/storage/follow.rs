//! What other processes changed: whom to wake when the head has moved by itself.

use crate::{
    Result, Sql,
    job::without_repeats,
    keys::lists,
    tx::{Answer, Engine, Query, Reads, Wake, args, statements},
};

statements! {
    ROOMS = "SELECT room_sn, room_id FROM rooms WHERE touched_pos > $1 LIMIT $2";
    // Some of them more than once: for a DISTINCT, the whole of an index by user would be read.
    ACCOUNT_DATA = "SELECT user_id FROM account_data WHERE pos > $1 LIMIT $2";
    MEMBERSHIPS = "SELECT user_id FROM membership_changes WHERE pos > $1 LIMIT $2";
    PRIVATE_RECEIPTS = "SELECT user_id FROM receipts WHERE type = 'm.read.private' AND pos > $1 LIMIT $2";
    TO_DEVICE = "SELECT user_id FROM to_device WHERE pos > $1 LIMIT $2";
    SUBSCRIPTIONS = "SELECT user_id FROM thread_subscriptions WHERE pos > $1 LIMIT $2";
    REVOCATIONS = "SELECT user_id, device_id FROM revocations WHERE pos > $1 LIMIT $2";
}

/// What changed after a position.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub wakes: Vec<Wake>,
    /// The ids of the rooms among them.
    pub rooms: Vec<String>,
    /// Sessions that ended: user and device.
    pub revoked: Vec<(String, String)>,
    /// There was more than the limit: wake everybody, forget every session.
    pub too_many: bool,
}

/// The aggregate of what a process follows.
pub trait Follow: Send + Sync {
    /// Whom the changes after `pos` concern. At most `limit` of a kind.
    fn changes_after(&self, pos: i64, limit: i64) -> Answer<'_, Changes>;
}

impl<E: Engine> Follow for Sql<E> {
    fn changes_after(&self, pos: i64, limit: i64) -> Answer<'_, Changes> {
        self.0.read(ChangesAfter { pos, limit })
    }
}

struct ChangesAfter {
    pos: i64,
    limit: i64,
}

impl Query for ChangesAfter {
    const NAME: &'static str = "changes_after";
    type Out = Changes;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Changes> {
        let mut changes = Changes::default();
        let full = |n: usize| i64::try_from(n).unwrap_or(i64::MAX) >= self.limit;
        let rooms = tx.query(ROOMS, args![self.pos, self.limit]).await?;
        changes.too_many |= full(rooms.len());
        for mut row in rooms {
            changes.wakes.push(Wake::Room(row.get(0)?));
            changes.rooms.push(row.get(1)?);
        }
        for stmt in [ACCOUNT_DATA, MEMBERSHIPS, PRIVATE_RECEIPTS, TO_DEVICE, SUBSCRIPTIONS] {
            let users = tx.query(stmt, args![self.pos, self.limit]).await?;
            changes.too_many |= full(users.len());
            for mut row in users {
                changes.wakes.push(Wake::User(row.get::<String>(0)?.into()));
            }
        }
        let (wakes, too_many) = lists::wakes_after(tx, self.pos, self.limit).await?;
        changes.wakes.extend(wakes);
        changes.too_many |= too_many;
        let revoked = tx.query(REVOCATIONS, args![self.pos, self.limit]).await?;
        changes.too_many |= full(revoked.len());
        for mut row in revoked {
            changes.revoked.push((row.get(0)?, row.get(1)?));
        }
        changes.wakes = without_repeats(changes.wakes);
        Ok(changes)
    }
}
