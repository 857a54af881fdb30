//! A transaction, and a snapshot, as an operation sees them.

use std::ops::Range;

use super::session::{Fault, Session};
use crate::{
    error::{Error, Result},
    tx::{Bulk, Message, Reads, Row, Stmt, Tx, Value, Wake},
};

/// A transaction. It owns its connection, so that operations of any type can wait for it in one queue.
pub(super) struct PgTx {
    pub(super) session: Session,
    /// What is left of the operation's positions.
    pub(super) positions: Range<i64>,
    pub(super) wakes: Vec<Wake>,
    pub(super) messages: Vec<Message>,
    pub(super) wrote: bool,
    /// The first fault. The operation may swallow it; but Postgres has given the transaction up by then, and answers its
    /// COMMIT as if it had not.
    pub(super) fault: Option<Fault>,
}

impl PgTx {
    pub(super) fn new(session: Session) -> Self {
        Self { session, positions: 0..0, wakes: Vec::new(), messages: Vec::new(), wrote: false, fault: None }
    }

    /// Made ready for one operation.
    pub(super) fn enter(&mut self, positions: Range<i64>) {
        self.positions = positions;
        self.wrote = false;
        self.fault = None;
    }

    fn sound(&self) -> Result<()> {
        self.fault.clone().map_or(Ok(()), |fault| Err(fault.into_error()))
    }

    fn remember<T>(&mut self, outcome: Result<T, Fault>) -> Result<T> {
        outcome.map_err(|fault| {
            self.fault.get_or_insert_with(|| fault.clone());
            fault.into_error()
        })
    }
}

impl Reads for PgTx {
    fn statements(&self) -> u64 {
        self.session.statements
    }

    async fn query(&mut self, stmt: Stmt, args: &[Value]) -> Result<Vec<Row>> {
        self.sound()?;
        self.wrote |= !stmt.reads;
        let outcome = self.session.query(stmt, args).await;
        self.remember(outcome)
    }

    async fn query_each(&mut self, stmt: Stmt, rows: &[Vec<Value>]) -> Result<Vec<Vec<Row>>> {
        self.sound()?;
        self.wrote |= !stmt.reads;
        let outcome = self.session.query_each(stmt, rows).await;
        self.remember(outcome)
    }
}

impl Tx for PgTx {
    async fn execute(&mut self, stmt: Stmt, args: &[Value]) -> Result<u64> {
        self.sound()?;
        self.wrote = true;
        let outcome = self.session.execute(stmt, args).await;
        self.remember(outcome)
    }

    async fn insert_rows(&mut self, bulk: Bulk, rows: &[Vec<Value>]) -> Result<u64> {
        self.sound()?;
        self.wrote = true;
        let outcome = self.session.insert_rows(bulk, rows).await;
        self.remember(outcome)
    }

    fn next_pos(&mut self) -> Result<i64> {
        let next = self.positions.next();
        let none = || Fault::Sql(Error::Internal("more positions were asked for than announced".into()));
        self.remember(next.ok_or_else(none))
    }

    fn wake(&mut self, wake: Wake) {
        self.wakes.push(wake);
    }

    fn message(&mut self, message: Message) {
        self.messages.push(message);
    }
}

/// A snapshot.
pub(super) struct PgRead {
    pub(super) session: Session,
    single: bool,
    statements: u32,
    pub(super) fault: Option<Fault>,
}

impl PgRead {
    pub(super) fn new(session: Session, single: bool) -> Self {
        Self { session, single, statements: 0, fault: None }
    }

    fn may_look(&mut self, stmt: Stmt) -> Result<()> {
        self.statements += 1;
        if self.single && self.statements > 1 {
            return Err(Error::Internal(format!("{}: a second statement in a read announced as single", stmt.name)));
        }
        Ok(())
    }

    fn remember<T>(&mut self, outcome: Result<T, Fault>) -> Result<T> {
        outcome.map_err(|fault| {
            self.fault.get_or_insert_with(|| fault.clone());
            fault.into_error()
        })
    }
}

impl Reads for PgRead {
    fn statements(&self) -> u64 {
        self.session.statements
    }

    async fn query(&mut self, stmt: Stmt, args: &[Value]) -> Result<Vec<Row>> {
        self.may_look(stmt)?;
        let outcome = self.session.query(stmt, args).await;
        self.remember(outcome)
    }

    async fn query_each(&mut self, stmt: Stmt, rows: &[Vec<Value>]) -> Result<Vec<Vec<Row>>> {
        self.may_look(stmt)?;
        let outcome = self.session.query_each(stmt, rows).await;
        self.remember(outcome)
    }
}
