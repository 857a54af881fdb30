//! The configuration: one typed struct a section, in the flat key names that the Conduit family shares. A part of the
//! server receives its section only.
//!
//! Each key is explained once, in `conduit.toml.example`.

mod keys;
mod load;
mod media;
mod outgoing;
mod rate_limit;
mod secret;
mod sso;
mod subnet;
mod url_preview;

use std::{net::IpAddr, num::NonZeroU32, path::PathBuf};

use ruma::{OwnedServerName, OwnedUserId, RoomVersionId, api::client::discovery::discover_support::ContactRole};
use serde::Deserialize;

pub use load::{CREATABLE, Finding, Loaded, Sources, Weight};
pub use media::{Age, Media, MediaBackend, MediaStore, Retention, RetentionScope};
pub use outgoing::{Destination, Outgoing};
pub use rate_limit::{Limit, Rate, RateLimit};
pub use secret::Secret;
pub use sso::{IdentityProvider, Sso};
pub use subnet::Subnet;
pub use url_preview::UrlPreview;

/// The file in which every key is explained.
pub const EXAMPLE: &str = include_str!("../conduit.toml.example");

/// Everything that an operator can set. [`Config::default`] is what a start without any file uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: Server,
    pub database: Database,
    pub http: Http,
    pub registration: Registration,
    pub sessions: Sessions,
    pub sso: Sso,
    pub limits: Limits,
    pub rooms: Rooms,
    pub presence: Presence,
    pub sync: Sync,
    pub push: Push,
    pub outgoing: Outgoing,
    pub media: Media,
    pub url_preview: UrlPreview,
    pub turn: Turn,
    pub log: Log,
    pub metrics: Metrics,
}

/// Who the server is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Server {
    pub server_name: OwnedServerName,
    pub well_known: WellKnown,
}

/// The table `well_known`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct WellKnown {
    pub client: Option<String>,
    pub server: Option<OwnedServerName>,
    pub support_page: Option<String>,
    pub support_email: Option<String>,
    pub support_mxid: Option<OwnedUserId>,
    pub support_role: ContactRole,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Database {
    pub database_backend: Backend,
    pub database_path: PathBuf,
    pub database_url: Option<Secret>,
    pub database_url_file: Option<PathBuf>,
    pub database_pool_size: NonZeroU32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    #[default]
    Sqlite,
    Postgres,
}

/// The listener and what it bears with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Http {
    pub address: Addresses,
    pub port: u16,
    pub max_request_size: usize,
    pub max_connections: NonZeroU32,
    pub header_read_timeout_s: u64,
    pub request_body_timeout_s: u64,
    pub response_write_timeout_s: u64,
    pub stop_timeout_s: u64,
    pub ip_source_trusted_subnets: Vec<Subnet>,
}

/// One address, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Addresses {
    One(IpAddr),
    Many(Vec<IpAddr>),
}

impl Addresses {
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
        .iter()
        .copied()
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Registration {
    pub allow_registration: bool,
    pub yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse: bool,
    pub registration_token: Option<Secret>,
    pub registration_token_file: Option<PathBuf>,
    pub registration_shared_secret: Option<Secret>,
    pub registration_shared_secret_file: Option<PathBuf>,
    pub password_hash_memory_kib: u32,
    pub password_hash_passes: u32,
}

impl Registration {
    /// Registration without a token, by somebody who has said twice that they want it.
    pub fn is_open(&self) -> bool {
        self.allow_registration
            && self.registration_token.is_none()
            && self.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse
    }
}

/// How long tokens last of those who can renew them, in seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sessions {
    pub access_token_ttl: u64,
    /// None: for ever.
    pub refresh_token_ttl: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub rate_limit: RateLimit,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rooms {
    pub default_room_version: RoomVersionId,
    pub transaction_id_retention_s: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Presence {
    pub allow_local_presence: bool,
}

/// In milliseconds, as in the requests of clients.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sync {
    pub client_sync_timeout_min: u64,
    pub client_sync_timeout_default: u64,
    pub client_sync_timeout_max: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Push {
    pub push_badge_counts: BadgeCounts,
}

/// What the number on an app's icon counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadgeCounts {
    #[default]
    Rooms,
    Messages,
}

/// The servers that help calls through firewalls.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Turn {
    pub turn_uris: Vec<String>,
    pub turn_secret: Option<Secret>,
    pub turn_secret_file: Option<PathBuf>,
    pub turn_username: Option<String>,
    pub turn_password: Option<Secret>,
    /// In seconds.
    pub turn_ttl: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Log {
    pub log: String,
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Metrics {
    pub metrics_address: IpAddr,
    pub metrics_port: Option<u16>,
}

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Default for Server {
    fn default() -> Self {
        Self {
            server_name: OwnedServerName::try_from("localhost").expect("a server name"),
            well_known: WellKnown::default(),
        }
    }
}

impl Default for WellKnown {
    fn default() -> Self {
        Self {
            client: None,
            server: None,
            support_page: None,
            support_email: None,
            support_mxid: None,
            support_role: ContactRole::Admin,
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            database_backend: Backend::Sqlite,
            database_path: "./data".into(),
            database_url: None,
            database_url_file: None,
            database_pool_size: NonZeroU32::new(16).expect("not zero"),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: Addresses::One(LOCALHOST),
            port: 8008,
            max_request_size: 20 << 20,
            max_connections: NonZeroU32::new(10_000).expect("not zero"),
            // Longer than the 60 s that nginx keeps its idle connections, so that it is never us who close first.
            header_read_timeout_s: 75,
            request_body_timeout_s: 30,
            response_write_timeout_s: 60,
            // Shorter than the 10 s that a container has between the polite and the impolite signal.
            stop_timeout_s: 8,
            ip_source_trusted_subnets: ["127.0.0.0/8", "::1/128"].map(|s| s.parse().expect("a subnet")).into(),
        }
    }
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            allow_registration: false,
            yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse: false,
            registration_token: None,
            registration_token_file: None,
            registration_shared_secret: None,
            registration_shared_secret_file: None,
            // <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id>
            password_hash_memory_kib: 19 << 10,
            password_hash_passes: 2,
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self { access_token_ttl: 60 * 60, refresh_token_ttl: None }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self { default_room_version: RoomVersionId::V12, transaction_id_retention_s: 2 * 24 * 60 * 60 }
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self { allow_local_presence: true }
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self { client_sync_timeout_min: 0, client_sync_timeout_default: 0, client_sync_timeout_max: 90_000 }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            turn_uris: Vec::new(),
            turn_secret: None,
            turn_secret_file: None,
            turn_username: None,
            turn_password: None,
            turn_ttl: 24 * 60 * 60,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        // The auth checks of ruma log each event that passes.
        Self { log: "info,ruma_state_res=warn,ruma_common=warn".into(), log_format: LogFormat::Text }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { metrics_address: LOCALHOST, metrics_port: None }
    }
}
