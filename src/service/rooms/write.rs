//! How a room is written: take the room's turn, decide on its head, queue the commit, let the next one decide on the head
//! as it will be, and only then wait for the commit.
//!
//! If a commit fails, those that were decided on top of it fail in storage (the event that they build on isn't there) and
//! decide again. A conflict never reaches a client.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hearth_core::{
    Error, Kind, Result, auth, canonical,
    event::{self, Draft, Pdu},
    power::Power,
    push::Subject,
    relation::Relation,
    room_version::RoomVersion,
    state::trie::{NewNode, NodeHash},
    visibility::membership_in,
};
use hearth_storage::{
    Base, MembershipChange, Move, NewEvent, Notice, Persisted, Redaction, RoomCommit, RoomHead, StateChange, Status,
    Transaction, rooms::OTHER_RULES,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Rooms,
    state::{Held, InRoom, StoredNow, node_hash},
};

/// How often a write is decided anew before it gives up. Each conflict means that somebody else got through.
pub(super) const ATTEMPTS: u32 = 30;

/// Where a member event says who vouches for a join.
pub(super) const AUTHORISED_BY: &str = "join_authorised_via_users_server";

/// An event to be made.
#[derive(Clone, Debug)]
pub struct Part {
    pub sender: OwnedUserId,
    pub event_type: TimelineEventType,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    pub redacts: Option<OwnedEventId>,
    /// Who vouches for somebody joining a restricted room; the server found out that they may.
    pub authorised_by: Option<OwnedUserId>,
    /// The room, by number, that takes over this one's names and place in the directory with this event.
    pub successor: Option<i64>,
}

impl Part {
    pub fn state(sender: &UserId, event_type: &str, state_key: &str, content: Box<RawValue>) -> Self {
        Self {
            sender: sender.to_owned(),
            event_type: event_type.into(),
            state_key: Some(state_key.to_owned()),
            content,
            redacts: None,
            authorised_by: None,
            successor: None,
        }
    }

    /// The content as it goes into the event.
    fn whole_content(&self) -> Result<Cow<'_, RawValue>> {
        let Some(by) = &self.authorised_by else { return Ok(Cow::Borrowed(&self.content)) };
        let mut content = canonical::parse_object(self.content.get())?;
        content.insert(AUTHORISED_BY.to_owned(), by.to_string().into());
        Ok(Cow::Owned(to_raw_value(&content).map_err(Error::internal)?))
    }
}

/// The device and transaction id that a request came with.
#[derive(Clone, Debug)]
pub struct Txn {
    pub device_id: String,
    pub txn_id: String,
    /// What the id is for: the endpoint and the room. A device may use an id again in another room.
    pub scope: String,
}

/// What a room is built on next.
#[derive(Clone, Debug)]
pub struct Head {
    pub sn: i64,
    pub id: OwnedRoomId,
    pub version: &'static RoomVersion,
    pub rev: i64,
    pub root: NodeHash,
    /// How many members are joined.
    pub joined: i64,
    pub tips: Vec<Tip>,
    /// State nodes of commits that are on their way.
    pub made: Held,
}

/// An event that no other builds on yet.
#[derive(Clone, Debug)]
pub struct Tip {
    pub sn: i64,
    pub id: OwnedEventId,
    pub depth: i64,
    pub state_after: NodeHash,
}

impl Head {
    pub fn from_stored(stored: RoomHead) -> Result<Self> {
        let room = stored.room;
        let version = room.version.as_str().try_into().map_err(Error::internal)?;
        let version = RoomVersion::get(&version)
            .ok_or_else(|| Error::internal(format!("room {} is of version {}", room.room_id, room.version)))?;
        let mut tips = Vec::with_capacity(stored.extremities.len());
        for e in stored.extremities {
            tips.push(Tip {
                sn: e.sn,
                id: e.event_id.try_into().map_err(Error::internal)?,
                depth: e.depth,
                state_after: node_hash(&e.state_after)?,
            });
        }
        Ok(Self {
            sn: room.room_sn,
            id: room.room_id.try_into().map_err(Error::internal)?,
            version,
            rev: room.rev,
            root: node_hash(&room.state_root)?,
            joined: room.joined,
            tips,
            made: Held::default(),
        })
    }

    pub fn in_room(&self) -> InRoom<'_> {
        InRoom { sn: self.sn, id: &self.id, version: self.version }
    }
}

/// One writer at a time in this process, and the head that the next one decides on.
#[derive(Default)]
pub struct Turn {
    pub(super) head: tokio::sync::Mutex<Option<Head>>,
    /// Commits that are queued and not known to be stored.
    pub(super) on_their_way: AtomicUsize,
    /// What was made for commits that are stored by now.
    stored: StoredNow,
}

/// Counts a commit until it is known what became of it, also when nobody waits for it any more.
struct OnItsWay<'a>(&'a Turn);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.on_their_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A commit that was decided: what to store, and the head after it.
pub struct Decided {
    pub commit: RoomCommit,
    pub head: Head,
    pub ids: Vec<OwnedEventId>,
    /// For the caches, once it is stored.
    nodes: Vec<NewNode>,
    state_events: Vec<(i64, Arc<Pdu>)>,
    redacted: Vec<i64>,
}

/// What somebody wants of a room. Asked again, with another head, if others came between.
pub trait Intent: Sync {
    fn wish(&self, rooms: &Rooms, head: &Head) -> impl Future<Output = Result<Wish>> + Send;

    /// Whose transaction ids it is sent under, if it is sent under any.
    fn sender(&self) -> Option<&UserId> {
        None
    }
}

/// What a writer wants, given the head.
pub enum Wish {
    Write(Vec<Part>),
    /// It is so already: this event is the answer.
    Nothing(OwnedEventId),
}

enum Outcome {
    Write(Box<Decided>),
    Nothing(OwnedEventId),
}

impl Rooms {
    /// Decides and writes, again as long as others come between. The ids of the events, in order.
    pub async fn write<I: Intent>(&self, room_id: &RoomId, txn: Option<&Txn>, intent: &I) -> Result<Vec<OwnedEventId>> {
        let turn = self.turn(room_id);
        let mut conflicts = 0;
        while conflicts < ATTEMPTS {
            let mut slot = turn.head.lock().await;
            let mut decided = None;
            if let Some(mut head) = slot.take() {
                head.made.forget_stored(&turn.stored);
                // What is not written is checked by nobody. So nothing is refused, or found to be so already, by a head
                // that is only thought to be: a commit on its way may fail, another process may have changed the room.
                decided = match self.outcome(&head, intent, txn).await {
                    Ok(Outcome::Write(decided)) => Some(decided),
                    Ok(Outcome::Nothing(_)) | Err(_) => None,
                };
            }
            let decided = match decided {
                Some(decided) => decided,
                None => {
                    let head = self.load_head(room_id).await?;
                    match self.outcome(&head, intent, txn).await {
                        Ok(Outcome::Write(decided)) => decided,
                        Ok(Outcome::Nothing(id)) => return Ok(vec![id]),
                        Err(e) => {
                            drop(slot);
                            // A request that is repeated gets the answer of then, whatever has changed since.
                            return self.answered(txn, intent).await?.map_or(Err(e), |id| Ok(vec![id]));
                        }
                    }
                }
            };
            let Decided { commit, head, ids, nodes, state_events, redacted } = *decided;
            let room_sn = head.sn;
            let stored = self.storage.persist(commit);
            turn.on_their_way.fetch_add(1, Ordering::SeqCst);
            let on_its_way = OnItsWay(&turn);
            *slot = Some(head);
            drop(slot);

            let stored = stored.await;
            if !matches!(stored, Ok(Persisted::Stored(_))) {
                // Nobody may decide on a head that came to nothing; before the commit is off its way.
                *turn.head.lock().await = None;
            }
            drop(on_its_way);
            match stored {
                Ok(Persisted::Stored(_)) => {
                    turn.stored.add(&nodes, &state_events);
                    self.state.stored_nodes(room_sn, nodes);
                    for (sn, pdu) in state_events {
                        self.state.stored_event(sn, pdu);
                    }
                    for sn in redacted {
                        self.state.forget_event(sn);
                    }
                    return Ok(ids);
                }
                Ok(Persisted::Repeated(result)) => return Ok(vec![result.try_into().map_err(Error::internal)?]),
                Err(hearth_storage::Error::Conflict(why)) => {
                    tracing::debug!(conflicts, why, "decided on an old head");
                    conflicts += 1;
                    if why == OTHER_RULES {
                        self.push.look().await?;
                    }
                    if conflicts > 2 {
                        tokio::time::sleep(self.back_off(conflicts)).await;
                    }
                }
                // The same was said in the same moment, at the same place of the room: this one is a little younger, then.
                Ok(Persisted::Known) => {
                    conflicts += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                Ok(Persisted::Annotated) => {
                    return Err(Error::new(Kind::DuplicateAnnotation, "You have said the same of this event before"));
                }
                // <https://spec.matrix.org/v1.19/client-server-api/#validation-of-mthread-relationships>
                Ok(Persisted::NoRoot) => {
                    return Err(Error::unknown("A thread can't begin at an event that relates to another"));
                }
                Ok(other) => return Err(Error::internal(format!("persist answered {other:?}"))),
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::unavailable("The room is too busy, try again"))
    }

    async fn outcome<I: Intent>(&self, head: &Head, intent: &I, txn: Option<&Txn>) -> Result<Outcome> {
        match intent.wish(self, head).await? {
            Wish::Write(parts) => Ok(Outcome::Write(Box::new(self.decide(head, &parts, txn).await?))),
            Wish::Nothing(id) => Ok(Outcome::Nothing(id)),
        }
    }

    fn back_off(&self, attempt: u32) -> std::time::Duration {
        let mut byte = [0];
        self.rng.fill(&mut byte);
        std::time::Duration::from_millis(u64::from(attempt) * (1 + u64::from(byte[0] % 8)))
    }

    /// What a transaction id led to before.
    async fn answered<I: Intent>(&self, txn: Option<&Txn>, intent: &I) -> Result<Option<OwnedEventId>> {
        let (Some(txn), Some(sender)) = (txn, intent.sender()) else { return Ok(None) };
        let found = self.storage.transaction(sender.as_str(), &txn.device_id, &txn.txn_id, &txn.scope).await?;
        found.map(|id| id.try_into().map_err(Error::internal)).transpose()
    }

    pub(super) fn turn(&self, room_id: &RoomId) -> Arc<Turn> {
        self.turns.get_with(room_id.to_owned(), Arc::default)
    }

    /// Another process wrote to these rooms: what was known of their heads is old. (A head that is used all the same is
    /// no fault: a change of state conflicts in storage, a message may build on an older event, and whatever is refused
    /// or needs no write is decided once more on a head that was just read.)
    pub fn moved<'a>(&self, rooms: impl IntoIterator<Item = &'a RoomId>) {
        for room_id in rooms {
            if let Some(turn) = self.turns.get(room_id)
                && let Ok(mut head) = turn.head.try_lock()
                && turn.on_their_way.load(Ordering::SeqCst) == 0
            {
                *head = None;
            }
        }
    }

    /// Too much was written by others to say where.
    pub fn all_moved(&self) {
        self.turns.invalidate_all();
    }

    pub async fn load_head(&self, room_id: &RoomId) -> Result<Head> {
        let stored = self.storage.room_head(room_id.as_str()).await?;
        Head::from_stored(stored.ok_or_else(|| Error::not_found("Unknown room"))?)
    }

    /// The number and content of a key of the room's current state.
    pub async fn current(&self, head: &Head, event_type: &str, state_key: &str) -> Result<Option<(i64, Arc<Pdu>)>> {
        let Some(sn) = self.state.get(head.sn, &head.made, head.root, event_type, state_key).await? else {
            return Ok(None);
        };
        let pdu = self.state.events(head.in_room(), &head.made, &[sn]).await?.remove(&sn);
        Ok(pdu.map(|pdu| (sn, pdu)))
    }

    /// Builds, authorises and signs the events one on top of the other.
    async fn decide(&self, head: &Head, parts: &[Part], txn: Option<&Txn>) -> Result<Decided> {
        let sns = self.numbers.take(parts.len()).await?;
        let prevs: Vec<i64> = head.tips.iter().map(|t| t.sn).collect();
        let mut chain = Chain::new(head.clone());
        for (part, sn) in parts.iter().zip(sns) {
            self.append(&mut chain, part, sn, txn).await?;
        }
        let transaction = match (txn, chain.ids.last(), parts.last()) {
            (Some(t), Some(id), Some(part)) => Some(Transaction {
                user_id: part.sender.to_string(),
                device_id: t.device_id.clone(),
                txn_id: t.txn_id.clone(),
                scope: t.scope.clone(),
                result: id.to_string(),
            }),
            _ => None,
        };
        Ok(chain.finish(Base::At { rev: head.rev, prevs }, transaction, self.clock.now_ms()))
    }

    /// One more event at the end of a chain.
    pub(super) async fn append(&self, chain: &mut Chain, part: &Part, sn: i64, txn: Option<&Txn>) -> Result<()> {
        let version = chain.head.version;
        check_own(part)?;
        let content = part.whole_content()?;
        let keys = auth::auth_keys(&part.event_type, &part.sender, part.state_key.as_deref(), &content, version)?;
        let create = (StateEventType::RoomCreate, String::new());
        let in_auth_events = keys.len();
        let mut fetched: HashMap<(StateEventType, String), (i64, Arc<Pdu>)> = HashMap::new();
        let mut auth_events = Vec::new();
        let mut auth_sns = Vec::new();
        for (i, key) in keys.into_iter().chain([create]).enumerate() {
            if fetched.contains_key(&key) {
                continue;
            }
            let Some((sn, pdu)) = self.chain_state(chain, &key.0.to_string(), &key.1).await? else { continue };
            if i < in_auth_events {
                auth_events.push(pdu.event_id.clone());
                auth_sns.push(sn);
            }
            fetched.insert(key, (sn, pdu));
        }

        let tips = &chain.head.tips;
        let newest = tips.len().saturating_sub(hearth_core::limits::MAX_PREV_EVENTS);
        let prev_events: Vec<OwnedEventId> = tips[newest..].iter().map(|t| t.id.clone()).collect();
        let depth = tips.iter().map(|t| t.depth).max().unwrap_or(0).saturating_add(1);
        let now = self.clock.now_ms().saturating_add(chain.later_ms);
        let draft = Draft {
            room_id: chain.room_id_for_draft(part),
            sender: part.sender.clone(),
            event_type: part.event_type.clone(),
            state_key: part.state_key.clone(),
            content: content.into_owned(),
            redacts: part.redacts.clone(),
            prev_events,
            auth_events,
            depth: depth.min(hearth_core::limits::MAX_INT),
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(now).unwrap_or_default()),
        };
        let pdu = Arc::new(event::build(draft, &self.signer, version)?);
        auth::check(&pdu, version, |event_type, state_key| {
            let key = (event_type.clone(), state_key.to_owned());
            fetched.get(&key).map(|(_, pdu)| Arc::clone(pdu))
        })?;
        if chain.is_new() && pdu.event_type == TimelineEventType::RoomCreate {
            chain.head.id = pdu.room_id.clone();
        }

        let before = chain.head.root;
        let prev_sns: Vec<i64> = chain.head.tips[newest..].iter().map(|t| t.sn).collect();
        if let Some(state_key) = &part.state_key {
            let kind = part.event_type.to_string();
            let prev = self.chain_state(chain, &kind, state_key).await?;
            let changes = [(kind.as_str(), state_key.as_str(), Some(sn))];
            let (root, made) = self.state.update(chain.head.sn, &chain.head.made, before, &changes).await?;
            chain.head.made.add(&made);
            chain.nodes.extend(made);
            chain.head.root = root;
            let membership = self.membership_change(&pdu, prev.as_ref().map(|(_, p)| p));
            chain.head.joined += membership.as_ref().map_or(0, MembershipChange::joins);
            if membership.as_ref().is_some_and(|m| m.local && m.joins() > 0)
                && let Some((_, create)) = fetched.get(&(StateEventType::RoomCreate, String::new()))
                && let Some(before) = predecessor(create)
            {
                chain.moves.push((state_key.clone(), before));
            }
            chain.changes.push(StateChange {
                at: chain.events.len(),
                event_type: kind,
                state_key: state_key.clone(),
                event_sn: Some(sn),
                prev_sn: prev.map(|(sn, _)| sn),
                membership,
            });
            chain.head.made.add_event(sn, &pdu);
            chain.state_events.push((sn, Arc::clone(&pdu)));
        }
        if pdu.event_type == TimelineEventType::RoomRedaction
            && let Some(target) = pdu.redacts.clone()
        {
            self.redaction(chain, &pdu, sn, &target).await?;
        }

        let relation = Relation::of(&pdu);
        if let Some(relation) = &relation {
            relation.check()?;
        }

        let levels = |kind| fetched.get(&(kind, String::new())).map(|(_, pdu)| pdu.as_ref());
        let power = || match levels(StateEventType::RoomCreate) {
            Some(create) => Power::new(version, create, levels(StateEventType::RoomPowerLevels)).map(Some),
            None => Ok(None),
        };
        let (notice, rules_as_of) = self.notice(&chain.head, &pdu, power).await?;
        chain.rules_as_of = chain.rules_as_of.min(rules_as_of);

        chain.successor = chain.successor.or(part.successor);
        let after = chain.head.root;
        let tip = Tip { sn, id: pdu.event_id.clone(), depth: pdu.depth, state_after: after };
        chain.consumed.extend(chain.head.tips.iter().map(|t| t.sn));
        chain.head.tips = vec![tip];
        chain.ids.push(pdu.event_id.clone());
        chain.events.push(NewEvent {
            sn,
            relation,
            own: true,
            pdu,
            status: Status::Accepted,
            state_before: before.0.to_vec(),
            state_after: after.0.to_vec(),
            prev_sns,
            auth_sns,
            sent_by: txn.map(|t| (t.device_id.clone(), t.txn_id.clone())),
            notice,
        });
        Ok(())
    }

    /// A key of the state at the end of a chain: one of the chain's own events, or one that is stored.
    async fn chain_state(&self, chain: &Chain, event_type: &str, state_key: &str) -> Result<Option<(i64, Arc<Pdu>)>> {
        let head = &chain.head;
        let Some(sn) = self.state.get(head.sn, &head.made, head.root, event_type, state_key).await? else {
            return Ok(None);
        };
        let pdu = self.state.events(head.in_room(), &head.made, &[sn]).await?.remove(&sn);
        Ok(pdu.map(|pdu| (sn, pdu)))
    }

    /// What a state event does to a membership, if it is one.
    pub(super) fn membership_change(&self, pdu: &Arc<Pdu>, prev: Option<&Arc<Pdu>>) -> Option<MembershipChange> {
        if pdu.event_type != TimelineEventType::RoomMember {
            return None;
        }
        self.membership_between(pdu.state_key.as_deref().unwrap_or_default(), prev, Some(pdu))
    }

    /// How a user's membership changes from one member event to another. Without any the user has left.
    pub(super) fn membership_between(
        &self,
        user: &str,
        before: Option<&Arc<Pdu>>,
        after: Option<&Arc<Pdu>>,
    ) -> Option<MembershipChange> {
        let prev = before.map(|p| membership_in(&p.json).to_string());
        let membership = after.map_or_else(|| "leave".to_owned(), |p| membership_in(&p.json).to_string());
        Some(MembershipChange { membership, prev, local: self.is_ours(user) })
    }

    pub(super) fn is_ours(&self, user: &str) -> bool {
        user.split_once(':').is_some_and(|(_, server)| server == self.signer.server_name().as_str())
    }

    /// What an event counts that is to be sent to a room, and by the rules of which position; `power` is asked what its
    /// sender may do, if that matters.
    pub(super) async fn notice(
        &self,
        head: &Head,
        pdu: &Pdu,
        power: impl FnOnce() -> Result<Option<Power>>,
    ) -> Result<(Notice, i64)> {
        let mut subject = Subject::new(pdu, &head.id, head.joined)?;
        let touched = self.touched(head).await?;
        if touched.members.asks_for_power(&subject)
            && let Some(power) = power()?
        {
            subject.set_power(power);
        }
        let asks = subject.text().is_some() || touched.members.asks_for_names() && subject.body().is_some();
        let names = if asks { self.names(head).await? } else { None };
        let names = names.as_deref().map(AsRef::as_ref);
        Ok((self.push.notice(&subject, &pdu.sender, &touched.members, names), touched.as_of))
    }

    /// What a redaction makes of its target.
    async fn redaction(&self, chain: &mut Chain, pdu: &Pdu, sn: i64, target: &OwnedEventId) -> Result<()> {
        let found = self.storage.events_by_id(vec![target.to_string()]).await?;
        let mut redacted_json = None;
        if let Some(event) = found.into_iter().find(|e| e.room_sn == chain.head.sn) {
            let target_sn = event.sn;
            let redacted = super::state::parse_stored(chain.head.in_room(), event)?.redact(chain.head.version)?;
            redacted_json = Some(redacted.json.to_string());
            chain.redacted.push(target_sn);
        }
        chain.redactions.push(Redaction {
            redaction_sn: sn,
            redaction_id: pdu.event_id.to_string(),
            target_id: target.to_string(),
            redacted_json,
        });
        Ok(())
    }
}

/// What the authorisation rules leave to the server that sends an event, and so to us.
fn check_own(part: &Part) -> Result<()> {
    match (&part.event_type, &part.state_key) {
        // A redaction is checked against its target when it is sent; the rules for state would let it pass.
        (TimelineEventType::RoomRedaction, Some(_)) => Err(Error::forbidden("A redaction is no state")),
        (TimelineEventType::RoomMember, _) => {
            #[derive(serde::Deserialize)]
            struct Content<'a> {
                #[serde(borrow)]
                join_authorised_via_users_server: Option<&'a RawValue>,
            }
            // Our signature says that we have checked why somebody may join a restricted room. A client can't say so.
            match serde_json::from_str::<Content<'_>>(part.content.get()) {
                Ok(Content { join_authorised_via_users_server: None }) => Ok(()),
                Ok(_) => Err(Error::forbidden("`join_authorised_via_users_server` is for servers to set")),
                Err(e) => Err(Error::bad_json(e.to_string())),
            }
        }
        _ => Ok(()),
    }
}

/// The room that a room says it comes after.
fn predecessor(create: &Pdu) -> Option<OwnedRoomId> {
    #[derive(serde::Deserialize)]
    struct Content {
        predecessor: Predecessor,
    }
    #[derive(serde::Deserialize)]
    struct Predecessor {
        room_id: OwnedRoomId,
    }
    Some(create.content_as::<Content>().ok()?.predecessor.room_id)
}

/// Events that are decided one on top of the other, to be stored in one commit.
pub struct Chain {
    pub head: Head,
    /// By how much its events are younger than now.
    pub later_ms: i64,
    nodes: Vec<NewNode>,
    events: Vec<NewEvent>,
    changes: Vec<StateChange>,
    state_events: Vec<(i64, Arc<Pdu>)>,
    consumed: Vec<i64>,
    redactions: Vec<Redaction>,
    redacted: Vec<i64>,
    successor: Option<i64>,
    /// Who joins, and the room that this one comes after.
    moves: Vec<(String, OwnedRoomId)>,
    rules_as_of: i64,
    ids: Vec<OwnedEventId>,
}

impl Chain {
    pub fn new(head: Head) -> Self {
        Self {
            head,
            later_ms: 0,
            nodes: Vec::new(),
            events: Vec::new(),
            changes: Vec::new(),
            state_events: Vec::new(),
            consumed: Vec::new(),
            redactions: Vec::new(),
            redacted: Vec::new(),
            successor: None,
            moves: Vec::new(),
            rules_as_of: i64::MAX,
            ids: Vec::new(),
        }
    }

    /// Whether nothing has been decided for this room before.
    fn is_new(&self) -> bool {
        self.head.rev == 0 && self.events.is_empty() && self.head.tips.is_empty()
    }

    /// The create event of a room that is named after it carries no room id.
    fn room_id_for_draft(&self, part: &Part) -> Option<OwnedRoomId> {
        let nameless = part.event_type == TimelineEventType::RoomCreate && self.head.version.hashes_room_id();
        (!nameless).then(|| self.head.id.clone())
    }

    pub fn finish(self, base: Base, transaction: Option<Transaction>, now_ms: i64) -> Decided {
        let mut head = self.head;
        if !self.changes.is_empty() {
            head.rev += 1;
        }
        // A tip that was made and built upon within the chain is none.
        let own: Vec<i64> = self.events.iter().map(|e| e.sn).collect();
        let to = &head.id;
        let moves = self.moves.into_iter();
        let moves = moves.map(|(user_id, from)| Move { user_id, from: from.to_string(), to: to.to_string() });
        let commit = RoomCommit {
            room_sn: head.sn,
            base,
            nodes: self.nodes.iter().map(|new| (new.hash.0.to_vec(), new.body.clone())).collect(),
            state_root: head.root.0.to_vec(),
            changes: self.changes,
            consumed: self.consumed.into_iter().filter(|sn| !own.contains(sn)).collect(),
            extremities: head.tips.iter().map(|t| t.sn).collect(),
            events: self.events,
            transaction,
            redactions: self.redactions,
            alias: None,
            publish: false,
            successor: self.successor,
            moves: moves.collect(),
            rules_as_of: self.rules_as_of,
            now_ms,
        };
        Decided {
            commit,
            head,
            ids: self.ids,
            nodes: self.nodes,
            state_events: self.state_events,
            redacted: self.redacted,
        }
    }
}

impl Decided {
    /// For a room that has just been stored for the first time.
    pub fn remember(self, rooms: &Rooms) {
        rooms.state.stored_nodes(self.head.sn, self.nodes);
        for (sn, pdu) in self.state_events {
            rooms.state.stored_event(sn, pdu);
        }
    }
}
