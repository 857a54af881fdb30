//! What is told of a page, in the words of OpenGraph: bounded in number and size, each of them what it should be.

use serde_json::{Map, Value};
use url::Url;

use super::{Guessed, LONGEST_DESCRIPTION, LONGEST_TITLE, LONGEST_URL, Picture, Told, text};

/// In all.
const MOST: usize = 50;
const LARGEST: usize = 16 << 10;
/// Nothing is as wide.
const WIDEST: u32 = 100_000;

/// What has been said first stays.
#[derive(Debug, Default)]
pub(super) struct Said {
    words: Map<String, Value>,
    bytes: usize,
    picture: Option<Url>,
    alt: Option<String>,
}

impl Said {
    /// From the tags of a page; those of Twitter say what those of OpenGraph don't.
    pub(super) fn of(tags: &[(String, String)], base: &Url) -> Self {
        let mut said = Self::default();
        let (twitter, own): (Vec<_>, Vec<_>) = tags.iter().partition(|(key, _)| key.starts_with("twitter:"));
        for (key, value) in own {
            said.say(key, value, base);
        }
        for (key, value) in twitter {
            if let Some(key) = in_open_graph(key) {
                said.say(key, value, base);
            }
        }
        said
    }

    pub(super) fn guessed(guessed: Guessed, author: Option<String>) -> Self {
        let mut said = Self { picture: guessed.picture, ..Self::default() };
        said.put("og:title", guessed.title.or(author).map(Value::from));
        said.put("og:description", guessed.description.map(Value::from));
        said
    }

    pub(super) fn say(&mut self, key: &str, value: &str, base: &Url) {
        let word = match key {
            "og:image" | "og:image:url" | "og:image:secure_url" => {
                self.picture = self.picture.take().or_else(|| resolved(base, value));
                return;
            }
            "og:image:alt" => {
                self.alt = self.alt.take().or_else(|| text::line(value, LONGEST_TITLE));
                return;
            }
            // The rest is told of the picture that was found there.
            _ if key.starts_with("og:image:") => return,
            "og:description" => text::lines(value, LONGEST_DESCRIPTION).map(Value::from),
            _ if key.ends_with(":width") || key.ends_with(":height") => number(value),
            _ if is_address(key) => resolved(base, value).map(|url| String::from(url).into()),
            _ => text::line(value, LONGEST_TITLE).map(Value::from),
        };
        self.put(key, word);
    }

    fn put(&mut self, key: &str, value: Option<Value>) {
        let Some(value) = value else { return };
        let bytes = key.len() + value.as_str().map_or(8, str::len);
        if self.words.len() < MOST && self.bytes + bytes <= LARGEST && !self.words.contains_key(key) {
            self.bytes += bytes;
            self.words.insert(key.to_owned(), value);
        }
    }

    /// What somebody else says where this one says nothing.
    pub(super) fn fill(&mut self, other: Self) {
        for (key, value) in other.words {
            self.put(&key, Some(value));
        }
        if self.picture.is_none() {
            (self.picture, self.alt) = (other.picture, other.alt.or(self.alt.take()));
        }
    }

    pub(super) fn told(self) -> Told {
        let alt = self.alt;
        Told { said: self.words, picture: self.picture.map(|url| Picture { url, alt }) }
    }
}

/// <https://developer.x.com/en/docs/x-for-websites/cards/overview/markup>
fn in_open_graph(key: &str) -> Option<&'static str> {
    Some(match key {
        "twitter:title" => "og:title",
        "twitter:description" => "og:description",
        "twitter:url" => "og:url",
        "twitter:site" => "og:site_name",
        "twitter:image" | "twitter:image:src" => "og:image",
        "twitter:image:alt" => "og:image:alt",
        _ => return None,
    })
}

fn is_address(key: &str) -> bool {
    matches!(key, "og:url" | "og:audio" | "og:video") || key.ends_with(":url") || key.ends_with(":secure_url")
}

pub(super) fn number(value: &str) -> Option<Value> {
    value.trim().trim_end_matches("px").parse::<u32>().ok().filter(|number| *number <= WIDEST).map(Value::from)
}

/// Where a reference in a page leads, if it leads to the web.
pub(super) fn resolved(base: &Url, reference: &str) -> Option<Url> {
    let url = base.join(reference.trim()).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.as_str().len() <= LONGEST_URL;
    (matches!(url.scheme(), "http" | "https") && is_plain).then_some(url)
}
