//! How a sync is written down: ruma's types, but for what clients in use want to find where those types leave it out. That
//! is `limited` where it is false, and the state of left rooms where it is empty.

use std::collections::BTreeMap;

use ruma::{
    OneTimeKeyAlgorithm, OwnedEventId, OwnedRoomId, UInt,
    api::client::sync::sync_events::{
        DeviceLists, UnreadNotificationsCount,
        v3::{
            Ephemeral, GlobalAccountData, InvitedRoom, JoinedRoom, KnockedRoom, LeftRoom, Presence, Response,
            RoomAccountData, RoomSummary, State, Timeline, ToDevice,
        },
    },
    events::{AnySyncStateEvent, AnySyncTimelineEvent},
    serde::Raw,
};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Reply {
    next_batch: String,
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    rooms: Rooms,
    #[serde(skip_serializing_if = "Presence::is_empty")]
    presence: Presence,
    #[serde(skip_serializing_if = "GlobalAccountData::is_empty")]
    account_data: GlobalAccountData,
    #[serde(skip_serializing_if = "ToDevice::is_empty")]
    to_device: ToDevice,
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    device_lists: DeviceLists,
    device_one_time_keys_count: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_unused_fallback_key_types: Option<Vec<OneTimeKeyAlgorithm>>,
}

#[derive(Serialize)]
struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<OwnedRoomId, Left>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<OwnedRoomId, Joined>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<OwnedRoomId, InvitedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<OwnedRoomId, KnockedRoom>,
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.leave.is_empty() && self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty()
    }
}

#[derive(Serialize)]
struct Joined {
    #[serde(skip_serializing_if = "RoomSummary::is_empty")]
    summary: RoomSummary,
    #[serde(skip_serializing_if = "UnreadNotificationsCount::is_empty")]
    unread_notifications: UnreadNotificationsCount,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_thread_notifications: BTreeMap<OwnedEventId, UnreadNotificationsCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Run>,
    #[serde(flatten)]
    state: States,
    #[serde(skip_serializing_if = "RoomAccountData::is_empty")]
    account_data: RoomAccountData,
    #[serde(skip_serializing_if = "Ephemeral::is_empty")]
    ephemeral: Ephemeral,
}

#[derive(Serialize)]
struct Left {
    timeline: Run,
    #[serde(flatten)]
    state: States,
    #[serde(skip_serializing_if = "RoomAccountData::is_empty")]
    account_data: RoomAccountData,
}

/// The state before the timeline, or that after it.
#[derive(Default, Serialize)]
struct States {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    unstable_state_after: Option<Events>,
}

/// What the state after a timeline is called.
#[derive(Clone, Copy)]
enum Name {
    Stable,
    Unstable,
}

#[derive(Serialize)]
struct Run {
    events: Vec<Raw<AnySyncTimelineEvent>>,
    limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Raw<AnySyncStateEvent>>,
}

impl Reply {
    /// With the state after the timelines under the name that it had at first, or that which it has now.
    pub(super) fn new(r: Response, unstable_state_after: bool) -> Self {
        let name = if unstable_state_after { Name::Unstable } else { Name::Stable };
        Self {
            next_batch: r.next_batch,
            rooms: Rooms {
                leave: r.rooms.leave.into_iter().map(|(id, left)| (id, Left::new(left, name))).collect(),
                join: r.rooms.join.into_iter().map(|(id, joined)| (id, Joined::new(joined, name))).collect(),
                invite: r.rooms.invite,
                knock: r.rooms.knock,
            },
            presence: r.presence,
            account_data: r.account_data,
            to_device: r.to_device,
            device_lists: r.device_lists,
            device_one_time_keys_count: r.device_one_time_keys_count,
            device_unused_fallback_key_types: r.device_unused_fallback_key_types,
        }
    }
}

impl Joined {
    fn new(joined: JoinedRoom, name: Name) -> Self {
        let mut state = States::new(joined.state, name);
        state.state = state.state.filter(|state| !state.events.is_empty());
        Self {
            summary: joined.summary,
            unread_notifications: joined.unread_notifications,
            unread_thread_notifications: joined.unread_thread_notifications,
            timeline: (!joined.timeline.is_empty()).then(|| joined.timeline.into()),
            state,
            account_data: joined.account_data,
            ephemeral: joined.ephemeral,
        }
    }
}

impl Left {
    fn new(left: LeftRoom, name: Name) -> Self {
        let state = States::new(left.state, name);
        Self { timeline: left.timeline.into(), state, account_data: left.account_data }
    }
}

impl From<Timeline> for Run {
    fn from(timeline: Timeline) -> Self {
        Self { events: timeline.events, limited: timeline.limited, prev_batch: timeline.prev_batch }
    }
}

impl States {
    fn new(state: State, name: Name) -> Self {
        match (state, name) {
            (State::Before(state), _) => Self { state: Some(Events { events: state.events }), ..Self::default() },
            (State::After(state), Name::Stable) => {
                Self { state_after: Some(Events { events: state.events }), ..Self::default() }
            }
            (State::After(state), Name::Unstable) => {
                Self { unstable_state_after: Some(Events { events: state.events }), ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}
