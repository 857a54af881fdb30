//! Who does too much of something is told when to come back.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use hearth_core::{Error, Kind, Result, clock::Clock};

use super::session::Session;
use crate::{
    config::{Rate, RateLimit},
    telemetry::name,
};

/// What there is a limit for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    LoginAddress,
    LoginAccount,
    Confirmation,
    SsoAddress,
    Refresh,
    Registration,
    RegistrationAvailable,
    RegistrationTokenValidity,
    Message,
    RoomCreation,
    Join,
    Invite,
    AccountData,
    Report,
    Receipt,
    ToDevice,
    KeyBackup,
    MediaUpload,
    MediaCreate,
    UrlPreview,
}

impl Limited {
    /// The key of the configuration, which is also the label of the metric.
    const fn name(self) -> &'static str {
        match self {
            Self::LoginAddress => "login_address",
            Self::LoginAccount => "login_account",
            Self::Confirmation => "confirmation",
            Self::SsoAddress => "sso_address",
            Self::Refresh => "refresh",
            Self::Registration => "registration",
            Self::RegistrationAvailable => "registration_available",
            Self::RegistrationTokenValidity => "registration_token_validity",
            Self::Message => "message",
            Self::RoomCreation => "room_creation",
            Self::Join => "join",
            Self::Invite => "invite",
            Self::AccountData => "account_data",
            Self::Report => "report",
            Self::Receipt => "receipt",
            Self::ToDevice => "to_device",
            Self::KeyBackup => "key_backup",
            Self::MediaUpload => "media_upload",
            Self::MediaCreate => "media_create",
            Self::UrlPreview => "url_preview",
        }
    }
}

/// Where it is counted: in this process, or some day in a place that all processes share.
pub trait Counters: Send + Sync + 'static {
    /// Takes `cost` from what `who` has left of something; if there isn't so much, takes nothing and says in how many
    /// milliseconds there will be. Who wants more at once than there can ever be needs all there is, and owes the rest.
    fn take(&self, what: &'static str, who: &str, rate: Rate, cost: u32) -> BoxFuture<'_, Option<u64>>;
}

/// The limits, and how much of them is used.
pub struct RateLimits {
    config: RateLimit,
    counters: Arc<dyn Counters>,
}

impl RateLimits {
    pub fn new(config: RateLimit, counters: Arc<dyn Counters>) -> Arc<Self> {
        Arc::new(Self { config, counters })
    }

    /// Something is done from an address.
    pub async fn address(&self, what: Limited, ip: IpAddr) -> Result<()> {
        if self.rate(what).is_none() {
            return Ok(());
        }
        self.take(what, &subscriber(ip).to_string(), 1).await
    }

    /// A user does something so many times. Administrators may: they clean up after others.
    pub async fn user(&self, what: Limited, session: &Session, times: usize) -> Result<()> {
        if session.admin || times == 0 {
            return Ok(());
        }
        self.take(what, session.user_id.as_str(), u32::try_from(times).unwrap_or(u32::MAX)).await
    }

    /// Somebody tries to be this user, who need not exist.
    pub async fn account(&self, user: &str) -> Result<()> {
        self.take(Limited::LoginAccount, user, 1).await
    }

    /// Somebody who has a session of this user tries to prove that they are the user, administrator or not.
    pub async fn confirmation(&self, session: &Session) -> Result<()> {
        self.take(Limited::Confirmation, session.user_id.as_str(), 1).await
    }

    async fn take(&self, what: Limited, who: &str, cost: u32) -> Result<()> {
        let Some(rate) = self.rate(what) else { return Ok(()) };
        match self.counters.take(what.name(), who, rate, cost).await {
            None => Ok(()),
            Some(retry_after_ms) => {
                metrics::counter!(name::RATE_LIMITED, "limit" => what.name()).increment(1);
                Err(Error::new(Kind::LimitExceeded { retry_after_ms }, "Too many requests of this kind: slow down"))
            }
        }
    }

    fn rate(&self, what: Limited) -> Option<Rate> {
        let all = &self.config;
        let limit = match what {
            Limited::LoginAddress => all.login_address,
            Limited::LoginAccount => all.login_account,
            Limited::Confirmation => all.confirmation,
            Limited::SsoAddress => all.sso_address,
            Limited::Refresh => all.refresh,
            Limited::Registration => all.registration,
            Limited::RegistrationAvailable => all.registration_available,
            Limited::RegistrationTokenValidity => all.registration_token_validity,
            Limited::Message => all.message,
            Limited::RoomCreation => all.room_creation,
            Limited::Join => all.join,
            Limited::Invite => all.invite,
            Limited::AccountData => all.account_data,
            Limited::Report => all.report,
            Limited::Receipt => all.receipt,
            Limited::ToDevice => all.to_device,
            Limited::KeyBackup => all.key_backup,
            Limited::MediaUpload => all.media_upload,
            Limited::MediaCreate => all.media_create,
            Limited::UrlPreview => all.url_preview,
        };
        limit.0.filter(|_| all.enabled)
    }
}

/// Whoever has an address of IPv6 commonly has 2^64 of them.
fn subscriber(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// About 30 bytes each.
const MAX_COUNTED: usize = 200_000;
/// So often at most is looked for who has all of theirs back, when there is no more room.
const SWEEP_EVERY_US: i64 = 1_000_000;

/// Counts in memory, for this process.
pub struct InMemory {
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    used: Mutex<Used>,
}

/// Of each who has used something lately: when, in microseconds, they will have all of it back. From that follows how
/// much they have now.
#[derive(Default)]
struct Used {
    full_again: HashMap<u64, i64>,
    swept_us: i64,
    /// The latest time there was, and by how much the clock has been set back since the start.
    latest_us: i64,
    set_back_us: i64,
}

impl InMemory {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, hasher: RandomState::new(), used: Mutex::default() })
    }
}

impl Counters for InMemory {
    fn take(&self, what: &'static str, who: &str, rate: Rate, cost: u32) -> BoxFuture<'_, Option<u64>> {
        let key = self.hasher.hash_one((what, who));
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked up under the lock, so that it goes back for nobody unless the clock does.
        let now = used.onward(self.clock.now_ms().saturating_mul(1000));
        let wait = used.take(key, now, rate, cost);
        drop(used);
        Box::pin(std::future::ready(wait))
    }
}

impl Used {
    /// The time, which goes on from where it was when the clock is set back: that must not make anybody wait for longer.
    fn onward(&mut self, clock_us: i64) -> i64 {
        self.set_back_us = self.set_back_us.max(self.latest_us.saturating_sub(clock_us));
        self.latest_us = clock_us.saturating_add(self.set_back_us);
        self.latest_us
    }

    fn take(&mut self, key: u64, now: i64, rate: Rate, cost: u32) -> Option<u64> {
        // The configuration's bounds on both keep this exact, and far from the ends of the range.
        let each = (1e6 / rate.per_second).round() as i64;
        let whole = each * i64::from(rate.burst);
        let before = self.full_again.get(&key).map_or(now, |at| now.max(*at));
        let late = before.saturating_add(each * i64::from(cost.min(rate.burst))) - (now + whole);
        if late > 0 {
            return Some(late.cast_unsigned().div_ceil(1000));
        }
        if self.full_again.len() >= MAX_COUNTED && !self.full_again.contains_key(&key) && !self.sweep(now) {
            // Whoever commands so many addresses is not stopped by counting.
            return None;
        }
        self.full_again.insert(key, before.saturating_add(each.saturating_mul(i64::from(cost))));
        None
    }

    /// Forgets who has everything back; whether there is room now.
    fn sweep(&mut self, now: i64) -> bool {
        if !(self.swept_us..self.swept_us + SWEEP_EVERY_US).contains(&now) {
            self.swept_us = now;
            self.full_again.retain(|_, at| *at > now);
        }
        self.full_again.len() < MAX_COUNTED
    }
}

#[cfg(test)]
mod tests {
    use hearth_core::clock::TestClock;

    use super::*;
    use crate::config::Limit;

    async fn taken(counters: &InMemory, who: &str, rate: Rate) -> bool {
        counters.take("x", who, rate, 1).await.is_none()
    }

    #[tokio::test]
    async fn so_many_at_once_and_then_so_many_a_second() {
        for (per_second, burst) in [(0.17, 10), (5.0, 50), (1000.0, 1), (3.0, 7)] {
            let clock = TestClock::at(1_700_000_000_000);
            let counters = InMemory::new(clock.clone());
            let rate = Rate { per_second, burst };
            for _ in 0..burst {
                assert!(taken(&counters, "alice", rate).await);
            }
            assert!(!taken(&counters, "alice", rate).await, "{rate:?}: the burst is used up");
            assert!(taken(&counters, "bob", rate).await, "others have their own");
            // Asking twice per share for a hundred shares: as many as the rate allows get through, give or take one.
            let step = (500.0 / per_second).ceil();
            let mut through = 0.0;
            for _ in 0..200 {
                clock.advance(step as i64);
                through += f64::from(u8::from(taken(&counters, "alice", rate).await));
            }
            let allowed = 200.0 * step / 1000.0 * per_second;
            let most = f64::min(200.0, allowed);
            assert!((through - most).abs() <= 1.0 + most * 0.001, "{rate:?}: {through} of {most}");
        }
    }

    #[tokio::test]
    async fn who_comes_back_when_told_gets_through() {
        let clock = TestClock::at(1_700_000_000_000);
        let counters = InMemory::new(clock.clone());
        let rate = Rate { per_second: 0.17, burst: 3 };
        assert_eq!(counters.take("x", "alice", rate, 3).await, None);
        let wait = counters.take("x", "alice", rate, 2).await.expect("nothing is left");
        assert_eq!(wait, 11_765, "two shares of 1 s / 0.17");
        clock.advance(wait.cast_signed() - 1);
        assert_eq!(counters.take("x", "alice", rate, 2).await, Some(1));
        clock.advance(1);
        assert_eq!(counters.take("x", "alice", rate, 2).await, None, "refusals cost nothing");
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_locks_nobody_out() {
        let clock = TestClock::at(1_700_000_000_000);
        let counters = InMemory::new(clock.clone());
        let rate = Rate { per_second: 1.0, burst: 2 };
        assert!(taken(&counters, "alice", rate).await);
        clock.advance(-3_600_000);
        assert!(taken(&counters, "alice", rate).await);
        assert!(!taken(&counters, "alice", rate).await);
        clock.advance(1_000);
        assert!(taken(&counters, "alice", rate).await);
        assert!(!taken(&counters, "alice", rate).await);
    }

    #[tokio::test]
    async fn what_is_more_than_there_can_be_is_owed() {
        let clock = TestClock::at(1_700_000_000_000);
        let counters = InMemory::new(clock.clone());
        let rate = Rate { per_second: 1.0, burst: 5 };
        assert_eq!(counters.take("x", "alice", rate, 20).await, None);
        assert_eq!(counters.take("x", "alice", rate, 1).await, Some(16_000));
        clock.advance(-3_600_000);
        assert_eq!(counters.take("x", "alice", rate, 1).await, Some(16_000));
        clock.advance(16_000);
        assert_eq!(counters.take("x", "alice", rate, 20).await, Some(4_000), "there is one, and there could be five");
        assert_eq!(counters.take("x", "alice", rate, 1).await, None);
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let rate = Rate { per_second: 1.0, burst: 2 };
        let mut used = Used::default();
        let many = MAX_COUNTED as u64;
        for key in 0..many {
            assert_eq!(used.take(key, 0, rate, 1), None);
        }
        assert_eq!(used.take(many, 500_000, rate, 1), None);
        assert_eq!(used.full_again.len(), MAX_COUNTED, "nobody could be forgotten");
        assert_eq!(used.take(0, 500_000, rate, 2), Some(500), "who is counted stays so");
        assert_eq!(used.take(many, 2_000_000, rate, 1), None);
        assert_eq!(used.full_again.len(), 1, "all the others have everything back");
    }

    #[tokio::test]
    async fn administrators_clean_up_unhindered_and_nobody_is_asked_for_what_is_off() {
        let mut config = RateLimit { message: Limit::of(1.0, 1), join: Limit(None), ..RateLimit::default() };
        let session = |admin| Session {
            user_id: "@a:b.c".try_into().expect("a user id"),
            device_id: "D".into(),
            admin,
            as_of: 0,
        };
        let limits = |config: &RateLimit| RateLimits::new(config.clone(), InMemory::new(TestClock::at(0)));
        let some = limits(&config);
        for _ in 0..9 {
            some.user(Limited::Message, &session(true), 1).await.expect("unlimited");
            some.user(Limited::Join, &session(false), 1).await.expect("unlimited");
        }
        some.user(Limited::Message, &session(false), 7).await.expect("more than there can be takes all there is");
        assert!(some.user(Limited::Message, &session(false), 1).await.is_err());
        config.enabled = false;
        let none = limits(&config);
        for _ in 0..99 {
            none.address(Limited::LoginAddress, IpAddr::from([10, 0, 0, 1])).await.expect("unlimited");
        }
    }

    #[test]
    fn a_subscriber_has_many_addresses() {
        let of = |ip: &str| subscriber(ip.parse().expect("an address")).to_string();
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
