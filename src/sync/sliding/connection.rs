//! What each connection of a device was told, by the position that the client got with an answer.
//!
//! The state of the position that the client came with last is kept beside those of the answers that may be under way to it:
//! an answer that gets lost can be asked for again. Who comes with a position that is not known begins anew.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use hearth_core::{Error, Result, sliding::Config, token::Position};
use hearth_storage::{SavedConnection, Storage};
use moka::{notification::RemovalCause, ops::compute::Op, policy::EvictionPolicy, sync::Cache};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::service::shape::Reader;

/// Bytes kept in memory.
const BYTES: u64 = 128 << 20;
/// Connections of a device; of more, the one that was used least lately goes.
const MOST: usize = 8;
/// Answers that may be under way on one connection.
const UNDER_WAY: usize = 3;
/// Devices whose requests reach several processes in turn, and for how long that is remembered.
const WANDERERS: u64 = 10_000;
const WANDERING: Duration = Duration::from_secs(3_600);
/// Devices that are written down side by side.
const SAVED_AT_ONCE: usize = 64;
/// Kinds of rooms by what was asked of them.
const MOST_CONFIGS: usize = 250;

/// All up to the position of the state.
const LIVE: i64 = i64::MAX;

/// What was told of a room up to where; 0 if nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UpTo(i64);

impl UpTo {
    pub(super) const NOW: Self = Self(LIVE);

    /// Of a state at this position.
    pub(super) fn of(self, pos: i64) -> i64 {
        if self.0 == LIVE { pos } else { self.0 }
    }

    /// The same in a state of a later position.
    fn kept(self, pos: i64) -> Self {
        Self(self.of(pos))
    }
}

/// What was told of a room.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) up_to: UpTo,
    pub(super) receipts: UpTo,
    pub(super) data: UpTo,
    /// Index of what was asked of it.
    pub(super) config: usize,
    /// So many of the newest events, without a gap; [`ALL_EVENTS`] if none before them is left to tell.
    pub(super) limit: u64,
    pub(super) is_dm: bool,
    /// Unread: notifications, highlights.
    pub(super) counts: (i64, i64),
    /// The members of whom was told, if they are loaded lazily. Not written down: to tell again does no harm.
    #[serde(skip)]
    pub(super) told: Arc<HashSet<String>>,
}

pub(super) const ALL_EVENTS: u64 = u64::MAX;

impl Sent {
    /// The room was not looked at by the answer that follows on `pos`.
    pub(super) fn leave_behind(&mut self, pos: i64) {
        self.up_to = self.up_to.kept(pos);
        self.receipts = self.receipts.kept(pos);
        self.data = self.data.kept(pos);
    }

    pub(super) fn is_live(&self) -> bool {
        self.up_to == UpTo::NOW
    }
}

/// What a client knows who has read an answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) key: u64,
    pub(super) pos: i64,
    pub(super) serial: u64,
    pub(super) epoch: u64,
    /// Somebody typed, as far as they were told.
    pub(super) typing: bool,
    pub(super) configs: Arc<Configs>,
    pub(super) rooms: Arc<HashMap<i64, Sent>>,
}

impl State {
    pub(super) fn position(&self) -> Position {
        Position { pos: self.pos, key: self.key }
    }

    fn bytes(&self) -> usize {
        let told: usize = self.rooms.values().map(|sent| sent.told.len()).sum();
        256 + self.configs.bytes() + self.rooms.len() * (size_of::<Sent>() + 16) + told * 64
    }
}

/// Shared by all rooms that are asked for alike.
type SharedConfig = Arc<Config>;

/// What is asked of rooms, each way of asking once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Configs(Vec<SharedConfig>);

impl Configs {
    pub(super) fn get(&self, i: usize) -> Option<&SharedConfig> {
        self.0.get(i)
    }

    pub(super) fn index(&mut self, config: &Config) -> usize {
        if let Some(known) = self.0.iter().position(|known| **known == *config) {
            return known;
        }
        self.0.push(Arc::new(config.clone()));
        self.0.len() - 1
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_too_many(&self) -> bool {
        self.0.len() > MOST_CONFIGS
    }

    /// Without those by which no room was told.
    pub(super) fn tidied(&self, rooms: &mut HashMap<i64, Sent>) -> Self {
        let mut kept = Self::default();
        for sent in rooms.values_mut() {
            if let Some(config) = self.0.get(sent.config) {
                sent.config = kept.index(config);
            }
        }
        kept
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|config| config.required.bytes() + 64).sum()
    }
}

#[derive(Clone)]
struct Connection {
    conn_id: Arc<str>,
    used_ms: i64,
    /// That which the client has, and then those of answers under way.
    states: Vec<Arc<State>>,
}

type Device = (OwnedUserId, String);

/// What is not written down.
#[derive(Default)]
struct Unsaved {
    /// Those to whom more was told since.
    devices: HashSet<Device>,
    /// Those of them that memory has no room for any more.
    parting: HashMap<Device, Arc<Vec<Connection>>>,
}

/// The connections of all devices.
pub(in crate::sync) struct Connections {
    devices: Cache<Device, Arc<Vec<Connection>>>,
    unsaved: Arc<Mutex<Unsaved>>,
    /// Those that were told something by another process while this one knew of them.
    wandering: Cache<Device, ()>,
}

impl Connections {
    pub(in crate::sync) fn new() -> Self {
        Self::with_room_for(BYTES)
    }

    fn with_room_for(bytes: u64) -> Self {
        let unsaved = Arc::<Mutex<Unsaved>>::default();
        let parting = Arc::clone(&unsaved);
        let parts = move |device: Arc<Device>, connections, cause| {
            let mut unsaved = parting.lock().unwrap_or_else(PoisonError::into_inner);
            if cause == RemovalCause::Size && unsaved.devices.remove(&*device) {
                unsaved.parting.insert((*device).clone(), connections);
            }
        };
        let weigh = |_: &Device, connections: &Arc<Vec<Connection>>| {
            // States that follow on each other share most of what they know.
            let one = |c: &Connection| c.states.iter().map(|s| s.bytes()).max().unwrap_or_default() * 2;
            u32::try_from(256 + connections.iter().map(one).sum::<usize>()).unwrap_or(u32::MAX)
        };
        Self {
            devices: Cache::builder()
                .weigher(weigh)
                .max_capacity(bytes)
                // Whoever is new is of more use than whoever came often, and will not again.
                .eviction_policy(EvictionPolicy::lru())
                .eviction_listener(parts)
                .build(),
            unsaved,
            wandering: Cache::builder().max_capacity(WANDERERS).time_to_idle(WANDERING).build(),
        }
    }

    /// What the client knows who comes with this position.
    pub(super) async fn state(
        &self,
        storage: &dyn Storage,
        reader: Reader<'_>,
        conn_id: &str,
        position: Position,
    ) -> Result<Arc<State>> {
        if let Some(state) = self.known(reader, conn_id, position) {
            return Ok(state);
        }
        self.take_back(reader);
        if let Some(state) = self.known(reader, conn_id, position) {
            return Ok(state);
        }
        // The server was started since, another process has answered, or memory had no room for it.
        if self.devices.get(&device(reader)).is_some_and(|known| known.iter().any(|c| *c.conn_id == *conn_id)) {
            self.wandering.insert(device(reader), ());
        }
        let saved = storage.connections(reader.user.as_str(), reader.device).await?;
        for saved in saved.into_iter().filter(|saved| saved.conn_id == conn_id) {
            // What another version wrote, and this one can't read, is not known.
            let states: Vec<Arc<State>> = serde_json::from_str(&saved.body).unwrap_or_default();
            if states.iter().any(|state| state.position() == position) {
                let connection = Connection { conn_id: conn_id.into(), used_ms: saved.used_ms, states };
                self.put(reader, connection);
            }
        }
        self.known(reader, conn_id, position).ok_or_else(Error::unknown_pos)
    }

    /// Who comes with a position has all before it, which need not be known any more.
    fn known(&self, reader: Reader<'_>, conn_id: &str, position: Position) -> Option<Arc<State>> {
        let mut found = None;
        self.devices.entry(device(reader)).and_compute_with(|entry| {
            let Some(entry) = entry else { return Op::Nop };
            let mut connections = (**entry.value()).clone();
            let Some(connection) = connections.iter_mut().find(|c| *c.conn_id == *conn_id) else { return Op::Nop };
            let Some(at) = connection.states.iter().position(|state| state.position() == position) else {
                return Op::Nop;
            };
            found = Some(Arc::clone(&connection.states[at]));
            if at == 0 {
                return Op::Nop;
            }
            connection.states.drain(..at);
            connection.states.truncate(1);
            Op::Put(Arc::new(connections))
        });
        found
    }

    /// The client is given this state with an answer that follows on `base`, or begins anew.
    pub(super) fn give(&self, reader: Reader<'_>, conn_id: &str, base: Option<&Arc<State>>, state: State, now_ms: i64) {
        let state = Arc::new(state);
        // Before it, as it may have to go again at once; and behind it, as what was there may be saved in between.
        self.note(reader);
        self.place(reader, conn_id, base, state, now_ms);
        self.note(reader);
    }

    fn place(&self, reader: Reader<'_>, conn_id: &str, base: Option<&Arc<State>>, state: Arc<State>, now_ms: i64) {
        let Some(base) = base else {
            self.put(reader, Connection { conn_id: conn_id.into(), used_ms: now_ms, states: vec![state] });
            return;
        };
        self.take_back(reader);
        self.devices.entry(device(reader)).and_compute_with(|entry| {
            let Some(entry) = entry else {
                // It had to go while its client waited for this answer.
                let states = vec![Arc::clone(base), state];
                return Op::Put(Arc::new(vec![Connection { conn_id: conn_id.into(), used_ms: now_ms, states }]));
            };
            let mut connections = (**entry.value()).clone();
            let connection = connections.iter_mut().find(|c| *c.conn_id == *conn_id);
            // If the client has gone on since, it does not wait for this answer any more.
            let Some(connection) = connection.filter(|c| c.states.first().is_some_and(|s| s.key == base.key)) else {
                return Op::Nop;
            };
            connection.used_ms = now_ms;
            connection.states.push(state);
            if connection.states.len() > 1 + UNDER_WAY {
                connection.states.remove(1);
            }
            Op::Put(Arc::new(connections))
        });
    }

    fn put(&self, reader: Reader<'_>, connection: Connection) {
        self.devices.entry(device(reader)).and_compute_with(|entry| {
            let old = entry.map(moka::Entry::into_value).unwrap_or_default();
            let mut connections: Vec<_> = old.iter().filter(|c| c.conn_id != connection.conn_id).cloned().collect();
            connections.push(connection);
            connections.sort_by_key(|c| c.used_ms);
            let surplus = connections.len().saturating_sub(MOST);
            connections.drain(..surplus);
            Op::Put(Arc::new(connections))
        });
    }

    fn note(&self, reader: Reader<'_>) {
        self.unsaved().devices.insert(device(reader));
    }

    /// Somebody comes whose connections had to go, and are not written down yet.
    fn take_back(&self, reader: Reader<'_>) {
        let parting = self.unsaved().parting.remove(&device(reader));
        let Some(connections) = parting else { return };
        self.note(reader);
        for connection in connections.iter() {
            self.put(reader, connection.clone());
        }
    }

    /// Writes down what was told since this was last done.
    pub(super) async fn save(&self, storage: &dyn Storage) -> Result<()> {
        self.save_those_parting(storage).await?;
        let unsaved = std::mem::take(&mut self.unsaved().devices);
        let save = |device: Device| async move {
            let saved = self.save_device(storage, &device).await;
            (device, saved)
        };
        // Many at a time: the engine commits them together.
        let mut saving = stream::iter(unsaved).map(save).buffer_unordered(SAVED_AT_ONCE);
        let mut outcome = Ok(());
        while let Some((device, saved)) = saving.next().await {
            if saved.is_err() {
                self.unsaved().devices.insert(device);
                outcome = outcome.and(saved);
            }
        }
        outcome
    }

    /// Writes down those that memory has no room for: whoever takes their place waits for it.
    pub(super) async fn save_those_parting(&self, storage: &dyn Storage) -> Result<()> {
        let parting = self.unsaved().parting.clone();
        for (device, connections) in parting {
            Self::write(storage, &device, &connections).await?;
            let mut unsaved = self.unsaved();
            // Unless they came back, and went again.
            if unsaved.parting.get(&device).is_some_and(|now| Arc::ptr_eq(now, &connections)) {
                unsaved.parting.remove(&device);
            }
        }
        Ok(())
    }

    /// Writes down what was told to a device whose requests reach this process and others in turn: the next one has to
    /// know of it.
    pub(super) async fn save_if_it_wanders(&self, storage: &dyn Storage, reader: Reader<'_>) -> Result<()> {
        let device = device(reader);
        if !self.wandering.contains_key(&device) {
            return Ok(());
        }
        self.unsaved().devices.remove(&device);
        self.save_device(storage, &device).await
    }

    async fn save_device(&self, storage: &dyn Storage, device: &Device) -> Result<()> {
        match self.devices.get(device) {
            Some(connections) => Self::write(storage, device, &connections).await,
            None => Ok(()),
        }
    }

    async fn write(storage: &dyn Storage, device: &Device, connections: &[Connection]) -> Result<()> {
        let saved = connections.iter().map(|c| {
            let body = serde_json::to_string(&c.states).map_err(Error::internal)?;
            Ok(SavedConnection { conn_id: c.conn_id.to_string(), body, used_ms: c.used_ms })
        });
        let saved: Vec<SavedConnection> = saved.collect::<Result<_>>()?;
        let most = u32::try_from(MOST).unwrap_or(u32::MAX);
        Ok(storage.save_connections(device.0.as_str(), &device.1, saved, most).await?)
    }

    fn unsaved(&self) -> MutexGuard<'_, Unsaved> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn device(reader: Reader<'_>) -> Device {
    (reader.user.to_owned(), reader.device.to_owned())
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn phone() -> Reader<'static> {
        Reader { user: user_id!("@me:x"), device: "PHONE" }
    }

    fn state(key: u64) -> State {
        State { key, pos: 7, ..State::default() }
    }

    fn at(key: u64) -> Position {
        Position { pos: 7, key }
    }

    #[test]
    fn a_lost_answer_can_be_asked_for_again_until_a_later_one_was_read() {
        let all = Connections::new();
        let known = |key| all.known(phone(), "a", at(key)).map(|state| state.key);
        all.give(phone(), "a", None, state(1), 0);
        assert_eq!((known(1), known(2)), (Some(1), None));
        all.give(phone(), "a", Some(&Arc::new(state(1))), state(2), 0);
        // Lost, and answered again; nobody knows which of them will be read.
        assert_eq!(known(1), Some(1));
        all.give(phone(), "a", Some(&Arc::new(state(1))), state(3), 0);
        assert_eq!((known(1), known(2)), (Some(1), Some(2)));
        assert_eq!((known(1), known(3)), (None, None), "whoever has 2 needs neither");
        // The answer to a request that was given up.
        all.give(phone(), "a", Some(&Arc::new(state(1))), state(4), 0);
        assert_eq!((known(4), known(2)), (None, Some(2)));
        assert!(all.known(phone(), "b", at(2)).is_none());
        assert!(all.known(Reader { device: "LAPTOP", ..phone() }, "a", at(2)).is_none());
        assert!(all.known(phone(), "a", Position { pos: 8, key: 2 }).is_none());
        for key in 5..20 {
            all.give(phone(), "a", Some(&Arc::new(state(2))), state(key), 0);
        }
        assert_eq!((known(5), known(2), known(19)), (None, Some(2), Some(19)));
        all.give(phone(), "a", None, state(30), 0);
        assert_eq!((known(19), known(30)), (None, Some(30)), "begun anew");
    }

    #[test]
    fn of_too_many_connections_the_oldest_goes() {
        let all = Connections::new();
        for n in 0..MOST as u64 + 1 {
            all.give(phone(), &n.to_string(), None, state(n), i64::try_from(n).expect("few"));
        }
        assert!(all.known(phone(), "0", at(0)).is_none());
        assert!(all.known(phone(), "1", at(1)).is_some() && all.known(phone(), "8", at(8)).is_some());
    }

    #[test]
    fn what_memory_has_no_room_for_is_kept_until_it_is_written_down() {
        let all = Connections::with_room_for(2_000);
        let devices: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let reader = |n: usize| Reader { device: &devices[n], ..phone() };
        for n in 0..20 {
            all.give(reader(n), "a", None, state(1), 0);
        }
        all.devices.run_pending_tasks();
        let is_there = |n: usize| all.known(reader(n), "a", at(1)).is_some();
        assert!(is_there(19) && !is_there(0), "the newest stays");
        assert_eq!(all.unsaved().parting.len(), (0..20).filter(|n| !is_there(*n)).count());
        all.take_back(reader(0));
        assert!(is_there(0));
        // One that goes while its client waits is there again with the answer.
        assert!(!is_there(1));
        all.unsaved().parting.clear();
        all.give(reader(1), "a", Some(&Arc::new(state(1))), state(2), 0);
        assert!(is_there(1) && all.known(reader(1), "a", at(2)).is_some());
    }

    #[test]
    fn ways_of_asking_are_kept_as_long_as_a_room_was_told_by_them() {
        let mut configs = Configs::default();
        let mut rooms = HashMap::new();
        for limit in 0..=MOST_CONFIGS as u64 {
            let config = configs.index(&Config { limit, ..Config::default() });
            assert_eq!(configs.index(&Config { limit, ..Config::default() }), config);
            if limit % 100 == 3 {
                rooms.insert(i64::try_from(limit).expect("few"), Sent { config, ..Sent::default() });
            }
        }
        assert!(configs.is_too_many());
        let tidied = configs.tidied(&mut rooms);
        assert_eq!(tidied.0.len(), 3);
        for (limit, sent) in &rooms {
            assert_eq!(tidied.get(sent.config).expect("kept").limit, limit.unsigned_abs());
        }
        assert!(!tidied.is_too_many());
    }

    #[test]
    fn a_room_that_is_left_behind_goes_on_from_there() {
        let mut sent = Sent { up_to: UpTo::NOW, ..Sent::default() };
        assert_eq!((sent.up_to.of(7), sent.receipts.of(7)), (7, 0));
        sent.leave_behind(7);
        sent.leave_behind(9);
        assert_eq!((sent.up_to.of(12), sent.is_live()), (7, false));
    }
}
