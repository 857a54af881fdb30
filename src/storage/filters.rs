//! Filters that clients left here, so that a sync names one by its id.

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    GET = "SELECT body FROM filters WHERE user_id = $1 AND filter_id = $2";
    COUNT = "SELECT COUNT(*) FROM filters WHERE user_id = $1";
    INSERT = "INSERT INTO filters (user_id, filter_id, body) VALUES ($1, $2, $3) ON CONFLICT (user_id, filter_id) DO NOTHING";
}

/// Filters by the user's own ids.
pub trait Filters: Send + Sync {
    fn filter(&self, user_id: &str, filter_id: &str) -> Answer<'_, Option<String>>;
    /// Stores a filter under an id that depends on nothing but its body. False: the user has `max` others already.
    fn put_filter(&self, user_id: &str, filter_id: &str, body: &str, max: u32) -> Answer<'_, bool>;
}

impl<E: Engine> Filters for Sql<E> {
    fn filter(&self, user_id: &str, filter_id: &str) -> Answer<'_, Option<String>> {
        self.0.read(Get { user_id: user_id.to_owned(), filter_id: filter_id.to_owned() })
    }

    fn put_filter(&self, user_id: &str, filter_id: &str, body: &str, max: u32) -> Answer<'_, bool> {
        self.0.write(Put { user_id: user_id.to_owned(), filter_id: filter_id.to_owned(), body: body.to_owned(), max })
    }
}

async fn get<R: Reads>(tx: &mut R, user_id: &str, filter_id: &str) -> Result<Option<String>> {
    tx.query_opt(GET, args![user_id, filter_id]).await?.as_mut().map(|row| row.get(0)).transpose()
}

struct Get {
    user_id: String,
    filter_id: String,
}

impl Query for Get {
    const NAME: &'static str = "filter";
    type Out = Option<String>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<String>> {
        get(tx, &self.user_id, &self.filter_id).await
    }
}

struct Put {
    user_id: String,
    filter_id: String,
    body: String,
    max: u32,
}

impl Op for Put {
    const NAME: &'static str = "put_filter";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        if get(tx, &self.user_id, &self.filter_id).await?.is_some() {
            return Ok(true);
        }
        if tx.query_one(COUNT, args![&self.user_id]).await?.get::<i64>(0)? >= i64::from(self.max) {
            return Ok(false);
        }
        tx.execute(INSERT, args![&self.user_id, &self.filter_id, &self.body]).await?;
        Ok(true)
    }
}
