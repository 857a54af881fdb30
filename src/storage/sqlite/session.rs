//! One SQLite connection: its settings, and how statements, values and rows pass through it.

use std::{collections::HashMap, path::Path, rc::Rc, time::Duration};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags,
    config::DbConfig,
    types::{Value as SqliteValue, ValueRef},
};

use crate::{
    error::{Error, Result},
    tx::{Bulk, Cell, Change, Row, Stmt, Value},
};

/// Beside a running server another process may write for a moment (an administrator's command, a backup).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// More than there are statements: each is compiled once a connection.
const STATEMENT_CACHE: usize = 1024;

pub(super) struct Session {
    conn: Connection,
    /// SQLite's form of each statement, by where its name lies in the program: that is quicker to look up than
    /// the name itself.
    texts: HashMap<(usize, usize), Box<str>>,
    /// How many have run.
    pub(super) statements: u64,
}

impl Session {
    pub(super) fn writer(path: &Path) -> Result<Self> {
        create_private(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let session = Self::open(path, flags)?;
        // FULL: what was acknowledged survives a power cut.
        session.script(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;
             PRAGMA cache_size = -32768; PRAGMA mmap_size = 268435456; PRAGMA temp_store = MEMORY;
             PRAGMA case_sensitive_like = ON;",
        )?;
        Ok(session)
    }

    pub(super) fn reader(path: &Path) -> Result<Self> {
        let session = Self::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        session.script(
            "PRAGMA cache_size = -8192; PRAGMA mmap_size = 268435456; PRAGMA temp_store = MEMORY;
             PRAGMA case_sensitive_like = ON; PRAGMA query_only = ON;",
        )?;
        Ok(session)
    }

    fn open(path: &Path, flags: OpenFlags) -> Result<Self> {
        let open = || {
            let conn = Connection::open_with_flags(path, flags)?;
            conn.busy_timeout(BUSY_TIMEOUT)?;
            conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
            // Or SQLite looks at what is bound (a LIMIT, say), and compiles the statement anew each time.
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            rusqlite::vtab::array::load_module(&conn)?;
            Ok::<_, rusqlite::Error>(conn)
        };
        let conn = open().map_err(|e| Error::Unavailable(format!("cannot open {}: {e}", path.display())))?;
        Ok(Self { conn, texts: HashMap::new(), statements: 0 })
    }

    /// Statements without parameters or results.
    pub(super) fn script(&self, sql: &str) -> Result<()> {
        self.conn.execute_batch(sql).map_err(|e| error("script", &e))
    }

    /// One short statement that is used again and again: BEGIN, COMMIT, SAVEPOINT.
    pub(super) fn control(&self, sql: &'static str) -> Result<()> {
        let run = || self.conn.prepare_cached(sql)?.raw_execute();
        run().map(|_| ()).map_err(|e| error(sql, &e))
    }

    /// SQLite ended the transaction by itself, as it does when the disk is full.
    pub(super) fn outside_transaction(&self) -> bool {
        self.conn.is_autocommit()
    }

    pub(super) fn query(&mut self, stmt: Stmt, args: &[Value]) -> Result<Vec<Row>> {
        self.statements += 1;
        rows_of(stmt, &mut self.prepare(stmt)?, args)
    }

    /// One statement, prepared once.
    pub(super) fn query_each(&mut self, stmt: Stmt, rows: &[Vec<Value>]) -> Result<Vec<Vec<Row>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        self.statements += 1;
        let mut prepared = self.prepare(stmt)?;
        rows.iter().map(|args| rows_of(stmt, &mut prepared, args)).collect()
    }

    pub(super) fn execute(&mut self, stmt: Stmt, args: &[Value]) -> Result<u64> {
        self.statements += 1;
        let mut prepared = self.prepare(stmt)?;
        bind(stmt.name, &mut prepared, args)?;
        let changed = prepared.raw_execute().map_err(|e| error(stmt.name, &e))?;
        Ok(changed as u64)
    }

    pub(super) fn insert_rows(&mut self, bulk: Bulk, rows: &[Vec<Value>]) -> Result<u64> {
        self.statements += 1;
        let text = self.texts.entry(place(bulk.name)).or_insert_with(|| bulk_text(bulk).into());
        let mut prepared = self.conn.prepare_cached(text).map_err(|e| error(bulk.name, &e))?;
        let mut changed = 0;
        for row in rows {
            bind(bulk.name, &mut prepared, row)?;
            changed += prepared.raw_execute().map_err(|e| error(bulk.name, &e))? as u64;
        }
        Ok(changed)
    }

    /// Compiles without running.
    #[cfg(test)]
    pub(super) fn check(&mut self, stmt: Stmt) -> Result<bool> {
        let prepared = self.conn.prepare(&translate(stmt.sql)).map_err(|e| error(stmt.name, &e))?;
        Ok(prepared.readonly())
    }

    /// The tables that it reads from one end to the other.
    #[cfg(test)]
    pub(super) fn scans(&mut self, stmt: Stmt) -> Result<Vec<String>> {
        let fault = |e| error(stmt.name, &e);
        let mut tables = Vec::new();
        let text = format!("EXPLAIN QUERY PLAN {}", translate(stmt.sql));
        let mut explained = self.conn.prepare(&text).map_err(fault)?;
        for i in 1..=explained.parameter_count() {
            explained.raw_bind_parameter(i, array(&[1], |v| SqliteValue::Integer(*v))).map_err(fault)?;
        }
        let mut steps = explained.raw_query();
        while let Some(step) = steps.next().map_err(fault)? {
            let step: String = step.get(3).map_err(fault)?;
            if let Some(scanned) = step.strip_prefix("SCAN ") {
                tables.push(scanned.split(' ').next().unwrap_or_default().to_owned());
            }
        }
        Ok(tables)
    }

    #[cfg(test)]
    pub(super) fn check_bulk(&mut self, bulk: Bulk) -> Result<()> {
        self.conn.prepare(&bulk_text(bulk)).map(|_| ()).map_err(|e| error(bulk.name, &e))
    }

    fn prepare(&mut self, stmt: Stmt) -> Result<CachedStatement<'_>> {
        let text = self.texts.entry(place(stmt.name)).or_insert_with(|| translate(stmt.sql).into());
        self.conn.prepare_cached(text).map_err(|e| error(stmt.name, &e))
    }
}

fn place(name: &'static str) -> (usize, usize) {
    (name.as_ptr().addr(), name.len())
}

/// Keys and password hashes are in there: the file is its owner's alone. SQLite gives its side files the same mode.
fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map(|_| ())
        .map_err(|e| Error::Unavailable(format!("cannot open the database file {}: {e}", path.display())))
}

fn bind(name: &'static str, stmt: &mut CachedStatement<'_>, args: &[Value]) -> Result<()> {
    let expected = stmt.parameter_count();
    if expected != args.len() {
        let message = format!("takes {expected} parameters, got {}", args.len());
        return Err(Error::Sql { stmt: name, message });
    }
    for (i, value) in (1..).zip(args) {
        value.sendable(name)?;
        match value {
            Value::Int(v) => stmt.raw_bind_parameter(i, v),
            Value::Text(v) => stmt.raw_bind_parameter(i, v.as_deref()),
            Value::Blob(v) => stmt.raw_bind_parameter(i, v.as_deref()),
            Value::Ints(list) => stmt.raw_bind_parameter(i, array(list, |v| SqliteValue::Integer(*v))),
            Value::Texts(list) => stmt.raw_bind_parameter(i, array(list, |v| SqliteValue::Text(v.clone()))),
            Value::Blobs(list) => stmt.raw_bind_parameter(i, array(list, |v| SqliteValue::Blob(v.clone()))),
        }
        .map_err(|e| error(name, &e))?;
    }
    Ok(())
}

fn rows_of(stmt: Stmt, prepared: &mut CachedStatement<'_>, args: &[Value]) -> Result<Vec<Row>> {
    bind(stmt.name, prepared, args)?;
    let columns = prepared.column_count();
    let fault = |e| error(stmt.name, &e);
    let mut rows = prepared.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        let mut cells = Vec::with_capacity(columns);
        for i in 0..columns {
            cells.push(cell(stmt, i, row.get_ref(i).map_err(fault)?)?);
        }
        out.push(Row::new(stmt, cells));
    }
    Ok(out)
}

fn array<T>(list: &[T], value: impl Fn(&T) -> SqliteValue) -> Rc<Vec<SqliteValue>> {
    Rc::new(list.iter().map(value).collect())
}

fn cell(stmt: Stmt, column: usize, value: ValueRef<'_>) -> Result<Cell> {
    let wrong = |what: &str| Error::Sql { stmt: stmt.name, message: format!("column {column} is {what}") };
    Ok(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(v) => Cell::Int(v),
        ValueRef::Text(v) => Cell::Text(String::from_utf8(v.to_vec()).map_err(|_| wrong("not UTF-8"))?),
        ValueRef::Blob(v) => Cell::Blob(v.to_vec()),
        ValueRef::Real(_) => return Err(wrong("a floating point number")),
    })
}

fn error(stmt: &'static str, e: &rusqlite::Error) -> Error {
    match e.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly,
        ) => Error::Unavailable(format!("{stmt}: {e}")),
        _ => Error::Sql { stmt, message: e.to_string() },
    }
}

/// SQLite's form of a statement: `$1` is a name to it, so it becomes `?1`; `= ANY($1)` becomes `IN rarray(?1)`, and
/// `<> ALL($1)` `NOT IN rarray(?1)`.
fn translate(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 16);
    let mut rest = sql;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        if !quoted {
            if let Some((list, number, after)) = list_operator(rest) {
                out.push_str(list);
                out.push_str(number);
                out.push(')');
                rest = after;
                continue;
            }
            if c == '$' {
                out.push('?');
                rest = &rest[1..];
                continue;
            }
        }
        quoted ^= c == '\'';
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// `= ANY($12)…` → (`IN rarray(?`, `12`, `…`).
fn list_operator(sql: &str) -> Option<(&'static str, &str, &str)> {
    let (list, rest) = if let Some(rest) = sql.strip_prefix("= ANY($") {
        ("IN rarray(?", rest)
    } else {
        ("NOT IN rarray(?", sql.strip_prefix("<> ALL($")?)
    };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    Some((list, &rest[..end], rest[end..].strip_prefix(')')?))
}

fn bulk_text(bulk: Bulk) -> String {
    let columns: Vec<&str> = bulk.columns.iter().map(|(name, _)| *name).collect();
    let Bulk { table, change, .. } = bulk;
    match change {
        Change::Insert(then) => {
            let values: Vec<String> = (1..=columns.len()).map(|i| format!("?{i}")).collect();
            format!("INSERT INTO {table} ({}) VALUES ({}) {then}", columns.join(", "), values.join(", "))
        }
        Change::Update => {
            let set: Vec<String> = (2..).zip(&columns[1..]).map(|(i, column)| format!("{column} = ?{i}")).collect();
            format!("UPDATE {table} SET {} WHERE {} = ?1", set.join(", "), columns[0])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::StatementStatus;

    use super::{Session, translate};
    use crate::tx::{Stmt, args};

    const FIRST: Stmt =
        Stmt { name: "FIRST", sql: "SELECT type FROM sqlite_schema ORDER BY name LIMIT $1", reads: true };

    #[test]
    fn a_statement_is_compiled_once() {
        let mut session = Session::open(Path::new(":memory:"), rusqlite::OpenFlags::default()).expect("a database");
        for limit in [1, 2, 100_000, 3] {
            session.query(FIRST, args![limit]).expect("no rows");
        }
        let prepared = session.prepare(FIRST).expect("a statement");
        assert_eq!(prepared.get_status(StatementStatus::RePrepare), 0);
    }

    #[test]
    fn placeholders_and_lists_become_sqlites() {
        assert_eq!(
            translate("SELECT '$1', a FROM t WHERE b = ANY($2) AND c <> ALL($12) AND d >= $1"),
            "SELECT '$1', a FROM t WHERE b IN rarray(?2) AND c NOT IN rarray(?12) AND d >= ?1"
        );
        assert_eq!(translate("SELECT 'it''s $1' WHERE é = $3"), "SELECT 'it''s $1' WHERE é = ?3");
    }
}
