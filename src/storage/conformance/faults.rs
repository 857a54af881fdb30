//! What happens to operations when Postgres, or the way to it, fails.

use std::{
    path::Path,
    sync::atomic::AtomicU8,
    time::{Duration, Instant},
};

use futures_util::future::join3;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
};

use super::*;
use crate::{
    postgres::Postgres,
    testing::{Recorder, admin, in_empty_schema, on_postgres, postgres_url},
    tx::Engine,
};

impl Store {
    fn lane_id(&self) -> &str {
        match self.engine() {
            Either::Postgres(postgres) => &postgres.lane_id,
            Either::Sqlite(_) => panic!("SQLite has no lane"),
        }
    }

    /// Has the server cut all connections of this engine.
    async fn cut_connections(&self) {
        let id = self.lane_id();
        let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%{id}'");
        admin(self.url(), &cut).await;
    }

    /// Each of `names` is in the log once.
    async fn logged_once(&self, mut names: Vec<String>) {
        let mut log: Vec<String> = self.log().await.into_iter().map(|(_, who)| who).collect();
        log.sort();
        names.sort();
        assert_eq!(log, names);
    }
}

#[test]
fn cut_connections_lose_and_double_nothing() {
    on_postgres(|store| async {
        let store = Arc::new(store.prepared().await);
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<JoinHandle<Vec<String>>> = (0..16)
            .map(|caller| {
                let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let name = format!("{caller}/{}", done.len());
                        store.run(1, [Get("x"), Append(name.clone())]).await.expect("the lane settles it by itself");
                        store.read(Values(vec!["x", "y"])).await.expect("a read is done again");
                        done.push(name);
                    }
                    done
                })
            })
            .collect();
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            store.cut_connections().await;
        }
        stop.store(true, Ordering::Relaxed);
        let acknowledged: Vec<String> =
            join_all(callers).await.into_iter().flat_map(|caller| caller.expect("no panic")).collect();
        assert!(acknowledged.len() > 50, "only {}", acknowledged.len());
        store.logged_once(acknowledged).await;
    });
}

/// Stands between the engine and Postgres, on a socket of its own.
struct Proxy {
    folder: tempfile::TempDir,
    at_commit: Arc<AtomicU8>,
    listener: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

const PASS: u8 = 0;
/// The next COMMIT never reaches the server.
const DROP_COMMIT: u8 = 1;
/// The next COMMIT is done, its answer lost.
const DROP_ANSWER: u8 = 2;
/// The next COMMIT is on its way when the connection ends.
const DROP_BOTH: u8 = 3;

/// The message, as the simple query protocol has it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

impl Proxy {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut proxy =
            Self { folder, at_commit: Arc::default(), listener: tokio::spawn(async {}), connections: Arc::default() };
        proxy.listen();
        proxy
    }

    fn listen(&mut self) {
        let path = self.folder.path().join(".s.PGSQL.5432");
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(path).expect("binds");
        let (at_commit, connections) = (Arc::clone(&self.at_commit), Arc::clone(&self.connections));
        self.listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let at_commit = Arc::clone(&at_commit);
                let carried = tokio::spawn(async move {
                    let upstream: PgConnectOptions = postgres_url().parse().expect("a URL");
                    match upstream.get_socket() {
                        Some(folder) => {
                            let path = folder.join(format!(".s.PGSQL.{}", upstream.get_port()));
                            carry(client, UnixStream::connect(path).await.expect("connects"), &at_commit).await;
                        }
                        None if upstream.get_host().starts_with('/') => {
                            let path = Path::new(upstream.get_host()).join(format!(".s.PGSQL.{}", upstream.get_port()));
                            carry(client, UnixStream::connect(path).await.expect("connects"), &at_commit).await;
                        }
                        None => {
                            let to = (upstream.get_host(), upstream.get_port());
                            carry(client, TcpStream::connect(to).await.expect("connects"), &at_commit).await;
                        }
                    }
                });
                connections.lock().expect("not poisoned").push(carried);
            }
        });
    }

    /// As if the server were gone.
    fn stop(&self) {
        self.listener.abort();
        for connection in self.connections.lock().expect("not poisoned").drain(..) {
            connection.abort();
        }
        std::fs::remove_file(self.folder.path().join(".s.PGSQL.5432")).expect("removes");
    }

    async fn store(&self, url: &str, patience: Duration) -> Store {
        let options: PgConnectOptions = url.parse().expect("a URL");
        let options = options.socket(self.folder.path()).port(5432);
        let sink = Arc::new(Recorder::default());
        let engine = Postgres::start(options, 4, 8192, patience, Arc::clone(&sink) as _).await.expect("opens");
        Store::of(engine, url, sink)
    }
}

async fn carry(client: UnixStream, server: impl AsyncRead + AsyncWrite, at_commit: &AtomicU8) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut question, mut answer) = ([0; 65536], [0; 65536]);
    loop {
        tokio::select! {
            read = from_client.read(&mut question) => {
                let Ok(n @ 1..) = read else { return };
                let commit = question[..n].windows(COMMIT.len()).any(|w| w == COMMIT);
                let what = if commit { at_commit.swap(PASS, Ordering::SeqCst) } else { PASS };
                if what == DROP_COMMIT || to_server.write_all(&question[..n]).await.is_err() {
                    return;
                }
                if what == DROP_ANSWER {
                    drop(from_server.read(&mut answer).await);
                }
                if what != PASS {
                    return;
                }
            }
            read = from_server.read(&mut answer) => {
                let Ok(n @ 1..) = read else { return };
                if to_client.write_all(&answer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[test]
fn a_commit_whose_answer_is_lost_is_settled() {
    in_empty_schema(|url| async move {
        let proxy = Proxy::start();
        let store = proxy.store(&url, Duration::from_secs(10)).await.prepared().await;
        let mut names = Vec::new();
        for round in 0..30 {
            let what = [DROP_COMMIT, DROP_ANSWER, DROP_BOTH][round % 3];
            proxy.at_commit.store(what, Ordering::SeqCst);
            let some: Vec<String> = (0..8).map(|i| format!("{round}/{i}")).collect();
            for answer in join_all(some.iter().map(|name| store.run(1, [Append(name.clone()), room(1)]))).await {
                answer.expect("settled");
            }
            assert_eq!(proxy.at_commit.load(Ordering::SeqCst), PASS, "the fault did happen");
            names.extend(some);
        }
        store.logged_once(names).await;
        let told = store.sink.take();
        assert!(told.is_sorted_by(|a, b| a.last < b.first), "{told:?}");
        let last = told.last().expect("told").last;
        assert_eq!(store.log().await.last().expect("logged").0, last, "each commit was told once, settled or not");
        assert_eq!(store.head().await.expect("reads"), last);
    });
}

#[test]
fn outside_the_lane_a_commit_of_unknown_outcome_is_said_to_be_so() {
    in_empty_schema(|url| async move {
        let proxy = Proxy::start();
        let store = proxy.store(&url, Duration::from_secs(10)).await.prepared().await;
        store.run(0, [Put("n", 0)]).await.expect("written");
        for (what, then) in [(DROP_COMMIT, 0), (DROP_ANSWER, 1)] {
            proxy.at_commit.store(what, Ordering::SeqCst);
            let answer = store.run(0, [Bump("n")]).await;
            assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
            assert_eq!(store.value("n").await, Some(then));
        }
        store.run(0, [Bump("n")]).await.expect("goes on");
        assert_eq!(store.value("n").await, Some(2));
    });
}

#[test]
fn while_postgres_is_away_callers_get_errors_and_then_it_goes_on() {
    in_empty_schema(|url| async move {
        let mut proxy = Proxy::start();
        let store = proxy.store(&url, Duration::from_millis(300)).await.prepared().await;
        store.run(1, [Put("a", 1)]).await.expect("written");
        proxy.stop();
        let begun = Instant::now();
        let writes = join_all((0..200).map(|i| store.run(i % 2, [Put("a", 2)]))).await;
        assert!(writes.iter().all(|a| matches!(a, Err(Error::Unavailable(_)))), "{writes:?}");
        let reads = join_all((0..20).map(|_| store.head())).await;
        assert!(reads.iter().all(|a| matches!(a, Err(Error::Unavailable(_)))), "{reads:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        proxy.listen();
        while store.run(1, [Put("a", 3)]).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(15), "it does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(store.value("a").await, Some(3));
    });
}

#[test]
fn two_processes_start_at_once_on_an_empty_database() {
    in_empty_schema(|url| async move {
        let open = || Postgres::open(&url, 2, 100, Arc::new(Recorder::default()));
        let (a, b, c) = join3(open(), open(), open()).await;
        for engine in [a, b, c] {
            engine.expect("opens").close().await.expect("closes");
        }
    });
}

#[test]
fn a_lane_whose_mark_was_deleted_makes_a_new_one() {
    on_postgres(|store| async {
        let store = store.prepared().await;
        admin(store.url(), "DELETE FROM lane_marks").await;
        store.run(1, [Append("a".into())]).await.expect("written");
        store.logged_once(vec!["a".into()]).await;
    });
}

#[test]
fn every_text_column_compares_by_bytes() {
    on_postgres(|store| async move {
        let others = "DO $$ BEGIN IF EXISTS (SELECT 1 FROM information_schema.columns WHERE table_schema = \
            current_schema() AND table_name <> 'schema_migrations' AND data_type = 'text' AND \
            collation_name IS DISTINCT FROM 'C') THEN RAISE 'another collation'; END IF; END $$";
        admin(store.url(), others).await;
    });
}
