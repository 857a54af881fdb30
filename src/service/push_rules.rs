//! Push rules: what a user wants to be told of.
//!
//! Whoever never changed a rule has the defaults, and nothing is stored for them. The changed ones are account data of
//! type `m.push_rules`, so that a sync tells of them like of the rest.

mod copy;

use std::sync::Arc;

use hearth_core::{
    Error, Result,
    limits::nests_at_most,
    push::{MAX_GLOB, Rules, default_rules, is_glob},
};
use hearth_storage::{
    Scope, Storage,
    account_data::{AccountDataChange, AccountDataSet},
};
use ruma::{
    RoomId, UserId,
    events::{AnyGlobalAccountDataEvent, push_rules::PushRulesEventContent},
    push::{
        Action, AnyPushRule, AnyPushRuleRef, InsertPushRuleError, NewPushRule, PushCondition, RemovePushRuleError,
        RuleKind, Ruleset,
    },
    serde::Raw,
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::{account_data::TRIES, push::Push};

const KIND: &str = "m.push_rules";
const MAX_RULES: usize = 1_000;
/// Each is looked for in each message of each room that its owner is in.
const MAX_KEYWORDS: usize = 100;
/// Of an id, a pattern, or all conditions and actions of a rule.
const MAX_BYTES: usize = 1_024;
/// Of a condition that we don't know, or what an action is to say.
const MAX_DEPTH: usize = 20;

pub struct PushRules {
    storage: Arc<dyn Storage>,
    push: Arc<Push>,
}

impl PushRules {
    pub fn new(storage: Arc<dyn Storage>, push: Arc<Push>) -> Self {
        Self { storage, push }
    }

    /// All rules of the user.
    pub async fn rules(&self, user: &UserId) -> Result<Ruleset> {
        let stored = self.stored(user).await?;
        parsed(user, stored.as_deref())
    }

    /// All rules of the user, ready to be asked.
    pub(super) async fn compiled(&self, user: &UserId) -> Result<Arc<Rules>> {
        let stored = self.stored(user).await?;
        self.push.rules(user, stored.as_deref())
    }

    /// What is stored of them: nothing for whoever never changed one.
    async fn stored(&self, user: &UserId) -> Result<Option<String>> {
        Ok(self.storage.account_data(user.as_str(), &Scope::Global, KIND).await?)
    }

    /// The rules as the global account data event that a sync shows.
    pub async fn push_rules_event(&self, user: &UserId) -> Result<Raw<AnyGlobalAccountDataEvent>> {
        event(&self.rules(user).await?)
    }

    /// What `GET …/account_data/m.push_rules` answers.
    pub async fn content(&self, user: &UserId) -> Result<Box<RawValue>> {
        to_raw_value(&json!({ "global": self.rules(user).await? })).map_err(Error::internal)
    }

    /// One rule of the user.
    pub async fn rule(&self, user: &UserId, kind: RuleKind, rule_id: &str) -> Result<AnyPushRule> {
        self.rules(user).await?.get(kind, rule_id).map(AnyPushRuleRef::to_owned).ok_or_else(no_rule)
    }

    /// Adds a rule, or puts it in the place of the one with its id.
    pub async fn put(&self, user: &UserId, rule: NewPushRule, after: Option<&str>, before: Option<&str>) -> Result<()> {
        check(&rule)?;
        self.change(user, |rules| {
            place(rules, rule.clone(), after, before)?;
            check_number(rules)
        })
        .await
    }

    pub async fn remove(&self, user: &UserId, kind: &RuleKind, rule_id: &str) -> Result<()> {
        self.change(user, |rules| {
            rules.remove(kind.clone(), rule_id).map_err(|e| match e {
                RemovePushRuleError::NotFound => no_rule(),
                _ => Error::invalid_param("The server's own rules can't be removed"),
            })
        })
        .await
    }

    pub async fn set_enabled(&self, user: &UserId, kind: &RuleKind, rule_id: &str, enabled: bool) -> Result<()> {
        self.change(user, |rules| rules.set_enabled(kind.clone(), rule_id, enabled).map_err(|_| no_rule())).await
    }

    pub async fn set_actions(&self, user: &UserId, kind: &RuleKind, rule_id: &str, actions: Vec<Action>) -> Result<()> {
        check_size(&actions)?;
        self.change(user, |rules| rules.set_actions(kind.clone(), rule_id, actions.clone()).map_err(|_| no_rule()))
            .await
    }

    /// What the user wants to be told of one room holds for another, too, as far as they have said nothing of that.
    pub(super) async fn copy(&self, user: &UserId, from: &RoomId, to: &RoomId) -> Result<()> {
        let stored = self.stored(user).await?;
        if !stored.is_some_and(|stored| stored.contains(from.as_str())) {
            return Ok(());
        }
        self.change(user, |rules| {
            copy::rules(rules, from, to);
            check_number(rules)
        })
        .await
    }

    async fn change(&self, user: &UserId, edit: impl Fn(&mut Ruleset) -> Result<()>) -> Result<()> {
        for _ in 0..TRIES {
            let stored = self.stored(user).await?;
            let mut rules = parsed(user, stored.as_deref())?;
            edit(&mut rules)?;
            let content = json!(PushRulesEventContent::new(rules)).to_string();
            let classes = self.push.rules(user, Some(&content))?.classes();
            let change = AccountDataChange {
                user_id: user.to_string(),
                scope: Scope::Global,
                kind: KIND.to_owned(),
                content: Some(content),
                expects: Some(stored),
                quota: None,
            };
            match self.storage.set_push_rules(change, classes).await? {
                AccountDataSet::Stale => {}
                AccountDataSet::Done(_) => {
                    // Else whoever writes to a room finds it out, and has to begin again.
                    if let Err(error) = self.push.look().await {
                        tracing::debug!(%error, "it can't be read whose push rules changed");
                    }
                    return Ok(());
                }
                other => return Err(Error::internal(format!("push rules were set: {other:?}"))),
            }
        }
        Err(Error::unavailable("Somebody else is changing these rules at the same time"))
    }
}

/// The rules by what is stored of them.
pub(super) fn parsed(user: &UserId, stored: Option<&str>) -> Result<Ruleset> {
    let Some(content) = stored else { return Ok(default_rules(user)) };
    let content: PushRulesEventContent = serde_json::from_str(content).map_err(Error::internal)?;
    let mut rules = content.global;
    // A later version may bring rules that were not there when these were stored.
    rules.update_with_server_default(default_rules(user));
    Ok(rules)
}

fn check_number(rules: &Ruleset) -> Result<()> {
    if rules.iter().filter(|rule| !rule.is_server_default()).count() > MAX_RULES {
        return Err(Error::forbidden(format!("A user has at most {MAX_RULES} push rules")));
    }
    if rules.content.iter().filter(|rule| !rule.default).count() > MAX_KEYWORDS {
        return Err(Error::forbidden(format!("A user has at most {MAX_KEYWORDS} keywords")));
    }
    Ok(())
}

/// The event in which a sync shows these rules.
pub fn event(rules: &Ruleset) -> Result<Raw<AnyGlobalAccountDataEvent>> {
    let event = json!({ "type": KIND, "content": { "global": rules } });
    Ok(Raw::new(&event).map_err(Error::internal)?.cast_unchecked())
}

fn check(rule: &NewPushRule) -> Result<()> {
    if rule.rule_id().is_empty() || rule.rule_id().len() > MAX_BYTES {
        return Err(Error::invalid_param(format!("A rule's id has 1 to {MAX_BYTES} bytes")));
    }
    match rule {
        NewPushRule::Override(r) | NewPushRule::Underride(r) => {
            for condition in &r.conditions {
                if let PushCondition::EventMatch(condition) = condition {
                    check_pattern(&condition.pattern)?;
                }
            }
            check_size(&r.conditions)?;
            check_size(&r.actions)
        }
        NewPushRule::Content(r) => {
            if r.pattern.is_empty() {
                return Err(Error::invalid_param("A keyword is not empty"));
            }
            check_pattern(&r.pattern)?;
            check_size(&r.actions)
        }
        NewPushRule::Room(r) => check_size(&r.actions),
        NewPushRule::Sender(r) => check_size(&r.actions),
        _ => Err(Error::invalid_param("Unknown kind of rule")),
    }
}

fn check_size(part: &impl serde::Serialize) -> Result<()> {
    // What an action is to say is JSON that nobody has read yet: it may be none that can be.
    match serde_json::to_value(part) {
        Ok(part) if part.to_string().len() <= 4 * MAX_BYTES && nests_at_most(&part, MAX_DEPTH) => Ok(()),
        _ => Err(Error::invalid_param("The rule is too large")),
    }
}

fn check_pattern(pattern: &str) -> Result<()> {
    if pattern.len() > MAX_BYTES {
        return Err(Error::invalid_param(format!("A pattern has at most {MAX_BYTES} bytes")));
    }
    if is_glob(pattern) && pattern.to_lowercase().chars().filter(|c| *c != '*').count() > MAX_GLOB {
        return Err(Error::invalid_param(format!("A pattern with * or ? has at most {MAX_GLOB} other characters")));
    }
    Ok(())
}

/// Puts a rule where it is to be. One that is there already stays where it is, unless it is said where to.
fn place(rules: &mut Ruleset, rule: NewPushRule, after: Option<&str>, before: Option<&str>) -> Result<()> {
    let (kind, id) = (rule.kind(), rule.rule_id().to_owned());
    if [after, before].contains(&Some(id.as_str())) {
        return Err(refused(InsertPushRuleError::UnknownRuleId));
    }
    let was = rules.get(kind.clone(), &id).filter(|was| !was.is_server_default()).map(AnyPushRuleRef::enabled);
    if was.is_some() && (after.is_some() || before.is_some()) {
        // Or it would be counted among those that it is to come after.
        rules.remove(kind.clone(), &id).map_err(Error::internal)?;
    }
    rules.insert(rule, after, before).map_err(refused)?;
    if was == Some(false) {
        rules.set_enabled(kind, &id, false).map_err(Error::internal)?;
    }
    Ok(())
}

fn no_rule() -> Error {
    Error::not_found("There is no such push rule")
}

fn refused(e: InsertPushRuleError) -> Error {
    match e {
        InsertPushRuleError::UnknownRuleId => Error::unknown("The rule to be placed before or after was not found"),
        other => Error::invalid_param(other.to_string()),
    }
}
