//! Which links the server looks at, so that clients can show what is behind them.

use serde::Deserialize;

/// Off, unless something is allowed. The names and what they mean are those of the Conduit family; a list holds `*` for
/// everything.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct UrlPreview {
    pub url_preview_domain_contains_allowlist: Vec<String>,
    pub url_preview_domain_explicit_allowlist: Vec<String>,
    pub url_preview_domain_explicit_denylist: Vec<String>,
    pub url_preview_url_contains_allowlist: Vec<String>,
    /// Whether a domain stands for those below it, too.
    pub url_preview_check_root_domain: bool,
    /// In bytes.
    pub url_preview_max_spider_size: usize,
    pub url_preview_timeout_s: u64,
}

impl Default for UrlPreview {
    fn default() -> Self {
        Self {
            url_preview_domain_contains_allowlist: Vec::new(),
            url_preview_domain_explicit_allowlist: Vec::new(),
            url_preview_domain_explicit_denylist: Vec::new(),
            url_preview_url_contains_allowlist: Vec::new(),
            url_preview_check_root_domain: false,
            // Some pages begin with half a megabyte of scripts.
            url_preview_max_spider_size: 1 << 20,
            url_preview_timeout_s: 15,
        }
    }
}

impl UrlPreview {
    /// Whether anything is looked at at all.
    pub fn is_on(&self) -> bool {
        let allowed = [
            &self.url_preview_domain_contains_allowlist,
            &self.url_preview_domain_explicit_allowlist,
            &self.url_preview_url_contains_allowlist,
        ];
        allowed.iter().any(|list| !list.is_empty())
    }

    /// Every entry of every list.
    pub(super) fn entries(&self) -> impl Iterator<Item = &str> {
        let lists = [
            &self.url_preview_domain_contains_allowlist,
            &self.url_preview_domain_explicit_allowlist,
            &self.url_preview_domain_explicit_denylist,
            &self.url_preview_url_contains_allowlist,
        ];
        lists.into_iter().flatten().map(String::as_str)
    }
}
