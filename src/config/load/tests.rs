use std::num::NonZeroU32;

use super::*;
use crate::config::Log;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).expect("a file");
    path
}

fn load(files: &[PathBuf], environment: &[(&str, &str)], options: &[&str]) -> Loaded {
    let options = options.iter().map(|o| (*o).to_owned()).collect();
    Sources::new(env(environment), files.to_vec(), options).load()
}

fn wrong(loaded: &Loaded) -> Vec<&str> {
    loaded.findings.iter().filter(|f| f.weight == Weight::Wrong).map(|f| f.text.as_str()).collect()
}

#[test]
fn nothing_at_all_is_enough() {
    let loaded = load(&[], &[("PATH", "/bin"), ("CONDUIT_CONFIG", "")], &[]);
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.heaviest(), Some(Weight::Notice), "only that localhost is for trying out");
}

#[test]
fn later_sources_win() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = file(&dir, "first.toml", "[global]\nport = 1\nmax_connections = 1\nlog = 'one'\nserver_name = 'one'");
    let second = file(&dir, "second.toml", "[global]\nport = 2\nmax_connections = 2\nlog = 'two'");
    let first = first.to_str().expect("a path");
    let loaded = load(
        &[second],
        &[("CONDUIT_CONFIG", first), ("CONDUIT_PORT", "3"), ("CONDUIT_MAX_CONNECTIONS", "3")],
        &["port=4"],
    );
    assert_eq!(loaded.findings, []);
    let Config { server, http, log: Log { log, .. }, .. } = loaded.config;
    assert_eq!(server.server_name.as_str(), "one");
    assert_eq!(log, "two");
    assert_eq!(http.max_connections, NonZeroU32::new(3).expect("not zero"));
    assert_eq!(http.port, 4);
}

#[test]
fn a_text_from_outside_is_toml_or_itself() {
    let loaded = load(
        &[],
        &[
            ("CONDUIT_REGISTRATION_TOKEN", "12345"),
            ("CONDUIT_DEFAULT_ROOM_VERSION", "11"),
            ("CONDUIT_ALLOW_REGISTRATION", "true"),
            ("CONDUIT_ADDRESS", "[\"127.0.0.1\", \"::1\"]"),
            ("CONDUIT_WELL_KNOWN__CLIENT", "https://matrix.example.org"),
            ("CONDUWUIT_WELL_KNOWN_SERVER", "matrix.example.org:443"),
            ("TUWUNEL_SERVER_NAME", "example.org"),
        ],
        &[],
    );
    assert_eq!(loaded.findings, []);
    let config = loaded.config;
    assert_eq!(config.registration.registration_token, Some(Secret::new("12345")));
    assert_eq!(config.rooms.default_room_version, RoomVersionId::V11);
    assert_eq!(config.http.address.iter().count(), 2);
    assert_eq!(config.server.well_known.client.as_deref(), Some("https://matrix.example.org"));
    assert_eq!(config.server.well_known.server.expect("a name").as_str(), "matrix.example.org:443");
    let one = load(&[], &[("CONDUIT_ADDRESS", "::")], &[]).config.http.address;
    assert_eq!(one, Addresses::One(std::net::Ipv6Addr::UNSPECIFIED.into()));
}

#[test]
fn a_table_can_come_in_parts() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = file(&dir, "a.toml", "[global]\nserver_name = 'a.b'\n[global.well_known]\nclient = 'https://a.b'");
    let loaded = load(&[path], &[], &["well_known={server = 'a.b:443'}"]);
    assert_eq!(loaded.findings, []);
    assert_eq!(loaded.config.server.well_known.client.as_deref(), Some("https://a.b"));
    assert!(loaded.config.server.well_known.server.is_some());
}

#[test]
fn strangers_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "port = 1\n[global]\nserver_name = 'a.b'\nportt = 1\nrocksdb_optimize = 1\n[global.tls]\ncerts = 'x'";
    let path = file(&dir, "a.toml", text);
    let loaded = load(&[path], &[("CONDUIT_WELL_KNOWN__CLEINT", "x")], &[]);
    let said: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    let said = said.join("\n");
    for part in [
        "warning: ",
        "`port` stands outside of `[global]`",
        "no key `portt`; did you mean `port`?",
        "no key `well_known.cleint`; did you mean `well_known.client`?",
        "`rocksdb_optimize` has no effect here",
        "`tls` has no effect here: TLS is ended by a proxy",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    assert_eq!(loaded.heaviest(), Some(Weight::Unknown));
    assert_eq!(loaded.config.http.port, 8008);
}

#[test]
fn every_bad_value_is_found_at_once_and_shows_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let text =
        "[global]\nport = 'x'\naddress = 'nowhere'\ndatabase_backend = 'rocksdb'\nip_source_trusted_subnets = ['10']";
    let path = file(&dir, "a.toml", text);
    let broken = file(&dir, "b.toml", "[global]\nregistration_token = swordfish");
    let loaded = load(
        &[path, broken],
        &[("CONDUIT_DEFAULT_ROOM_VERSION", "2"), ("CONDUIT_LOG", "hearth=loud")],
        &["max_request_size=1", "nonsense"],
    );
    let said = wrong(&loaded).join("\n");
    for part in
        ["`port`", "`address`", "\"sqlite\" or \"postgres\"", "`10`", "line 2", "`default_room_version`", "`log`"]
    {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    assert!(said.contains("`max_request_size`") && said.contains("-O wants"), "{said}");
    assert!(!said.contains("swordfish"), "{said}");
}

#[test]
fn a_secret_may_come_from_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = file(&dir, "token", "swordfish\n");
    let token = token.to_str().expect("a path");
    let loaded = load(&[], &[("CONDUIT_REGISTRATION_TOKEN_FILE", token)], &[]);
    assert_eq!(loaded.config.registration.registration_token, Some(Secret::new("swordfish")));
    assert!(!format!("{loaded:?}").contains("swordfish"));
    let both = load(&[], &[("CONDUIT_REGISTRATION_TOKEN_FILE", token)], &["registration_token=x"]);
    assert_eq!(wrong(&both).len(), 1);
    let none = load(&[], &[("CONDUIT_REGISTRATION_TOKEN_FILE", "/nowhere")], &[]);
    assert_eq!(wrong(&none).len(), 1);
    let empty = load(&[], &[("CONDUIT_REGISTRATION_TOKEN", "")], &[]);
    assert_eq!(wrong(&empty), ["`registration_token` is empty"]);
}

#[test]
fn open_registration_has_to_be_said_twice() {
    let open = "yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse=true";
    let half = load(&[], &[], &["allow_registration=true"]);
    assert!(!half.config.registration.is_open());
    assert!(half.findings.iter().any(|f| f.text.contains("yes_i_am_very_very_sure")), "{half:?}");
    assert!(load(&[], &[], &["allow_registration=true", open]).config.registration.is_open());
    assert!(!load(&[], &[], &[open]).config.registration.is_open());
    let token = load(&[], &[], &["allow_registration=true", open, "registration_token=x"]);
    assert_eq!(wrong(&token), [""; 0]);
    assert!(!token.config.registration.is_open());
}

#[test]
fn relays_take_a_secret_or_credentials() {
    let relays = r#"turn_uris=["turn:turn.example.org?transport=udp"]"#;
    let wrongs = |options: &[&str]| wrong(&load(&[], &[], options)).len();
    assert_eq!(wrongs(&[relays]), 1);
    assert_eq!(wrongs(&[relays, "turn_secret=x"]), 0);
    assert_eq!(wrongs(&[relays, "turn_username=x", "turn_password=y"]), 0);
    assert_eq!(wrongs(&[relays, "turn_username=x", "turn_password=y", "turn_secret=z"]), 1);
    assert_eq!(wrongs(&["turn_username=x"]), 1);
    assert_eq!(wrongs(&[r#"turn_uris=["https://turn.example.org"]"#, "turn_secret=x"]), 1);
    assert_eq!(wrongs(&["turn_ttl=59"]), 1);
    let dir = tempfile::tempdir().expect("a directory");
    let secret = file(&dir, "secret", "swordfish\n");
    let loaded = load(&[], &[("CONDUIT_TURN_SECRET_FILE", secret.to_str().expect("a path"))], &[relays]);
    assert_eq!(loaded.config.turn.turn_secret, Some(Secret::new("swordfish")));
}

#[test]
fn providers_are_a_list_of_tables() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = file(&dir, "secret", "swordfish\n");
    let text = format!(
        "[global]\nserver_name = 'a.b'\n[global.well_known]\nclient = 'https://a.b'\n\
         [[global.identity_provider]]\nid = 'one'\nissuer_url = 'https://one.b'\nclient_id = 'x'\n\
         client_secret_file = '{}'\nuserid_claims = []\n\
         [[global.identity_provider]]\nid = 'two'\nissuer_url = 'https://two.b'\nclient_id = 'y'\nregistraton = true",
        secret.display()
    );
    let loaded = load(&[file(&dir, "a.toml", &text)], &[], &[]);
    let said: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    let said = said.join("\n");
    assert!(said.contains("did you mean `identity_provider.registration`?"), "{said}");
    assert!(said.contains("`identity_provider.userid_claims` has no effect here"), "{said}");
    assert_eq!(wrong(&loaded), [""; 0]);
    let [one, two] = &loaded.config.sso.identity_provider[..] else { panic!("two providers") };
    assert_eq!((one.id(), two.id()), ("one".to_owned(), "two".to_owned()));
    assert_eq!(one.client_secret, Some(Secret::new("swordfish")));
    assert!(!format!("{loaded:?}").contains("swordfish"));
    let other = load(&[], &[("CONDUIT_IDENTITY_PROVIDER", "[{ id = 'A', issuer_url = 'x' }]")], &[]);
    assert_eq!(wrong(&other).len(), 4, "{other:?}");
}

#[test]
fn postgres_wants_to_know_where() {
    assert_eq!(wrong(&load(&[], &[], &["database_backend=postgres"])).len(), 1);
    assert_eq!(wrong(&load(&[], &[], &["database_url=postgres://x"])).len(), 1);
    let both = load(&[], &[], &["database_backend=postgres", "database_url=postgres://x"]);
    assert_eq!(wrong(&both), [""; 0]);
}

#[test]
fn the_example_is_complete_and_true() {
    let text = super::super::EXAMPLE;
    let mut named = Vec::new();
    let mut table = String::new();
    let mut active = String::new();
    let mut listed = String::new();
    for line in text.lines() {
        // `#key = value` is a default, `#key =` a key without one, `# words` an explanation.
        let line = line.strip_prefix('#').filter(|l| !l.starts_with(' ') && !l.is_empty()).unwrap_or(line);
        let list = line.strip_prefix("[[global.");
        if let Some(inner) = list.or_else(|| line.strip_prefix("[global.")) {
            table = format!("{}.", inner.trim_end_matches(']'));
        }
        let Some((key, value)) =
            line.split_once('=').filter(|(key, _)| !key.trim().contains(' ') && !key.starts_with('#'))
        else {
            if line.starts_with('[') && list.is_none() {
                active.push_str(line);
                active.push('\n');
            }
            continue;
        };
        named.push(format!("{table}{}", key.trim()));
        if !value.trim().is_empty() {
            // There is no provider unless somebody adds one.
            let into = if table == "identity_provider." { &mut listed } else { &mut active };
            into.push_str(line);
            into.push('\n');
        }
    }
    let provider: crate::config::IdentityProvider = toml::from_str(&listed).expect("a provider");
    assert_eq!(provider, crate::config::IdentityProvider::default());
    let mut keys = keys::all();
    keys.sort();
    named.sort();
    assert_eq!(named, keys, "the keys of the example and those of the structs");

    let dir = tempfile::tempdir().expect("a directory");
    let loaded = load(&[file(&dir, "example.toml", &active)], &[], &[]);
    assert_eq!(loaded.config, Config::default(), "the values of the example are the defaults");
    let untouched = load(&[file(&dir, "untouched.toml", text)], &[], &[]);
    assert_eq!(untouched.config, Config::default());
    assert_eq!(loaded.heaviest(), Some(Weight::Notice));
}
