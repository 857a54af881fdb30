//! Connections for all that need not wait for the lane. The newest idle one is used first. None is tested before it is
//! lent out: who meets a dead one takes another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::session::Session;
use crate::error::{Error, Result};

pub(super) struct Pool {
    options: PgConnectOptions,
    idle: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
}

/// The right to a connection. A connection that is not given back is closed.
pub(super) struct Permit(#[allow(dead_code)] OwnedSemaphorePermit); // held, not read

impl Pool {
    pub(super) fn new(options: PgConnectOptions, size: usize) -> Self {
        Self { options, idle: Mutex::default(), permits: Arc::new(Semaphore::new(size.max(1))) }
    }

    pub(super) async fn take(&self, deadline: Instant) -> Result<(Session, Permit)> {
        let permit = match timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Permit(permit),
            Ok(Err(_)) => return Err(Error::Unavailable("storage is closed".into())),
            Err(_) => return Err(Error::Unavailable("all connections to Postgres are busy".into())),
        };
        let idle = self.idle().pop();
        let session = match idle {
            Some(session) => session,
            None => Session::connect(&self.options, deadline).await?,
        };
        Ok((session, permit))
    }

    /// Outside a transaction.
    pub(super) fn give_back(&self, session: Session, permit: Permit) {
        self.idle().push(session);
        drop(permit);
    }

    /// A connection was lost, so the others that are idle probably were too.
    pub(super) fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    pub(super) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        for session in idle {
            session.close().await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
