//! One walk through a page, from its beginning: what in it may be worth telling, as it stands there.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use lol_html::{
    HtmlRewriter, MemorySettings, Settings, doc_text, element,
    html_content::{Element, EndTag, TextType},
};

use super::entities::decoded;

/// What the walk may keep in mind, which is mostly how deep it is. A page that nests deeper is read up to there.
const MEMORY: usize = 1 << 20;
/// Of the words that a page has about itself, so many are looked at, of this size each.
const MOST_TAGS: usize = 100;
const LONGEST_KEY: usize = 50;
const LONGEST_VALUE: usize = 8 << 10;
/// Of a page's own text.
const LONGEST_TEXT: usize = 8 << 10;
/// A picture that is no larger is there to be counted, not to be seen.
const TINY: u64 = 10;

/// What is not about what the page is about, or no text to be read.
const ASIDE: [&str; 18] = [
    "aside", "audio", "button", "canvas", "dialog", "footer", "header", "iframe", "math", "nav", "noscript", "object",
    "picture", "select", "svg", "template", "textarea", "video",
];
/// What begins a line of its own.
const BLOCKS: [&str; 27] = [
    "article",
    "blockquote",
    "br",
    "dd",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "td",
    "tr",
    "ul",
];

/// As it stands in the page, but for its entities.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What relative addresses are relative to.
    pub(super) base: Option<String>,
    pub(super) oembed: Option<String>,
    /// `og:title` and its like, in the order in which they stand.
    pub(super) tags: Vec<(String, String)>,
    pub(super) title: String,
    pub(super) description: Option<String>,
    pub(super) picture: Option<String>,
    pub(super) text: String,
    first_image: Option<String>,
    largest_image: Option<(u64, String)>,
}

impl Found {
    /// The one that is probably meant to be looked at.
    pub(super) fn image(&self) -> Option<&str> {
        self.largest_image.as_ref().map(|(_, src)| src).or(self.first_image.as_ref()).map(String::as_str)
    }
}

#[derive(Default)]
struct Walk {
    found: Found,
    in_title: bool,
}

/// Looks through a page, or a piece of one.
pub(super) fn read(html: &str) -> Found {
    let walk = RefCell::<Walk>::default();
    let is_aside = Rc::<Cell<bool>>::default();
    let settings = Settings::new()
        .with_memory_settings(MemorySettings::new().with_max_allowed_memory_usage(MEMORY))
        .with_strict(false)
        .append_element_content_handler(element!("*", |element: &mut Element<'_, '_>| {
            let name = element.tag_name();
            walk.borrow_mut().begins(&name, element, is_aside.get());
            if ASIDE.contains(&name.as_str()) && !is_aside.get() {
                step_aside(element, &is_aside);
            }
            Ok(())
        }))
        .append_document_content_handler(doc_text!(|chunk| {
            walk.borrow_mut().says(chunk.as_str(), chunk.text_type(), is_aside.get());
            Ok(())
        }));
    let mut reader = HtmlRewriter::new(settings, |_: &[u8]| {});
    // What was found stays found, wherever the walk ended.
    if reader.write(html.as_bytes()).is_ok() {
        let _ = reader.end();
    } else {
        drop(reader);
    }
    let mut found = walk.into_inner().found;
    found.title = decoded(&found.title).into_owned();
    found.text = decoded(&found.text).into_owned();
    found
}

/// Until the element ends.
fn step_aside(element: &mut Element<'_, '_>, is_aside: &Rc<Cell<bool>>) {
    if let Some(ends) = element.end_tag_handlers() {
        is_aside.set(true);
        let is_aside = Rc::clone(is_aside);
        ends.push(Box::new(move |_: &mut EndTag<'_>| {
            is_aside.set(false);
            Ok(())
        }));
    }
}

impl Walk {
    fn begins(&mut self, name: &str, element: &Element<'_, '_>, is_aside: bool) {
        self.in_title = name == "title" && self.found.title.is_empty();
        match name {
            "meta" => self.meta(element),
            "link" => self.link(element),
            "base" => keep(&mut self.found.base, || attribute(element, "href")),
            "img" if !is_aside => self.image(element),
            block if BLOCKS.contains(&block) => end_line(&mut self.found.text),
            _ => {}
        }
    }

    fn says(&mut self, text: &str, kind: TextType, is_aside: bool) {
        match kind {
            TextType::RCData if self.in_title => push(&mut self.found.title, text),
            TextType::Data if !is_aside => push(&mut self.found.text, text),
            _ => {}
        }
    }

    fn meta(&mut self, element: &Element<'_, '_>) {
        let Some(content) = attribute(element, "content") else { return };
        let names = ["property", "name", "itemprop"].into_iter().filter_map(|name| element.get_attribute(name));
        for names in names {
            // Some say one thing by several names.
            for name in names.split_ascii_whitespace().take(4).map(str::to_ascii_lowercase) {
                match name.as_str() {
                    "description" => keep(&mut self.found.description, || Some(content.clone())),
                    "image" => keep(&mut self.found.picture, || Some(content.clone())),
                    _ if self.found.tags.len() < MOST_TAGS && is_tag(&name) => {
                        self.found.tags.push((name, content.clone()));
                    }
                    _ => {}
                }
            }
        }
    }

    fn link(&mut self, element: &Element<'_, '_>) {
        let has = |name: &str, wanted: &[&str]| {
            let said = element.get_attribute(name).unwrap_or_default().to_ascii_lowercase();
            said.split_ascii_whitespace().any(|word| wanted.contains(&word))
        };
        if has("type", &["application/json+oembed"]) && has("rel", &["alternate", "alternative"]) {
            keep(&mut self.found.oembed, || attribute(element, "href"));
        }
    }

    fn image(&mut self, element: &Element<'_, '_>) {
        let size = |name| element.get_attribute(name)?.trim().trim_end_matches("px").parse::<u32>().ok().map(u64::from);
        let (width, height) = (size("width"), size("height"));
        if [width, height].into_iter().flatten().any(|size| size <= TINY) {
            return;
        }
        let Some(src) = attribute(element, "src").filter(|src| !src.starts_with("data:")) else { return };
        if let (Some(width), Some(height)) = (width, height)
            && self.found.largest_image.as_ref().is_none_or(|(area, _)| width * height > *area)
        {
            self.found.largest_image = Some((width * height, src.clone()));
        }
        keep(&mut self.found.first_image, || Some(src));
    }
}

fn is_tag(name: &str) -> bool {
    let decent = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b":_-".contains(&b);
    let known = ["og:", "article:", "profile:", "twitter:"].iter().any(|family| name.starts_with(family));
    known && name.len() <= LONGEST_KEY && name.bytes().all(decent)
}

/// The first that was there.
fn keep(place: &mut Option<String>, value: impl FnOnce() -> Option<String>) {
    if place.is_none() {
        *place = value();
    }
}

/// What an attribute says, if it says anything.
fn attribute(element: &Element<'_, '_>, name: &str) -> Option<String> {
    let value = element.get_attribute(name)?;
    let value = decoded(&value[..value.floor_char_boundary(LONGEST_VALUE)]);
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// Adds to a text what there is room for. A space stands for all whitespace, so that a line break is one of ours.
fn push(text: &mut String, more: &str) {
    for c in more.chars() {
        if text.len() >= LONGEST_TEXT {
            return;
        }
        if !c.is_whitespace() {
            text.push(c);
        } else if !text.is_empty() && !text.ends_with([' ', '\n']) {
            text.push(' ');
        }
    }
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') && text.len() < LONGEST_TEXT {
        text.push('\n');
    }
}
