//! Pages that people see in a browser, which an operator may replace.
//!
//! No page takes anything from elsewhere, runs anything but what we wrote, or is shown within another; what people and
//! providers say is text in it and nothing else.

use std::{net::IpAddr, path::Path};

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hearth_core::{Error, Kind, Result};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use minijinja::{Environment, Value, context};
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

use super::{Api, extract::Call, respond};
use crate::service::sso::{COOKIE_SECONDS, Cookie, cookie_prefix};

/// The pages by the names of their files.
const PAGES: [(&str, &str); 9] = [
    ("layout.html", include_str!("pages/layout.html")),
    ("style.css", include_str!("pages/style.css")),
    ("done.js", include_str!("pages/done.js")),
    ("choose.html", include_str!("pages/choose.html")),
    ("name.html", include_str!("pages/name.html")),
    ("leave.html", include_str!("pages/leave.html")),
    ("confirm.html", include_str!("pages/confirm.html")),
    ("done.html", include_str!("pages/done.html")),
    ("stopped.html", include_str!("pages/stopped.html")),
];

/// Cookies of ours in one request that are looked at. A browser has one for each login that it is in the middle of.
const MOST_COOKIES: usize = 50;

/// A browser asks for a page.
pub(super) struct Visit {
    pub(super) ip: IpAddr,
    /// What the path has in the places of its names.
    pub(super) args: Vec<String>,
    query: Vec<(String, String)>,
    pub(super) cookies: Vec<Cookie>,
    body: Bytes,
    is_form: bool,
}

impl Visit {
    pub(super) fn from_call(call: Call) -> Self {
        let query = pairs(call.parts.uri.query().unwrap_or_default().as_bytes());
        let kind = call.parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let cookies = our_cookies(&call.parts.headers);
        Self { ip: call.ip, args: call.args, query, cookies, body: call.body, is_form }
    }

    /// A parameter of the query. One that is there twice is the first of them.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The fields of a form that was sent.
    pub(super) fn form(&self) -> Form {
        Form(if self.is_form { pairs(&self.body) } else { Vec::new() })
    }
}

pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// A field, which is empty if it is not there.
    pub(super) fn field(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// Nothing that we keep or look up has a NUL, and Postgres holds none in a text.
fn pairs(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text)
        .filter(|(_, value)| !value.contains('\0'))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect()
}

fn our_cookies(headers: &HeaderMap) -> Vec<Cookie> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let all = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let ours = |name: &str| [true, false].iter().any(|secure| name.starts_with(cookie_prefix(*secure)));
    let ours: Vec<_> = all.filter(|(name, _)| ours(name)).collect();
    // Browsers send the oldest first, and other pages can make a browser gather more of them than anybody needs.
    let old = ours.len().saturating_sub(MOST_COOKIES);
    ours.into_iter().skip(old).map(|(name, value)| Cookie { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// A page that is to be shown.
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) name: &'static str,
    pub(super) says: Value,
    pub(super) cookies: Vec<Cookie>,
    /// Where its forms lead, beside this server.
    pub(super) leads_to: Option<String>,
}

impl Page {
    pub(super) fn new(name: &'static str, says: Value) -> Self {
        Self { status: StatusCode::OK, name, says, cookies: Vec::new(), leads_to: None }
    }
}

/// All pages.
pub struct Pages {
    environment: Environment<'static>,
    /// The style and the script that pages have in them, as sources in a content security policy.
    style: String,
    script: String,
}

impl Pages {
    /// With those of the operator in the place of ours.
    pub fn load(folder: Option<&Path>, server: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let text_of = |name: &'static str, ours: &'static str| -> Result<&'static str> {
            let Some(path) = folder.map(|folder| folder.join(name)) else { return Ok(ours) };
            match std::fs::read_to_string(&path) {
                // They are read once, and live as long as the process.
                Ok(theirs) => Ok(Box::leak(theirs.into_boxed_str())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && folder.is_some_and(Path::is_dir) => Ok(ours),
                Err(e) => Err(Error::internal(format!("{}: {e}", path.display()))),
            }
        };
        let (mut style, mut script) = ("", "");
        for (name, ours) in PAGES {
            let text = text_of(name, ours)?;
            match name {
                "style.css" => style = text,
                "done.js" => script = text,
                _ => environment.add_template(name, text).map_err(|e| Error::internal(format!("{name}: {e}")))?,
            }
        }
        environment.add_global("style", style);
        environment.add_global("script", script);
        environment.add_global("server", server.to_owned());
        let source = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())));
        Ok(Self { environment, style: source(style), script: source(script) })
    }

    pub(super) fn show(&self, page: Page) -> Response<Body> {
        let Page { status, name, says, cookies, leads_to } = page;
        let made = self.environment.get_template(name).and_then(|template| template.render(says));
        let text = match made {
            Ok(text) => text,
            Err(e) => {
                tracing::error!(page = name, error = %e, "a page can't be made");
                return respond::internal();
            }
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        let policy = self.policy(leads_to.as_deref(), name == "done.html");
        finish(response, &policy, &cookies)
    }

    fn policy(&self, leads_to: Option<&str>, script: bool) -> String {
        let script = if script { &self.script } else { "'none'" };
        // Browsers look at where a form is sent on to as well.
        let forms = leads_to.map_or_else(|| "'self'".to_owned(), |source| format!("'self' {source}"));
        format!(
            "default-src 'none'; style-src {}; script-src {script}; img-src data:; form-action {forms}; \
             base-uri 'none'; frame-ancestors 'none'",
            self.style
        )
    }
}

/// Sends a browser elsewhere: to log in, as the specification has it; or wherever it goes by GET, whatever it came by.
pub(super) fn away(url: &str, cookies: &[Cookie]) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(url) else { return respond::internal() };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = if cookies.is_empty() { StatusCode::SEE_OTHER } else { StatusCode::FOUND };
    response.headers_mut().insert(header::LOCATION, location);
    finish(response, "default-src 'none'; frame-ancestors 'none'", cookies)
}

/// What all of them have.
fn finish(mut response: Response<Body>, policy: &str, cookies: &[Cookie]) -> Response<Body> {
    let headers = response.headers_mut();
    let Ok(policy) = HeaderValue::from_str(policy) else { return respond::internal() };
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for Cookie { name, value } in cookies {
        let secure = if name.starts_with(cookie_prefix(true)) { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; Max-Age={COOKIE_SECONDS}; Path=/; HttpOnly; SameSite=Lax{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    response.extensions_mut().insert(ForPeople);
    response
}

/// Marks a response that no program of another origin has business with.
#[derive(Clone)]
pub(super) struct ForPeople;

/// The page that says why there is none.
pub(super) fn failed(api: &Api, error: &Error) -> Response<Body> {
    let (status, message) = match error {
        Error::Matrix { kind, message } => (status(kind), message.clone().into_owned()),
        Error::Uia(_) => (StatusCode::UNAUTHORIZED, "You have to prove who you are.".to_owned()),
        Error::Internal(what) => {
            tracing::error!(error = %what, "the request failed");
            let message = "Something went wrong here. Try again in a moment.".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    };
    let says = context! { reason => "failed", message };
    api.pages.show(Page { status, ..Page::new("stopped.html", says) })
}

fn status(kind: &Kind) -> StatusCode {
    match kind {
        Kind::LimitExceeded { .. } => StatusCode::TOO_MANY_REQUESTS,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_an_operator_take_the_place_of_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("choose.html"), "Hello, {{ who }} of {{ server }}").expect("a file");
        let pages = Pages::load(Some(folder.path()), "a.b").expect("pages");
        let made = pages.environment.get_template("choose.html").expect("a page");
        assert_eq!(made.render(context! { who => "<b>" }).expect("a text"), "Hello, &lt;b&gt; of a.b");
        assert!(pages.environment.get_template("leave.html").is_ok(), "ours are left");
        std::fs::write(folder.path().join("leave.html"), "{% if %}").expect("a file");
        assert!(Pages::load(Some(folder.path()), "a.b").is_err());
        assert!(Pages::load(Some(&folder.path().join("nowhere")), "a.b").is_err());
    }

    #[test]
    fn only_cookies_of_ours_are_looked_at() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; __Host-hearth-sso-1=x; hearth-sso-2=y=z"));
        headers.append(header::COOKIE, HeaderValue::from_static("nonsense"));
        let found: Vec<_> = our_cookies(&headers).into_iter().map(|cookie| (cookie.name, cookie.value)).collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found, [pair("__Host-hearth-sso-1", "x"), pair("hearth-sso-2", "y=z")]);
    }

    #[test]
    fn however_many_cookies_there_are_the_newest_count() {
        let name = |n: usize| format!("{}{n}", cookie_prefix(false));
        let line: Vec<String> = (0..200).map(|n| format!("{}=v", name(n))).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&line.join("; ")).expect("a header"));
        let found = our_cookies(&headers);
        assert_eq!(found.len(), MOST_COOKIES);
        assert!(
            found.iter().any(|cookie| cookie.name == name(199)) && found.iter().all(|cookie| cookie.name != name(0))
        );
    }
}
