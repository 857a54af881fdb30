//! Words of strangers, made fit to be shown: without what doesn't show or turns other words around, and not too long.

/// A cut is made between words if there is such a place among so many characters.
const WORD: usize = 40;

/// On one line, in at most so many characters. None: nothing is left.
pub(super) fn line(text: &str, most: usize) -> Option<String> {
    let mut out = String::new();
    let (mut length, mut gap) = (0, false);
    for c in text.chars() {
        if c.is_whitespace() {
            gap = true;
        } else if shows(c) {
            if gap && length > 0 {
                out.push(' ');
                length += 1;
            }
            if length >= most {
                return Some(cut(out, most));
            }
            out.push(c);
            (length, gap) = (length + 1, false);
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Lines of their own, with what is empty left out.
pub(super) fn lines(text: &str, most: usize) -> Option<String> {
    let mut out = String::new();
    let mut left = most;
    for line in text.lines() {
        let Some(line) = self::line(line, left) else { continue };
        let length = line.chars().count();
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&line);
        left = left.saturating_sub(length + 1);
        if left == 0 {
            break;
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Neither a control character, nor what only changes how others show.
fn shows(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    !c.is_control() && !turns && !matches!(c, '\u{ad}' | '\u{200b}' | '\u{feff}')
}

/// With a sign that something is missing, before the last word if that is not too far.
fn cut(mut text: String, most: usize) -> String {
    let end = text.char_indices().nth(most.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    if let Some(at) = text.rfind(' ')
        && text[at..].chars().count() <= WORD
    {
        text.truncate(at);
    }
    text.truncate(text.trim_end().len());
    text.push('…');
    text
}

/// What the file at the end of a path is called.
pub fn file_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or_default().as_bytes();
    let mut bytes = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        let coded = name.get(at + 1..at + 3).filter(|hex| byte == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let coded = coded.and_then(|hex| std::str::from_utf8(hex).ok());
        match coded.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                at += 3;
            }
            None => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    line(&String::from_utf8_lossy(&bytes), super::LONGEST_TITLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_and_shows() {
        assert_eq!(line(" a \n\t b\u{a0}c\u{0}\u{202e}d ", 99).as_deref(), Some("a b cd"));
        assert_eq!(line(" \u{200b}\n ", 99), None);
        assert_eq!(line("👩‍👩‍👧", 99).as_deref(), Some("👩‍👩‍👧"), "what joins signs stays");
    }

    #[test]
    fn a_line_ends_between_words() {
        assert_eq!(line("one two three", 13).as_deref(), Some("one two three"));
        assert_eq!(line("one two three", 12).as_deref(), Some("one two…"));
        assert_eq!(line("one two three   ", 13).as_deref(), Some("one two three"));
        let long = "x".repeat(100);
        assert_eq!(line(&format!("a {long}"), 60).expect("a line").chars().count(), 60);
        assert_eq!(line("日本日本", 3).as_deref(), Some("日本…"));
    }

    #[test]
    fn lines_stay_apart() {
        assert_eq!(lines("a\n\n  b  c \n", 99).as_deref(), Some("a\nb c"));
        assert_eq!(lines("aaa\nbbb\nccc", 7).as_deref(), Some("aaa\nbbb"));
        assert_eq!(lines("aaa\nbbb ccc", 8).as_deref(), Some("aaa\nbbb…"));
        assert_eq!(lines("\n \n", 9), None);
    }

    #[test]
    fn a_file_has_a_name() {
        for (path, name) in [
            ("/a/b%20c.pdf", Some("b c.pdf")),
            ("/a%2fb", Some("a/b")),
            ("/%e6%97%a5%zz%4", Some("日%zz%4")),
            ("/%ff", Some("\u{fffd}")),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(file_name(path).as_deref(), name, "{path}");
        }
    }
}
