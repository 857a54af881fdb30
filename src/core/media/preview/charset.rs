//! In which letters a page is written.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use lol_html::{HtmlRewriter, MemorySettings, Settings, element, html_content::Element};

/// A page says it here or not at all. Browsers look at the first 1,024 bytes, and their authors at more.
const LOOKED_AT: usize = 4_096;

/// The text of a page: by its byte order mark, else by what its server says, else by what it says itself. If nobody says
/// anything, it is UTF-8 where it can be, and else what the web was written in before.
///
/// <https://html.spec.whatwg.org/multipage/parsing.html#determining-the-character-encoding>
pub(super) fn text(bytes: &[u8], said: Option<&str>) -> String {
    let (encoding, mark) = match Encoding::for_bom(bytes) {
        Some(marked) => marked,
        None => (of(bytes, said), 0),
    };
    encoding.decode_without_bom_handling(&bytes[mark..]).0.into_owned()
}

fn of(bytes: &[u8], said: Option<&str>) -> &'static Encoding {
    said.and_then(named).or_else(|| declared(&bytes[..bytes.len().min(LOOKED_AT)])).unwrap_or_else(|| {
        // A page that was cut may end within a character.
        let is_utf_8 = Encoding::utf8_valid_up_to(bytes) + 4 > bytes.len();
        if is_utf_8 { UTF_8 } else { WINDOWS_1252 }
    })
}

fn named(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label.trim().as_bytes())
}

/// What the page says itself. Whoever can read it does not read UTF-16.
fn declared(head: &[u8]) -> Option<&'static Encoding> {
    let mut found = None;
    let meta = |element: &mut Element<'_, '_>| {
        let said = element.get_attribute("charset").or_else(|| equivalent(element));
        match said.as_deref().and_then(named) {
            Some(encoding) => {
                found = Some(encoding);
                Err("that is enough".into())
            }
            None => Ok(()),
        }
    };
    let settings = Settings::new()
        .with_memory_settings(MemorySettings::new().with_max_allowed_memory_usage(64 << 10))
        .with_strict(false)
        .append_element_content_handler(element!("meta", meta));
    let mut reader = HtmlRewriter::new(settings, |_: &[u8]| {});
    // What is wrong with it is told when it is read.
    let _ = reader.write(head);
    drop(reader);
    found.map(|encoding| if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding })
}

/// `<meta http-equiv="Content-Type" content="text/html; charset=…">`
fn equivalent(element: &Element<'_, '_>) -> Option<String> {
    element.get_attribute("http-equiv").filter(|name| name.trim().eq_ignore_ascii_case("content-type"))?;
    let content = element.get_attribute("content")?.to_ascii_lowercase();
    let (_, label) = content.split_once("charset")?;
    let label = label.trim_start().strip_prefix('=')?.trim_start().trim_start_matches(['"', '\'']);
    label.split(|c: char| c.is_whitespace() || matches!(c, ';' | '"' | '\'')).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "日本" in Shift_JIS.
    const JAPAN: &[u8] = b"\x93\xfa\x96\x7b";

    fn with(head: &str) -> Vec<u8> {
        [head.as_bytes(), JAPAN].concat()
    }

    #[test]
    fn who_says_it_first_is_believed() {
        assert!(text(JAPAN, Some("Shift_JIS")).ends_with("日本"));
        assert!(text(JAPAN, Some(" sjis ")).ends_with("日本"));
        for head in [
            "<meta charset=shift_jis>",
            "<!-- <meta charset=utf-8> --><META CHARSET='Shift-JIS'>",
            "<meta http-equiv='content-type' content='text/html; charset=\"x-sjis\"'>",
            "<meta charset=nonsense><meta charset=shift_jis><meta charset=utf-8>",
        ] {
            assert!(text(&with(head), None).ends_with("日本"), "{head}");
            assert!(text(&with(head), Some("nonsense")).ends_with("日本"), "{head}");
            assert!(!text(&with(head), Some("utf-8")).ends_with("日本"), "{head}: the server said something else");
        }
        let marked = [b"\xef\xbb\xbf".as_slice(), "<meta charset=shift_jis>日本".as_bytes()].concat();
        assert_eq!(text(&marked, Some("shift_jis")), "<meta charset=shift_jis>日本");
        assert_eq!(text(b"\xff\xfea\0b\0", Some("utf-8")), "ab");
    }

    #[test]
    fn if_nobody_says_it_it_is_what_it_can_be() {
        assert_eq!(text("naïve – 日本".as_bytes(), None), "naïve – 日本");
        assert_eq!(text(b"na\xefve \x96 caf\xe9 ole", None), "naïve – café ole");
        let cut = "日本".as_bytes();
        assert_eq!(text(&cut[..5], None), "日\u{fffd}");
        assert_eq!(text("<meta charset=utf-16>ä".as_bytes(), None), "<meta charset=utf-16>ä");
        let far = format!("{}<meta charset=shift_jis>", " ".repeat(LOOKED_AT));
        assert!(!text(&with(&far), None).ends_with("日本"));
    }
}
