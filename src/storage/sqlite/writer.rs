//! The one writer: a thread that puts all waiting operations into one commit.
//!
//! First the operations run without savepoints, for which SQLite would keep a copy of each page they touch. One that fails
//! before it wrote has harmed nobody; after any other failure the batch is rolled back and run once more, with a savepoint
//! for each.

use std::{ops::Range, sync::Arc, time::Instant};

use futures_util::FutureExt;

use super::{
    queue::{Queue, Serving},
    session::Session,
};
use crate::{
    error::{Error, Result},
    job::{Job, together, without_repeats},
    metrics_names as names,
    stream::RAISE_HEAD,
    tx::{Bulk, CommitSink, Committed, Message, Reads, Row, Stmt, Tx, Value, Wake, args},
};

/// The most operations in one commit.
const BATCH: usize = 64;

pub(super) type WriteQueue = Queue<Box<dyn Job<SqliteTx>>>;

pub(super) struct Writer {
    queue: Arc<WriteQueue>,
    tx: SqliteTx,
    sink: Arc<dyn CommitSink>,
}

impl Writer {
    pub(super) fn new(queue: Arc<WriteQueue>, session: Session, sink: Arc<dyn CommitSink>) -> Self {
        Self { queue, tx: SqliteTx::new(session), sink }
    }

    pub(super) fn run(mut self) {
        let serving = Serving(Arc::clone(&self.queue));
        let waiting = metrics::gauge!(names::QUEUE_OPERATIONS);
        let sizes = metrics::histogram!(names::BATCH_OPERATIONS);
        let seconds = metrics::histogram!(names::COMMIT_SECONDS);
        let mut jobs = Vec::with_capacity(BATCH);
        while let Some(left) = serving.0.take(BATCH, &mut jobs) {
            waiting.set(left as f64);
            sizes.record(jobs.len() as f64);
            let started = Instant::now();
            let outcome = self.batch(&mut jobs);
            seconds.record(started.elapsed());
            match outcome {
                Ok(Some(commit)) => self.sink.committed(commit),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, operations = jobs.len(), "a batch of writes was rolled back");
                    for job in &mut jobs {
                        job.fail(error.clone());
                    }
                }
            }
            for job in jobs.drain(..) {
                job.answer();
            }
        }
        if let Err(error) = self.tx.session.script("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the last checkpoint failed; the next start will do it");
        }
    }

    /// Runs all in one transaction. An error means that nothing of the batch is stored.
    fn batch(&mut self, jobs: &mut [Box<dyn Job<SqliteTx>>]) -> Result<Option<Committed>> {
        self.tx.savepoints = false;
        let outcome = self.attempt(jobs);
        if !std::mem::take(&mut self.tx.dirty) {
            return outcome;
        }
        metrics::counter!(names::BATCH_RERUNS, "reason" => "dirty").increment(1);
        self.tx.savepoints = true;
        self.attempt(jobs)
    }

    fn attempt(&mut self, jobs: &mut [Box<dyn Job<SqliteTx>>]) -> Result<Option<Committed>> {
        let reserved = self.tx.begin(jobs.iter().map(|job| i64::from(job.positions())).sum());
        let outcome = reserved.and_then(|range| {
            let mut next = range.start;
            let mut keep = false;
            let mut rest = &mut *jobs;
            while !rest.is_empty() {
                let n = if self.tx.savepoints { 1 } else { together(rest) };
                let (now, later) = rest.split_at_mut(n);
                let end = next + now.iter().map(|job| i64::from(job.positions())).sum::<i64>();
                keep |= self.tx.operations(now, next..end)?;
                next = end;
                rest = later;
            }
            // When nothing was written and no position given out there is nothing to make durable.
            self.tx.session.control(if keep { "COMMIT" } else { "ROLLBACK" })?;
            let wakes = without_repeats(std::mem::take(&mut self.tx.wakes));
            let messages = std::mem::take(&mut self.tx.messages);
            let (first, last) = if keep && !range.is_empty() { (range.start, range.end - 1) } else { (1, 0) };
            Ok((keep || !wakes.is_empty()).then_some(Committed { first, last, wakes, messages }))
        });
        if outcome.is_err() {
            self.tx.wakes.clear();
            self.tx.messages.clear();
            if !self.tx.session.outside_transaction() {
                // If even this fails, the next BEGIN fails too, and says so.
                drop(self.tx.session.control("ROLLBACK"));
            }
        }
        outcome
    }
}

/// The transaction of the batch, as the operation that runs sees it.
pub(super) struct SqliteTx {
    session: Session,
    /// What is left of the operation's positions.
    positions: Range<i64>,
    wakes: Vec<Wake>,
    messages: Vec<Message>,
    /// Whether each operation that writes gets a savepoint.
    savepoints: bool,
    /// Set before the operation's first write.
    wrote: bool,
    /// An operation failed after it had written, and had no savepoint.
    dirty: bool,
    /// The first SQL error of the operation. It may swallow it; its changes are undone all the same, as on Postgres.
    failed: Option<Error>,
}

impl SqliteTx {
    fn new(session: Session) -> Self {
        let (wakes, messages) = (Vec::new(), Vec::new());
        Self { session, positions: 0..0, wakes, messages, savepoints: false, wrote: false, dirty: false, failed: None }
    }

    /// Begins, and reserves `count` positions.
    fn begin(&mut self, count: i64) -> Result<Range<i64>> {
        self.session.control("BEGIN IMMEDIATE")?;
        if count == 0 {
            return Ok(0..0);
        }
        let rows = self.session.query(RAISE_HEAD, args![count])?;
        let mut head = rows.into_iter().next().ok_or_else(|| Error::Corrupt("the stream has no head row".into()))?;
        let last: i64 = head.get(0)?;
        Ok(last - count + 1..last + 1)
    }

    /// Runs one operation, or some that go together; whether anything is left to commit. An error means that the whole
    /// transaction is lost.
    fn operations(&mut self, jobs: &mut [Box<dyn Job<Self>>], positions: Range<i64>) -> Result<bool> {
        let Some((job, others)) = jobs.split_first_mut() else { return Ok(false) };
        let (wakes, messages) = (self.wakes.len(), self.messages.len());
        let reserved = positions.clone();
        self.positions = positions;
        self.wrote = false;
        self.failed = None;

        // Each future of this engine is ready at once, so an operation comes to its end in one poll.
        let alone = others.is_empty();
        let ran = if alone { job.run(self) } else { job.run_with(others, self) }.now_or_never();
        let verdict = match (self.failed.take(), ran) {
            (Some(error), _) => Err(error),
            (None, Some(verdict)) => verdict,
            (None, None) => Err(Error::Internal("the operation waited for something outside the database".into())),
        };
        if self.session.outside_transaction() {
            return Err(Error::Unavailable("the database gave the transaction up".into()));
        }
        match verdict {
            Ok(()) => {
                if self.wrote && self.savepoints {
                    self.session.control("RELEASE operation")?;
                }
                Ok(self.wrote || self.positions != reserved)
            }
            // Some that were run together have no answers: each is run by itself.
            Err(error) if !alone || self.wrote && !self.savepoints => {
                self.dirty = true;
                Err(error)
            }
            Err(error) => {
                job.fail(error);
                self.wakes.truncate(wakes);
                self.messages.truncate(messages);
                if self.wrote {
                    self.session.control("ROLLBACK TO operation")?;
                    self.session.control("RELEASE operation")?;
                }
                Ok(false)
            }
        }
    }

    /// An operation that fails before it wrote needs no savepoint.
    fn about_to_write(&mut self) -> Result<()> {
        if self.savepoints && !self.wrote {
            self.session.control("SAVEPOINT operation")?;
        }
        self.wrote = true;
        Ok(())
    }

    fn about_to_run(&mut self, stmt: Stmt) -> Result<()> {
        if stmt.reads { Ok(()) } else { self.about_to_write() }
    }

    fn remember<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let (None, Err(error)) = (&self.failed, &outcome) {
            self.failed = Some(error.clone());
        }
        outcome
    }
}

impl Reads for SqliteTx {
    fn statements(&self) -> u64 {
        self.session.statements
    }

    fn query(&mut self, stmt: Stmt, args: &[Value]) -> impl Future<Output = Result<Vec<Row>>> + Send {
        let outcome = self.about_to_run(stmt).and_then(|()| self.session.query(stmt, args));
        std::future::ready(self.remember(outcome))
    }

    fn query_each(&mut self, stmt: Stmt, rows: &[Vec<Value>]) -> impl Future<Output = Result<Vec<Vec<Row>>>> + Send {
        let outcome = self.about_to_run(stmt).and_then(|()| self.session.query_each(stmt, rows));
        std::future::ready(self.remember(outcome))
    }
}

impl Tx for SqliteTx {
    fn execute(&mut self, stmt: Stmt, args: &[Value]) -> impl Future<Output = Result<u64>> + Send {
        let outcome = self.about_to_write().and_then(|()| self.session.execute(stmt, args));
        std::future::ready(self.remember(outcome))
    }

    fn insert_rows(&mut self, bulk: Bulk, rows: &[Vec<Value>]) -> impl Future<Output = Result<u64>> + Send {
        let outcome = self.about_to_write().and_then(|()| self.session.insert_rows(bulk, rows));
        std::future::ready(self.remember(outcome))
    }

    fn next_pos(&mut self) -> Result<i64> {
        let next = self.positions.next();
        self.remember(next.ok_or_else(|| Error::Internal("more positions were asked for than announced".into())))
    }

    fn wake(&mut self, wake: Wake) {
        self.wakes.push(wake);
    }

    fn message(&mut self, message: Message) {
        self.messages.push(message);
    }
}
