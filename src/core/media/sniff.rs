//! What a file is by its own first bytes, whatever was said of it.

/// So much of a file is enough to tell.
pub const HEAD: usize = 4 << 10;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed<'a> {
    /// A type that its bytes name.
    Known(&'a str),
    /// Markup that a browser might run: HTML, SVG or other XML.
    Markup,
    /// Nothing that is known; text, for all that can be seen.
    Text,
    /// Nothing that is known.
    Unknown,
}

impl<'a> Sniffed<'a> {
    /// As it is written down.
    pub fn name(self) -> &'a str {
        match self {
            Self::Known(name) => name,
            Self::Markup => "markup",
            Self::Text => "text",
            Self::Unknown => "unknown",
        }
    }

    /// What was written down.
    pub fn named(name: &'a str) -> Self {
        match name {
            "markup" => Self::Markup,
            "text" => Self::Text,
            "unknown" => Self::Unknown,
            known => Self::Known(known),
        }
    }
}

/// What a file is by its first [`HEAD`] bytes.
pub fn sniff(head: &[u8]) -> Sniffed<'static> {
    let head = &head[..head.len().min(HEAD)];
    // Before all else: what a browser could take for markup is markup, whatever else it is made to look like.
    if is_markup(head) {
        return Sniffed::Markup;
    }
    if let Some(found) = infer::get(head) {
        return match found.matcher_type() {
            infer::MatcherType::Text => Sniffed::Markup,
            _ => Sniffed::Known(usual_name(found.mime_type())),
        };
    }
    // https://mimesniff.spec.whatwg.org/#binary-data-byte
    let binary = |b: &u8| matches!(b, 0x00..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F);
    if head.iter().any(binary) { Sniffed::Unknown } else { Sniffed::Text }
}

/// The names that the allow-list knows, where a file has several.
fn usual_name(name: &'static str) -> &'static str {
    match name {
        "audio/m4a" | "audio/x-m4a" => "audio/mp4",
        "audio/x-wav" => "audio/wav",
        "audio/x-flac" => "audio/flac",
        "video/x-m4v" => "video/mp4",
        other => other,
    }
}

/// What begins like markup, after a byte order mark and white space.
///
/// <https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type>
fn is_markup(head: &[u8]) -> bool {
    // A file in UTF-16 has a zero beside each letter.
    let plain: Vec<u8> = match head {
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] => head[2..].iter().copied().filter(|b| *b != 0).collect(),
        [0xEF, 0xBB, 0xBF, rest @ ..] => rest.to_vec(),
        _ => head.to_vec(),
    };
    let start = plain.trim_ascii_start();
    let [b'<', next, ..] = start else { return false };
    next.is_ascii_alphabetic() || matches!(next, b'!' | b'?' | b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_they_are() {
        for (bytes, what) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], Sniffed::Known("image/png")),
            (b"\xFF\xD8\xFF\xE0\0\x10JFIF", Sniffed::Known("image/jpeg")),
            (b"GIF89a\x01\0\x01\0", Sniffed::Known("image/gif")),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Sniffed::Known("image/webp")),
            (b"%PDF-1.7\n", Sniffed::Known("application/pdf")),
            (b"<html>", Sniffed::Markup),
            (b"\xEF\xBB\xBF \n<!DOCTYPE html>", Sniffed::Markup),
            (b"\xFF\xFE<\0s\0v\0g\0", Sniffed::Markup),
            (b"<?xml version='1.0'?>", Sniffed::Markup),
            (b"<!-- hi -->", Sniffed::Markup),
            (b"hello", Sniffed::Text),
            (b"1 < 2", Sniffed::Text),
            (b"", Sniffed::Text),
            (b"\0\x01\x02", Sniffed::Unknown),
        ] {
            assert_eq!(sniff(bytes), what, "{bytes:?}");
            assert_eq!(Sniffed::named(what.name()), what);
        }
    }
}
