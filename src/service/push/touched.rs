//! The members of a room who changed their push rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_core::{
    Result,
    push::{DEFAULT_CLASS, Rules, Subject},
};
use hearth_storage::ChangedRules;
use ruma::{OwnedUserId, RoomId, UserId};

use super::Push;

/// Those of our users, with what is left of their rules in the room.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    members: BTreeMap<OwnedUserId, Member>,
    /// For each class of theirs, the rules of one who is of it.
    classes: BTreeMap<String, Arc<Rules>>,
    /// Whom an event may concern although it doesn't seem to.
    listening: BTreeSet<OwnedUserId>,
    asks_for_names: bool,
    /// Rules that ask about power where the untouched ones don't.
    asking_for_power: Vec<Arc<Rules>>,
    bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) class: String,
    pub(super) rules: Arc<Rules>,
}

impl Touched {
    /// The same with these rules changed, and without those members who are not there any more.
    pub fn with(
        &self,
        room: &RoomId,
        gone: &BTreeSet<OwnedUserId>,
        changed: Vec<ChangedRules>,
        push: &Push,
    ) -> Result<Self> {
        let mut members = self.members.clone();
        members.retain(|user, _| !gone.contains(user));
        for changed in changed {
            let Ok(user) = OwnedUserId::try_from(changed.user_id) else { continue };
            let rules = push.rules(&user, Some(&changed.content))?.within(Some(room));
            members.insert(user, Member { class: changed.class, rules: Arc::new(rules) });
        }
        let mut all = Self { bytes: size_of::<Self>(), ..Self::default() };
        for (user, member) in &members {
            let rules = &member.rules;
            if member.class != DEFAULT_CLASS {
                all.classes.entry(member.class.clone()).or_insert_with(|| Arc::clone(rules));
            }
            if rules.listens() {
                all.listening.insert(user.clone());
            }
            all.asks_for_names |= rules.asks_for_names();
            if rules.ask_for_more_power() {
                all.asking_for_power.push(Arc::clone(rules));
            }
            all.bytes += 2 * user.as_str().len() + member.class.len() + rules.bytes() + 160;
        }
        Ok(Self { members, ..all })
    }

    /// Whether it matters what members are called, although the sender of an event says whom they mention.
    pub fn asks_for_names(&self) -> bool {
        self.asks_for_names
    }

    /// Whether it may matter what the sender of this has the power to do.
    pub fn asks_for_power(&self, subject: &Subject) -> bool {
        Rules::untouched().asks_for_power(subject) || self.asking_for_power.iter().any(|r| r.asks_for_power(subject))
    }

    pub(super) fn get(&self, user: &UserId) -> Option<&Member> {
        self.members.get(user)
    }

    pub(super) fn classes(&self) -> impl Iterator<Item = (&str, &Rules)> {
        self.classes.iter().map(|(class, rules)| (class.as_str(), &**rules))
    }

    pub(super) fn listening(&self) -> impl Iterator<Item = &UserId> {
        self.listening.iter().map(AsRef::as_ref)
    }

    /// What a cache pays for it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
