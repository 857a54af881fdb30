//! The patterns of push rules, made ready once and looked for in many events. However a pattern and a text are chosen, it
//! takes a few steps for each character of the text: what somebody writes meets the patterns of everybody in the room.
//!
//! <https://spec.matrix.org/v1.19/appendices/#glob-style-matching>

use std::collections::HashMap;

/// The most characters of a pattern in which `*` and `?` stand for others, without the `*`. No longer one matches.
pub const MAX_GLOB: usize = 127;

/// A pattern, for texts in lower case.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    pattern: String,
    /// If it is more than a text.
    steps: Option<Steps>,
}

/// The pattern as a machine: it has come to step `i` if what it has read fits the first `i` characters of the pattern. It
/// may stand at many steps at once, a bit each.
#[derive(Clone, Debug)]
struct Steps {
    /// From which steps a character leads to the next one.
    by: HashMap<char, u128>,
    /// From which any other does.
    by_any: u128,
    /// Where it stays, whatever comes.
    stars: u128,
    last: u128,
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        let pattern = pattern.to_lowercase();
        let steps = is_glob(&pattern).then(|| Steps::new(&pattern));
        Self { pattern, steps }
    }

    pub(super) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// About what it takes besides itself.
    pub(super) fn bytes(&self) -> usize {
        self.pattern.len() + self.steps.as_ref().map_or(0, |steps| steps.by.len() * 48)
    }

    /// Whether all of the text fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        match &self.steps {
            None => text == self.pattern,
            Some(steps) => steps.lead_through(text),
        }
    }

    /// Whether something in the text fits that begins and ends with a word.
    pub(super) fn is_in(&self, text: &str) -> bool {
        match &self.steps {
            None => is_said_in(&self.pattern, text),
            Some(steps) => steps.lead_to_something_in(text),
        }
    }
}

/// Whether a pattern is more than a text.
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

impl Steps {
    fn new(pattern: &str) -> Self {
        let (mut by, mut by_any, mut stars, mut last) = (HashMap::new(), 0, 0, 1_u128);
        for c in pattern.chars() {
            match c {
                '*' => stars |= last,
                _ if last == 1 << MAX_GLOB => return Self { by: HashMap::new(), by_any: 0, stars: 0, last: 0 },
                _ => {
                    match c {
                        '?' => by_any |= last,
                        c => *by.entry(c).or_default() |= last,
                    }
                    last <<= 1;
                }
            }
        }
        by.values_mut().for_each(|steps| *steps |= by_any);
        Self { by, by_any, stars, last }
    }

    fn after(&self, at: u128, c: char) -> u128 {
        (at & self.stars) | (at & self.by.get(&c).copied().unwrap_or(self.by_any)) << 1
    }

    fn lead_through(&self, text: &str) -> bool {
        text.chars().fold(1, |at, c| self.after(at, c)) & self.last != 0
    }

    fn lead_to_something_in(&self, text: &str) -> bool {
        let (mut at, mut before) = (0, None);
        let mut rest = text.chars();
        loop {
            let next = rest.next();
            if parts(before, next) {
                at |= 1;
                if at & self.last != 0 {
                    return true;
                }
            }
            let Some(c) = next else { return false };
            at = self.after(at, c);
            before = Some(c);
        }
    }
}

/// Whether a word may begin or end between these two.
fn parts(before: Option<char>, next: Option<char>) -> bool {
    !(before.is_some_and(is_word) && next.is_some_and(is_word))
}

/// The rules know no other letters: <https://spec.matrix.org/v1.19/client-server-api/#conditions-1>
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether these words are said in a text; both in lower case.
pub(super) fn is_said_in(words: &str, text: &str) -> bool {
    if words.is_empty() {
        return text.is_empty();
    }
    // Most texts don't have them at all.
    let Some(first) = text.find(words) else { return false };
    let mut before = text.get(..first).and_then(|before| before.chars().next_back());
    let mut rest = text.get(first..).unwrap_or_default();
    loop {
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { return false };
        if parts(before, Some(c))
            && let Some(after) = rest.strip_prefix(words)
            && parts(words.chars().next_back(), after.chars().next())
        {
            return true;
        }
        (before, rest) = (Some(c), chars.as_str());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_in(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).is_in(&text.to_lowercase())
    }

    #[test]
    fn words_are_found_as_the_specification_says() {
        for text in ["An example event.", "exple", "An exciting triple-whammy", "EXAMPLE"] {
            assert!(is_in("ex*ple", text), "{text}");
        }
        for (pattern, text, found) in [
            ("cake", "the cake is a lie", true),
            ("Cake", "CAKE!", true),
            ("cake", "cakes", false),
            ("cake", "pancake, cake", true),
            ("cake", "pancake", false),
            ("cake?", "cakes", true),
            ("cake?", "cake", false),
            ("cake*", "a cakewalk", true),
            ("*cake", "a pancake", true),
            ("c?ke", "coke", true),
            ("*", "", true),
            ("", "anything", false),
            ("is a", "this is a test", true),
            ("!x", "y!x", true),
            ("x!", "x!y", true),
            ("é", "née", true),
            ("a?b", "a\nb", true),
        ] {
            assert_eq!(is_in(pattern, text), found, "{pattern} in {text}");
        }
    }

    #[test]
    fn all_of_a_value_has_to_fit() {
        for (pattern, text, fits) in [
            ("lunc?*", "lunch plans", true),
            ("lunc?*", "lunch", true),
            ("lunc?*", " lunch", false),
            ("lunc?*", "lunc", false),
            ("m.room.message", "m.room.message", true),
            ("m.room", "m.room.message", false),
            ("", "", true),
            ("*:x", "@a:x", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} and {text}");
        }
    }

    #[test]
    fn a_pattern_may_be_so_long() {
        let text = "a".repeat(MAX_GLOB);
        assert!(Glob::new(&format!("*{}*", "a".repeat(MAX_GLOB))).matches(&text));
        assert!(Glob::new(&"?".repeat(MAX_GLOB)).is_in(&text));
        assert!(!Glob::new(&"?".repeat(MAX_GLOB + 1)).matches(&"a".repeat(MAX_GLOB + 1)));
        assert!(!Glob::new(&"*?".repeat(MAX_GLOB + 1)).is_in(&"a".repeat(MAX_GLOB + 1)));
    }

    /// Every way to lay the pattern over the text is tried.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some(('*', rest)), _) => (0..=text.len()).any(|n| fits(rest, &text[n..])),
            (Some(('?', pattern)), Some((_, text))) => fits(pattern, text),
            (Some((p, pattern)), Some((t, text))) => p == t && fits(pattern, text),
            (Some(_), None) => false,
        }
    }

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    proptest! {
        #[test]
        fn it_finds_what_trying_everything_finds(pattern in "[ab_ é*?!]{0,5}", text in "[aAb_ é!]{0,8}") {
            let (glob, lower) = (Glob::new(&pattern), text.to_lowercase());
            let (p, t) = (chars(&pattern), chars(&lower));
            prop_assert_eq!(glob.matches(&lower), fits(&p, &t));
            let at = |i: usize| t.get(i).copied();
            let border = |i: usize| parts(i.checked_sub(1).and_then(at), at(i));
            let somewhere = (0..=t.len()).filter(|i| border(*i)).any(|from| {
                (from..=t.len()).filter(|i| border(*i)).any(|to| fits(&p, &t[from..to]))
            });
            // That nothing is said somewhere in a text would be true of any.
            let somewhere = if pattern.is_empty() { text.is_empty() } else { somewhere };
            prop_assert_eq!(glob.is_in(&lower), somewhere);
        }
    }
}
