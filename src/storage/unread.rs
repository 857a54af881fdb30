//! Unread counts, by subtraction: what had been counted now, less what had been counted where somebody has read up to.
//!
//! An event that counts adds to running totals of its thread, and of its sender there, for each class of push rules that
//! tells of it: rows by class, none by member. Only those who are told something else than their class have rows of their
//! own, in the class that is their id. What a member has sent is subtracted, and what those sent whom they ignore.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hearth_core::{
    filter::Ignored,
    push::{Counts, Place},
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    tx::{Reads, Tx, args, statements},
};

/// The timeline of a room without its threads.
pub const MAIN: &str = "main";

/// The class of those who never changed a push rule.
pub const DEFAULT_CLASS: &str = "";

statements! {
    THREAD_OF = "SELECT thread FROM events WHERE event_id = $1 AND room_sn = $2";
    ROOTS = "SELECT event_id, room_sn, thread FROM events WHERE event_id = ANY($1)";
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
    // `base`: of each room, what was read in all threads, or when the user joined. `place`: each thread with something
    // after that, and up to where it was read. `who`: whose totals to add there, and whose to subtract. `step`: where these
    // totals stand now, and where they stood then. CROSS JOIN: SQLite keeps to this order, or it might begin with a table
    // of all there is.
    UNREAD = "WITH base AS MATERIALIZED (
            SELECT r.room_sn, r.last_pos, COALESCE((SELECT MAX(b.pos) FROM (
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
        ), class AS (SELECT '' AS class UNION ALL SELECT $2
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
        ) c GROUP BY c.room_sn, c.thread";

    bulk TOTALS = "push_totals" (
        "room_sn": Int, "class": Text, "thread": Text, "sender": Text, "pos": Int, "notify": Int, "highlight": Int
    ) "";
    bulk THREADS_COUNT = "push_threads" ("room_sn": Int, "thread": Text, "last_pos": Int)
        "ON CONFLICT (room_sn, thread) DO UPDATE SET last_pos = excluded.last_pos";
    bulk REDACTED = "push_redacted" (
        "room_sn": Int, "class": Text, "thread": Text, "pos": Int, "sender": Text, "notify": Int, "highlight": Int
    ) "ON CONFLICT DO NOTHING";
}

/// What an event counts, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    pub place: Place,
    /// For each class that it is told to, what it counts there.
    pub classes: Vec<(String, Counts)>,
    /// For users who are told something else, what that is beyond what their class is told. Those who are not in the
    /// room may be among them.
    pub own: Vec<(Vec<String>, Counts)>,
}

impl Notice {
    /// Once it is known which thread it is in; `None` if it counts nothing.
    pub(crate) fn counted(&self, thread: Option<String>) -> Option<Counted> {
        let counts = !(self.classes.is_empty() && self.own.is_empty());
        let thread = thread.unwrap_or_else(|| MAIN.to_owned());
        counts.then(|| Counted { thread, classes: self.classes.clone(), own: self.own.clone() })
    }
}

/// The same of an event that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its root, or `main`.
    pub thread: String,
    pub classes: Vec<(String, Counts)>,
    pub own: Vec<(Vec<String>, Counts)>,
}

impl Counted {
    /// What it counts for a user of this class.
    pub fn of(&self, class: &str, user: &str) -> Counts {
        let class = self.classes.iter().filter(|(c, _)| c == class).map(|(_, counts)| *counts);
        let own = self.own.iter().filter(|(users, _)| users.iter().any(|u| u == user)).map(|(_, counts)| *counts);
        class.chain(own).fold(Counts::NONE, |all, counts| all + counts)
    }
}

/// What somebody has not read in a room, by thread; a thread without any is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread(BTreeMap<String, Counts>);

impl Unread {
    pub fn add(&mut self, thread: &str, counts: Counts) {
        if counts.is_none() {
            return;
        }
        match self.0.get_mut(thread) {
            Some(known) => *known += counts,
            None => {
                self.0.insert(thread.to_owned(), counts);
            }
        }
    }

    /// Of the timeline without its threads.
    pub fn main(&self) -> Counts {
        self.0.get(MAIN).copied().unwrap_or_default()
    }

    pub fn threads(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.0.iter().filter(|(thread, _)| *thread != MAIN).map(|(thread, counts)| (thread.as_str(), *counts))
    }

    /// Of all of the room.
    pub fn all(&self) -> Counts {
        self.0.values().fold(Counts::NONE, |all, counts| all + *counts)
    }

    /// The same without the threads apart.
    pub fn summed(&self) -> Self {
        let mut summed = Self::default();
        summed.add(MAIN, self.all());
        summed
    }

    /// How many threads have something unread.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is kept with an event of what it counted, so that it can be taken off again.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<(String, i64, i64)>,
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    own: Vec<(Vec<String>, i64, i64)>,
}

/// Of the events that are taken for roots of threads, those that are here: their room, and the thread they are in.
pub(crate) struct Roots(HashMap<String, (i64, Option<String>)>);

impl Roots {
    pub(crate) async fn of<R: Reads>(tx: &mut R, named: Vec<String>) -> Result<Self> {
        let mut roots = HashMap::new();
        if !named.is_empty() {
            for mut row in tx.query(ROOTS, args![named]).await? {
                roots.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
            }
        }
        Ok(Self(roots))
    }

    /// What [`thread_of`] says of a plain event.
    pub(crate) fn thread<'a>(&'a self, room_sn: i64, notice: &'a Notice) -> Option<&'a str> {
        let root = notice.root()?;
        let (room, outer) = self.0.get(root)?;
        (*room == room_sn).then(|| outer.as_deref().unwrap_or(root))
    }
}

/// The root of the thread that an event belongs to; `None` for the main timeline.
pub(crate) async fn thread_of<R: Reads>(tx: &mut R, room_sn: i64, place: &Place) -> Result<Option<String>> {
    match place {
        Place::Main => Ok(None),
        // What is in a thread can't be the root of another; what is not here can't be the root of any, or whoever writes
        // could make threads without end out of nothing.
        Place::Thread(root) => match tx.query_opt(THREAD_OF, args![root.as_str(), room_sn]).await? {
            Some(mut row) => Ok(Some(row.get::<Option<String>>(0)?.unwrap_or_else(|| root.to_string()))),
            None => Ok(None),
        },
        Place::With(other) => match tx.query_opt(THREAD_OF, args![other.as_str(), room_sn]).await? {
            Some(mut row) => row.get(0),
            None => Ok(None),
        },
    }
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
    for (class, c) in &notice.classes {
        tx.execute(COUNT, args![room_sn, class, thread, sender, pos, c.notify, c.highlight]).await?;
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

impl Notice {
    /// Whether [`count_all`] can count it among others: it names its thread, and tells nobody something of their own.
    pub(crate) fn is_plain(&self) -> bool {
        self.own.is_empty() && !matches!(self.place, Place::With(_))
    }

    /// The root that it names.
    pub(crate) fn root(&self) -> Option<&str> {
        match &self.place {
            Place::Thread(root) => Some(root.as_str()),
            Place::Main | Place::With(_) => None,
        }
    }
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
    tx.insert_rows(TOTALS, &rows).await?;
    let threads: Vec<_> = threads.into_iter().map(|((room, thread), pos)| args![room, thread, pos].to_vec()).collect();
    tx.insert_rows(THREADS_COUNT, &threads).await.map(drop)
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
    for mut row in tx.query(UNREAD, args![rooms, user_id, not_by]).await? {
        let (room_sn, thread): (i64, String) = (row.get(0)?, row.get(1)?);
        let counts = Counts { notify: row.get(2)?, highlight: row.get(3)? };
        unread.entry(room_sn).or_default().add(&thread, counts);
    }
    Ok(unread)
}
