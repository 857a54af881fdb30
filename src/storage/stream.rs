//! What holds for the whole deployment: the head of the stream, facts, signing keys, and whether the database is there.

use std::collections::BTreeMap;

use crate::{
    Sql, Work,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

/// The deployment.
pub trait Stream {
    /// The position of the newest change: all up to it is visible.
    fn head(&self) -> Answer<'_, i64>;
    /// Whether the database answers reads.
    fn ping(&self) -> Answer<'_, ()>;
    /// A fact that holds for the whole deployment, such as its name.
    fn server_fact(&self, name: &str) -> Answer<'_, Option<String>>;
    /// Sets the fact unless there is one; what holds from now on.
    fn server_fact_or_set(&self, name: &str, value: &str) -> Answer<'_, String>;
    /// The key that this deployment signs with; `new` becomes it if there is none.
    fn signing_key_or_set(&self, new: SigningKey) -> Answer<'_, SigningKey>;
    /// All keys this deployment ever signed with, oldest first.
    fn signing_keys(&self) -> Answer<'_, Vec<SigningKey>>;
    /// What this process has had the database do since it started, by operation.
    fn work(&self) -> BTreeMap<&'static str, Work>;
    /// Finishes what is queued and closes the database.
    fn close(&self) -> Answer<'_, ()>;
}

/// A key that this deployment signs with, or did.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// `ed25519:…`
    pub key_id: String,
    pub seed: Vec<u8>,
    pub created_ms: i64,
    /// Set once it no longer signs.
    pub expired_ms: Option<i64>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

statements! {
    RAISE_HEAD = "UPDATE stream_head SET pos = pos + $1 WHERE id = 1 RETURNING pos";
    HEAD = "SELECT pos FROM stream_head WHERE id = 1";
    FACT = "SELECT value FROM server_facts WHERE name = $1";
    SET_FACT = "INSERT INTO server_facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    KEYS = "SELECT key_id, seed, created_ms, expired_ms FROM signing_keys ORDER BY created_ms, key_id";
    ADD_KEY = "INSERT INTO signing_keys (key_id, seed, created_ms, expired_ms) VALUES ($1, $2, $3, $4)";
}

struct Head;

impl Query for Head {
    const NAME: &'static str = "stream_head";
    const SINGLE: bool = true;
    type Out = i64;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<i64> {
        tx.query_one(HEAD, &[]).await?.get(0)
    }
}

struct Fact(String);

impl Query for Fact {
    const NAME: &'static str = "server_fact";
    const SINGLE: bool = true;
    type Out = Option<String>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        tx.query_opt(FACT, args![&self.0]).await?.map(|mut row| row.get(0)).transpose()
    }
}

struct FactOrSet {
    name: String,
    value: String,
}

impl Op for FactOrSet {
    const NAME: &'static str = "server_fact_or_set";
    type Out = String;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<String> {
        // Of two processes the second waits here for the first, and then reads what it set.
        tx.execute(SET_FACT, args![&self.name, &self.value]).await?;
        tx.query_one(FACT, args![&self.name]).await?.get(0)
    }
}

struct SigningKeys;

impl Query for SigningKeys {
    const NAME: &'static str = "signing_keys";
    const SINGLE: bool = true;
    type Out = Vec<SigningKey>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        keys(tx).await
    }
}

/// Takes a position, although no sync sees it: those who do run one after another across all processes, so two that start
/// at once agree on one key.
struct SigningKeyOrSet(SigningKey);

impl Op for SigningKeyOrSet {
    const NAME: &'static str = "signing_key_or_set";
    type Out = SigningKey;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<SigningKey> {
        if let Some(active) = keys(tx).await?.into_iter().rfind(|key| key.expired_ms.is_none()) {
            return Ok(active);
        }
        let SigningKey { key_id, seed, created_ms, expired_ms } = self.0.clone();
        tx.execute(ADD_KEY, args![key_id, seed, created_ms, expired_ms]).await?;
        Ok(self.0.clone())
    }
}

async fn keys<R: Reads>(tx: &mut R) -> Result<Vec<SigningKey>> {
    let key = |mut row: Row| {
        Ok(SigningKey { key_id: row.get(0)?, seed: row.get(1)?, created_ms: row.get(2)?, expired_ms: row.get(3)? })
    };
    tx.query(KEYS, &[]).await?.into_iter().map(key).collect()
}

impl<E: Engine> Stream for Sql<E> {
    fn head(&self) -> Answer<'_, i64> {
        self.0.read(Head)
    }

    fn ping(&self) -> Answer<'_, ()> {
        let head = self.0.read(Head);
        Box::pin(async { head.await.map(|_| ()) })
    }

    fn server_fact(&self, name: &str) -> Answer<'_, Option<String>> {
        self.0.read(Fact(name.into()))
    }

    fn server_fact_or_set(&self, name: &str, value: &str) -> Answer<'_, String> {
        self.0.write(FactOrSet { name: name.into(), value: value.into() })
    }

    fn signing_key_or_set(&self, new: SigningKey) -> Answer<'_, SigningKey> {
        self.0.write(SigningKeyOrSet(new))
    }

    fn signing_keys(&self) -> Answer<'_, Vec<SigningKey>> {
        self.0.read(SigningKeys)
    }

    fn work(&self) -> BTreeMap<&'static str, Work> {
        self.0.tally().so_far()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.0.close()
    }
}
