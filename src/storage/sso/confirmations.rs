//! What users are asked to confirm at a provider.

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    ASK = "INSERT INTO sso_confirmations (session_hash, user_id, deed, done, expires_ms) VALUES ($1, $2, $3, 0, $4) \
        ON CONFLICT (session_hash) DO NOTHING";
    // An OFFSET wants a LIMIT on SQLite: this one is none.
    DROP_OLDEST = "DELETE FROM sso_confirmations WHERE session_hash IN \
        (SELECT session_hash FROM sso_confirmations WHERE user_id = $1 \
        ORDER BY expires_ms DESC, session_hash LIMIT 1000000 OFFSET $2)";
    ASKED = "SELECT user_id, deed, done FROM sso_confirmations WHERE session_hash = $1 AND expires_ms > $2";
    CONFIRM = "UPDATE sso_confirmations SET done = 1, expires_ms = $3 WHERE session_hash = $1 AND user_id = $2 \
        AND done = 0 AND expires_ms > $4";
    USE = "DELETE FROM sso_confirmations WHERE session_hash = $1 AND user_id = $2 AND deed = $3 AND done = 1 \
        AND expires_ms > $4";
}

/// So many a user may be in the middle of. With one more, the oldest goes.
pub const MOST_CONFIRMATIONS: u32 = 20;

/// What a user is asked to confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    pub user_id: String,
    pub deed: String,
    pub done: bool,
}

/// What users are asked to confirm at a provider, by the hash of the id that their client has.
pub trait Confirmations: Send + Sync {
    /// Begins to wait for it; if that was begun already, goes on.
    fn ask_confirmation(&self, session_hash: [u8; 32], user_id: &str, deed: &str, expires_ms: i64) -> Answer<'_, ()>;
    fn confirmation(&self, session_hash: [u8; 32], now_ms: i64) -> Answer<'_, Option<Confirmation>>;
    /// The user has confirmed it, which counts until `expires_ms`. False: nothing waits for that.
    fn confirm(&self, session_hash: [u8; 32], user_id: &str, expires_ms: i64, now_ms: i64) -> Answer<'_, bool>;
    /// Whether the user has confirmed this very deed; once.
    fn use_confirmation(&self, session_hash: [u8; 32], user_id: &str, deed: &str, now_ms: i64) -> Answer<'_, bool>;
}

impl<E: Engine> Confirmations for Sql<E> {
    fn ask_confirmation(&self, session_hash: [u8; 32], user_id: &str, deed: &str, expires_ms: i64) -> Answer<'_, ()> {
        self.0.write(Ask { session_hash, user_id: user_id.to_owned(), deed: deed.to_owned(), expires_ms })
    }

    fn confirmation(&self, session_hash: [u8; 32], now_ms: i64) -> Answer<'_, Option<Confirmation>> {
        self.0.read(Asked { session_hash, now_ms })
    }

    fn confirm(&self, session_hash: [u8; 32], user_id: &str, expires_ms: i64, now_ms: i64) -> Answer<'_, bool> {
        self.0.write(Confirm { session_hash, user_id: user_id.to_owned(), expires_ms, now_ms })
    }

    fn use_confirmation(&self, session_hash: [u8; 32], user_id: &str, deed: &str, now_ms: i64) -> Answer<'_, bool> {
        self.0.write(Use { session_hash, user_id: user_id.to_owned(), deed: deed.to_owned(), now_ms })
    }
}

struct Ask {
    session_hash: [u8; 32],
    user_id: String,
    deed: String,
    expires_ms: i64,
}

impl Op for Ask {
    const NAME: &'static str = "ask_confirmation";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let Self { session_hash, user_id, deed, expires_ms } = self;
        tx.execute(ASK, args![&session_hash[..], user_id, deed, *expires_ms]).await?;
        tx.execute(DROP_OLDEST, args![user_id, i64::from(MOST_CONFIRMATIONS)]).await?;
        Ok(())
    }
}

struct Asked {
    session_hash: [u8; 32],
    now_ms: i64,
}

impl Query for Asked {
    const NAME: &'static str = "confirmation";
    const SINGLE: bool = true;
    type Out = Option<Confirmation>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Confirmation>> {
        let row = tx.query_opt(ASKED, args![&self.session_hash[..], self.now_ms]).await?;
        row.map(|mut row| Ok(Confirmation { user_id: row.get(0)?, deed: row.get(1)?, done: row.get(2)? })).transpose()
    }
}

struct Confirm {
    session_hash: [u8; 32],
    user_id: String,
    expires_ms: i64,
    now_ms: i64,
}

impl Op for Confirm {
    const NAME: &'static str = "confirm";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let args = args![&self.session_hash[..], &self.user_id, self.expires_ms, self.now_ms];
        Ok(tx.execute(CONFIRM, args).await? == 1)
    }
}

struct Use {
    session_hash: [u8; 32],
    user_id: String,
    deed: String,
    now_ms: i64,
}

impl Op for Use {
    const NAME: &'static str = "use_confirmation";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let args = args![&self.session_hash[..], &self.user_id, &self.deed, self.now_ms];
        Ok(tx.execute(USE, args).await? == 1)
    }
}
