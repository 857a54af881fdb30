//! Where files are kept: a tree of folders, or a bucket. What a file is called there is made up here, so no word of
//! anybody else becomes part of a path.

mod folders;
#[cfg(feature = "s3")]
mod s3;

use std::{io, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use hearth_core::clock::Rng;

use crate::config::{MediaBackend, MediaStore};

/// A place for files. What [`Store::put`] has said is done outlives a power cut.
pub trait Store: Send + Sync + 'static {
    /// Keeps a copy of `from`, or the file itself.
    fn put<'a>(&'a self, key: &'a str, from: &'a Path, bytes: u64) -> BoxFuture<'a, Result<()>>;
    /// A part of a file, piece by piece.
    fn get<'a>(&'a self, key: &'a str, part: Range<u64>) -> BoxFuture<'a, Result<Pieces>>;
    /// Nothing is wrong if it is not there.
    fn remove<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;
    /// How large a file is, if it is there.
    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>>;
}

/// A file, as it is read.
pub type Pieces = BoxStream<'static, io::Result<Bytes>>;
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0} is not there")]
    Missing(String),
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    fn of(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a new file is called: two folders and the rest, where there are folders.
pub(super) fn new_key(rng: &dyn Rng) -> String {
    let mut bytes = [0; 20];
    rng.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The store that the configuration names. `folder` is where files are kept that are not elsewhere.
pub fn open(config: &MediaStore, backend: MediaBackend, folder: &Path) -> Result<Arc<dyn Store>> {
    match backend {
        MediaBackend::Filesystem => Ok(Arc::new(folders::Folders::new(folder))),
        #[cfg(feature = "s3")]
        MediaBackend::S3 => Ok(Arc::new(s3::Bucket::new(config)?)),
        #[cfg(not(feature = "s3"))]
        MediaBackend::S3 => {
            let _ = config;
            Err(Failure::of("this binary was built without the feature `s3`"))
        }
    }
}
