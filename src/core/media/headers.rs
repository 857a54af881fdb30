//! What a browser is told about a file of somebody else's making, so that it shows pictures and runs nothing.

use std::fmt::Write as _;

use super::sniff::Sniffed;

/// What a file is called whose uploader said nothing.
pub const UNKNOWN_TYPE: &str = "application/octet-stream";
/// The longest type and the longest name that are kept.
const LONGEST_TYPE: usize = 255;
const LONGEST_NAME: usize = 255;

/// What runs no script even when it is opened by itself.
///
/// <https://spec.matrix.org/v1.18/client-server-api/#serving-inline-content>
const INLINE: [&str; 26] = [
    "application/json",
    "application/ld+json",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/wave",
    "audio/webm",
    "audio/x-flac",
    "audio/x-pn-wav",
    "audio/x-wav",
    "image/apng",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/css",
    "text/csv",
    "text/plain",
    "video/mp4",
    "video/ogg",
    "video/quicktime",
    "video/webm",
];

/// The type that an uploader gave a file, as it may stand in a header: a type, and what else was said if that is decent.
/// Nothing that reads as a type is told as one.
pub fn decent_type(said: Option<&str>) -> String {
    let said = said.map(str::trim).filter(|said| !said.is_empty() && said.len() <= LONGEST_TYPE);
    let decent = |said: &&str| is_type(essence(said)) && said.bytes().all(|b| (b' '..=b'~').contains(&b));
    said.filter(decent).map_or_else(|| UNKNOWN_TYPE.to_owned(), str::to_owned)
}

/// A type without its parameters.
fn essence(said: &str) -> &str {
    said.split(';').next().unwrap_or_default().trim()
}

fn is_type(essence: &str) -> bool {
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    essence.split_once('/').is_some_and(|(kind, name)| token(kind) && token(name))
}

/// What a browser is told that a file is: what its uploader said, unless a page could run it by naming it as its script.
///
/// <https://mimesniff.spec.whatwg.org/#javascript-mime-type>
pub fn told_type(said: &str) -> &str {
    let name = essence(said).to_ascii_lowercase();
    let name = name.split_once('/').map_or("", |(_, name)| name);
    let runs = |what: &str| name.strip_prefix("x-").unwrap_or(name).starts_with(what);
    if ["javascript", "ecmascript", "jscript", "livescript"].into_iter().any(runs) { UNKNOWN_TYPE } else { said }
}

/// Whether a browser may show the file in its own window: both what its uploader said that it is and what its bytes say
/// are harmless, and they don't contradict each other.
pub fn is_inline(said: &str, sniffed: Sniffed<'_>) -> bool {
    let said = essence(said).to_ascii_lowercase();
    let listed = |name: &str| INLINE.contains(&name);
    listed(&said)
        && match sniffed {
            Sniffed::Markup => false,
            Sniffed::Known(found) => listed(found) && family(found) == family(&said),
            // Text has no bytes of its own to be known by; neither have some films and songs.
            Sniffed::Text | Sniffed::Unknown => true,
        }
}

/// What may be in one container is of one family.
fn family(name: &str) -> &str {
    match name.split('/').next().unwrap_or_default() {
        "audio" | "video" => "av",
        "image" => "image",
        _ => "text",
    }
}

/// A file's name as somebody gave it, without what has no place in a name: paths, control characters, what turns the
/// direction of the text.
pub fn decent_name(said: &str) -> Option<String> {
    let last = said.rsplit(['/', '\\']).next().unwrap_or_default();
    let decent = |c: &char| {
        !c.is_control() && !matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let mut name: String = last.trim().chars().filter(decent).collect();
    while name.len() > LONGEST_NAME {
        name.pop();
    }
    (!name.is_empty() && name != "." && name != "..").then_some(name)
}

/// The value of `Content-Disposition`. A name that is not plain ASCII is also said in UTF-8.
///
/// <https://datatracker.ietf.org/doc/html/rfc6266#section-4.1>
pub fn disposition(inline: bool, name: Option<&str>) -> String {
    let mut value = if inline { "inline" } else { "attachment" }.to_owned();
    let Some(name) = name.and_then(decent_name) else { return value };
    let plain = |c: char| (' '..='~').contains(&c) && !matches!(c, '"' | '\\' | '%');
    if name.chars().all(plain) {
        // Some clients take quotes for part of the name; a token needs none.
        let token = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&b));
        let quote = if token { "" } else { "\"" };
        let _ = write!(value, "; filename={quote}{name}{quote}");
        return value;
    }
    value.push_str("; filename*=utf-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            value.push(char::from(byte));
        } else {
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuwunel_1_9_0_only_what_is_harmless_by_its_word_and_its_bytes_is_shown_in_the_browser() {
        let png = Sniffed::Known("image/png");
        for (said, sniffed) in [
            ("image/png", png),
            ("IMAGE/PNG", png),
            ("image/jpeg", png),
            ("text/plain; charset=utf-8", Sniffed::Text),
            ("audio/ogg", Sniffed::Known("video/webm")),
            ("video/mp4", Sniffed::Unknown),
        ] {
            assert!(is_inline(said, sniffed), "{said} {sniffed:?}");
        }
        for (said, sniffed) in [
            ("text/html", Sniffed::Text),
            ("Text/HTML", Sniffed::Text),
            ("image/svg+xml", Sniffed::Markup),
            ("image/SVG+xml", Sniffed::Unknown),
            ("image/png", Sniffed::Markup),
            ("text/plain", Sniffed::Markup),
            ("text/plain", Sniffed::Known("application/pdf")),
            ("image/png", Sniffed::Known("application/pdf")),
            ("image/png", Sniffed::Known("video/mp4")),
            ("application/pdf", Sniffed::Known("application/pdf")),
            ("image/png,text/html", png),
            ("", png),
        ] {
            assert!(!is_inline(said, sniffed), "{said} {sniffed:?}");
        }
    }

    #[test]
    fn nothing_is_told_to_be_a_script() {
        for script in [
            "text/javascript",
            "Application/JavaScript; charset=utf-8",
            "application/x-javascript",
            "text/javascript1.5",
            "application/ecmascript",
            "text/x-ecmascript",
            "text/jscript",
            "text/livescript",
        ] {
            assert_eq!(told_type(script), UNKNOWN_TYPE, "{script}");
        }
        for other in ["text/plain", "application/json", "text/x-script", "img/png", "application/wasm"] {
            assert_eq!(told_type(other), other);
        }
    }

    #[test]
    fn a_type_is_a_type() {
        assert_eq!(decent_type(Some("text/plain; charset=utf-8")), "text/plain; charset=utf-8");
        assert_eq!(decent_type(Some(" img/png ")), "img/png");
        for bad in [
            "",
            "png",
            "a/b/c",
            "a/ b",
            "a/b\r\nX: y",
            "text/plain\u{e9}",
            "/",
            "a b/c",
            &format!("a/{}", "b".repeat(300)),
        ] {
            assert_eq!(decent_type(Some(bad)), UNKNOWN_TYPE, "{bad:?}");
        }
        assert_eq!(decent_type(None), UNKNOWN_TYPE);
    }

    #[test]
    fn names_are_said_so_that_everybody_understands_them() {
        for (inline, name, value) in [
            (true, None, "inline"),
            (false, Some(""), "attachment"),
            (true, Some("cat.png"), "inline; filename=cat.png"),
            (false, Some("a cat.png"), "attachment; filename=\"a cat.png\""),
            (false, Some("a;b.png"), "attachment; filename=\"a;b.png\""),
            (false, Some("a\"b\\.png"), "attachment; filename=.png"),
            (false, Some("a\"b.png"), "attachment; filename*=utf-8''a%22b.png"),
            (true, Some("Käse \u{1f415}.png"), "inline; filename*=utf-8''K%C3%A4se%20%F0%9F%90%95.png"),
            (true, Some("../../etc/passwd"), "inline; filename=passwd"),
            (true, Some("a\r\nSet-Cookie: b"), "inline; filename=\"aSet-Cookie: b\""),
            (true, Some("gpj.\u{202E}exe"), "inline; filename=gpj.exe"),
        ] {
            assert_eq!(disposition(inline, name), value, "{name:?}");
        }
        assert!(decent_name(&"é".repeat(300)).is_some_and(|name| name.len() <= LONGEST_NAME));
        assert_eq!(decent_name(".."), None);
    }
}
