//! Who is asking.

use std::net::IpAddr;

use futures_util::future::BoxFuture;
use hearth_core::{Error, Result};
use ruma::{OwnedDeviceId, OwnedUserId};

/// The user and the device behind an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    /// May use the administration API.
    pub admin: bool,
    /// How many endings of sessions were known when it was looked up, see `Sessions::ended_since`.
    pub as_of: u64,
}

/// Finds the session of an access token.
pub trait Authenticator: Send + Sync + 'static {
    /// Fails with `UnknownToken`, `UserLocked` or `UserDeactivated` as the case may be.
    fn authenticate(&self, token: &str) -> BoxFuture<'_, Result<Session>>;

    /// Told of each authenticated request, for "last seen". Must be quick: it is called before the request is served.
    fn seen(&self, session: &Session, ip: IpAddr, user_agent: Option<&str>) {
        let _ = (session, ip, user_agent);
    }
}

/// Knows no token at all.
#[derive(Debug, Default)]
pub struct NoSessions;

impl Authenticator for NoSessions {
    fn authenticate(&self, _token: &str) -> BoxFuture<'_, Result<Session>> {
        Box::pin(async { Err(Error::unknown_token("Unknown access token")) })
    }
}
