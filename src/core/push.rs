//! Push rules as pure questions: whom does an event notify, in which thread is it.
//!
//! Most members have the rules that everybody starts with, and those ask for nothing that is the member's own but whether
//! they are mentioned. So such an event is judged once for all of them, and once more for those who are mentioned.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

use std::{
    ops::{Add, AddAssign, Neg, Sub},
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use ruma::{
    EventId, OwnedEventId, OwnedUserId, RoomId, UInt, UserId,
    push::{
        FlattenedJson, FlattenedJsonValue, PredefinedOverrideRuleId, PushConditionPowerLevelsCtx, PushConditionRoomCtx,
        Ruleset, ScalarJsonValue,
    },
    serde::Raw,
    user_id,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{Error, Result, event::Pdu};

/// How often somebody is notified, and how often of something that is meant for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub notify: i64,
    pub highlight: i64,
}

impl Counts {
    pub const NONE: Self = Self { notify: 0, highlight: 0 };

    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { notify: self.notify + other.notify, highlight: self.highlight + other.highlight }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Counts {
    type Output = Self;
    fn neg(self) -> Self {
        Self { notify: -self.notify, highlight: -self.highlight }
    }
}

impl Sub for Counts {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

/// Which thread of its room an event belongs to.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#threading>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Main,
    /// The thread of this root.
    Thread(OwnedEventId),
    /// Wherever this event is, to which it relates in another way.
    With(OwnedEventId),
}

/// An event as push rules look at it.
pub struct Subject {
    flat: FlattenedJson,
    room: PushConditionRoomCtx,
    place: Place,
}

impl Subject {
    /// `member_count` is that of the joined members. The event's JSON has to be canonical.
    pub fn new(pdu: &Pdu, room_id: &RoomId, member_count: i64) -> Result<Self> {
        #[derive(Serialize)]
        struct Seen<'a> {
            content: &'a RawValue,
            event_id: &'a EventId,
            origin_server_ts: u64,
            room_id: &'a RoomId,
            sender: &'a UserId,
            #[serde(skip_serializing_if = "Option::is_none")]
            state_key: Option<&'a str>,
            r#type: String,
        }
        let seen = Seen {
            content: &pdu.content,
            event_id: &pdu.event_id,
            origin_server_ts: pdu.origin_server_ts.get().into(),
            room_id,
            sender: &pdu.sender,
            state_key: pdu.state_key.as_deref(),
            r#type: pdu.event_type.to_string(),
        };
        let seen = Raw::<serde::de::IgnoredAny>::from_json(to_raw_value(&seen).map_err(Error::internal)?);
        let flat = FlattenedJson::from_raw(&seen);
        let place = if pdu.state_key.is_some() { Place::Main } else { place_of(&flat) };
        let member_count = UInt::try_from(member_count).unwrap_or_default();
        let room = PushConditionRoomCtx::new(room_id.to_owned(), member_count, DEFAULTS.user.to_owned(), String::new());
        Ok(Self { flat, room, place })
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it takes the sender's power to say what the event does.
    pub fn mentions_room(&self) -> bool {
        self.flat.get(r"content.m\.mentions.room").and_then(FlattenedJsonValue::as_bool) == Some(true)
    }

    pub fn set_power(&mut self, power: PushConditionPowerLevelsCtx) {
        self.room.power_levels = Some(power);
    }

    /// Those whom the sender says that it is meant for.
    pub fn mentioned(&self) -> Vec<OwnedUserId> {
        let users = self.flat.get(r"content.m\.mentions.user_ids").and_then(FlattenedJsonValue::as_array);
        let users = users.unwrap_or_default().iter();
        let ids = users.filter_map(ScalarJsonValue::as_str).filter(|id| !id.contains('\0'));
        let mut users: Vec<OwnedUserId> = ids.filter_map(|id| OwnedUserId::try_from(id).ok()).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// What members with untouched rules are told who are not meant by it themselves.
    pub fn by_default(&self) -> Counts {
        self.judged(&DEFAULTS.nobody)
    }

    /// What those of them are told who are mentioned.
    pub fn by_default_if_mentioned(&self) -> Counts {
        self.judged(&DEFAULTS.mentioned)
    }

    /// What a rule set that asks nothing about its owner makes of the event.
    fn judged(&self, rules: &Ruleset) -> Counts {
        for rule in rules {
            // Never waits: the subscriptions to threads that it could wait for are an experiment that is not compiled in.
            let applies = pin!(rule.applies(&self.flat, &self.room));
            if applies.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(true) {
                return Counts {
                    notify: i64::from(rule.triggers_notification()),
                    highlight: i64::from(rule.triggers_highlight()),
                };
            }
        }
        Counts::NONE
    }
}

struct Defaults {
    /// Sends nothing.
    user: &'static UserId,
    /// Without the rules that ask about the member.
    nobody: Ruleset,
    /// As they are to somebody who is mentioned.
    mentioned: Ruleset,
}

static DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| {
    let user = user_id!("@:nobody.invalid");
    let mut nobody = Ruleset::server_default(user);
    // An invite concerns somebody who is not in the room: it counts for nobody who is.
    nobody.override_.shift_remove(PredefinedOverrideRuleId::InviteForMe.as_str());
    let mut mentioned = nobody.clone();
    nobody.override_.shift_remove(PredefinedOverrideRuleId::IsUserMention.as_str());
    if let Some(rule) = mentioned.override_.get(PredefinedOverrideRuleId::IsUserMention.as_str()) {
        let mut always = rule.clone();
        always.conditions.clear();
        mentioned.override_.replace(always);
    }
    Defaults { user, nobody, mentioned }
});

/// A reaction or an edit is where that is which it belongs to.
fn place_of(flat: &FlattenedJson) -> Place {
    let target = flat.get_str(r"content.m\.relates_to.event_id").filter(|id| !id.contains('\0'));
    let target = target.and_then(|id| OwnedEventId::try_from(id).ok());
    match (flat.get_str(r"content.m\.relates_to.rel_type"), target) {
        (Some("m.thread"), Some(root)) => Place::Thread(root),
        (Some(_), Some(target)) => Place::With(target),
        _ => Place::Main,
    }
}

#[cfg(test)]
mod tests;
