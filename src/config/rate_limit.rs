//! The table `rate_limit`: how much of what somebody may do.

use serde::{Deserialize, Deserializer, de};

/// A limit a kind, in names that operators of Synapse know.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct RateLimit {
    pub enabled: bool,
    pub login_address: Limit,
    pub login_account: Limit,
    pub confirmation: Limit,
    pub sso_address: Limit,
    pub refresh: Limit,
    pub registration: Limit,
    pub registration_available: Limit,
    pub registration_token_validity: Limit,
    pub message: Limit,
    pub room_creation: Limit,
    pub join: Limit,
    pub invite: Limit,
    pub account_data: Limit,
    pub report: Limit,
    /// Also who types.
    pub receipt: Limit,
    pub to_device: Limit,
    pub key_backup: Limit,
    pub media_upload: Limit,
    pub media_create: Limit,
    pub url_preview: Limit,
}

/// None: as much as they like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit(pub Option<Rate>);

/// So many at once, and then so many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    pub burst: u32,
}

impl Limit {
    pub const fn of(per_second: f64, burst: u32) -> Self {
        Self(Some(Rate { per_second, burst }))
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            enabled: true,
            // Ten a minute, and as many accounts can be tried or made.
            login_address: Limit::of(0.17, 10),
            // Several times the above, so that nobody locks the owner out from one address.
            login_account: Limit::of(0.85, 50),
            confirmation: Limit::of(0.17, 10),
            // A login takes four or five pages, and a whole office may have one address.
            sso_address: Limit::of(2.0, 100),
            // Each client asks once an hour, but a whole office may have one address.
            refresh: Limit::of(1.0, 50),
            registration: Limit::of(0.17, 10),
            // Clients ask while somebody types a name.
            registration_available: Limit::of(1.0, 20),
            registration_token_validity: Limit::of(0.1, 5),
            // Nobody types like this, but clients send what piled up while they had no connection.
            message: Limit::of(5.0, 50),
            room_creation: Limit::of(0.1, 20),
            join: Limit::of(0.5, 20),
            // A room can be made with a whole team in it.
            invite: Limit::of(0.5, 50),
            // A new client sets up its keys and settings in one go.
            account_data: Limit::of(1.0, 100),
            // Somebody clears up after a wave of spam, one message at a time.
            report: Limit::of(0.1, 20),
            // Clients say so by themselves while somebody reads and types, also for many rooms at once.
            receipt: Limit::of(10.0, 200),
            // A new client asks for each key that it lacks by itself.
            to_device: Limit::of(20.0, 1_000),
            // It puts all the keys it has, some hundred at once, one request after another.
            key_backup: Limit::of(20.0, 500),
            // Somebody shares the pictures of a journey.
            media_upload: Limit::of(1.0, 100),
            media_create: Limit::of(1.0, 100),
            // Who scrolls through a room asks for all that is linked there.
            url_preview: Limit::of(2.0, 100),
        }
    }
}

/// Counting in this range needs no thought about overflows.
const PER_SECOND: std::ops::RangeInclusive<f64> = 0.00001..=1_000_000.0;
const BURST: std::ops::RangeInclusive<u32> = 1..=1_000_000;

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            per_second: f64,
            burst: u32,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Limited(Written),
            Switch(bool),
        }
        match Either::deserialize(deserializer) {
            Ok(Either::Switch(false)) => Ok(Self(None)),
            Ok(Either::Limited(Written { per_second, burst }))
                if PER_SECOND.contains(&per_second) && BURST.contains(&burst) =>
            {
                Ok(Self::of(per_second, burst))
            }
            _ => Err(de::Error::custom(
                "a limit is { per_second = 0.00001 to 1000000, burst = 1 to 1000000 }, or false for none",
            )),
        }
    }
}
