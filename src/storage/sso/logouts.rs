//! Providers that end the sessions which began by them.

use std::collections::BTreeMap;

use crate::{
    Sql,
    error::Result,
    sessions::{self, Ending},
    tx::{Answer, Engine, Op, Row, Tx, args, statements},
};

statements! {
    HEARD = "INSERT INTO sso_logouts (provider, id_hash, expires_ms) VALUES ($1, $2, $3) \
        ON CONFLICT (provider, id_hash) DO NOTHING";
    BY_SID = "SELECT user_id, device_id FROM sso_sessions WHERE provider = $1 AND sid = $2 LIMIT 10000";
    BY_SUBJECT = "SELECT user_id, device_id FROM sso_sessions WHERE provider = $1 AND subject = $2 LIMIT 10000";
    BY_BOTH = "SELECT user_id, device_id FROM sso_sessions WHERE provider = $1 AND sid = $2 AND subject = $3 LIMIT 10000";
    TOKENS_BY_SID = "DELETE FROM login_tokens WHERE provider = $1 AND sid = $2";
    TOKENS_BY_SUBJECT = "DELETE FROM login_tokens WHERE provider = $1 AND subject = $2";
    TOKENS_BY_BOTH = "DELETE FROM login_tokens WHERE provider = $1 AND sid = $2 AND subject = $3";
}

/// A session at a provider belongs to one person, and a person to one account; should it be more, so many are ended.
const MOST_USERS: usize = 8;

/// What a provider says has ended.
#[derive(Clone, Debug)]
pub struct ProviderLogout {
    pub provider: String,
    pub which: Which,
    /// Of the id of what it said, and for how long it is not to be heard again.
    pub id_hash: [u8; 32],
    pub expires_ms: i64,
    pub ending: Ending,
}

/// A session of the provider, of anybody or of this subject; or all of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    Session(String),
    SessionOf { sid: String, subject: String },
    AllOf(String),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The users whose sessions ended.
    Done(Vec<String>),
    /// It was said before.
    Again,
}

/// Providers that end sessions.
pub trait ProviderLogouts: Send + Sync {
    /// Ends what began by a login at the provider that has ended: sessions, and tokens on their way to one.
    fn end_provider_sessions(&self, logout: ProviderLogout) -> Answer<'_, Ended>;
}

impl<E: Engine> ProviderLogouts for Sql<E> {
    fn end_provider_sessions(&self, logout: ProviderLogout) -> Answer<'_, Ended> {
        self.0.write(EndProviderSessions(logout))
    }
}

struct EndProviderSessions(ProviderLogout);

impl Op for EndProviderSessions {
    const NAME: &'static str = "end_provider_sessions";
    type Out = Ended;

    fn positions(&self) -> u32 {
        u32::try_from(MOST_USERS).unwrap_or(u32::MAX)
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Ended> {
        let ProviderLogout { provider, which, id_hash, expires_ms, ending } = &self.0;
        if tx.execute(HEARD, args![provider, &id_hash[..], *expires_ms]).await? == 0 {
            return Ok(Ended::Again);
        }
        let mut rows = match which {
            Which::Session(sid) => {
                tx.execute(TOKENS_BY_SID, args![provider, sid]).await?;
                tx.query(BY_SID, args![provider, sid]).await?
            }
            Which::SessionOf { sid, subject } => {
                tx.execute(TOKENS_BY_BOTH, args![provider, sid, subject]).await?;
                tx.query(BY_BOTH, args![provider, sid, subject]).await?
            }
            Which::AllOf(subject) => {
                tx.execute(TOKENS_BY_SUBJECT, args![provider, subject]).await?;
                tx.query(BY_SUBJECT, args![provider, subject]).await?
            }
        };
        let by_user = devices_by_user(&mut rows)?;
        for (n, (user_id, devices)) in by_user.iter().enumerate() {
            let ending = Ending { at_ms: ending.at_ms, job_id: format!("{}-{n}", ending.job_id) };
            sessions::end(tx, user_id, devices.clone(), &ending).await?;
        }
        Ok(Ended::Done(by_user.into_keys().collect()))
    }
}

fn devices_by_user(rows: &mut [Row]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut by_user: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let user: String = row.get(0)?;
        if by_user.len() < MOST_USERS || by_user.contains_key(&user) {
            by_user.entry(user).or_default().push(row.get(1)?);
        }
    }
    Ok(by_user)
}
