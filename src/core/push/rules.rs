//! The push rules of somebody, made ready to be asked about many events.
//!
//! What they ask about their owner (is it meant for them, is it their name?) is kept apart from what they ask about the
//! event and its room: who has the same rules is told the same of an event that concerns neither of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
};

use ruma::{
    RoomId, UserId,
    push::{
        Action, AnyPushRuleRef, ConditionalPushRule, PatternedPushRule, PushCondition, RoomMemberCountIs, Ruleset,
        ScalarJsonValue,
    },
    user_id,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Counts,
    defaults::{default_rules, looks_for_names},
    glob::{Glob, is_glob},
    subject::{Concern, Subject},
};

/// Rules in the order of their importance, without those that never apply.
#[derive(Clone, Debug)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    conditions: Vec<Condition>,
    /// A word that its owner waits for: few have the same.
    is_keyword: bool,
    /// Everybody has it, if not with these actions.
    is_default: bool,
    counts: Counts,
    actions: Vec<Action>,
}

/// What a rule asks.
#[derive(Clone, Debug, Serialize)]
enum Condition {
    /// A text of the event, all of which fits the pattern.
    Matches(String, #[serde(serialize_with = "as_pattern")] Glob),
    /// Something in the body does.
    Says(#[serde(serialize_with = "as_pattern")] Glob),
    Is(String, ScalarJsonValue),
    Contains(String, ScalarJsonValue),
    /// Ids are compared as they are, so that a rule is about one room.
    InRoom(String),
    Members(RoomMemberCountIs),
    /// The sender has the power to notify so many at once.
    SenderMay(String),
    /// The sender doesn't say whom they mention.
    MentionsUnsaid,
    /// These are about the owner of the rule.
    Mentioned,
    Named,
    Called,
    About,
}

/// Of which class somebody is in each room: who is of the same is told the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// In all rooms that no rule is about.
    pub elsewhere: String,
    pub rooms: BTreeMap<String, String>,
}

/// The class of those who never changed a push rule.
pub const DEFAULT_CLASS: &str = "";

/// Those that everybody starts with.
static UNTOUCHED: LazyLock<Rules> = LazyLock::new(|| {
    let owner = user_id!("@:nobody.invalid");
    Rules::of(owner, &default_rules(owner))
});

static DEFAULT_ESSENCE: LazyLock<String> = LazyLock::new(|| UNTOUCHED.essence());

impl Rules {
    /// The rules of this user.
    pub fn of(owner: &UserId, rules: &Ruleset) -> Self {
        Self(rules.iter().filter(|rule| rule.enabled()).filter_map(|rule| Rule::of(owner, rule)).collect())
    }

    /// Those of whoever never changed one; the same for all of them.
    pub fn untouched() -> &'static Self {
        &UNTOUCHED
    }

    /// What is left of them in a room, or in one that none is about: all that is to be said of what counts there.
    pub fn within(&self, room: Option<&RoomId>) -> Self {
        let mut rules = Vec::new();
        for rule in &self.0 {
            if rule.rooms().any(|id| room.is_none_or(|room| room != id)) {
                continue;
            }
            let conditions = rule.conditions.iter().filter(|c| !matches!(c, Condition::InRoom(_))).cloned();
            let rule = Rule { conditions: conditions.collect(), actions: Vec::new(), ..*rule };
            let is_last = rule.conditions.is_empty();
            rules.push(rule);
            if is_last {
                break;
            }
        }
        // To say nothing in the end says nothing.
        while rules.pop_if(|rule| rule.counts.is_none()).is_some() {}
        Self(rules)
    }

    /// Of which class its owner is, here and there.
    pub fn classes(&self) -> Classes {
        // For each room, the rules about it, and how many about none come before each.
        let (mut about, mut anywhere) = (BTreeMap::<&RoomId, Vec<(usize, &Rule)>>::new(), Vec::new());
        for rule in &self.0 {
            let rooms: BTreeSet<&str> = rule.rooms().collect();
            if rooms.is_empty() {
                anywhere.push(rule);
            }
            for room in rooms.into_iter().filter_map(|room| <&RoomId>::try_from(room).ok()) {
                about.entry(room).or_default().push((anywhere.len(), rule));
            }
        }
        // Most who have rules about many rooms have the same about all of them.
        let mut known = HashMap::new();
        let mut rooms = BTreeMap::new();
        for (room, own) in about {
            let key = |(before, rule): &(usize, &Rule)| {
                let conditions = rule.conditions.iter().filter(|c| !c.is_in(room));
                (*before, conditions.cloned().collect::<Vec<_>>(), rule.counts.notify, rule.counts.highlight)
            };
            let key = as_text(&own.iter().map(key).collect::<Vec<_>>());
            let class = known.entry(key).or_insert_with(|| {
                let (mut all, mut taken) = (Vec::new(), 0);
                for (before, rule) in &own {
                    all.extend(anywhere.iter().take(*before).skip(taken).copied());
                    all.push(*rule);
                    taken = *before;
                }
                all.extend(anywhere.iter().skip(taken).copied());
                Self(all.into_iter().cloned().collect()).within(Some(room)).class()
            });
            rooms.insert(room.to_string(), class.clone());
        }
        Classes { elsewhere: self.within(None).class(), rooms }
    }

    /// A name for what all are told who have these rules, but for what concerns one of them.
    pub(super) fn class(&self) -> String {
        let essence = self.essence();
        if essence == *DEFAULT_ESSENCE {
            return DEFAULT_CLASS.to_owned();
        }
        let digest = Sha256::digest(essence);
        digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }

    /// It all as a text.
    fn essence(&self) -> String {
        let mut rules: Vec<&Rule> = self.0.iter().filter(|rule| !rule.is_personal()).collect();
        while rules.pop_if(|rule| rule.counts.is_none()).is_some() {}
        let rules: Vec<_> =
            rules.iter().map(|rule| (&rule.conditions, rule.counts.notify, rule.counts.highlight)).collect();
        as_text(&rules)
    }

    /// Whether its owner waits for words, or is called in a way that others are not: whether an event may concern them
    /// that doesn't seem to.
    pub fn listens(&self) -> bool {
        self.0.iter().any(|rule| rule.is_keyword || rule.asks_for_any_name())
    }

    /// Whether it matters what its owner is called, although a sender says whom they mention.
    pub fn asks_for_names(&self) -> bool {
        self.0.iter().any(Rule::asks_for_any_name)
    }

    /// Whether they ask about power where untouched rules don't.
    pub fn ask_for_more_power(&self) -> bool {
        self.0.iter().any(|rule| !rule.is_default && rule.asks_for_power())
    }

    /// About what they take.
    pub fn bytes(&self) -> usize {
        let all =
            self.0.iter().map(|rule| size_of::<Rule>() + rule.conditions.iter().map(Condition::bytes).sum::<usize>());
        all.sum::<usize>() + size_of::<Self>()
    }

    /// Whether it may matter what the sender of this has the power to do.
    pub fn asks_for_power(&self, subject: &Subject) -> bool {
        let rest = |c: &Condition| match c {
            Condition::SenderMay(_) => true,
            c if c.is_personal() => true,
            c => c.holds(subject, None),
        };
        self.0.iter().any(|rule| rule.asks_for_power() && rule.conditions.iter().all(rest))
    }

    /// What an event counts for all who have these rules and whom it doesn't concern.
    pub fn counts_for_all(&self, subject: &Subject) -> Counts {
        self.first(subject, None).map_or(Counts::NONE, |rule| rule.counts)
    }

    /// What it counts for somebody who has them.
    pub fn counts(&self, subject: &Subject, concern: Concern) -> Counts {
        self.first(subject, Some(concern)).map_or(Counts::NONE, |rule| rule.counts)
    }

    /// What is to be done to tell their owner of an event. Nobody is told of their own.
    pub fn actions(&self, subject: &Subject, owner: &UserId, display_name: Option<&str>) -> &[Action] {
        if subject.is_by(owner) {
            return &[];
        }
        self.first(subject, Some(subject.concern(owner, display_name))).map_or(&[], |rule| &rule.actions)
    }

    fn first(&self, subject: &Subject, concern: Option<Concern>) -> Option<&Rule> {
        let all = self.0.iter().filter(|rule| concern.is_some() || !rule.is_keyword);
        let mut all = all.filter(|rule| rule.conditions.iter().all(|c| c.holds(subject, concern)));
        all.next()
    }
}

impl Rule {
    fn of(owner: &UserId, rule: AnyPushRuleRef<'_>) -> Option<Self> {
        let conditions = match rule {
            AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => all_conditions(owner, rule)?,
            AnyPushRuleRef::Content(rule) => look_for(owner, rule),
            AnyPushRuleRef::Room(rule) => vec![Condition::InRoom(rule.rule_id.to_string())],
            AnyPushRuleRef::Sender(rule) => {
                vec![Condition::Is("sender".to_owned(), ScalarJsonValue::String(rule.rule_id.to_string()))]
            }
            _ => return None,
        };
        Some(Self {
            is_default: rule.is_server_default(),
            is_keyword: matches!(&conditions[..], [Condition::Says(_)]) && matches!(rule, AnyPushRuleRef::Content(_)),
            conditions,
            counts: Counts {
                notify: i64::from(rule.triggers_notification()),
                // What is not told is not loud.
                highlight: i64::from(rule.triggers_notification() && rule.triggers_highlight()),
            },
            actions: rule.actions().to_vec(),
        })
    }

    /// The rooms that it is about: of more than one it never is.
    fn rooms(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().filter_map(|condition| match condition {
            Condition::InRoom(id) => Some(id.as_str()),
            _ => None,
        })
    }

    fn is_personal(&self) -> bool {
        self.is_keyword || self.conditions.iter().any(Condition::is_personal)
    }

    fn asks_for_power(&self) -> bool {
        self.conditions.iter().any(|c| matches!(c, Condition::SenderMay(_)))
    }

    fn asks_for_any_name(&self) -> bool {
        let asks = |c: &Condition| matches!(c, Condition::Named | Condition::Called);
        let only_if_unsaid = |c: &Condition| matches!(c, Condition::MentionsUnsaid);
        self.conditions.iter().any(asks) && !self.conditions.iter().any(only_if_unsaid)
    }
}

/// `None` if one is unknown: such a rule never applies.
fn all_conditions(owner: &UserId, rule: &ConditionalPushRule) -> Option<Vec<Condition>> {
    let unsaid = looks_for_names(&rule.rule_id).then_some(Condition::MentionsUnsaid);
    unsaid.map(Some).into_iter().chain(rule.conditions.iter().map(|c| Condition::of(owner, c))).collect()
}

fn look_for(owner: &UserId, rule: &PatternedPushRule) -> Vec<Condition> {
    match looks_for_names(&rule.rule_id) {
        true if rule.pattern == owner.localpart() => vec![Condition::MentionsUnsaid, Condition::Called],
        true => vec![Condition::MentionsUnsaid, Condition::Says(Glob::new(&rule.pattern))],
        false => vec![Condition::Says(Glob::new(&rule.pattern))],
    }
}

impl Condition {
    #[expect(deprecated, reason = "rules may hold it that are older than its successor")]
    fn of(owner: &UserId, condition: &PushCondition) -> Option<Self> {
        Some(match condition {
            PushCondition::EventMatch(c) => match c.key.as_str() {
                "content.body" => Self::Says(Glob::new(&c.pattern)),
                "room_id" if !is_glob(&c.pattern) => Self::InRoom(c.pattern.clone()),
                "state_key" if c.pattern == *owner => Self::About,
                _ => Self::Matches(c.key.clone(), Glob::new(&c.pattern)),
            },
            PushCondition::ContainsDisplayName => Self::Named,
            PushCondition::RoomMemberCount(c) => Self::Members(c.is),
            PushCondition::SenderNotificationPermission(c) => Self::SenderMay(c.key.to_string()),
            PushCondition::EventPropertyIs(c) => Self::Is(c.key.clone(), c.value.clone()),
            PushCondition::EventPropertyContains(c) => match &c.value {
                ScalarJsonValue::String(id) if c.key == super::subject::MENTIONED && id == owner => Self::Mentioned,
                value => Self::Contains(c.key.clone(), value.clone()),
            },
            _ => return None,
        })
    }

    fn is_in(&self, room: &RoomId) -> bool {
        matches!(self, Self::InRoom(id) if room == id)
    }

    fn bytes(&self) -> usize {
        let text = match self {
            Self::Matches(key, glob) => key.len() + glob.bytes(),
            Self::Says(glob) => glob.bytes(),
            Self::Is(key, value) | Self::Contains(key, value) => key.len() + value.as_str().map_or(0, str::len),
            Self::InRoom(text) | Self::SenderMay(text) => text.len(),
            _ => 0,
        };
        size_of::<Self>() + text
    }

    fn is_personal(&self) -> bool {
        matches!(self, Self::Mentioned | Self::Named | Self::Called | Self::About)
    }

    fn holds(&self, subject: &Subject, concern: Option<Concern>) -> bool {
        let concern = concern.unwrap_or_default();
        match self {
            Self::Matches(key, glob) => subject.text_at(key).is_some_and(|text| glob.matches(&text.to_lowercase())),
            Self::Says(glob) => subject.body().is_some_and(|text| glob.is_in(text)),
            Self::Is(key, value) => subject.is(key, value),
            Self::Contains(key, value) => subject.contains(key, value),
            Self::InRoom(id) => subject.room_id() == id,
            Self::Members(is) => subject.has_members(*is),
            Self::SenderMay(key) => subject.sender_may(key),
            Self::MentionsUnsaid => !subject.says_whom_it_mentions(),
            Self::Mentioned => concern.mentioned,
            Self::Named => concern.named,
            Self::Called => concern.called,
            Self::About => concern.about,
        }
    }
}

/// Texts and numbers always become JSON.
fn as_text(what: &impl Serialize) -> String {
    serde_json::to_string(what).unwrap_or_default()
}

fn as_pattern<S: serde::Serializer>(glob: &Glob, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(glob.pattern())
}
