//! Connections to addresses that were looked at.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Uri, uri::Scheme};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tower::{BoxError, Service};

use super::guard::Guard;

/// The longest that somebody may take to answer a call.
const CONNECT: Duration = Duration::from_secs(10);
/// Of a name that has more addresses these are tried.
const MOST_ADDRESSES: usize = 8;

/// Where the addresses of a name come from.
pub trait Resolve: Send + Sync + 'static {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The machine's own way: its hosts file, its name servers.
pub struct System;

impl Resolve for System {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// The address that a host is by itself. (A URL that was parsed has it in its plain form, however it was written.)
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// None of the host's addresses may be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0} may not be reached from here")]
pub(super) struct Forbidden(pub(super) String);

#[derive(Clone)]
pub(super) struct Guarded {
    guard: Arc<Guard>,
    names: Arc<dyn Resolve>,
}

impl Guarded {
    pub(super) fn new(guard: Arc<Guard>, names: Arc<dyn Resolve>) -> Self {
        Self { guard, names }
    }

    pub(super) async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        let host = uri.host().ok_or("a URL names a host")?;
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
        let found = match literal(host) {
            Some(address) => vec![address],
            None => self.names.addresses(host).await?,
        };
        // What is looked at here is what is called: to ask for the name again would be to get another answer.
        let open = found.into_iter().filter(|address| self.guard.allows(host, *address));
        let mut failed: BoxError = Forbidden(host.to_owned()).into();
        for address in open.take(MOST_ADDRESSES) {
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Err(e) => failed = e.into(),
            }
        }
        Err(failed)
    }
}

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.clone().connect(uri);
        Box::pin(async move { timeout(CONNECT, connecting).await.unwrap_or_else(|e| Err(e.into())) })
    }
}
