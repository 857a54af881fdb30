//! What people want to be told of: push rules.

use ruma::push::{
    Action, EventMatchConditionData, HighlightTweakValue, NewConditionalPushRule, NewPatternedPushRule, NewPushRule,
    NewSimplePushRule, PushCondition, RuleKind, Tweak,
};

use super::allowed;
use crate::model::{
    Outcome, Run,
    story::{RULES, WORDS, Wished},
};

impl Run<'_> {
    pub async fn wish(&mut self, who: usize, room: usize, what: Wished, still: bool) -> Outcome<()> {
        let user = self.users[who].clone();
        let id = self.world.rooms[room].id.clone();
        let loudly = || vec![Action::Notify, Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))];
        let rules = &self.services().push_rules;
        let (rule, about) = match what {
            Wished::Silence => {
                let condition = EventMatchConditionData::new("room_id".to_owned(), id.to_string());
                let conditions = vec![PushCondition::EventMatch(condition)];
                let rule = NewConditionalPushRule::new(id.to_string(), conditions, vec![]);
                (NewPushRule::Override(rule), Some(room))
            }
            Wished::Mentions => (NewPushRule::Room(NewSimplePushRule::new(id, vec![])), Some(room)),
            Wished::Word(n) => {
                let pattern = ["c?ke", WORDS[1]][n].to_owned();
                (NewPushRule::Content(NewPatternedPushRule::new(WORDS[n].to_owned(), pattern, loudly())), None)
            }
            Wished::Less(whom) => (NewPushRule::Sender(NewSimplePushRule::new(self.users[whom].clone(), vec![])), None),
            Wished::Loud => {
                let actions = if still { loudly() } else { vec![Action::Notify] };
                let set = rules.set_actions(&user, &RuleKind::Underride, ".m.rule.message", actions).await;
                allowed(set)?;
                return self.wished(who, what, None, still);
            }
            Wished::Turned(n) => {
                let kind = if RULES[n] == ".m.rule.message" { RuleKind::Underride } else { RuleKind::Override };
                let enabled = still == (RULES[n] == ".m.rule.master");
                allowed(rules.set_enabled(&user, &kind, RULES[n], enabled).await)?;
                return self.wished(who, what, None, still);
            }
        };
        let done = match still {
            true => rules.put(&user, rule, None, None).await,
            false => rules.remove(&user, &rule.kind(), rule.rule_id()).await,
        };
        match allowed(done)? {
            Some(()) => self.wished(who, what, about, still),
            None => Ok(()),
        }
    }

    fn wished(&mut self, who: usize, what: Wished, about: Option<usize>, still: bool) -> Outcome<()> {
        let time = self.world.tick();
        let all = self.world.wishes.entry(self.users[who].clone()).or_default();
        let mut now = all.last().map(|(_, wishes)| wishes.clone()).unwrap_or_default();
        match still {
            true => now.insert((what, about)),
            false => now.remove(&(what, about)),
        };
        all.push((time, now));
        Ok(())
    }
}
