//! What an operation may do to a database, whichever engine runs it.
//!
//! An [`Op`] (a write) or a [`Query`] (a read) is a *value*: it can queue, be grouped with others into one commit, be run
//! again, be measured by its name. It is written once, against [`Reads`] and [`Tx`]; the engines implement those.

use std::{fmt, future::Future, sync::Arc};

use hearth_core::event::Pdu;

use crate::{
    error::{Error, Result},
    tally::Tally,
    unread::Counted,
};

/// One SQL text for both engines. Only [`statements!`] makes one, so every statement is in its module's `ALL`, and the
/// test that prepares every statement on both engines sees it.
///
/// `$1` placeholders; a list parameter is written `= ANY($1)` or `<> ALL($1)` (SQLite: rewritten to `IN rarray($1)` when
/// prepared). Texts compare by their bytes and `LIKE` heeds case, on both. Where the dialects part in silence:
/// - NULLs sort first on one and last on the other: write `NULLS FIRST` or `NULLS LAST`;
/// - `LIKE` has an escape character on one only: write `ESCAPE`;
/// - `SUM` and `AVG` of numbers are not numbers of ours on Postgres: `CAST(SUM(x) AS BIGINT)`;
/// - `lower` knows more than ASCII on one only;
/// - an `ON CONFLICT DO UPDATE` of many rows may name no row twice on Postgres.
#[derive(Clone, Copy)]
pub struct Stmt {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
    /// It changes nothing: an operation that only ran such statements has not written yet.
    pub(crate) reads: bool,
}

impl Stmt {
    #[doc(hidden)]
    pub(crate) const fn new(name: &'static str, sql: &'static str) -> Self {
        Self { name, sql, reads: only_reads(sql.as_bytes()) }
    }
}

/// Whether a statement only reads, by its first word. In a `WITH` the words that write are looked for in all of it; a
/// false alarm costs a savepoint, no more.
const fn only_reads(sql: &[u8]) -> bool {
    let mut i = 0;
    while i < sql.len() && sql[i].is_ascii_whitespace() {
        i += 1;
    }
    if word_at(sql, i, b"SELECT") || word_at(sql, i, b"VALUES") {
        return true;
    }
    if !word_at(sql, i, b"WITH") {
        return false;
    }
    while i < sql.len() {
        if word_at(sql, i, b"INSERT") || word_at(sql, i, b"UPDATE") || word_at(sql, i, b"DELETE") {
            return false;
        }
        i += 1;
    }
    true
}

const fn word_at(sql: &[u8], at: usize, word: &[u8]) -> bool {
    if at + word.len() > sql.len() || (at > 0 && is_word_byte(sql[at - 1])) {
        return false;
    }
    let mut i = 0;
    while i < word.len() {
        if !sql[at + i].eq_ignore_ascii_case(&word[i]) {
            return false;
        }
        i += 1;
    }
    at + word.len() == sql.len() || !is_word_byte(sql[at + word.len()])
}

const fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl fmt::Debug for Stmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A change of many rows, the one place where the dialects truly part: `UNNEST` of one array a column on Postgres, a
/// prepared statement run in a loop on SQLite. Made by [`statements!`] like [`Stmt`]: `bulk` inserts, `alter` updates the
/// rows that its first column names, each of them once.
#[derive(Clone, Copy)]
pub struct Bulk {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    pub(crate) columns: &'static [(&'static str, Kind)],
    pub(crate) change: Change,
}

#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// And what follows the values, e.g. `ON CONFLICT DO NOTHING`; may be empty.
    Insert(&'static str),
    Update,
}

impl Bulk {
    #[doc(hidden)]
    pub(crate) const fn new(
        name: &'static str,
        table: &'static str,
        columns: &'static [(&'static str, Kind)],
        change: Change,
    ) -> Self {
        Self { name, table, columns, change }
    }
}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The three kinds of column that both engines share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    Text,
    #[cfg_attr(not(test), allow(dead_code))] // until the first bulk insert with one
    Blob,
}

/// Declares the statements of one aggregate: a constant each, and `ALL` / `ALL_BULK` for the prepare test.
macro_rules! statements {
    (@each [$($stmt:ident)*] [$($bulk:ident)*]) => {
        #[cfg(test)]
        pub(crate) const ALL: &[$crate::tx::Stmt] = &[ $( $stmt ),* ];
        #[cfg(test)]
        pub(crate) const ALL_BULK: &[$crate::tx::Bulk] = &[ $( $bulk ),* ];
    };
    (@each [$($stmts:ident)*] [$($bulks:ident)*]
        bulk $bulk:ident = $table:literal ( $( $col:literal : $kind:ident ),* $(,)? ) $then:expr; $($rest:tt)*
    ) => {
        pub(crate) const $bulk: $crate::tx::Bulk = $crate::tx::Bulk::new(
            concat!(module_path!(), "::", stringify!($bulk)),
            $table,
            &[ $( ($col, $crate::tx::Kind::$kind) ),* ],
            $crate::tx::Change::Insert($then),
        );
        $crate::tx::statements!(@each [$($stmts)*] [$($bulks)* $bulk] $($rest)*);
    };
    (@each [$($stmts:ident)*] [$($bulks:ident)*]
        alter $bulk:ident = $table:literal ( $( $col:literal : $kind:ident ),* $(,)? ); $($rest:tt)*
    ) => {
        pub(crate) const $bulk: $crate::tx::Bulk = $crate::tx::Bulk::new(
            concat!(module_path!(), "::", stringify!($bulk)),
            $table,
            &[ $( ($col, $crate::tx::Kind::$kind) ),* ],
            $crate::tx::Change::Update,
        );
        $crate::tx::statements!(@each [$($stmts)*] [$($bulks)* $bulk] $($rest)*);
    };
    (@each [$($stmts:ident)*] [$($bulks:ident)*] $name:ident = $sql:expr; $($rest:tt)*) => {
        pub(crate) const $name: $crate::tx::Stmt = $crate::tx::Stmt::new(concat!(module_path!(), "::", stringify!($name)), $sql);
        $crate::tx::statements!(@each [$($stmts)* $name] [$($bulks)*] $($rest)*);
    };
    ($($declarations:tt)*) => {
        $crate::tx::statements!(@each [] [] $($declarations)*);
    };
}
pub(crate) use statements;

/// A parameter. Nulls keep their kind, since Postgres wants to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Int(Option<i64>),
    Text(Option<Arc<str>>),
    Blob(Option<Arc<[u8]>>),
    /// For `= ANY($n)`.
    Ints(Vec<i64>),
    /// For `= ANY($n)`.
    Texts(Vec<String>),
    /// For `= ANY($n)`.
    Blobs(Vec<Vec<u8>>),
}

impl Value {
    /// Postgres takes no NUL in a text. Refused here, on both, before it does harm to others in a batch.
    pub(crate) fn sendable(&self, stmt: &'static str) -> Result<()> {
        let nul = match self {
            Self::Text(Some(text)) => text.as_bytes().contains(&0),
            Self::Texts(list) => list.iter().any(|text| text.as_bytes().contains(&0)),
            _ => false,
        };
        if nul { Err(Error::Sql { stmt, message: "a text holds a NUL".into() }) } else { Ok(()) }
    }
}

impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Self::Int(Some(v))
    }
}
impl From<Option<i64>> for Value {
    fn from(v: Option<i64>) -> Self {
        Self::Int(v)
    }
}
impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Int(Some(v.into()))
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(Some(v.into()))
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::Text(Some(v.into()))
    }
}
impl From<&String> for Value {
    fn from(v: &String) -> Self {
        Self::Text(Some(v.as_str().into()))
    }
}
impl From<Arc<str>> for Value {
    fn from(v: Arc<str>) -> Self {
        Self::Text(Some(v))
    }
}
impl From<Option<&str>> for Value {
    fn from(v: Option<&str>) -> Self {
        Self::Text(v.map(Into::into))
    }
}
impl From<Option<String>> for Value {
    fn from(v: Option<String>) -> Self {
        Self::Text(v.map(Into::into))
    }
}
impl From<&[u8]> for Value {
    fn from(v: &[u8]) -> Self {
        Self::Blob(Some(v.into()))
    }
}
impl From<Vec<u8>> for Value {
    fn from(v: Vec<u8>) -> Self {
        Self::Blob(Some(v.into()))
    }
}
impl From<Option<Vec<u8>>> for Value {
    fn from(v: Option<Vec<u8>>) -> Self {
        Self::Blob(v.map(Into::into))
    }
}
impl From<Vec<i64>> for Value {
    fn from(v: Vec<i64>) -> Self {
        Self::Ints(v)
    }
}
impl From<Vec<String>> for Value {
    fn from(v: Vec<String>) -> Self {
        Self::Texts(v)
    }
}
impl From<Vec<Vec<u8>>> for Value {
    fn from(v: Vec<Vec<u8>>) -> Self {
        Self::Blobs(v)
    }
}

/// `args![a, b, c]`: a slice of [`Value`]s from anything that becomes one.
macro_rules! args {
    ($($v:expr),* $(,)?) => { &[$($crate::tx::Value::from($v)),*][..] };
}
pub(crate) use args;

/// One value that came out of the database.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Cell {
    #[default]
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// One row that came out of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    stmt: &'static str,
    cells: Vec<Cell>,
}

impl Row {
    pub(crate) fn new(stmt: Stmt, cells: Vec<Cell>) -> Self {
        Self { stmt: stmt.name, cells }
    }

    /// The row but for its first column.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    pub(crate) fn without_first(mut self) -> Self {
        self.cells.remove(0);
        self
    }

    /// Takes column `i` (from 0) out of the row. Each column can be taken once.
    pub(crate) fn get<T: FromCell>(&mut self, i: usize) -> Result<T> {
        let cell = self.cells.get_mut(i).map(std::mem::take).unwrap_or_default();
        T::from_cell(cell)
            .ok_or_else(|| Error::Corrupt(format!("{}: column {i} is not {}", self.stmt, std::any::type_name::<T>())))
    }
}

/// What a column can be read as.
pub(crate) trait FromCell: Sized {
    fn from_cell(cell: Cell) -> Option<Self>;
}

impl FromCell for i64 {
    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Int(v) => Some(v),
            _ => None,
        }
    }
}
impl FromCell for bool {
    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Int(v) => Some(v != 0),
            _ => None,
        }
    }
}
impl FromCell for String {
    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Text(v) => Some(v),
            _ => None,
        }
    }
}
impl FromCell for Vec<u8> {
    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Blob(v) => Some(v),
            _ => None,
        }
    }
}
impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Null => Some(None),
            other => T::from_cell(other).map(Some),
        }
    }
}

/// Who should look again once the commit has succeeded. A hint that carries no data: a lost one costs a poll.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wake {
    /// Everybody who follows this room (by its number).
    Room(i64),
    /// This user, on all their devices.
    User(Arc<str>),
    /// The workers that drain this outbox queue.
    Queue(&'static str),
}

/// Told of each commit of this process that succeeded, before its callers are answered: who has the answer of a write
/// knows that the sink has seen it. Commits that took positions come in commit order. Must be quick and must not block:
/// it is called on the engine's own thread.
pub trait CommitSink: Send + Sync + 'static {
    fn committed(&self, commit: Committed);
}

/// A message that was added to a room by an operation that changed nothing else there that a sync shows. Who follows the
/// stream closely may take it from here; the database has it as well.
#[derive(Clone, Debug)]
pub struct Message {
    pub pos: i64,
    pub sn: i64,
    pub room_sn: i64,
    pub pdu: Arc<Pdu>,
    /// The device and transaction id that it was sent with.
    pub sent_by: Option<(String, String)>,
    /// What it counts as unread, if it counts at all.
    pub counted: Option<Arc<Counted>>,
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        (self.pos, self.sn, self.room_sn) == (other.pos, other.sn, other.room_sn)
    }
}

impl Eq for Message {}

/// One commit: the positions it reserved (`first..=last`; 1..=0 when it took none, and there may be holes in between),
/// its wakes, without repeats, in the order of their first call, and the messages in the order of their positions. The
/// wakes do not name the rooms of the messages again, unless something else happened there, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub first: i64,
    pub last: i64,
    pub wakes: Vec<Wake>,
    pub messages: Vec<Message>,
}

/// What a read may do: a consistent snapshot of the database.
pub trait Reads: Send {
    /// How many statements have run here so far.
    fn statements(&self) -> u64;

    fn query(&mut self, stmt: Stmt, args: &[Value]) -> impl Future<Output = Result<Vec<Row>>> + Send;

    /// The same question for each row of parameters, none of them a list: the rows that answer each, in the question's
    /// order. It is one statement: one round trip on Postgres (`LATERAL`), prepared once and run in a loop on SQLite.
    fn query_each(&mut self, stmt: Stmt, rows: &[Vec<Value>]) -> impl Future<Output = Result<Vec<Vec<Row>>>> + Send;

    /// At most one row.
    fn query_opt(&mut self, stmt: Stmt, args: &[Value]) -> impl Future<Output = Result<Option<Row>>> + Send {
        async move { Ok(self.query(stmt, args).await?.into_iter().next()) }
    }

    /// Exactly one row.
    fn query_one(&mut self, stmt: Stmt, args: &[Value]) -> impl Future<Output = Result<Row>> + Send {
        async move { self.query_opt(stmt, args).await?.ok_or_else(|| Error::Corrupt(format!("{}: no row", stmt.name))) }
    }
}

/// What a write may do: everything, in one transaction that it does not see the borders of.
pub trait Tx: Reads {
    /// The number of rows changed.
    fn execute(&mut self, stmt: Stmt, args: &[Value]) -> impl Future<Output = Result<u64>> + Send;
    /// Inserts or updates many rows; each row has one value a column, in the order of [`Bulk`]'s columns.
    fn insert_rows(&mut self, bulk: Bulk, rows: &[Vec<Value>]) -> impl Future<Output = Result<u64>> + Send;
    /// The next position of the stream, from what was reserved for the whole batch. Strictly rising within the operation.
    fn next_pos(&mut self) -> Result<i64>;
    /// Delivered only if the commit succeeds.
    fn wake(&mut self, wake: Wake);
    /// Instead of a wake of its room, where a message is all that the operation changes there. Delivered likewise.
    fn message(&mut self, message: Message);
}

/// A write. Repeatable: it may be run again from the start (`&self`; ids and times are made by the caller, outside). It
/// checks before it writes: an error returned before the first write costs its neighbours in the batch nothing.
pub trait Op: Send + Sync + 'static {
    const NAME: &'static str;
    type Out: Send + 'static;
    /// The most positions that one run takes; asking for more is an error. 0 means that nothing it writes is seen by a
    /// sync: such an operation need not wait for the others' turn on Postgres, and may there run beside any other.
    fn positions(&self) -> u32 {
        1
    }
    fn run<T: Tx>(&self, tx: &mut T) -> impl Future<Output = Result<Self::Out>> + Send;

    /// Whether it can be run together with others of its kind that can.
    fn merges(&self) -> bool {
        false
    }

    /// Runs several that can, as if one after another, and that many that they share their statements; the answer of each.
    /// An answer that is an error must have written nothing. An error of the whole is no answer to anybody: all are run
    /// again, each by itself.
    fn run_merged<T: Tx>(ops: &[&Self], _tx: &mut T) -> impl Future<Output = Result<Vec<Result<Self::Out>>>> + Send {
        let n = ops.len();
        async move { Err(Error::Internal(format!("{}: {n} of them do not merge", Self::NAME))) }
    }
}

/// A read.
pub trait Query: Send + Sync + 'static {
    const NAME: &'static str;
    /// It runs at most one statement, which is a snapshot by itself: the engines spare it BEGIN and COMMIT (on Postgres
    /// two of three round trips). A second statement is refused.
    const SINGLE: bool = false;
    type Out: Send + 'static;
    fn run<R: Reads>(&self, tx: &mut R) -> impl Future<Output = Result<Self::Out>> + Send;
}

/// What a storage method returns: a future that can be boxed behind `dyn Storage`.
pub type Answer<'a, T> = futures_util::future::BoxFuture<'a, Result<T>>;

/// A database that runs operations.
pub trait Engine: Send + Sync + 'static {
    /// Queues the operation *before* it returns, so two calls one after another run in that order (on Postgres: two
    /// that take positions); the future resolves when its commit is durable. Dropping the future cancels nothing.
    fn write<O: Op>(&self, op: O) -> Answer<'static, O::Out>;
    /// Runs the query on a snapshot that holds everything committed before the call.
    fn read<Q: Query>(&self, query: Q) -> Answer<'static, Q::Out>;
    /// What it has done so far.
    fn tally(&self) -> &Tally;
    /// Stops taking work, finishes what is queued, closes the connections. Twice does no harm.
    fn close(&self) -> Answer<'static, ()>;
}
