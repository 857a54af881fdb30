//! Sessions whose access token is renewed: a refresh token is traded for a new pair of tokens.
//!
//! The answer with the new pair may be lost on its way, so the old pair lives on until one of the new is used. Until then
//! the old refresh token can be traded again, which makes up for the lost pair.
//!
//! <https://spec.matrix.org/v1.18/client-server-api/#refreshing-access-tokens>

use crate::{
    Sql,
    error::Result,
    sessions::{self, NewRefresh},
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    TOKEN = "SELECT r.user_id, r.device_id, r.replaces, r.expires_ms FROM refresh_tokens r \
        JOIN users u ON u.user_id = r.user_id \
        JOIN devices d ON d.user_id = r.user_id AND d.device_id = r.device_id \
        WHERE r.token_hash = $1 AND u.deactivated = 0";
    BESIDE = "SELECT r.user_id, r.device_id, r.token_hash, r.replaces FROM access_tokens t \
        JOIN refresh_tokens r ON r.token_hash = t.refresh_hash WHERE t.token_hash = $1";
    IS_THERE = "SELECT 1 FROM access_tokens WHERE token_hash = $1";
    OFFERED = "SELECT token_hash FROM refresh_tokens WHERE user_id = $1 AND device_id = $2 AND replaces = $3";
    DELETE_ACCESS = "DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2 AND refresh_hash = ANY($3)";
    DELETE_REFRESH = "DELETE FROM refresh_tokens WHERE token_hash = ANY($1)";
    TAKEN_UP = "UPDATE refresh_tokens SET replaces = NULL WHERE token_hash = $1";
}

/// A pair of tokens that is to take the place of another.
#[derive(Clone)]
pub struct NewPair {
    pub access_hash: [u8; 32],
    pub access_expires_ms: Option<i64>,
    pub refresh: NewRefresh,
    pub at_ms: i64,
}

/// What became of a trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    Done { user_id: String },
    Unknown,
    Expired,
}

/// Renewing sessions.
pub trait Refreshes: Send + Sync {
    /// Whether it is worth trying to trade the refresh token with this hash: strangers' guesses are kept from the writer.
    fn knows_refresh_token(&self, token_hash: [u8; 32]) -> Answer<'_, bool>;
    /// Trades the refresh token with this hash for a new pair; a pair that it was traded for before, and that nobody has
    /// used, is gone.
    fn refresh(&self, token_hash: [u8; 32], pair: NewPair) -> Answer<'_, Refreshed>;
    /// An access token is used for the first time: the pair that it replaces ends. False: it has ended itself.
    fn take_up(&self, access_hash: [u8; 32], at_ms: i64) -> Answer<'_, bool>;
}

impl<E: Engine> Refreshes for Sql<E> {
    fn knows_refresh_token(&self, token_hash: [u8; 32]) -> Answer<'_, bool> {
        self.0.read(Knows(token_hash))
    }

    fn refresh(&self, token_hash: [u8; 32], pair: NewPair) -> Answer<'_, Refreshed> {
        self.0.write(Refresh { token_hash, pair })
    }

    fn take_up(&self, access_hash: [u8; 32], at_ms: i64) -> Answer<'_, bool> {
        self.0.write(TakeUp { access_hash, at_ms })
    }
}

struct Knows([u8; 32]);

impl Query for Knows {
    const NAME: &'static str = "knows_refresh_token";
    const SINGLE: bool = true;
    type Out = bool;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<bool> {
        Ok(tx.query_opt(TOKEN, args![&self.0[..]]).await?.is_some())
    }
}

struct Refresh {
    token_hash: [u8; 32],
    pair: NewPair,
}

impl Op for Refresh {
    const NAME: &'static str = "refresh";
    type Out = Refreshed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Refreshed> {
        let Self { token_hash, pair } = self;
        let hash = &token_hash[..];
        let Some(mut row) = tx.query_opt(TOKEN, args![hash]).await? else { return Ok(Refreshed::Unknown) };
        let (user, device): (String, String) = (row.get(0)?, row.get(1)?);
        let (replaces, expires_ms): (Option<Vec<u8>>, Option<i64>) = (row.get(2)?, row.get(3)?);
        if expires_ms.is_some_and(|at| at <= pair.at_ms) {
            return Ok(Refreshed::Expired);
        }
        if let Some(old) = replaces {
            end_replaced(tx, &user, &device, hash, old, pair.at_ms).await?;
        }
        let offered = tx.query(OFFERED, args![&user, &device, hash]).await?;
        let offered: Vec<Vec<u8>> = offered.into_iter().map(|mut row| row.get(0)).collect::<Result<_>>()?;
        if !offered.is_empty() {
            // Nobody has used them, so no process knows them.
            delete(tx, &user, &device, offered).await?;
        }
        sessions::insert_refresh(tx, &user, &device, &pair.refresh, Some(hash), pair.at_ms).await?;
        let beside = Some(&pair.refresh.token_hash[..]);
        sessions::insert_access(tx, &user, &device, &pair.access_hash, pair.at_ms, pair.access_expires_ms, beside)
            .await?;
        Ok(Refreshed::Done { user_id: user })
    }
}

struct TakeUp {
    access_hash: [u8; 32],
    at_ms: i64,
}

impl Op for TakeUp {
    const NAME: &'static str = "take_up";
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let access = &self.access_hash[..];
        let Some(mut row) = tx.query_opt(BESIDE, args![access]).await? else {
            return Ok(tx.query_opt(IS_THERE, args![access]).await?.is_some());
        };
        let (user, device): (String, String) = (row.get(0)?, row.get(1)?);
        let (refresh, replaces): (Vec<u8>, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
        if let Some(old) = replaces {
            end_replaced(tx, &user, &device, &refresh, old, self.at_ms).await?;
        }
        Ok(true)
    }
}

/// Ends the pair of the refresh token `old`, which `new` replaces.
async fn end_replaced<T: Tx>(tx: &mut T, user: &str, device: &str, new: &[u8], old: Vec<u8>, at_ms: i64) -> Result<()> {
    delete(tx, user, device, vec![old]).await?;
    tx.execute(TAKEN_UP, args![new]).await?;
    sessions::revoke(tx, user, &[device.to_owned()], at_ms).await?;
    Ok(())
}

async fn delete<T: Tx>(tx: &mut T, user: &str, device: &str, refresh: Vec<Vec<u8>>) -> Result<()> {
    tx.execute(DELETE_ACCESS, args![user, device, refresh.clone()]).await?;
    tx.execute(DELETE_REFRESH, args![refresh]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts::{Accounts as _, NewUser},
        follow::Follow as _,
        sessions::{Ending, LoggedIn, NewSession, Sessions as _, tests::session},
        testing::{Store, each_backend},
    };

    /// Tokens by small numbers: the access token and the refresh token of a pair have the same.
    fn refresh_token(n: u8) -> NewRefresh {
        NewRefresh { token_hash: [100 + n; 32], expires_ms: Some(1_000) }
    }

    fn pair(n: u8, at_ms: i64) -> NewPair {
        NewPair { access_hash: [n; 32], access_expires_ms: Some(500), refresh: refresh_token(n), at_ms }
    }

    fn with_refresh(device: &str, n: u8) -> NewSession {
        NewSession { refresh: Some(refresh_token(n)), ..session(device, n) }
    }

    async fn alice(store: &Store) {
        let user =
            NewUser { user_id: "@a:x".to_owned(), password_hash: Some("hash".to_owned()), admin: false, created_ms: 1 };
        store.register(user, Some(with_refresh("D", 1)), None).await.unwrap();
    }

    async fn trade(store: &Store, old: u8, new: u8) -> Refreshed {
        store.refresh([100 + old; 32], pair(new, 9)).await.unwrap()
    }

    async fn lives(store: &Store, n: u8) -> bool {
        store.session_by_token([n; 32]).await.unwrap().is_some()
    }

    fn done() -> Refreshed {
        Refreshed::Done { user_id: "@a:x".to_owned() }
    }

    #[test]
    fn an_old_pair_lives_until_the_new_access_token_is_used() {
        each_backend(|store| async move {
            alice(&store).await;
            assert!(!store.session_by_token([1; 32]).await.unwrap().unwrap().replaces);
            assert_eq!(trade(&store, 1, 2).await, done());
            assert!(lives(&store, 1).await);
            let new = store.session_by_token([2; 32]).await.unwrap().unwrap();
            assert_eq!((new.replaces, new.expires_ms, &*new.device_id), (true, Some(500), "D"));
            let before = store.changes_after(0, 9).await.unwrap().revoked;
            assert!(store.take_up([2; 32], 10).await.unwrap());
            assert!(!lives(&store, 1).await && lives(&store, 2).await);
            assert_eq!(trade(&store, 1, 3).await, Refreshed::Unknown);
            assert!(!store.session_by_token([2; 32]).await.unwrap().unwrap().replaces);
            let after = store.changes_after(0, 9).await.unwrap().revoked;
            assert_eq!(after.len(), before.len() + 1, "other processes hear that a token has ended");
            assert!(store.take_up([2; 32], 11).await.unwrap(), "a second use is no different");
            assert_eq!(store.changes_after(0, 9).await.unwrap().revoked, after);
            assert_eq!(trade(&store, 2, 3).await, done());
        });
    }

    #[test]
    fn an_old_pair_lives_until_the_new_refresh_token_is_used() {
        each_backend(|store| async move {
            alice(&store).await;
            assert_eq!(trade(&store, 1, 2).await, done());
            assert_eq!(trade(&store, 2, 3).await, done());
            assert!(!lives(&store, 1).await && lives(&store, 2).await && lives(&store, 3).await);
            assert_eq!(trade(&store, 1, 4).await, Refreshed::Unknown);
        });
    }

    #[test]
    fn a_pair_that_was_lost_is_made_up_for() {
        each_backend(|store| async move {
            alice(&store).await;
            assert_eq!(trade(&store, 1, 2).await, done());
            assert_eq!(trade(&store, 1, 3).await, done());
            assert!(lives(&store, 1).await && !lives(&store, 2).await && lives(&store, 3).await);
            assert!(!store.take_up([2; 32], 10).await.unwrap());
            assert_eq!(trade(&store, 2, 4).await, Refreshed::Unknown);
            assert!(store.take_up([3; 32], 10).await.unwrap());
            assert!(!lives(&store, 1).await);
        });
    }

    #[test]
    fn one_of_many_trades_of_a_token_is_left() {
        each_backend(|store| async move {
            alice(&store).await;
            let all = (2..10).map(|n| store.refresh([101; 32], pair(n, 9)));
            for traded in futures_util::future::join_all(all).await {
                assert_eq!(traded.unwrap(), done());
            }
            let mut living = Vec::new();
            for n in 1..10 {
                if lives(&store, n).await {
                    living.push(n);
                }
            }
            assert!(living.len() == 2 && living[0] == 1, "{living:?}");
        });
    }

    #[test]
    fn a_refresh_token_expires_and_ends_with_its_device() {
        each_backend(|store| async move {
            alice(&store).await;
            assert_eq!(store.refresh([101; 32], pair(2, 1_000)).await.unwrap(), Refreshed::Expired);
            assert_eq!(store.refresh([101; 32], pair(2, 999)).await.unwrap(), done());
            let again = store.login("@a:x", Some("hash"), with_refresh("D", 5)).await.unwrap();
            assert_eq!(again, LoggedIn::Done { ended: true });
            for old in [1, 2] {
                assert_eq!(trade(&store, old, 6).await, Refreshed::Unknown);
            }
            let ending = |job: &str| Ending { at_ms: 9, job_id: job.to_owned() };
            store.end_sessions("@a:x", vec!["D".to_owned()], ending("j1")).await.unwrap();
            assert_eq!(trade(&store, 5, 6).await, Refreshed::Unknown);

            store.login("@a:x", Some("hash"), with_refresh("E", 7)).await.unwrap();
            store.deactivate("@a:x", false, ending("j2")).await.unwrap();
            assert_eq!(trade(&store, 7, 8).await, Refreshed::Unknown);
        });
    }
}
