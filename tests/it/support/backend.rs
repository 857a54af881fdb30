//! The databases that tests run on.

use std::{path::Path, sync::Arc};

use hearth::config::{Addresses, Backend, Config, Secret};
use tempfile::TempDir;

use super::{Server, bucket::Bucket};

/// A test on SQLite and again on Postgres.
macro_rules! each_backend {
    ($($(#[$meta:meta])* async fn $name:ident($given:ident: Given) $body:block)*) => { $(
        mod $name {
            #[allow(unused_imports, reason = "not every story needs its file's imports")]
            use super::*;

            async fn story($given: &$crate::support::Given) $body

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                story(&$crate::support::Given::sqlite()).await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let given = $crate::support::Given::postgres().await;
                story(&given).await;
                given.clean_up().await;
            }
        }
    )* };
}
pub(crate) use each_backend;

/// A test on both back ends, with files in folders and again with files in a bucket.
macro_rules! each_store {
    ($($(#[$meta:meta])* async fn $name:ident($given:ident: Given) $body:block)*) => { $(
        mod $name {
            #[allow(unused_imports, reason = "not every story needs its file's imports")]
            use super::*;

            async fn story($given: &$crate::support::Given) $body

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_and_folders() {
                story(&$crate::support::Given::sqlite()).await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_and_s3() {
                story(&$crate::support::Given::sqlite().with_bucket()).await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres_and_folders() {
                let given = $crate::support::Given::postgres().await;
                story(&given).await;
                given.clean_up().await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres_and_s3() {
                let given = $crate::support::Given::postgres().await.with_bucket();
                story(&given).await;
                given.clean_up().await;
            }
        }
    )* };
}
pub(crate) use each_store;

/// A database of the test's own, for as many servers as it likes to start.
pub struct Given {
    /// Shared with the servers, which may outlive the rest.
    dir: Arc<TempDir>,
    postgres: Option<Schema>,
    bucket: Option<Bucket>,
}

/// A schema within the database that the environment names; its tables are seen by those connections only that ask.
struct Schema {
    name: String,
    /// Of the whole database.
    admin: String,
}

impl Given {
    pub fn sqlite() -> Self {
        Self { dir: directory(), postgres: None, bucket: None }
    }

    #[cfg(not(feature = "postgres"))]
    pub async fn postgres() -> Self {
        panic!("built without the feature `postgres`");
    }

    #[cfg(feature = "postgres")]
    pub async fn postgres() -> Self {
        let Ok(admin) = std::env::var("HEARTH_TEST_POSTGRES") else {
            panic!("HEARTH_TEST_POSTGRES names no database: `.ci/test` starts one and runs the tests on it");
        };
        let name = format!("it_{}", hearth_core::clock::random_string(&hearth_core::clock::OsRng, 16).to_lowercase());
        let schema = Schema { name, admin };
        schema.run("CREATE SCHEMA").await;
        Self { dir: directory(), postgres: Some(schema), bucket: None }
    }

    /// Files are kept in a bucket, below a prefix of the test's own.
    pub fn with_bucket(self) -> Self {
        Self { bucket: Some(Bucket::new()), ..self }
    }

    /// How many files the media store has.
    pub async fn stored_files(&self) -> usize {
        if let Some(bucket) = &self.bucket {
            return bucket.objects().await;
        }
        files_in(&self.dir.path().join("db/media")) - self.waiting_uploads()
    }

    /// How many uploads the server holds that are not whole yet.
    pub fn waiting_uploads(&self) -> usize {
        files_in(&self.dir.path().join("db/media/incoming"))
    }

    /// Where this test keeps files, if that is not in folders.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.bucket.as_ref()
    }

    /// Does not happen after a failure, so that one can look.
    pub async fn clean_up(self) {
        #[cfg(feature = "postgres")]
        if let Some(schema) = &self.postgres {
            schema.run("DROP SCHEMA CASCADE").await;
        }
    }

    /// Where the test may leave files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a server on this database is started with: any free port, nothing else out of the ordinary.
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.server.server_name = "test.example".try_into().expect("a server name");
        config.http.address = Addresses::One([127, 0, 0, 1].into());
        config.http.port = 0;
        // People in tests do in a second what others do in a day.
        config.limits.rate_limit.enabled = false;
        config.database.database_path = self.dir.path().join("db");
        if let Some(schema) = &self.postgres {
            config.database.database_backend = Backend::Postgres;
            config.database.database_url = Some(Secret::new(schema.url()));
            // Many tests share one Postgres.
            config.database.database_pool_size = 4.try_into().expect("not zero");
        }
        if let Some(bucket) = &self.bucket {
            bucket.configure(&mut config.media.media);
        }
        config
    }

    /// All bytes that the database holds, as files on SQLite and as a dump of all tables on Postgres.
    pub async fn everything_stored(&self) -> Vec<u8> {
        if let Some(schema) = &self.postgres {
            return schema.dump().await.into_bytes();
        }
        let files = std::fs::read_dir(self.dir.path().join("db")).expect("the folder of the database");
        let files = files.map(|file| file.expect("a file").path()).filter(|path| path.is_file());
        files.flat_map(|path| std::fs::read(path).expect("its bytes")).collect()
    }

    pub async fn server(&self) -> Server {
        self.server_with(|_| {}).await
    }

    /// A server with some settings of its own. Called twice, the two share the database.
    pub async fn server_with(&self, change: impl FnOnce(&mut Config)) -> Server {
        let mut config = self.config();
        change(&mut config);
        Server::start(config, self.dir.clone()).await
    }
}

fn files_in(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let within = |path: &Path| if path.is_dir() { files_in(path) } else { 1 };
    entries.map(|entry| within(&entry.expect("an entry").path())).sum()
}

fn directory() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a directory"))
}

impl Schema {
    fn url(&self) -> String {
        let sep = if self.admin.contains('?') { '&' } else { '?' };
        format!("{}{sep}options=-csearch_path%3D{}", self.admin, self.name)
    }

    #[cfg(not(feature = "postgres"))]
    async fn dump(&self) -> String {
        String::new()
    }

    #[cfg(feature = "postgres")]
    async fn dump(&self) -> String {
        use sqlx::{Connection as _, Row as _};

        let mut connection = sqlx::PgConnection::connect(&self.admin).await.expect("the Postgres of the tests");
        let sql = "SELECT schema_to_xml($1::name, true, false, '')::text";
        let row = sqlx::query(sql).bind(&self.name).fetch_one(&mut connection).await.expect("a dump");
        connection.close().await.expect("the end of a connection");
        row.get(0)
    }

    #[cfg(feature = "postgres")]
    async fn run(&self, what: &str) {
        use sqlx::{Connection as _, Executor as _};

        let (verb, cascade) = what.strip_suffix(" CASCADE").map_or((what, ""), |verb| (verb, " CASCADE"));
        let mut connection = sqlx::PgConnection::connect(&self.admin).await.expect("the Postgres of the tests");
        // Where a server still reads what is dropped here, it is the one that has to give way.
        connection.execute("SET deadlock_timeout = '1min'").await.expect("a setting");
        let sql = format!("{verb} {}{cascade}", self.name);
        connection.execute(sqlx::AssertSqlSafe(sql)).await.expect("a schema");
        connection.close().await.expect("the end of a connection");
    }
}
