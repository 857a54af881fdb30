//! Imports go one way. This reads every source file and finds what points upwards.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The layers, lowest first. A module uses its own layer's lower ones and itself; modules of one layer don't know each
/// other. What would have to call upwards writes a row or a wake instead.
///
/// `config`, `shutdown`, `telemetry` and `http_client` lie below the rest of the root crate, so everything above the
/// member crates may use them. They lie below storage too: none of them has business there.
const LAYERS: &[&[&str]] = &[
    &["core"],
    &["config", "shutdown"],
    &["telemetry", "http_client"],
    &["storage"],
    &["bus", "federation"],
    &["notify"],
    &["service"],
    &["sync"],
    &["api", "worker"],
    &["app"],
    &["cli"],
    &["main"],
];

/// The member crates, by the names of their folders.
const MEMBERS: [(&str, &str); 2] = [("core", "hearth_core"), ("storage", "hearth_storage")];

#[test]
fn imports_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 10, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable source");
        let name = file.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
        wrong.extend(check(&name, &text));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// By these words somebody out there is called.
const CALLS: [&str; 5] = ["hyper_util::client", "hyper::client", "reqwest", "TcpStream::connect", "lookup_host"];

/// What others chose is asked for by the one client that has a guard. (Databases are chosen by the operator.)
#[test]
fn one_client_asks_for_what_others_chose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let (mut by_the_client, mut by_others) = (0, Vec::new());
    for file in files {
        let name = file.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&file)
            .expect("a readable source")
            .replace("hyper_util::{\n    client", "hyper_util::client");
        if !CALLS.iter().any(|call| text.contains(call)) {
            continue;
        }
        match name.split(['/', '.']).next() {
            Some("http_client") => by_the_client += 1,
            Some("storage") => {}
            _ => by_others.push(name),
        }
    }
    assert!(by_the_client >= 2, "the client itself was not found");
    assert!(by_others.is_empty(), "{by_others:?}");
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// What is wrong with one file, whose name is relative to `src`.
fn check(file: &str, text: &str) -> Vec<String> {
    let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    // The crate's root holds the list of modules and nothing else.
    let Some(own) = module.first().cloned() else { return Vec::new() };
    let member = MEMBERS.iter().find(|(folder, _)| *folder == own);
    let Some(own_layer) = layer(&own) else {
        return vec![format!("src/{file}: `{own}` has no layer yet: give it one in tests/layers.rs")];
    };
    let mut wrong = Vec::new();
    for (line, path) in paths(text, &module) {
        let said = path.join("::");
        let target = match path[0].as_str() {
            "hearth" if member.is_some() => {
                wrong.push(format!("src/{file}:{line}: `{said}`: a member crate may not know the root crate"));
                continue;
            }
            name if let Some((folder, _)) = MEMBERS.iter().find(|(_, krate)| *krate == name) => folder,
            // Within a member crate, the whole crate is one layer.
            "crate" if member.is_some() => continue,
            _ => path.get(1).map_or("", String::as_str),
        };
        // `main` is the root of a crate of its own, and `*` of a root would hide where the names come from.
        match layer(target) {
            None => wrong.push(format!("src/{file}:{line}: `{said}`: `{target}` is in no layer")),
            Some(_) if target == own => {}
            Some(there) if there < own_layer => {}
            Some(there) if there == own_layer => {
                wrong
                    .push(format!("src/{file}:{line}: `{said}`: `{own}` and `{target}` are neighbours and don't meet"));
            }
            Some(_) => wrong.push(format!("src/{file}:{line}: `{said}`: `{own}` lies below `{target}`")),
        }
    }
    wrong
}

/// Every path in `text` that starts at a crate of ours, as (line, path from the crate). `module` is where the text is.
fn paths(text: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(text);
    let word = |i: usize| tokens.get(i).map_or("", |(_, t)| t.as_str());
    let mut found = Vec::new();
    // The modules written out in the file that we are in, and which braces they end with.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut i = 0;
    while i < tokens.len() {
        match word(i) {
            "{" => depth += 1,
            "}" => {
                inner.retain(|(_, at)| *at < depth);
                depth = depth.saturating_sub(1);
            }
            "mod" if word(i + 2) == "{" => inner.push((word(i + 1).to_owned(), depth + 1)),
            start @ ("crate" | "super" | "hearth" | "hearth_core" | "hearth_storage")
                if word(i + 1) == "::" && (i == 0 || word(i - 1) != "::") =>
            {
                let mut here: Vec<String> = module.to_vec();
                here.extend(inner.iter().map(|(name, _)| name.clone()));
                let mut base = match start {
                    "super" => vec!["crate".to_owned()],
                    other => vec![other.to_owned()],
                };
                let mut at = i;
                if start == "super" {
                    while word(at) == "super" {
                        here.pop();
                        at += 2;
                    }
                    base.extend(here);
                } else {
                    at += 2;
                }
                tree(&tokens, &mut at, &base, &mut found);
                i = at;
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// Reads what follows `base::`: names, or a group of them.
fn tree(tokens: &[(usize, String)], at: &mut usize, base: &[String], found: &mut Vec<(usize, Vec<String>)>) {
    let word = |i: usize| tokens.get(i).map_or("", |(_, t)| t.as_str());
    let line = tokens.get(*at).map_or(0, |(line, _)| *line);
    let mut path = base.to_vec();
    loop {
        match word(*at) {
            "{" => {
                *at += 1;
                while !matches!(word(*at), "}" | "") {
                    tree(tokens, at, &path, found);
                    if word(*at) == "as" {
                        *at += 2;
                    }
                    if word(*at) == "," {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            name if name == "*" || name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                path.push(name.to_owned());
                *at += 1;
            }
            // Not a name: `<`, as in a turbofish.
            _ => break,
        }
        if word(*at) != "::" {
            break;
        }
        *at += 1;
    }
    // Whatever it was, go on.
    if path.len() == base.len() && !matches!(word(*at), "}" | ",") {
        *at += 1;
    }
    found.push((line, path));
}

/// The words and signs of a source, without comments and literals, each with its line.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out: Vec<(usize, String)> = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let c = chars[i];
        let start = i;
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                if at(i) == '/' && at(i + 1) == '*' {
                    depth += 1;
                    i += 2;
                } else if at(i) == '*' && at(i + 1) == '/' {
                    depth -= 1;
                    i += 2;
                } else {
                    i += 1;
                }
                if depth == 0 || i >= chars.len() {
                    break;
                }
            }
        } else if let Some(end) = literal(&chars, i) {
            i = end;
        } else if c.is_alphanumeric() || c == '_' {
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            out.push((line, chars[start..i].iter().collect()));
        } else if c == ':' && at(i + 1) == ':' {
            i += 2;
            out.push((line, "::".to_owned()));
        } else {
            i += 1;
            if !c.is_whitespace() {
                out.push((line, c.to_string()));
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    out
}

/// Where the string, byte string or character that begins at `i` ends, if one does.
fn literal(chars: &[char], i: usize) -> Option<usize> {
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    if i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_') {
        return None;
    }
    let mut j = i + usize::from(matches!(at(i), 'b' | 'c'));
    if at(j) == 'r' && matches!(at(j + 1), '"' | '#') {
        j += 1;
        let hashes = (j..).take_while(|k| at(*k) == '#').count();
        j += hashes;
        if at(j) != '"' {
            return None; // r#name
        }
        j += 1;
        while j < chars.len() {
            if at(j) == '"' && (1..=hashes).all(|k| at(j + k) == '#') {
                return Some(j + 1 + hashes);
            }
            j += 1;
        }
        return Some(j);
    }
    let quote = at(j);
    match quote {
        '"' => {}
        // A lifetime has no end.
        '\'' if at(j + 1) == '\\' || at(j + 2) == '\'' => {}
        _ => return None,
    }
    j += 1;
    while j < chars.len() && at(j) != quote {
        j += 1 + usize::from(at(j) == '\\');
    }
    Some(j + 1)
}

#[test]
fn what_points_upwards_is_found() {
    let found = |file: &str, text: &str| check(file, text).len();
    // Down is fine, up is not, however it is written.
    assert_eq!(found("service/a.rs", "use crate::config::Config; use hearth_core::Error;"), 0);
    assert_eq!(found("service/a.rs", "use crate::api::Api;"), 1);
    assert_eq!(found("service/a.rs", "use crate::{config::{self, Config as C}, api::{Api, Routes}, sync::*};"), 3);
    assert_eq!(found("service/a.rs", "fn f() -> crate::app::Running { crate::worker::run::<u8>() }"), 2);
    assert_eq!(found("service/a/b.rs", "use super::super::super::api::Api;"), 1);
    assert_eq!(found("service/a/b.rs", "use super::super::accounts; use super::c;"), 0);
    assert_eq!(found("service/mod.rs", "use super::api::Api;"), 1);
    assert_eq!(found("config.rs", "use hearth_storage::Wake;"), 1);
    assert_eq!(found("config/load.rs", "use super::Config; use crate::telemetry;"), 1);
    assert_eq!(found("main.rs", "fn main() { hearth::cli::run() }"), 0);
    // Neighbours don't meet.
    assert_eq!(found("worker/a.rs", "use crate::api::Api;"), 1);
    assert_eq!(found("worker/a.rs", "use crate::worker::b;"), 0);
    // A module written out in the file is a step for `super`.
    assert_eq!(
        found("api/mod.rs", "mod tests { use super::*; use super::super::app::start; } use super::app::start;"),
        2
    );
    // Members don't know the root, nor core the storage.
    assert_eq!(found("core/a.rs", "use crate::b; use super::c;"), 0);
    assert_eq!(found("storage/a.rs", "use hearth_core::Error;"), 0);
    assert_eq!(found("storage/a.rs", "use hearth::config::Config;"), 1);
    assert_eq!(found("core/a.rs", "use hearth_storage::Wake;"), 1);
    // Words are not imports.
    assert_eq!(
        found("service/a.rs", "// crate::api\n/* /* crate::api */ crate::api */ const A: &str = \"crate::api\";"),
        0
    );
    assert_eq!(found("service/a.rs", "const A: &str = r#\"\"crate::api\"#; fn f<'a>(_: &'a u8) -> char { '\"' }"), 0);
    assert_eq!(found("service/a.rs", "pub(crate) fn f() {} pub(super) fn g() {}"), 0);
    // A module without a layer gets one.
    assert_eq!(found("newcomer.rs", ""), 1);
    assert_eq!(found("service/a.rs", "use crate::newcomer::A;"), 1);
}
