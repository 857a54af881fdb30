//! Rooms as one sees them before one is in: a summary of one, and the tree of rooms below a space.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#spaces>

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_core::{Error, Result, room_version::RoomVersion};
use hearth_storage::{Storage, directory::ListedRoom};
use ruma::{
    OwnedRoomId, RoomId, RoomVersionId, UserId,
    api::client::space::SpaceHierarchyRoomsChunk,
    directory::PublicRoomsChunk,
    events::{room::member::MembershipState, space::child::HierarchySpaceChildEvent},
    room::{JoinRuleKind, JoinRuleSummary, RestrictedSummary, RoomSummary, RoomType},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Value, json, value::to_raw_value};

use super::{directory::show, rooms::allowed_rooms};

/// Rooms on one page of a hierarchy.
const MOST_ROOMS: usize = 50;
/// Rooms that one hierarchy has, and how far it goes down; what lies beyond is not shown.
const MOST_WALKED: usize = 1_000;
const MOST_DEPTH: usize = 20;

/// Shows rooms to those who are not in them.
pub struct Spaces {
    storage: Arc<dyn Storage>,
}

/// What of a hierarchy is asked for.
pub struct TreeWish {
    pub from: Option<String>,
    pub limit: Option<u64>,
    pub max_depth: Option<u64>,
    pub suggested_only: bool,
}

/// A page of a hierarchy.
pub struct Tree {
    pub rooms: Vec<SpaceHierarchyRoomsChunk>,
    pub next: Option<String>,
}

/// Who looks, and which rooms they are in or invited to.
struct Viewer(HashMap<String, MembershipState>);

struct Node {
    summary: RoomSummary,
    is_space: bool,
    children: Vec<Child>,
}

/// A link from a space to a room.
struct Child {
    room_id: String,
    /// By which they are put in order: what the link says, and how old it is.
    order: (bool, String, i64),
    event: Raw<HierarchySpaceChildEvent>,
}

impl Viewer {
    fn is(&self, room_id: &str) -> Option<&MembershipState> {
        self.0.get(room_id)
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
    fn may_see(&self, summary: &RoomSummary) -> bool {
        let by_rule = match &summary.join_rule {
            JoinRuleSummary::Public | JoinRuleSummary::Knock | JoinRuleSummary::KnockRestricted(_) => true,
            JoinRuleSummary::Restricted(rule) => {
                rule.allowed_room_ids.iter().any(|room| self.is(room.as_str()) == Some(&MembershipState::Join))
            }
            _ => false,
        };
        by_rule
            || summary.world_readable
            || matches!(self.is(summary.room_id.as_str()), Some(MembershipState::Join | MembershipState::Invite))
    }
}

impl Spaces {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    async fn viewer(&self, user: Option<&UserId>) -> Result<Viewer> {
        let Some(user) = user else { return Ok(Viewer(HashMap::new())) };
        let all = self.storage.memberships_of(user.as_str()).await?;
        Ok(Viewer(all.into_iter().map(|(room, membership)| (room, membership.as_str().into())).collect()))
    }

    /// One room, and what the user is to it.
    pub async fn summary(
        &self,
        user: Option<&UserId>,
        room_id: &RoomId,
    ) -> Result<(RoomSummary, Option<MembershipState>)> {
        let unknown = || Error::not_found("There is no such room, or you may not see it");
        let viewer = self.viewer(user).await?;
        let found = self.storage.rooms_shown(vec![room_id.to_string()]).await?;
        let (summary, _) = summarise(found.first().ok_or_else(unknown)?)?;
        if !viewer.may_see(&summary) {
            return Err(unknown());
        }
        let membership = user.map(|_| viewer.is(room_id.as_str()).cloned().unwrap_or(MembershipState::Leave));
        Ok((summary, membership))
    }

    /// A page of the rooms below a room, each before what lies below it.
    pub async fn tree(&self, user: &UserId, root: &RoomId, wish: TreeWish) -> Result<Tree> {
        let (skip, max_depth, suggested_only) = match &wish.from {
            Some(token) => place(token).ok_or_else(|| Error::invalid_param("There is no such page"))?,
            None => {
                let depth = wish.max_depth.and_then(|depth| usize::try_from(depth).ok());
                (0, depth.unwrap_or(MOST_DEPTH).min(MOST_DEPTH), wish.suggested_only)
            }
        };
        let limit = wish.limit.and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.unwrap_or(MOST_ROOMS).clamp(1, MOST_ROOMS);
        let mut nodes = self.walk(user, root, max_depth, suggested_only).await?;
        if !nodes.contains_key(root.as_str()) {
            return Err(Error::forbidden("There is no such room, or you may not see it"));
        }

        let mut order: Vec<String> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut stack = vec![root.as_str()];
        while let Some(room) = stack.pop() {
            let Some(node) = nodes.get(room) else { continue };
            if seen.insert(room) {
                order.push(room.to_owned());
                stack.extend(node.children.iter().rev().map(|child| child.room_id.as_str()));
            }
        }
        let end = skip.saturating_add(limit);
        let next = (end < order.len()).then(|| format!("{end}_{max_depth}_{}", u8::from(suggested_only)));
        let page = order.iter().skip(skip).take(limit).filter_map(|room| nodes.remove(room));
        let rooms = page.map(|node| {
            let children = node.children.into_iter().map(|child| child.event).collect();
            SpaceHierarchyRoomsChunk::new(node.summary, children)
        });
        Ok(Tree { rooms: rooms.collect(), next })
    }

    /// The rooms that the user may see, a level at a time.
    async fn walk(
        &self,
        user: &UserId,
        root: &RoomId,
        max_depth: usize,
        suggested_only: bool,
    ) -> Result<HashMap<String, Node>> {
        let viewer = self.viewer(Some(user)).await?;
        let mut nodes: HashMap<String, Node> = HashMap::new();
        let mut looked_at = HashSet::from([root.to_string()]);
        let mut level = vec![root.to_string()];
        for depth in 0..=max_depth {
            let mut spaces = HashMap::new();
            for room in self.storage.rooms_shown(std::mem::take(&mut level)).await? {
                let (summary, is_space) = summarise(&room)?;
                if viewer.may_see(&summary) {
                    if is_space {
                        spaces.insert(room.room_sn, room.room_id.clone());
                    }
                    nodes.insert(room.room_id, Node { summary, is_space, children: Vec::new() });
                }
            }
            for (room_sn, json) in self.storage.space_children(spaces.keys().copied().collect()).await? {
                let node = spaces.get(&room_sn).and_then(|id| nodes.get_mut(id)).filter(|node| node.is_space);
                if let (Some(node), Some(child)) = (node, child(&json, suggested_only)?) {
                    if depth < max_depth && looked_at.len() < MOST_WALKED && looked_at.insert(child.room_id.clone()) {
                        level.push(child.room_id.clone());
                    }
                    node.children.push(child);
                }
            }
            for id in spaces.values() {
                if let Some(node) = nodes.get_mut(id) {
                    node.children.sort_by(|a, b| (&a.order, &a.room_id).cmp(&(&b.order, &b.room_id)));
                }
            }
            if level.is_empty() {
                break;
            }
        }
        Ok(nodes)
    }
}

/// Where a page begins, and what was asked for at first.
fn place(token: &str) -> Option<(usize, usize, bool)> {
    let mut parts = token.split('_');
    let (skip, depth, suggested) = (parts.next()?, parts.next()?, parts.next()?);
    let depth = depth.parse().ok().filter(|depth| *depth <= MOST_DEPTH)?;
    let suggested_only = match suggested {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    parts.next().is_none().then_some((skip.parse().ok()?, depth, suggested_only))
}

/// The room that a link of a space leads to; `None` if it doesn't any more.
pub fn linked_by(link: &str) -> Result<Option<String>> {
    Ok(child(link, false)?.map(|child| child.room_id))
}

/// A link, if it is one: without servers to join by it was taken away.
fn child(json: &str, suggested_only: bool) -> Result<Option<Child>> {
    #[derive(Deserialize)]
    struct Event {
        content: Value,
        state_key: String,
        sender: String,
        origin_server_ts: i64,
    }
    let event: Event = serde_json::from_str(json).map_err(Error::internal)?;
    let via = event.content.get("via").and_then(Value::as_array).is_some_and(|via| via.iter().any(Value::is_string));
    let suggested = event.content.get("suggested") == Some(&Value::Bool(true));
    if !via || suggested_only && !suggested || <&RoomId>::try_from(event.state_key.as_str()).is_err() {
        return Ok(None);
    }
    let valid = |order: &&str| order.len() <= 50 && order.bytes().all(|b| (0x20..=0x7e).contains(&b));
    let order = event.content.get("order").and_then(Value::as_str).filter(valid).map(str::to_owned);
    let stripped = json!({
        "type": "m.space.child", "state_key": event.state_key, "sender": event.sender, "content": event.content,
        "origin_server_ts": event.origin_server_ts,
    });
    Ok(Some(Child {
        // Links with an order come first.
        order: (order.is_none(), order.unwrap_or_default(), event.origin_server_ts),
        event: Raw::from_json(to_raw_value(&stripped).map_err(Error::internal)?),
        room_id: event.state_key,
    }))
}

/// What strangers may know of a room, and whether it is a space.
fn summarise(room: &ListedRoom) -> Result<(RoomSummary, bool)> {
    #[derive(Deserialize)]
    struct Event {
        content: Value,
    }
    let PublicRoomsChunk {
        canonical_alias,
        name,
        num_joined_members,
        room_id,
        topic,
        world_readable,
        guest_can_join,
        avatar_url,
        join_rule,
        room_type,
        ..
    } = show(room)?;
    let content = |kind: &str| {
        let (_, json) = room.state.iter().find(|(of, _)| of == kind)?;
        Some(serde_json::from_str::<Event>(json).ok()?.content)
    };
    let text = |kind: &str, key: &str| content(kind).and_then(|content| Some(content.get(key)?.as_str()?.to_owned()));
    let version = RoomVersionId::try_from(room.version.as_str()).map_err(Error::internal)?;
    let allowed = || {
        let version = RoomVersion::get(&version)?;
        let rooms = allowed_rooms(&content("m.room.join_rules")?.to_string(), version)?;
        Some(rooms.into_iter().filter_map(|room| OwnedRoomId::try_from(room).ok()).collect())
    };
    let restricted = || RestrictedSummary::new(allowed().unwrap_or_default());
    let join_rule = match join_rule {
        JoinRuleKind::Public => JoinRuleSummary::Public,
        JoinRuleKind::Knock => JoinRuleSummary::Knock,
        JoinRuleKind::Private => JoinRuleSummary::Private,
        JoinRuleKind::Restricted => JoinRuleSummary::Restricted(restricted()),
        JoinRuleKind::KnockRestricted => JoinRuleSummary::KnockRestricted(restricted()),
        _ => JoinRuleSummary::Invite,
    };
    let is_space = room_type == Some(RoomType::Space);
    let mut summary = RoomSummary::new(room_id, join_rule, guest_can_join, num_joined_members, world_readable);
    summary.canonical_alias = canonical_alias;
    summary.name = name;
    summary.topic = topic;
    summary.avatar_url = avatar_url;
    summary.room_type = room_type;
    summary.encryption = text("m.room.encryption", "algorithm").map(Into::into);
    summary.room_version = Some(version);
    Ok((summary, is_space))
}
