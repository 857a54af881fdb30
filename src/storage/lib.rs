//! Storage: what the server keeps, as operations on a database.
//!
//! One trait an aggregate, whose methods are whole domain operations: one method, one transaction, one sentence. The
//! operations are written once, over `tx::Tx`, and two engines run them: SQLite and Postgres.

pub mod account_data;
pub mod accounts;
#[cfg(test)]
mod conformance;
pub mod connections;
pub mod dehydrated;
pub mod directory;
pub mod ephemeral;
mod error;
pub mod filters;
pub mod follow;
mod job;
pub mod key_backup;
pub mod keys;
pub mod media;
pub mod memberships;
pub mod metrics_names;
mod migrate;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
pub mod profiles;
pub mod push_rules;
pub mod pushers;
pub mod refresh;
pub mod registration_tokens;
pub mod relations;
pub mod reports;
pub mod room_list;
pub mod rooms;
pub mod sessions;
mod sqlite;
pub mod sso;
mod stream;
pub mod subscriptions;
pub mod sync_page;
mod tally;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod to_device;
pub mod transactions;
mod tx;
pub mod unread;
pub mod url_previews;
pub mod user_directory;

use std::{path::PathBuf, sync::Arc};

pub use account_data::{AccountDataChange, AccountDataSet, Scope};
pub use connections::SavedConnection;
pub use ephemeral::Receipt;
pub use error::{Error, Result};
pub use follow::Changes;
pub use outbox::{Item, Outbox};
pub use push_rules::{ChangedRules, RoomRules, RuleChanges};
pub use relations::{Bundle, Bundles, Related, RelatedPage, ThreadPage, ThreadQuery, ThreadSummary};
pub use room_list::{ListedRoom, RoomListPage};
pub use rooms::{
    Base, Extremity, MembershipChange, Move, NewAlias, NewEvent, Persisted, Redaction, RoomCommit, RoomHead, RoomRow,
    StateChange, Status, StoredEvent, Transaction,
};
pub use stream::{SigningKey, Stream};
pub use subscriptions::{Cause, Followed, Follows, Subscribed, Subscription, SubscriptionPage};
pub use sync_page::{
    AskedRoom, Lazy, RoomSync, SlidingPage, SlidingQuery, SlidingRoom, Speaker, StrippedRoom, Summary, SyncPage,
    SyncQuery, Told, UnreadNow,
};
pub use tally::Work;
pub use timeline::{
    Context, ContextQuery, Direction, Membership, Page, PageQuery, RoomView, StateOf, VisibilityLog, is_world_readable,
    membership_at,
};
use tx::Engine;
pub use tx::{Answer, CommitSink, Committed, Message, Wake};
pub use unread::{Counted, Notice, Unread};

/// All that the server keeps: the one type that services hold, as `Arc<dyn Storage>`.
pub trait Storage:
    Stream
    + Outbox
    + accounts::Accounts
    + sessions::Sessions
    + refresh::Refreshes
    + registration_tokens::RegistrationTokens
    + reports::Reports
    + profiles::Profiles
    + pushers::Pushers
    + account_data::AccountData
    + push_rules::PushRules
    + filters::Filters
    + transactions::Transactions
    + rooms::Rooms
    + timeline::Timeline
    + relations::Relations
    + memberships::Memberships
    + ephemeral::Receipts
    + to_device::ToDevice
    + key_backup::KeyBackups
    + key_backup::KeyBackupKeys
    + sync_page::SyncPages
    + room_list::RoomLists
    + connections::Connections
    + follow::Follow
    + keys::Keys
    + media::MediaRepository
    + dehydrated::DehydratedDevices
    + directory::Directory
    + sso::SsoFlows
    + sso::external::ExternalIds
    + sso::tokens::LoginTokens
    + sso::logouts::ProviderLogouts
    + sso::confirmations::Confirmations
    + subscriptions::Subscriptions
    + url_previews::UrlPreviews
    + user_directory::UserDirectory
    + Send
    + Sync
    + 'static
{
}

impl<E: Engine> Storage for Sql<E> {}

/// The aggregates on an engine.
pub(crate) struct Sql<E: Engine>(pub(crate) E);

/// Which database, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    pub backend: Backend,
    /// The most operations that wait for their turn; beyond it callers get [`Error::Unavailable`] at once.
    pub queue: usize,
}

impl Options {
    pub fn new(backend: Backend) -> Self {
        Self { backend, queue: 8192 }
    }
}

#[derive(Clone, Debug)]
pub enum Backend {
    /// One file, one process.
    Sqlite { path: PathBuf, readers: usize },
    /// A database, or a schema of one by `options=-csearch_path=…`, for as many processes as like. Each takes `pool`
    /// connections and one more.
    #[cfg(feature = "postgres")]
    Postgres { url: String, pool: usize },
}

/// Opens the database, brings its schema up to date and starts the engine. Told of each commit: `sink`.
pub async fn open(options: &Options, sink: Arc<dyn CommitSink>) -> Result<Arc<dyn Storage>> {
    let queue = options.queue;
    match &options.backend {
        Backend::Sqlite { path, readers } => {
            let (path, readers) = (path.clone(), *readers);
            let open = tokio::task::spawn_blocking(move || sqlite::Sqlite::open(&path, readers, queue, sink));
            let engine = open.await.map_err(|e| Error::Internal(format!("opening the database panicked: {e}")))??;
            Ok(Arc::new(Sql(engine)))
        }
        #[cfg(feature = "postgres")]
        Backend::Postgres { url, pool } => Ok(Arc::new(Sql(postgres::Postgres::open(url, *pool, queue, sink).await?))),
    }
}

/// Every statement of the crate, for the test that both databases understand them.
#[cfg(test)]
fn all_statements() -> (Vec<tx::Stmt>, Vec<tx::Bulk>) {
    let modules = [
        (account_data::ALL, account_data::ALL_BULK),
        (accounts::ALL, accounts::ALL_BULK),
        (connections::ALL, connections::ALL_BULK),
        (dehydrated::ALL, dehydrated::ALL_BULK),
        (directory::ALL, directory::ALL_BULK),
        (ephemeral::ALL, ephemeral::ALL_BULK),
        (filters::ALL, filters::ALL_BULK),
        (follow::ALL, follow::ALL_BULK),
        (keys::ALL, keys::ALL_BULK),
        (keys::cross_signing::ALL, keys::cross_signing::ALL_BULK),
        (keys::lists::ALL, keys::lists::ALL_BULK),
        (keys::one_time::ALL, keys::one_time::ALL_BULK),
        (key_backup::ALL, key_backup::ALL_BULK),
        (key_backup::keys::ALL, key_backup::keys::ALL_BULK),
        (media::ALL, media::ALL_BULK),
        (media::attach::ALL, media::attach::ALL_BULK),
        (media::files::ALL, media::files::ALL_BULK),
        (media::retention::ALL, media::retention::ALL_BULK),
        (media::thumbnails::ALL, media::thumbnails::ALL_BULK),
        (memberships::ALL, memberships::ALL_BULK),
        (profiles::ALL, profiles::ALL_BULK),
        (pushers::ALL, pushers::ALL_BULK),
        (pushers::delivery::ALL, pushers::delivery::ALL_BULK),
        (pushers::look::ALL, pushers::look::ALL_BULK),
        (pushers::marks::ALL, pushers::marks::ALL_BULK),
        (push_rules::ALL, push_rules::ALL_BULK),
        (refresh::ALL, refresh::ALL_BULK),
        (relations::bundles::ALL, relations::bundles::ALL_BULK),
        (relations::paging::ALL, relations::paging::ALL_BULK),
        (relations::stored::ALL, relations::stored::ALL_BULK),
        (relations::threads::ALL, relations::threads::ALL_BULK),
        (registration_tokens::ALL, registration_tokens::ALL_BULK),
        (reports::ALL, reports::ALL_BULK),
        (room_list::ALL, room_list::ALL_BULK),
        (subscriptions::ALL, subscriptions::ALL_BULK),
        (rooms::ALL, rooms::ALL_BULK),
        (rooms::merge::ALL, rooms::merge::ALL_BULK),
        (rooms::persist::ALL, rooms::persist::ALL_BULK),
        (sessions::ALL, sessions::ALL_BULK),
        (sso::ALL, sso::ALL_BULK),
        (sso::confirmations::ALL, sso::confirmations::ALL_BULK),
        (sso::external::ALL, sso::external::ALL_BULK),
        (sso::logouts::ALL, sso::logouts::ALL_BULK),
        (sso::tokens::ALL, sso::tokens::ALL_BULK),
        (sync_page::ALL, sync_page::ALL_BULK),
        (sync_page::members::ALL, sync_page::members::ALL_BULK),
        (sync_page::mine::ALL, sync_page::mine::ALL_BULK),
        (sync_page::shown::ALL, sync_page::shown::ALL_BULK),
        (sync_page::sliding::ALL, sync_page::sliding::ALL_BULK),
        (sync_page::states::ALL, sync_page::states::ALL_BULK),
        (sync_page::stripped::ALL, sync_page::stripped::ALL_BULK),
        (sync_page::summaries::ALL, sync_page::summaries::ALL_BULK),
        (sync_page::timelines::ALL, sync_page::timelines::ALL_BULK),
        (timeline::ALL, timeline::ALL_BULK),
        (timeline::by_time::ALL, timeline::by_time::ALL_BULK),
        (timeline::paging::ALL, timeline::paging::ALL_BULK),
        (to_device::ALL, to_device::ALL_BULK),
        (transactions::ALL, transactions::ALL_BULK),
        (unread::ALL, unread::ALL_BULK),
        (unread::count::ALL, unread::count::ALL_BULK),
        (unread::read::ALL, unread::read::ALL_BULK),
        (url_previews::ALL, url_previews::ALL_BULK),
        (user_directory::ALL, user_directory::ALL_BULK),
        (migrate::ALL, migrate::ALL_BULK),
        (outbox::ALL, outbox::ALL_BULK),
        (stream::ALL, stream::ALL_BULK),
    ];
    #[cfg(feature = "postgres")]
    let modules = modules.into_iter().chain([postgres::STATEMENTS]);
    let (statements, bulks): (Vec<_>, Vec<_>) = modules.into_iter().unzip();
    (statements.concat(), bulks.concat())
}
