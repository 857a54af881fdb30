//! An operation in a queue, with somebody who waits for its answer.

use std::{
    any::{Any, TypeId},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::oneshot;

use crate::{
    error::{Error, Result},
    metrics_names as names,
    tally::Tally,
    tx::{Answer, Op, Query, Reads, Tx},
};

/// An operation of any type, queued for an engine whose transaction is `T`.
pub(crate) trait Job<T>: Send {
    fn positions(&self) -> u32;
    /// Runs the operation and keeps what it returned; may be called again from the start.
    fn run<'a>(&'a mut self, tx: &'a mut T) -> BoxFuture<'a, Result<()>>;
    /// Whether it may be run together with others of its kind.
    fn merges(&self) -> bool;
    /// Runs it together with others, which all merge. `Ok` means that each has its answer; an error that none has.
    fn run_with<'a>(&'a mut self, others: &'a mut [Box<dyn Job<T>>], tx: &'a mut T) -> BoxFuture<'a, Result<()>>;
    fn kind(&self) -> TypeId;
    fn any(&mut self) -> &mut (dyn Any + Send);
    /// The answer is this error, whatever the operation returned.
    fn fail(&mut self, error: Error);
    /// Tells the caller.
    fn answer(self: Box<Self>);
}

/// How many of these jobs, from the first on, can be run together.
pub(crate) fn together<T>(jobs: &[Box<dyn Job<T>>]) -> usize {
    let Some((first, others)) = jobs.split_first() else { return 0 };
    if !first.merges() {
        return 1;
    }
    1 + others.iter().take_while(|job| job.merges() && job.kind() == first.kind()).count()
}

struct Queued<O: Op> {
    op: O,
    tally: Arc<Tally>,
    out: Option<Result<O::Out>>,
    reply: oneshot::Sender<Result<O::Out>>,
}

/// The operation as a job, and the caller's end of it.
pub(crate) fn queued<T: Tx, O: Op>(op: O, tally: &Arc<Tally>) -> (Box<dyn Job<T>>, Reply<O::Out>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Queued { op, tally: Arc::clone(tally), out: None, reply }), Reply(answer))
}

impl<O: Op, T: Tx> Job<T> for Queued<O> {
    fn positions(&self) -> u32 {
        self.op.positions()
    }

    fn run<'a>(&'a mut self, tx: &'a mut T) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let before = tx.statements();
            let out = AssertUnwindSafe(self.op.run(tx)).catch_unwind().await.unwrap_or_else(|_| Err(panicked(O::NAME)));
            self.tally.add(O::NAME, 1, tx.statements() - before);
            let verdict = out.as_ref().map(|_| ()).map_err(Clone::clone);
            self.out = Some(out);
            verdict
        })
    }

    fn merges(&self) -> bool {
        self.op.merges()
    }

    fn run_with<'a>(&'a mut self, others: &'a mut [Box<dyn Job<T>>], tx: &'a mut T) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut all = vec![self];
            for other in others {
                let other = other.any().downcast_mut::<Self>();
                all.push(other.ok_or_else(|| Error::Internal(format!("{} was to be merged with another", O::NAME)))?);
            }
            let before = tx.statements();
            let ops: Vec<&O> = all.iter().map(|job| &job.op).collect();
            let outs = AssertUnwindSafe(O::run_merged(&ops, tx)).catch_unwind().await;
            let outs = outs.unwrap_or_else(|_| Err(panicked(O::NAME)))?;
            all[0].tally.add(O::NAME, all.len() as u64, tx.statements() - before);
            if outs.len() != all.len() {
                return Err(Error::Internal(format!("{}: not an answer for each", O::NAME)));
            }
            for (job, out) in all.into_iter().zip(outs) {
                job.out = Some(out);
            }
            Ok(())
        })
    }

    fn kind(&self) -> TypeId {
        TypeId::of::<Self>()
    }

    fn any(&mut self) -> &mut (dyn Any + Send) {
        self
    }

    fn fail(&mut self, error: Error) {
        self.out = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        let out = self.out.unwrap_or_else(|| Err(Error::Internal(format!("{} was never run", O::NAME))));
        metrics::counter!(names::OPERATIONS, "operation" => O::NAME, "outcome" => outcome(&out)).increment(1);
        // A caller that went away has given up on the answer, not on the operation.
        drop(self.reply.send(out));
    }
}

/// Where the answer will come.
pub(crate) struct Reply<T>(oneshot::Receiver<Result<T>>);

impl<T: Send + 'static> Reply<T> {
    /// The answer, or what kept the job out of the queue.
    pub(crate) fn after(self, queued: Result<()>) -> Answer<'static, T> {
        Box::pin(async move {
            queued?;
            self.0.await.unwrap_or_else(|_| Err(Error::Unavailable("storage stopped before it answered".into())))
        })
    }
}

/// A read of any type, queued for an engine whose snapshot is `R`.
pub(crate) trait Look<R>: Send {
    /// It runs at most one statement.
    fn single(&self) -> bool;
    fn wanted(&self) -> bool;
    /// Runs the query and keeps what it returned; may be called again from the start.
    fn run<'a>(&'a mut self, tx: &'a mut R) -> BoxFuture<'a, Result<()>>;
    fn fail(&mut self, error: Error);
    fn answer(self: Box<Self>);
}

struct QueuedRead<Q: Query> {
    query: Q,
    tally: Arc<Tally>,
    out: Option<Result<Q::Out>>,
    reply: oneshot::Sender<Result<Q::Out>>,
}

/// The query as a job, and the caller's end of it.
pub(crate) fn queued_read<R: Reads, Q: Query>(query: Q, tally: &Arc<Tally>) -> (Box<dyn Look<R>>, Reply<Q::Out>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(QueuedRead { query, tally: Arc::clone(tally), out: None, reply }), Reply(answer))
}

impl<Q: Query, R: Reads> Look<R> for QueuedRead<Q> {
    fn single(&self) -> bool {
        Q::SINGLE
    }

    fn wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run<'a>(&'a mut self, tx: &'a mut R) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let (started, before) = (std::time::Instant::now(), tx.statements());
            let out =
                AssertUnwindSafe(self.query.run(tx)).catch_unwind().await.unwrap_or_else(|_| Err(panicked(Q::NAME)));
            metrics::histogram!(names::READ_SECONDS, "operation" => Q::NAME).record(started.elapsed());
            self.tally.add(Q::NAME, 1, tx.statements() - before);
            let verdict = out.as_ref().map(|_| ()).map_err(Clone::clone);
            self.out = Some(out);
            verdict
        })
    }

    fn fail(&mut self, error: Error) {
        self.out = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        let out = self.out.unwrap_or_else(|| Err(Error::Internal(format!("{} was never run", Q::NAME))));
        if out.is_err() {
            metrics::counter!(names::READ_FAILURES, "operation" => Q::NAME, "outcome" => outcome(&out)).increment(1);
        }
        drop(self.reply.send(out));
    }
}

fn panicked(name: &str) -> Error {
    Error::Internal(format!("{name} panicked"))
}

fn outcome<T>(out: &Result<T>) -> &'static str {
    match out {
        Ok(_) => "ok",
        Err(Error::Conflict(_)) => "conflict",
        Err(Error::Unavailable(_)) => "unavailable",
        Err(_) => "error",
    }
}

/// The wakes of a batch, each once, in the order of their first call.
pub(crate) fn without_repeats(wakes: Vec<crate::tx::Wake>) -> Vec<crate::tx::Wake> {
    let mut seen = std::collections::HashSet::with_capacity(wakes.len());
    wakes.into_iter().filter(|wake| seen.insert(wake.clone())).collect()
}
