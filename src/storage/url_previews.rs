//! What pages said of themselves when somebody last looked, for as long as that is good.

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Tx, args, statements},
};

statements! {
    FIND = "SELECT answer, at_ms, expires_ms FROM url_previews WHERE url_sha256 = $1 AND expires_ms > $2";
    // Another process may have looked at the same time; whoever looked last knows best.
    KEEP = "INSERT INTO url_previews (url_sha256, answer, at_ms, expires_ms) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (url_sha256) DO UPDATE SET answer = excluded.answer, at_ms = excluded.at_ms, \
        expires_ms = excluded.expires_ms WHERE excluded.at_ms >= url_previews.at_ms";
    PURGE = "DELETE FROM url_previews WHERE url_sha256 IN (SELECT url_sha256 FROM url_previews \
        WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT $2)";
}

/// What was seen at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPreview {
    /// What only those know who write and read it.
    pub answer: String,
    pub at_ms: i64,
    pub expires_ms: i64,
}

/// The memory for previews of URLs, by the hashes of those.
pub trait UrlPreviews: Send + Sync {
    /// One that is still good.
    fn url_preview(&self, url_sha256: [u8; 32], now_ms: i64) -> Answer<'_, Option<UrlPreview>>;
    fn keep_url_preview(&self, url_sha256: [u8; 32], preview: UrlPreview) -> Answer<'_, ()>;
    /// Forgets so many at most of those that are good no longer; how many there were.
    fn purge_url_previews(&self, now_ms: i64, batch: u32) -> Answer<'_, u64>;
}

impl<E: Engine> UrlPreviews for Sql<E> {
    fn url_preview(&self, url_sha256: [u8; 32], now_ms: i64) -> Answer<'_, Option<UrlPreview>> {
        self.0.read(Find { url_sha256, now_ms })
    }

    fn keep_url_preview(&self, url_sha256: [u8; 32], preview: UrlPreview) -> Answer<'_, ()> {
        self.0.write(Keep { url_sha256, preview })
    }

    fn purge_url_previews(&self, now_ms: i64, batch: u32) -> Answer<'_, u64> {
        self.0.write(Purge { now_ms, batch })
    }
}

struct Find {
    url_sha256: [u8; 32],
    now_ms: i64,
}

impl Query for Find {
    const NAME: &'static str = "url_preview";
    const SINGLE: bool = true;
    type Out = Option<UrlPreview>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<UrlPreview>> {
        let Some(mut row) = tx.query_opt(FIND, args![self.url_sha256.as_slice(), self.now_ms]).await? else {
            return Ok(None);
        };
        Ok(Some(UrlPreview { answer: row.get(0)?, at_ms: row.get(1)?, expires_ms: row.get(2)? }))
    }
}

struct Keep {
    url_sha256: [u8; 32],
    preview: UrlPreview,
}

impl Op for Keep {
    const NAME: &'static str = "keep_url_preview";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let UrlPreview { answer, at_ms, expires_ms } = &self.preview;
        tx.execute(KEEP, args![self.url_sha256.as_slice(), answer, *at_ms, *expires_ms]).await.map(drop)
    }
}

struct Purge {
    now_ms: i64,
    batch: u32,
}

impl Op for Purge {
    const NAME: &'static str = "purge_url_previews";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.execute(PURGE, args![self.now_ms, i64::from(self.batch)]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::each_backend;

    fn preview(answer: &str, at_ms: i64) -> UrlPreview {
        UrlPreview { answer: answer.to_owned(), at_ms, expires_ms: at_ms + 10 }
    }

    #[test]
    fn what_was_seen_last_is_good_for_a_while() {
        each_backend(|store| async move {
            let (one, other) = ([1; 32], [2; 32]);
            assert_eq!(store.url_preview(one, 0).await.unwrap(), None);
            store.keep_url_preview(one, preview("first", 0)).await.unwrap();
            store.keep_url_preview(other, preview("other", 0)).await.unwrap();
            assert_eq!(store.url_preview(one, 9).await.unwrap(), Some(preview("first", 0)));
            assert_eq!(store.url_preview(one, 10).await.unwrap(), None);
            store.keep_url_preview(one, preview("second", 12)).await.unwrap();
            store.keep_url_preview(one, preview("late", 11)).await.unwrap();
            assert_eq!(store.url_preview(one, 13).await.unwrap(), Some(preview("second", 12)));
        });
    }

    #[test]
    fn what_is_good_no_longer_goes_some_at_a_time() {
        each_backend(|store| async move {
            for n in 0..5u8 {
                store.keep_url_preview([n; 32], preview("x", n.into())).await.unwrap();
            }
            assert_eq!(store.purge_url_previews(13, 3).await.unwrap(), 3);
            assert_eq!(store.purge_url_previews(13, 3).await.unwrap(), 1);
            assert_eq!(store.purge_url_previews(13, 3).await.unwrap(), 0);
            assert_eq!(store.url_preview([4; 32], 13).await.unwrap(), Some(preview("x", 4)));
        });
    }
}
