//! Files up and down: how fast, and how much of them the server holds in memory.

use std::{
    convert::Infallible,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{Method, Request, Response, body::Frame, body::Incoming, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;

use crate::{
    http::Http,
    matrix::User,
    postgres::Postgres,
    process,
    server::{Backend, Server, ServerOptions},
};

const MIB: u64 = 1 << 20;
/// So much is sent at once.
const PIECE: usize = 64 << 10;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// The size of the large file.
    #[arg(long, default_value_t = 500)]
    mib: u64,
    /// How often it goes up and down.
    #[arg(long, default_value_t = 3)]
    times: u32,
    /// How many small files of 64 KiB go up and down, 16 at a time.
    #[arg(long, default_value_t = 2_000)]
    small: u64,
    /// Files are kept there: http://key:secret@127.0.0.1:9000/bucket. Without it, in folders.
    #[arg(long)]
    s3: Option<String>,
}

struct Files {
    user: User,
    base: String,
    client: Client<HttpConnector, BoxBody<Bytes, Infallible>>,
}

pub async fn run(options: Options) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("hearth-bench-").tempdir_in(&options.server.folder)?;
    let postgres = match options.server.backend {
        Backend::Sqlite => None,
        Backend::Postgres => Some(Postgres::start(&options.server.folder)?),
    };
    let mut server = Server::new(&options.server, folder.path(), postgres.as_ref())?;
    server.set("CONDUIT_MAX_REQUEST_SIZE", ((options.mib + 1) * MIB).to_string());
    if let Some(url) = &options.s3 {
        for (name, value) in bucket(url).context("the bucket is http://key:secret@host:port/name")? {
            server.set(name, value);
        }
    }
    server.spawn()?;
    server.ready(Duration::from_secs(60)).await?;
    let measured = measure(&options, &server).await;
    let stopped = server.stop(Duration::from_secs(10)).await;
    if measured.is_err() || stopped.is_err() {
        eprintln!("the server's log ends:\n{}", server.last_log());
    }
    measured?;
    stopped?;
    Ok(true)
}

fn bucket(url: &str) -> Option<Vec<(&'static str, String)>> {
    let (who, place) = url.strip_prefix("http://")?.split_once('@')?;
    let ((key, secret), (host, name)) = (who.split_once(':')?, place.split_once('/')?);
    Some(vec![
        ("CONDUIT_MEDIA__BACKEND", "s3".to_owned()),
        ("CONDUIT_MEDIA__S3_ENDPOINT", format!("http://{host}")),
        ("CONDUIT_MEDIA__S3_BUCKET", name.to_owned()),
        ("CONDUIT_MEDIA__S3_ACCESS_KEY_ID", key.to_owned()),
        ("CONDUIT_MEDIA__S3_SECRET_ACCESS_KEY", secret.to_owned()),
    ])
}

async fn measure(options: &Options, server: &Server) -> Result<()> {
    let user = User::register(&Http::new(&server.url())?, "files").await?;
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let files = Files { user, base: server.url(), client };
    let pid = server.pid()?;
    // What the first request of its kind sets up is no part of what a file takes.
    let warm = files.up(1, PIECE as u64).await?;
    files.down(&warm, PIECE as u64).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = process::usage(&[pid]).rss_kb;
    forget_peak(pid)?;

    let bytes = options.mib * MIB;
    let (mut up, mut down) = (Duration::ZERO, Duration::ZERO);
    let cpu = process::usage(&[pid]).cpu_s;
    for time in 0..options.times {
        let began = Instant::now();
        let uri = files.up(u64::from(time) + 2, bytes).await?;
        up += began.elapsed();
        let began = Instant::now();
        files.down(&uri, bytes).await?;
        down += began.elapsed();
    }
    let cpu = process::usage(&[pid]).cpu_s - cpu;
    let (peak, total) = (peak_kb(pid)?, (bytes * u64::from(options.times)) as f64 / 1e6);
    say(&json!({
        "scenario": "large files", "mib": options.mib, "times": options.times,
        "up_mb_s": round(total / up.as_secs_f64()), "down_mb_s": round(total / down.as_secs_f64()),
        "server_cpu_ms_per_mb_both_ways": round(cpu * 1e3 / total),
        "idle_rss_mib": round(idle as f64 / 1024.0),
        "peak_above_idle_mib": round(peak.saturating_sub(idle) as f64 / 1024.0),
    }));

    let began = Instant::now();
    let small = stream::iter(0..options.small).map(|n| files.up(1_000 + n, PIECE as u64)).buffer_unordered(16);
    let uris: Vec<Result<String>> = small.collect().await;
    let up = began.elapsed();
    let uris = uris.into_iter().collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let got: Vec<Result<()>> =
        stream::iter(&uris).map(|uri| files.down(uri, PIECE as u64)).buffer_unordered(16).collect().await;
    let down = began.elapsed();
    got.into_iter().collect::<Result<()>>()?;
    say(&json!({
        "scenario": "small files", "kib": PIECE >> 10, "files": options.small, "at_once": 16,
        "up_per_s": round(options.small as f64 / up.as_secs_f64()),
        "down_per_s": round(options.small as f64 / down.as_secs_f64()),
        "peak_above_idle_mib": round(peak_kb(pid)?.saturating_sub(idle) as f64 / 1024.0),
    }));
    Ok(())
}

impl Files {
    /// Uploads so many bytes, of which the first are the number: no two files are the same. The URI without its scheme.
    async fn up(&self, number: u64, bytes: u64) -> Result<String> {
        let mut left = bytes;
        let pieces = std::iter::from_fn(move || {
            let size = usize::try_from(left.min(PIECE as u64)).ok().filter(|size| *size > 0)?;
            left -= size as u64;
            let mut piece = vec![0; size];
            for (at, word) in piece.chunks_mut(8).enumerate() {
                let value = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ left.wrapping_add(at as u64);
                word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
            }
            Some(Ok(Frame::data(Bytes::from(piece))))
        });
        let request = self.request(Method::POST, "/_matrix/media/v3/upload")?;
        let request = request
            .header(header::CONTENT_LENGTH, bytes)
            .body(BodyExt::boxed(StreamBody::new(stream::iter(pieces))))?;
        let answer = self.ask(request).await?.into_body().collect().await?.to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let uri = answer["content_uri"].as_str().and_then(|uri| uri.strip_prefix("mxc://"));
        Ok(uri.context("an upload has a URI")?.to_owned())
    }

    async fn down(&self, uri: &str, bytes: u64) -> Result<()> {
        let request = self.request(Method::GET, &format!("/_matrix/client/v1/media/download/{uri}"))?;
        let mut body = self.ask(request.body(http_body_util::Empty::new().boxed())?).await?.into_body();
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            got += frame?.into_data().map_or(0, |data| data.len() as u64);
        }
        ensure!(got == bytes, "{got} bytes of {bytes} came");
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> Result<hyper::http::request::Builder> {
        let uri: hyper::Uri = format!("{}{path}", self.base).parse()?;
        let bearer = format!("Bearer {}", self.user.token);
        Ok(Request::builder().method(method).uri(uri).header(header::AUTHORIZATION, bearer))
    }

    async fn ask(&self, request: Request<BoxBody<Bytes, Infallible>>) -> Result<Response<Incoming>> {
        let answer = self.client.request(request).await?;
        ensure!(answer.status().is_success(), "answered {}", answer.status());
        Ok(answer)
    }
}

/// From now on the peak is counted anew.
fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak of a process of ours can be reset")
}

fn peak_kb(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel knows the peak")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn say(line: &serde_json::Value) {
    println!("{line}");
}
