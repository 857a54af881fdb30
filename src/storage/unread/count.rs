//! What an event adds to the totals, and how it is taken off again.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::push::Counts;
use serde::{Deserialize, Serialize};

use super::{MAIN, Notice};
use crate::{
    Error, Result,
    tx::{Tx, args, statements},
};

statements! {
    COUNT = "INSERT INTO push_totals (room_sn, class, thread, sender, pos, notify, highlight)
        SELECT $1, $2, $3, s.sender, $5,
            $6 + COALESCE((SELECT t.notify FROM push_totals t
                WHERE t.room_sn = $1 AND t.class = $2 AND t.thread = $3 AND t.sender = s.sender ORDER BY t.pos DESC LIMIT 1), 0),
            $7 + COALESCE((SELECT t.highlight FROM push_totals t
                WHERE t.room_sn = $1 AND t.class = $2 AND t.thread = $3 AND t.sender = s.sender ORDER BY t.pos DESC LIMIT 1), 0)
        FROM (SELECT '' AS sender UNION ALL SELECT $4) s";
    LAST_TOTAL = "SELECT notify, highlight FROM push_totals
        WHERE room_sn = $1 AND class = $2 AND thread = $3 AND sender = $4 ORDER BY pos DESC LIMIT 1";
    // The same for those of them who are in the room.
    COUNT_OWN = "INSERT INTO push_totals (room_sn, class, thread, sender, pos, notify, highlight)
        SELECT $1, m.user_id, $3, s.sender, $5,
            $6 + COALESCE((SELECT t.notify FROM push_totals t
                WHERE t.room_sn = $1 AND t.class = m.user_id AND t.thread = $3 AND t.sender = s.sender
                ORDER BY t.pos DESC LIMIT 1), 0),
            $7 + COALESCE((SELECT t.highlight FROM push_totals t
                WHERE t.room_sn = $1 AND t.class = m.user_id AND t.thread = $3 AND t.sender = s.sender
                ORDER BY t.pos DESC LIMIT 1), 0)
        FROM memberships m CROSS JOIN (SELECT '' AS sender UNION ALL SELECT $4) s
        WHERE m.user_id = ANY($2) AND m.room_sn = $1 AND m.membership = 'join'";
    THREAD_COUNTS = "INSERT INTO push_threads (room_sn, thread, last_pos) VALUES ($1, $2, $3)
        ON CONFLICT (room_sn, thread) DO UPDATE SET last_pos = excluded.last_pos";

    bulk TOTALS = "push_totals" (
        "room_sn": Int, "class": Text, "thread": Text, "sender": Text, "pos": Int, "notify": Int, "highlight": Int
    ) "";
    bulk THREADS_COUNT = "push_threads" ("room_sn": Int, "thread": Text, "last_pos": Int)
        "ON CONFLICT (room_sn, thread) DO UPDATE SET last_pos = excluded.last_pos";
    bulk REDACTED = "push_redacted" (
        "room_sn": Int, "class": Text, "thread": Text, "pos": Int, "sender": Text, "notify": Int, "highlight": Int
    ) "ON CONFLICT DO NOTHING";
}

/// What is kept with an event of what it counted, so that it can be taken off again.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<(String, i64, i64)>,
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    own: Vec<(Vec<String>, i64, i64)>,
}

/// What is kept with the event; `None` if it counts nothing.
pub(crate) fn kept(notice: &Notice) -> Result<Option<String>> {
    if notice.classes.is_empty() && notice.own.is_empty() {
        return Ok(None);
    }
    let kept = Kept {
        classes: notice.classes.iter().map(|(class, c)| (class.clone(), c.notify, c.highlight)).collect(),
        own: notice.own.iter().map(|(users, c)| (users.clone(), c.notify, c.highlight)).collect(),
    };
    serde_json::to_string(&kept).map(Some).map_err(|e| Error::Internal(e.to_string()))
}

/// Adds an event at `pos` to the totals.
pub(crate) async fn count<T: Tx>(
    tx: &mut T,
    room_sn: i64,
    pos: i64,
    sender: &str,
    thread: Option<&str>,
    notice: &Notice,
) -> Result<()> {
    if notice.classes.is_empty() && notice.own.is_empty() {
        return Ok(());
    }
    if let Some(thread) = thread {
        tx.execute(THREAD_COUNTS, args![room_sn, thread, pos]).await?;
    }
    let thread = thread.unwrap_or(MAIN);
    match &notice.classes[..] {
        [(class, c)] => {
            tx.execute(COUNT, args![room_sn, class, thread, sender, pos, c.notify, c.highlight]).await?;
        }
        classes => {
            let steps = classes.iter().flat_map(|(class, counts)| {
                ["", sender].map(|sender| ((room_sn, class.as_str(), thread, sender), pos, *counts))
            });
            add_up(tx, steps.collect()).await?;
        }
    }
    for (users, c) in &notice.own {
        tx.execute(COUNT_OWN, args![room_sn, users.clone(), thread, sender, pos, c.notify, c.highlight]).await?;
    }
    Ok(())
}

/// An event that is to be added to the totals.
pub(crate) struct Addition<'a> {
    pub(crate) room_sn: i64,
    pub(crate) pos: i64,
    pub(crate) sender: &'a str,
    pub(crate) thread: Option<&'a str>,
    pub(crate) notice: &'a Notice,
}

/// Adds many plain events to the totals, in the order of their positions.
pub(crate) async fn count_all<T: Tx>(tx: &mut T, additions: &[Addition<'_>]) -> Result<()> {
    let (mut threads, mut steps) = (BTreeMap::new(), Vec::new());
    for a in additions {
        if let (Some(thread), false) = (a.thread, a.notice.classes.is_empty()) {
            threads.insert((a.room_sn, thread), a.pos);
        }
        for (class, counts) in &a.notice.classes {
            for sender in ["", a.sender] {
                steps.push(((a.room_sn, class.as_str(), a.thread.unwrap_or(MAIN), sender), a.pos, *counts));
            }
        }
    }
    add_up(tx, steps).await?;
    let threads: Vec<_> = threads.into_iter().map(|((room, thread), pos)| args![room, thread, pos].to_vec()).collect();
    tx.insert_rows(THREADS_COUNT, &threads).await.map(drop)
}

/// Room, class, thread and sender of a running total.
type Total<'a> = (i64, &'a str, &'a str, &'a str);

/// Each step from the one before it, or from what is stored.
async fn add_up<T: Tx>(tx: &mut T, steps: Vec<(Total<'_>, i64, Counts)>) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let keys: BTreeSet<_> = steps.iter().map(|(key, ..)| *key).collect();
    let asked = keys.iter().map(|(room, class, thread, sender)| args![*room, *class, *thread, *sender].to_vec());
    let found = tx.query_each(LAST_TOTAL, &asked.collect::<Vec<_>>()).await?;
    let mut totals = BTreeMap::new();
    for (key, rows) in keys.into_iter().zip(found) {
        let last = match rows.into_iter().next() {
            Some(mut row) => Counts { notify: row.get(0)?, highlight: row.get(1)? },
            None => Counts::NONE,
        };
        totals.insert(key, last);
    }
    let mut rows = Vec::with_capacity(steps.len());
    for (key, pos, counts) in steps {
        let total = totals.entry(key).or_insert(Counts::NONE);
        *total += counts;
        let (room_sn, class, thread, sender) = key;
        rows.push(args![room_sn, class, thread, sender, pos, total.notify, total.highlight].to_vec());
    }
    tx.insert_rows(TOTALS, &rows).await.map(drop)
}

/// Takes a redacted event off again, for those who have not read it.
pub(crate) async fn redacted<T: Tx>(
    tx: &mut T,
    room_sn: i64,
    pos: i64,
    sender: &str,
    thread: Option<&str>,
    kept: &str,
) -> Result<()> {
    let kept: Kept = serde_json::from_str(kept).map_err(|e| Error::Corrupt(format!("what an event counted: {e}")))?;
    let own = kept.own.iter().flat_map(|(users, n, h)| users.iter().map(move |user| (user, n, h)));
    let all = kept.classes.iter().map(|(class, n, h)| (class, n, h)).chain(own);
    let thread = thread.unwrap_or(MAIN);
    let rows: Vec<_> = all
        .map(|(class, n, h)| {
            vec![room_sn.into(), class.into(), thread.into(), pos.into(), sender.into(), (*n).into(), (*h).into()]
        })
        .collect();
    tx.insert_rows(REDACTED, &rows).await.map(drop)
}
