//! Readers: a few threads, each with a read-only connection of its own, on one queue. No connection changes hands, so a
//! read costs one queue entry and one wake-up.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{
    queue::{Queue, Serving},
    session::Session,
};
use crate::{
    error::{Error, Result},
    job::Look,
    tx::{Reads, Row, Stmt, Value},
};

pub(super) type ReadQueue = Queue<Box<dyn Look<SqliteRead>>>;

/// What one reader thread does until the queue is closed and empty.
pub(super) fn run(queue: Arc<ReadQueue>, session: Session) {
    let serving = Serving(queue);
    let mut read = SqliteRead { session, single: false, statements: 0 };
    let mut jobs = Vec::with_capacity(1);
    while serving.0.take(1, &mut jobs).is_some() {
        for job in jobs.drain(..).filter(|job| job.wanted()) {
            read.serve(job);
        }
    }
}

/// A snapshot.
pub(super) struct SqliteRead {
    session: Session,
    single: bool,
    statements: u32,
}

impl SqliteRead {
    fn serve(&mut self, mut job: Box<dyn Look<Self>>) {
        self.single = job.single();
        self.statements = 0;
        if let Err(error) = self.begin() {
            job.fail(error);
        } else if job.run(self).now_or_never().is_none() {
            job.fail(Error::Internal("the read waited for something outside the database".into()));
        }
        job.answer();
        if !self.session.outside_transaction()
            && let Err(error) = self.session.control("COMMIT")
        {
            tracing::warn!(%error, "a read could not end its transaction");
        }
    }

    /// The snapshot itself is taken by the first statement, thus after the call.
    fn begin(&self) -> Result<()> {
        if self.single { Ok(()) } else { self.session.control("BEGIN DEFERRED") }
    }

    fn may_look(&mut self, stmt: Stmt) -> Result<()> {
        self.statements += 1;
        if self.single && self.statements > 1 {
            return Err(Error::Internal(format!("{}: a second statement in a read announced as single", stmt.name)));
        }
        Ok(())
    }
}

impl Reads for SqliteRead {
    fn statements(&self) -> u64 {
        self.session.statements
    }

    fn query(&mut self, stmt: Stmt, args: &[Value]) -> impl Future<Output = Result<Vec<Row>>> + Send {
        std::future::ready(self.may_look(stmt).and_then(|()| self.session.query(stmt, args)))
    }

    fn query_each(&mut self, stmt: Stmt, rows: &[Vec<Value>]) -> impl Future<Output = Result<Vec<Vec<Row>>>> + Send {
        std::future::ready(self.may_look(stmt).and_then(|()| self.session.query_each(stmt, rows)))
    }
}
