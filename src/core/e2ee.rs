//! The public keys of end-to-end encryption, as clients upload them: which are well formed, and who signed them.
//!
//! A server hands these objects on, to other servers too. One that somebody else can't read may keep them from reading
//! what comes with it, so each is looked through before it is kept. Fields that nobody knows yet are kept with it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, SigningKeyAlgorithm, UserId,
    serde::{Base64, base64::Standard},
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};

use crate::{Error, Kind, Result, canonical, limits};

/// The most names in any one map or list of such an object.
const MOST_ENTRIES: usize = 64;
/// The longest `algorithm:id`.
const MAX_KEY_ID_BYTES: usize = limits::MAX_DEVICE_ID_BYTES + 64;
const ED25519_BYTES: usize = 32;

/// A one-time or fallback key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTimeKey {
    pub algorithm: String,
    pub key_id: String,
    /// Canonical.
    pub json: String,
}

/// What a cross-signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    Master,
    SelfSigning,
    UserSigning,
}

impl Usage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// An object that can be signed.
#[derive(Clone, Debug)]
pub struct Signable(CanonicalJsonObject);

/// A cross-signing key.
#[derive(Clone, Debug)]
pub struct CrossSigningKey {
    pub usage: Usage,
    /// Unpadded base64: also its name.
    pub public: String,
    bytes: Vec<u8>,
    object: Signable,
}

/// The identity keys of a device, in canonical form.
pub fn device_keys(json: &str, user: &UserId, device: &str) -> Result<String> {
    let mut object = object(json, limits::MAX_DEVICE_KEYS_BYTES)?;
    object.remove("unsigned");
    if text(&object, "user_id")? != user.as_str() || text(&object, "device_id")? != device {
        return Err(Error::invalid_param("These are not the keys of the device that uploads them"));
    }
    let algorithms = object.get("algorithms").and_then(CanonicalJsonValue::as_array);
    let algorithms = algorithms.ok_or_else(|| bad("`algorithms` is a list of names"))?;
    if algorithms.len() > MOST_ENTRIES || !algorithms.iter().all(|a| a.as_str().is_some_and(is_name)) {
        return Err(bad("`algorithms` is a list of names"));
    }
    for (id, key) in map(&object, "keys")? {
        let key = key.as_str().ok_or_else(|| bad("A key is a text"))?;
        match id.split_once(':') {
            Some((algorithm, of)) if is_name(algorithm) && of == device => {
                if matches!(algorithm, "ed25519" | "curve25519") && decoded(key).is_none() {
                    return Err(bad("A key of this algorithm has 32 bytes in unpadded base64"));
                }
            }
            _ => return Err(bad("A key of a device is called by its algorithm and the id of the device")),
        }
    }
    check_signatures(object.get("signatures"))?;
    // What others signed is uploaded elsewhere, and looked at there.
    if let Some(CanonicalJsonValue::Object(signatures)) = object.get_mut("signatures") {
        signatures.retain(|signer, _| *signer == user.as_str());
    }
    serde_json::to_string(&object).map_err(Error::internal)
}

/// A one-time or fallback key by its name, `algorithm:id`.
pub fn one_time_key(name: &str, json: &str) -> Result<OneTimeKey> {
    let Some((algorithm, key_id)) = name.split_once(':').filter(|(a, id)| is_name(a) && is_name(id)) else {
        return Err(bad("A one-time key is called by its algorithm and an id"));
    };
    if json.len() > limits::MAX_ONE_TIME_KEY_BYTES {
        return Err(Error::too_large(format!("A one-time key has at most {} bytes", limits::MAX_ONE_TIME_KEY_BYTES)));
    }
    let json = if algorithm != "signed_curve25519" && json.starts_with('"') {
        let key: String = serde_json::from_str(json).map_err(|e| bad(e.to_string()))?;
        check_key(algorithm, &key)?;
        serde_json::to_string(&key)
    } else {
        let object = object(json, limits::MAX_ONE_TIME_KEY_BYTES)?;
        check_key(algorithm, text(&object, "key")?)?;
        match object.get("signatures") {
            None if algorithm != "signed_curve25519" => {}
            signatures => check_signatures(signatures)?,
        }
        serde_json::to_string(&object)
    };
    Ok(OneTimeKey { algorithm: algorithm.to_owned(), key_id: key_id.to_owned(), json: json.map_err(Error::internal)? })
}

fn check_key(algorithm: &str, key: &str) -> Result<()> {
    if matches!(algorithm, "curve25519" | "signed_curve25519") && decoded(key).is_none() {
        return Err(bad("A key of this algorithm has 32 bytes in unpadded base64"));
    }
    Ok(())
}

impl CrossSigningKey {
    pub fn parse(json: &str, user: &UserId, usage: Usage) -> Result<Self> {
        let mut object = object(json, limits::MAX_DEVICE_KEYS_BYTES)?;
        object.remove("unsigned");
        if text(&object, "user_id")? != user.as_str() {
            return Err(Error::invalid_param("This is a key of another user"));
        }
        let usages = object.get("usage").and_then(CanonicalJsonValue::as_array);
        if !usages.is_some_and(|list| list.len() == 1 && list[0].as_str() == Some(usage.as_str())) {
            return Err(Error::invalid_param(format!("The usage of this key is not {}", usage.as_str())));
        }
        if object.contains_key("signatures") {
            check_signatures(object.get("signatures"))?;
        }
        let mut keys = map(&object, "keys")?.iter();
        let (Some((name, key)), None) = (keys.next(), keys.next()) else {
            return Err(Error::invalid_param("A cross-signing key is one key"));
        };
        let public = key.as_str().unwrap_or_default().to_owned();
        let named = name.strip_prefix("ed25519:").is_some_and(|id| id == public);
        let Some(bytes) = decoded(&public).filter(|_| named) else {
            return Err(Error::invalid_param("A cross-signing key is an Ed25519 key that is called by itself"));
        };
        Ok(Self { usage, public, bytes, object: Signable(object) })
    }

    /// By which its signatures are found.
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.public)
    }

    pub fn object(&self) -> &Signable {
        &self.object
    }

    /// Whether this key of `user` signed that.
    pub fn has_signed(&self, user: &UserId, what: &Signable) -> bool {
        what.is_signed_by(user, &self.key_id(), &self.bytes)
    }

    /// What is kept of it, with no signatures but this one of its owner's.
    pub fn stored_with(&self, user: &UserId, signed_by: Option<&str>) -> Result<String> {
        let mut object = self.object.0.clone();
        let signature = signed_by.and_then(|key| Some((key, self.object.signature(user, key)?.to_owned())));
        object.remove("signatures");
        if let Some((key, signature)) = signature {
            let by_key = CanonicalJsonObject::from([(key.to_owned(), signature.into())]);
            let by_user = CanonicalJsonObject::from([(user.to_string(), by_key.into())]);
            object.insert("signatures".to_owned(), by_user.into());
        }
        serde_json::to_string(&object).map_err(Error::internal)
    }
}

impl Signable {
    pub fn parse(json: &str) -> Result<Self> {
        let object = object(json, limits::MAX_DEVICE_KEYS_BYTES)?;
        if object.contains_key("signatures") {
            check_signatures(object.get("signatures"))?;
        }
        Ok(Self(object))
    }

    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// The key of this name, in a device's or a cross-signing key's `keys`.
    pub fn key(&self, name: &str) -> Option<Vec<u8>> {
        decoded(self.0.get("keys")?.as_object()?.get(name)?.as_str()?)
    }

    /// The names of the keys with which a user signed it, and the signatures.
    pub fn signatures(&self, user: &UserId) -> impl Iterator<Item = (&str, &str)> {
        let of_user = self.0.get("signatures").and_then(|all| all.as_object()?.get(user.as_str())?.as_object());
        of_user.into_iter().flatten().filter_map(|(key, signature)| Some((key.as_str(), signature.as_str()?)))
    }

    fn signature(&self, user: &UserId, key_id: &str) -> Option<&str> {
        self.signatures(user).find(|(key, _)| *key == key_id).map(|(_, signature)| signature)
    }

    /// What the signatures are of.
    pub fn signed_part(&self) -> Result<String> {
        to_canonical_json_string_for_signing(&self.0).map_err(Error::internal)
    }

    pub fn is_signed_by(&self, user: &UserId, key_id: &str, public: &[u8]) -> bool {
        let Some(signature) = self.signature(user, key_id) else { return false };
        let (Ok(signature), Ok(signed)) = (Base64::<Standard>::parse(signature), self.signed_part()) else {
            return false;
        };
        let algorithm = SigningKeyAlgorithm::Ed25519;
        verify_canonical_json_bytes(&algorithm, public, signature.as_bytes(), signed.as_bytes()).is_ok()
    }
}

/// A stored object with further signatures, each by signer, name of the key and signature, and with what the device is
/// called.
pub fn shown<'a>(
    json: &str,
    signatures: impl IntoIterator<Item = [&'a str; 3]>,
    display_name: Option<&str>,
) -> Result<String> {
    let mut signatures = signatures.into_iter().peekable();
    if signatures.peek().is_none() && display_name.is_none() {
        return Ok(json.to_owned());
    }
    let mut object: CanonicalJsonObject = serde_json::from_str(json).map_err(Error::internal)?;
    for [signer, key, signature] in signatures {
        let all = object.entry("signatures".to_owned()).or_insert_with(|| CanonicalJsonObject::new().into());
        let CanonicalJsonValue::Object(all) = all else { continue };
        let of_signer = all.entry(signer.to_owned()).or_insert_with(|| CanonicalJsonObject::new().into());
        let CanonicalJsonValue::Object(of_signer) = of_signer else { continue };
        of_signer.insert(key.to_owned(), signature.to_owned().into());
    }
    if let Some(name) = display_name {
        let named = CanonicalJsonObject::from([("device_display_name".to_owned(), name.to_owned().into())]);
        object.insert("unsigned".to_owned(), named.into());
    }
    serde_json::to_string(&object).map_err(Error::internal)
}

pub fn invalid_signature(why: &'static str) -> Error {
    Error::new(Kind::InvalidSignature, why)
}

fn object(json: &str, max_bytes: usize) -> Result<CanonicalJsonObject> {
    if json.len() > max_bytes {
        return Err(Error::too_large(format!("Such a key has at most {max_bytes} bytes")));
    }
    canonical::parse_object(json)
}

fn text<'a>(object: &'a CanonicalJsonObject, field: &str) -> Result<&'a str> {
    object
        .get(field)
        .and_then(CanonicalJsonValue::as_str)
        .ok_or_else(|| bad(format!("`{field}` is missing, or no text")))
}

fn map<'a>(object: &'a CanonicalJsonObject, field: &str) -> Result<&'a CanonicalJsonObject> {
    let map = object.get(field).and_then(CanonicalJsonValue::as_object);
    map.filter(|map| map.len() <= MOST_ENTRIES)
        .ok_or_else(|| bad(format!("`{field}` is missing, or no map of fit size")))
}

fn check_signatures(signatures: Option<&CanonicalJsonValue>) -> Result<()> {
    let refused = || bad("`signatures` are by user and by the name of the key");
    let by_user = signatures.and_then(CanonicalJsonValue::as_object).ok_or_else(refused)?;
    for (user, by_key) in by_user {
        let by_key = by_key.as_object().filter(|by_key| by_key.len() <= MOST_ENTRIES).ok_or_else(refused)?;
        let names = by_key.iter().all(|(name, signature)| is_key_id(name) && signature.as_str().is_some());
        if !names || UserId::parse(user.as_str()).is_err() || user.len() > limits::MAX_ID_BYTES {
            return Err(refused());
        }
    }
    if by_user.len() > MOST_ENTRIES { Err(refused()) } else { Ok(()) }
}

fn is_key_id(name: &str) -> bool {
    name.len() <= MAX_KEY_ID_BYTES && name.split_once(':').is_some_and(|(a, id)| is_name(a) && !id.is_empty())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= limits::MAX_ID_BYTES && !name.chars().any(char::is_control)
}

/// The bytes of an Ed25519 or Curve25519 key.
fn decoded(key: &str) -> Option<Vec<u8>> {
    let bytes = Base64::<Standard>::parse(key).ok()?.into_inner();
    (bytes.len() == ED25519_BYTES).then_some(bytes)
}

fn bad(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::bad_json(why)
}

#[cfg(test)]
mod tests;
