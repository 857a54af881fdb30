//! Who is typing. In memory only: typing is worth nothing after a restart.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hearth_core::clock::Clock;
use hearth_storage::Wake;
use ruma::{OwnedUserId, UserId};

use crate::notify::Notifier;

/// The longest that somebody types without saying so again.
const LONGEST: Duration = Duration::from_secs(120);

/// Who types in which room, each change under a serial that sync tokens carry.
pub struct Typing {
    rooms: Mutex<Rooms>,
    clock: Arc<dyn Clock>,
    notifier: Arc<Notifier>,
}

/// What somebody has seen of who types.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    Nothing,
    /// Here, all changes up to a serial.
    Up {
        to: u64,
        /// Somebody typed, as far as they saw.
        somebody: bool,
    },
    /// In another process, whose serials mean nothing here: it may have ended, or not tell this one who types.
    Elsewhere {
        somebody: bool,
    },
}

/// Who types.
#[derive(Debug, Default)]
pub struct Typers {
    pub rooms: Vec<(i64, Vec<OwnedUserId>)>,
    /// After this, somebody types as far as the one sees who is told.
    pub somebody: bool,
}

/// Rooms where nobody types any more that are remembered, so that it can be told.
const MOST_IDLE: usize = 10_000;

#[derive(Default)]
struct Rooms {
    serial: u64,
    /// Of rooms that changed last before this, some are not remembered.
    forgotten: u64,
    rooms: HashMap<i64, Room>,
}

#[derive(Default)]
struct Room {
    /// The serial of the last change.
    changed: u64,
    /// Until when, in milliseconds since the epoch.
    until: BTreeMap<OwnedUserId, i64>,
    /// Whether a task waits for the next of them to end.
    watched: bool,
}

impl Rooms {
    fn forget_idle(&mut self) {
        if self.rooms.len() > MOST_IDLE {
            self.rooms.retain(|_, room| room.watched || !room.until.is_empty());
            self.forgotten = self.serial;
        }
    }
}

impl Typing {
    pub fn new(clock: Arc<dyn Clock>, notifier: Arc<Notifier>) -> Arc<Self> {
        Arc::new(Self { rooms: Mutex::default(), clock, notifier })
    }

    /// `user` types for `timeout` (`Some`), or stopped.
    pub fn set(self: &Arc<Self>, room_sn: i64, user: &UserId, timeout: Option<Duration>) {
        let now = self.clock.now_ms();
        let (changed, watch) = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            let rooms = &mut *rooms;
            rooms.forget_idle();
            let room = rooms.rooms.entry(room_sn).or_default();
            let changed = match timeout {
                Some(t) => {
                    let ms = i64::try_from(t.min(LONGEST).as_millis()).unwrap_or_default();
                    room.until.insert(user.to_owned(), now + ms).is_none()
                }
                None => room.until.remove(user).is_some(),
            };
            if changed {
                rooms.serial += 1;
                room.changed = rooms.serial;
            }
            let watch = !room.watched && !room.until.is_empty();
            room.watched |= watch;
            (changed, watch)
        };
        if changed {
            self.notifier.wake(&[Wake::Room(room_sn)]);
        }
        if watch {
            // One task a room, however often people say that they type.
            let this = Arc::clone(self);
            tokio::spawn(async move {
                while let Some(wait) = this.expire(room_sn) {
                    tokio::time::sleep(wait).await;
                }
            });
        }
    }

    /// Ends what is over; how long until there is more to end.
    fn expire(&self, room_sn: i64) -> Option<Duration> {
        let now = self.clock.now_ms();
        let (changed, wait) = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            let rooms = &mut *rooms;
            let room = rooms.rooms.get_mut(&room_sn)?;
            let before = room.until.len();
            room.until.retain(|_, until| *until > now);
            let changed = room.until.len() != before;
            if changed {
                rooms.serial += 1;
                room.changed = rooms.serial;
            }
            let next = room.until.values().min().map(|until| until.saturating_sub(now));
            room.watched = next.is_some();
            (changed, next)
        };
        if changed {
            self.notifier.wake(&[Wake::Room(room_sn)]);
        }
        // Not too often where the clock stands still or was set back.
        wait.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0).clamp(20, 120_000)))
    }

    pub fn serial(&self) -> u64 {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).serial
    }

    /// Of these rooms, those of which somebody has to be told who types there, who has `seen` this; also where nobody does
    /// any more. Who came into a room just now, one of the `fresh`, has seen nothing of it.
    pub fn typers(&self, rooms: &[i64], fresh: &[i64], seen: Seen) -> Typers {
        let now = self.clock.now_ms();
        let state = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = match seen {
            // So long ago that it isn't known any more what ended since.
            Seen::Up { to, somebody } if to < state.forgotten => Seen::Elsewhere { somebody },
            Seen::Up { to, somebody } if to >= state.serial && fresh.is_empty() => {
                return Typers { rooms: Vec::new(), somebody };
            }
            seen => seen,
        };
        let mut typers = Typers::default();
        for sn in rooms {
            let room = state.rooms.get(sn);
            let typing: Vec<_> = room
                .into_iter()
                .flat_map(|room| &room.until)
                .filter(|(_, until)| **until > now)
                .map(|(user, _)| user.clone())
                .collect();
            let here = !typing.is_empty();
            typers.somebody |= here;
            let told = match seen {
                Seen::Nothing | Seen::Elsewhere { somebody: false } => here,
                Seen::Elsewhere { somebody: true } => true,
                Seen::Up { to, .. } => room.is_some_and(|room| room.changed > to) || here && fresh.contains(sn),
            };
            if told {
                typers.rooms.push((*sn, typing));
            }
        }
        typers
    }
}

#[cfg(test)]
mod tests {
    use hearth_core::clock::TestClock;
    use ruma::user_id;

    use super::*;

    fn told(typers: &Typers) -> Vec<(i64, usize)> {
        typers.rooms.iter().map(|(sn, users)| (*sn, users.len())).collect()
    }

    #[tokio::test]
    async fn who_saw_somebody_type_hears_when_nobody_does() {
        let clock = TestClock::at(1_000);
        let typing = Typing::new(clock.clone(), Notifier::new());
        let alice = user_id!("@alice:x");
        let here = |to, somebody| typing.typers(&[1, 2], &[], Seen::Up { to, somebody });
        let start = typing.serial();
        typing.set(1, alice, Some(Duration::from_secs(30)));
        let typers = here(start, false);
        assert_eq!((told(&typers), typers.somebody), (vec![(1, 1)], true));
        let middle = typing.serial();
        let again = here(middle, true);
        assert!(again.rooms.is_empty() && again.somebody, "nothing new, and she types still");
        // In another process, or after a restart, nothing is known of what they saw but that there was something.
        let elsewhere = |somebody| told(&typing.typers(&[1, 2], &[], Seen::Elsewhere { somebody }));
        assert_eq!((elsewhere(true), elsewhere(false)), (vec![(1, 1), (2, 0)], vec![(1, 1)]));
        // Who comes into the room is told.
        assert_eq!(told(&typing.typers(&[1, 2], &[1, 2], Seen::Up { to: middle, somebody: false })), [(1, 1)]);
        // She stops, or it is over.
        clock.advance(31_000);
        assert!(!typing.typers(&[1, 2], &[], Seen::Nothing).somebody);
        typing.set(1, alice, None);
        let typers = here(middle, true);
        assert_eq!((told(&typers), typers.somebody), (vec![(1, 0)], false));
    }

    #[tokio::test]
    async fn rooms_that_fell_silent_are_not_remembered_for_ever() {
        let typing = Typing::new(TestClock::at(1_000), Notifier::new());
        let alice = user_id!("@alice:x");
        typing.set(1, alice, Some(Duration::from_secs(30)));
        let seen = Seen::Up { to: typing.serial(), somebody: true };
        typing.set(1, alice, None);
        for sn in 2..=i64::try_from(MOST_IDLE).unwrap_or(0) + 2 {
            typing.set(sn, alice, None);
        }
        // Not all of these tasks have looked yet; what nobody watches is gone.
        let idle = typing.rooms.lock().expect("not poisoned").rooms.len();
        assert!(idle <= MOST_IDLE + 1, "{idle}");
        assert_eq!(told(&typing.typers(&[1, 2], &[], seen)).first(), Some(&(1, 0)), "told all the same");
    }
}
