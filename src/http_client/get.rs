//! Reading what is at a URL that somebody else chose, wherever it leads from there.
//!
//! Each place on the way is looked at like the first. Nothing goes along but what the asker said: no cookie, no referrer,
//! nothing about whoever wanted it. What is there is known before any of it is read, and left alone unless somebody wants
//! it; so a stream without an end is no trouble.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{AGENT, Failure, HttpClient, failure};

/// One more leads nowhere.
const MOST_REDIRECTS: usize = 5;

/// An answer of which the head is here.
#[derive(Debug)]
pub struct Opened {
    /// Where it was in the end.
    pub url: Url,
    pub status: StatusCode,
    /// None: it was not said, or is none.
    pub content_type: Option<ContentType>,
    body: Incoming,
    deadline: Instant,
}

/// What a body is said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType {
    /// In lower case, without parameters: `text/html`.
    pub essence: String,
    pub charset: Option<String>,
}

impl HttpClient {
    /// Asks for a URL and follows where it leads, a few times, to places that `may` lets pass; never from `https` to
    /// `http`. `time` goes from the first look at the name to the last byte of the answer.
    pub async fn get(
        &self,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
        time: Duration,
        may: impl Fn(&Url) -> bool + Send + Sync,
    ) -> Result<Opened, Failure> {
        let deadline = Instant::now() + time;
        let mut at = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            self.check(&at)?;
            if !may(&at) {
                return Err(Failure::Unwanted);
            }
            let answer = timeout_at(deadline, self.ask(&at, headers)).await.unwrap_or(Err(Failure::TooLate))?;
            match elsewhere(&at, answer.status(), answer.headers())? {
                Some(next) => at = next,
                None => return Opened::new(at, answer, deadline),
            }
        }
        Err(Failure::Astray("there are too many redirections"))
    }

    async fn ask(&self, url: &Url, headers: &[(HeaderName, HeaderValue)]) -> Result<Response<Incoming>, Failure> {
        let mut request =
            Request::get(url.as_str()).body(Full::default()).map_err(|e| Failure::Failed(e.to_string()))?;
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        request.headers_mut().extend(headers.iter().cloned());
        self.inner.request(request).await.map_err(|e| failure(&e))
    }
}

/// Where an answer says that it is instead.
pub(super) fn elsewhere(from: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(header::LOCATION) else { return Ok(None) };
    let location = std::str::from_utf8(location.as_bytes()).map_err(|_| Failure::Astray("a redirection is no URL"))?;
    let mut to = from.join(location).map_err(|_| Failure::Astray("a redirection is no URL"))?;
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(Failure::Astray("a redirection leads from https to elsewhere"));
    }
    to.set_fragment(None);
    Ok(Some(to))
}

impl Opened {
    fn new(url: Url, answer: Response<Incoming>, deadline: Instant) -> Result<Self, Failure> {
        let (head, body) = answer.into_parts();
        // Nobody asked for it, and nobody here unpacks what may be larger than it seems.
        if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(Failure::Failed("the answer is packed".to_owned()));
        }
        Ok(Self { url, status: head.status, content_type: ContentType::of(&head.headers), body, deadline })
    }

    /// All of it, which is at most so many bytes.
    pub async fn whole(self, most: usize) -> Result<Bytes, Failure> {
        if self.body.size_hint().lower() > most as u64 {
            return Err(Failure::TooLarge);
        }
        let read = Limited::new(self.body, most).collect();
        match timeout_at(self.deadline, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(e)) if e.is::<LengthLimitError>() => Err(Failure::TooLarge),
            Ok(Err(e)) => Err(failure(&*e)),
            Err(_) => Err(Failure::TooLate),
        }
    }

    /// So many bytes of it, or all if there are fewer.
    pub async fn beginning(mut self, most: usize) -> Result<Bytes, Failure> {
        let mut read = BytesMut::new();
        while read.len() < most {
            let frame = match timeout_at(self.deadline, self.body.frame()).await {
                Ok(None) => break,
                Ok(Some(frame)) => frame.map_err(|e| failure(&e))?,
                Err(_) => return Err(Failure::TooLate),
            };
            let Ok(data) = frame.into_data() else { continue };
            let left = most - read.len();
            read.extend_from_slice(&data[..data.len().min(left)]);
        }
        Ok(read.freeze())
    }
}

impl ContentType {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let said = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let mut parts = said.split(';').map(str::trim);
        let essence = parts.next().filter(|essence| essence.contains('/'))?.to_ascii_lowercase();
        let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| is_charset(name));
        let charset = charset.map(|(_, label)| label.trim().trim_matches(['"', '\'']).to_owned());
        Some(Self { essence, charset: charset.filter(|label| !label.is_empty()) })
    }
}

fn is_charset(name: &str) -> bool {
    name.trim().eq_ignore_ascii_case("charset")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_as_servers_write_it() {
        let of = |said: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(said))]);
            ContentType::of(&headers).map(|of| (of.essence, of.charset))
        };
        let is = |essence: &str, charset: Option<&str>| Some((essence.to_owned(), charset.map(str::to_owned)));
        assert_eq!(of("text/html"), is("text/html", None));
        assert_eq!(of("Text/HTML; Charset=\"UTF-8\""), is("text/html", Some("UTF-8")));
        assert_eq!(of("text/html;level=1; charset = sjis ;x"), is("text/html", Some("sjis")));
        assert_eq!(of("text/html; charset="), is("text/html", None));
        for none in ["", "html", ";charset=utf-8"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
