//! The rules that everybody starts with.

use ruma::{
    UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData, EventPropertyIsConditionData,
        HighlightTweakValue, PatternedPushRuleInit, PredefinedContentRuleId, PredefinedOverrideRuleId, PushCondition,
        Ruleset, SenderNotificationPermissionConditionData, SoundTweakValue, Tweak,
    },
};

/// Those about names have left the specification since clients say whom they mention; for the sake of clients that don't
/// they are still here.
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
    // Those about threads that somebody follows are not asked here.
    rules.postcontent.clear();
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
    rules.override_ = rules.override_.into_iter().map(as_known).collect();
    rules.underride = rules.underride.into_iter().map(as_known).collect();
    rules
}

/// What the ids of the rules about polls begin with.
const ABOUT_POLLS: &str = ".org.matrix.msc3930.rule.";

/// Clients know the rules about polls by a condition that the proposal has and the crate has not: a pattern for the type.
///
/// <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/3930-polls-notifications.md>
fn as_known(mut rule: ConditionalPushRule) -> ConditionalPushRule {
    if rule.rule_id.starts_with(ABOUT_POLLS) {
        for condition in &mut rule.conditions {
            if let PushCondition::EventPropertyIs(EventPropertyIsConditionData { key, value, .. }) = condition
                && let Some(kind) = value.as_str()
            {
                let matches = EventMatchConditionData::new(key.clone(), kind.to_owned());
                *condition = PushCondition::EventMatch(matches);
            }
        }
    }
    rule
}

/// Whether a rule looks for names in a text. Such a rule doesn't apply where the sender says whom they mention.
///
/// <https://spec.matrix.org/v1.16/client-server-api/#user-and-room-mentions>
#[expect(deprecated, reason = "for clients that are older than the rules")]
pub(super) fn looks_for_names(rule_id: &str) -> bool {
    rule_id == PredefinedOverrideRuleId::ContainsDisplayName.as_str()
        || rule_id == PredefinedOverrideRuleId::RoomNotif.as_str()
        || rule_id == PredefinedContentRuleId::ContainsUserName.as_str()
}
