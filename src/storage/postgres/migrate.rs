//! Brings a Postgres schema to that of this program.

use sqlx::{AssertSqlSafe, postgres::PgConnectOptions};
use tokio::time::Instant;

use super::session::{Fault, Session};
use crate::{
    error::{Error, Result},
    migrate::{APPLIED, CREATE_TABLE, Dialect, RECORD, next_step, now_ms},
    tx::args,
};

/// One process at a time, in one schema; the lock ends with the connection.
const LOCK: &str = "SELECT pg_advisory_lock(hashtext('hearth schema_migrations'), hashtext(current_schema()))";

pub(super) async fn migrate(options: &PgConnectOptions, deadline: Instant) -> Result<()> {
    let mut session = Session::connect(options, deadline).await?;
    let (_, schema) = session.script_rows("SELECT 1 WHERE current_schema() IS NOT NULL").await.map_err(failed)?;
    if schema.is_empty() {
        return Err(Error::Migration("the search_path of the Postgres connection names no schema that exists".into()));
    }
    session.script(LOCK).await.map_err(failed)?;
    session.script(CREATE_TABLE).await.map_err(failed)?;
    loop {
        session.script("BEGIN").await.map_err(failed)?;
        let applied = session.query(APPLIED, &[]).await.map_err(failed)?;
        let Some(step) = next_step(applied, Dialect::Postgres)? else { break };
        let in_step = |fault| Error::Migration(format!("{}: {}", step.name, failed(fault)));
        session.script(AssertSqlSafe(step.sql)).await.map_err(in_step)?;
        let record = args![step.number, step.name, step.checksum, now_ms()];
        session.execute(RECORD, record).await.map_err(in_step)?;
        session.script("COMMIT").await.map_err(in_step)?;
        tracing::info!(step = step.name, "migrated");
    }
    session.close().await;
    Ok(())
}

fn failed(fault: Fault) -> Error {
    fault.into_error()
}
