//! An operation in a queue, with somebody who waits for its answer.

use std::{panic::AssertUnwindSafe, sync::Arc};

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
    /// The answer is this error, whatever the operation returned.
    fn fail(&mut self, error: Error);
    /// Tells the caller.
    fn answer(self: Box<Self>);
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
            self.tally.add(O::NAME, tx.statements() - before);
            let verdict = out.as_ref().map(|_| ()).map_err(Clone::clone);
            self.out = Some(out);
            verdict
        })
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
            self.tally.add(Q::NAME, tx.statements() - before);
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
