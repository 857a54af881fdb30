//! Brings a SQLite database to the schema of this program.

use super::session::Session;
use crate::{
    error::{Error, Result},
    migrate::{APPLIED, CREATE_TABLE, Dialect, RECORD, next_step, now_ms},
    tx::args,
};

pub(super) fn migrate(session: &mut Session) -> Result<()> {
    loop {
        // The write lock keeps a second process from taking the same step.
        session.control("BEGIN IMMEDIATE")?;
        match step(session) {
            Ok(true) => session.control("COMMIT")?,
            Ok(false) => return session.control("ROLLBACK"),
            Err(error) => {
                session.control("ROLLBACK")?;
                return Err(error);
            }
        }
    }
}

/// Takes one step; false when there is none left.
fn step(session: &mut Session) -> Result<bool> {
    session.script(CREATE_TABLE)?;
    let Some(step) = next_step(session.query(APPLIED, &[])?, Dialect::Sqlite)? else { return Ok(false) };
    session.script(&step.sql).map_err(|e| Error::Migration(format!("{}: {e}", step.name)))?;
    session.execute(RECORD, args![step.number, step.name, step.checksum, now_ms()])?;
    tracing::info!(step = step.name, "migrated");
    Ok(true)
}
