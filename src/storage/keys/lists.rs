//! Whose list of devices changed. A change is one row, of the user whose devices they are; who shares a room with them is
//! found when they ask, by the positions of the changes of memberships.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use crate::{
    Result,
    tx::{Query, Reads, Tx, Wake, args, statements},
};

statements! {
    NOTE = "INSERT INTO device_lists (user_id, pos) VALUES ($1, $2)
        ON CONFLICT (user_id) DO UPDATE SET pos = excluded.pos";
    ROOMS = "SELECT room_sn FROM memberships WHERE user_id = $1 AND membership = 'join'";
    // Of those whom it may concern: their devices changed; they are where the reader came, or were where the reader left;
    // they came or left where the reader was; the reader signed a key of theirs. And whether they share a room now. Who came
    // after the reader had left, or left before the reader came, is nobody that they need to know of.
    CHANGED = "WITH mine AS (
            SELECT room_sn FROM memberships WHERE user_id = $1 AND membership = 'join'
        ), moved AS (
            SELECT room_sn, pos, membership = 'join' AS came FROM membership_changes
            WHERE user_id = $1 AND pos > $2
                AND (membership = 'join' OR prev = 'join') AND (prev IS NULL OR membership <> prev)
        ), looked_at AS (
            SELECT room_sn FROM mine UNION SELECT room_sn FROM moved
        ), others AS (
            SELECT user_id, 1 AS devices, 0 AS came, 0 AS met, 0 AS signed FROM device_lists WHERE pos > $2
            UNION ALL
            SELECT m.user_id, 0, 1, 1, 0 FROM moved v JOIN mine ON mine.room_sn = v.room_sn
                JOIN memberships m ON m.room_sn = v.room_sn AND m.membership = 'join'
            WHERE v.came AND m.user_id <> $1
            UNION ALL
            SELECT m.user_id, 0, 0, 1, 0 FROM moved v JOIN memberships m ON m.room_sn = v.room_sn
            WHERE NOT v.came AND m.user_id <> $1 AND 'join' = (
                SELECT c.membership FROM membership_changes c
                WHERE c.user_id = m.user_id AND c.room_sn = v.room_sn AND c.pos < v.pos ORDER BY c.pos DESC LIMIT 1)
            UNION ALL
            SELECT c.user_id, 0, CASE WHEN c.membership = 'join' THEN 1 ELSE 0 END, 1, 0 FROM looked_at l
                JOIN rooms r ON r.room_sn = l.room_sn AND r.touched_pos > $2
                JOIN membership_changes c ON c.room_sn = l.room_sn AND c.pos > $2
            WHERE c.user_id <> $1
                AND (c.membership = 'join' OR c.prev = 'join') AND (c.prev IS NULL OR c.membership <> c.prev)
                AND 'join' = (
                    SELECT h.membership FROM membership_changes h
                    WHERE h.user_id = $1 AND h.room_sn = l.room_sn AND h.pos < c.pos ORDER BY h.pos DESC LIMIT 1)
            UNION ALL
            SELECT target_user, 0, 0, 0, 1 FROM key_signatures WHERE signer = $1 AND pos > $2 AND target_user <> $1
        ), each_once AS (
            SELECT user_id, MAX(devices) AS devices, MAX(came) AS came, MAX(met) AS met, MAX(signed) AS signed
            FROM others GROUP BY user_id
        )
        SELECT o.user_id, o.devices = 1, o.came = 1, o.met = 1, o.signed = 1, o.user_id = $1 OR EXISTS (
            SELECT 1 FROM memberships m JOIN mine ON mine.room_sn = m.room_sn
            WHERE m.user_id = o.user_id AND m.membership = 'join'
        ) FROM each_once o ORDER BY o.user_id";
    // For other processes: the rooms of those whose devices changed.
    ROOMS_AFTER = "SELECT m.room_sn FROM device_lists d CROSS JOIN memberships m
        WHERE d.pos > $1 AND m.user_id = d.user_id AND m.membership = 'join' LIMIT $2";
    // And who has to look by themselves: for their own devices, for what is left of their keys, for what they signed.
    USERS_AFTER = "SELECT user_id FROM device_lists WHERE pos > $1
        UNION ALL SELECT user_id FROM key_counts WHERE pos > $1
        UNION ALL SELECT signer FROM key_signatures WHERE pos > $1 LIMIT $2";
}

/// What somebody who keeps lists of others' devices has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Ask for these anew.
    pub changed: Vec<String>,
    /// Forget these: they share no room any more.
    pub left: Vec<String>,
}

/// The devices of a user are others than before, or are signed otherwise.
pub(super) async fn note<T: Tx>(tx: &mut T, user_id: &str, pos: i64) -> Result<()> {
    tx.execute(NOTE, args![user_id, pos]).await?;
    tx.wake(Wake::User(user_id.into()));
    for mut row in tx.query(ROOMS, args![user_id]).await? {
        tx.wake(Wake::Room(row.get(0)?));
    }
    Ok(())
}

pub(super) struct Changed {
    pub(super) user_id: String,
    pub(super) since: i64,
}

impl Query for Changed {
    const NAME: &'static str = "device_lists";
    const SINGLE: bool = true;
    type Out = DeviceLists;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<DeviceLists> {
        changed(tx, &self.user_id, self.since).await
    }
}

/// Whose devices `user_id` has to ask for again, and whose not to follow any more, for what happened after `since`.
pub(crate) async fn changed<R: Reads>(tx: &mut R, user_id: &str, since: i64) -> Result<DeviceLists> {
    let mut lists = DeviceLists::default();
    for mut row in tx.query(CHANGED, args![user_id, since]).await? {
        let user: String = row.get(0)?;
        let (devices, came, met): (bool, bool, bool) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let (signed, shares): (bool, bool) = (row.get(4)?, row.get(5)?);
        if signed || (shares && (devices || came)) {
            lists.changed.push(user);
        } else if met && !shares {
            lists.left.push(user);
        }
    }
    Ok(lists)
}

/// Whom to wake for what others committed after a position: rooms and users.
pub(crate) async fn wakes_after<R: Reads>(tx: &mut R, pos: i64, limit: i64) -> Result<(Vec<Wake>, bool)> {
    let mut wakes = Vec::new();
    let rooms = tx.query(ROOMS_AFTER, args![pos, limit]).await?;
    let users = tx.query(USERS_AFTER, args![pos, limit]).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let too_many = rooms.len() >= most || users.len() >= most;
    for mut row in rooms {
        wakes.push(Wake::Room(row.get(0)?));
    }
    for mut row in users {
        wakes.push(Wake::User(row.get::<String>(0)?.into()));
    }
    Ok((wakes, too_many))
}
