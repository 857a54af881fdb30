//! What relates to events, summed up to be told beside them: a fixed number of statements for however many events of
//! however many rooms, one where nothing relates to any of them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>

use std::collections::{BTreeMap, HashMap};

use hearth_core::{
    filter::Ignored,
    relation::{Parent, THREAD},
};

use crate::{
    Result,
    error::corrupt,
    rooms::StoredEvent,
    timeline::{Stretch, events_by_sn},
    tx::{Reads, Value, args, statements},
};

statements! {
    // Nothing relates to most events, which is all that is asked of those.
    WHICH = "SELECT
        CAST(CASE WHEN EXISTS (SELECT 1 FROM relations r WHERE r.room_sn = $1 AND r.target = $2
            AND r.rel_type = 'm.replace') THEN 1 ELSE 0 END AS BIGINT) AS edits,
        CAST(CASE WHEN EXISTS (SELECT 1 FROM relations r WHERE r.room_sn = $1 AND r.target = $2
            AND r.rel_type = 'm.reference') THEN 1 ELSE 0 END AS BIGINT) AS refs,
        CAST(CASE WHEN EXISTS (SELECT 1 FROM relations r WHERE r.room_sn = $1 AND r.target = $2
            AND r.rel_type = 'm.thread') THEN 1 ELSE 0 END AS BIGINT) AS threaded
        WHERE EXISTS (SELECT 1 FROM relations r WHERE r.room_sn = $1 AND r.target = $2)";
    THREADED = "SELECT sender, COUNT(*) AS n, MAX(topo) AS newest FROM relations
        WHERE room_sn = $1 AND target = $2 AND rel_type = 'm.thread' AND topo >= $3 AND topo <= $4 GROUP BY sender";
    // By the place alone, which leads straight to it: what else it has to be is asked of what is found there.
    NEWEST = "SELECT rel_type, sender, sn, event_id, type FROM relations WHERE room_sn = $1 AND target = $2 AND topo = $3
        ORDER BY topo_minor DESC";
    // These by who says what, where few lie together, and not by the place (hence the sums), where they lie among all
    // that relates.
    EDIT = "SELECT ts, event_id, sn FROM relations
        WHERE room_sn = $1 AND target = $2 AND rel_type = 'm.replace' AND sender = $3 AND type = $4 AND key = ''
            AND replaces = 1 AND topo + 0 >= $5 AND topo + 0 <= $6
        ORDER BY ts DESC, event_id DESC LIMIT 1";
    REFERENCES = "SELECT event_id, sender FROM relations
        WHERE room_sn = $1 AND target = $2 AND rel_type = 'm.reference' AND topo + 0 >= $3 AND topo + 0 <= $4
        ORDER BY topo + 0 DESC, topo_minor DESC LIMIT 500";
}

/// The most references that are told of, the newest. As many are read, see [`REFERENCES`].
const MOST_REFERENCES: usize = 500;

/// What relates to an event, as one reader may see it.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// The newest valid edit.
    pub edit: Option<StoredEvent>,
    /// The ids of those that refer to it, in the order of the timeline.
    pub references: Vec<String>,
    pub thread: Option<Box<ThreadSummary>>,
}

/// A thread, at its root.
#[derive(Clone, Debug)]
pub struct ThreadSummary {
    pub latest: StoredEvent,
    /// What relates to that.
    pub beside_latest: Bundle,
    pub count: i64,
    pub participated: bool,
}

/// By the number of the event.
pub type Bundles = HashMap<i64, Bundle>;

/// Who is to be told.
#[derive(Clone, Copy)]
pub(crate) struct Onlooker<'a> {
    pub(crate) user_id: &'a str,
    pub(crate) ignored: &'a Ignored,
}

/// An event, and which parts of its room's timeline the onlooker may see.
#[derive(Clone, Copy)]
pub(crate) struct Beheld<'a> {
    pub(crate) event: &'a StoredEvent,
    pub(crate) seen: &'a [Stretch],
}

/// An event to which something relates.
struct Told<'a> {
    of: Beheld<'a>,
    parent: Parent,
    wants: Wants,
}

#[derive(Clone, Copy)]
struct Wants {
    edit: bool,
    references: bool,
    thread: bool,
}

/// The newest event of a thread, and how many there are.
struct Newest<'a> {
    seen: &'a [Stretch],
    room_sn: i64,
    sender: String,
    count: i64,
    participated: bool,
    sn: i64,
    event_id: String,
    kind: String,
}

/// Sums up what relates to these events; those to which nothing does are left out.
pub(crate) async fn bundles<R: Reads>(tx: &mut R, who: Onlooker<'_>, events: &[Beheld<'_>]) -> Result<Bundles> {
    let told = told(tx, events).await?;
    if told.is_empty() {
        return Ok(Bundles::new());
    }
    let threads = threads(tx, who, &told).await?;
    let edits = edits(tx, &told, &threads).await?;
    let mut references = references(tx, who, &told, &threads).await?;
    let sns = edits.values().copied().chain(threads.values().map(|thread| thread.sn)).collect();
    let found: HashMap<i64, StoredEvent> = events_by_sn(tx, sns).await?.into_iter().map(|e| (e.sn, e)).collect();

    let mut beside = |sn: i64| Bundle {
        edit: edits.get(&sn).and_then(|edit| found.get(edit)).cloned(),
        references: references.remove(&sn).unwrap_or_default(),
        thread: None,
    };
    let mut bundles = Bundles::new();
    for t in told {
        let mut bundle = beside(t.of.event.sn);
        if let Some(thread) = threads.get(&t.of.event.sn)
            && let Some(latest) = found.get(&thread.sn)
        {
            bundle.thread = Some(Box::new(ThreadSummary {
                latest: latest.clone(),
                beside_latest: beside(thread.sn),
                count: thread.count,
                participated: thread.participated,
            }));
        }
        if bundle.edit.is_some() || !bundle.references.is_empty() || bundle.thread.is_some() {
            bundles.insert(t.of.event.sn, bundle);
        }
    }
    Ok(bundles)
}

/// Those to which something relates that is told of.
async fn told<'a, R: Reads>(tx: &mut R, events: &[Beheld<'a>]) -> Result<Vec<Told<'a>>> {
    let asked: Vec<_> = events.iter().map(|b| args![b.event.room_sn, &b.event.event_id].to_vec()).collect();
    let mut told = Vec::new();
    if asked.is_empty() {
        return Ok(told);
    }
    for (of, rows) in events.iter().zip(tx.query_each(WHICH, &asked).await?) {
        let Some(mut row) = rows.into_iter().next() else { continue };
        let (edits, references, threaded): (bool, bool, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let parent = Parent::of(&of.event.json).map_err(corrupt)?;
        let wants = Wants {
            // Edits of what has been redacted are not told of any more; a thread or a reference remains.
            edit: edits && parent.can_be_replaced() && of.event.redacted_by.is_none(),
            references: references && !parent.is_state,
            thread: threaded && parent.can_be_root(),
        };
        if wants.edit || wants.references || wants.thread {
            told.push(Told { of: *of, parent, wants });
        }
    }
    Ok(told)
}

/// What a thread comes to, as it is added up by sender.
struct Sum {
    count: i64,
    participated: bool,
    /// Where its newest event stands, and whose that is.
    newest: i64,
    by: String,
}

/// Of the threads of these roots, by the roots' places in the list; without those who are ignored.
async fn sums<R: Reads>(tx: &mut R, who: Onlooker<'_>, roots: &[&Told<'_>]) -> Result<BTreeMap<usize, Sum>> {
    let (mut asked, mut of) = (Vec::new(), Vec::new());
    for (i, root) in roots.iter().enumerate() {
        for (low, high) in root.of.seen {
            asked.push(args![root.of.event.room_sn, &root.of.event.event_id, *low, *high].to_vec());
            of.push(i);
        }
    }
    let mut sums = BTreeMap::new();
    if asked.is_empty() {
        return Ok(sums);
    }
    for (i, rows) in of.into_iter().zip(tx.query_each(THREADED, &asked).await?) {
        for mut row in rows {
            let (sender, count, newest): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if who.ignored.holds(&sender) {
                continue;
            }
            let participated = roots[i].parent.sender == who.user_id;
            let sum = sums.entry(i).or_insert(Sum { count: 0, participated, newest, by: String::new() });
            sum.count += count;
            sum.participated |= sender == who.user_id;
            if newest >= sum.newest {
                (sum.newest, sum.by) = (newest, sender);
            }
        }
    }
    Ok(sums)
}

/// By the number of the root.
async fn threads<'a, R: Reads>(tx: &mut R, who: Onlooker<'_>, told: &[Told<'a>]) -> Result<BTreeMap<i64, Newest<'a>>> {
    let roots: Vec<&Told<'a>> = told.iter().filter(|t| t.wants.thread).collect();
    let sums = sums(tx, who, &roots).await?;
    let newest = |(i, sum): (&usize, &Sum)| {
        let root = roots[*i].of.event;
        args![root.room_sn, &root.event_id, sum.newest].to_vec()
    };
    let asked: Vec<Vec<Value>> = sums.iter().map(newest).collect();
    let mut threads = BTreeMap::new();
    if asked.is_empty() {
        return Ok(threads);
    }
    for ((i, sum), rows) in sums.into_iter().zip(tx.query_each(NEWEST, &asked).await?) {
        let Beheld { event, seen } = roots[i].of;
        for mut row in rows {
            let (rel_type, by): (String, String) = (row.get(0)?, row.get(1)?);
            if rel_type == THREAD && by == sum.by {
                let Sum { count, participated, by: sender, .. } = sum;
                let (sn, event_id, kind) = (row.get(2)?, row.get(3)?, row.get(4)?);
                let room_sn = event.room_sn;
                threads.insert(event.sn, Newest { seen, room_sn, sender, count, participated, sn, event_id, kind });
                break;
            }
        }
    }
    Ok(threads)
}

/// By the number of the event, that of its newest edit: of the events themselves, and of the newest in their threads.
async fn edits<R: Reads>(
    tx: &mut R,
    told: &[Told<'_>],
    threads: &BTreeMap<i64, Newest<'_>>,
) -> Result<HashMap<i64, i64>> {
    let (mut asked, mut of) = (Vec::new(), Vec::new());
    let mut ask = |sn: i64, row: [Value; 4], seen: &[Stretch]| {
        for (low, high) in seen {
            asked.push(row.iter().cloned().chain([(*low).into(), (*high).into()]).collect::<Vec<_>>());
            of.push(sn);
        }
    };
    for Told { of: Beheld { event, seen }, parent, .. } in told.iter().filter(|t| t.wants.edit) {
        let Parent { sender, kind, .. } = parent;
        ask(event.sn, [event.room_sn.into(), (&event.event_id).into(), sender.into(), kind.into()], seen);
    }
    for Newest { sn, room_sn, event_id, sender, kind, seen, .. } in threads.values() {
        ask(*sn, [(*room_sn).into(), event_id.into(), sender.into(), kind.into()], seen);
    }
    let mut newest: HashMap<i64, (i64, String, i64)> = HashMap::new();
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    for (sn, rows) in of.into_iter().zip(tx.query_each(EDIT, &asked).await?) {
        for mut row in rows {
            let edit = (row.get(0)?, row.get(1)?, row.get(2)?);
            let before = newest.entry(sn).or_insert_with(|| edit.clone());
            *before = before.clone().max(edit);
        }
    }
    Ok(newest.into_iter().map(|(sn, (_, _, edit))| (sn, edit)).collect())
}

/// By the number of the event, the ids of those that refer to it.
async fn references<R: Reads>(
    tx: &mut R,
    who: Onlooker<'_>,
    told: &[Told<'_>],
    threads: &BTreeMap<i64, Newest<'_>>,
) -> Result<HashMap<i64, Vec<String>>> {
    let (mut asked, mut of) = (Vec::new(), Vec::new());
    let mut ask = |sn: i64, room_sn: i64, event_id: &str, seen: &[Stretch]| {
        // The newest first, as they are read.
        for (low, high) in seen.iter().rev() {
            asked.push(args![room_sn, event_id, *low, *high].to_vec());
            of.push(sn);
        }
    };
    for Told { of: Beheld { event, seen }, .. } in told.iter().filter(|t| t.wants.references) {
        ask(event.sn, event.room_sn, &event.event_id, seen);
    }
    for thread in threads.values() {
        ask(thread.sn, thread.room_sn, &thread.event_id, thread.seen);
    }
    let mut references: HashMap<i64, Vec<String>> = HashMap::new();
    if asked.is_empty() {
        return Ok(references);
    }
    for (sn, rows) in of.into_iter().zip(tx.query_each(REFERENCES, &asked).await?) {
        for mut row in rows {
            let (event_id, sender): (String, String) = (row.get(0)?, row.get(1)?);
            let those = references.entry(sn).or_default();
            if !who.ignored.holds(&sender) && those.len() < MOST_REFERENCES {
                those.push(event_id);
            }
        }
    }
    for those in references.values_mut() {
        those.reverse();
    }
    Ok(references)
}
