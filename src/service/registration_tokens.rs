//! Tokens that let somebody register.
//!
//! A use is taken in the transaction that makes the account, and nothing is kept between the requests of a flow: so there
//! are no uses under way that others would have to be refused for, and no more accounts than uses.
//!
//! <https://spec.matrix.org/v1.18/client-server-api/#token-authenticated-registration>

use std::time::Duration;

use hearth_core::{Error, Result, clock::random_string};
use hearth_storage::registration_tokens::RegistrationToken;
use subtle::ConstantTimeEq as _;

use super::accounts::Accounts;

impl Accounts {
    /// A token that lets somebody register.
    pub async fn create_registration_token(
        &self,
        token: Option<String>,
        uses_allowed: Option<u32>,
        expires_in: Option<Duration>,
        makes_admin: bool,
    ) -> Result<RegistrationToken> {
        let token = token.unwrap_or_else(|| random_string(&*self.rng, 32));
        if !may_be_registration_token(&token) {
            return Err(Error::invalid_param("A token has 1 to 64 of the characters A-Z, a-z, 0-9 and ._~-"));
        }
        let expires_ms = expires_in.map(|life| {
            let life = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
            self.clock.now_ms().saturating_add(life)
        });
        let token =
            RegistrationToken { token, uses_allowed: uses_allowed.map(i64::from), uses: 0, expires_ms, makes_admin };
        if !self.storage.create_registration_token(token.clone(), self.clock.now_ms()).await? {
            return Err(Error::invalid_param("There is such a token already"));
        }
        Ok(token)
    }

    /// Whether somebody could register with this token now.
    pub async fn registration_token_is_valid(&self, token: &str) -> Result<bool> {
        if self.is_configured_token(token) {
            return Ok(true);
        }
        if !may_be_registration_token(token) {
            return Ok(false);
        }
        let known = self.storage.registration_token(token).await?;
        Ok(known.is_some_and(|token| token.is_valid(self.clock.now_ms())))
    }

    pub(super) fn is_configured_token(&self, token: &str) -> bool {
        let configured = self.registration.registration_token.as_ref();
        configured.is_some_and(|known| bool::from(known.expose().as_bytes().ct_eq(token.as_bytes())))
    }
}

fn may_be_registration_token(token: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
    (1..=64).contains(&token.len()) && token.bytes().all(allowed)
}
