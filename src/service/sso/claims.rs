//! From what a provider says of somebody to what we make of it.

use hearth_core::{Error, Result};
use minijinja::{Environment, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::config::IdentityProvider;

/// <https://openid.net/specs/openid-connect-core-1_0.html#IDToken>
const MAX_SUBJECT_BYTES: usize = 255;
/// Longer ones are left out.
const MAX_TEXT_BYTES: usize = 1_000;
const MAX_NAME_CHARS: usize = 256;

pub(super) type Claims = Map<String, Value>;

/// Somebody whom a provider vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What the provider calls them, for ever.
    pub subject: String,
    /// What the provider calls its own session.
    pub sid: Option<String>,
    /// What they might be called here. Whether it is a name at all is seen when it is used.
    pub localpart: Option<String>,
    pub display_name: Option<String>,
    /// One that the provider calls verified.
    pub email: Option<String>,
    pub picture: Option<String>,
}

/// What of the claims an operator wants.
pub(super) struct Mapping {
    environment: Environment<'static>,
    localpart: String,
    display_name: String,
    email: String,
    picture: String,
}

impl Mapping {
    pub(super) fn new(config: &IdentityProvider) -> Self {
        let mut environment = Environment::new();
        // What somebody's provider does not say is nothing, and no reason to keep them out.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        Self {
            environment,
            localpart: config.localpart_template.clone(),
            display_name: config.display_name_template.clone(),
            email: config.email_template.clone(),
            picture: config.picture_template.clone(),
        }
    }

    /// Whether something is wanted that these claims do not say.
    pub(super) fn lacks(&self, claims: &Claims) -> bool {
        let templates = [&self.localpart, &self.display_name, &self.email, &self.picture];
        templates.iter().any(|template| !template.trim().is_empty() && self.text(template, claims).is_none())
    }

    pub(super) fn identity(&self, claims: &Claims) -> Result<Identity> {
        let text = |key: &str| claims.get(key).and_then(Value::as_str);
        let plain = |text: &&str| (1..=MAX_SUBJECT_BYTES).contains(&text.len()) && !text.contains('\0');
        let subject = text("sub").filter(plain).ok_or_else(|| Error::internal("a provider names nobody"))?;
        let verified =
            matches!(claims.get("email_verified"), Some(Value::Bool(true))) || text("email_verified") == Some("true");
        let email = self.text(&self.email, claims).filter(|email| verified && email.contains('@'));
        let picture = self.text(&self.picture, claims);
        Ok(Identity {
            subject: subject.to_owned(),
            sid: text("sid").filter(plain).map(ToOwned::to_owned),
            localpart: self.text(&self.localpart, claims),
            display_name: self.text(&self.display_name, claims).map(|name| name.chars().take(MAX_NAME_CHARS).collect()),
            email,
            picture: picture.filter(|url| Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))),
        })
    }

    /// What a template makes of the claims; nothing counts as none.
    fn text(&self, template: &str, claims: &Claims) -> Option<String> {
        // A claim that is null says nothing.
        let user: Map<_, _> =
            claims.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
        let said = context! { user => minijinja::value::Serde(&user) };
        let made = match self.environment.render_str(template, said) {
            Ok(made) => made,
            Err(e) => {
                tracing::warn!(error = %e, "a template of an identity provider can't be filled in");
                return None;
            }
        };
        let made = made.trim();
        (!made.is_empty() && made.len() <= MAX_TEXT_BYTES && !made.chars().any(char::is_control))
            .then(|| made.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(config: &IdentityProvider, claims: &Value) -> Identity {
        Mapping::new(config).identity(claims.as_object().expect("an object")).expect("somebody")
    }

    #[test]
    fn claims_become_what_the_templates_make_of_them() {
        let usual = IdentityProvider::default();
        let full = json!({
            "sub": "1", "sid": "s", "preferred_username": " alice ", "name": "Alice <b>", "email": "a@b.c",
            "email_verified": true, "picture": "https://b.c/a.png",
        });
        let expected = Identity {
            subject: "1".to_owned(),
            sid: Some("s".to_owned()),
            localpart: Some("alice".to_owned()),
            display_name: Some("Alice <b>".to_owned()),
            email: Some("a@b.c".to_owned()),
            picture: Some("https://b.c/a.png".to_owned()),
        };
        assert_eq!(identity(&usual, &full), expected);
        let config = IdentityProvider {
            localpart_template: "{{ user.email | split('@') | first }}-{{ user.group.deep.name }}".to_owned(),
            display_name_template: String::new(),
            ..usual
        };
        let made = identity(&config, &full);
        assert_eq!((made.localpart.as_deref(), made.display_name), (Some("a-"), None));
    }

    #[test]
    fn what_is_not_said_or_odd_is_nothing() {
        let usual = IdentityProvider::default();
        for odd in [
            json!({ "sub": "1" }),
            json!({ "sub": "1", "name": null, "preferred_username": null, "email": "a@b.c" }),
            json!({ "sub": "1", "name": "a\u{0}b", "email": "a@b.c", "email_verified": "yes" }),
            json!({ "sub": "1", "picture": "javascript:alert(1)", "name": "x".repeat(1_001) }),
        ] {
            let made = identity(&usual, &odd);
            assert_eq!((&made.localpart, &made.display_name, &made.email, &made.picture), (&None, &None, &None, &None));
        }
        let nobody = |claims: Value| Mapping::new(&usual).identity(claims.as_object().expect("an object")).is_err();
        assert!(nobody(json!({})) && nobody(json!({ "sub": "" })) && nobody(json!({ "sub": 1 })));
        assert!(nobody(json!({ "sub": "x".repeat(256) })));
    }

    #[test]
    fn what_is_wanted_and_missing_is_known() {
        let mapping = |config: IdentityProvider| Mapping::new(&config);
        let claims = json!({ "sub": "1", "preferred_username": "a", "name": "A", "email": "e", "picture": "p" });
        let claims = claims.as_object().expect("an object");
        assert!(!mapping(IdentityProvider::default()).lacks(claims));
        let more = IdentityProvider { localpart_template: "{{ user.nick }}".to_owned(), ..IdentityProvider::default() };
        assert!(mapping(more).lacks(claims));
        let none = IdentityProvider { picture_template: String::new(), ..IdentityProvider::default() };
        assert!(!mapping(none).lacks(claims));
    }
}
