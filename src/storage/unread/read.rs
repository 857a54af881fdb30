//! What somebody has not read: where the totals stand, less where they stood.

use std::collections::HashMap;

use hearth_core::{filter::Ignored, push::Counts};

use super::Unread;
use crate::{
    Result,
    tx::{Reads, Row, args, statements},
};

/// In the place of a room's number: the user has been of other classes than that of the untouched rules.
const NO_ROOM: i64 = -1;

/// What two statements begin with. `base`: of each room, what was read in all threads, or when the user joined. `place`: each
/// thread with something after that, and up to where it was read. `who`: whose totals to add there, and whose to subtract.
/// CROSS JOIN: SQLite keeps to this order, or it might begin with a table of all there is.
macro_rules! places {
    () => {
        "WITH base AS MATERIALIZED (
            SELECT r.room_sn, r.room_id, r.last_pos, COALESCE((SELECT MAX(b.pos) FROM (
                SELECT c.pos FROM membership_changes c WHERE c.user_id = $2 AND c.room_sn = r.room_sn
                    AND c.membership = 'join' AND (c.prev IS NULL OR c.prev <> 'join')
                UNION ALL
                SELECT q.read_pos FROM receipts q WHERE q.room_sn = r.room_sn AND q.user_id = $2
                    AND q.type IN ('m.read', 'm.read.private') AND q.thread = ''
            ) b), 0) AS pos
            FROM rooms r WHERE r.room_sn = ANY($1)
        ), place AS MATERIALIZED (
            SELECT p.room_sn, p.thread, COALESCE((
                SELECT MAX(q.read_pos) FROM receipts q WHERE q.room_sn = p.room_sn AND q.user_id = $2
                    AND q.type IN ('m.read', 'm.read.private') AND q.thread = p.thread AND q.read_pos > p.pos
            ), p.pos) AS pos
            FROM (
                SELECT b.room_sn, 'main' AS thread, b.pos FROM base b WHERE b.last_pos > b.pos
                UNION ALL
                SELECT b.room_sn, t.thread, b.pos FROM base b
                    JOIN push_threads t ON t.room_sn = b.room_sn AND t.last_pos > b.pos
            ) p
        ), who AS (
            SELECT p.room_sn, p.thread, p.pos, '' AS sender, 1 AS sign FROM place p
            UNION ALL
            SELECT p.room_sn, p.thread, p.pos, m.user_id, -1 FROM place p
                CROSS JOIN memberships m WHERE m.room_sn = p.room_sn AND m.user_id = ANY($3)
        "
    };
}

statements! {
    // `step`: where the totals of the untouched rules and the user's own stand now, and where they stood when they read. In
    // the end, whether the user was ever of another class.
    UNREAD = concat!(places!(), "), class AS (SELECT '' AS class UNION ALL SELECT $2
        ), step AS MATERIALIZED (
            SELECT w.room_sn, k.class, w.thread, w.sender, w.sign, w.pos,
                (SELECT MAX(t.pos) FROM push_totals t WHERE t.room_sn = w.room_sn AND t.class = k.class
                    AND t.thread = w.thread AND t.sender = w.sender) AS now,
                (SELECT MAX(t.pos) FROM push_totals t WHERE t.room_sn = w.room_sn AND t.class = k.class
                    AND t.thread = w.thread AND t.sender = w.sender AND t.pos <= w.pos) AS was
            FROM who w CROSS JOIN class k
        )
        SELECT c.room_sn, c.thread, CAST(SUM(c.notify) AS BIGINT), CAST(SUM(c.highlight) AS BIGINT) FROM (
            SELECT s.room_sn, s.thread, s.sign * (n.notify - COALESCE(o.notify, 0)) AS notify,
                s.sign * (n.highlight - COALESCE(o.highlight, 0)) AS highlight
            FROM step s CROSS JOIN push_totals n
            LEFT JOIN push_totals o ON o.room_sn = s.room_sn AND o.class = s.class AND o.thread = s.thread
                AND o.sender = s.sender AND o.pos = s.was
            WHERE s.now > s.pos AND n.room_sn = s.room_sn AND n.class = s.class AND n.thread = s.thread
                AND n.sender = s.sender AND n.pos = s.now
            UNION ALL
            SELECT p.room_sn, p.thread, -r.notify, -r.highlight FROM place p CROSS JOIN class k CROSS JOIN push_redacted r
            WHERE r.room_sn = p.room_sn AND r.class = k.class AND r.thread = p.thread AND r.pos > p.pos
                AND r.sender <> ALL($3)
        ) c GROUP BY c.room_sn, c.thread
        UNION ALL SELECT -1, '', 0, 0 WHERE EXISTS (SELECT 1 FROM push_classes k WHERE k.user_id = $2)");
    // `period`: of which class the user was in each room, and from when to when. `span`: as much of it as is unread.
    IN_CLASSES = concat!(places!(), "), period AS MATERIALIZED (
            SELECT b.room_sn, k.class, k.since, COALESCE((
                SELECT MIN(n.since) FROM push_classes n
                WHERE n.user_id = $2 AND n.room_id = b.room_id AND n.since > k.since
            ), 9223372036854775807) AS until
            FROM base b CROSS JOIN push_classes k
            WHERE k.user_id = $2 AND k.room_id = b.room_id AND k.class <> ''
            UNION ALL
            SELECT b.room_sn, k.class, k.since, COALESCE((
                SELECT MIN(n.since) FROM push_classes n
                WHERE n.user_id = $2 AND n.room_id IN ('', b.room_id) AND n.since > k.since
            ), 9223372036854775807)
            FROM base b CROSS JOIN push_classes k
            WHERE k.user_id = $2 AND k.room_id = '' AND k.class <> '' AND NOT EXISTS (
                SELECT 1 FROM push_classes o WHERE o.user_id = $2 AND o.room_id = b.room_id AND o.since <= k.since
            )
        ), span AS MATERIALIZED (
            SELECT w.room_sn, w.thread, w.sender, w.sign, d.class,
                CASE WHEN d.since > w.pos THEN d.since ELSE w.pos END AS low, d.until AS high
            FROM period d CROSS JOIN who w WHERE w.room_sn = d.room_sn AND d.until > w.pos
        ), step AS MATERIALIZED (
            SELECT s.room_sn, s.class, s.thread, s.sender, s.sign, s.low,
                (SELECT MAX(t.pos) FROM push_totals t WHERE t.room_sn = s.room_sn AND t.class = s.class
                    AND t.thread = s.thread AND t.sender = s.sender AND t.pos <= s.high) AS now,
                (SELECT MAX(t.pos) FROM push_totals t WHERE t.room_sn = s.room_sn AND t.class = s.class
                    AND t.thread = s.thread AND t.sender = s.sender AND t.pos <= s.low) AS was
            FROM span s
        )
        SELECT c.room_sn, c.thread, CAST(SUM(c.notify) AS BIGINT), CAST(SUM(c.highlight) AS BIGINT) FROM (
            SELECT s.room_sn, s.thread, s.sign * (n.notify - COALESCE(o.notify, 0)) AS notify,
                s.sign * (n.highlight - COALESCE(o.highlight, 0)) AS highlight
            FROM step s CROSS JOIN push_totals n
            LEFT JOIN push_totals o ON o.room_sn = s.room_sn AND o.class = s.class AND o.thread = s.thread
                AND o.sender = s.sender AND o.pos = s.was
            WHERE s.now > s.low AND n.room_sn = s.room_sn AND n.class = s.class AND n.thread = s.thread
                AND n.sender = s.sender AND n.pos = s.now
            UNION ALL
            SELECT s.room_sn, s.thread, -r.notify, -r.highlight FROM span s CROSS JOIN push_redacted r
            WHERE s.sender = '' AND r.room_sn = s.room_sn AND r.class = s.class AND r.thread = s.thread
                AND r.pos > s.low AND r.pos <= s.high AND r.sender <> ALL($3)
        ) c GROUP BY c.room_sn, c.thread");
    CLASS_NOW = "SELECT r.room_sn, COALESCE(
            (SELECT k.class FROM push_classes k WHERE k.user_id = $2 AND k.room_id = r.room_id
                ORDER BY k.since DESC LIMIT 1),
            (SELECT k.class FROM push_classes k WHERE k.user_id = $2 AND k.room_id = ''
                ORDER BY k.since DESC LIMIT 1),
            '') FROM rooms r WHERE r.room_sn = ANY($1)";
}

/// What the user has not read in each of these rooms; a room without any is left out.
pub(crate) async fn unread<R: Reads>(
    tx: &mut R,
    user_id: &str,
    ignored: &Ignored,
    rooms: Vec<i64>,
) -> Result<HashMap<i64, Unread>> {
    let mut unread = HashMap::<i64, Unread>::new();
    if rooms.is_empty() {
        return Ok(unread);
    }
    let not_by =
        ignored.users().filter(|id| !id.contains('\0')).chain([user_id]).map(str::to_owned).collect::<Vec<_>>();
    let args = args![rooms.clone(), user_id, not_by].to_vec();
    let mut has_classes = false;
    for mut row in tx.query(UNREAD, &args).await? {
        match row.get(0)? {
            NO_ROOM => has_classes = true,
            room_sn => unread.entry(room_sn).or_default().add(&row.get::<String>(1)?, counts_in(&mut row)?),
        }
    }
    if has_classes {
        for mut row in tx.query(IN_CLASSES, &args).await? {
            let room_sn = row.get(0)?;
            unread.entry(room_sn).or_default().add(&row.get::<String>(1)?, counts_in(&mut row)?);
        }
        for mut row in tx.query(CLASS_NOW, args![rooms, user_id]).await? {
            unread.entry(row.get(0)?).or_default().class = row.get(1)?;
        }
    }
    Ok(unread)
}

fn counts_in(row: &mut Row) -> Result<Counts> {
    Ok(Counts { notify: row.get(2)?, highlight: row.get(3)? })
}
