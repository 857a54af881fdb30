//! Writing rooms: making them, sending to them, changing their state and who is in them.

mod create;
mod membership;
mod names;
pub mod numbers;
mod receive;
mod restricted;
mod send;
pub mod state;
mod touched;
mod upgrade;
mod write;

use std::sync::Arc;

use hearth_core::{
    Error, Result,
    clock::{Clock, Rng},
    keys::Signer,
};
use hearth_storage::Storage;
use moka::sync::Cache;
use ruma::{OwnedRoomId, RoomVersionId, UserId};

pub use create::{CreateRoom, Preset};
pub use membership::{Join, Target};
pub use restricted::allowed_rooms;
pub use send::Message;
pub use upgrade::Upgrade;
pub use write::{Head, Part, Txn};

use self::{names::RoomNames, touched::RoomTouched};
use super::push::Push;
use numbers::Numbers;
use state::StateStore;
use write::Turn;

/// Rooms whose head and turn are kept in memory.
const WARM_ROOMS: u64 = 20_000;

/// Writes rooms.
pub struct Rooms {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    signer: Arc<Signer>,
    default_version: RoomVersionId,
    state: StateStore,
    turns: Cache<OwnedRoomId, Arc<Turn>>,
    numbers: Numbers,
    push: Arc<Push>,
    names: Cache<i64, Arc<RoomNames>>,
    touched: Cache<i64, Arc<RoomTouched>>,
}

impl Rooms {
    pub fn new(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        signer: Arc<Signer>,
        default_version: RoomVersionId,
        push: Arc<Push>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: StateStore::new(Arc::clone(&storage)),
            turns: Cache::new(WARM_ROOMS),
            numbers: Numbers::new(Arc::clone(&storage)),
            storage,
            clock,
            rng,
            signer,
            default_version,
            push,
            names: Cache::builder()
                .weigher(|_, names: &Arc<RoomNames>| names.weight())
                .max_capacity(names::BYTES)
                .build(),
            touched: Cache::builder()
                .weigher(|_, touched: &Arc<RoomTouched>| touched.weight())
                .max_capacity(touched::BYTES)
                .build(),
        })
    }

    pub fn default_version(&self) -> &RoomVersionId {
        &self.default_version
    }

    fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.signer.server_name()
    }

    /// Only people of this server can be reached until there is federation.
    fn must_be_local(&self, user: &UserId) -> Result<()> {
        if self.is_local(user) {
            Ok(())
        } else {
            Err(Error::forbidden(format!("{user} is on another server, and this server doesn't federate")))
        }
    }
}
