//! Who is typing. In memory only: typing is worth nothing after a restart.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hearth_core::clock::Clock;
use hearth_storage::Wake;
use ruma::{OwnedUserId, UserId};

use super::ephemeral::Serial;
use crate::notify::Notifier;

/// The longest that somebody types without saying so again.
const LONGEST: Duration = Duration::from_secs(120);

/// Who types in which room, each change under a serial that sync tokens carry.
pub struct Typing {
    rooms: Mutex<Rooms>,
    clock: Arc<dyn Clock>,
    notifier: Arc<Notifier>,
    serial: Arc<Serial>,
}

#[derive(Default)]
struct Rooms {
    /// The serial of the last change in any room.
    changed: u64,
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

impl Typing {
    pub fn new(clock: Arc<dyn Clock>, notifier: Arc<Notifier>, serial: Arc<Serial>) -> Arc<Self> {
        Arc::new(Self { rooms: Mutex::default(), clock, notifier, serial })
    }

    /// `user` types for `timeout` (`Some`), or stopped.
    pub fn set(self: &Arc<Self>, room_sn: i64, user: &UserId, timeout: Option<Duration>) {
        let now = self.clock.now_ms();
        let (changed, watch) = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            let rooms = &mut *rooms;
            let room = rooms.rooms.entry(room_sn).or_default();
            let changed = match timeout {
                Some(t) => {
                    let ms = i64::try_from(t.min(LONGEST).as_millis()).unwrap_or_default();
                    room.until.insert(user.to_owned(), now + ms).is_none()
                }
                None => room.until.remove(user).is_some(),
            };
            if changed {
                rooms.changed = self.serial.next();
                room.changed = rooms.changed;
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
                rooms.changed = self.serial.next();
                room.changed = rooms.changed;
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

    /// Of these rooms, those whose typers changed after `serial` (`None`: those where somebody types), with who types.
    pub fn changed(&self, rooms: &[i64], serial: Option<u64>) -> Vec<(i64, Vec<OwnedUserId>)> {
        let now = self.clock.now_ms();
        let state = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if serial.is_some_and(|s| s >= state.changed) {
            return Vec::new();
        }
        rooms
            .iter()
            .filter_map(|sn| {
                let room = state.rooms.get(sn)?;
                let typing: Vec<_> =
                    room.until.iter().filter(|(_, until)| **until > now).map(|(u, _)| u.clone()).collect();
                let shown = serial.map_or(!typing.is_empty(), |s| room.changed > s);
                shown.then_some((*sn, typing))
            })
            .collect()
    }
}
