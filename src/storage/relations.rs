//! Which events relate to which: a row for each event that relates to another, beside the event.
//!
//! What relates is in pages of its own (`paging`, `threads`), and summed up beside what it relates to (`bundles`).

pub(crate) mod bundles;
pub(crate) mod paging;
pub(crate) mod stored;
pub(crate) mod threads;

pub use self::{
    bundles::{Bundle, Bundles, ThreadSummary},
    paging::{PagingBounds, RECURSION_DEPTH, Related, RelatedPage},
    threads::{ThreadPage, ThreadQuery},
};
use crate::{
    Sql,
    tx::{Answer, Engine},
};

/// The aggregate of what relates.
pub trait Relations: Send + Sync {
    /// A page of what relates to an event; `None` if there is no such event that the user may see.
    fn related(&self, query: Related) -> Answer<'_, Option<RelatedPage>>;
    /// A page of a room's threads, those first of which something was said last.
    fn threads(&self, query: ThreadQuery) -> Answer<'_, ThreadPage>;
}

impl<E: Engine> Relations for Sql<E> {
    fn related(&self, query: Related) -> Answer<'_, Option<RelatedPage>> {
        self.0.read(query)
    }

    fn threads(&self, query: ThreadQuery) -> Answer<'_, ThreadPage> {
        self.0.read(query)
    }
}
