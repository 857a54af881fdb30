//! A tree of folders.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::{Failure, Pieces, Result, Store};

/// So much is read at once: each time costs a visit to a thread that may wait for the disk.
const PIECE: usize = 256 << 10;

pub(super) struct Folders {
    root: PathBuf,
}

impl Folders {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// 65,536 folders at most, so that none is too large for the tools that an operator may point at it.
    fn path(&self, key: &str) -> Result<PathBuf> {
        let is_ours = key.len() > 4 && key.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_ours {
            return Err(Failure::Failed(format!("{key} is no key of ours")));
        }
        Ok(self.root.join(&key[..2]).join(&key[2..4]).join(&key[4..]))
    }
}

impl Store for Folders {
    fn put<'a>(&'a self, key: &'a str, from: &'a Path, _: u64) -> BoxFuture<'a, Result<()>> {
        async move {
            let (root, to, from) = (self.root.clone(), self.path(key)?, from.to_owned());
            blocking(move || keep(&root, &from, &to)).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str, part: Range<u64>) -> BoxFuture<'a, Result<Pieces>> {
        async move {
            let mut file = tokio::fs::File::open(self.path(key)?).await.map_err(|e| failure(key, &e))?;
            file.set_max_buf_size(PIECE);
            if part.start > 0 {
                file.seek(io::SeekFrom::Start(part.start)).await.map_err(|e| failure(key, &e))?;
            }
            let length = part.end.saturating_sub(part.start);
            Ok(ReaderStream::with_capacity(file.take(length), PIECE).boxed())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            match tokio::fs::remove_file(self.path(key)?).await {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failure(key, &e)),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            match tokio::fs::metadata(self.path(key)?).await {
                Ok(found) => Ok(Some(found.len())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(failure(key, &e)),
            }
        }
        .boxed()
    }
}

fn failure(key: &str, e: &io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::NotFound => Failure::Missing(key.to_owned()),
        _ => Failure::of(e),
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::of)?.map_err(Failure::of)
}

/// Moves a file to its place. Its bytes, its name, and the names of the folders on the way to it are on disk afterwards.
fn keep(root: &Path, from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    let folder = to.parent().unwrap_or(root);
    let new = !folder.is_dir();
    fs::create_dir_all(folder)?;
    match fs::rename(from, to) {
        // The spool is on another disk.
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => copy(from, to)?,
        moved => moved?,
    }
    File::open(folder)?.sync_all()?;
    // Another writer may have made the folder a moment ago and not have come to this yet.
    if new || is_young(folder) {
        let above = folder.ancestors().skip(1).take_while(|path| path.starts_with(root));
        for folder in above {
            File::open(folder)?.sync_all()?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let unfinished = to.with_extension("part");
    fs::copy(from, &unfinished)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, to)
}

fn is_young(folder: &Path) -> bool {
    let made = fs::metadata(folder).and_then(|found| found.created().or_else(|_| found.modified()));
    made.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 60))
}
