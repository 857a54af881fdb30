//! Sessions: a device of a user, and the access token it comes with.
//!
//! A session ends in the transaction that says so: its token and its device are gone at once. What else the device left
//! behind is removed by a worker, from the outbox. Other processes hear of the end by its position.

use std::sync::Arc;

use crate::{
    Sql, account_data,
    accounts::find_user,
    connections, dehydrated,
    error::Result,
    keys::{self, cross_signing},
    outbox::{self, NewItem},
    pushers,
    sso::tokens,
    to_device,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, Wake, args, statements},
};

statements! {
    SESSION = "SELECT t.user_id, t.device_id, u.admin, t.expires_ms, r.replaces FROM access_tokens t \
        JOIN users u ON u.user_id = t.user_id \
        JOIN devices d ON d.user_id = t.user_id AND d.device_id = t.device_id \
        LEFT JOIN refresh_tokens r ON r.token_hash = t.refresh_hash \
        WHERE t.token_hash = $1 AND u.deactivated = 0";
    INSERT_DEVICE = "INSERT INTO devices (user_id, device_id, display_name, created_ms) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (user_id, device_id) DO NOTHING";
    INSERT_ACCESS_TOKEN = "INSERT INTO access_tokens (token_hash, user_id, device_id, created_ms, expires_ms, \
        refresh_hash) VALUES ($1, $2, $3, $4, $5, $6)";
    INSERT_REFRESH_TOKEN = "INSERT INTO refresh_tokens (token_hash, user_id, device_id, replaces, created_ms, \
        expires_ms) VALUES ($1, $2, $3, $4, $5, $6)";
    DEVICE_IDS = "SELECT device_id FROM devices WHERE user_id = $1";
    // An OFFSET wants a LIMIT on SQLite: this one is none.
    AWAY_LONGEST = "SELECT device_id FROM devices WHERE user_id = $1 \
        AND device_id NOT IN (SELECT device_id FROM dehydrated_devices WHERE user_id = $1) \
        ORDER BY COALESCE(last_seen_ms, created_ms) DESC, device_id LIMIT 1000000 OFFSET $2";
    BACK = "UPDATE devices SET last_seen_ms = $3 WHERE user_id = $1 AND device_id = $2 \
        AND COALESCE(last_seen_ms, created_ms) < $3";
    DEVICES = "SELECT device_id, display_name, created_ms, last_seen_ms, last_seen_ip FROM devices \
        WHERE user_id = $1 ORDER BY created_ms, device_id";
    DEVICE = "SELECT device_id, display_name, created_ms, last_seen_ms, last_seen_ip FROM devices \
        WHERE user_id = $1 AND device_id = $2";
    RENAME_DEVICE = "UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2";
    DELETE_TOKENS = "DELETE FROM access_tokens WHERE user_id = $1 AND device_id = ANY($2)";
    DELETE_REFRESH_TOKENS = "DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = ANY($2)";
    DELETE_DEVICES = "DELETE FROM devices WHERE user_id = $1 AND device_id = ANY($2)";
    REVOKE = "INSERT INTO revocations (pos, user_id, device_id, at_ms) VALUES ($1, $2, $3, $4)";
    PURGE_REVOCATIONS = "DELETE FROM revocations WHERE pos IN \
        (SELECT pos FROM revocations WHERE at_ms < $1 ORDER BY pos LIMIT $2)";
    SEEN = "UPDATE devices SET last_seen_ms = $3, last_seen_ip = $4 WHERE user_id = $1 AND device_id = $2 \
        AND (last_seen_ms IS NULL OR last_seen_ms < $3)";
    DELETE_DEVICE_TRANSACTIONS = "DELETE FROM transactions WHERE user_id = $1 AND device_id = $2 AND txn_id IN \
        (SELECT txn_id FROM transactions WHERE user_id = $1 AND device_id = $2 LIMIT $3)";
}

/// So many devices a user has, beside a dehydrated one. With one more, that goes which was away longest: programs that log
/// in at each start and never out would keep their owner out for good.
pub const MOST_DEVICES: u32 = 1_000;

/// The outbox queue that removes what a device left behind. The payload is a [`DeviceCleanup`].
pub const DEVICE_CLEANUP: &str = "device_cleanup";

/// What a row of the queue [`DEVICE_CLEANUP`] says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceCleanup {
    pub user_id: String,
    pub devices: Vec<String>,
}

/// A session that is to start. The token itself never comes here.
#[derive(Clone)]
pub struct NewSession {
    pub device_id: String,
    /// Only for a device that isn't known yet.
    pub display_name: Option<String>,
    pub token_hash: [u8; 32],
    pub created_ms: i64,
    pub expires_ms: Option<i64>,
    /// With which the access token can be renewed.
    pub refresh: Option<NewRefresh>,
}

/// A refresh token that is to be kept.
#[derive(Clone)]
pub struct NewRefresh {
    pub token_hash: [u8; 32],
    pub expires_ms: Option<i64>,
}

/// When a session ends, and the id of the job that cleans up after it: made by the caller, so that the operation can be
/// run again.
#[derive(Clone, Debug)]
pub struct Ending {
    pub at_ms: i64,
    pub job_id: String,
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    pub user_id: String,
    pub device_id: String,
    pub admin: bool,
    pub expires_ms: Option<i64>,
    /// It takes the place of another, which ends with its first use.
    pub replaces: bool,
}

/// A device as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    pub device_id: String,
    pub display_name: Option<String>,
    pub created_ms: i64,
    pub last_seen_ms: Option<i64>,
    pub last_seen_ip: Option<String>,
}

/// What became of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedIn {
    /// `ended`: sessions are gone by it. The device was there already, or there were too many.
    Done { ended: bool },
    /// The account was ended, or its password changed, since the password was checked.
    Refused,
    /// The device would be called like a cross-signing key of the user.
    KeyInUse,
}

/// That a device was here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub user_id: String,
    pub device_id: String,
    pub at_ms: i64,
    pub ip: Option<String>,
}

/// Devices and their access tokens.
pub trait Sessions: Send + Sync {
    /// Starts a session. `password_hash` is the one that the caller checked the password against: if the account has
    /// another by now, the login is refused.
    fn login(&self, user_id: &str, password_hash: Option<&str>, session: NewSession) -> Answer<'_, LoggedIn>;
    /// What the token with this hash stands for, if its user is still active.
    fn session_by_token(&self, token_hash: [u8; 32]) -> Answer<'_, Option<SessionRow>>;
    /// Ends the sessions of these devices; the number of devices that there were.
    fn end_sessions(&self, user_id: &str, devices: Vec<String>, ending: Ending) -> Answer<'_, u64>;
    /// Ends all sessions of the user; the number of devices that there were.
    fn end_all_sessions(&self, user_id: &str, ending: Ending) -> Answer<'_, u64>;
    fn devices(&self, user_id: &str) -> Answer<'_, Vec<DeviceRow>>;
    fn device(&self, user_id: &str, device_id: &str) -> Answer<'_, Option<DeviceRow>>;
    /// False: the user has no such device.
    fn rename_device(&self, user_id: &str, device_id: &str, name: Option<&str>) -> Answer<'_, bool>;
    /// Notes when devices were last here, all in one transaction.
    fn touch_devices(&self, seen: Vec<Seen>) -> Answer<'_, ()>;
    /// Forgets revocations that every process has long seen; how many there were, at most `limit`.
    fn purge_revocations(&self, before_ms: i64, limit: u32) -> Answer<'_, u64>;
    /// Removes at most about `limit` rows of what a device left behind; how many there were. A device that logged in
    /// again meanwhile keeps what it has.
    fn clean_device(&self, user_id: &str, device_id: &str, limit: u32) -> Answer<'_, u64>;
}

impl<E: Engine> Sessions for Sql<E> {
    fn login(&self, user_id: &str, password_hash: Option<&str>, session: NewSession) -> Answer<'_, LoggedIn> {
        self.0.write(Login {
            user_id: user_id.to_owned(),
            password_hash: password_hash.map(ToOwned::to_owned),
            session,
        })
    }

    fn session_by_token(&self, token_hash: [u8; 32]) -> Answer<'_, Option<SessionRow>> {
        self.0.read(SessionByToken(token_hash))
    }

    fn end_sessions(&self, user_id: &str, devices: Vec<String>, ending: Ending) -> Answer<'_, u64> {
        self.0.write(EndSessions { user_id: user_id.to_owned(), devices: Some(devices), ending })
    }

    fn end_all_sessions(&self, user_id: &str, ending: Ending) -> Answer<'_, u64> {
        self.0.write(EndSessions { user_id: user_id.to_owned(), devices: None, ending })
    }

    fn devices(&self, user_id: &str) -> Answer<'_, Vec<DeviceRow>> {
        self.0.read(Devices(user_id.to_owned()))
    }

    fn device(&self, user_id: &str, device_id: &str) -> Answer<'_, Option<DeviceRow>> {
        self.0.read(Device(user_id.to_owned(), device_id.to_owned()))
    }

    fn rename_device(&self, user_id: &str, device_id: &str, name: Option<&str>) -> Answer<'_, bool> {
        self.0.write(RenameDevice {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            name: name.map(ToOwned::to_owned),
        })
    }

    fn touch_devices(&self, seen: Vec<Seen>) -> Answer<'_, ()> {
        self.0.write(TouchDevices(seen))
    }

    fn purge_revocations(&self, before_ms: i64, limit: u32) -> Answer<'_, u64> {
        self.0.write(PurgeRevocations { before_ms, limit })
    }

    fn clean_device(&self, user_id: &str, device_id: &str, limit: u32) -> Answer<'_, u64> {
        self.0.write(CleanDevice { user_id: user_id.to_owned(), device_id: device_id.to_owned(), limit })
    }
}

/// Writes the device, if it is new, and the token.
pub(crate) async fn start<T: Tx>(tx: &mut T, user_id: &str, session: &NewSession) -> Result<()> {
    let NewSession { device_id, display_name, token_hash, created_ms, expires_ms, refresh } = session;
    if tx.execute(INSERT_DEVICE, args![user_id, device_id, display_name.clone(), *created_ms]).await? == 1 {
        to_device::forget(tx, user_id, device_id).await?;
    }
    if let Some(refresh) = refresh {
        insert_refresh(tx, user_id, device_id, refresh, None, *created_ms).await?;
    }
    let beside = refresh.as_ref().map(|refresh| &refresh.token_hash[..]);
    insert_access(tx, user_id, device_id, token_hash, *created_ms, *expires_ms, beside).await
}

pub(crate) async fn insert_access<T: Tx>(
    tx: &mut T,
    user_id: &str,
    device_id: &str,
    token_hash: &[u8],
    created_ms: i64,
    expires_ms: Option<i64>,
    beside: Option<&[u8]>,
) -> Result<()> {
    let args = args![token_hash, user_id, device_id, created_ms, expires_ms, beside.map(<[u8]>::to_vec)];
    tx.execute(INSERT_ACCESS_TOKEN, args).await?;
    Ok(())
}

pub(crate) async fn insert_refresh<T: Tx>(
    tx: &mut T,
    user_id: &str,
    device_id: &str,
    new: &NewRefresh,
    replaces: Option<&[u8]>,
    created_ms: i64,
) -> Result<()> {
    let NewRefresh { token_hash, expires_ms } = new;
    let args = args![&token_hash[..], user_id, device_id, replaces.map(<[u8]>::to_vec), created_ms, *expires_ms];
    tx.execute(INSERT_REFRESH_TOKEN, args).await?;
    Ok(())
}

/// How many access tokens these devices had.
async fn delete_tokens<T: Tx>(tx: &mut T, user_id: &str, devices: &[String]) -> Result<u64> {
    tx.execute(DELETE_REFRESH_TOKENS, args![user_id, devices.to_vec()]).await?;
    tx.execute(DELETE_TOKENS, args![user_id, devices.to_vec()]).await
}

/// Ends all sessions of the user but that of `keep`. The number of devices that went.
pub(crate) async fn end_all<T: Tx>(tx: &mut T, user_id: &str, keep: Option<&str>, ending: &Ending) -> Result<u64> {
    let devices = device_ids(tx, user_id).await?.into_iter().filter(|d| keep != Some(d.as_str())).collect();
    end(tx, user_id, devices, ending).await
}

/// Ends these devices of the user. How many there were.
pub(crate) async fn end<T: Tx>(tx: &mut T, user_id: &str, devices: Vec<String>, ending: &Ending) -> Result<u64> {
    if devices.is_empty() {
        return Ok(0);
    }
    delete_tokens(tx, user_id, &devices).await?;
    let gone = tx.execute(DELETE_DEVICES, args![user_id, devices.clone()]).await?;
    let pos = revoke(tx, user_id, &devices, ending.at_ms).await?;
    keys::forget_devices(tx, user_id, &devices, pos).await?;
    connections::forget(tx, user_id, &devices).await?;
    pushers::forget_devices(tx, user_id, &devices).await?;
    tokens::forget_devices(tx, user_id, &devices).await?;
    account_data::forget_devices(tx, user_id, &devices, pos).await?;
    dehydrated::forget(tx, user_id, &devices).await?;
    let job = DeviceCleanup { user_id: user_id.to_owned(), devices };
    let payload = serde_json::json!(job).to_string();
    let item = NewItem { id: ending.job_id.clone(), payload, due_ms: ending.at_ms };
    outbox::enqueue(tx, DEVICE_CLEANUP, vec![item]).await?;
    Ok(gone)
}

/// Tells the caches of all processes, at one position however many devices it concerns: this one.
pub(crate) async fn revoke<T: Tx>(tx: &mut T, user_id: &str, devices: &[String], at_ms: i64) -> Result<i64> {
    let which = if let [one] = devices { one.as_str() } else { "" };
    let pos = tx.next_pos()?;
    tx.execute(REVOKE, args![pos, user_id, which, at_ms]).await?;
    tx.wake(Wake::User(Arc::from(user_id)));
    Ok(pos)
}

async fn device_ids<R: Reads>(tx: &mut R, user_id: &str) -> Result<Vec<String>> {
    tx.query(DEVICE_IDS, args![user_id]).await?.iter_mut().map(|row| row.get(0)).collect()
}

struct Login {
    user_id: String,
    password_hash: Option<String>,
    session: NewSession,
}

impl Op for Login {
    const NAME: &'static str = "login";
    type Out = LoggedIn;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<LoggedIn> {
        let user = find_user(tx, &self.user_id).await?;
        if user.is_none_or(|user| user.deactivated || user.password_hash != self.password_hash) {
            return Ok(LoggedIn::Refused);
        }
        if is_called_like_a_key(tx, &self.user_id, &self.session.device_id).await? {
            return Ok(LoggedIn::KeyInUse);
        }
        Ok(LoggedIn::Done { ended: begin(tx, &self.user_id, &self.session).await? })
    }
}

/// Whether a device of this id would be called like a cross-signing key of the user.
pub(crate) async fn is_called_like_a_key<R: Reads>(tx: &mut R, user_id: &str, device_id: &str) -> Result<bool> {
    cross_signing::is_called_like_a_key(tx, user_id, device_id).await
}

/// Starts the session of a user who has proved who they are, at one position. Whether other sessions ended by it.
pub(crate) async fn begin<T: Tx>(tx: &mut T, user_id: &str, session: &NewSession) -> Result<bool> {
    let device = &session.device_id;
    let again = tx.query_opt(DEVICE, args![user_id, device]).await?.is_some();
    if again {
        let device = std::slice::from_ref(device);
        delete_tokens(tx, user_id, device).await?;
        let pos = revoke(tx, user_id, device, session.created_ms).await?;
        // Whoever comes now may be another program, or another person: its keys are not theirs, and neither is what was
        // sent to it, or to its pushers.
        keys::forget_devices(tx, user_id, device, pos).await?;
        connections::forget(tx, user_id, device).await?;
        to_device::forget(tx, user_id, &session.device_id).await?;
        dehydrated::forget(tx, user_id, device).await?;
        pushers::forget_devices(tx, user_id, device).await?;
        tokens::forget_devices(tx, user_id, device).await?;
        // Or it might be the one away longest until its first request.
        tx.execute(BACK, args![user_id, &session.device_id, session.created_ms]).await?;
    }
    let ended = again || make_room(tx, user_id, session).await? > 0;
    start(tx, user_id, session).await?;
    Ok(ended)
}

/// Ends what was away longest, if the user can have no more devices. How many there were.
async fn make_room<T: Tx>(tx: &mut T, user_id: &str, session: &NewSession) -> Result<u64> {
    let mut rows = tx.query(AWAY_LONGEST, args![user_id, i64::from(MOST_DEVICES) - 1]).await?;
    let devices: Vec<String> = rows.iter_mut().map(|row| row.get(0)).collect::<Result<_>>()?;
    if devices.is_empty() {
        return Ok(0);
    }
    let token = session.token_hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ending = Ending { at_ms: session.created_ms, job_id: format!("for {token}") };
    end(tx, user_id, devices, &ending).await
}

struct SessionByToken([u8; 32]);

impl Query for SessionByToken {
    const NAME: &'static str = "session_by_token";
    type Out = Option<SessionRow>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<SessionRow>> {
        let Some(mut row) = tx.query_opt(SESSION, args![&self.0[..]]).await? else { return Ok(None) };
        Ok(Some(SessionRow {
            user_id: row.get(0)?,
            device_id: row.get(1)?,
            admin: row.get(2)?,
            expires_ms: row.get(3)?,
            replaces: row.get::<Option<Vec<u8>>>(4)?.is_some(),
        }))
    }
}

struct EndSessions {
    user_id: String,
    /// None: all.
    devices: Option<Vec<String>>,
    ending: Ending,
}

impl Op for EndSessions {
    const NAME: &'static str = "end_sessions";
    type Out = u64;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let mut there = device_ids(tx, &self.user_id).await?;
        if let Some(wanted) = &self.devices {
            there.retain(|d| wanted.contains(d));
        }
        end(tx, &self.user_id, there, &self.ending).await
    }
}

fn device(row: &mut Row) -> Result<DeviceRow> {
    Ok(DeviceRow {
        device_id: row.get(0)?,
        display_name: row.get(1)?,
        created_ms: row.get(2)?,
        last_seen_ms: row.get(3)?,
        last_seen_ip: row.get(4)?,
    })
}

struct Devices(String);

impl Query for Devices {
    const NAME: &'static str = "devices";
    type Out = Vec<DeviceRow>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<DeviceRow>> {
        tx.query(DEVICES, args![&self.0]).await?.iter_mut().map(device).collect()
    }
}

struct Device(String, String);

impl Query for Device {
    const NAME: &'static str = "device";
    type Out = Option<DeviceRow>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Option<DeviceRow>> {
        tx.query_opt(DEVICE, args![&self.0, &self.1]).await?.as_mut().map(device).transpose()
    }
}

struct RenameDevice {
    user_id: String,
    device_id: String,
    name: Option<String>,
}

impl Op for RenameDevice {
    const NAME: &'static str = "rename_device";
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let renamed = tx.execute(RENAME_DEVICE, args![&self.user_id, &self.device_id, self.name.clone()]).await? == 1;
        if renamed {
            keys::renamed(tx, &self.user_id, &self.device_id).await?;
        }
        Ok(renamed)
    }
}

struct TouchDevices(Vec<Seen>);

impl Op for TouchDevices {
    const NAME: &'static str = "touch_devices";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        for Seen { user_id, device_id, at_ms, ip } in &self.0 {
            tx.execute(SEEN, args![user_id, device_id, *at_ms, ip.clone()]).await?;
        }
        Ok(())
    }
}

struct PurgeRevocations {
    before_ms: i64,
    limit: u32,
}

impl Op for PurgeRevocations {
    const NAME: &'static str = "purge_revocations";
    type Out = u64;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.execute(PURGE_REVOCATIONS, args![self.before_ms, i64::from(self.limit)]).await
    }
}

struct CleanDevice {
    user_id: String,
    device_id: String,
    limit: u32,
}

impl Op for CleanDevice {
    const NAME: &'static str = "clean_device";
    type Out = u64;

    // It takes none; asking for one keeps it from running beside the login that brings the device back.
    fn positions(&self) -> u32 {
        1
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        if tx.query_opt(DEVICE, args![&self.user_id, &self.device_id]).await?.is_some() {
            return Ok(0);
        }
        let tokens = delete_tokens(tx, &self.user_id, std::slice::from_ref(&self.device_id)).await?;
        let limit = i64::from(self.limit);
        let rest = tx.execute(DELETE_DEVICE_TRANSACTIONS, args![&self.user_id, &self.device_id, limit]).await?;
        Ok(tokens + rest + to_device::clean(tx, &self.user_id, &self.device_id, limit).await?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        accounts::{Accounts as _, NewUser},
        follow::Follow as _,
        outbox::Outbox as _,
        stream::Stream as _,
        testing::{Store, each_backend},
    };

    pub(crate) fn session(device: &str, token: u8) -> NewSession {
        NewSession {
            device_id: device.to_owned(),
            display_name: Some(format!("phone {token}")),
            token_hash: [token; 32],
            created_ms: token.into(),
            expires_ms: None,
            refresh: None,
        }
    }

    /// Whose sessions ended after a position, as a process that follows the stream hears of it.
    async fn revoked(store: &Store, after: i64) -> Vec<(String, String)> {
        store.changes_after(after, 9).await.unwrap().revoked
    }

    fn of(device: &str) -> (String, String) {
        ("@a:x".to_owned(), device.to_owned())
    }

    async fn register(store: &Store, name: &str, device: &str, token: u8) {
        let user =
            NewUser { user_id: name.to_owned(), password_hash: Some("hash".to_owned()), admin: false, created_ms: 1 };
        store.register(user, Some(session(device, token)), None).await.unwrap();
    }

    fn ending(job: &str) -> Ending {
        Ending { at_ms: 9, job_id: job.to_owned() }
    }

    #[test]
    fn a_login_brings_a_device_or_takes_it_over() {
        each_backend(|store| async move {
            register(&store, "@a:x", "D", 1).await;
            let new = store.login("@a:x", Some("hash"), session("E", 2)).await.unwrap();
            assert_eq!(new, LoggedIn::Done { ended: false });
            assert_eq!(revoked(&store, 0).await, []);
            let again = store.login("@a:x", Some("hash"), session("D", 3)).await.unwrap();
            assert_eq!(again, LoggedIn::Done { ended: true });
            assert!(store.session_by_token([1; 32]).await.unwrap().is_none(), "the old token of the device is gone");
            assert!(store.session_by_token([2; 32]).await.unwrap().is_some());
            assert!(store.session_by_token([3; 32]).await.unwrap().is_some());
            assert_eq!(revoked(&store, 0).await, [of("D")]);
            let devices = store.devices("@a:x").await.unwrap();
            let names: Vec<_> = devices.iter().map(|d| (&*d.device_id, d.display_name.as_deref())).collect();
            assert_eq!(names, [("D", Some("phone 1")), ("E", Some("phone 2"))], "a known device keeps its name");
        });
    }

    #[test]
    fn a_login_with_a_password_of_yesterday_is_refused() {
        each_backend(|store| async move {
            register(&store, "@a:x", "D", 1).await;
            store.set_password("@a:x", "new", None, None).await.unwrap();
            assert_eq!(store.login("@a:x", Some("hash"), session("E", 2)).await.unwrap(), LoggedIn::Refused);
            assert_eq!(store.login("@b:x", Some("hash"), session("E", 2)).await.unwrap(), LoggedIn::Refused);
            assert!(store.device("@a:x", "E").await.unwrap().is_none());
        });
    }

    #[test]
    fn the_same_device_id_of_another_user_is_another_device() {
        each_backend(|store| async move {
            register(&store, "@a:x", "D", 1).await;
            register(&store, "@b:x", "D", 2).await;
            assert_eq!(store.end_sessions("@b:x", vec!["D".to_owned()], ending("j")).await.unwrap(), 1);
            assert!(store.session_by_token([1; 32]).await.unwrap().is_some());
            assert!(store.session_by_token([2; 32]).await.unwrap().is_none());
            assert!(!store.rename_device("@b:x", "D", Some("mine")).await.unwrap());
            assert!(store.rename_device("@a:x", "D", Some("mine")).await.unwrap());
            assert_eq!(store.device("@a:x", "D").await.unwrap().unwrap().display_name.as_deref(), Some("mine"));
        });
    }

    #[test]
    fn what_ends_is_told_by_position_and_cleaned_up_after() {
        each_backend(|store| async move {
            register(&store, "@a:x", "D", 1).await;
            for (device, token) in [("E", 2), ("F", 3)] {
                store.login("@a:x", Some("hash"), session(device, token)).await.unwrap();
            }
            let gone = store.end_sessions("@a:x", vec!["E".to_owned(), "nowhere".to_owned()], ending("j1")).await;
            assert_eq!(gone.unwrap(), 1);
            assert_eq!(revoked(&store, 0).await, [of("E")]);
            let first = store.head().await.unwrap();
            assert_eq!(store.end_all_sessions("@a:x", ending("j2")).await.unwrap(), 2);
            assert_eq!(store.end_all_sessions("@a:x", ending("j3")).await.unwrap(), 0);
            assert_eq!(revoked(&store, first).await, [of("")], "all at once are one; nobody there is none");
            let items = store.lease(DEVICE_CLEANUP, "w", 10, 10, 9).await.unwrap();
            let jobs: Vec<DeviceCleanup> = items.iter().map(|i| serde_json::from_str(&i.payload).unwrap()).collect();
            let mut devices: Vec<_> = jobs.into_iter().flat_map(|job| job.devices).collect();
            devices.sort();
            assert_eq!(devices, ["D", "E", "F"]);
            assert_eq!(store.purge_revocations(9, 9).await.unwrap(), 0);
            assert_eq!(store.purge_revocations(10, 1).await.unwrap(), 1);
            assert_eq!(store.purge_revocations(10, 9).await.unwrap(), 1);
        });
    }

    #[test]
    fn of_too_many_devices_that_goes_which_was_away_longest() {
        each_backend(|store| async move {
            register(&store, "@a:x", "D0", 1).await;
            for n in 1..MOST_DEVICES {
                let mut new = session(&format!("D{n}"), 1);
                new.created_ms = i64::from(n) + 10;
                new.token_hash[..4].copy_from_slice(&n.to_be_bytes());
                store.login("@a:x", Some("hash"), new).await.unwrap();
            }
            let seen = |n: u32| Seen {
                user_id: "@a:x".to_owned(),
                device_id: format!("D{n}"),
                at_ms: 5_000,
                ip: Some("::1".to_owned()),
            };
            store.touch_devices(vec![seen(0), seen(2)]).await.unwrap();
            assert_eq!(store.devices("@a:x").await.unwrap().len(), MOST_DEVICES as usize);
            // Who comes again is not away.
            for (device, token) in [("D1", 2), ("D5", 3)] {
                let again = NewSession { created_ms: 6_000, ..session(device, token) };
                assert_eq!(store.login("@a:x", Some("hash"), again).await.unwrap(), LoggedIn::Done { ended: true });
            }
            assert_eq!(store.devices("@a:x").await.unwrap().len(), MOST_DEVICES as usize);
            for (gone, token) in [("D3", 4), ("D4", 5)] {
                assert!(store.device("@a:x", gone).await.unwrap().is_some());
                let before = store.head().await.unwrap();
                let new = NewSession { created_ms: 6_000, ..session(&format!("new {token}"), token) };
                let one_more = store.login("@a:x", Some("hash"), new).await.unwrap();
                assert_eq!(one_more, LoggedIn::Done { ended: true });
                assert_eq!(revoked(&store, before).await, [of(gone)]);
                assert_eq!(store.devices("@a:x").await.unwrap().len(), MOST_DEVICES as usize);
                assert!(store.device("@a:x", gone).await.unwrap().is_none());
                assert!(store.session_by_token([token; 32]).await.unwrap().is_some());
            }
            let items = store.lease(DEVICE_CLEANUP, "w", 6_000, 10, 9).await.unwrap();
            assert_eq!(items.len(), 2, "what they left behind is removed");
        });
    }

    #[test]
    fn a_device_is_seen_when_it_was_last_here() {
        each_backend(|store| async move {
            register(&store, "@a:x", "D", 1).await;
            let seen = |device: &str, at_ms, ip: &str| Seen {
                user_id: "@a:x".to_owned(),
                device_id: device.to_owned(),
                at_ms,
                ip: Some(ip.to_owned()),
            };
            store.touch_devices(vec![seen("D", 50, "::1"), seen("E", 50, "::1")]).await.unwrap();
            store.touch_devices(vec![seen("D", 40, "::2")]).await.unwrap();
            let device = store.device("@a:x", "D").await.unwrap().unwrap();
            assert_eq!((device.last_seen_ms, device.last_seen_ip.as_deref()), (Some(50), Some("::1")));
            assert!(store.device("@a:x", "E").await.unwrap().is_none(), "being seen makes no device");
        });
    }
}
