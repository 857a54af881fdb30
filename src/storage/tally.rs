//! What the engine has done, by operation. A promise such as "this reads nothing from the database" is held to it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What one operation has cost so far, reads included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How often it ran; each run is in one transaction, or on one snapshot.
    pub runs: u64,
    /// The statements of its runs, without BEGIN and COMMIT. One that is run for many rows at once counts once.
    pub statements: u64,
}

/// Counts them.
#[derive(Default)]
pub(crate) struct Tally(Mutex<BTreeMap<&'static str, Work>>);

impl Tally {
    /// Some runs of an operation, which took so many statements together.
    pub(crate) fn add(&self, operation: &'static str, runs: u64, statements: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let work = all.entry(operation).or_default();
        work.runs += runs;
        work.statements += statements;
    }

    pub(crate) fn so_far(&self) -> BTreeMap<&'static str, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
