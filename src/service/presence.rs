//! Who is there. In memory only, like typing, and for the users of this process: it is worth nothing after a restart.
//!
//! Presence costs what it is looked at, so it is bounded from both ends: a change is one entry, whoever may see it; and
//! syncs tell of it among those only who share a room of few members (see [`MOST_MEMBERS`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hearth_core::{Error, Result, clock::Clock};
use ruma::{OwnedUserId, UserId, presence::PresenceState};
use tokio::sync::Notify;

use super::ephemeral::Serial;

/// In a room with more members than this, nobody is told that somebody comes or goes. One can still ask.
pub const MOST_MEMBERS: i64 = 200;

/// Who has not done anything for so long is away, however their device goes on asking for news.
const AWAY_AFTER_MS: i64 = 5 * 60 * 1000;
/// Who has not asked for news for so long is gone.
const OFFLINE_AFTER_MS: i64 = 30 * 1000;
/// Who did something within this time is there right now.
const ACTIVE_MS: i64 = 60 * 1000;
/// Who has been gone for so long is forgotten.
const FORGOTTEN_AFTER_MS: i64 = 24 * 60 * 60 * 1000;

const MAX_STATUS_BYTES: usize = 1_000;

/// Who of this process's users is there.
pub struct Presence {
    users: Mutex<Users>,
    clock: Arc<dyn Clock>,
    serial: Arc<Serial>,
    enabled: bool,
    news: Notify,
}

#[derive(Default)]
struct Users {
    known: HashMap<OwnedUserId, Known>,
    /// By the serial of their last change.
    changed: BTreeMap<u64, OwnedUserId>,
    /// Whose last change nobody has been woken for.
    untold: BTreeSet<OwnedUserId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Online,
    Unavailable(Why),
    Offline,
}

/// Why somebody is away: what brings them back depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// They said so.
    Said,
    /// Their device asks for news in their absence.
    Polling,
    /// They have not done anything for a while.
    Idle,
}

struct Known {
    state: State,
    status: Option<String>,
    /// When they last did something.
    active_ms: i64,
    /// When they last asked for news, or said how they are.
    seen_ms: i64,
    /// Requests for news under way.
    polls: u32,
    serial: u64,
}

/// How somebody is, as others are told.
#[derive(Clone, Debug)]
pub struct Told {
    pub presence: PresenceState,
    pub status: Option<String>,
    pub currently_active: Option<bool>,
    /// In milliseconds; `None` for who has not been seen.
    pub last_active_ago: Option<u64>,
}

/// A request for news under way: its user is there until it ends.
pub struct Polling {
    presence: Arc<Presence>,
    user: OwnedUserId,
}

impl Drop for Polling {
    fn drop(&mut self) {
        let now = self.presence.clock.now_ms();
        if let Some(known) = self.presence.lock().known.get_mut(&self.user) {
            known.polls = known.polls.saturating_sub(1);
            known.seen_ms = now;
        }
    }
}

impl Presence {
    pub fn new(clock: Arc<dyn Clock>, serial: Arc<Serial>, enabled: bool) -> Arc<Self> {
        Arc::new(Self { users: Mutex::default(), clock, serial, enabled, news: Notify::new() })
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user says how they are.
    pub fn set(&self, user: &UserId, presence: &PresenceState, status: Option<String>) -> Result<()> {
        let state = match presence {
            PresenceState::Online => State::Online,
            PresenceState::Unavailable => State::Unavailable(Why::Said),
            PresenceState::Offline => State::Offline,
            other => return Err(Error::invalid_param(format!("There is no presence {other}"))),
        };
        let status = status.filter(|status| !status.is_empty());
        if status.as_ref().is_some_and(|status| status.len() > MAX_STATUS_BYTES) {
            return Err(Error::invalid_param(format!("A status message has at most {MAX_STATUS_BYTES} bytes")));
        }
        if self.enabled {
            self.change(user, |known, now| {
                known.seen_ms = now;
                if state == State::Online {
                    known.active_ms = now;
                }
                known.state = state;
                known.status = status;
            });
        }
        Ok(())
    }

    /// A device of the user asks for news, and says how the user is meanwhile.
    pub fn polls(self: &Arc<Self>, user: &UserId, presence: &PresenceState) -> Option<Polling> {
        if !self.enabled {
            return None;
        }
        let online = match presence {
            PresenceState::Online => true,
            PresenceState::Unavailable => false,
            // Not to be seen for it.
            _ => return None,
        };
        self.change(user, |known, now| {
            known.seen_ms = now;
            known.polls += 1;
            match (known.state, online) {
                (State::Offline | State::Unavailable(Why::Polling), true) => {
                    known.state = State::Online;
                    known.active_ms = now;
                }
                (State::Offline | State::Online, false) => known.state = State::Unavailable(Why::Polling),
                // Asking for news is not doing something.
                _ => {}
            }
        });
        Some(Polling { presence: Arc::clone(self), user: user.to_owned() })
    }

    /// The user did something that only somebody does who is there.
    pub fn acts(&self, user: &UserId) {
        // Who has not asked for news is left alone: a bot that only sends is not shown coming and going.
        if self.enabled && self.lock().known.contains_key(user) {
            self.change(user, |known, now| {
                known.active_ms = now;
                if matches!(known.state, State::Unavailable(_)) {
                    known.state = State::Online;
                }
            });
        }
    }

    fn change(&self, user: &UserId, change: impl FnOnce(&mut Known, i64)) {
        let now = self.clock.now_ms();
        let mut users = self.lock();
        let users = &mut *users;
        if !users.known.contains_key(user) {
            let new = Known { state: State::Offline, status: None, active_ms: now, seen_ms: now, polls: 0, serial: 0 };
            users.known.insert(user.to_owned(), new);
        }
        let Some(known) = users.known.get_mut(user) else { return };
        let before = (known.state, known.status.clone());
        change(known, now);
        let shown = |state| std::mem::discriminant::<State>(&state);
        if shown(before.0) != shown(known.state) || before.1 != known.status {
            users.changed.remove(&known.serial);
            known.serial = self.serial.next();
            users.changed.insert(known.serial, user.to_owned());
            users.untold.insert(user.to_owned());
            self.news.notify_one();
        }
    }

    /// Lets time pass: who did nothing is away, who asked for nothing is gone. To be called now and then.
    pub fn expire(&self) {
        let now = self.clock.now_ms();
        let (mut due, mut old) = (Vec::new(), Vec::new());
        for (user, known) in &self.lock().known {
            let gone_for = now.saturating_sub(known.seen_ms);
            let idle_for = now.saturating_sub(known.active_ms);
            match known.state {
                State::Offline if known.polls == 0 && gone_for > FORGOTTEN_AFTER_MS => old.push(user.clone()),
                State::Offline => {}
                _ if known.polls == 0 && gone_for > OFFLINE_AFTER_MS => due.push((user.clone(), State::Offline)),
                State::Online if idle_for > AWAY_AFTER_MS => due.push((user.clone(), State::Unavailable(Why::Idle))),
                _ => {}
            }
        }
        for (user, state) in due {
            self.change(&user, |known, _| known.state = state);
        }
        let mut users = self.lock();
        for user in old {
            if let Some(known) = users.known.remove(&user) {
                users.changed.remove(&known.serial);
            }
        }
    }

    /// How the user is.
    pub fn of(&self, user: &UserId) -> Told {
        let now = self.clock.now_ms();
        match self.lock().known.get(user) {
            Some(known) => known.told(now),
            None => {
                Told { presence: PresenceState::Offline, status: None, currently_active: None, last_active_ago: None }
            }
        }
    }

    /// Who changed after this serial (`None`: who is there), the latest first.
    pub fn changed_after(&self, serial: Option<u64>, most: usize) -> Vec<OwnedUserId> {
        let users = self.lock();
        let latest = users.changed.range(serial.map_or(0, |serial| serial.saturating_add(1))..).rev();
        let is_there = |user: &UserId| users.known.get(user).is_some_and(|known| known.state != State::Offline);
        latest.map(|(_, user)| user).filter(|user| serial.is_some() || is_there(user)).take(most).cloned().collect()
    }

    /// Whether anything is known of the user.
    pub fn knows(&self, user: &UserId) -> bool {
        self.lock().known.contains_key(user)
    }

    /// Returns when somebody has to be told of something.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Some of those whose change nobody has been woken for.
    pub fn take_untold(&self, most: usize) -> Vec<OwnedUserId> {
        let mut users = self.lock();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(user) = users.untold.pop_first()
        {
            taken.push(user);
        }
        if !users.untold.is_empty() {
            self.news.notify_one();
        }
        taken
    }
}

impl Known {
    fn told(&self, now: i64) -> Told {
        let idle_for = now.saturating_sub(self.active_ms).max(0);
        let presence = match self.state {
            State::Online => PresenceState::Online,
            State::Unavailable(_) => PresenceState::Unavailable,
            State::Offline => PresenceState::Offline,
        };
        Told {
            currently_active: (self.state == State::Online).then_some(idle_for < ACTIVE_MS),
            last_active_ago: u64::try_from(idle_for).ok(),
            status: self.status.clone(),
            presence,
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_core::clock::TestClock;
    use ruma::user_id;

    use super::*;

    struct Story {
        clock: Arc<TestClock>,
        serial: Arc<Serial>,
        presence: Arc<Presence>,
    }

    fn story() -> Story {
        let (clock, serial) = (TestClock::at(1_000_000), Arc::<Serial>::default());
        let presence = Presence::new(clock.clone(), Arc::clone(&serial), true);
        Story { clock, serial, presence }
    }

    impl Story {
        fn alice(&self) -> String {
            self.presence.expire();
            self.presence.of(user_id!("@alice:x")).presence.to_string()
        }

        fn polls(&self, presence: &PresenceState) -> Option<Polling> {
            self.presence.polls(user_id!("@alice:x"), presence)
        }
    }

    #[test]
    fn who_asks_for_news_is_there_until_they_stop() {
        let s = story();
        assert_eq!(s.alice(), "offline");
        let polling = s.polls(&PresenceState::Online);
        assert_eq!(s.alice(), "online");
        s.clock.advance(2 * 60 * 1000);
        assert_eq!(s.alice(), "online", "the poll is still under way");
        drop(polling);
        s.clock.advance(OFFLINE_AFTER_MS);
        assert_eq!(s.alice(), "online");
        s.clock.advance(1);
        assert_eq!(s.alice(), "offline");
        assert!(s.polls(&PresenceState::Offline).is_none());
        assert_eq!(s.alice(), "offline", "somebody looks without being seen");
    }

    #[test]
    fn who_does_nothing_is_away_until_they_do() {
        let s = story();
        let _polling = s.polls(&PresenceState::Online);
        s.clock.advance(AWAY_AFTER_MS + 1);
        assert_eq!(s.alice(), "unavailable");
        let _again = s.polls(&PresenceState::Online);
        assert_eq!(s.alice(), "unavailable", "a device that asks for news is not its user");
        let told = s.presence.of(user_id!("@alice:x"));
        assert_eq!((told.currently_active, told.last_active_ago), (None, Some(300_001)));
        s.presence.acts(user_id!("@alice:x"));
        assert_eq!(s.alice(), "online");
        let told = s.presence.of(user_id!("@alice:x"));
        assert_eq!((told.currently_active, told.last_active_ago), (Some(true), Some(0)));
        s.clock.advance(ACTIVE_MS);
        assert_eq!(s.presence.of(user_id!("@alice:x")).currently_active, Some(false));
    }

    #[test]
    fn what_one_says_stands_until_one_says_otherwise() {
        let s = story();
        s.presence.set(user_id!("@alice:x"), &PresenceState::Unavailable, Some("lunch".into())).expect("a presence");
        let _polling = s.polls(&PresenceState::Online);
        assert_eq!(s.alice(), "unavailable");
        s.presence.set(user_id!("@alice:x"), &PresenceState::Online, None).expect("a presence");
        assert_eq!(s.presence.of(user_id!("@alice:x")).status, None);
        let _absent = s.polls(&PresenceState::Unavailable);
        assert_eq!(s.alice(), "unavailable");
        let _back = s.polls(&PresenceState::Online);
        assert_eq!(s.alice(), "online", "the device says that its user is back");
    }

    #[test]
    fn a_change_is_told_once_and_only_a_change() {
        let s = story();
        let alice = user_id!("@alice:x");
        let seen = s.serial.now();
        let _polling = s.polls(&PresenceState::Online);
        assert_eq!(s.presence.changed_after(Some(seen), 9), [alice]);
        assert_eq!(s.presence.take_untold(9), [alice]);
        let seen = s.serial.now();
        let _more = [s.polls(&PresenceState::Online), s.polls(&PresenceState::Online)];
        s.presence.acts(alice);
        assert_eq!(s.serial.now(), seen);
        assert!(s.presence.changed_after(Some(seen), 9).is_empty() && s.presence.take_untold(9).is_empty());
        assert_eq!(s.presence.changed_after(None, 9), [alice], "who is there");
        s.presence.set(alice, &PresenceState::Offline, None).expect("a presence");
        assert!(s.presence.changed_after(None, 9).is_empty());
        assert_eq!(s.presence.changed_after(Some(seen), 9), [alice], "that somebody went is news");
        s.presence.set(user_id!("@bob:x"), &PresenceState::Online, None).expect("a presence");
        assert_eq!(s.presence.changed_after(Some(0), 1), [user_id!("@bob:x")], "the latest first");
    }

    #[test]
    fn who_is_long_gone_is_forgotten() {
        let s = story();
        drop(s.polls(&PresenceState::Online));
        s.clock.advance(OFFLINE_AFTER_MS + 1);
        s.presence.expire();
        s.clock.advance(FORGOTTEN_AFTER_MS);
        s.presence.expire();
        assert!(!s.presence.knows(user_id!("@alice:x")) && s.presence.changed_after(Some(0), 9).is_empty());
    }
}
