//! From one store to the other.

use std::path::Path;

use futures_util::TryStreamExt as _;
use hearth_core::{Error, Result, clock::OsRng};
use hearth_storage::{Storage, media::File};

use super::{spool::Spool, store::Store};

/// How many files are asked for at once.
const PAGE: u32 = 500;

/// What became of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub copied: u64,
    pub bytes: u64,
    /// They were there already.
    pub there: u64,
    /// They could not be read, were not what they should be, or were not taken.
    pub failed: u64,
}

/// Copies what is in one store and not in the other. It may be stopped and begun again, and run beside a server; what that
/// takes in meanwhile, the next time copies. `tell` hears of each file that could not be copied, and why.
pub async fn copy(
    storage: &dyn Storage,
    from: &dyn Store,
    to: &dyn Store,
    spool: &Path,
    tell: impl Fn(&str, &str),
) -> Result<Copied> {
    let spool = Spool::new(spool.to_owned());
    let mut done = Copied::default();
    let mut last = String::new();
    loop {
        let page = storage.files_after(&last, PAGE).await?;
        let Some(newest) = page.last() else { return Ok(done) };
        last.clone_from(&newest.key);
        for file in page {
            match copy_one(from, to, &spool, &file).await {
                Ok(true) => {
                    done.copied += 1;
                    done.bytes += file.bytes;
                }
                Ok(false) => done.there += 1,
                Err(e) => {
                    done.failed += 1;
                    tell(&file.key, &e.to_string());
                }
            }
        }
    }
}

/// False: it was there already.
async fn copy_one(from: &dyn Store, to: &dyn Store, spool: &Spool, file: &File) -> Result<bool> {
    if to.size(&file.key).await.map_err(Error::internal)? == Some(file.bytes) {
        return Ok(false);
    }
    let mut pieces = from.get(&file.key, 0..file.bytes).await.map_err(Error::internal)?;
    let mut spooled = spool.begin(&OsRng).await.map_err(Error::internal)?;
    while let Some(piece) = pieces.try_next().await.map_err(Error::internal)? {
        spooled.write(&piece).await.map_err(Error::internal)?;
    }
    let sha256 = spooled.end().await.map_err(Error::internal)?;
    if sha256[..] != file.sha256[..] {
        return Err(Error::internal("its content is not what it was when it came in"));
    }
    to.put(&file.key, spooled.path(), spooled.bytes).await.map_err(Error::internal)?;
    Ok(true)
}
