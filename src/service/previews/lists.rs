//! Which places the operator lets be looked at.

use hearth_core::media::preview::LONGEST_URL;
use url::Url;

use crate::config::UrlPreview;

const EVERYTHING: &str = "*";

pub(super) struct Lists {
    contains: Vec<String>,
    explicit: Vec<String>,
    denied: Vec<String>,
    in_url: Vec<String>,
    with_subdomains: bool,
}

impl Lists {
    pub(super) fn new(config: &UrlPreview) -> Self {
        let hosts = |list: &[String]| list.iter().map(|entry| entry.trim().to_ascii_lowercase()).collect();
        Self {
            contains: hosts(&config.url_preview_domain_contains_allowlist),
            explicit: hosts(&config.url_preview_domain_explicit_allowlist),
            denied: hosts(&config.url_preview_domain_explicit_denylist),
            in_url: config.url_preview_url_contains_allowlist.clone(),
            with_subdomains: config.url_preview_check_root_domain,
        }
    }

    /// Whether there may be a page that somebody linked to, or that such a page leads to.
    pub(super) fn page(&self, url: &Url) -> bool {
        let Some(host) = host(url) else { return false };
        self.anything(url)
            && (is_any(&self.contains, |entry| host.contains(entry))
                || is_any(&self.explicit, |entry| self.is(host, entry))
                || is_any(&self.in_url, |entry| url.as_str().contains(entry)))
    }

    /// Whether there may be anything that belongs to such a page.
    pub(super) fn anything(&self, url: &Url) -> bool {
        url.as_str().len() <= LONGEST_URL
            && host(url).is_some_and(|host| !is_any(&self.denied, |entry| self.is(host, entry)))
    }

    fn is(&self, host: &str, entry: &str) -> bool {
        host == entry || (self.with_subdomains && host.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.')))
    }
}

/// As it is written by who means the same place by another name: with a dot at its end.
fn host(url: &Url) -> Option<&str> {
    url.host_str().map(|host| host.strip_suffix('.').unwrap_or(host))
}

fn is_any(list: &[String], is: impl Fn(&str) -> bool) -> bool {
    list.iter().any(|entry| entry == EVERYTHING || is(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(contains: &[&str], explicit: &[&str], in_url: &[&str], denied: &[&str], subdomains: bool) -> Lists {
        let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        Lists::new(&UrlPreview {
            url_preview_domain_contains_allowlist: list(contains),
            url_preview_domain_explicit_allowlist: list(explicit),
            url_preview_url_contains_allowlist: list(in_url),
            url_preview_domain_explicit_denylist: list(denied),
            url_preview_check_root_domain: subdomains,
            ..UrlPreview::default()
        })
    }

    fn page(lists: &Lists, url: &str) -> bool {
        lists.page(&url.parse().expect("a URL"))
    }

    #[test]
    fn what_is_not_allowed_is_not_looked_at() {
        let none = lists(&[], &[], &[], &[], false);
        assert!(!page(&none, "https://example.org/"));
        let some = lists(&["wiki"], &["Example.org"], &["://b.example/blog/"], &[], false);
        for url in [
            "https://en.wikipedia.org/x",
            "https://EXAMPLE.org:8443/",
            "https://example.org./",
            "https://b.example/blog/1",
        ] {
            assert!(page(&some, url), "{url}");
        }
        for url in
            ["https://www.example.org/", "https://notexample.org/", "https://b.example/", "https://a.example/wiki"]
        {
            assert!(!page(&some, url), "{url}");
        }
    }

    #[test]
    fn a_domain_may_stand_for_those_below_it() {
        let all = lists(&[], &["example.org"], &[], &["private.example.org"], true);
        assert!(page(&all, "https://example.org/") && page(&all, "https://a.b.example.org/"));
        for url in [
            "https://notexample.org/",
            "https://private.example.org/",
            "https://very.private.example.org./",
            "https://example.org.evil.example/",
        ] {
            assert!(!page(&all, url), "{url}");
        }
    }

    #[test]
    fn what_is_denied_is_not_looked_at_whatever_allows_it() {
        for all in
            [lists(&["*"], &[], &[], &["evil.example"], false), lists(&[], &["*"], &["*"], &["EVIL.example"], false)]
        {
            assert!(page(&all, "https://example.org/"));
            assert!(!page(&all, "https://evil.example/") && !page(&all, "https://evil.example./"));
            assert!(!all.anything(&"https://evil.example/a.png".parse().expect("a URL")));
            assert!(page(&all, "https://www.evil.example/"), "by its own name only");
        }
        let nothing = lists(&["*"], &[], &[], &["*"], false);
        assert!(!page(&nothing, "https://example.org/"));
        let long = format!("https://example.org/{}", "a".repeat(LONGEST_URL));
        assert!(!page(&lists(&["*"], &[], &[], &[], false), &long));
        let elsewhere = lists(&[], &["example.org"], &[], &[], false);
        assert!(elsewhere.anything(&"https://cdn.example/a.png".parse().expect("a URL")));
    }
}
