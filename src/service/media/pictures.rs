//! Pictures that the server itself has fetched, and keeps for those who look at them.

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use hearth_core::{
    Error, Result,
    media::{
        sniff::{self, Sniffed},
        thumbnail,
    },
};

use super::Media;
use crate::service::previews::{KeepImage, KeptImage};

impl KeepImage for Media {
    fn keep(&self, bytes: Bytes, _: &str, name: Option<&str>) -> BoxFuture<'_, Result<KeptImage>> {
        let name = name.map(str::to_owned);
        async move {
            // By its own bytes: what a strange server calls it is no reason to call it so.
            let content_type = match sniff::sniff(&bytes) {
                Sniffed::Known(found) if found.starts_with("image/") => found,
                _ => return Err(Error::unknown("This is no picture")),
            };
            let (width, height) = thumbnail::dimensions(&bytes).unzip();
            let size = bytes.len() as u64;
            let mxc = self.keep_picture(bytes, content_type, name.as_deref()).await?;
            Ok(KeptImage { mxc, width, height, bytes: size, content_type: content_type.to_owned() })
        }
        .boxed()
    }
}
