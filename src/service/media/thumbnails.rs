//! Thumbnails: made when they are first asked for, and kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use hearth_core::{
    Error, Result,
    media::thumbnail::{self, Bounds, Failure, Method, Wish},
};
use hearth_storage::media::{Content, File, NewThumbnail, Thumbnail};
use moka::future::Cache;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::{Found, Media};

/// A row of the table, about 300 bytes each; and of what no thumbnail can be made, the reason.
const REMEMBERED: u64 = 20_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Who would have to wait behind so many is told to come back.
const MOST_WAITING: usize = 512;

/// Who makes thumbnails, and how much at once.
pub(super) struct Workshop {
    bounds: Bounds,
    /// One for each processor.
    hands: Arc<Semaphore>,
    /// Of all pictures that are decoded at a time, in units of [`UNIT`].
    pixels: Arc<Semaphore>,
    waiting: AtomicUsize,
    known: Cache<(String, String), Known>,
}

/// What became of a wish: a thumbnail, or the reason why there will never be one.
type Known = std::result::Result<Arc<Thumbnail>, Failure>;

const UNIT: u64 = 1 << 20;

impl Workshop {
    pub(super) fn new(max_pixels: u64) -> Self {
        let hands = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            bounds: Bounds { pixels: max_pixels, ..Bounds::default() },
            hands: Arc::new(Semaphore::new(hands)),
            pixels: Arc::new(Semaphore::new(units(max_pixels) as usize)),
            waiting: AtomicUsize::new(0),
            known: Cache::builder().name("thumbnails").max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build(),
        }
    }

    /// A turn: before it nothing of a picture is held, however many wait.
    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let _place = self.queue()?;
        Arc::clone(&self.hands).acquire_owned().await.map_err(closed)
    }

    /// Makes a thumbnail. Who gives up meanwhile doesn't make room for the next before it is done.
    async fn make(
        &self,
        hand: OwnedSemaphorePermit,
        source: Bytes,
        wish: Wish,
    ) -> Result<std::result::Result<thumbnail::Thumbnail, Failure>> {
        let bounds = self.bounds;
        let (width, height) = thumbnail::dimensions(&source).unwrap_or_default();
        // What is more is refused by its header.
        let wanted = units((u64::from(width) * u64::from(height)).min(bounds.pixels));
        let pixels = Arc::clone(&self.pixels).acquire_many_owned(wanted).await.map_err(closed)?;
        let work = move || {
            let _held = (pixels, hand);
            thumbnail::make(&source, wish, &bounds)
        };
        // Decoders are large, and not ours: what stops one is no more than a broken picture.
        let made = tokio::task::spawn_blocking(work).await;
        Ok(made.unwrap_or_else(|stopped| Err(Failure::Broken(stopped.to_string()))))
    }

    fn queue(&self) -> Result<impl Drop + '_> {
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            return Err(Error::unavailable("Too many thumbnails are being made: try again"));
        }
        Ok(place)
    }
}

fn closed(_: AcquireError) -> Error {
    Error::internal("nobody makes thumbnails any more")
}

fn units(pixels: u64) -> u32 {
    u32::try_from(pixels.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

impl Media {
    /// A thumbnail of a picture.
    pub async fn thumbnail(&self, picture: &Found, wish: Wish) -> Result<Arc<Thumbnail>> {
        let key = (picture.file.key.clone(), variant(wish));
        let made = self.workshop.known.try_get_with(key, self.find_or_make(&picture.file, wish)).await;
        made.map_err(|e| again(&e))?.map_err(|failure| match failure {
            Failure::TooLarge(_) => Error::too_large("The picture is too large for a thumbnail"),
            Failure::Unsupported => Error::unknown("No thumbnails are made of this kind of file"),
            Failure::Broken(_) => Error::unknown("The picture is broken"),
        })
    }

    async fn find_or_make(&self, picture: &File, wish: Wish) -> Result<Known> {
        let variant = variant(wish);
        if let Some(found) = self.storage.thumbnail(&picture.key, &variant).await? {
            return Ok(Ok(Arc::new(found)));
        }
        if picture.bytes > self.workshop.bounds.bytes as u64 {
            return Ok(Err(Failure::TooLarge("bytes")));
        }
        let hand = self.workshop.turn().await?;
        let source = self.read_all(picture).await?;
        match self.workshop.make(hand, source, wish).await? {
            Ok(made) => Ok(Ok(Arc::new(self.keep_thumbnail(picture, variant, made).await?))),
            Err(failure) => {
                tracing::debug!(error = %failure, "a file has no thumbnail");
                Ok(Err(failure))
            }
        }
    }

    async fn keep_thumbnail(&self, of: &File, variant: String, made: thumbnail::Thumbnail) -> Result<Thumbnail> {
        let mut spooled = self.spool(stream::iter([Ok(made.bytes.into())])).await?;
        let sha256 = spooled.end().await.map_err(super::no_room)?;
        let written = Some(self.write(&spooled).await?);
        let new = NewThumbnail {
            file_key: of.key.clone(),
            variant,
            content: Content { sha256, bytes: spooled.bytes, written },
            content_type: made.content_type.to_owned(),
            at_ms: self.clock.now_ms(),
        };
        self.storage.keep_thumbnail(new).await?.ok_or_else(|| Error::not_found("The picture has gone"))
    }
}

/// What the table calls a wish.
fn variant(wish: Wish) -> String {
    let method = match wish.method {
        Method::Crop => "crop",
        Method::Scale => "scale",
    };
    let moving = if wish.animated { " animated" } else { "" };
    format!("{}x{} {method}{moving}", wish.width, wish.height)
}

/// An error that several were waiting for.
fn again(error: &Error) -> Error {
    match error {
        Error::Matrix { kind, message } => Error::Matrix { kind: kind.clone(), message: message.clone() },
        Error::Uia(_) | Error::Internal(_) => Error::internal(error),
    }
}
