//! What a page says of itself by way of oEmbed.
//!
//! <https://oembed.com/#section2.3>

use serde_json::{Map, Value};
use url::Url;

use super::{
    LONGEST_TITLE,
    entities::decoded,
    read,
    said::{Said, resolved},
    text,
};

/// Looked at of the HTML that would be put into a page of others.
const LONGEST_HTML: usize = 64 << 10;

/// What was said.
#[derive(Debug)]
pub struct Embed {
    pub(super) said: Said,
    /// Whoever made it, for what has no other title.
    pub(super) author: Option<String>,
}

/// Reads an answer in JSON that was found at `url`. None: it is none.
pub fn oembed(bytes: &[u8], url: &Url) -> Option<Embed> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let all: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let word = |key: &str| all.get(key).and_then(Value::as_str).filter(|word| !word.is_empty());
    let mut said = Said::default();
    for (key, known) in [("title", "og:title"), ("provider_name", "og:site_name")] {
        if let Some(word) = word(key) {
            // Some write it as if it were HTML.
            said.say(known, &decoded(word), url);
        }
    }
    let kind = word("type").unwrap_or_default();
    if kind == "photo"
        && let Some(photo) = word("url")
    {
        said.say("og:image", photo, url);
    }
    if let Some(thumbnail) = word("thumbnail_url") {
        said.say("og:image", thumbnail, url);
    }
    match kind {
        "video" => {
            said.say("og:type", "video.other", url);
            for (key, known) in [("width", "og:video:width"), ("height", "og:video:height")] {
                if let Some(number) = all.get(key).and_then(Value::as_u64) {
                    said.say(known, &number.to_string(), url);
                }
            }
        }
        "link" => said.say("og:type", "website", url),
        _ => {}
    }
    if matches!(kind, "rich" | "video")
        && let Some(html) = word("html")
    {
        embedded(&mut said, &html[..html.floor_char_boundary(LONGEST_HTML)], url);
    }
    let author = word("author_name").and_then(|name| text::line(&decoded(name), LONGEST_TITLE));
    Some(Embed { said, author })
}

/// What can be read of it without embedding it.
fn embedded(said: &mut Said, html: &str, url: &Url) {
    let found = read::read(html);
    said.say("og:description", &found.text, url);
    if let Some(image) = found.image().filter(|src| resolved(url, src).is_some()) {
        said.say("og:image", image, url);
    }
}
