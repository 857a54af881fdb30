//! Which members each device has been told of, so that lazy loading doesn't tell it again and again.
//!
//! What was told is known of a *token*: whoever comes back with it has read the answer that it was in. A device that asks
//! with an older token, because an answer got lost, is told again. Where nothing is known of a token (it is old, another
//! process gave it, the server was restarted) all is told again: too much is fine, too little isn't.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use hearth_core::token::SyncToken;
use hearth_storage::{RoomSync, Told};
use moka::{ops::compute::Op, sync::Cache};
use ruma::api::client::filter::RoomFilter;

use crate::service::shape::Reader;

/// Bytes kept in memory.
const BYTES: u64 = 64 << 20;
/// Tokens remembered of each device: the last, and some before it for answers that got lost.
const TOKENS: usize = 4;
/// Members remembered of each device. With more, it begins anew.
const MEMBERS: usize = 20_000;

/// What devices were told.
pub(super) struct ToldMembers(Cache<(String, String), Arc<Vec<Link>>>);

/// What who holds this token has been told through this filter.
#[derive(Clone)]
struct Link {
    token: SyncToken,
    filter: u64,
    told: Arc<Told>,
}

impl ToldMembers {
    pub(super) fn new() -> Self {
        let weigh = |_: &(String, String), links: &Arc<Vec<Link>>| {
            let members = links.iter().map(|link| members_of(&link.told)).max().unwrap_or_default();
            u32::try_from(512 + 64 * members).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().weigher(weigh).max_capacity(BYTES).build())
    }

    /// What the reader has been told who comes with this token.
    pub(super) fn by(&self, reader: Reader<'_>, token: SyncToken, filter: u64) -> Arc<Told> {
        let links = self.0.get(&key(reader)).unwrap_or_default();
        let link = links.iter().find(|link| link.token == token && link.filter == filter);
        link.map(|link| Arc::clone(&link.told)).unwrap_or_default()
    }

    /// The reader is given this token with an answer after which they have been told this.
    pub(super) fn give(&self, reader: Reader<'_>, token: SyncToken, filter: u64, told: &Arc<Told>) {
        self.0.entry(key(reader)).and_compute_with(|entry| {
            let old = entry.map(moka::Entry::into_value).unwrap_or_default();
            let known = old.iter().find(|link| link.token == token);
            let told = match known {
                Some(link) if link.filter == filter && Arc::ptr_eq(&link.told, told) => return Op::Nop,
                // Two answers with the same token: nobody knows which of them will be read.
                Some(link) if link.filter == filter => Arc::new(in_both(&link.told, told)),
                Some(_) => Arc::default(),
                None => Arc::clone(told),
            };
            let mut links: Vec<Link> = old.iter().filter(|link| link.token != token).cloned().collect();
            links.push(Link { token, filter, told });
            let surplus = links.len().saturating_sub(TOKENS);
            links.drain(..surplus);
            Op::Put(Arc::new(links))
        });
    }
}

fn key(reader: Reader<'_>) -> (String, String) {
    (reader.user.to_string(), reader.device.to_owned())
}

fn members_of(told: &Told) -> usize {
    told.values().map(|members| members.len() + 1).sum()
}

fn in_both(a: &Told, b: &Told) -> Told {
    let rooms = a.iter().filter_map(|(room, members)| {
        let other = b.get(room)?;
        Some((*room, Arc::new(members.intersection(other).cloned().collect::<HashSet<_>>())))
    });
    rooms.collect()
}

/// What has been told after these rooms, too; with their full state, whoever asked for it may have lost what they knew.
pub(super) fn and_now(told: &Arc<Told>, joined: &[RoomSync], left: &[RoomSync], full_state: bool) -> Arc<Told> {
    if joined.iter().all(|room| room.told.is_empty()) && left.is_empty() {
        return Arc::clone(told);
    }
    let mut all: Told = if members_of(told) > MEMBERS { HashMap::new() } else { (**told).clone() };
    for room in left {
        all.remove(&room.room.room_sn);
    }
    for room in joined.iter().filter(|room| !room.told.is_empty()) {
        // A room that is shown from its beginning replaces what was known of it.
        let old = all.get(&room.room.room_sn).filter(|_| !(room.initial || full_state));
        let members = old.into_iter().flat_map(|old| old.iter()).chain(&room.told).cloned().collect();
        all.insert(room.room.room_sn, Arc::new(members));
    }
    Arc::new(all)
}

/// What has been told after these members of rooms, too.
pub(super) fn and_these(told: Arc<Told>, members: &HashSet<(i64, String)>) -> Arc<Told> {
    if members.is_empty() {
        return told;
    }
    let mut all: Told = if members_of(&told) > MEMBERS { HashMap::new() } else { (*told).clone() };
    for (room, user) in members {
        Arc::make_mut(all.entry(*room).or_default()).insert(user.clone());
    }
    Arc::new(all)
}

/// Tells filters apart: through another filter, other members were told of.
pub(super) fn fingerprint(filter: &RoomFilter) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(filter).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn token(pos: i64) -> SyncToken {
        SyncToken { pos, serial: 0, epoch: 1, typing: false, to_device: None }
    }

    fn told(members: &[(i64, &str)]) -> Arc<Told> {
        let mut told: HashMap<i64, HashSet<String>> = HashMap::new();
        for (room, user) in members {
            told.entry(*room).or_default().insert((*user).to_owned());
        }
        Arc::new(told.into_iter().map(|(room, members)| (room, Arc::new(members))).collect())
    }

    #[test]
    fn what_was_told_is_known_of_the_token() {
        let all = ToldMembers::new();
        let phone = Reader { user: user_id!("@me:x"), device: "PHONE" };
        let laptop = Reader { device: "LAPTOP", ..phone };
        all.give(phone, token(1), 7, &told(&[(1, "@a:x")]));
        all.give(phone, token(2), 7, &told(&[(1, "@a:x"), (1, "@b:x")]));
        assert_eq!(all.by(phone, token(1), 7), told(&[(1, "@a:x")]));
        assert_eq!(all.by(phone, token(2), 7), told(&[(1, "@a:x"), (1, "@b:x")]));
        assert!(all.by(phone, token(2), 8).is_empty(), "through another filter");
        assert!(all.by(phone, token(3), 7).is_empty() && all.by(laptop, token(2), 7).is_empty());
        // Of two answers with one token, what stood in both is known.
        all.give(phone, token(2), 7, &told(&[(1, "@b:x"), (2, "@c:x")]));
        assert_eq!(*all.by(phone, token(2), 7).get(&1).expect("the room"), *told(&[(1, "@b:x")]).get(&1).expect("it"));
        assert!(!all.by(phone, token(2), 7).contains_key(&2));
        all.give(phone, token(2), 8, &told(&[(1, "@b:x")]));
        assert!(all.by(phone, token(2), 7).is_empty() && all.by(phone, token(2), 8).is_empty());
        for pos in 3..9 {
            all.give(phone, token(pos), 7, &told(&[(1, "@a:x")]));
        }
        assert!(all.by(phone, token(4), 7).is_empty(), "long ago");
        assert!(!all.by(phone, token(5), 7).is_empty() && !all.by(phone, token(8), 7).is_empty());
    }
}
