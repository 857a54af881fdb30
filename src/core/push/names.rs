//! Whom a text calls by name. Clients that say whom they mention need none of this; older ones leave it to the server to
//! find the names of members in what is written. So that a text is looked through once, not once for each member, names are
//! kept by the word that they begin with.

use std::collections::HashMap;

use ruma::{OwnedUserId, UserId};

use super::glob::{is_said_in, is_word};

/// A longer name is nobody's that anybody would call.
const MAX_BYTES: usize = 255;

/// The names of a room's members.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By the first word of the name; by its first character where there is no word in it.
    by_key: HashMap<String, Vec<Name>>,
    keys: HashMap<OwnedUserId, Vec<String>>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Name {
    /// In lower case.
    text: String,
    /// Where in it the key is.
    key_at: usize,
    user: OwnedUserId,
    by: CalledBy,
}

/// Which of their names somebody is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CalledBy {
    DisplayName,
    /// The part of their id that is theirs.
    Localpart,
}

impl Names {
    /// Somebody is a member, and has this name. What they were called before is forgotten.
    pub fn set(&mut self, user: &UserId, display_name: Option<&str>) {
        self.remove(user);
        self.add(user, user.localpart(), CalledBy::Localpart);
        if let Some(name) = display_name {
            self.add(user, name, CalledBy::DisplayName);
        }
    }

    pub fn remove(&mut self, user: &UserId) {
        for key in self.keys.remove(user).unwrap_or_default() {
            if let Some(names) = self.by_key.get_mut(&key) {
                self.bytes -= names.iter().filter(|name| name.user == user).map(cost).sum::<usize>();
                names.retain(|name| name.user != user);
                if names.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    fn add(&mut self, user: &UserId, name: &str, by: CalledBy) {
        let text = name.to_lowercase();
        if text.len() > MAX_BYTES {
            return;
        }
        let Some((key_at, key)) = words(&text).next().or_else(|| signs(&text).next()) else { return };
        let key = key.to_owned();
        let name = Name { text, key_at, user: user.to_owned(), by };
        self.bytes += cost(&name);
        self.keys.entry(user.to_owned()).or_default().push(key.clone());
        self.by_key.entry(key).or_default().push(name);
    }

    /// Who is called, and how: by their display name, if by both.
    pub fn called_in(&self, text: &str) -> Vec<(OwnedUserId, CalledBy)> {
        let text = text.to_lowercase();
        let mut called: Vec<(OwnedUserId, CalledBy)> = Vec::new();
        for (at, key) in words(&text).chain(signs(&text)) {
            for name in self.by_key.get(key).into_iter().flatten() {
                // Where it begins there is no word that goes on, or its first word would be no word of the text.
                let after = at.checked_sub(name.key_at).and_then(|from| text.get(from..)?.strip_prefix(&*name.text));
                if after.is_some_and(|after| !(ends_with_word(&name.text) && after.starts_with(is_word))) {
                    called.push((name.user.clone(), name.by));
                }
            }
        }
        called.sort_unstable();
        called.dedup_by(|b, a| a.0 == b.0);
        called
    }

    /// What a member is called, in lower case.
    pub fn display_name(&self, user: &UserId) -> Option<&str> {
        let names = self.keys.get(user)?.iter().filter_map(|key| self.by_key.get(key)).flatten();
        let mut shown = names.filter(|name| name.user == user && name.by == CalledBy::DisplayName);
        shown.next().map(|name| name.text.as_str())
    }

    /// What a cache pays for it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(name: &Name) -> usize {
    2 * name.text.len() + 2 * name.user.as_str().len() + 160
}

/// Whether a name is in a text, which is in lower case.
pub(super) fn is_called(name: &str, text: &str) -> bool {
    let name = name.to_lowercase();
    name.len() <= MAX_BYTES && !name.trim().is_empty() && is_said_in(&name, text)
}

fn ends_with_word(text: &str) -> bool {
    text.ends_with(is_word)
}

/// The words of a text, and where they are.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(is_word)?;
        let word = rest.get(start..)?;
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let at = text.len() - after.len() - word.len();
        rest = after;
        Some((at, word))
    })
}

/// The characters that are in no word, and where they are.
fn signs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let signs = text.char_indices().filter(|(_, c)| !c.is_whitespace() && !is_word(*c));
    signs.filter_map(|(at, c)| Some((at, text.get(at..at + c.len_utf8())?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::user_id;

    use super::*;

    fn names(of: &[(&str, &str)]) -> Names {
        let mut names = Names::default();
        for (user, name) in of {
            names.set(<&UserId>::try_from(*user).expect("a user id"), Some(*name).filter(|name| !name.is_empty()));
        }
        names
    }

    fn called(names: &Names, text: &str) -> Vec<String> {
        names.called_in(text).iter().map(|(user, _)| user.localpart().to_owned()).collect()
    }

    #[test]
    fn names_are_found_as_words() {
        let names = names(&[("@bob:x", "Bob Builder"), ("@user-1-carol:x", ""), ("@d:x", "李"), ("@e:x", "*Eve*")]);
        for (text, who) in [
            ("hello bob!", vec!["bob"]),
            ("BOB", vec!["bob"]),
            ("Bob Builder, come", vec!["bob"]),
            ("bobby builder", vec![]),
            ("kebob", vec![]),
            ("thanks @user-1-carol:x", vec!["user-1-carol"]),
            ("user-1-caroline", vec![]),
            ("super-user-1-carol", vec!["user-1-carol"]),
            ("你好李先生", vec!["d"]),
            ("so *eve* and bob", vec!["bob", "e"]),
            ("so eve", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(called(&names, text), who, "{text}");
        }
        assert_eq!(names.called_in("bob builder")[0].1, CalledBy::DisplayName);
        assert_eq!(names.called_in("bob")[0].1, CalledBy::Localpart);
    }

    #[test]
    fn who_leaves_or_changes_a_name_is_called_by_it_no_more() {
        let mut names = names(&[("@bob:x", "Builder"), ("@carol:x", "Builder")]);
        assert_eq!(called(&names, "builder"), ["bob", "carol"]);
        names.set(user_id!("@bob:x"), Some("Baker"));
        assert_eq!(called(&names, "builder"), ["carol"]);
        assert_eq!(called(&names, "baker bob"), ["bob"]);
        names.remove(user_id!("@bob:x"));
        names.remove(user_id!("@carol:x"));
        names.remove(user_id!("@nobody:x"));
        assert!(called(&names, "baker builder bob carol").is_empty());
        assert_eq!((names.bytes(), names.by_key.len(), names.keys.len()), (0, 0, 0));
    }

    proptest! {
        /// Looking a text through once finds what looking for each name finds.
        #[test]
        fn it_is_what_looking_for_each_name_finds(
            all in prop::collection::vec("[ab_1é *.]{1,4}", 1..6), text in "[aAbB_1é *.]{0,12}",
        ) {
            let mut names = Names::default();
            let mut expected = Vec::new();
            for (i, name) in all.iter().enumerate() {
                let user = OwnedUserId::try_from(format!("@none{i}:x")).expect("a user id");
                names.set(&user, Some(name));
                if !name.trim().is_empty() && is_there(&text.to_lowercase(), name) {
                    expected.push(user.localpart().to_owned());
                }
            }
            prop_assert_eq!(called(&names, &text), expected, "{:?} in {:?}", all, text);
        }
    }

    fn is_there(text: &str, name: &str) -> bool {
        text.char_indices().any(|(at, _)| {
            let (before, here) = text.split_at(at);
            let in_a_word = |after: &str| {
                ends_with_word(before) && name.starts_with(is_word)
                    || ends_with_word(name) && after.starts_with(is_word)
            };
            here.strip_prefix(name).is_some_and(|after| !in_a_word(after))
        })
    }
}
