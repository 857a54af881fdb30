//! One look at what is behind a link.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hearth_core::{
    Error,
    media::preview::{self, Picture, Told, file_name},
};
use http::{HeaderName, HeaderValue, header};
use serde_json::{Map, Value};
use tokio::time::Instant;
use url::Url;

use super::{KeepImage, KeptImage, lists::Lists};
use crate::{
    config::UrlPreview,
    http_client::{ContentType, Failure, HttpClient, Opened},
};

/// Of a picture, and of what a page says of itself elsewhere.
const LARGEST_PICTURE: usize = 5 << 20;
const LARGEST_OEMBED: usize = 256 << 10;
/// Of a text that is no page.
const TEXT: usize = 8 << 10;

/// Some pages show what they are only to those who say that they are no browser.
const AGENT: (HeaderName, HeaderValue) = (
    header::USER_AGENT,
    HeaderValue::from_static(concat!("Hearth/", env!("CARGO_PKG_VERSION"), " (bot; previews of links)")),
);

pub(super) struct Look {
    lists: Lists,
    http: HttpClient,
    pictures: Option<Arc<dyn KeepImage>>,
    time: Duration,
    largest_page: usize,
}

/// What was seen.
pub(super) struct Seen {
    pub(super) told: Map<String, Value>,
    /// Nothing is missing that should be there.
    pub(super) is_whole: bool,
}

impl Look {
    pub(super) fn new(
        config: &UrlPreview,
        lists: Lists,
        http: HttpClient,
        pictures: Option<Arc<dyn KeepImage>>,
    ) -> Self {
        let time = Duration::from_secs(config.url_preview_timeout_s);
        Self { lists, http, pictures, time, largest_page: config.url_preview_max_spider_size }
    }

    /// What is wrong with looking there, as far as it can be told without doing so.
    pub(super) fn check(&self, url: &Url) -> Result<(), Failure> {
        self.http.check(url)?;
        if self.lists.page(url) { Ok(()) } else { Err(Failure::Unwanted) }
    }

    pub(super) async fn at(&self, url: &Url) -> Result<Seen, Failure> {
        let deadline = Instant::now() + self.time;
        let wants = "text/html, application/xhtml+xml, image/*;q=0.8, text/plain;q=0.5, */*;q=0.1";
        let opened = self.http.get(url, &headers(wants), self.time, |url| self.lists.page(url)).await?;
        if !opened.status.is_success() {
            return Err(Failure::Failed(format!("status {}", opened.status.as_u16())));
        }
        let name = file_name(opened.url.path());
        let of = opened.content_type.clone().map_or_else(String::new, |of| of.essence);
        match of.as_str() {
            "text/html" | "application/xhtml+xml" => self.at_page(opened, deadline).await,
            "text/plain" => {
                let charset = charset(&opened);
                let excerpt = preview::excerpt(&opened.beginning(TEXT).await?, charset.as_deref());
                Ok(Seen { told: words(name, excerpt), is_whole: true })
            }
            picture if is_picture(picture) => {
                let kept = self.keep(opened).await;
                let mut told = words(name, None);
                let is_whole = kept.is_some() || self.pictures.is_none();
                if let Some(kept) = kept {
                    show(&mut told, kept, None);
                }
                Ok(Seen { told, is_whole })
            }
            // Of audio, video and whatever else there is, nothing is read: it may have no end.
            _ => Ok(Seen { told: words(name, None), is_whole: true }),
        }
    }

    async fn at_page(&self, opened: Opened, deadline: Instant) -> Result<Seen, Failure> {
        let (url, charset) = (opened.url.clone(), charset(&opened));
        let bytes = opened.beginning(self.largest_page).await?;
        let read = move || preview::page(&bytes, charset.as_deref(), &url);
        let page = tokio::task::spawn_blocking(read).await.map_err(|e| Failure::Failed(e.to_string()))?;
        let embed = match page.oembed() {
            None => None,
            Some(url) => self.oembed(url, deadline).await,
        };
        let Told { said: mut told, picture } = page.told(embed);
        let mut is_whole = true;
        if let Some(Picture { url, alt }) = picture
            && self.pictures.is_some()
        {
            let kept = self.picture(&url, deadline).await;
            is_whole = kept.is_some();
            if let Some(kept) = kept {
                show(&mut told, kept, alt);
            }
        }
        Ok(Seen { told, is_whole })
    }

    /// What belongs to a page, wherever it is, unless the operator denies it. There is time for it until `deadline`.
    async fn beside(&self, url: &Url, wants: &'static str, deadline: Instant) -> Option<Opened> {
        let left = deadline.saturating_duration_since(Instant::now());
        let opened = self.http.get(url, &headers(wants), left, |url| self.lists.anything(url)).await.ok()?;
        opened.status.is_success().then_some(opened)
    }

    async fn oembed(&self, url: &Url, deadline: Instant) -> Option<preview::Embed> {
        let opened = self.beside(url, "application/json", deadline).await?;
        let of = opened.content_type.as_ref().map_or("", |of| of.essence.as_str());
        if !matches!(of, "application/json" | "application/json+oembed" | "text/json") {
            return None;
        }
        let url = opened.url.clone();
        preview::oembed(&opened.whole(LARGEST_OEMBED).await.ok()?, &url)
    }

    async fn picture(&self, url: &Url, deadline: Instant) -> Option<KeptImage> {
        let opened = self.beside(url, "image/*", deadline).await?;
        let of = opened.content_type.as_ref()?;
        if !is_picture(&of.essence) {
            return None;
        }
        self.keep(opened).await
    }

    async fn keep(&self, opened: Opened) -> Option<KeptImage> {
        let pictures = self.pictures.as_ref()?;
        let of = opened.content_type.clone()?;
        let name = file_name(opened.url.path());
        let bytes: Bytes = opened.whole(LARGEST_PICTURE).await.ok()?;
        match pictures.keep(bytes, &of.essence, name.as_deref()).await {
            Ok(kept) => Some(kept),
            Err(Error::Matrix { .. } | Error::Uia(_)) => None,
            Err(Error::Internal(e)) => {
                tracing::warn!(error = e, "the picture of a preview is not kept");
                None
            }
        }
    }
}

fn headers(wants: &'static str) -> [(HeaderName, HeaderValue); 2] {
    [(header::ACCEPT, HeaderValue::from_static(wants)), AGENT]
}

fn charset(opened: &Opened) -> Option<String> {
    opened.content_type.as_ref().and_then(|ContentType { charset, .. }| charset.clone())
}

/// What browsers show as a picture, and what runs no script.
fn is_picture(essence: &str) -> bool {
    matches!(essence, "image/png" | "image/jpeg" | "image/gif" | "image/webp" | "image/avif" | "image/apng")
}

fn words(title: Option<String>, description: Option<String>) -> Map<String, Value> {
    let words = [("og:title", title), ("og:description", description)];
    words.into_iter().filter_map(|(key, word)| Some((key.to_owned(), word?.into()))).collect()
}

/// <https://spec.matrix.org/v1.18/client-server-api/#get_matrixclientv1mediapreview_url>
fn show(told: &mut Map<String, Value>, kept: KeptImage, alt: Option<String>) {
    let KeptImage { mxc, width, height, bytes, content_type } = kept;
    let all = [
        ("og:image", Some(mxc.as_str().into())),
        ("og:image:type", Some(content_type.into())),
        ("og:image:width", width.map(Value::from)),
        ("og:image:height", height.map(Value::from)),
        ("og:image:alt", alt.map(Value::from)),
        ("matrix:image:size", Some(bytes.into())),
    ];
    told.extend(all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
}
