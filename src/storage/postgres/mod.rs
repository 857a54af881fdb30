//! The Postgres engine: a lane for operations that take positions, a pool for all others and for reads.
//!
//! The driver does not set `TCP_NODELAY`: over a real network a large request may wait for a delayed acknowledgement.
//! Prefer a Unix socket where there is one, and measure before trusting a remote database with the latency of a send.

mod lane;
mod migrate;
mod pool;
mod session;
mod tx;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    job::{Job, Look, queued, queued_read, without_repeats},
    tally::Tally,
    tx::{Answer, CommitSink, Committed, Engine, Op, Query},
};
use lane::Lane;
use pool::{Permit, Pool};
use session::{Fault, Session};
use tx::{PgRead, PgTx};

/// More than there are statements: each is parsed once a connection.
const STATEMENT_CACHE: usize = 1024;
/// How long an operation waits for a database that is away.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Postgres {
    lane: Mutex<Option<mpsc::Sender<Box<dyn Job<PgTx>>>>>,
    lane_task: Mutex<Option<JoinHandle<()>>>,
    #[cfg(test)]
    pub(crate) lane_id: String,
    pooled: Arc<Pooled>,
    /// One for each operation and read outside the lane that may wait or run.
    slots: Arc<Semaphore>,
    all_slots: u32,
    runtime: Handle,
    tally: Arc<Tally>,
}

/// What work outside the lane needs.
struct Pooled {
    pool: Pool,
    patience: Duration,
    sink: Arc<dyn CommitSink>,
}

impl Postgres {
    pub(crate) async fn open(url: &str, pool: usize, queue: usize, sink: Arc<dyn CommitSink>) -> Result<Self> {
        let options = url.parse::<PgConnectOptions>();
        // The text of the error may hold the password.
        let options =
            options.map_err(|_| Error::Unavailable("the URL of the Postgres database is not valid".into()))?;
        Self::start(options, pool, queue, PATIENCE, sink).await
    }

    /// `patience`: how long an operation waits for a database that is away.
    pub(crate) async fn start(
        options: PgConnectOptions,
        pool: usize,
        queue: usize,
        patience: Duration,
        sink: Arc<dyn CommitSink>,
    ) -> Result<Self> {
        let id = format!("{:016x}", rand_id());
        let options = options
            .statement_cache_capacity(STATEMENT_CACHE)
            .application_name(&format!("hearth pool {id}"))
            .disable_statement_logging();
        migrate::migrate(&options, Instant::now() + patience).await?;

        let lane = Lane::start(&options, id.clone(), patience, Arc::clone(&sink)).await?;
        let (jobs, waiting) = mpsc::channel(queue.max(1));
        let runtime = Handle::current();
        let all_slots = u32::try_from(queue.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Ok(Self {
            lane: Mutex::new(Some(jobs)),
            lane_task: Mutex::new(Some(runtime.spawn(lane.run(waiting)))),
            #[cfg(test)]
            lane_id: id,
            pooled: Arc::new(Pooled { pool: Pool::new(options, pool), patience, sink }),
            slots: Arc::new(Semaphore::new(all_slots as usize)),
            all_slots,
            runtime,
            tally: Arc::default(),
        })
    }

    fn to_lane(&self, job: Box<dyn Job<PgTx>>) -> Result<()> {
        let lane = lock(&self.lane);
        let Some(lane) = lane.as_ref() else { return Err(closed()) };
        lane.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Unavailable("too much is waiting".into()),
            mpsc::error::TrySendError::Closed(_) => Error::Unavailable("the writer is gone".into()),
        })
    }

    /// Starts work outside the lane. It runs to its end even if its caller goes away, so no connection is left half way.
    fn begin<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<Pooled>) -> F) -> Result<()> {
        if lock(&self.lane).is_none() {
            return Err(closed());
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot = slot.map_err(|_| Error::Unavailable("too much is waiting".into()))?;
        let work = work(Arc::clone(&self.pooled));
        self.runtime.spawn(async {
            work.await;
            drop(slot);
        });
        Ok(())
    }
}

fn closed() -> Error {
    Error::Unavailable("storage is closed".into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Differs between processes and between starts; nothing secret hangs on it.
fn rand_id() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

impl Engine for Postgres {
    fn write<O: Op>(&self, op: O) -> Answer<'static, O::Out> {
        let in_lane = op.positions() > 0;
        let (job, reply) = queued(op, &self.tally);
        let started = if in_lane { self.to_lane(job) } else { self.begin(|pooled| write(pooled, job)) };
        reply.after(started)
    }

    fn read<Q: Query>(&self, query: Q) -> Answer<'static, Q::Out> {
        let (job, reply) = queued_read(query, &self.tally);
        reply.after(self.begin(|pooled| read(pooled, job)))
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn close(&self) -> Answer<'static, ()> {
        // Without a sender the lane ends when its queue is empty.
        drop(lock(&self.lane).take());
        let lane = lock(&self.lane_task).take();
        let (slots, all, pooled) = (Arc::clone(&self.slots), self.all_slots, Arc::clone(&self.pooled));
        Box::pin(async move {
            if let Some(lane) = lane {
                lane.await.map_err(|_| Error::Internal("the writer had panicked".into()))?;
            }
            let idle = slots.acquire_many(all).await;
            pooled.pool.close().await;
            drop(idle);
            Ok(())
        })
    }
}

/// Runs an operation that takes no position.
async fn write(pooled: Arc<Pooled>, mut job: Box<dyn Job<PgTx>>) {
    let deadline = Instant::now() + pooled.patience;
    let mut pause = Duration::from_millis(1);
    loop {
        let (session, permit) = match pooled.pool.take(deadline).await {
            Ok(taken) => taken,
            Err(error) => {
                job.fail(error);
                break;
            }
        };
        let mut tx = PgTx::new(session);
        match transaction(&mut tx, job.as_mut()).await {
            Ok(()) => {
                let wakes = without_repeats(std::mem::take(&mut tx.wakes));
                if tx.wrote || !wakes.is_empty() {
                    pooled.sink.committed(Committed { first: 1, last: 0, wakes, messages: Vec::new() });
                }
                pooled.pool.give_back(tx.session, permit);
                break;
            }
            Err(End::Failed) => {
                give_back_rolled(&pooled.pool, tx.session, permit).await;
                break;
            }
            Err(End::Unknown(why)) => {
                pooled.pool.forget_idle();
                job.fail(Error::Unavailable(format!("{why}; it may have happened")));
                break;
            }
            Err(End::Fault(fault)) => {
                match &fault {
                    Fault::Lost(_) => pooled.pool.forget_idle(),
                    Fault::Again(_) | Fault::Sql(_) => give_back_rolled(&pooled.pool, tx.session, permit).await,
                }
                if matches!(fault, Fault::Sql(_)) || Instant::now() + pause >= deadline {
                    job.fail(fault.into_error());
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(200));
            }
        }
    }
    job.answer();
}

/// How a transaction outside the lane did not end in a commit.
enum End {
    /// The operation said no; the job knows why.
    Failed,
    Fault(Fault),
    /// The connection was lost at COMMIT. There is no mark here to settle it by, and not every operation may happen twice.
    Unknown(String),
}

async fn transaction(tx: &mut PgTx, job: &mut dyn Job<PgTx>) -> Result<(), End> {
    tx.session.control("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(End::Fault)?;
    tx.enter(0..0);
    let verdict = job.run(tx).await;
    if let Some(fault) = tx.fault.take() {
        return Err(End::Fault(fault));
    }
    if verdict.is_err() {
        return Err(End::Failed);
    }
    tx.session.control("COMMIT").await.map_err(|fault| match fault {
        Fault::Lost(why) if tx.wrote => End::Unknown(why),
        fault => End::Fault(fault),
    })?;
    Ok(())
}

async fn give_back_rolled(pool: &Pool, mut session: Session, permit: Permit) {
    if session.control("ROLLBACK").await.is_ok() {
        pool.give_back(session, permit);
    }
}

async fn read(pooled: Arc<Pooled>, mut job: Box<dyn Look<PgRead>>) {
    let deadline = Instant::now() + pooled.patience;
    loop {
        if !job.wanted() {
            return;
        }
        let (session, permit) = match pooled.pool.take(deadline).await {
            Ok(taken) => taken,
            Err(error) => {
                job.fail(error);
                return job.answer();
            }
        };
        let single = job.single();
        let mut tx = PgRead::new(session, single);
        let lost = look(&mut tx, job.as_mut(), single).await;
        if lost && Instant::now() < deadline {
            pooled.pool.forget_idle();
            continue;
        }
        // The answer does not wait for the end of the transaction.
        job.answer();
        if !lost && (single || tx.session.control("COMMIT").await.is_ok()) {
            pooled.pool.give_back(tx.session, permit);
        }
        return;
    }
}

/// Runs a read; whether the connection was lost under it.
async fn look(tx: &mut PgRead, job: &mut dyn Look<PgRead>, single: bool) -> bool {
    if !single && let Err(fault) = tx.session.control("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await {
        let lost = matches!(fault, Fault::Lost(_));
        job.fail(fault.into_error());
        return lost;
    }
    // The job keeps its answer, the error too.
    drop(job.run(tx).await);
    matches!(tx.fault, Some(Fault::Lost(_)))
}

#[cfg(test)]
pub(crate) const STATEMENTS: (&[crate::tx::Stmt], &[crate::tx::Bulk]) = (lane::ALL, lane::ALL_BULK);

/// Compiles each statement.
#[cfg(test)]
pub(crate) async fn check(url: &str, statements: &[crate::tx::Stmt], bulks: &[crate::tx::Bulk]) -> Result<()> {
    let options = url.parse::<PgConnectOptions>().expect("the tests' own URL");
    let mut session = Session::connect(&options, Instant::now() + PATIENCE).await?;
    for stmt in statements {
        session.check(stmt.name, stmt.sql.to_owned()).await?;
    }
    for bulk in bulks {
        session.check(bulk.name, session::bulk_text(*bulk)).await?;
    }
    Ok(())
}
