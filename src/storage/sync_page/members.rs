//! Members loaded lazily: only of those whom a client is about to hear of, and has not been told of before.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use hearth_core::sliding::Required;
use serde::Deserialize;

use super::summaries::Heroes;
use crate::{
    Result,
    error::corrupt,
    rooms::StoredEvent,
    timeline::events_by_sn,
    tx::{Query, Reads, args, statements},
};

statements! {
    SENDERS_MEMBERS = "SELECT c.room_sn, c.state_key, c.event_sn FROM events e JOIN current_state c
        ON c.room_sn = e.room_sn AND c.type = 'm.room.member' AND c.state_key = e.sender WHERE e.sn = ANY($1)";
    NAMED = "SELECT room_sn, state_key, event_sn FROM current_state
        WHERE room_sn = ANY($1) AND type = 'm.room.member' AND state_key = ANY($2)";
    SPEAKER = "SELECT r.version, c.event_sn FROM events e JOIN rooms r ON r.room_sn = e.room_sn JOIN current_state c
        ON c.room_sn = e.room_sn AND c.type = 'm.room.member' AND c.state_key = e.sender WHERE e.sn = $1";
}

/// Who sent a message.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Of the room.
    pub version: String,
    /// Their membership of it, as it is now.
    pub membership: StoredEvent,
}

/// The sender of the event of this number.
pub(super) struct ReadSpeaker(pub(super) i64);

impl Query for ReadSpeaker {
    const NAME: &'static str = "speaker";
    type Out = Option<Speaker>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<Speaker>> {
        let Some(mut row) = tx.query_opt(SPEAKER, args![self.0]).await? else { return Ok(None) };
        let (version, event_sn) = (row.get(0)?, row.get(1)?);
        let membership = events_by_sn(tx, vec![event_sn]).await?.pop();
        Ok(membership.map(|membership| Speaker { version, membership }))
    }
}

/// By room, the members whose memberships a client has been sent; of any change since, it has been told.
pub type Told = HashMap<i64, Arc<HashSet<String>>>;

/// How members are loaded if not all at once.
#[derive(Clone, Debug, Default)]
pub struct Lazy {
    pub told: Arc<Told>,
    /// Tell of those again of whom the client has been told.
    pub redundant: bool,
}

/// By room: members, with the number of their current membership event.
pub(super) type Members = HashMap<i64, HashMap<String, i64>>;

/// The members who have to be told of beside those who speak in timelines, and heroes; in rooms that are shown `afresh`, also if they
/// were told of before.
pub(super) async fn wanted_members<'a, R: Reads>(
    tx: &mut R,
    lazy: &Lazy,
    speak: impl Iterator<Item = &'a StoredEvent>,
    heroes: impl Iterator<Item = (&'a i64, &'a Heroes)>,
    afresh: &HashSet<i64>,
) -> Result<Members> {
    #[derive(Deserialize)]
    struct Sent<'e> {
        #[serde(borrow)]
        sender: Cow<'e, str>,
    }
    let known = |room: &i64, user: &str| {
        !lazy.redundant && !afresh.contains(room) && lazy.told.get(room).is_some_and(|told| told.contains(user))
    };
    let mut by_sender = HashMap::<(i64, Cow<'_, str>), i64>::new();
    for event in speak {
        let sent: Sent<'_> = serde_json::from_str(&event.json).map_err(corrupt)?;
        if !known(&event.room_sn, &sent.sender) {
            by_sender.insert((event.room_sn, sent.sender), event.sn);
        }
    }
    let mut members = Members::new();
    for (room, heroes) in heroes {
        for (user, event_sn) in heroes.iter().filter(|(user, _)| !known(room, user)) {
            members.entry(*room).or_default().insert(user.clone(), *event_sn);
        }
    }
    if !by_sender.is_empty() {
        let one_each: Vec<i64> = by_sender.into_values().collect();
        for mut row in tx.query(SENDERS_MEMBERS, args![one_each]).await? {
            members.entry(row.get(0)?).or_default().insert(row.get(1)?, row.get(2)?);
        }
    }
    Ok(members)
}

/// Adds the members whom a client wants by name, in each of these rooms.
pub(super) async fn named_members<R: Reads>(
    tx: &mut R,
    rooms: &[(i64, &Required)],
    members: &mut Members,
) -> Result<()> {
    let (mut asked, mut users) = (BTreeSet::new(), BTreeSet::new());
    for (room, required) in rooms.iter().filter(|(_, required)| !required.all_members()) {
        let known = members.get(room);
        for user in required.named_members().filter(|user| known.is_none_or(|known| !known.contains_key(*user))) {
            asked.insert(*room);
            users.insert(user.to_owned());
        }
    }
    let asked: Vec<i64> = asked.into_iter().collect();
    if users.is_empty() {
        return Ok(());
    }
    let wanted: HashMap<i64, &Required> = rooms.iter().copied().collect();
    for mut row in tx.query(NAMED, args![asked, users.into_iter().collect::<Vec<_>>()]).await? {
        let (room, user): (i64, String) = (row.get(0)?, row.get(1)?);
        if wanted.get(&room).is_some_and(|required| required.wants("m.room.member", &user)) {
            members.entry(room).or_default().insert(user, row.get(2)?);
        }
    }
    Ok(())
}
