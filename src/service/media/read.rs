//! What a URI stands for, and its bytes.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use hearth_core::{Error, Kind, Result};
use hearth_storage::{Wake, media::File};
use ruma::ServerName;
use tokio::time::{Instant, timeout_at};

use super::{
    Media, is_id,
    store::{Failure, Pieces},
};

/// Who waits for an upload asks for no longer than this.
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// An upload that another process took in wakes nobody here.
const LOOK: Duration = Duration::from_secs(1);
/// When somebody looked is noted to the day.
const USED_EVERY_MS: i64 = 24 * 60 * 60 * 1000;
const MOST_USED: usize = 10_000;

/// What a URI stands for.
#[derive(Clone, Debug)]
pub struct Found {
    pub file: File,
    pub content_type: String,
    pub file_name: Option<String>,
}

/// A part of a file.
pub struct Part {
    pub range: Range<u64>,
    pub pieces: Pieces,
}

impl Media {
    /// What a URI stands for. Where nothing was uploaded yet, waits for that.
    pub async fn find(&self, server: &ServerName, media_id: &str, patience: Duration) -> Result<Found> {
        let nothing = || Error::not_found("There is nothing under this id");
        if !is_id(media_id) {
            return Err(nothing());
        }
        let deadline = Instant::now() + patience.min(MOST_PATIENCE);
        let mut waiter = None;
        loop {
            let media = self.storage.media(server.as_str(), media_id).await?.ok_or_else(nothing)?;
            if let Some(file) = media.file {
                self.note_used(media_id, media.used_ms);
                let content_type = media.content_type.unwrap_or_default();
                return Ok(Found { file, content_type, file_name: media.file_name });
            }
            if media.expires_ms.is_none_or(|at| at <= self.clock.now_ms()) {
                return Err(nothing());
            }
            let Some(waiter) = &waiter else {
                // Looks once more before it waits: what came between these two would not wake it.
                waiter = Some(self.notifier.subscribe(media.user_id.map(|user| Wake::User(user.into()))));
                continue;
            };
            let _ = timeout_at(deadline.min(Instant::now() + LOOK), waiter.woken()).await;
            if Instant::now() >= deadline {
                return Err(Error::new(Kind::NotYetUploaded, "Nothing was uploaded to this id yet"));
            }
        }
    }

    /// The bytes of a file, or of a part of it.
    pub async fn read(&self, file: &File, range: Option<Range<u64>>) -> Result<Part> {
        let range = range.unwrap_or(0..file.bytes);
        match self.store.get(&file.key, range.clone()).await {
            Ok(pieces) => Ok(Part { range, pieces }),
            Err(Failure::Missing(key)) => {
                tracing::error!(key, "a file is missing in the media store");
                Err(Error::not_found("The file is lost"))
            }
            Err(e) => {
                tracing::error!(error = %e, "a file can't be read from the media store");
                Err(Error::unavailable("The media store can't be reached: try again later"))
            }
        }
    }

    /// A whole file, which has to be small.
    pub(super) async fn read_all(&self, file: &File) -> Result<Bytes> {
        let mut pieces = self.read(file, None).await?.pieces;
        let mut all = Vec::with_capacity(usize::try_from(file.bytes).unwrap_or_default());
        while let Some(piece) = pieces.next().await {
            let broken = |e: std::io::Error| {
                tracing::error!(error = %e, "a file broke off in the media store");
                Error::unavailable("The media store can't be reached: try again later")
            };
            all.extend_from_slice(&piece.map_err(broken)?);
        }
        Ok(all.into())
    }

    fn note_used(&self, media_id: &str, used_ms: i64) {
        if self.clock.now_ms().saturating_sub(used_ms) < USED_EVERY_MS {
            return;
        }
        let mut used = self.used();
        // What does not fit is noted when somebody looks again.
        if used.len() < MOST_USED {
            used.insert(media_id.to_owned());
        }
    }
}
