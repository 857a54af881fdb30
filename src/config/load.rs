//! From files, the environment and the command line to a [`Config`], with everything that is to be said about them.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use ruma::RoomVersionId;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Addresses, Backend, Config, Media, Registration, Secret, keys, sso};

/// The prefixes of the environment variables that are read: those of the servers that operators come from.
const PREFIXES: [&str; 4] = ["CONDUIT_", "CONDUWUIT_", "CONTINUWUITY_", "TUWUNEL_"];

/// Where settings come from; each wins over those before it.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub files: Vec<PathBuf>,
    /// The whole environment, of which only what has a known prefix is looked at.
    pub environment: Vec<(String, String)>,
    /// `key=value`, the value in TOML.
    pub options: Vec<String>,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub weight: Weight,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Works, but should be known.
    Notice,
    /// A key that other servers of the family have and that does nothing here.
    NoEffect,
    /// A key that nobody knows: probably a slip, and then something is not set that was meant to be.
    Unknown,
    /// The server can't or must not start with this.
    Wrong,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.weight {
            Weight::Notice | Weight::NoEffect => "note",
            Weight::Unknown => "warning",
            Weight::Wrong => "error",
        };
        write!(f, "{word}: {}", self.text)
    }
}

/// What came out. With a [`Weight::Wrong`] among the findings, `config` must not be used.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub findings: Vec<Finding>,
}

impl Loaded {
    pub fn heaviest(&self) -> Option<Weight> {
        self.findings.iter().map(|f| f.weight).max()
    }
}

impl Sources {
    /// The files that the environment names, then those of the command line.
    pub fn new(environment: Vec<(String, String)>, files: Vec<PathBuf>, options: Vec<String>) -> Self {
        let named = PREFIXES.iter().flat_map(|prefix| {
            let name = format!("{prefix}CONFIG");
            environment.iter().filter(move |(key, value)| *key == name && !value.is_empty())
        });
        let files = named.map(|(_, value)| PathBuf::from(value)).chain(files).collect();
        Self { files, environment, options }
    }

    pub fn load(&self) -> Loaded {
        let mut reader = Reader::default();
        for file in &self.files {
            reader.file(file);
        }
        for (name, value) in &self.environment {
            reader.variable(name, value);
        }
        for option in &self.options {
            reader.option(option);
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader {
    values: BTreeMap<String, Value>,
    findings: Vec<Finding>,
}

impl Reader {
    fn find(&mut self, weight: Weight, text: impl Into<String>) {
        self.findings.push(Finding { weight, text: text.into() });
    }

    fn file(&mut self, path: &Path) {
        let from = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => return self.find(Weight::Wrong, format!("{from}: {e}")),
        };
        // Of a TOML error only where it is: the line may hold a secret.
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(e) => return self.find(Weight::Wrong, format!("{from}: {}", toml_error(&text, &e))),
        };
        for (key, value) in table {
            match (key.as_str(), value) {
                ("global", Value::Table(global)) => {
                    for (key, value) in global {
                        self.set(&key, vec![value], &from);
                    }
                }
                _ => {
                    self.find(Weight::Unknown, format!("{from}: `{key}` stands outside of `[global]` and is not read"));
                }
            }
        }
    }

    fn variable(&mut self, name: &str, value: &str) {
        let Some(short) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else { return };
        if short != "CONFIG" {
            self.set(&keys::from_variable(short), readings(value), name);
        }
    }

    fn option(&mut self, option: &str) {
        match option.split_once('=') {
            Some((key, value)) => self.set(key.trim(), readings(value.trim()), &format!("-O {}", key.trim())),
            None => self.find(Weight::Wrong, "-O wants key=value".to_owned()),
        }
    }

    /// Sets a key to the first of the readings of its value that it takes.
    fn set(&mut self, key: &str, readings: Vec<Value>, from: &str) {
        if keys::is_table(key)
            && let Some(Value::Table(table)) = readings.first()
        {
            for (inner, value) in table.clone() {
                self.set(&format!("{key}.{inner}"), vec![value], from);
            }
            return;
        }
        if !keys::is_table(key) && !keys::is_list(key) && !keys::all().iter().any(|k| k == key) {
            return self.stranger(key, from);
        }
        if keys::is_list(key) {
            self.strangers_within(key, readings.first(), from);
        }
        let mut refusal = None;
        for reading in readings {
            match keys::takes(key, &reading) {
                Ok(()) => {
                    self.values.insert(key.to_owned(), reading);
                    return;
                }
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        let why = refusal.unwrap_or_default();
        let text = match key {
            "database_backend" => format!(
                "{from}: `database_backend` is \"sqlite\" or \"postgres\". A database of another server can't be opened."
            ),
            _ => format!("{from}: `{key}`: {why}"),
        };
        self.find(Weight::Wrong, text);
    }

    /// A list of tables is taken as a whole; what nobody knows in them is named all the same.
    fn strangers_within(&mut self, key: &str, list: Option<&Value>, from: &str) {
        let tables = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table);
        let names: Vec<String> = tables.flat_map(|table| table.keys().map(|inner| format!("{key}.{inner}"))).collect();
        for name in names.iter().filter(|name| !keys::all().contains(name)) {
            self.stranger(name, from);
        }
    }

    fn stranger(&mut self, key: &str, from: &str) {
        if let Some(hint) = keys::elsewhere(key) {
            let hint = if hint.is_empty() { String::new() } else { format!(": {hint}") };
            return self.find(Weight::NoEffect, format!("{from}: `{key}` has no effect here{hint}"));
        }
        let near = keys::nearest(key).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.find(Weight::Unknown, format!("{from}: there is no key `{key}`{near}"));
    }

    fn finish(mut self) -> Loaded {
        let mut table = Table::new();
        for (key, value) in std::mem::take(&mut self.values) {
            merge(&mut table, keys::nested(&key, value));
        }
        let mut config = Config {
            server: self.section(&table),
            database: self.section(&table),
            http: self.section(&table),
            registration: self.section(&table),
            sessions: self.section(&table),
            sso: self.section(&table),
            limits: self.section(&table),
            rooms: self.section(&table),
            presence: self.section(&table),
            sync: self.section(&table),
            push: self.section(&table),
            outgoing: self.section(&table),
            media: self.section(&table),
            url_preview: self.section(&table),
            turn: self.section(&table),
            log: self.section(&table),
            metrics: self.section(&table),
        };
        self.read_secrets(&mut config);
        self.judge(&config);
        self.findings.sort_by_key(|f| std::cmp::Reverse(f.weight));
        Loaded { config, findings: self.findings }
    }

    fn section<S: DeserializeOwned + Default>(&mut self, table: &Table) -> S {
        table.clone().try_into().unwrap_or_else(|e: toml::de::Error| {
            self.find(Weight::Wrong, e.message().to_owned());
            S::default()
        })
    }

    fn read_secrets(&mut self, config: &mut Config) {
        let Config { database, registration, turn, media: Media { media, .. }, sso, .. } = config;
        let providers = sso.identity_provider.iter_mut();
        let clients = providers.map(|one| ("client_secret", &mut one.client_secret, &one.client_secret_file));
        let others = [
            ("database_url", &mut database.database_url, &database.database_url_file),
            ("registration_token", &mut registration.registration_token, &registration.registration_token_file),
            (
                "registration_shared_secret",
                &mut registration.registration_shared_secret,
                &registration.registration_shared_secret_file,
            ),
            ("turn_secret", &mut turn.turn_secret, &turn.turn_secret_file),
            ("media.s3_secret_access_key", &mut media.s3_secret_access_key, &media.s3_secret_access_key_file),
        ];
        for (key, secret, file) in others.into_iter().chain(clients) {
            if let Some(file) = file {
                if secret.is_some() {
                    self.find(Weight::Wrong, format!("`{key}` and `{key}_file` are both set"));
                    continue;
                }
                match fs::read_to_string(file) {
                    Ok(text) => *secret = Some(Secret::new(text.trim_end_matches(['\n', '\r']))),
                    Err(e) => self.find(Weight::Wrong, format!("`{key}_file`: {}: {e}", file.display())),
                }
            }
            if secret.as_ref().is_some_and(|s| s.expose().is_empty()) {
                self.find(Weight::Wrong, format!("`{key}` is empty"));
            }
        }
    }

    /// What no type can see.
    fn judge(&mut self, config: &Config) {
        let Config {
            server,
            database,
            http,
            registration,
            sessions,
            sso: single,
            limits: _,
            rooms,
            presence: _,
            sync,
            push: _,
            outgoing: _,
            media,
            url_preview,
            turn,
            log,
            metrics: _,
        } = config;
        let mut must = |holds: bool, text: &str| {
            if !holds {
                self.findings.push(Finding { weight: Weight::Wrong, text: text.to_owned() });
            }
        };
        if let Some(url) = &server.well_known.client {
            must(
                url.starts_with("https://") || url.starts_with("http://"),
                "`well_known.client` is a URL: https://matrix.example.org",
            );
        }
        match database.database_backend {
            Backend::Postgres => {
                must(cfg!(feature = "postgres"), "this binary was built without the feature `postgres`");
                must(
                    database.database_url.is_some(),
                    "`database_backend = \"postgres\"` wants `database_url` or `database_url_file`",
                );
            }
            Backend::Sqlite => must(
                database.database_url.is_none(),
                "`database_url` is set, but `database_backend` is \"sqlite\": set it to \"postgres\", or remove the URL",
            ),
        }
        must(
            !matches!(&http.address, Addresses::Many(list) if list.is_empty()),
            "`address` is an empty list: nobody could reach the server",
        );
        must(
            http.max_request_size >= 64 << 10,
            "`max_request_size` is in bytes, and at least 65536: an event may be as large",
        );
        for (key, seconds) in [
            ("header_read_timeout_s", http.header_read_timeout_s),
            ("request_body_timeout_s", http.request_body_timeout_s),
            ("response_write_timeout_s", http.response_write_timeout_s),
        ] {
            must((1..=86_400).contains(&seconds), &format!("`{key}` is a number of seconds from 1 to 86400"));
        }
        let mut lifetimes = [Some(sessions.access_token_ttl), sessions.refresh_token_ttl].into_iter().flatten();
        must(
            lifetimes.all(|seconds| seconds > 0),
            "`access_token_ttl` and `refresh_token_ttl` are numbers of seconds, and at least 1",
        );
        must(
            (8..=256 << 10).contains(&registration.password_hash_memory_kib)
                && (1..=16).contains(&registration.password_hash_passes),
            "`password_hash_memory_kib` is from 8 to 262144, `password_hash_passes` from 1 to 16",
        );
        must(
            CREATABLE.contains(&rooms.default_room_version),
            "`default_room_version` is one of the versions that rooms can be created with: \"6\" to \"12\"",
        );
        must(
            sync.client_sync_timeout_min <= sync.client_sync_timeout_max
                && sync.client_sync_timeout_default <= sync.client_sync_timeout_max,
            "`client_sync_timeout_max` is less than the minimum or the default",
        );
        must(
            (10_000..=10_000_000).contains(&url_preview.url_preview_max_spider_size)
                && (1..=60).contains(&url_preview.url_preview_timeout_s),
            "`url_preview_max_spider_size` is from 10000 to 10000000, `url_preview_timeout_s` from 1 to 60",
        );
        must(
            url_preview.entries().all(|entry| !entry.trim().is_empty()),
            "an entry of the lists `url_preview_…` is empty: everything is `*`, nothing is an empty list",
        );
        must(
            turn.turn_uris.iter().all(|uri| uri.starts_with("turn:") || uri.starts_with("turns:")),
            "`turn_uris` are like turn:turn.example.org:3478?transport=udp",
        );
        must(
            turn.turn_username.is_some() == turn.turn_password.is_some(),
            "`turn_username` and `turn_password` belong together",
        );
        must(
            turn.turn_secret.is_none() || turn.turn_username.is_none(),
            "`turn_secret` and `turn_username` are both set: the relays take either",
        );
        must(
            turn.turn_uris.is_empty() || turn.turn_secret.is_some() || turn.turn_username.is_some(),
            "`turn_uris` wants `turn_secret`, or `turn_username` and `turn_password`",
        );
        must((60..=31_536_000).contains(&turn.turn_ttl), "`turn_ttl` is a number of seconds from 60 to 31536000");
        must(
            (1 << 20..=1 << 30).contains(&media.media_thumbnail_max_pixels),
            "`media_thumbnail_max_pixels` is from 1048576 to 1073741824",
        );
        for fault in media.media.faults() {
            must(false, fault);
        }
        let found = sso::judge(single, server);
        if let Err(e) = tracing_subscriber::EnvFilter::try_new(&log.log) {
            must(false, &format!("`log`: {e}"));
        }
        self.findings.extend(found);
        if registration.allow_registration && registration.registration_token.is_none() && !registration.is_open() {
            self.find(
                Weight::Notice,
                "`allow_registration` without `registration_token`: users register with a token of `hearth admin token \
                 create` only. To let anybody in, though spammers find such servers within days, say that you want it: \
                 `yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true`",
            );
        }
        let usual = Registration::default();
        if registration.password_hash_memory_kib < usual.password_hash_memory_kib
            || registration.password_hash_passes < usual.password_hash_passes
        {
            self.find(Weight::Notice, "password hashes cost less than the default: for trying out only.");
        }
        if server.server_name.as_str() == "localhost" {
            self.find(
                Weight::Notice,
                "`server_name` is localhost: for trying out only. It is part of every id and can never be changed.",
            );
        }
    }
}

/// The room versions that rooms can be created with.
pub const CREATABLE: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// What a text from outside of a file may mean: TOML if it is TOML, and itself in any case. So a port is a number, and a
/// token of digits alone can be a token.
fn readings(text: &str) -> Vec<Value> {
    let toml = format!("x = {text}").parse::<Table>().ok().and_then(|mut t| (t.len() == 1).then(|| t.remove("x"))?);
    toml.into_iter().chain([Value::String(text.to_owned())]).collect()
}

fn toml_error(text: &str, e: &toml::de::Error) -> String {
    let line = e.span().map(|s| text.get(..s.start).unwrap_or(text).matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", e.message()),
        None => e.message().to_owned(),
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
