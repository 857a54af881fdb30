//! Where somebody is sent with a login token: a URL that came with the request, so anybody may have written it.

use url::Url;

/// Longer ones are refused.
const MAX_BYTES: usize = 2_048;
/// Schemes that make something of a browser's own of a URL, or that open what is no client.
const NEVER: [&str; 22] = [
    "about",
    "blob",
    "chrome",
    "chrome-extension",
    "content",
    "data",
    "file",
    "filesystem",
    "ftp",
    "intent",
    "jar",
    "javascript",
    "mailto",
    "moz-extension",
    "ms-settings",
    "resource",
    "search-ms",
    "sms",
    "tel",
    "vbscript",
    "view-source",
    "ws",
];
const TOKEN: &str = "loginToken";

/// A place that somebody may be sent to. Whether they know it is another matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect(Url);

impl Redirect {
    /// None: nobody is sent there.
    pub fn parse(said: &str) -> Option<Self> {
        let url = Url::parse(said).ok().filter(|_| said.len() <= MAX_BYTES)?;
        let scheme = url.scheme();
        // Apps have schemes of their own, with an authority or without one; what has not even a path is no place.
        let is_place = !url.cannot_be_a_base() && !NEVER.contains(&scheme) && scheme != "wss";
        let is_web = matches!(scheme, "http" | "https");
        let is_plain = url.username().is_empty() && url.password().is_none();
        (is_place && is_plain && (!is_web || url.has_host())).then_some(Self(url))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What people should look at: the host of a web page as the network knows it, and that what is sent there can be read
    /// on its way; the scheme of an app, and what looks like a host behind it.
    pub fn shown(&self) -> String {
        let port = self.0.port().map_or_else(String::new, |port| format!(":{port}"));
        match (self.0.scheme(), self.0.host_str().filter(|host| !host.is_empty())) {
            ("https", Some(host)) => format!("{host}{port}"),
            (scheme, Some(host)) => format!("{scheme}://{host}{port}"),
            (scheme, None) => format!("{scheme}:"),
        }
    }

    /// Whether it is an app on the same machine, and not a web page.
    pub fn is_app(&self) -> bool {
        !matches!(self.0.scheme(), "http" | "https")
    }

    /// As a source in a content security policy.
    pub fn source(&self) -> String {
        // A host may have signs in it that mean something else there, and an address of IPv6 can't be said.
        let plain = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        if self.is_app() || !self.0.host_str().is_some_and(plain) {
            format!("{}:", self.0.scheme())
        } else {
            self.0.origin().ascii_serialization()
        }
    }

    /// The same place with a login token. A token that was there already would be another's.
    pub fn with_token(&self, token: &str) -> String {
        let mut url = self.0.clone();
        if url.query_pairs().any(|(key, _)| key == TOKEN) {
            let rest: Vec<(String, String)> =
                self.0.query_pairs().filter(|(key, _)| key != TOKEN).map(|(k, v)| (k.into(), v.into())).collect();
            url.query_pairs_mut().clear().extend_pairs(rest);
        }
        url.query_pairs_mut().append_pair(TOKEN, token);
        url.into()
    }

    /// Whether it begins like one of these: the same scheme, host and port, and below the path.
    pub fn is_among(&self, known: &[Url]) -> bool {
        known.iter().any(|known| self.is_below(known))
    }

    fn is_below(&self, known: &Url) -> bool {
        let bare = known.host_str().is_none_or(str::is_empty) && matches!(known.path(), "" | "/");
        if bare {
            // The scheme of an app, wherever within it.
            return self.is_app() && self.0.scheme() == known.scheme();
        }
        let place =
            |url: &Url| (url.scheme().to_owned(), url.host().map(|h| h.to_owned()), url.port_or_known_default());
        let Some(rest) = self.0.path().strip_prefix(known.path()) else { return false };
        let whole = rest.is_empty() || rest.starts_with('/') || known.path().ends_with('/') || known.path().is_empty();
        whole && place(&self.0) == place(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(known: &[&str]) -> Vec<Url> {
        known.iter().map(|url| url.parse().expect("a URL")).collect()
    }

    #[test]
    fn nobody_is_sent_to_what_is_no_place() {
        for good in [
            "https://app.example.org/",
            "http://localhost:8080/#/login",
            "element://vector/webapp/",
            "io.element.desktop:/vector/webapp/?x=1",
            "im.fluffychat://login",
        ] {
            assert!(Redirect::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/relative",
            "app.example.org",
            "javascript:alert(1)",
            "JavaScript://app.example.org/%0aalert(1)",
            "\u{1}javascript:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,<script>alert(1)</script>",
            "data://app.example.org/text/html,x",
            "vbscript:x",
            "blob:https://app.example.org/x",
            "file:///etc/passwd",
            "view-source:https://app.example.org/",
            "about:blank",
            "intent://app#Intent;end",
            "mailto:a@b.c",
            "https://user@app.example.org/",
            "https://app.example.org:x@evil.example/",
            "https://",
            &format!("https://app.example.org/{}", "a".repeat(2_048)),
        ] {
            assert!(Redirect::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn cve_2020_26891_the_token_is_put_beside_what_is_there() {
        let with = |url: &str| Redirect::parse(url).expect("a place").with_token("a+b");
        assert_eq!(with("https://a.b"), "https://a.b/?loginToken=a%2Bb");
        assert_eq!(with("https://a.b/c?d=%20e&f#g?h"), "https://a.b/c?d=%20e&f&loginToken=a%2Bb#g?h");
        assert_eq!(with("element://vector/?a"), "element://vector/?a&loginToken=a%2Bb");
        assert_eq!(with("https://a.b/?loginToken=evil&c=d"), "https://a.b/?c=d&loginToken=a%2Bb");
    }

    #[test]
    fn only_the_same_origin_below_the_same_path_is_known() {
        let list =
            known(&["https://app.example.org/develop", "http://localhost:8080/", "element://vector", "nheko://"]);
        let is_known = |url: &str| Redirect::parse(url).expect("a place").is_among(&list);
        for good in [
            "https://app.example.org/develop",
            "https://APP.example.org:443/develop/",
            "https://app.example.org/develop/x?y#z",
            "https://app.example.org/develop?x",
            "http://localhost:8080/any/thing",
            "element://vector/webapp/",
            "element://vector",
            "nheko://any/thing",
            "nheko:/thing",
        ] {
            assert!(is_known(good), "{good}");
        }
        for bad in [
            "https://app.example.org/developer",
            "https://app.example.org/",
            "https://app.example.org/x/../y",
            "https://app.example.org/develop/../y",
            "https://app.example.org/develop/%2e%2e/y",
            "https://app.example.org\\develop@evil.example/develop",
            "https://app.example.org.evil.example/develop",
            "https://evil.example/https://app.example.org/develop",
            "https://app.example.org:8443/develop",
            "http://app.example.org/develop",
            "https://xapp.example.org/develop",
            "http://localhost:80801/",
            "element://vector.evil/",
            "element:/vector",
            "elementx://vector",
            "nhekox://any",
            "https://nheko/",
        ] {
            assert!(!Redirect::parse(bad).is_some_and(|redirect| redirect.is_among(&list)), "{bad}");
        }
    }

    #[test]
    fn people_are_shown_the_host_as_the_network_knows_it() {
        let shown = |url: &str| Redirect::parse(url).expect("a place").shown();
        assert_eq!(shown("https://app.example.org/x"), "app.example.org");
        assert_eq!(shown("https://аpp.example.org:8443/x"), "xn--pp-6kc.example.org:8443");
        // What goes there can be read by whoever is on the way.
        assert_eq!(shown("http://app.example.org/x"), "http://app.example.org");
        // A browser may be behind it, and a page behind that.
        assert_eq!(shown("element://app.example.org/"), "element://app.example.org");
        assert_eq!(shown("element:/login"), "element:");
    }
}
