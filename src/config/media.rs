//! What people share: where it is kept, how much of it, and for how long.

use std::{num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::Secret;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Media {
    pub media: MediaStore,
    pub allow_legacy_media: bool,
    pub media_thumbnail_max_pixels: u64,
}

/// The table `media`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct MediaStore {
    pub backend: MediaBackend,
    /// None: the folder `media` beside the database.
    pub path: Option<PathBuf>,
    pub s3_endpoint: Option<String>,
    pub s3_bucket: Option<String>,
    pub s3_region: String,
    pub s3_prefix: String,
    pub s3_access_key_id: Option<String>,
    pub s3_secret_access_key: Option<Secret>,
    pub s3_secret_access_key_file: Option<PathBuf>,
    pub s3_path_style: bool,
    pub user_quota: Option<u64>,
    pub user_quota_info: Option<String>,
    /// In seconds.
    pub unused_expires_after: u64,
    pub max_unused_per_user: NonZeroU32,
    pub retention: Vec<Retention>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaBackend {
    #[default]
    Filesystem,
    S3,
}

/// For how long something is kept: since it was made, since somebody last looked at it, or either.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub scope: RetentionScope,
    #[serde(default)]
    pub created: Option<Age>,
    #[serde(default)]
    pub accessed: Option<Age>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionScope {
    Local,
    Remote,
}

/// A time in words: 90d, 12h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Duration);

impl Age {
    pub fn ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{s}` is no time: write 12h, 90d or 52w");
        let unit = s.char_indices().next_back().map_or(0, |(at, _)| at);
        let seconds = match &s[unit..] {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let number: u64 = s[..unit].parse().map_err(|_| wrong())?;
        match number.checked_mul(seconds) {
            Some(0) | None => Err(wrong()),
            Some(seconds) => Ok(Self(Duration::from_secs(seconds))),
        }
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl Default for Media {
    fn default() -> Self {
        Self { media: MediaStore::default(), allow_legacy_media: false, media_thumbnail_max_pixels: 32 << 20 }
    }
}

impl Default for MediaStore {
    fn default() -> Self {
        Self {
            backend: MediaBackend::Filesystem,
            path: None,
            s3_endpoint: None,
            s3_bucket: None,
            s3_region: "us-east-1".to_owned(),
            s3_prefix: String::new(),
            s3_access_key_id: None,
            s3_secret_access_key: None,
            s3_secret_access_key_file: None,
            s3_path_style: true,
            user_quota: None,
            user_quota_info: None,
            unused_expires_after: 24 * 60 * 60,
            max_unused_per_user: NonZeroU32::new(20).expect("not zero"),
            retention: Vec::new(),
        }
    }
}

impl MediaStore {
    /// What is wrong with it.
    pub(super) fn faults(&self) -> Vec<&'static str> {
        let mut faults = Vec::new();
        let mut must = |holds: bool, text| {
            if !holds {
                faults.push(text);
            }
        };
        let s3 = self.backend == MediaBackend::S3;
        must(!s3 || cfg!(feature = "s3"), "this binary was built without the feature `s3`");
        must(
            !s3 || self.s3_bucket.as_ref().is_some_and(|bucket| !bucket.is_empty()),
            "`media.backend = \"s3\"` wants `media.s3_bucket`",
        );
        must(
            self.s3_endpoint.as_ref().is_none_or(|url| url.starts_with("https://") || url.starts_with("http://")),
            "`media.s3_endpoint` is a URL: https://s3.example.org",
        );
        must(
            self.s3_access_key_id.is_some() == self.s3_secret_access_key.is_some(),
            "`media.s3_access_key_id` and `media.s3_secret_access_key` belong together",
        );
        must(
            !s3 || self.s3_access_key_id.is_some(),
            "`media.backend = \"s3\"` wants `media.s3_access_key_id` and `media.s3_secret_access_key`",
        );
        must(
            self.user_quota_info.as_ref().is_none_or(|url| url.starts_with("https://") || url.starts_with("http://")),
            "`media.user_quota_info` is a URL: https://example.org/storage",
        );
        must(
            (60..=31_536_000).contains(&self.unused_expires_after),
            "`media.unused_expires_after` is a number of seconds from 60 to 31536000",
        );
        must(
            self.retention.iter().all(|rule| rule.created.is_some() || rule.accessed.is_some()),
            "a rule of `media.retention` wants `created`, `accessed` or both",
        );
        // When somebody looked is noted to the day.
        let days = |age: Age| age.0 >= Duration::from_secs(2 * 24 * 60 * 60);
        must(
            self.retention.iter().filter_map(|rule| rule.accessed).all(days),
            "`accessed` in `media.retention` is two days at least: 2d",
        );
        faults
    }
}
