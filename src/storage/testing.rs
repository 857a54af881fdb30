//! Runs a test on both engines, each time on a fresh database of the full schema.

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt;

use crate::{
    Sql,
    error::Result,
    sqlite::Sqlite,
    tx::{Answer, CommitSink, Committed, Engine, Op, Query},
};

/// Runs `test` on SQLite and on Postgres. The address of a Postgres where schemas may be made comes from
/// `HEARTH_TEST_POSTGRES`; `.ci/test` starts one and sets it.
pub(crate) fn each_backend<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    on_sqlite(&test);
    #[cfg(feature = "postgres")]
    on_postgres(&test);
}

pub(crate) fn on_sqlite<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = Place::Sqlite(folder.path().join("test.db"));
        let store = Store::open(place, 8192).await.expect("SQLite opens");
        outcome("SQLite", test(store)).await;
    });
}

#[cfg(feature = "postgres")]
pub(crate) fn on_postgres<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    in_empty_schema(|url| async {
        let store = Store::open(Place::Postgres(url), 8192).await.expect("Postgres opens");
        outcome("Postgres", test(store)).await;
    });
}

/// Runs `test` with both at once, to compare them.
#[cfg(feature = "postgres")]
pub(crate) fn on_both<F: Future<Output = ()>>(test: impl Fn(Store, Store) -> F) {
    in_empty_schema(|url| async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sqlite = Store::open(Place::Sqlite(folder.path().join("test.db")), 8192).await.expect("SQLite opens");
        let postgres = Store::open(Place::Postgres(url), 8192).await.expect("Postgres opens");
        test(sqlite, postgres).await;
    });
}

/// Runs `test` with the URL of a schema in which nothing is, and drops the schema.
#[cfg(feature = "postgres")]
pub(crate) fn in_empty_schema<F: Future<Output = ()>>(test: impl Fn(String) -> F) {
    use std::sync::atomic::AtomicU32;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    run(async {
        let schema = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let url = postgres_url();
        admin(&url, &format!("CREATE SCHEMA {schema}")).await;
        let joint = if url.contains('?') { '&' } else { '?' };
        let tested = test(format!("{url}{joint}options=-csearch_path%3D{schema}"));
        let tested = AssertUnwindSafe(tested).catch_unwind().await;
        admin(&url, &format!("DROP SCHEMA {schema} CASCADE")).await;
        tested.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

#[cfg(feature = "postgres")]
pub(crate) fn postgres_url() -> String {
    std::env::var("HEARTH_TEST_POSTGRES").expect(
        "HEARTH_TEST_POSTGRES is not set: the storage tests need a Postgres; run them by .ci/test, which starts one, \
         or set it to the URL of a database in which schemas may be made",
    )
}

/// Runs one script past the engines.
#[cfg(feature = "postgres")]
pub(crate) async fn admin(url: &str, sql: &str) {
    use sqlx::Connection;
    let mut conn = sqlx::PgConnection::connect(url).await.expect("HEARTH_TEST_POSTGRES can be reached");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut conn)
        .await
        .expect("HEARTH_TEST_POSTGRES lets us make schemas");
    conn.close().await.expect("closes");
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

async fn outcome(backend: &str, test: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(test).catch_unwind().await {
        eprintln!("failed on {backend}");
        resume_unwind(panic);
    }
}

#[derive(Clone)]
enum Place {
    Sqlite(PathBuf),
    #[cfg(feature = "postgres")]
    Postgres(String),
}

/// An open database, and what its sink was told.
pub(crate) struct Store {
    sql: Sql<Either>,
    pub(crate) sink: Arc<Recorder>,
    place: Place,
}

impl Deref for Store {
    type Target = Sql<Either>;

    fn deref(&self) -> &Self::Target {
        &self.sql
    }
}

impl Store {
    async fn open(place: Place, queue: usize) -> Result<Self> {
        let sink = Arc::new(Recorder::default());
        let told: Arc<dyn CommitSink> = Arc::clone(&sink) as _;
        let engine = match &place {
            Place::Sqlite(path) => Either::Sqlite(Sqlite::open(path, 2, queue, told)?),
            #[cfg(feature = "postgres")]
            Place::Postgres(url) => Either::Postgres(crate::postgres::Postgres::open(url, 4, queue, told).await?),
        };
        Ok(Self { sql: Sql(engine), sink, place })
    }

    /// A second process on the same database.
    pub(crate) async fn beside(&self) -> Self {
        self.beside_with_queue(8192).await
    }

    pub(crate) async fn beside_with_queue(&self, queue: usize) -> Self {
        Self::open(self.place.clone(), queue).await.expect("opens a second time")
    }

    pub(crate) fn path(&self) -> &Path {
        match &self.place {
            Place::Sqlite(path) => path,
            #[cfg(feature = "postgres")]
            Place::Postgres(_) => panic!("Postgres has no path"),
        }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn url(&self) -> &str {
        match &self.place {
            Place::Postgres(url) => url,
            Place::Sqlite(_) => panic!("SQLite has no URL"),
        }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn of(postgres: crate::postgres::Postgres, url: &str, sink: Arc<Recorder>) -> Self {
        Self { sql: Sql(Either::Postgres(postgres)), sink, place: Place::Postgres(url.into()) }
    }

    pub(crate) fn engine(&self) -> &Either {
        &self.sql.0
    }

    pub(crate) fn write<O: Op>(&self, op: O) -> Answer<'static, O::Out> {
        self.sql.0.write(op)
    }

    pub(crate) fn read<Q: Query>(&self, query: Q) -> Answer<'static, Q::Out> {
        self.sql.0.read(query)
    }
}

/// Keeps what a sink is told.
#[derive(Default)]
pub(crate) struct Recorder {
    told: Mutex<Vec<Committed>>,
    /// It panics when it is told the next time.
    pub(crate) broken: AtomicBool,
}

impl Recorder {
    /// What it was told since it was asked last.
    pub(crate) fn take(&self) -> Vec<Committed> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CommitSink for Recorder {
    fn committed(&self, commit: Committed) {
        assert!(!self.broken.load(Ordering::Relaxed), "as told");
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
    }
}

/// Either engine as one type.
pub(crate) enum Either {
    Sqlite(Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(crate::postgres::Postgres),
}

impl Engine for Either {
    fn write<O: Op>(&self, op: O) -> Answer<'static, O::Out> {
        match self {
            Self::Sqlite(engine) => engine.write(op),
            #[cfg(feature = "postgres")]
            Self::Postgres(engine) => engine.write(op),
        }
    }

    fn read<Q: Query>(&self, query: Q) -> Answer<'static, Q::Out> {
        match self {
            Self::Sqlite(engine) => engine.read(query),
            #[cfg(feature = "postgres")]
            Self::Postgres(engine) => engine.read(query),
        }
    }

    fn tally(&self) -> &crate::tally::Tally {
        match self {
            Self::Sqlite(engine) => engine.tally(),
            #[cfg(feature = "postgres")]
            Self::Postgres(engine) => engine.tally(),
        }
    }

    fn close(&self) -> Answer<'static, ()> {
        match self {
            Self::Sqlite(engine) => engine.close(),
            #[cfg(feature = "postgres")]
            Self::Postgres(engine) => engine.close(),
        }
    }
}
