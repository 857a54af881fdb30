//! Pictures of new people, from where their provider says that they are.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hearth_core::{
    Error, Result,
    media::sniff::{Sniffed, sniff},
};
use http::Request;
use ruma::{OwnedMxcUri, UserId};

use super::{Sso, claims::Identity};
use crate::{http_client::Bounds, service::media::About};

/// What a picture may take.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), bytes: 4 << 20 };

impl Sso {
    /// Somebody's picture, kept as if they had uploaded it. Nobody is kept out because there is none.
    pub(super) async fn avatar(&self, user_id: &UserId, identity: &Identity) -> Option<OwnedMxcUri> {
        let url = identity.picture.as_ref()?;
        self.fetch(user_id, url).await.inspect_err(|error| tracing::info!(%error, "a new profile has no picture")).ok()
    }

    async fn fetch(&self, user_id: &UserId, url: &str) -> Result<OwnedMxcUri> {
        let request = Request::get(url).body(Bytes::new()).map_err(Error::internal)?;
        let answer = self.http.send(request, BOUNDS).await.map_err(Error::internal)?;
        if !answer.status().is_success() {
            return Err(Error::internal(format!("there is no picture: {}", answer.status())));
        }
        let picture = answer.into_body();
        // Whatever its type is said to be.
        let Sniffed::Known(kind @ ("image/png" | "image/jpeg" | "image/gif" | "image/webp")) = sniff(&picture) else {
            return Err(Error::internal("this is no picture"));
        };
        let about = About { content_type: Some(kind), file_name: None, bytes: Some(picture.len() as u64) };
        self.media.upload(user_id, about, stream::iter([Ok(picture)])).await
    }
}
