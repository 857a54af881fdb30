//! Pictures of new people, from where their provider says that they are.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hearth_core::{Error, Result};
use http::{Request, header};
use ruma::OwnedMxcUri;

use super::{Sso, claims::Identity};
use crate::http_client::Bounds;

/// What a picture may take.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), bytes: 4 << 20 };

/// Keeps pictures.
pub trait KeepAvatar: Send + Sync + 'static {
    /// Whether it is a picture at all is for the keeper to see, whatever its type is said to be.
    fn keep(&self, bytes: Bytes, content_type: Option<String>) -> BoxFuture<'_, Result<OwnedMxcUri>>;
}

impl Sso {
    /// Somebody's picture, if there is one and somebody keeps it.
    pub(super) async fn avatar(&self, identity: &Identity) -> Option<OwnedMxcUri> {
        let (keeper, url) = (self.avatars.as_ref()?, identity.picture.as_ref()?);
        let kept = async {
            let request = Request::get(url).body(Bytes::new()).map_err(Error::internal)?;
            let answer = self.http.send(request, BOUNDS).await.map_err(Error::internal)?;
            if !answer.status().is_success() {
                return Err(Error::internal(format!("there is no picture: {}", answer.status())));
            }
            let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
            keeper.keep(answer.into_body(), kind).await
        };
        kept.await.inspect_err(|error| tracing::info!(%error, "a new profile has no picture")).ok()
    }
}
