//! What was made of pictures.

use super::{
    File,
    attach::{Content, enter},
};
use crate::{
    error::Result,
    tx::{Op, Query, Reads, Tx, args, statements},
};

statements! {
    FIND = "SELECT t.content_type, f.file_key, f.sha256, f.bytes, f.sniffed FROM media_thumbnails t \
        JOIN media_files f ON f.file_key = t.thumb_key WHERE t.file_key = $1 AND t.variant = $2";
    LOCK_PICTURE = "UPDATE media_files SET bytes = bytes WHERE file_key = $1";
    KEEP = "INSERT INTO media_thumbnails (file_key, variant, thumb_key, content_type, created_ms) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (file_key, variant) DO NOTHING";
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    pub file: File,
    pub content_type: String,
}

/// What was made of a picture, and is in the store.
#[derive(Clone, Debug)]
pub struct NewThumbnail {
    pub file_key: String,
    pub variant: String,
    pub content: Content,
    pub content_type: String,
    pub at_ms: i64,
}

impl Op for NewThumbnail {
    const NAME: &'static str = "keep_thumbnail";
    type Out = Option<Thumbnail>;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<Thumbnail>> {
        let Self { file_key, variant, content, content_type, at_ms } = self;
        // What was written for a picture that is gone is removed when its time has come.
        if tx.execute(LOCK_PICTURE, args![file_key]).await? == 0 {
            return Ok(None);
        }
        let Some(thumb_key) = enter(tx, content, *at_ms).await? else { return Ok(None) };
        tx.execute(KEEP, args![file_key, variant, &thumb_key, content_type, *at_ms]).await?;
        // Where somebody else was quicker, theirs is kept, and ours perhaps stands for nothing.
        let kept = find(tx, file_key, variant).await?;
        super::files::forget_unused(tx, vec![thumb_key], *at_ms).await?;
        Ok(kept)
    }
}

pub(super) struct Find {
    pub(super) file_key: String,
    pub(super) variant: String,
}

impl Query for Find {
    const NAME: &'static str = "thumbnail";
    const SINGLE: bool = true;
    type Out = Option<Thumbnail>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Thumbnail>> {
        find(tx, &self.file_key, &self.variant).await
    }
}

async fn find<R: Reads>(tx: &mut R, file_key: &str, variant: &str) -> Result<Option<Thumbnail>> {
    let Some(mut row) = tx.query_opt(FIND, args![file_key, variant]).await? else { return Ok(None) };
    let content_type = row.get(0)?;
    Ok(File::of(&mut row, 1)?.map(|file| Thumbnail { file, content_type }))
}
