//! Filters that a client leaves here once, to name them at each sync.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hearth_core::{Error, Kind, Result};
use hearth_storage::Storage;
use ruma::{UserId, api::client::filter::FilterDefinition};
use sha2::{Digest as _, Sha256};

use super::session::Session;

const MAX_FILTER_BYTES: usize = 64 << 10;
/// Clients make a handful; a client that makes one a start and forgets it stays below this for years.
const MAX_FILTERS: u32 = 1_000;
/// 96 bits of the body's hash.
const ID_BYTES: usize = 12;

pub struct Filters {
    storage: Arc<dyn Storage>,
}

impl Filters {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Keeps a filter. The same filter has the same id, however often it comes.
    pub async fn put(&self, session: &Session, user: &UserId, filter: &FilterDefinition) -> Result<String> {
        own(session, user)?;
        let body = serde_json::to_string(filter).map_err(Error::internal)?;
        if body.len() > MAX_FILTER_BYTES {
            return Err(Error::too_large(format!("A filter has at most {MAX_FILTER_BYTES} bytes")));
        }
        let id = URL_SAFE_NO_PAD.encode(&Sha256::digest(body.as_bytes())[..ID_BYTES]);
        if !self.storage.put_filter(user.as_str(), &id, &body, MAX_FILTERS).await? {
            return Err(Error::new(Kind::Forbidden, format!("A user has at most {MAX_FILTERS} filters")));
        }
        Ok(id)
    }

    pub async fn get(&self, session: &Session, user: &UserId, id: &str) -> Result<FilterDefinition> {
        own(session, user)?;
        let body = match id {
            "" => None,
            id if id.len() > 64 || id.contains('\0') => None,
            id => self.storage.filter(user.as_str(), id).await?,
        };
        let body = body.ok_or_else(|| Error::not_found("There is no such filter"))?;
        serde_json::from_str(&body).map_err(Error::internal)
    }
}

fn own(session: &Session, user: &UserId) -> Result<()> {
    if session.user_id == user { Ok(()) } else { Err(Error::forbidden("These are not your filters")) }
}
