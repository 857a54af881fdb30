//! Rules about one room, said again of another.

use ruma::{
    RoomId,
    push::{
        Action, ConditionalPushRule, EventMatchConditionData, NewConditionalPushRule, NewPushRule, NewSimplePushRule,
        PushCondition, Ruleset,
    },
};

/// What holds for `from` holds for `to`, except where there is a rule for it already.
pub(super) fn rules(rules: &mut Ruleset, from: &RoomId, to: &RoomId) {
    let mut copies = Vec::new();
    if let Some(rule) = rules.room.get(from.as_str()) {
        let copy = NewPushRule::Room(NewSimplePushRule::new(to.to_owned(), rule.actions.clone()));
        copies.push((copy, from.to_string(), rule.enabled));
    }
    // The whole room is muted by a rule that comes before all others.
    for rule in rules.override_.iter().filter(|rule| is_about(rule, from)) {
        copies.push((NewPushRule::Override(said_of(rule, from, to)), rule.rule_id.clone(), rule.enabled));
    }
    for rule in rules.underride.iter().filter(|rule| is_about(rule, from)) {
        copies.push((NewPushRule::Underride(said_of(rule, from, to)), rule.rule_id.clone(), rule.enabled));
    }
    for (copy, original, enabled) in copies {
        let kind = copy.kind();
        if rules.get(kind.clone(), copy.rule_id()).is_some() {
            continue;
        }
        let id = copy.rule_id().to_owned();
        // Next to the one that it is a copy of.
        if rules.insert(copy, Some(&original), None).is_ok() && !enabled {
            // It is there: it was just inserted.
            let _ = rules.set_enabled(kind, id, false);
        }
    }
}

fn is_about(rule: &ConditionalPushRule, room: &RoomId) -> bool {
    !rule.default && rule.conditions.iter().any(|condition| names(condition, room))
}

fn names(condition: &PushCondition, room: &RoomId) -> bool {
    matches!(condition, PushCondition::EventMatch(c) if c.key == "room_id" && c.pattern == room.as_str())
}

fn said_of(rule: &ConditionalPushRule, from: &RoomId, to: &RoomId) -> NewConditionalPushRule {
    let conditions = rule.conditions.iter().map(|condition| match names(condition, from) {
        true => PushCondition::EventMatch(EventMatchConditionData::new("room_id".to_owned(), to.to_string())),
        false => condition.clone(),
    });
    let actions: Vec<Action> = rule.actions.clone();
    // A rule about nothing but the room has its id for a name; of others there may be several.
    let id = match rule.rule_id.contains(from.as_str()) {
        true => rule.rule_id.replace(from.as_str(), to.as_str()),
        false => format!("{} {to}", rule.rule_id),
    };
    NewConditionalPushRule::new(id, conditions.collect(), actions)
}
