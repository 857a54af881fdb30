//! Which keys there are, and which there are elsewhere.

use serde::{
    Deserialize,
    de::{DeserializeOwned, Visitor, value::Error as NoValue},
};
use toml::Table;

use super::{
    Database, Http, IdentityProvider, Limits, Log, Media, MediaStore, Metrics, Outgoing, Presence, Push, RateLimit,
    Registration, Rooms, Server, Sessions, Sso, Sync, Turn, UrlPreview, WellKnown,
};

/// One struct of the configuration: its keys, and whether it takes the value of one.
struct Section {
    keys: &'static [&'static str],
    takes: fn(Table) -> Result<(), String>,
}

fn section<S: DeserializeOwned>() -> Section {
    Section { keys: field_names::<S>(), takes: |table| table.try_into::<S>().map(drop).map_err(|e| e.message().into()) }
}

fn sections() -> [Section; 17] {
    [
        section::<Server>(),
        section::<Database>(),
        section::<Http>(),
        section::<Registration>(),
        section::<Sessions>(),
        section::<Sso>(),
        section::<Limits>(),
        section::<Rooms>(),
        section::<Presence>(),
        section::<Sync>(),
        section::<Push>(),
        section::<Outgoing>(),
        section::<Media>(),
        section::<UrlPreview>(),
        section::<Turn>(),
        section::<Log>(),
        section::<Metrics>(),
    ]
}

/// The tables under `[global]`, with their keys.
fn tables() -> [(&'static str, &'static [&'static str]); 3] {
    [
        ("well_known", field_names::<WellKnown>()),
        ("rate_limit", field_names::<RateLimit>()),
        ("media", field_names::<MediaStore>()),
    ]
}

/// The same for lists of tables, of which there may be any number.
fn lists() -> [(&'static str, &'static [&'static str]); 1] {
    [("identity_provider", field_names::<IdentityProvider>())]
}

pub(super) fn is_table(key: &str) -> bool {
    tables().iter().any(|(name, _)| *name == key)
}

pub(super) fn is_list(key: &str) -> bool {
    lists().iter().any(|(name, _)| *name == key)
}

/// Every key, those of a table as `table.key`.
pub(super) fn all() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for key in sections().iter().flat_map(|s| s.keys) {
        match tables().iter().chain(&lists()).find(|(name, _)| name == key) {
            Some((name, keys)) => all.extend(keys.iter().map(|k| format!("{name}.{k}"))),
            None => all.push((*key).to_owned()),
        }
    }
    all
}

/// The same, as the name of an environment variable may have them.
pub(super) fn from_variable(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let dotted = name.replace("__", ".");
    if dotted != name {
        return dotted;
    }
    // The older way: one underscore between table and key.
    for (table, keys) in tables() {
        let key = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('_'));
        if let Some(key) = key.filter(|k| keys.contains(k)) {
            return format!("{table}.{key}");
        }
    }
    name
}

/// Whether a key of ours takes this value; if not, why.
pub(super) fn takes(key: &str, value: &toml::Value) -> Result<(), String> {
    let table = nested(key, value.clone());
    let top = key.split('.').next().unwrap_or(key);
    match sections().iter().find(|s| s.keys.contains(&top)) {
        Some(section) => (section.takes)(table),
        None => Err("there is no such key".to_owned()),
    }
}

/// `a.b` and a value as `{a: {b: value}}`.
pub(super) fn nested(key: &str, value: toml::Value) -> Table {
    match key.split_once('.') {
        Some((table, rest)) => Table::from_iter([(table.to_owned(), toml::Value::Table(nested(rest, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

/// The key of ours that a wrong one was probably meant to be.
pub(super) fn nearest(wrong: &str) -> Option<String> {
    all()
        .into_iter()
        .map(|key| (strsim::damerau_levenshtein(wrong, &key), key))
        .filter(|(distance, key)| *distance <= 1.max(key.len().min(wrong.len()) / 4))
        .min()
        .map(|(_, key)| key)
}

/// Keys of the Conduit family that mean nothing here, with what an operator should know where it matters.
const ELSEWHERE: &[(&str, &str)] = &[
    ("admin_console_automatic", ""),
    ("admin_execute", ""),
    ("allow_check_for_updates", "this server doesn't look for updates"),
    ("allow_encryption", "encryption can't be forbidden"),
    ("allow_federation", "there is no federation yet"),
    ("allow_jaeger", ""),
    ("allow_local_read_receipts", ""),
    ("allow_local_typing", ""),
    ("allow_room_creation", "users can create rooms"),
    ("allow_unstable_room_versions", "only stable versions can be created"),
    ("cleanup_second_interval", ""),
    ("conduit_cache_capacity_modifier", ""),
    ("create_admin_room", ""),
    ("database_backup_path", "back up the database with its own means"),
    ("db_cache_capacity_mb", ""),
    ("emergency_password", "use `hearth admin`"),
    ("enable_lightning_bolt", ""),
    ("error_on_unknown_config_opts", "use `hearth config check`"),
    ("grant_admin_to_first_user", "use `hearth admin`"),
    ("ip_source", "see `ip_source_trusted_subnets`"),
    ("jwt", ""),
    ("jwt_secret", ""),
    ("ldap", ""),
    ("max_concurrent_requests", "see `max_connections`"),
    ("max_fetch_prev_events", ""),
    ("pdu_cache_capacity", ""),
    ("proxy", ""),
    ("smtp", ""),
    ("tls", "TLS is ended by a proxy in front; this server speaks plain HTTP"),
    ("tracing_flame", ""),
    ("trusted_servers", "there is no federation yet"),
    ("turn_allow_guests", "there are no guests"),
    ("unix_socket_path", "see `address` and `port`"),
    ("unix_socket_perms", ""),
    ("url_preview_allow_audio_video", "of audio and video nothing is read"),
    ("url_preview_bound_interface", ""),
    ("url_preview_user_agent", ""),
];

/// The same for those of an identity provider.
const ELSEWHERE_IN_PROVIDERS: &[(&str, &str)] = &[
    ("authorization_url", "the provider says so itself"),
    ("base_path", "the provider is found by `issuer_url`"),
    ("check_cookie", "it is always checked"),
    ("default", "people choose"),
    ("discovery", "the provider says itself where it is asked"),
    ("discovery_url", "the provider is found by `issuer_url`"),
    ("forward_action_prompt", ""),
    ("introspection_url", ""),
    ("revocation_url", ""),
    ("token_url", "the provider says so itself"),
    ("unique_id_fallbacks", "who has no name that is free chooses one"),
    ("userid_claims", "see `localpart_template`"),
    ("userinfo_url", "the provider says so itself"),
];

/// The beginnings and ends of whole families of such keys.
const ELSEWHERE_FROM: &[&str] = &[
    "allow_incoming_",
    "allow_outgoing_",
    "dns_",
    "media_compat_",
    "media_rc_",
    "media_startup_",
    "rocksdb_",
    "sender_",
    "sentry",
    "zstd_",
];
const ELSEWHERE_TO: &[&str] = &["_cache_capacity", "_cache_size"];

/// Of a key that other servers of the family have and that has no effect here: a hint, which may be empty.
pub(super) fn elsewhere(key: &str) -> Option<&'static str> {
    if let Some(key) = key.strip_prefix("identity_provider.") {
        return ELSEWHERE_IN_PROVIDERS.iter().find(|(name, _)| *name == key).map(|(_, hint)| *hint);
    }
    let top = key.split('.').next().unwrap_or(key);
    if let Some((_, hint)) = ELSEWHERE.iter().find(|(name, _)| *name == top) {
        return Some(hint);
    }
    let family = ELSEWHERE_FROM.iter().any(|p| top.starts_with(p)) || ELSEWHERE_TO.iter().any(|s| top.ends_with(s));
    family.then_some("")
}

/// The names of the fields of a struct, as its `Deserialize` announces them.
fn field_names<'de, S: Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for Names<'_> {
        type Error = NoValue;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, NoValue> {
            *self.0 = fields;
            Err(serde::de::Error::custom("only the names"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NoValue> {
            Err(serde::de::Error::custom("not a struct"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    // It ends in the error above, once the names are known.
    let _ = S::deserialize(Names(&mut names));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_names_a_key() {
        assert_eq!(from_variable("SERVER_NAME"), "server_name");
        assert_eq!(from_variable("WELL_KNOWN__CLIENT"), "well_known.client");
        assert_eq!(from_variable("WELL_KNOWN_CLIENT"), "well_known.client");
        assert_eq!(from_variable("WELL_KNOWN_NOTHING"), "well_known_nothing");
    }

    #[test]
    fn a_slip_of_the_pen_is_seen() {
        assert_eq!(nearest("serber_name").as_deref(), Some("server_name"));
        assert_eq!(nearest("allow_registrations").as_deref(), Some("allow_registration"));
        assert_eq!(nearest("well_known.clent").as_deref(), Some("well_known.client"));
        assert_eq!(nearest("prot").as_deref(), Some("port"));
        assert_eq!(nearest("something_else_entirely"), None);
        assert_eq!(nearest("foo"), None);
    }

    #[test]
    fn no_key_is_both_here_and_elsewhere() {
        for key in all() {
            assert_eq!(elsewhere(&key), None, "{key}");
        }
    }
}
