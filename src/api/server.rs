//! Sockets: connections are accepted up to a number, kept no longer than they are used, and let go in an orderly way.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body};
use hearth_core::clock::Rng;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::edge::Edge;
use crate::{
    config::{Http, Subnet},
    telemetry::name,
};

/// What a connection may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: NonZeroU32,
    /// For the head of a request, counted from the connection or the end of the request before.
    pub head: Duration,
    /// For a client that takes nothing of what it is sent.
    pub write: Duration,
    pub trusted: Vec<Subnet>,
}

impl From<&Http> for Limits {
    fn from(config: &Http) -> Self {
        Self {
            connections: config.max_connections,
            head: Duration::from_secs(config.header_read_timeout_s),
            write: Duration::from_secs(config.response_write_timeout_s),
            trusted: config.ip_source_trusted_subnets.clone(),
        }
    }
}

/// Opens a listener on each of the addresses.
pub async fn bind(addresses: impl IntoIterator<Item = IpAddr>, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let at = SocketAddr::new(address, port);
        let listener = TcpListener::bind(at).await;
        listeners.push(listener.map_err(|e| io::Error::new(e.kind(), format!("{at}: {e}")))?);
    }
    Ok(listeners)
}

/// Listeners at work.
pub struct Serving {
    addresses: Vec<SocketAddr>,
    /// Requests that go on without their client.
    running: TaskTracker,
    connections: TaskTracker,
    /// No more connections; those there are close after the answers that they owe.
    stop: CancellationToken,
    /// Whatever is left closes now.
    cut: CancellationToken,
}

impl Serving {
    /// Serves `router` on all `listeners`. `running` is the tracker that the router was made with.
    pub fn start(
        listeners: Vec<TcpListener>,
        router: Router,
        running: TaskTracker,
        rng: Arc<dyn Rng>,
        limits: Limits,
    ) -> io::Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let serving = Self {
            addresses,
            running,
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        let shared = Arc::new(Shared {
            edge: Edge::new(router, limits.trusted, rng),
            http1: http1(limits.head),
            http2: http2(limits.head),
            free: Arc::new(Semaphore::new(limits.connections.get() as usize)),
            head: limits.head,
            write: limits.write,
            connections: serving.connections.clone(),
            stop: serving.stop.clone(),
            cut: serving.cut.clone(),
        });
        for listener in listeners {
            let shared = shared.clone();
            serving.connections.spawn(async move {
                tokio::select! {
                    () = accept(&listener, &shared) => {}
                    () = shared.stop.cancelled() => {}
                }
            });
        }
        Ok(serving)
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes no more connections, answers the requests that are under way, and after `patience` cuts what is left.
    /// Says whether everybody was answered.
    pub async fn stop(self, patience: Duration) -> bool {
        self.stop.cancel();
        self.connections.close();
        self.running.close();
        let answered = async {
            self.connections.wait().await;
            self.running.wait().await;
        };
        let all = timeout(patience, answered).await.is_ok();
        self.cut.cancel();
        self.connections.wait().await;
        all
    }
}

struct Shared {
    edge: Edge,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    free: Arc<Semaphore>,
    head: Duration,
    write: Duration,
    connections: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
}

fn http1(head: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Counted from the end of the request before, so it also ends connections that nobody uses.
    http.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(64 << 10);
    http
}

fn http2(head: Duration) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(head)
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(100)
        .max_header_list_size(64 << 10);
    http
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        // Those beyond the number wait in the kernel's queue.
        let Ok(permit) = shared.free.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                shared.connections.spawn(connection(stream, peer, shared.clone(), permit));
            }
            Err(e) => {
                // The fault of one connection, or of a resource that somebody has to give back first.
                tracing::warn!(error = %e, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, _permit: OwnedSemaphorePermit) {
    let open = metrics::gauge!(name::HTTP_CONNECTIONS);
    open.increment(1);
    // Answers are written whole: waiting to fill a packet would only delay them.
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "TCP_NODELAY");
    }
    let spoken = tokio::select! {
        spoken = timeout(shared.head, speaks_http2(&stream)) => spoken,
        // Who has asked nothing yet is owed nothing.
        () = shared.stop.cancelled() => Ok(Err(io::ErrorKind::ConnectionAborted.into())),
    };
    match spoken {
        Err(_) => tracing::debug!(%peer, "no request came"),
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a connection broke"),
        Ok(Ok(http2)) => {
            if let Err(error) = serve(stream, http2, peer, &shared).await {
                tracing::debug!(%error, %peer, "a connection broke");
            }
        }
    }
    open.decrement(1);
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether the client speaks HTTP/2 without having asked, by its first bytes, which are still to be read after this: who
/// reads them ahead of HTTP/1 makes its buffer twice as large, for as long as the connection lives.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == first.len() || seen == 0 || !HTTP2_PREFACE.starts_with(&first[..seen]) {
            return Ok(first[..seen] == *HTTP2_PREFACE);
        }
        // These few bytes would be told again at once.
        sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(stream: TcpStream, http2: bool, peer: SocketAddr, shared: &Arc<Shared>) -> Result<(), hyper::Error> {
    let service = service_fn(|request: http::Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.edge.answer(peer, request.map(Body::new)).await) }
    });
    let io = TokioIo::new(Patient { stream, write: shared.write, stalled: None });
    if http2 {
        // Boxed, as it is much, and rare.
        Box::pin(drive(shared.http2.serve_connection(io, service), shared)).await
    } else {
        drive(shared.http1.serve_connection(io, service), shared).await
    }
}

/// Until the connection ends, or is told to.
async fn drive<C: GracefulConnection>(conn: C, shared: &Shared) -> Result<(), C::Error> {
    let mut conn = pin!(conn);
    let mut stopping = false;
    loop {
        tokio::select! {
            end = conn.as_mut() => return end,
            () = shared.stop.cancelled(), if !stopping => {
                stopping = true;
                conn.as_mut().graceful_shutdown();
            }
            () = shared.cut.cancelled() => return Ok(()),
        }
    }
}

/// A stream that does not wait for ever for a client that takes nothing of what it is sent.
struct Patient {
    stream: TcpStream,
    write: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn patience<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let write = self.write;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(write))).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.patience(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.patience(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.patience(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
