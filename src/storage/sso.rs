//! Logins at identity providers: what browsers are in the middle of, and what of it is old.

pub mod confirmations;
pub mod external;
pub mod logouts;
pub mod tokens;

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    INSERT_FLOW = "INSERT INTO sso_flows (key_hash, cookie_hash, step, data, expires_ms) VALUES ($1, $2, $3, $4, $5)";
    FLOW = "SELECT cookie_hash, data FROM sso_flows WHERE key_hash = $1 AND step = $2 AND expires_ms > $3";
    TAKE_FLOW = "DELETE FROM sso_flows WHERE key_hash = $1 AND cookie_hash = $2 AND step = $3 AND expires_ms > $4 \
        RETURNING data";
    PURGE_FLOWS = "DELETE FROM sso_flows WHERE key_hash IN \
        (SELECT key_hash FROM sso_flows WHERE expires_ms <= $1 LIMIT $2)";
    PURGE_LOGIN_TOKENS = "DELETE FROM login_tokens WHERE token_hash IN \
        (SELECT token_hash FROM login_tokens WHERE expires_ms <= $1 LIMIT $2)";
    PURGE_CONFIRMATIONS = "DELETE FROM sso_confirmations WHERE session_hash IN \
        (SELECT session_hash FROM sso_confirmations WHERE expires_ms <= $1 LIMIT $2)";
    PURGE_LOGOUTS = "DELETE FROM sso_logouts WHERE expires_ms <= $1";
}

/// Something that a browser is in the middle of. What names it, and the browser's cookie, never come here.
#[derive(Clone)]
pub struct NewFlow {
    pub key_hash: [u8; 32],
    pub cookie_hash: [u8; 32],
    pub step: &'static str,
    pub data: String,
    pub expires_ms: i64,
}

/// The same as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub cookie_hash: Vec<u8>,
    pub data: String,
}

/// What browsers are in the middle of.
pub trait SsoFlows: Send + Sync {
    fn keep_flow(&self, flow: NewFlow) -> Answer<'_, ()>;
    /// What is known of a flow that waits for this step. It stays.
    fn flow(&self, key_hash: [u8; 32], step: &'static str, now_ms: i64) -> Answer<'_, Option<Flow>>;
    /// What is known of a flow that waits for this step of this browser, to one caller only: it is gone then.
    fn take_flow(
        &self,
        key_hash: [u8; 32],
        cookie_hash: [u8; 32],
        step: &'static str,
        now_ms: i64,
    ) -> Answer<'_, Option<String>>;
    /// Forgets about `limit` flows, login tokens and confirmations each that are of no use any more; how many there were.
    fn purge_sso(&self, now_ms: i64, limit: u32) -> Answer<'_, u64>;
}

impl<E: Engine> SsoFlows for Sql<E> {
    fn keep_flow(&self, flow: NewFlow) -> Answer<'_, ()> {
        self.0.write(KeepFlow(flow))
    }

    fn flow(&self, key_hash: [u8; 32], step: &'static str, now_ms: i64) -> Answer<'_, Option<Flow>> {
        self.0.read(FindFlow { key_hash, step, now_ms })
    }

    fn take_flow(
        &self,
        key_hash: [u8; 32],
        cookie_hash: [u8; 32],
        step: &'static str,
        now_ms: i64,
    ) -> Answer<'_, Option<String>> {
        self.0.write(TakeFlow { key_hash, cookie_hash, step, now_ms })
    }

    fn purge_sso(&self, now_ms: i64, limit: u32) -> Answer<'_, u64> {
        self.0.write(Purge { now_ms, limit })
    }
}

struct KeepFlow(NewFlow);

impl Op for KeepFlow {
    const NAME: &'static str = "keep_flow";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let NewFlow { key_hash, cookie_hash, step, data, expires_ms } = &self.0;
        tx.execute(INSERT_FLOW, args![&key_hash[..], &cookie_hash[..], *step, data, *expires_ms]).await?;
        Ok(())
    }
}

struct FindFlow {
    key_hash: [u8; 32],
    step: &'static str,
    now_ms: i64,
}

impl Query for FindFlow {
    const NAME: &'static str = "flow";
    const SINGLE: bool = true;
    type Out = Option<Flow>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Flow>> {
        let row = tx.query_opt(FLOW, args![&self.key_hash[..], self.step, self.now_ms]).await?;
        row.map(|mut row| Ok(Flow { cookie_hash: row.get(0)?, data: row.get(1)? })).transpose()
    }
}

struct TakeFlow {
    key_hash: [u8; 32],
    cookie_hash: [u8; 32],
    step: &'static str,
    now_ms: i64,
}

impl Op for TakeFlow {
    const NAME: &'static str = "take_flow";
    type Out = Option<String>;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<String>> {
        let args = args![&self.key_hash[..], &self.cookie_hash[..], self.step, self.now_ms];
        tx.query_opt(TAKE_FLOW, args).await?.as_mut().map(|row| row.get(0)).transpose()
    }
}

struct Purge {
    now_ms: i64,
    limit: u32,
}

impl Op for Purge {
    const NAME: &'static str = "purge_sso";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let mut gone = tx.execute(PURGE_LOGOUTS, args![self.now_ms]).await?;
        for purge in [PURGE_FLOWS, PURGE_LOGIN_TOKENS, PURGE_CONFIRMATIONS] {
            gone += tx.execute(purge, args![self.now_ms, i64::from(self.limit)]).await?;
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
