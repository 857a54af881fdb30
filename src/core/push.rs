//! Push rules as pure questions: whom does an event notify, in which thread is it.
//!
//! Most members have the rules that everybody starts with, and those ask for nothing that is the member's own but whether
//! they are mentioned. So such an event is judged once for all of them, and once more for those who are mentioned.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

mod names;

use std::{
    collections::BTreeSet,
    ops::{Add, AddAssign, Neg, Sub},
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use ruma::{
    EventId, OwnedEventId, OwnedUserId, RoomId, UInt, UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, AnyPushRuleRef, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData, FlattenedJson,
        FlattenedJsonValue, HighlightTweakValue, PatternedPushRuleInit, PredefinedContentRuleId,
        PredefinedOverrideRuleId, PushCondition, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset,
        ScalarJsonValue, SenderNotificationPermissionConditionData, SoundTweakValue, Tweak,
    },
    serde::Raw,
    user_id,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

pub use self::names::{CalledBy, Names};
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
            || self.text().is_some_and(|text| text.contains("@room"))
    }

    /// The text in which to look for the names of members. A sender who says whom they mention calls nobody else.
    pub fn text(&self) -> Option<&str> {
        let says = self.flat.contains_mentions() || self.flat.get("state_key").is_some();
        self.flat.get_str("content.body").filter(|text| !says && !text.is_empty())
    }

    pub fn set_power(&mut self, power: PushConditionPowerLevelsCtx) {
        self.room.power_levels = Some(power);
    }

    /// Those whom the sender says that it is meant for, in that order.
    pub fn mentioned(&self) -> Vec<OwnedUserId> {
        let users = self.flat.get(r"content.m\.mentions.user_ids").and_then(FlattenedJsonValue::as_array);
        let users = users.unwrap_or_default().iter();
        let ids = users.filter_map(ScalarJsonValue::as_str).filter(|id| !id.contains('\0'));
        let mut seen = BTreeSet::new();
        ids.filter(|id| seen.insert(*id)).filter_map(|id| OwnedUserId::try_from(id).ok()).collect()
    }

    /// What members with untouched rules are told who are not meant by it themselves.
    pub fn by_default(&self) -> Counts {
        self.judged(&DEFAULTS.nobody)
    }

    /// What those of them are told who are mentioned.
    pub fn by_default_if_mentioned(&self) -> Counts {
        self.judged(&DEFAULTS.mentioned)
    }

    /// What those of them are told whose name is in the text.
    pub fn by_default_if_called(&self, by: CalledBy) -> Counts {
        match by {
            CalledBy::DisplayName => self.judged(&DEFAULTS.called),
            // The rule stands behind all those of its kind before, and in front of all others.
            CalledBy::Localpart => {
                self.first(DEFAULTS.nobody.override_.iter().map(AnyPushRuleRef::Override)).unwrap_or(CALLED)
            }
        }
    }

    /// What a rule set that asks nothing about its owner makes of the event.
    fn judged(&self, rules: &Ruleset) -> Counts {
        self.first(rules.iter()).unwrap_or_default()
    }

    /// What the first rule says that applies.
    fn first<'a>(&self, mut rules: impl Iterator<Item = AnyPushRuleRef<'a>>) -> Option<Counts> {
        let rule = rules.find(|rule| {
            // Never waits: the subscriptions to threads that it could wait for are an experiment that is not compiled in.
            let applies = pin!(rule.applies(&self.flat, &self.room));
            applies.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(true)
        })?;
        Some(Counts {
            notify: i64::from(rule.triggers_notification()),
            highlight: i64::from(rule.triggers_highlight()),
        })
    }
}

struct Defaults {
    /// Sends nothing.
    user: &'static UserId,
    /// Without the rules that ask about the member.
    nobody: Ruleset,
    /// As they are to somebody who is mentioned.
    mentioned: Ruleset,
    /// As they are to somebody whose display name is in the text.
    called: Ruleset,
}

/// Of a rule about names.
const CALLED: Counts = Counts { notify: 1, highlight: 1 };

/// The rules that everybody starts with. Those about names have left the specification since clients say whom they
/// mention; for the sake of clients that don't they are still here.
///
/// <https://spec.matrix.org/v1.16/client-server-api/#predefined-rules>
#[expect(deprecated, reason = "for clients that are older than the rules")]
pub fn default_rules(user: &UserId) -> Ruleset {
    let tell = || vec![Action::Notify, Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))];
    let aloud = || [tell(), vec![Action::SetTweak(Tweak::Sound(SoundTweakValue::Default))]].concat();
    let old = |id: PredefinedOverrideRuleId, actions: Vec<Action>, conditions: Vec<PushCondition>| {
        let rule_id = id.to_string();
        ConditionalPushRule::from(ConditionalPushRuleInit {
            actions,
            default: true,
            enabled: true,
            rule_id,
            conditions,
        })
    };
    let text = EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned());
    let may = SenderNotificationPermissionConditionData::new(NotificationPowerLevelsKey::Room);
    let to_all = vec![PushCondition::EventMatch(text), PushCondition::SenderNotificationPermission(may)];
    let name = vec![PushCondition::ContainsDisplayName];
    let mut rules = Ruleset::server_default(user);
    for (before, rule) in [
        (PredefinedOverrideRuleId::IsUserMention, old(PredefinedOverrideRuleId::ContainsDisplayName, aloud(), name)),
        (PredefinedOverrideRuleId::IsRoomMention, old(PredefinedOverrideRuleId::RoomNotif, tell(), to_all)),
    ] {
        let at = rules.override_.get_index_of(before.as_str()).map_or(rules.override_.len(), |i| i + 1);
        rules.override_.shift_insert(at, rule);
    }
    let init = PatternedPushRuleInit {
        actions: aloud(),
        default: true,
        enabled: true,
        rule_id: PredefinedContentRuleId::ContainsUserName.to_string(),
        pattern: user.localpart().to_owned(),
    };
    rules.content.insert(init.into());
    rules
}

static DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| {
    let user = user_id!("@:nobody.invalid");
    let all = default_rules(user);
    let personal = |kept: Option<PredefinedOverrideRuleId>| {
        let mut rules = all.clone();
        rules.content.clear();
        // An invite concerns somebody who is not in the room: it counts for nobody who is.
        rules.override_.shift_remove(PredefinedOverrideRuleId::InviteForMe.as_str());
        for id in [PredefinedOverrideRuleId::IsUserMention, name_rule()] {
            let rule = rules.override_.get(id.as_str()).cloned();
            match rule {
                Some(mut always) if kept.as_ref() == Some(&id) => {
                    always.conditions.clear();
                    rules.override_.replace(always);
                }
                _ => {
                    rules.override_.shift_remove(id.as_str());
                }
            }
        }
        rules
    };
    Defaults {
        user,
        nobody: personal(None),
        mentioned: personal(Some(PredefinedOverrideRuleId::IsUserMention)),
        called: personal(Some(name_rule())),
    }
});

#[expect(deprecated, reason = "for clients that are older than the rules")]
fn name_rule() -> PredefinedOverrideRuleId {
    PredefinedOverrideRuleId::ContainsDisplayName
}

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
