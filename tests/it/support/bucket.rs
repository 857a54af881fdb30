//! A bucket of a real S3 server.

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Builder, Credentials, Region},
};
use hearth::config::{MediaBackend, MediaStore, Secret};
use hearth_core::clock::{OsRng, random_string};

/// A part of the bucket that the environment names.
pub struct Bucket {
    endpoint: String,
    name: String,
    key: String,
    secret: String,
    prefix: String,
}

impl Bucket {
    pub fn new() -> Self {
        let Ok(named) = std::env::var("HEARTH_TEST_S3") else {
            panic!("HEARTH_TEST_S3 names no bucket: `.ci/test` starts a server and runs the tests on it");
        };
        // http://key:secret@host:port/bucket
        let url = named.strip_prefix("http://").and_then(|rest| {
            let (who, place) = rest.split_once('@')?;
            Some((who.split_once(':')?, place.split_once('/')?))
        });
        let ((key, secret), (host, name)) = url.unwrap_or_else(|| panic!("HEARTH_TEST_S3 is {named}"));
        Self {
            endpoint: format!("http://{host}"),
            name: name.to_owned(),
            key: key.to_owned(),
            secret: secret.to_owned(),
            prefix: format!("{}/", random_string(&OsRng, 16).to_lowercase()),
        }
    }

    pub fn configure(&self, media: &mut MediaStore) {
        media.backend = MediaBackend::S3;
        media.s3_endpoint = Some(self.endpoint.clone());
        media.s3_bucket = Some(self.name.clone());
        media.s3_prefix.clone_from(&self.prefix);
        media.s3_access_key_id = Some(self.key.clone());
        media.s3_secret_access_key = Some(Secret::new(self.secret.clone()));
    }

    /// The same, as options of the program, by key and value.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("media.backend", "s3".to_owned()),
            ("media.s3_endpoint", self.endpoint.clone()),
            ("media.s3_bucket", self.name.clone()),
            ("media.s3_prefix", self.prefix.clone()),
            ("media.s3_access_key_id", self.key.clone()),
            ("media.s3_secret_access_key", self.secret.clone()),
        ]
    }

    /// What nobody is to see.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    pub async fn objects(&self) -> usize {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(&self.key, &self.secret, None, None, "test"))
            .endpoint_url(&self.endpoint)
            .force_path_style(true);
        let client = Client::from_conf(config.build());
        let found = client.list_objects_v2().bucket(&self.name).prefix(&self.prefix).send().await;
        found.expect("a list").contents().len()
    }
}
