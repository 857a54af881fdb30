//! What the media store holds, and what it should not hold any more.

use super::File;
use crate::{
    error::Result,
    tx::{Op, Query, Reads, Row, Tx, Value, args, statements},
};

statements! {
    HAS = "SELECT 1 FROM media_files WHERE sha256 = $1";
    LOCK_CONTENT = "UPDATE media_files SET bytes = bytes WHERE sha256 = $1 RETURNING file_key";
    // A row that is there keeps its key, and is locked.
    ENTER = "INSERT INTO media_files (file_key, sha256, bytes, sniffed) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (sha256) DO UPDATE SET bytes = excluded.bytes RETURNING file_key";
    EXPECT = "INSERT INTO media_unaccounted (file_key, due_ms) VALUES ($1, $2) \
        ON CONFLICT (file_key) DO UPDATE SET due_ms = excluded.due_ms";
    ACCOUNTED = "DELETE FROM media_unaccounted WHERE file_key = $1";
    DUE = "SELECT file_key FROM media_unaccounted WHERE due_ms <= $1 ORDER BY due_ms LIMIT $2";
    GONE = "DELETE FROM media_unaccounted WHERE file_key = ANY($1)";
    AFTER = "SELECT file_key, sha256, bytes, sniffed FROM media_files WHERE file_key > $1 ORDER BY file_key LIMIT $2";
    LOCK = "UPDATE media_files SET bytes = bytes WHERE file_key = ANY($1)";
    FORGET = "DELETE FROM media_files WHERE file_key = ANY($1) \
        AND NOT EXISTS (SELECT 1 FROM media m WHERE m.file_key = media_files.file_key) \
        AND NOT EXISTS (SELECT 1 FROM media_thumbnails t WHERE t.thumb_key = media_files.file_key) \
        RETURNING file_key";
    FORGET_THUMBNAILS = "DELETE FROM media_thumbnails WHERE file_key = ANY($1) RETURNING thumb_key";
    bulk UNACCOUNTED = "media_unaccounted" ("file_key": Text, "due_ms": Int) "ON CONFLICT (file_key) DO NOTHING";
}

pub(super) async fn expect<T: Tx>(tx: &mut T, key: &str, due_ms: i64) -> Result<()> {
    tx.execute(EXPECT, args![key, due_ms]).await?;
    Ok(())
}

/// Forgets those of these files that nothing stands for, with what was made of them; the store loses them soon.
pub(super) async fn forget_unused<T: Tx>(tx: &mut T, mut keys: Vec<String>, now_ms: i64) -> Result<()> {
    keys.sort_unstable();
    keys.dedup();
    while !keys.is_empty() {
        // Whoever makes use of one holds its row, and is seen by what is asked after this.
        tx.execute(LOCK, args![keys.clone()]).await?;
        let gone: Vec<String> = column(tx.query(FORGET, args![keys]).await?)?;
        let rows: Vec<Vec<Value>> = gone.iter().map(|key| vec![key.into(), now_ms.into()]).collect();
        tx.insert_rows(UNACCOUNTED, &rows).await?;
        keys = column(tx.query(FORGET_THUMBNAILS, args![gone]).await?)?;
        keys.sort_unstable();
        keys.dedup();
    }
    Ok(())
}

fn column(rows: Vec<Row>) -> Result<Vec<String>> {
    rows.into_iter().map(|mut row| row.get(0)).collect()
}

pub(super) struct HasContent(pub(super) [u8; 32]);

impl Query for HasContent {
    const NAME: &'static str = "has_content";
    const SINGLE: bool = true;
    type Out = bool;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<bool> {
        Ok(tx.query_opt(HAS, args![&self.0[..]]).await?.is_some())
    }
}

pub(super) struct Expect {
    pub(super) key: String,
    pub(super) due_ms: i64,
}

impl Op for Expect {
    const NAME: &'static str = "expect_file";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        expect(tx, &self.key, self.due_ms).await
    }
}

pub(super) struct Unaccounted {
    pub(super) now_ms: i64,
    pub(super) limit: u32,
}

impl Query for Unaccounted {
    const NAME: &'static str = "unaccounted_files";
    const SINGLE: bool = true;
    type Out = Vec<String>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<String>> {
        column(tx.query(DUE, args![self.now_ms, i64::from(self.limit)]).await?)
    }
}

pub(super) struct Gone(pub(super) Vec<String>);

impl Op for Gone {
    const NAME: &'static str = "files_gone";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.execute(GONE, args![self.0.clone()]).await?;
        Ok(())
    }
}

pub(super) struct After {
    pub(super) key: String,
    pub(super) limit: u32,
}

impl Query for After {
    const NAME: &'static str = "files_after";
    const SINGLE: bool = true;
    type Out = Vec<File>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<File>> {
        let rows = tx.query(AFTER, args![&self.key, i64::from(self.limit)]).await?;
        let files = rows.into_iter().map(|mut row| File::of(&mut row, 0)).collect::<Result<Vec<_>>>()?;
        Ok(files.into_iter().flatten().collect())
    }
}
