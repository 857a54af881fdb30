//! A bucket, of whoever speaks S3.

use std::{error::Error as StdError, io, ops::Range, path::Path, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::SdkError,
    operation::get_object::{GetObjectError, GetObjectOutput},
    primitives::{ByteStream, Length},
    types::{CompletedMultipartUpload, CompletedPart},
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use tokio::{sync::Semaphore, time::timeout};

use super::{Failure, Pieces, Result, Store};
use crate::config::MediaStore;

/// Larger files go up in parts.
const WHOLE: u64 = 16 << 20;
/// A bucket takes ten thousand of them.
const PART: u64 = 8 << 20;
const MOST_PARTS: u64 = 10_000;
/// So many files go up at once, so that the memory of those under way has a bound.
const AT_ONCE: usize = 8;
/// Nobody waits longer for a turn: the bucket hangs, or is too slow for what comes in.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Bucket {
    client: Client,
    name: String,
    prefix: String,
    turns: Semaphore,
}

impl Bucket {
    pub(super) fn new(config: &MediaStore) -> Result<Self> {
        let missing = |what: &str| Failure::Failed(format!("`media.{what}` is missing"));
        let name = config.s3_bucket.clone().ok_or_else(|| missing("s3_bucket"))?;
        let key = config.s3_access_key_id.clone().ok_or_else(|| missing("s3_access_key_id"))?;
        let secret = config.s3_secret_access_key.as_ref().ok_or_else(|| missing("s3_secret_access_key"))?;
        let credentials = Credentials::new(key, secret.expose(), None, None, "configuration");
        let mut s3 = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.s3_region.clone()))
            .credentials_provider(credentials)
            .force_path_style(config.s3_path_style)
            // Not every server knows the newer checksums; TLS and the signature guard what is on its way.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::standard().with_max_attempts(3).with_max_backoff(Duration::from_secs(2)))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    // From the beginning of a request, so it has to be enough to send a part.
                    .read_timeout(Duration::from_secs(60))
                    .build(),
            );
        if let Some(endpoint) = &config.s3_endpoint {
            s3 = s3.endpoint_url(endpoint);
        }
        let client = Client::from_conf(s3.build());
        Ok(Self { client, name, prefix: config.s3_prefix.clone(), turns: Semaphore::new(AT_ONCE) })
    }

    fn object(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn put_whole(&self, object: &str, from: &Path, bytes: u64) -> Result<()> {
        let body = part_of(from, 0, bytes).await?;
        let put = self.client.put_object().bucket(&self.name).key(object).content_length(signed(bytes)).body(body);
        put.send().await.map_err(failure)?;
        Ok(())
    }

    async fn put_in_parts(&self, object: &str, from: &Path, bytes: u64) -> Result<()> {
        let begun = self.client.create_multipart_upload().bucket(&self.name).key(object).send().await;
        let id = begun.map_err(failure)?.upload_id.ok_or_else(|| Failure::of("the bucket named no upload"))?;
        let finished = self.send_parts(object, &id, from, bytes).await;
        if finished.is_err() {
            // What is not ended is paid for. If this fails, too, the bucket's own rules have to end it.
            let end = self.client.abort_multipart_upload().bucket(&self.name).key(object).upload_id(&id);
            if let Err(e) = end.send().await {
                tracing::warn!(object, error = %failure(e), "an upload in parts was not ended");
            }
        }
        finished
    }

    async fn send_parts(&self, object: &str, id: &str, from: &Path, bytes: u64) -> Result<()> {
        let size = PART.max(bytes.div_ceil(MOST_PARTS));
        let mut parts = Vec::new();
        for (number, start) in (1..).zip((0..bytes).step_by(usize::try_from(size).map_err(Failure::of)?)) {
            let length = size.min(bytes - start);
            let part = self.client.upload_part().bucket(&self.name).key(object).upload_id(id).part_number(number);
            let part = part.content_length(signed(length)).body(part_of(from, start, length).await?);
            let sent = part.send().await.map_err(failure)?;
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let end = self.client.complete_multipart_upload().bucket(&self.name).key(object).upload_id(id);
        end.multipart_upload(parts).send().await.map_err(failure)?;
        Ok(())
    }
}

impl Store for Bucket {
    fn put<'a>(&'a self, key: &'a str, from: &'a Path, bytes: u64) -> BoxFuture<'a, Result<()>> {
        async move {
            let object = self.object(key);
            let turn = timeout(PATIENCE, self.turns.acquire()).await;
            let _turn = turn.map_err(|_| Failure::of("too many files wait for the bucket"))?.map_err(Failure::of)?;
            if bytes <= WHOLE {
                self.put_whole(&object, from, bytes).await
            } else {
                self.put_in_parts(&object, from, bytes).await
            }
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str, part: Range<u64>) -> BoxFuture<'a, Result<Pieces>> {
        async move {
            if part.is_empty() {
                return Ok(stream::empty().boxed());
            }
            let get = self.client.get_object().bucket(&self.name).key(self.object(key));
            let get = get.range(format!("bytes={}-{}", part.start, part.end - 1));
            match get.send().await {
                Ok(found) => Ok(pieces(found)),
                Err(e) if e.as_service_error().is_some_and(GetObjectError::is_no_such_key) => {
                    Err(Failure::Missing(key.to_owned()))
                }
                Err(e) => Err(failure(e)),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let remove = self.client.delete_object().bucket(&self.name).key(self.object(key));
            match remove.send().await {
                Err(e) if e.raw_response().is_none_or(|answer| answer.status().as_u16() != 404) => Err(failure(e)),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn size<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            match self.client.head_object().bucket(&self.name).key(self.object(key)).send().await {
                Ok(found) => Ok(Some(found.content_length.unwrap_or_default().unsigned_abs())),
                Err(e) if e.raw_response().is_some_and(|answer| answer.status().as_u16() == 404) => Ok(None),
                Err(e) => Err(failure(e)),
            }
        }
        .boxed()
    }
}

/// A part of a file, which is read as it is sent.
async fn part_of(path: &Path, start: u64, length: u64) -> Result<ByteStream> {
    let part = ByteStream::read_from().path(path).offset(start).length(Length::Exact(length)).buffer_size(256 << 10);
    part.build().await.map_err(Failure::of)
}

fn pieces(found: GetObjectOutput) -> Pieces {
    stream::unfold(found.body, |mut body| async {
        let piece = body.next().await?;
        Some((piece.map_err(|e| io::Error::other(e.to_string())), body))
    })
    .boxed()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The innermost reason, which is the one that says something.
#[allow(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn failure<E: StdError + 'static, R: std::fmt::Debug>(error: SdkError<E, R>) -> Failure {
    let what = match &error {
        SdkError::ServiceError(_) => "the bucket refused",
        SdkError::TimeoutError(_) => "the bucket did not answer in time",
        _ => "the bucket can't be reached",
    };
    let mut reason: &dyn StdError = match error.source() {
        Some(source) => source,
        None => return Failure::Failed(format!("{what}: {error}")),
    };
    while let Some(source) = reason.source() {
        reason = source;
    }
    Failure::Failed(format!("{what}: {reason}"))
}
