//! What is being uploaded waits on this machine's disk until all of it is there: a slow client then holds no memory and
//! no connection to a bucket, and what the store has already is not sent there again.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hearth_core::{
    clock::{Rng, random_string},
    media::sniff,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt as _,
};

/// What was left behind by a process that died. No upload takes longer.
const ABANDONED: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A folder for what is being uploaded.
pub(super) struct Spool {
    folder: PathBuf,
}

/// A file that is being written. It is removed when this is dropped, unless somebody has moved it.
pub(super) struct Spooled {
    path: PathBuf,
    file: File,
    hash: Sha256,
    pub(super) bytes: u64,
    head: Vec<u8>,
}

impl Spool {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) async fn begin(&self, rng: &dyn Rng) -> io::Result<Spooled> {
        let path = self.folder.join(random_string(rng, 24));
        let open = async || OpenOptions::new().write(true).create_new(true).open(&path).await;
        let file = match open().await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder).await?;
                open().await?
            }
            opened => opened?,
        };
        Ok(Spooled { path, file, hash: Sha256::new(), bytes: 0, head: Vec::new() })
    }

    /// Removes what nobody will go on with.
    pub(super) async fn tidy(&self) -> io::Result<()> {
        let mut found = match fs::read_dir(&self.folder).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        while let Some(file) = found.next_entry().await? {
            let changed = file.metadata().await.and_then(|about| about.modified());
            let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > ABANDONED) {
                // Another process may have been quicker.
                if let Err(e) = fs::remove_file(file.path()).await
                    && e.kind() != io::ErrorKind::NotFound
                {
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

impl Spooled {
    pub(super) async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let missing = sniff::HEAD.saturating_sub(self.head.len());
        self.head.extend_from_slice(&piece[..piece.len().min(missing)]);
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        self.file.write_all(piece).await
    }

    /// All of it has been written; its hash.
    pub(super) async fn end(&mut self) -> io::Result<[u8; 32]> {
        self.file.flush().await?;
        Ok(self.hash.clone().finalize().into())
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %e, "a file that was not wanted is still there");
            }
            _ => {}
        }
    }
}
