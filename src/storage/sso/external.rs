//! Who of a provider is which user.

use crate::{
    Sql,
    accounts::{self, NewUser, find_user},
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    LINKED = "SELECT e.user_id, COALESCE(u.deactivated, 1) FROM external_ids e \
        LEFT JOIN users u ON u.user_id = e.user_id WHERE e.provider = $1 AND e.subject = $2";
    OF_USER = "SELECT provider, subject, user_id, email, created_ms FROM external_ids WHERE user_id = $1 \
        ORDER BY created_ms, provider, subject LIMIT 100";
    OF_USER_AT = "SELECT 1 FROM external_ids WHERE user_id = $1 AND provider = $2 LIMIT 1";
    INSERT = "INSERT INTO external_ids (provider, subject, user_id, email, created_ms) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (provider, subject) DO NOTHING";
    SET_EMAIL = "UPDATE external_ids SET email = $3 WHERE provider = $1 AND subject = $2 AND email IS DISTINCT FROM $3";
}

/// Somebody whom a provider knows, as one of our users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalId {
    pub provider: String,
    /// What the provider calls them, for ever.
    pub subject: String,
    pub user_id: String,
    pub email: Option<String>,
    pub created_ms: i64,
}

/// A user whom somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedUser {
    pub user_id: String,
    /// The account has been ended.
    pub deactivated: bool,
}

/// What became of the wish that somebody be a user from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linked {
    Done,
    /// They are one already: this, or another.
    Already(LinkedUser),
    /// There is no such active user.
    NoUser,
    /// The user is somebody else of this provider already.
    Other,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    Done,
    /// The name is.
    Taken,
    /// They have an account.
    Already(LinkedUser),
}

/// Who of a provider is which user.
pub trait ExternalIds: Send + Sync {
    fn linked_user(&self, provider: &str, subject: &str) -> Answer<'_, Option<LinkedUser>>;
    /// The first hundred of a user, oldest first.
    fn external_ids(&self, user_id: &str) -> Answer<'_, Vec<ExternalId>>;
    /// Makes somebody one of our users from now on. `only`: unless the user is somebody else of that provider already.
    fn link(&self, external: ExternalId, only: bool) -> Answer<'_, Linked>;
    /// Makes an account for somebody who has none.
    fn join(&self, user: NewUser, external: ExternalId) -> Answer<'_, Joined>;
    /// Keeps the e-mail address by which the provider knows them now.
    fn set_external_email(&self, provider: &str, subject: &str, email: Option<&str>) -> Answer<'_, ()>;
}

impl<E: Engine> ExternalIds for Sql<E> {
    fn linked_user(&self, provider: &str, subject: &str) -> Answer<'_, Option<LinkedUser>> {
        self.0.read(FindLinked { provider: provider.to_owned(), subject: subject.to_owned() })
    }

    fn external_ids(&self, user_id: &str) -> Answer<'_, Vec<ExternalId>> {
        self.0.read(OfUser(user_id.to_owned()))
    }

    fn link(&self, external: ExternalId, only: bool) -> Answer<'_, Linked> {
        self.0.write(Link { external, only })
    }

    fn join(&self, user: NewUser, external: ExternalId) -> Answer<'_, Joined> {
        self.0.write(Join { user, external })
    }

    fn set_external_email(&self, provider: &str, subject: &str, email: Option<&str>) -> Answer<'_, ()> {
        let (provider, subject) = (provider.to_owned(), subject.to_owned());
        self.0.write(SetEmail { provider, subject, email: email.map(ToOwned::to_owned) })
    }
}

async fn linked<R: Reads>(tx: &mut R, provider: &str, subject: &str) -> Result<Option<LinkedUser>> {
    let row = tx.query_opt(LINKED, args![provider, subject]).await?;
    row.map(|mut row| Ok(LinkedUser { user_id: row.get(0)?, deactivated: row.get(1)? })).transpose()
}

/// False: somebody else was quicker.
async fn insert<T: Tx>(tx: &mut T, external: &ExternalId) -> Result<bool> {
    let ExternalId { provider, subject, user_id, email, created_ms } = external;
    Ok(tx.execute(INSERT, args![provider, subject, user_id, email.clone(), *created_ms]).await? == 1)
}

fn external_row(row: &mut Row) -> Result<ExternalId> {
    Ok(ExternalId {
        provider: row.get(0)?,
        subject: row.get(1)?,
        user_id: row.get(2)?,
        email: row.get(3)?,
        created_ms: row.get(4)?,
    })
}

struct FindLinked {
    provider: String,
    subject: String,
}

impl Query for FindLinked {
    const NAME: &'static str = "linked_user";
    const SINGLE: bool = true;
    type Out = Option<LinkedUser>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<LinkedUser>> {
        linked(tx, &self.provider, &self.subject).await
    }
}

struct OfUser(String);

impl Query for OfUser {
    const NAME: &'static str = "external_ids";
    const SINGLE: bool = true;
    type Out = Vec<ExternalId>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<ExternalId>> {
        tx.query(OF_USER, args![&self.0]).await?.iter_mut().map(external_row).collect()
    }
}

struct Link {
    external: ExternalId,
    only: bool,
}

impl Op for Link {
    const NAME: &'static str = "link";
    type Out = Linked;

    // It takes none, but two at once must not both find that the user is nobody yet: asking for one puts them in a row.
    fn positions(&self) -> u32 {
        1
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Linked> {
        let ExternalId { provider, subject, user_id, .. } = &self.external;
        if let Some(user) = linked(tx, provider, subject).await? {
            return Ok(Linked::Already(user));
        }
        if find_user(tx, user_id).await?.is_none_or(|user| user.deactivated) {
            return Ok(Linked::NoUser);
        }
        if self.only && tx.query_opt(OF_USER_AT, args![user_id, provider]).await?.is_some() {
            return Ok(Linked::Other);
        }
        insert(tx, &self.external).await?;
        Ok(Linked::Done)
    }
}

struct Join {
    user: NewUser,
    external: ExternalId,
}

impl Op for Join {
    const NAME: &'static str = "join";
    type Out = Joined;

    // As above.
    fn positions(&self) -> u32 {
        1
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Joined> {
        let ExternalId { provider, subject, .. } = &self.external;
        if let Some(user) = linked(tx, provider, subject).await? {
            return Ok(Joined::Already(user));
        }
        if find_user(tx, &self.user.user_id).await?.is_some() {
            return Ok(Joined::Taken);
        }
        accounts::insert(tx, &self.user, self.user.admin).await?;
        insert(tx, &self.external).await?;
        Ok(Joined::Done)
    }
}

struct SetEmail {
    provider: String,
    subject: String,
    email: Option<String>,
}

impl Op for SetEmail {
    const NAME: &'static str = "set_external_email";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.execute(SET_EMAIL, args![&self.provider, &self.subject, self.email.clone()]).await?;
        Ok(())
    }
}
