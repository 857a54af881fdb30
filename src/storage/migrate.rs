//! The schema's steps, and which of them a database still needs. The engines run them, each under its own lock.

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    tx::{Row, statements},
};

/// One numbered step, with its text for either dialect.
pub(crate) struct Migration {
    /// `0001_stream`
    pub(crate) name: &'static str,
    pub(crate) sqlite: &'static str,
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    pub(crate) postgres: &'static str,
    /// The texts are one, and its types mean to each database what suits it.
    shared: bool,
}

/// One text for both: `0001_stream.sql`.
macro_rules! both {
    ($name:literal) => {{
        const TEXT: &str = include_str!(concat!("../../migrations/", $name, ".sql"));
        Migration { name: $name, sqlite: TEXT, postgres: TEXT, shared: true }
    }};
}

/// A text each: `0001_search.sqlite.sql` and `0001_search.postgres.sql`.
macro_rules! apart {
    ($name:literal) => {
        Migration {
            name: $name,
            sqlite: include_str!(concat!("../../migrations/", $name, ".sqlite.sql")),
            postgres: include_str!(concat!("../../migrations/", $name, ".postgres.sql")),
            shared: false,
        }
    };
}

/// Every step, in order.
const MIGRATIONS: &[Migration] = &[
    both!("0001_stream"),
    both!("0002_accounts"),
    both!("0003_rooms"),
    both!("0004_directory"),
    both!("0005_user_directory"),
    both!("0006_refresh_tokens"),
    both!("0007_unread"),
    both!("0008_indexes"),
    both!("0009_reports_and_totals"),
    both!("0010_to_device"),
    both!("0011_key_backup"),
    both!("0012_keys"),
    both!("0013_relations"),
    apart!("0014_relations_before"),
    both!("0015_dehydrated_devices"),
    both!("0016_push_rules"),
    both!("0017_pushers"),
    both!("0018_sliding"),
    both!("0019_thread_subscriptions"),
    both!("0020_key_counts"),
    both!("0021_relations_by_place"),
    both!("0022_to_device_bytes"),
    both!("0023_media"),
    both!("0024_sso"),
    both!("0025_url_previews"),
];

pub(crate) const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_ms BIGINT NOT NULL)";

statements! {
    APPLIED = "SELECT number, name, checksum FROM schema_migrations ORDER BY number";
    RECORD = "INSERT INTO schema_migrations (number, name, checksum, applied_ms) VALUES ($1, $2, $3, $4)";
}

#[derive(Clone, Copy)]
pub(crate) enum Dialect {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

/// A step to take: run `sql`, then [`RECORD`] it.
pub(crate) struct Step {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) checksum: String,
    pub(crate) sql: String,
}

/// The step after those that the database has ([`APPLIED`]), if there is one.
pub(crate) fn next_step(applied: Vec<Row>, dialect: Dialect) -> Result<Option<Step>> {
    next_of(MIGRATIONS, applied, dialect)
}

fn next_of(migrations: &'static [Migration], applied: Vec<Row>, dialect: Dialect) -> Result<Option<Step>> {
    let mut steps = (1..).zip(migrations).map(|(number, migration)| Step::new(number, migration, dialect));
    for mut row in applied {
        let (number, name, checksum): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let Some(step) = steps.next() else {
            return Err(Error::Migration(format!(
                "the database has the step {name}, this program knows only {} steps: the database was written by a \
                 newer version, start that one or a later one",
                migrations.len()
            )));
        };
        if step.number != number || step.name != name {
            return Err(Error::Migration(format!(
                "the database has the step {name} as number {number} where this program has {}: they do not come \
                 from the same line of versions",
                step.name
            )));
        }
        if step.checksum != checksum {
            return Err(Error::Migration(format!(
                "the step {name} is not what it was when it was applied to this database; a step never changes once \
                 it was released, so this program or the database has been altered"
            )));
        }
    }
    Ok(steps.next())
}

impl Step {
    fn new(number: i64, migration: &Migration, dialect: Dialect) -> Self {
        let (text, sql) = match dialect {
            Dialect::Sqlite => (migration.sqlite, for_sqlite(migration.sqlite)),
            #[cfg(feature = "postgres")]
            Dialect::Postgres => (migration.postgres, for_postgres(migration.postgres)),
        };
        let sql = if migration.shared { sql } else { text.to_owned() };
        let checksum = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { number, name: migration.name, checksum, sql }
    }
}

/// To SQLite only `INTEGER PRIMARY KEY` means the table's own key; any other is a second tree to keep, unless the table
/// has no number of its own besides.
fn for_sqlite(text: &str) -> String {
    let text = text.replace("BIGINT PRIMARY KEY", "INTEGER PRIMARY KEY");
    let mut out = String::with_capacity(text.len() + 256);
    let mut rest = text.as_str();
    while let Some((table, after)) = rest.split_once("\n);") {
        let last = table.rsplit('\n').next().unwrap_or(table);
        out.push_str(table);
        out.push_str(if last.trim_start().starts_with("PRIMARY KEY (") { "\n) WITHOUT ROWID;" } else { "\n);" });
        rest = after;
    }
    out + rest
}

/// Texts compare by their bytes, as on SQLite. That is quicker too, and no index breaks when the system's rules of a
/// language change.
#[cfg(feature = "postgres")]
fn for_postgres(shared: &str) -> String {
    let line = |line: &str| {
        let (code, comment) = line.split_at(line.find("--").unwrap_or(line.len()));
        let words = code.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let typed = words.map(|word| match word.strip_prefix("TEXT") {
            Some(after) if after.len() <= 1 => format!("TEXT COLLATE \"C\"{after}"),
            _ => word.to_owned(),
        });
        typed.collect::<String>() + comment
    };
    shared.split_inclusive('\n').map(line).collect()
}

/// Milliseconds since 1970, for the engines' own records.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tx::Cell;

    #[test]
    fn every_file_is_listed_and_numbers_have_no_gap() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
            .collect();
        let mut listed = BTreeSet::new();
        for (i, migration) in MIGRATIONS.iter().enumerate() {
            let name = migration.name;
            assert_eq!(name.split('_').next(), Some(format!("{:04}", i + 1).as_str()), "{name} is out of order");
            if files.contains(&format!("{name}.sql")) {
                listed.insert(format!("{name}.sql"));
            } else {
                listed.extend([format!("{name}.sqlite.sql"), format!("{name}.postgres.sql")]);
            }
        }
        assert_eq!(files, listed);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn texts_compare_by_their_bytes() {
        let shared = "CREATE TABLE t (\n    TEXTS TEXT PRIMARY KEY, -- no TEXT here\n    b TEXT,\n    c TEXT\n);";
        let expected = "CREATE TABLE t (\n    TEXTS TEXT COLLATE \"C\" PRIMARY KEY, -- no TEXT here\n    \
                        b TEXT COLLATE \"C\",\n    c TEXT COLLATE \"C\"\n);";
        assert_eq!(for_postgres(shared), expected);
    }

    #[test]
    fn a_key_of_several_columns_is_the_table_itself() {
        let text =
            "CREATE TABLE a (\n    x BIGINT,\n    PRIMARY KEY (x, y)\n);\nCREATE TABLE b (\n    x TEXT\n);\n-- end";
        let sqlite = "CREATE TABLE a (\n    x BIGINT,\n    PRIMARY KEY (x, y)\n) WITHOUT ROWID;\nCREATE TABLE b (\n    x TEXT\n);\n-- end";
        assert_eq!(for_sqlite(text), sqlite);
    }

    const TWO: &[Migration] = &[
        Migration { name: "0001_a", sqlite: "CREATE TABLE a (x BIGINT PRIMARY KEY)", postgres: "", shared: true },
        Migration { name: "0002_b", sqlite: "CREATE TABLE b (x BIGINT)", postgres: "", shared: true },
    ];

    fn applied(steps: &[(i64, &str, &str)]) -> Vec<Row> {
        let row = |(number, name, checksum): &(i64, &str, &str)| {
            Row::new(APPLIED, vec![Cell::Int(*number), Cell::Text((*name).into()), Cell::Text((*checksum).into())])
        };
        steps.iter().map(row).collect()
    }

    #[test]
    fn the_next_step_follows_those_applied() {
        let next = |steps: &[_]| next_of(TWO, applied(steps), Dialect::Sqlite);
        let first = next(&[]).expect("agree").expect("a step");
        assert_eq!((first.number, first.name), (1, "0001_a"));
        assert_eq!(first.sql, "CREATE TABLE a (x INTEGER PRIMARY KEY)");
        let second = next(&[(1, "0001_a", &first.checksum)]).expect("agree").expect("a step");
        assert_eq!(second.name, "0002_b");
        let all = [(1, "0001_a", first.checksum.as_str()), (2, "0002_b", &second.checksum)];
        assert!(next(&all).expect("agree").is_none());
    }

    #[test]
    fn a_database_that_does_not_go_with_the_program_is_refused() {
        let refusal = |steps: &[_]| match next_of(&TWO[..1], applied(steps), Dialect::Sqlite) {
            Err(Error::Migration(why)) => why,
            _ => panic!("not refused"),
        };
        let sum = Step::new(1, &TWO[0], Dialect::Sqlite).checksum;
        assert!(refusal(&[(1, "0001_a", "00")]).contains("0001_a is not what it was"));
        assert!(refusal(&[(1, "0001_a", &sum), (2, "0002_b", "00")]).contains("newer version"));
        assert!(refusal(&[(1, "0001_z", &sum)]).contains("same line of versions"));
    }
}
