//! The server's signing key.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{
    AnyKeyName, CanonicalJsonObject, OwnedServerName, OwnedSigningKeyId, ServerName,
    signatures::{KeyPair, Signature, sign_json},
};

use crate::{Error, Result};

/// Signs in the name of this server. aws-lc takes half the time of ruma's own key pair for a signature, which is the
/// largest part of building an event.
pub struct Signer {
    server_name: OwnedServerName,
    key_id: OwnedSigningKeyId<AnyKeyName>,
    key: Ed25519KeyPair,
}

impl Signer {
    /// A signer from the 32 secret bytes of an Ed25519 key. `key_id` is the part after `ed25519:`, for example `a_key1`.
    ///
    /// <https://spec.matrix.org/v1.19/appendices/#cryptographic-key-representation>
    pub fn new(server_name: OwnedServerName, key_id: &str, seed: &[u8; 32]) -> Result<Self> {
        if key_id.is_empty() || !key_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Error::internal("the id of a signing key has letters, digits and underscores only"));
        }
        let key_id = OwnedSigningKeyId::try_from(format!("ed25519:{key_id}"))
            .map_err(|e| Error::internal(format_args!("the id of the signing key: {e}")))?;
        let key = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|e| Error::internal(format_args!("the signing key: {e}")))?;
        Ok(Self { server_name, key_id, key })
    }

    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// With its algorithm, for example `ed25519:a_key1`.
    pub fn key_id(&self) -> &str {
        self.key_id.as_str()
    }

    /// Unpadded, as it is published.
    pub fn public_key_base64(&self) -> String {
        STANDARD_NO_PAD.encode(self.key.public_key())
    }

    /// Signs anything that is not an event.
    ///
    /// <https://spec.matrix.org/v1.19/appendices/#signing-json>
    pub fn sign_json(&self, object: &mut CanonicalJsonObject) -> Result<()> {
        sign_json(self.server_name.as_str(), self, object).map_err(Error::internal)
    }
}

impl KeyPair for Signer {
    fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.key_id.clone(), self.key.sign(message).as_ref().to_vec())
    }
}

/// The secret stays out of every log.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("server_name", &self.server_name)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ruma::{
        serde::{Base64, base64::Standard},
        server_name,
    };

    use super::*;

    /// The example of the specification: <https://spec.matrix.org/v1.19/appendices/#json-signing>
    fn signer_of_the_specification() -> Signer {
        // Its last character carries bits that strict decoders refuse; ruma's doesn't.
        let seed = Base64::<Standard>::parse("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").expect("base64");
        let seed = seed.as_bytes().try_into().expect("32 bytes");
        Signer::new(server_name!("domain").to_owned(), "1", seed).expect("a key")
    }

    #[test]
    fn signs_as_the_specification_shows() {
        let signer = signer_of_the_specification();
        let mut object = CanonicalJsonObject::new();
        signer.sign_json(&mut object).expect("signed");
        assert_eq!(
            serde_json::to_string(&object).expect("json"),
            r#"{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}"#
        );
        assert_eq!(signer.public_key_base64(), "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
    }

    #[test]
    fn the_secret_is_not_printed_and_odd_key_ids_are_refused() {
        let signer = signer_of_the_specification();
        assert_eq!(format!("{signer:?}"), r#"Signer { server_name: "domain", key_id: "ed25519:1", .. }"#);
        for id in ["", "a key", "ed25519:1", "ä"] {
            assert!(Signer::new(server_name!("domain").to_owned(), id, &[0; 32]).is_err(), "{id}");
        }
    }
}
