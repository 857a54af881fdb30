//! A browser: it keeps cookies, follows redirections, and sends the forms that it is shown.

use std::{collections::BTreeMap, sync::Mutex};

use reqwest::{Method, header::HeaderMap};

use super::{Server, people::escaped};

/// Where browsers believe the server to be; a proxy would end TLS there.
pub const HOME: &str = "https://hs.test.example";
/// A client that people are sent back to, which nobody has told the server of.
pub const APP: &str = "https://app.example/client?x=1#here";

pub struct Browser {
    inner: reqwest::Client,
    home: String,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// What it is shown in the end.
#[derive(Debug)]
pub struct Shown {
    pub url: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Where it is sent, if that is nowhere that the test runs.
    pub away: Option<String>,
}

impl Browser {
    pub fn of(server: &Server) -> Self {
        Self::at(server.address())
    }

    /// One that finds the server there.
    pub fn at(home: String) -> Self {
        let inner = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { inner: inner.build().expect("a client"), home, cookies: Mutex::default() }
    }

    /// The same browser, whose requests reach another process.
    pub fn turns_to(&self, server: &Server) -> Self {
        let cookies = Mutex::new(self.cookies.lock().expect("not poisoned").clone());
        Self { cookies, ..Self::of(server) }
    }

    pub fn forgets_its_cookies(&self) {
        self.cookies.lock().expect("not poisoned").clear();
    }

    pub fn cookies(&self) -> BTreeMap<String, String> {
        self.cookies.lock().expect("not poisoned").clone()
    }

    pub fn takes_cookies_of(&self, other: &Self) {
        self.cookies.lock().expect("not poisoned").extend(other.cookies());
    }

    pub fn has_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().expect("not poisoned").insert(name.to_owned(), value.to_owned());
    }

    /// One request, and no step further.
    pub async fn asks(&self, method: Method, url: &str, form: Option<&[(&str, &str)]>) -> Shown {
        let home = url.strip_prefix(HOME);
        let target = home.map_or_else(|| url.to_owned(), |path| format!("{}{path}", self.home));
        let mut request = self.inner.request(method, target);
        if home.is_some() {
            let cookies = self.cookies();
            let line: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", line.join("; "));
        }
        if let Some(form) = form {
            let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        let reply = request.send().await.unwrap_or_else(|e| panic!("{url}: {e}"));
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        if home.is_some() {
            self.keeps(&headers);
        }
        let text = reply.text().await.expect("a text");
        let away = headers.get("location").map(|to| to.to_str().expect("a text").to_owned());
        Shown { url: url.to_owned(), status, headers, text, away }
    }

    fn keeps(&self, headers: &HeaderMap) {
        for line in headers.get_all("set-cookie") {
            let line = line.to_str().expect("a text");
            let (pair, attributes) = line.split_once(';').expect("attributes");
            let (name, value) = pair.split_once('=').expect("a cookie");
            // What the name promises, browsers look at; and what we promise, this does.
            assert!(name.starts_with("__Host-"), "{line}");
            for wanted in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure", " Max-Age="] {
                assert!(format!(";{attributes}").contains(wanted), "{line}");
            }
            assert!(!attributes.contains("Domain"), "{line}");
            self.has_cookie(name, value);
        }
    }

    /// Goes where it is sent, until it is shown something or sent out of the test.
    pub async fn opens(&self, url: &str) -> Shown {
        let shown = self.asks(Method::GET, url, None).await;
        self.goes_on(shown).await
    }

    pub async fn goes_on(&self, mut shown: Shown) -> Shown {
        while let Some(to) = shown.away.clone().filter(|to| to.starts_with(HOME) || to.starts_with("http://127.0.0.1:"))
        {
            shown = self.asks(Method::GET, &to, None).await;
        }
        shown
    }

    /// Sends the form of a page that leads to this path, with these fields.
    pub async fn sends(&self, page: &Shown, path: &str, fields: &[(&str, &str)]) -> Shown {
        let shown = self.sends_and_stays(page, path, fields).await;
        self.goes_on(shown).await
    }

    pub async fn sends_and_stays(&self, page: &Shown, path: &str, fields: &[(&str, &str)]) -> Shown {
        assert!(page.text.contains(&format!("action=\"{path}\"")), "no form for {path} in {page:?}");
        let ticket = page.ticket();
        let mut form = vec![("ticket", ticket.as_str())];
        form.extend(fields);
        self.asks(Method::POST, &format!("{HOME}{path}"), Some(&form)).await
    }

    /// Begins a login for a client, and goes as far as it gets.
    pub async fn begins(&self, provider: &str, client: &str) -> Shown {
        self.opens(&login_url(provider, client)).await
    }

    /// Begins a login and stops at the provider's answer, on the way back.
    pub async fn comes_back(&self, provider: &str, client: &str) -> String {
        let to_provider = self.asks(Method::GET, &login_url(provider, client), None).await;
        let back = self.asks(Method::GET, &to_provider.away.expect("a provider"), None).await;
        back.away.expect("a way back")
    }
}

pub fn login_url(provider: &str, client: &str) -> String {
    format!("{HOME}/_matrix/client/v3/login/sso/redirect/{provider}?redirectUrl={}", escaped(client))
}

impl Shown {
    /// What names the step in the page's form.
    pub fn ticket(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"ticket\" value=\"").unwrap_or_else(|| panic!("no form: {self:?}"));
        rest.split('"').next().expect("a value").to_owned()
    }

    /// A page that says this.
    #[track_caller]
    pub fn says(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.text.contains(words), "{words:?} is not in {self:?}");
        assert!(self.away.is_none(), "{self:?}");
    }

    /// The links of a page.
    pub fn links(&self) -> Vec<String> {
        let parts = self.text.split("href=\"").skip(1);
        parts.map(|part| plain(part.split('"').next().expect("a link"))).collect()
    }

    /// The login token that a client is sent.
    #[track_caller]
    pub fn token(&self) -> String {
        let url: url::Url =
            self.away.as_deref().unwrap_or_else(|| panic!("sent nowhere: {self:?}")).parse().expect("a URL");
        let token = url.query_pairs().find(|(key, _)| key == "loginToken");
        token.unwrap_or_else(|| panic!("no token: {self:?}")).1.into_owned()
    }
}

/// Text as it was before it was put into a page.
fn plain(text: &str) -> String {
    let mut text = text.to_owned();
    for (escaped, plain) in
        [("&#x2f;", "/"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&amp;", "&")]
    {
        text = text.replace(escaped, plain);
    }
    text
}
