//! Push rules ready to be asked: compiled once for what is stored of them, however many rooms and notifications ask.

use std::sync::Arc;

use hearth_core::{Result, push::Rules};
use moka::sync::Cache;
use ruma::{OwnedUserId, UserId};

use crate::service::push_rules::parsed;

/// Bytes kept in memory.
const BYTES: u64 = 16 << 20;

pub(super) struct Compiled(Cache<OwnedUserId, Arc<Kept>>);

struct Kept {
    /// Of which the rules are made; empty for who never changed one.
    stored: String,
    rules: Arc<Rules>,
}

impl Default for Compiled {
    fn default() -> Self {
        let weight = |user: &OwnedUserId, kept: &Arc<Kept>| {
            let bytes = user.as_str().len() + kept.stored.len() + kept.rules.bytes() + 160;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(BYTES).weigher(weight).build())
    }
}

impl Compiled {
    pub(super) fn get(&self, user: &UserId, stored: &str) -> Result<Arc<Rules>> {
        if let Some(kept) = self.0.get(user)
            && kept.stored == stored
        {
            return Ok(Arc::clone(&kept.rules));
        }
        let rules = parsed(user, Some(stored).filter(|stored| !stored.is_empty()))?;
        let rules = Arc::new(Rules::of(user, &rules));
        let kept = Kept { stored: stored.to_owned(), rules: Arc::clone(&rules) };
        self.0.insert(user.to_owned(), Arc::new(kept));
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn rules_are_compiled_once_for_what_is_stored() {
        let (compiled, alice) = (Compiled::default(), user_id!("@alice:x"));
        let before = compiled.get(alice, "").expect("rules");
        assert!(Arc::ptr_eq(&before, &compiled.get(alice, "").expect("rules")));
        let changed = r#"{"global":{"room":[{"rule_id":"!a:x","default":false,"enabled":true,"actions":[]}]}}"#;
        let after = compiled.get(alice, changed).expect("rules");
        assert!(after.bytes() > before.bytes());
        assert!(Arc::ptr_eq(&after, &compiled.get(alice, changed).expect("rules")));
        assert!(compiled.get(alice, "no rules").is_err());
    }
}
