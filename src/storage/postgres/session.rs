//! One Postgres connection: how statements, values and rows pass through it, and what its errors mean.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::{
    Arguments, AssertSqlSafe, Connection, Executor, PgConnection, Row as _, SqlSafeStr, TypeInfo, ValueRef,
    error::BoxDynError,
    postgres::{PgArguments, PgConnectOptions, PgRow},
};
use tokio::time::{Instant, timeout};

use crate::{
    error::{Error, Result},
    tx::{Bulk, Cell, Change, Kind, Row, Stmt, Value},
};

/// A server that does not answer a statement for so long is gone, whatever TCP says.
const STATEMENT: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);

/// Each statement is planned once a connection, and along the indexes that it was written for, as SQLite does. The planner
/// would choose by what it believes of the tables, which is wrong while they are young, plan anew for each list of rooms,
/// and take the time to compile what runs for a millisecond.
const PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET jit = off;
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";

/// What an error means to the transaction that it met.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The connection is gone: the work may be done again on another.
    Lost(String),
    /// A deadlock or a serialization failure: the work may be done again.
    Again(String),
    /// The statement is at fault.
    Sql(Error),
}

impl Fault {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Lost(why) | Self::Again(why) => Error::Unavailable(why),
            Self::Sql(error) => error,
        }
    }

    fn of(stmt: &'static str, error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(e) = error else {
            return match error {
                sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                    Self::Sql(Error::Sql { stmt, message: error.to_string() })
                }
                _ => Self::Lost(format!("{stmt}: {error}")),
            };
        };
        let code = e.code().unwrap_or_default();
        let text = format!("{e} ({code})");
        match &*code {
            "40001" | "40P01" | "55P03" => Self::Again(text),
            // 25P03: we stood still inside a transaction. 25006: the server became a standby.
            "25P03" | "25006" => Self::Lost(text),
            // Not 57014: a cancelled statement says nothing about the connection.
            "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => Self::Lost(text),
            code if code.starts_with("08") || code.starts_with("53") => Self::Lost(text),
            _ => Self::Sql(Error::Sql { stmt, message: text }),
        }
    }
}

pub(super) struct Session {
    conn: PgConnection,
    /// The text of each change of many rows, and question for many, by where its name lies in the program.
    texts: HashMap<(usize, usize), Arc<str>>,
    /// How many have run.
    pub(super) statements: u64,
}

impl Session {
    /// Tries until `deadline`, at least once; settings that cannot be right are told at once.
    pub(super) async fn connect(options: &PgConnectOptions, deadline: Instant) -> Result<Self> {
        let mut pause = Duration::from_millis(20);
        loop {
            let error = match timeout(CONNECT, open(options)).await {
                Ok(Ok(conn)) => return Ok(Self { conn, texts: HashMap::new(), statements: 0 }),
                Ok(Err(error)) => error,
                Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
            };
            let hopeless = match &error {
                sqlx::Error::Configuration(_) => true,
                // The password, the database.
                sqlx::Error::Database(e) => e.code().is_some_and(|c| c.starts_with("28") || c.starts_with("3D")),
                _ => false,
            };
            if hopeless || Instant::now() + pause >= deadline {
                return Err(Error::Unavailable(format!("Postgres cannot be reached: {error}")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    pub(super) async fn close(self) {
        // It is closed either way; this is only the polite one.
        drop(timeout(CONNECT, self.conn.close()).await);
    }

    /// One or more statements without parameters, however long they take; the rows changed by each.
    pub(super) async fn script(&mut self, sql: impl SqlSafeStr) -> Result<Vec<u64>, Fault> {
        let (changed, _) = self.script_rows(sql).await?;
        Ok(changed)
    }

    /// One or more statements without parameters in one round trip: the rows changed by each, and all rows.
    pub(super) async fn script_rows(&mut self, sql: impl SqlSafeStr) -> Result<(Vec<u64>, Vec<PgRow>), Fault> {
        use futures_util::TryStreamExt;
        let (mut changed, mut rows) = (Vec::new(), Vec::new());
        let mut results = self.conn.fetch_many(sqlx::raw_sql(sql));
        while let Some(result) = results.try_next().await.map_err(|e| Fault::of("script", &e))? {
            result.map_left(|done| changed.push(done.rows_affected())).map_right(|row| rows.push(row));
        }
        Ok((changed, rows))
    }

    /// As [`Self::script`], for what should be quick.
    pub(super) async fn control(&mut self, sql: impl SqlSafeStr) -> Result<Vec<u64>, Fault> {
        in_time("script", self.script(sql)).await
    }

    pub(super) async fn query(&mut self, stmt: Stmt, args: &[Value]) -> Result<Vec<Row>, Fault> {
        self.statements += 1;
        let args = bind(stmt.name, args)?;
        let rows = async {
            let rows = self.conn.fetch_all(sqlx::query_with(stmt.sql, args)).await;
            rows.map_err(|e| Fault::of(stmt.name, &e))
        };
        let rows = in_time(stmt.name, rows).await?;
        rows.iter().map(|r| row(stmt, r)).collect()
    }

    /// One question for many rows of parameters: they become a table, and the question a part of what is asked of each
    /// of its rows.
    pub(super) async fn query_each(&mut self, stmt: Stmt, rows: &[Vec<Value>]) -> Result<Vec<Vec<Row>>, Fault> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        self.statements += 1;
        let kinds = first.iter().map(|value| match value {
            Value::Int(_) => Ok(Kind::Int),
            Value::Text(_) => Ok(Kind::Text),
            Value::Blob(_) => Ok(Kind::Blob),
            Value::Ints(_) | Value::Texts(_) | Value::Blobs(_) => {
                Err(Fault::Sql(Error::Sql { stmt: stmt.name, message: "a list within a list".into() }))
            }
        });
        let kinds: Vec<(&str, Kind)> = kinds.map(|kind| kind.map(|kind| ("", kind))).collect::<Result<_, _>>()?;
        let args = columns(stmt.name, &kinds, rows)?;
        let place = (stmt.name.as_ptr().addr(), stmt.name.len());
        let text = Arc::clone(self.texts.entry(place).or_insert_with(|| each_text(stmt, &kinds).into()));
        let found = async {
            let found = self.conn.fetch_all(sqlx::query_with(AssertSqlSafe(text), args)).await;
            found.map_err(|e| Fault::of(stmt.name, &e))
        };
        let mut answers = vec![Vec::new(); rows.len()];
        for found in in_time(stmt.name, found).await? {
            let mut found = row(stmt, &found)?;
            let which = found.get::<i64>(0).ok().and_then(|ord| usize::try_from(ord - 1).ok());
            if let Some(answer) = which.and_then(|which| answers.get_mut(which)) {
                answer.push(found.without_first());
            }
        }
        Ok(answers)
    }

    pub(super) async fn execute(&mut self, stmt: Stmt, args: &[Value]) -> Result<u64, Fault> {
        self.run(stmt.name, stmt.sql, bind(stmt.name, args)?).await
    }

    pub(super) async fn insert_rows(&mut self, bulk: Bulk, rows: &[Vec<Value>]) -> Result<u64, Fault> {
        if rows.is_empty() {
            return Ok(0);
        }
        let place = (bulk.name.as_ptr().addr(), bulk.name.len());
        let text = Arc::clone(self.texts.entry(place).or_insert_with(|| bulk_text(bulk).into()));
        self.run(bulk.name, AssertSqlSafe(text), columns(bulk.name, bulk.columns, rows)?).await
    }

    async fn run(&mut self, name: &'static str, sql: impl SqlSafeStr, args: PgArguments) -> Result<u64, Fault> {
        self.statements += 1;
        let run = async {
            let done = self.conn.execute(sqlx::query_with(sql, args)).await;
            done.map(|done| done.rows_affected()).map_err(|e| Fault::of(name, &e))
        };
        in_time(name, run).await
    }

    /// Compiles without running.
    #[cfg(test)]
    pub(super) async fn check(&mut self, name: &'static str, sql: String) -> Result<()> {
        let prepared = self.conn.prepare(AssertSqlSafe(sql).into_sql_str()).await;
        prepared.map(|_| ()).map_err(|e| Fault::of(name, &e).into_error())
    }
}

async fn open(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut conn = PgConnection::connect_with(options).await?;
    conn.execute(sqlx::raw_sql(PLANS)).await?;
    Ok(conn)
}

async fn in_time<T>(name: &'static str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = |_| Fault::Lost(format!("{name}: no answer for {} seconds", STATEMENT.as_secs()));
    timeout(STATEMENT, work).await.map_err(late)?
}

fn bind(name: &'static str, args: &[Value]) -> Result<PgArguments, Fault> {
    args.iter().try_for_each(|value| value.sendable(name)).map_err(Fault::Sql)?;
    let mut out = PgArguments::default();
    let mut add = |value: &Value| match value {
        Value::Int(v) => out.add(v),
        Value::Text(v) => out.add(v.as_deref()),
        Value::Blob(v) => out.add(v.as_deref()),
        Value::Ints(list) => out.add(list),
        Value::Texts(list) => out.add(list),
        Value::Blobs(list) => out.add(list),
    };
    args.iter().try_for_each(&mut add).map_err(|e| misfit(name, &e))?;
    Ok(out)
}

/// One array a column.
fn columns(name: &'static str, kinds: &[(&str, Kind)], rows: &[Vec<Value>]) -> Result<PgArguments, Fault> {
    let wrong = |what: &str| Fault::Sql(Error::Sql { stmt: name, message: what.into() });
    if rows.iter().any(|row| row.len() != kinds.len()) {
        return Err(wrong("a row does not have one value a column"));
    }
    rows.iter().flatten().try_for_each(|value| value.sendable(name)).map_err(Fault::Sql)?;
    let mut out = PgArguments::default();
    for (i, (column, kind)) in kinds.iter().enumerate() {
        let values = rows.iter().map(|row| &row[i]);
        let misplaced = || wrong(&format!("a value of {column} is not of its kind"));
        let added = match kind {
            Kind::Int => {
                let column = values.map(|v| if let Value::Int(v) = v { Ok(*v) } else { Err(misplaced()) });
                out.add(column.collect::<Result<Vec<Option<i64>>, _>>()?)
            }
            Kind::Text => {
                let column = values.map(|v| if let Value::Text(v) = v { Ok(v.as_deref()) } else { Err(misplaced()) });
                out.add(column.collect::<Result<Vec<Option<&str>>, _>>()?)
            }
            Kind::Blob => {
                let column = values.map(|v| if let Value::Blob(v) = v { Ok(v.as_deref()) } else { Err(misplaced()) });
                out.add(column.collect::<Result<Vec<Option<&[u8]>>, _>>()?)
            }
        };
        added.map_err(|e| misfit(name, &e))?;
    }
    Ok(out)
}

fn misfit(name: &'static str, e: &BoxDynError) -> Fault {
    Fault::Sql(Error::Sql { stmt: name, message: format!("a parameter cannot be sent: {e}") })
}

/// `$1::int8[], $2::text[]`
fn arrays(columns: &[(&str, Kind)]) -> String {
    let array = |(i, (_, kind)): (usize, &(&str, Kind))| {
        let of = match kind {
            Kind::Int => "int8",
            Kind::Text => "text",
            Kind::Blob => "bytea",
        };
        format!("${}::{of}[]", i + 1)
    };
    columns.iter().enumerate().map(array).collect::<Vec<_>>().join(", ")
}

/// `$1` becomes the first column of the table of parameters.
fn each_text(stmt: Stmt, kinds: &[(&str, Kind)]) -> String {
    let names: Vec<String> = (1..=kinds.len()).map(|i| format!("p{i}")).collect();
    let question = stmt.sql.replace('$', "w.p");
    let (arrays, names) = (arrays(kinds), names.join(", "));
    format!(
        "SELECT w.ord, q.* FROM UNNEST({arrays}) WITH ORDINALITY AS w ({names}, ord) CROSS JOIN LATERAL ({question}) q \
         ORDER BY w.ord"
    )
}

pub(super) fn bulk_text(bulk: Bulk) -> String {
    let names: Vec<&str> = bulk.columns.iter().map(|(name, _)| *name).collect();
    let (table, names_list, arrays) = (bulk.table, names.join(", "), arrays(bulk.columns));
    match bulk.change {
        Change::Insert(then) => format!("INSERT INTO {table} ({names_list}) SELECT * FROM UNNEST({arrays}) {then}"),
        Change::Update => {
            let set: Vec<String> = names[1..].iter().map(|name| format!("{name} = w.{name}")).collect();
            let (set, key) = (set.join(", "), names[0]);
            format!("UPDATE {table} t SET {set} FROM UNNEST({arrays}) AS w ({names_list}) WHERE t.{key} = w.{key}")
        }
    }
}

fn row(stmt: Stmt, row: &PgRow) -> Result<Row, Fault> {
    let cells = (0..row.len()).map(|i| {
        cell(row, i).map_err(|e| Fault::Sql(Error::Sql { stmt: stmt.name, message: format!("column {i}: {e}") }))
    });
    Ok(Row::new(stmt, cells.collect::<Result<_, _>>()?))
}

fn cell(row: &PgRow, i: usize) -> Result<Cell, BoxDynError> {
    let value = row.try_get_raw(i)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    // The numbers are those of pg_type, the same in every Postgres.
    Ok(match value.type_info().oid().map(|oid| oid.0) {
        Some(16) => Cell::Int(i64::from(value.as_bytes()? != [0])),
        Some(20) => Cell::Int(i64::from_be_bytes(value.as_bytes()?.try_into()?)),
        Some(21) => Cell::Int(i16::from_be_bytes(value.as_bytes()?.try_into()?).into()),
        Some(23) => Cell::Int(i32::from_be_bytes(value.as_bytes()?.try_into()?).into()),
        Some(17) => Cell::Blob(value.as_bytes()?.to_vec()),
        Some(19 | 25 | 1043) => Cell::Text(value.as_str()?.to_owned()),
        _ => return Err(format!("{} is no type that both databases have; cast it", value.type_info().name()).into()),
    })
}
