//! Whose push rules changed of late, as far as this process has heard. Nothing is wrong if it has not: what was worked out by
//! old rules is refused when it is to be stored.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hearth_core::Result;
use hearth_storage::{RuleChanges, Storage};
use ruma::OwnedUserId;

/// So many are remembered. Who has not looked for longer reads the rules anew.
const MOST: usize = 1_000;

#[derive(Default)]
pub(super) struct Changes(Mutex<Option<Heard>>);

/// All changes after `floor`, up to `top`.
#[derive(Default)]
struct Heard {
    floor: i64,
    top: i64,
    users: VecDeque<(OwnedUserId, i64)>,
}

impl Changes {
    /// Up to where is heard of all.
    pub(super) async fn top(&self, storage: &dyn Storage) -> Result<i64> {
        let known = self.heard().as_ref().map(|heard| heard.top);
        match known {
            Some(top) => Ok(top),
            None => self.look(storage).await,
        }
    }

    /// Asks for what is new.
    pub(super) async fn look(&self, storage: &dyn Storage) -> Result<i64> {
        let known = self.heard().as_ref().map(|heard| heard.top);
        let limit = i64::try_from(MOST).unwrap_or(i64::MAX);
        // Of the time before this process was, nothing has to be known.
        let news = storage.push_rules_after(known.unwrap_or(i64::MAX), limit).await?;
        let mut heard = self.heard();
        let heard = heard.get_or_insert_with(|| Heard { floor: news.last, top: news.last, users: VecDeque::new() });
        heard.add(news);
        Ok(heard.top)
    }

    /// Whose rules changed after this; `None` if that is too long ago to tell.
    pub(super) fn after(&self, pos: i64) -> Option<Vec<OwnedUserId>> {
        let heard = self.heard();
        let heard = heard.as_ref().filter(|heard| pos >= heard.floor)?;
        Some(heard.users.iter().rev().take_while(|(_, at)| *at > pos).map(|(user, _)| user.clone()).collect())
    }

    fn heard(&self) -> MutexGuard<'_, Option<Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn add(&mut self, news: RuleChanges) {
        if news.last <= self.top {
            return;
        }
        if news.too_many {
            *self = Self { floor: news.last, top: news.last, users: VecDeque::new() };
            return;
        }
        let top = self.top;
        let users = news.users.into_iter().filter(|(_, at)| *at > top);
        self.users.extend(users.filter_map(|(user, at)| Some((user.try_into().ok()?, at))));
        self.top = news.last;
        while self.users.len() > MOST
            && let Some((_, at)) = self.users.pop_front()
        {
            self.floor = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(last: i64, users: &[(&str, i64)], too_many: bool) -> RuleChanges {
        let users = users.iter().map(|(user, at)| ((*user).to_owned(), *at)).collect();
        RuleChanges { last, users, too_many }
    }

    #[test]
    fn what_is_heard_twice_is_told_once_and_what_is_too_long_ago_not_at_all() {
        let changes = Changes::default();
        *changes.heard() = Some(Heard { floor: 10, top: 10, users: VecDeque::new() });
        let hear = |news| changes.heard().as_mut().expect("it was set").add(news);
        let after =
            |pos| changes.after(pos).map(|users| users.iter().map(|u| u.localpart().to_owned()).collect::<Vec<_>>());
        hear(news(12, &[("@a:x", 11), ("@b:x", 12)], false));
        hear(news(13, &[("@b:x", 12), ("@a:x", 13)], false));
        assert_eq!(after(12), Some(vec!["a".to_owned()]));
        assert_eq!(after(10), Some(vec!["a".to_owned(), "b".to_owned(), "a".to_owned()]));
        assert_eq!(after(9), None);
        hear(news(12, &[("@c:x", 12)], false));
        assert_eq!(after(13), Some(vec![]), "that was before");
        hear(news(20, &[("@c:x", 14)], true));
        assert_eq!((after(13), after(20)), (None, Some(vec![])));
        let many: Vec<(String, i64)> = (21..).take(MOST + 5).map(|at| ("@d:x".to_owned(), at)).collect();
        let last = many.last().map_or(0, |(_, at)| *at);
        hear(RuleChanges { last, users: many, too_many: false });
        assert_eq!(after(20), None);
        assert_eq!(after(25).map(|users| users.len()), Some(MOST));
    }
}
