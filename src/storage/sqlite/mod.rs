//! The SQLite engine: one writer thread with group commit, and a few reader threads.

mod migrate;
mod queue;
mod readers;
mod session;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use crate::{
    error::{Error, Result},
    job::{queued, queued_read},
    tally::Tally,
    tx::{Answer, CommitSink, Engine, Op, Query},
};
use queue::Queue;
use readers::ReadQueue;
use session::Session;
use writer::{WriteQueue, Writer};

pub(crate) struct Sqlite {
    writes: Arc<WriteQueue>,
    reads: Arc<ReadQueue>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    tally: Arc<Tally>,
}

impl Sqlite {
    /// Blocks while it migrates.
    pub(crate) fn open(path: &Path, readers: usize, queue: usize, sink: Arc<dyn CommitSink>) -> Result<Self> {
        let mut session = Session::writer(path)?;
        migrate::migrate(&mut session)?;
        let engine = Self {
            writes: Arc::new(Queue::new(queue)),
            reads: Arc::new(Queue::new(queue)),
            readers: Mutex::default(),
            writer: Mutex::default(),
            tally: Arc::default(),
        };
        let writer = Writer::new(Arc::clone(&engine.writes), session, sink);
        *lock(&engine.writer) = Some(spawn("sqlite-writer", move || writer.run())?);
        for _ in 0..readers.max(1) {
            let session = Session::reader(path)?;
            let queue = Arc::clone(&engine.reads);
            lock(&engine.readers).push(spawn("sqlite-reader", move || readers::run(queue, session))?);
        }
        Ok(engine)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
    spawned.map_err(|e| Error::Unavailable(format!("cannot start the thread {name}: {e}")))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine for Sqlite {
    fn write<O: Op>(&self, op: O) -> Answer<'static, O::Out> {
        let (job, reply) = queued(op, &self.tally);
        reply.after(self.writes.push(job))
    }

    fn read<Q: Query>(&self, query: Q) -> Answer<'static, Q::Out> {
        let (job, reply) = queued_read(query, &self.tally);
        reply.after(self.reads.push(job))
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn close(&self) -> Answer<'static, ()> {
        self.writes.close();
        self.reads.close();
        // Readers first: the writer's last checkpoint then empties the WAL.
        let mut threads = std::mem::take(&mut *lock(&self.readers));
        threads.extend(lock(&self.writer).take());
        Box::pin(async {
            let joined =
                tokio::task::spawn_blocking(|| threads.into_iter().map(JoinHandle::join).all(|end| end.is_ok()));
            match joined.await {
                Ok(true) => Ok(()),
                _ => Err(Error::Internal("a storage thread had panicked".into())),
            }
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
    }
}

/// What is read from one end to the other: small tables, the first rows of a table in its own order, and what a statement
/// has put together itself. Anything else is a plan that goes wrong once there is much.
#[cfg(test)]
const SCANS: [&str; 32] = [
    "accounts::ERASED users",
    "directory::COUNT published_rooms",
    "directory::PUBLISHED r",
    "directory::PUBLISHED_BACK r",
    "key_backup::keys::END first",
    "key_backup::keys::END_IN_ROOM first",
    "keys::lists::CHANGED l",
    "keys::lists::CHANGED o",
    "keys::lists::CHANGED others",
    "migrate::APPLIED schema_migrations",
    "postgres::lane::DROP_OLD_MARKS lane_marks",
    "pushers::marks::MARK_ALL pushers",
    "registration_tokens::ANY_USER users",
    "sessions::PURGE_REVOCATIONS revocations",
    "stream::KEYS signing_keys",
    "sync_page::summaries::FIRST_MEMBERS w",
    "timeline::VISIBILITY_LOG c",
    "to_device::ACKNOWLEDGE stream_head",
    "unread::count::COUNT s",
    "unread::count::COUNT_OWN s",
    "unread::read::IN_CLASSES b",
    "unread::read::IN_CLASSES c",
    "unread::read::IN_CLASSES d",
    "unread::read::IN_CLASSES p",
    "unread::read::IN_CLASSES s",
    "unread::read::UNREAD b",
    "unread::read::UNREAD c",
    "unread::read::UNREAD k",
    "unread::read::UNREAD p",
    "unread::read::UNREAD s",
    "unread::read::UNREAD w",
    "user_directory::SEARCH d",
];

/// Compiles each statement, and holds what we think it does against what SQLite thinks.
#[cfg(test)]
pub(crate) fn check(path: &Path, statements: &[crate::tx::Stmt], bulks: &[crate::tx::Bulk]) -> Result<()> {
    let mut session = Session::writer(path)?;
    let mut scanned = Vec::new();
    for stmt in statements {
        let reads = session.check(*stmt)?;
        // A CREATE of what is there would do nothing, and counts as a read.
        assert!(reads == stmt.reads || stmt.sql.starts_with("CREATE"), "{stmt:?} is taken for what it is not");
        let tables = session.scans(*stmt)?;
        let name = stmt.name.trim_start_matches("hearth_storage::");
        // Lists of parameters and constants are no tables.
        let tables = tables.into_iter().filter(|table| !["rarray", "CONSTANT"].contains(&table.as_str()));
        scanned.extend(tables.map(|table| format!("{name} {table}")));
    }
    scanned.retain(|scan| !scan.starts_with("conformance::") && !SCANS.contains(&scan.as_str()));
    assert_eq!(scanned, [""; 0], "statements that look through all there is");
    bulks.iter().try_for_each(|bulk| session.check_bulk(*bulk))
}
