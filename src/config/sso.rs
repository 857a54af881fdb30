//! Logging in by somebody else's word: identity providers, and what goes with them.

use std::{collections::BTreeMap, path::PathBuf};

use ruma::OwnedMxcUri;
use serde::Deserialize;
use url::Url;

use super::{Finding, Secret, Server, Weight};

/// How people log in besides by a password.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sso {
    pub login_with_password: bool,
    pub login_via_existing_session: bool,
    /// In milliseconds.
    pub login_token_ttl: u64,
    pub sso_client_whitelist: Vec<String>,
    pub sso_templates_path: Option<PathBuf>,
    pub identity_provider: Vec<IdentityProvider>,
}

/// One of the tables `identity_provider`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct IdentityProvider {
    pub id: Option<String>,
    pub name: Option<String>,
    pub brand: Option<String>,
    pub icon: Option<OwnedMxcUri>,
    pub issuer_url: String,
    pub client_id: String,
    pub client_secret: Option<Secret>,
    pub client_secret_file: Option<PathBuf>,
    pub callback_url: Option<String>,
    pub scope: Vec<String>,
    pub extra_authorization_parameters: BTreeMap<String, String>,
    /// In seconds.
    pub grant_session_duration: u64,
    pub localpart_template: String,
    pub display_name_template: String,
    pub email_template: String,
    pub picture_template: String,
    pub registration: bool,
    pub confirm_localpart: bool,
    pub trusted: bool,
    pub backchannel_logout: bool,
}

impl Default for Sso {
    fn default() -> Self {
        Self {
            login_with_password: true,
            login_via_existing_session: true,
            login_token_ttl: 120_000,
            sso_client_whitelist: Vec::new(),
            sso_templates_path: None,
            identity_provider: Vec::new(),
        }
    }
}

impl Default for IdentityProvider {
    fn default() -> Self {
        Self {
            id: None,
            name: None,
            brand: None,
            icon: None,
            issuer_url: String::new(),
            client_id: String::new(),
            client_secret: None,
            client_secret_file: None,
            callback_url: None,
            scope: ["openid", "profile", "email"].map(str::to_owned).into(),
            extra_authorization_parameters: BTreeMap::new(),
            grant_session_duration: 600,
            localpart_template: "{{ user.preferred_username }}".to_owned(),
            display_name_template: "{{ user.name }}".to_owned(),
            email_template: "{{ user.email }}".to_owned(),
            picture_template: "{{ user.picture }}".to_owned(),
            registration: true,
            confirm_localpart: false,
            trusted: false,
            backchannel_logout: true,
        }
    }
}

impl IdentityProvider {
    /// What the provider is called in paths and in the database.
    pub fn id(&self) -> String {
        match (&self.id, &self.brand) {
            (Some(id), _) => id.clone(),
            (None, Some(brand)) => brand.to_ascii_lowercase(),
            (None, None) => self.client_id.clone(),
        }
    }

    /// What people know it as.
    pub fn name(&self) -> String {
        self.name.clone().or_else(|| self.brand.clone()).unwrap_or_else(|| self.id())
    }

    /// Where it sends people back to. None: nobody said where this server is.
    pub fn callback_url(&self, server: &Server) -> Option<Url> {
        let said = match (&self.callback_url, &server.well_known.client) {
            (Some(url), _) => url.clone(),
            (None, Some(base)) => format!("{}/_hearth/sso/callback/{}", base.trim_end_matches('/'), self.id()),
            (None, None) => return None,
        };
        Url::parse(&said).ok().filter(|url| is_web(url) && url.query().is_none() && url.fragment().is_none())
    }

    fn templates(&self) -> [(&'static str, &str); 4] {
        [
            ("localpart_template", &self.localpart_template),
            ("display_name_template", &self.display_name_template),
            ("email_template", &self.email_template),
            ("picture_template", &self.picture_template),
        ]
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty() && url.password().is_none()
}

/// What is wrong with it, or should be known.
pub(super) fn judge(sso: &Sso, server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut must = |holds: bool, text: String| {
        if !holds {
            findings.push(Finding { weight: Weight::Wrong, text });
        }
    };
    must(
        (1_000..=86_400_000).contains(&sso.login_token_ttl),
        "`login_token_ttl` is a number of milliseconds from 1000 to 86400000".to_owned(),
    );
    for prefix in &sso.sso_client_whitelist {
        let url = Url::parse(prefix).ok().filter(|url| url.username().is_empty() && url.password().is_none());
        let whole = url.is_some_and(|url| !url.cannot_be_a_base() && url.query().is_none() && url.fragment().is_none());
        must(
            whole,
            format!("`sso_client_whitelist`: `{prefix}` is not the beginning of a URL: https://app.example.org/"),
        );
    }
    let mut seen = Vec::new();
    for provider in &sso.identity_provider {
        let id = provider.id();
        for text in wrong_with(provider, &id, server) {
            must(false, format!("`identity_provider` {id:?}: {text}"));
        }
        must(!seen.contains(&id), format!("`identity_provider` {id:?}: another has the same id: give each an `id`"));
        seen.push(id);
    }
    if !sso.login_with_password && sso.identity_provider.is_empty() {
        must(false, "`login_with_password` is off and there is no `identity_provider`: nobody could log in".to_owned());
    }
    for provider in sso.identity_provider.iter().filter(|provider| provider.issuer_url.starts_with("http:")) {
        let text = format!(
            "`identity_provider` {:?}: `issuer_url` is not https: whoever is on the way can be anybody's identity",
            provider.id()
        );
        findings.push(Finding { weight: Weight::Notice, text });
    }
    findings
}

fn wrong_with(provider: &IdentityProvider, id: &str, server: &Server) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, text: &str| {
        if !holds {
            wrong.push(text.to_owned());
        }
    };
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._~-".contains(&b);
    must(
        (1..=64).contains(&id.len()) && id.bytes().all(fits) && !matches!(id, "." | ".."),
        "an `id` has 1 to 64 of the characters a-z, 0-9 and ._~- (without one it is the `brand`, or the `client_id`)",
    );
    must(!provider.client_id.is_empty(), "`client_id` is missing");
    let issuer = Url::parse(&provider.issuer_url).ok().filter(is_web);
    must(
        issuer.is_some_and(|url| url.query().is_none() && url.fragment().is_none()),
        "`issuer_url` is the URL that the provider calls itself: https://id.example.org",
    );
    must(
        provider.callback_url(server).is_some(),
        "it is not known where this server is: set `well_known.client`, or `callback_url` to a URL of this server",
    );
    must(provider.scope.iter().any(|scope| scope == "openid"), "`scope` has to have \"openid\" in it");
    must(
        (30..=86_400).contains(&provider.grant_session_duration),
        "`grant_session_duration` is a number of seconds from 30 to 86400",
    );
    for (key, template) in provider.templates() {
        if let Err(e) = minijinja::Environment::new().template_from_str(template) {
            must(false, &format!("`{key}`: {e}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let mut server = Server::default();
        server.well_known.client = Some("https://matrix.example.org/".to_owned());
        server
    }

    fn provider() -> IdentityProvider {
        IdentityProvider {
            issuer_url: "https://id.example.org/realms/a".to_owned(),
            client_id: "hearth".to_owned(),
            ..IdentityProvider::default()
        }
    }

    fn wrongs(sso: &Sso, server: &Server) -> usize {
        judge(sso, server).iter().filter(|finding| finding.weight == Weight::Wrong).count()
    }

    #[test]
    fn a_provider_has_an_id_and_a_place_to_send_people_back_to() {
        let plain = provider();
        assert_eq!((plain.id(), plain.name()), ("hearth".to_owned(), "hearth".to_owned()));
        let callback = plain.callback_url(&server()).expect("a URL");
        assert_eq!(callback.as_str(), "https://matrix.example.org/_hearth/sso/callback/hearth");
        let branded = IdentityProvider { brand: Some("Keycloak".to_owned()), ..provider() };
        assert_eq!((branded.id(), branded.name()), ("keycloak".to_owned(), "Keycloak".to_owned()));
        assert!(plain.callback_url(&Server::default()).is_none());
    }

    #[test]
    fn what_could_not_work_is_named() {
        let with = |change: fn(&mut IdentityProvider)| {
            let mut one = provider();
            change(&mut one);
            wrongs(&Sso { identity_provider: vec![one], ..Sso::default() }, &server())
        };
        assert_eq!(with(|_| {}), 0);
        assert_eq!(with(|p| p.id = Some("A b".to_owned())), 1);
        assert_eq!(with(|p| p.id = Some("..".to_owned())), 1);
        assert_eq!(with(|p| p.client_id = String::new()), 2, "neither a client id nor an id");
        assert_eq!(with(|p| p.issuer_url = "id.example.org".to_owned()), 1);
        assert_eq!(with(|p| p.issuer_url = "https://a:b@id.example.org".to_owned()), 1);
        assert_eq!(with(|p| p.scope = vec!["profile".to_owned()]), 1);
        assert_eq!(with(|p| p.localpart_template = "{{ user.".to_owned()), 1);
        assert_eq!(with(|p| p.callback_url = Some("javascript:alert(1)".to_owned())), 1);
        assert_eq!(with(|p| p.grant_session_duration = 1), 1);
        let two = Sso { identity_provider: vec![provider(), provider()], ..Sso::default() };
        assert_eq!(wrongs(&two, &server()), 1);
        assert_eq!(wrongs(&two, &Server::default()), 3);
        assert_eq!(wrongs(&Sso { login_with_password: false, ..Sso::default() }, &server()), 1);
        for bad in ["app.example.org", "javascript:alert(1)", "https://a@b.c/", "https://a.b/?c"] {
            let sso = Sso { sso_client_whitelist: vec![bad.to_owned()], ..Sso::default() };
            assert_eq!(wrongs(&sso, &server()), 1, "{bad}");
        }
    }
}
