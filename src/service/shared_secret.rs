//! Registration by a shared secret: how an operator's tools make accounts, as they know it from Synapse.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/register_api.html>
//!
//! A nonce proves itself: it carries its time, and a signature by the secret. So any process takes any process's nonce,
//! and nothing is kept. A request that is played again within the nonce's time meets a name that is taken.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hearth_core::{Error, Result};

use super::accounts::{Accounts, DeviceWish, Registration, Welcome};
use crate::config::Secret;

const NONCE_MS: i64 = 60_000;
const UNIQUE: usize = 16;
const STAMP: usize = 8;

/// What a tool sends.
#[derive(serde::Deserialize)]
pub struct Request {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    user_type: Option<String>,
    mac: String,
    #[serde(default)]
    inhibit_login: bool,
}

impl Accounts {
    /// Starts a registration by the shared secret.
    pub fn shared_secret_nonce(&self) -> Result<String> {
        let secret = self.shared_secret()?;
        let mut bytes = [0; UNIQUE].to_vec();
        self.rng.fill(&mut bytes);
        bytes.extend(self.clock.now_ms().to_be_bytes());
        let tag = hmac::sign(&nonce_key(secret), &bytes);
        bytes.extend(tag.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Makes the account, if whoever asks knows the shared secret.
    pub async fn register_by_shared_secret(&self, request: Request) -> Result<Welcome> {
        let Request { nonce, username, password, admin, user_type, mac, inhibit_login } = request;
        let secret = self.shared_secret()?;
        if !is_fresh(secret, &nonce, self.clock.now_ms()) {
            return Err(Error::unknown("The nonce is not known or has expired"));
        }
        if username.contains('\0') || password.contains('\0') {
            return Err(Error::invalid_param("Neither user name nor password can contain a null byte"));
        }
        let admin_word = if admin { "admin" } else { "notadmin" };
        let mut signed = [nonce.as_str(), &username, &password, admin_word].join("\0");
        if let Some(user_type) = &user_type {
            signed.push('\0');
            signed.push_str(user_type);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let mac = unhex(&mac).unwrap_or_default();
        if hmac::verify(&key, signed.as_bytes(), &mac).is_err() {
            return Err(Error::forbidden("The HMAC is not correct"));
        }
        let wanted = Registration {
            username: Some(username),
            password: Some(password),
            device: (!inhibit_login).then(DeviceWish::default),
        };
        self.create(wanted, admin).await
    }

    fn shared_secret(&self) -> Result<&str> {
        let secret =
            self.registration.registration_shared_secret.as_ref().map(Secret::expose).filter(|s| !s.is_empty());
        secret.ok_or_else(|| Error::unrecognized("Registration by shared secret is not enabled"))
    }
}

fn nonce_key(secret: &str) -> hmac::Key {
    // Another key than the one for the requests, so that neither signature can stand for the other.
    hmac::Key::new(hmac::HMAC_SHA256, format!("registration nonce\0{secret}").as_bytes())
}

fn is_fresh(secret: &str, nonce: &str, now_ms: i64) -> bool {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
    let Some((signed, tag)) = bytes.split_at_checked(UNIQUE + STAMP) else { return false };
    let Ok(stamp) = <[u8; STAMP]>::try_from(&signed[UNIQUE..]) else { return false };
    let age = now_ms.saturating_sub(i64::from_be_bytes(stamp));
    (0..NONCE_MS).contains(&age) && hmac::verify(&nonce_key(secret), signed, tag).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_whole_or_not_at_all() {
        assert_eq!(unhex("00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(unhex("00f"), None);
        assert_eq!(unhex("0g"), None);
    }
}
