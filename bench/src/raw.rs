//! What the machine gives without a Matrix server: the floor under every other figure.

use std::{
    convert::Infallible,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    http::Http,
    load::{Shape, sample_event},
    report::{Running, Times, Watched},
};

/// A bare loop ends by time; this is only so that it could not do otherwise.
const MOST: u64 = 1_000_000;

pub async fn run(shape: &Shape, limit: Duration) -> Result<()> {
    bare_http(shape, limit).await?;
    bare_sync(shape, limit).await?;
    for batch in [1, 8, 64] {
        bare_sqlite(shape, limit, batch).await?;
    }
    if let Some(url) = &shape.raw_postgres {
        for batch in [1, 8, 64] {
            bare_postgres(url, shape, limit, batch).await?;
        }
    }
    Ok(())
}

/// A server that reads the request and answers an event id, measured with the client that measures the real one.
async fn bare_http(shape: &Shape, limit: Duration) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
                TokioIo::new(stream),
                service_fn(|request: Request<Incoming>| async {
                    let _ = request.into_body().collect().await;
                    let reply = Response::new(Full::new(Bytes::from_static(
                        br#"{"event_id":"$0000000000000000000000000000000000000000000"}"#,
                    )));
                    Ok::<_, Infallible>(reply)
                }),
            ));
        }
    });
    let http = Http::new(&target)?;
    let body =
        Bytes::from(json!({"msgtype": "m.text", "body": "x".repeat(usize::try_from(shape.bytes())?)}).to_string());
    let running = Running::begin("raw-http", &Watched::default()).await;
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let parts = try_join_all((0..shape.senders()).map(|_| async {
        let mut times = Times::new();
        let mut ops = 0_u64;
        while next.fetch_add(1, Ordering::Relaxed) < MOST && began.elapsed() < limit {
            let sent = Instant::now();
            http.send_bytes(Method::PUT, "/send", Some("token"), Some(body.clone()), Duration::from_secs(10))
                .await?
                .ok()?;
            times.add(sent.elapsed());
            ops += 1;
        }
        anyhow::Ok((times, ops))
    }))
    .await?;
    let mut times = Times::new();
    for part in &parts {
        times.merge(&part.0);
    }
    let extra = json!({"senders": shape.senders(), "note": "client and server in one process"});
    running.end(parts.iter().map(|part| part.1).sum(), 0, &times, extra).await;
    server.abort();
    Ok(())
}

pub async fn bare_sync(shape: &Shape, limit: Duration) -> Result<()> {
    let running = Running::begin("raw-fdatasync", &Watched::default()).await;
    let times = sync_times(&shape.raw_folder, limit)?;
    running.end(times.len(), 0, &times, json!({"bytes": 4096})).await;
    Ok(())
}

/// One page written in place and forced to the disk, again and again.
pub fn sync_times(folder: &Path, limit: Duration) -> Result<Times> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let (mut times, mut ops, began) = (Times::new(), 0_u64, Instant::now());
    while ops < MOST && began.elapsed() < limit {
        let sent = Instant::now();
        file.seek(SeekFrom::Start((ops % 256) * 4096))?;
        file.write_all(&[u8::try_from(ops % 251)?; 4096])?;
        rustix::fs::fdatasync(&file)?;
        times.add(sent.elapsed());
        ops += 1;
    }
    Ok(times)
}

fn rows(shape: &Shape, first: u64, batch: u64) -> Vec<(i64, String, Value)> {
    (first..first + batch)
        .map(|number| (i64::try_from(number).unwrap_or(0), format!("${number:043}"), sample_event(shape.bytes())))
        .collect()
}

const TABLE: &str =
    "CREATE TABLE bench_events (pos BIGINT PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, json TEXT NOT NULL)";

/// Inserts as an event needs at the least, `batch` of them a commit, each commit on the disk when it returns.
async fn bare_sqlite(shape: &Shape, limit: Duration, batch: u64) -> Result<()> {
    let folder = tempfile::tempdir_in(&shape.raw_folder)?;
    let mut connection = rusqlite::Connection::open(folder.path().join("bench.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute(TABLE, [])?;
    let running = Running::begin("raw-sqlite", &Watched::default()).await;
    let (mut times, mut ops, began) = (Times::new(), 0_u64, Instant::now());
    while ops < MOST && began.elapsed() < limit {
        let sent = Instant::now();
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO bench_events VALUES (?1, ?2, ?3)")?;
            for (pos, event_id, json) in rows(shape, ops, batch) {
                insert.execute((pos, event_id, json.to_string()))?;
            }
        }
        transaction.commit()?;
        times.add(sent.elapsed());
        ops += batch;
    }
    running.end(ops, 0, &times, json!({"ops_per_commit": batch, "synchronous": "FULL"})).await;
    Ok(())
}

async fn bare_postgres(url: &str, shape: &Shape, limit: Duration, batch: u64) -> Result<()> {
    let host = url.split('@').next_back().unwrap_or_default();
    Http::new(&format!("http://{host}")).context("the database has to be on this machine")?;
    let (mut client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute("DROP TABLE IF EXISTS bench_events").await?;
    client.batch_execute(TABLE).await?;
    let insert =
        client.prepare("INSERT INTO bench_events SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[])").await?;
    let running = Running::begin("raw-postgres", &Watched::default()).await;
    let (mut times, mut ops, began) = (Times::new(), 0_u64, Instant::now());
    while ops < MOST && began.elapsed() < limit {
        let sent = Instant::now();
        let (mut positions, mut ids, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for (pos, event_id, json) in rows(shape, ops, batch) {
            positions.push(pos);
            ids.push(event_id);
            events.push(json.to_string());
        }
        let transaction = client.transaction().await?;
        transaction.execute(&insert, &[&positions, &ids, &events]).await?;
        transaction.commit().await?;
        times.add(sent.elapsed());
        ops += batch;
    }
    running.end(ops, 0, &times, json!({"ops_per_commit": batch, "connections": 1})).await;
    client.batch_execute("DROP TABLE bench_events").await?;
    drop(client);
    connection.await??;
    Ok(())
}
