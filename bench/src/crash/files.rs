//! Files: what was acknowledged is there whole.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::Method;

use super::write::{Met, OnError, insist};
use crate::matrix::{User, text};

const LIMIT: Duration = Duration::from_secs(30);
/// So many of those that were there after an earlier kill are looked at again.
const AGAIN: usize = 20;

/// What was uploaded and acknowledged.
#[derive(Default)]
pub(super) struct Files(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    /// The URI without its scheme, and what is there.
    files: Vec<(String, Bytes)>,
    /// So many were there after a kill.
    seen: usize,
}

impl Files {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().expect("no sender panics while it holds the notes")
    }

    /// Uploads something that is different for each transaction; false if the sender is done.
    pub(super) async fn write(
        &self,
        sender: &User,
        number: u64,
        txn: &str,
        met: &mut Met,
        on_error: OnError,
    ) -> Result<bool> {
        // Up to some hundred kilobytes, which is many pages of a file.
        let times = usize::try_from(number * 7919 % 20_000)?;
        let bytes = Bytes::from(txn.repeat(times + 1));
        let upload = || {
            let path = "/_matrix/media/v3/upload";
            sender.http.send_bytes(Method::POST, path, Some(&sender.token), Some(bytes.clone()), LIMIT)
        };
        let Some(reply) = insist(met, txn, on_error, upload).await else { return Ok(false) };
        let uri = text(&reply.json()?, "content_uri")?;
        let uri = uri.strip_prefix("mxc://").context("an mxc: URI")?.to_owned();
        self.notes().files.push((uri, bytes));
        Ok(true)
    }

    /// How many were acknowledged.
    pub(super) fn total(&self) -> usize {
        self.notes().files.len()
    }

    /// Downloads what is new, and some of what is not.
    pub(super) async fn compare(&self, reader: &User, rng: &mut fastrand::Rng) -> Result<Vec<String>> {
        let (mut look, old) = {
            let notes = self.notes();
            (notes.files[notes.seen..].to_vec(), notes.files[..notes.seen].to_vec())
        };
        if !old.is_empty() {
            look.extend((0..AGAIN).map(|_| old[rng.usize(..old.len())].clone()));
        }
        let mut violations = Vec::new();
        for (uri, bytes) in look {
            let path = format!("/_matrix/client/v1/media/download/{uri}");
            let reply = reader.http.send_bytes(Method::GET, &path, Some(&reader.token), None, LIMIT).await?;
            if !reply.status.is_success() {
                violations.push(format!("file {uri} was acknowledged and is lost: {} {}", reply.status, reply.text()));
            } else if reply.body != bytes {
                violations.push(format!(
                    "file {uri} has {} bytes and not the {} it had",
                    reply.body.len(),
                    bytes.len()
                ));
            }
        }
        let mut notes = self.notes();
        notes.seen = notes.files.len();
        Ok(violations)
    }
}
