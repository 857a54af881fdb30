//! The lane: the one task of this process through which all operations pass that take positions.
//!
//! A batch of waiting operations shares one transaction. Its first round trip raises the head of the stream, which makes
//! the lanes of all processes take turns: so positions become visible in their order, and two batches never wait for each
//! other. It also writes the number of the batch into the lane's own row, by which a COMMIT whose answer was lost is
//! settled.
//!
//! First the operations run without savepoints, which is a third quicker. One that fails before it wrote has harmed
//! nobody; after any other failure the batch is rolled back and run once more, with a savepoint for each.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Row as _, postgres::PgConnectOptions};
use tokio::{sync::mpsc, time::Instant};

use super::{
    session::{Fault, Session},
    tx::PgTx,
};
use crate::{
    error::{Error, Result},
    job::{Job, together, without_repeats},
    metrics_names as names,
    migrate::now_ms,
    tx::{CommitSink, Committed, args, statements},
};

/// The most operations in one commit.
const BATCH: usize = 64;
/// Marks of lanes that are so old are of processes long gone.
const MARK_DAYS: i64 = 7;
/// While the database is away, who comes is refused at once, and a new connection is tried as often as this.
const TRY_AGAIN: Duration = Duration::from_millis(500);

statements! {
    ADD_MARK = "INSERT INTO lane_marks (lane, batch, started_ms) VALUES ($1, $2, $3) ON CONFLICT (lane) DO NOTHING";
    DROP_OLD_MARKS = "DELETE FROM lane_marks WHERE started_ms < $1";
}

pub(super) struct Lane {
    options: PgConnectOptions,
    id: String,
    patience: Duration,
    /// The number of the last batch tried.
    batch: i64,
    tx: Option<PgTx>,
    /// Set while the database is away: when to try again.
    away_until: Option<Instant>,
    sink: Arc<dyn CommitSink>,
}

/// Why an attempt at a batch did not end well.
enum Trouble {
    /// An operation failed after it had written: with savepoints.
    Dirty,
    Again,
    Lost,
    /// The connection was lost at COMMIT.
    Unsettled(Committed),
    /// Somebody deleted our mark.
    Unmarked,
    Fatal(Error),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost(why) => {
                tracing::warn!(why, "the lane lost its connection");
                Self::Lost
            }
            Fault::Again(why) => {
                tracing::info!(why, "a batch of writes runs again");
                Self::Again
            }
            Fault::Sql(error) => Self::Fatal(error),
        }
    }
}

impl Lane {
    pub(super) async fn start(
        options: &PgConnectOptions,
        id: String,
        patience: Duration,
        sink: Arc<dyn CommitSink>,
    ) -> Result<Self> {
        let options = options.clone().application_name(&format!("hearth lane {id}"));
        let mut lane = Self { options, id, patience, batch: 0, tx: None, away_until: None, sink };
        let begin = async {
            let old = now_ms() - MARK_DAYS * 24 * 3_600_000;
            let tx = lane.connection(Instant::now() + patience).await?;
            tx.session.execute(DROP_OLD_MARKS, args![old]).await?;
            lane.mark().await
        };
        match begin.await {
            Ok(()) => Ok(lane),
            Err(Trouble::Fatal(error)) => Err(error),
            Err(_) => Err(Error::Unavailable("Postgres went away".into())),
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Job<PgTx>>>) {
        let waiting = metrics::gauge!(names::QUEUE_OPERATIONS);
        let sizes = metrics::histogram!(names::BATCH_OPERATIONS);
        let seconds = metrics::histogram!(names::COMMIT_SECONDS);
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut jobs, BATCH).await > 0 {
            waiting.set(queue.len() as f64);
            sizes.record(jobs.len() as f64);
            let started = Instant::now();
            let outcome = self.batch(&mut jobs).await;
            seconds.record(started.elapsed());
            match outcome {
                Ok(Some(commit)) => self.sink.committed(commit),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, operations = jobs.len(), "a batch of writes was given up");
                    for job in &mut jobs {
                        job.fail(error.clone());
                    }
                }
            }
            for job in jobs.drain(..) {
                job.answer();
            }
        }
        if let Some(tx) = self.tx {
            tx.session.close().await;
        }
    }

    /// Runs the batch until it is in, or until patience ends.
    async fn batch(&mut self, jobs: &mut [Box<dyn Job<PgTx>>]) -> Result<Option<Committed>> {
        let deadline = Instant::now() + self.patience;
        let mut savepoints = false;
        let mut pause = Duration::from_millis(1);
        loop {
            let trouble = match self.attempt(jobs, savepoints, deadline).await {
                Ok(commit) => return Ok(commit),
                Err(trouble) => trouble,
            };
            let reason = match trouble {
                Trouble::Fatal(error) => {
                    self.roll_back().await;
                    return Err(error);
                }
                Trouble::Dirty => "dirty",
                Trouble::Again => "deadlock",
                Trouble::Lost | Trouble::Unsettled(_) | Trouble::Unmarked => "lost",
            };
            metrics::counter!(names::BATCH_RERUNS, "reason" => reason).increment(1);
            match trouble {
                Trouble::Dirty => {
                    savepoints = true;
                    self.roll_back().await;
                    continue;
                }
                Trouble::Unmarked => {
                    self.roll_back().await;
                    // If this fails, the next attempt finds out why.
                    drop(self.mark().await);
                }
                Trouble::Again => {
                    self.roll_back().await;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
                Trouble::Lost => self.tx = None,
                Trouble::Unsettled(commit) => {
                    self.tx = None;
                    if self.settled(deadline).await? {
                        return Ok(Some(commit));
                    }
                }
                Trouble::Fatal(error) => {
                    self.roll_back().await;
                    return Err(error);
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Unavailable("the database did not take the write in time".into()));
            }
        }
    }

    async fn attempt(
        &mut self,
        jobs: &mut [Box<dyn Job<PgTx>>],
        savepoints: bool,
        deadline: Instant,
    ) -> Result<Option<Committed>, Trouble> {
        self.batch += 1;
        let count: i64 = jobs.iter().map(|job| i64::from(job.positions())).sum();
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             UPDATE stream_head SET pos = pos + {count} WHERE id = 1 RETURNING pos; \
             UPDATE lane_marks SET batch = {}, started_ms = {} WHERE lane = '{}'",
            self.batch,
            now_ms(),
            self.id
        );
        let tx = self.connection(deadline).await?;
        tx.wakes.clear();
        tx.messages.clear();
        let (changed, rows) = tx.session.script_rows(AssertSqlSafe(begin)).await?;
        let [_, 1, marks] = changed[..] else {
            return Err(Trouble::Fatal(Error::Corrupt("the stream has no head row".into())));
        };
        if marks == 0 {
            return Err(Trouble::Unmarked);
        }
        let head = rows.first().and_then(|row| row.try_get::<i64, _>(0).ok());
        let last = head.ok_or_else(|| Trouble::Fatal(Error::Corrupt("the head of the stream is no number".into())))?;

        let mut next = last - count + 1;
        let first = next;
        let mut keep = false;
        let mut rest = jobs;
        while !rest.is_empty() {
            let n = if savepoints { 1 } else { together(rest) };
            let (now, later) = rest.split_at_mut(n);
            let end = next + now.iter().map(|job| i64::from(job.positions())).sum::<i64>();
            keep |= operations(tx, now, next..end, savepoints).await?;
            next = end;
            rest = later;
        }
        // When nothing was written and no position given out there is nothing to make durable.
        let wakes = without_repeats(std::mem::take(&mut tx.wakes));
        let messages = std::mem::take(&mut tx.messages);
        if !keep {
            tx.session.control("ROLLBACK").await?;
            return Ok((!wakes.is_empty()).then_some(Committed { first: 1, last: 0, wakes, messages }));
        }
        let commit = Committed { first, last, wakes, messages };
        match tx.session.control("COMMIT").await {
            Ok(_) => Ok(Some(commit)),
            Err(Fault::Lost(why)) => {
                tracing::warn!(why, "the lane lost its connection at a COMMIT");
                Err(Trouble::Unsettled(commit))
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Whether the last batch is in. Waits for a server process that may still be at it: that one holds the row, which
    /// is why the row is asked for by its lane alone (one that is passed over for its number is not waited for).
    async fn settled(&mut self, deadline: Instant) -> Result<bool> {
        let unknown = || Error::Unavailable("the database went away at a COMMIT: it may have happened".into());
        let question = format!("SELECT batch FROM lane_marks WHERE lane = '{}' FOR UPDATE", self.id);
        loop {
            let answer = match self.connection(deadline).await {
                Ok(tx) => tx.session.script_rows(AssertSqlSafe(question.clone())).await.map_err(Trouble::from),
                Err(trouble) => Err(trouble),
            };
            match answer {
                Ok((_, rows)) => {
                    let batch = rows.first().ok_or_else(unknown)?.try_get::<i64, _>(0).map_err(|_| unknown())?;
                    return Ok(batch == self.batch);
                }
                Err(Trouble::Fatal(_)) => return Err(unknown()),
                Err(_) if Instant::now() >= deadline => return Err(unknown()),
                Err(_) => self.tx = None,
            }
        }
    }

    /// The connection, made anew if it was lost.
    async fn connection(&mut self, deadline: Instant) -> Result<&mut PgTx, Trouble> {
        if self.tx.is_none() {
            let until = match self.away_until {
                Some(until) if Instant::now() < until => {
                    return Err(Trouble::Fatal(Error::Unavailable("Postgres cannot be reached".into())));
                }
                Some(_) => Instant::now(),
                None => deadline,
            };
            let session = Session::connect(&self.options, until).await;
            self.away_until = session.is_err().then(|| Instant::now() + TRY_AGAIN);
            let mut session = session.map_err(Trouble::Fatal)?;
            // A process that is stopped inside a transaction must not stop all others for long.
            session.control("SET idle_in_transaction_session_timeout = 5000").await?;
            self.tx = Some(PgTx::new(session));
        }
        self.tx.as_mut().ok_or(Trouble::Lost)
    }

    async fn mark(&mut self) -> Result<(), Trouble> {
        let Some(tx) = self.tx.as_mut() else { return Err(Trouble::Lost) };
        tx.session.execute(ADD_MARK, args![&self.id, self.batch, now_ms()]).await?;
        Ok(())
    }

    async fn roll_back(&mut self) {
        if let Some(tx) = self.tx.as_mut()
            && tx.session.control("ROLLBACK").await.is_err()
        {
            self.tx = None;
        }
    }
}

/// Runs one operation of a batch, or some that go together; whether they left anything to commit.
async fn operations(
    tx: &mut PgTx,
    jobs: &mut [Box<dyn Job<PgTx>>],
    positions: std::ops::Range<i64>,
    savepoint: bool,
) -> Result<bool, Trouble> {
    let Some((job, others)) = jobs.split_first_mut() else { return Ok(false) };
    let alone = others.is_empty();
    let (wakes, messages) = (tx.wakes.len(), tx.messages.len());
    let reserved = positions.clone();
    if savepoint {
        tx.session.control("SAVEPOINT operation").await?;
    }
    tx.enter(positions);
    let verdict = if alone { job.run(tx).await } else { job.run_with(others, tx).await };
    let (failed, harm) = match tx.fault.take() {
        Some(Fault::Sql(error)) => {
            job.fail(error);
            (true, true)
        }
        Some(fault) => return Err(fault.into()),
        None => (verdict.is_err(), tx.wrote),
    };
    if failed {
        if !alone {
            // They have no answers: each is run by itself.
            return Err(Trouble::Dirty);
        }
        tx.wakes.truncate(wakes);
        tx.messages.truncate(messages);
        if savepoint {
            tx.session.control("ROLLBACK TO operation; RELEASE operation").await?;
        } else if harm {
            return Err(Trouble::Dirty);
        }
        return Ok(false);
    }
    if savepoint {
        tx.session.control("RELEASE operation").await?;
    }
    Ok(tx.wrote || tx.positions != reserved)
}
