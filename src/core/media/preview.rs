//! What a page says of itself, for whoever is shown a link to it: its title, some words, a picture.
//!
//! A page is read once, from its beginning and without a tree of it, so that neither its depth nor its size can hurt; and
//! whatever is taken from it is short. What it says in the words of OpenGraph comes first, then what its oEmbed says, then
//! what can be guessed.
//!
//! <https://ogp.me/>, <https://oembed.com/>

mod charset;
mod entities;
mod oembed;
mod read;
mod said;
#[cfg(test)]
mod tests;
mod text;

use serde_json::{Map, Value};
use url::Url;

pub use self::{
    oembed::{Embed, oembed},
    text::file_name,
};
use self::{
    read::Found,
    said::{Said, resolved},
};

/// Of a title and of other short words, in characters.
pub const LONGEST_TITLE: usize = 300;
pub const LONGEST_DESCRIPTION: usize = 1_000;
/// Of a URL, in bytes.
pub const LONGEST_URL: usize = 2_048;
/// What is made of the text of a page that has no description, in characters.
const LONGEST_EXCERPT: usize = 400;

/// What a page says of itself.
#[derive(Debug)]
pub struct Page {
    said: Said,
    oembed: Option<Url>,
    guessed: Guessed,
}

/// What else it could be called, if it says nothing of it.
#[derive(Debug, Default)]
struct Guessed {
    title: Option<String>,
    description: Option<String>,
    picture: Option<Url>,
}

/// What clients are told, but for the picture, which somebody has to fetch first.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    /// In the words of OpenGraph.
    pub said: Map<String, Value>,
    pub picture: Option<Picture>,
}

/// Where a picture is, and what it shows in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    pub url: Url,
    pub alt: Option<String>,
}

/// Reads a page that was found at `url`; `charset` is what its server says. May be the beginning of one.
pub fn page(bytes: &[u8], charset: Option<&str>, url: &Url) -> Page {
    let found = read::read(&charset::text(bytes, charset));
    let base = found.base.as_deref().and_then(|base| resolved(url, base));
    let base = base.as_ref().unwrap_or(url);
    Page {
        said: Said::of(&found.tags, base),
        oembed: found.oembed.as_deref().and_then(|href| resolved(base, href)),
        guessed: Guessed::of(&found, base),
    }
}

impl Guessed {
    fn of(found: &Found, base: &Url) -> Self {
        let picture = found.picture.as_deref().or(found.image()).and_then(|src| resolved(base, src));
        let described = found.description.as_deref().and_then(|words| text::line(words, LONGEST_DESCRIPTION));
        Self {
            title: text::line(&found.title, LONGEST_TITLE),
            description: described.or_else(|| text::lines(&found.text, LONGEST_EXCERPT)),
            picture,
        }
    }
}

impl Page {
    /// Where it says that its oEmbed is.
    pub fn oembed(&self) -> Option<&Url> {
        self.oembed.as_ref()
    }

    /// All of it, with what its oEmbed says.
    pub fn told(self, embed: Option<Embed>) -> Told {
        let Self { mut said, guessed, .. } = self;
        let author = embed.as_ref().and_then(|embed| embed.author.clone());
        if let Some(embed) = embed {
            said.fill(embed.said);
        }
        said.fill(Said::guessed(guessed, author));
        said.told()
    }
}

/// The beginning of a text that is no page.
pub fn excerpt(bytes: &[u8], charset: Option<&str>) -> Option<String> {
    text::lines(&charset::text(bytes, charset), LONGEST_EXCERPT)
}
