//! Backups of the keys to encrypted rooms.

mod pages;

use std::collections::BTreeMap;

use axum::body::Body;
use hearth_core::{Error, Result};
use hearth_storage::key_backup::{Backup, Which};
use http::Response;
use ruma::{
    RoomId, UInt,
    api::client::backup::{
        BackupAlgorithm, KeyBackupData, add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session,
        create_backup_version, delete_backup_keys, delete_backup_keys_for_room, delete_backup_keys_for_session,
        delete_backup_version, get_backup_info, get_backup_keys, get_backup_keys_for_room, get_backup_keys_for_session,
        get_latest_backup_info, update_backup_version,
    },
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use self::pages::{KeyData, Pages};
use crate::{
    api::{Api, Client, Routes},
    service::{
        key_backup::{Left, SentKey},
        rate_limit::Limited,
    },
};

/// Clients put one or two hundred keys at once.
const BODY_BYTES: usize = 4 << 20;

pub(super) fn routes(r: Routes) -> Routes {
    r.client(create)
        .limited(Limited::KeyBackup)
        .client(latest)
        .client(info)
        .client(update)
        .limited(Limited::KeyBackup)
        .client(delete)
        .limited(Limited::KeyBackup)
        .client(put)
        .with_limit(BODY_BYTES)
        .limited(Limited::KeyBackup)
        .client(put_of_room)
        .with_limit(BODY_BYTES)
        .limited(Limited::KeyBackup)
        .client(put_one)
        .limited(Limited::KeyBackup)
        .client_streamed(keys)
        .client_streamed(keys_of_room)
        .client(key)
        .client(delete_keys)
        .limited(Limited::KeyBackup)
        .client(delete_keys_of_room)
        .limited(Limited::KeyBackup)
        .client(delete_key)
        .limited(Limited::KeyBackup)
}

async fn create(
    api: Api,
    req: Client<create_backup_version::v3::Request>,
) -> Result<create_backup_version::v3::Response> {
    let version = api.key_backups.create(&req.auth, req.body.algorithm.json()).await?;
    Ok(create_backup_version::v3::Response::new(version))
}

async fn latest(
    api: Api,
    req: Client<get_latest_backup_info::v3::Request>,
) -> Result<get_latest_backup_info::v3::Response> {
    let backup = api.key_backups.get(&req.auth, None).await?;
    let (algorithm, count) = (algorithm(&backup)?, uint(backup.count)?);
    let (etag, version) = (backup.etag.to_string(), backup.version.to_string());
    Ok(get_latest_backup_info::v3::Response::new(algorithm, count, etag, version))
}

async fn info(api: Api, req: Client<get_backup_info::v3::Request>) -> Result<get_backup_info::v3::Response> {
    let backup = api.key_backups.get(&req.auth, Some(&req.body.version)).await?;
    let (algorithm, count) = (algorithm(&backup)?, uint(backup.count)?);
    let (etag, version) = (backup.etag.to_string(), backup.version.to_string());
    Ok(get_backup_info::v3::Response::new(algorithm, count, etag, version))
}

fn algorithm(backup: &Backup) -> Result<Raw<BackupAlgorithm>> {
    #[derive(Serialize)]
    struct Method<'a> {
        algorithm: &'a str,
        auth_data: &'a RawValue,
    }
    let auth_data = serde_json::from_str(&backup.auth_data).map_err(Error::internal)?;
    let method = to_raw_value(&Method { algorithm: &backup.algorithm, auth_data }).map_err(Error::internal)?;
    Ok(Raw::from_json(method))
}

fn uint(count: i64) -> Result<UInt> {
    UInt::try_from(count).map_err(Error::internal)
}

async fn update(
    api: Api,
    req: Client<update_backup_version::v3::Request>,
) -> Result<update_backup_version::v3::Response> {
    api.key_backups.update(&req.auth, &req.body.version, req.body.algorithm.json()).await?;
    Ok(update_backup_version::v3::Response::new())
}

async fn delete(
    api: Api,
    req: Client<delete_backup_version::v3::Request>,
) -> Result<delete_backup_version::v3::Response> {
    api.key_backups.delete(&req.auth, &req.body.version).await?;
    Ok(delete_backup_version::v3::Response::new())
}

async fn put(api: Api, req: Client<add_backup_keys::v3::Request>) -> Result<add_backup_keys::v3::Response> {
    let rooms = req.body.rooms.iter();
    let sent: Vec<SentKey<'_>> = rooms.flat_map(|(room_id, backup)| of_room(room_id, &backup.sessions)).collect();
    let Left { count, etag } = api.key_backups.put(&req.auth, &req.body.version, &sent).await?;
    Ok(add_backup_keys::v3::Response::new(etag, count))
}

async fn put_of_room(
    api: Api,
    req: Client<add_backup_keys_for_room::v3::Request>,
) -> Result<add_backup_keys_for_room::v3::Response> {
    let sent: Vec<SentKey<'_>> = of_room(&req.body.room_id, &req.body.sessions).collect();
    let Left { count, etag } = api.key_backups.put(&req.auth, &req.body.version, &sent).await?;
    Ok(add_backup_keys_for_room::v3::Response::new(etag, count))
}

async fn put_one(
    api: Api,
    req: Client<add_backup_keys_for_session::v3::Request>,
) -> Result<add_backup_keys_for_session::v3::Response> {
    let body = &req.body;
    let sent = SentKey { room_id: &body.room_id, session_id: &body.session_id, data: body.session_data.json() };
    let Left { count, etag } = api.key_backups.put(&req.auth, &body.version, &[sent]).await?;
    Ok(add_backup_keys_for_session::v3::Response::new(etag, count))
}

fn of_room<'a>(
    room_id: &'a RoomId,
    sessions: &'a BTreeMap<String, Raw<KeyBackupData>>,
) -> impl Iterator<Item = SentKey<'a>> {
    sessions.iter().map(move |(session_id, data)| SentKey { room_id, session_id, data: data.json() })
}

async fn keys(api: Api, req: Client<get_backup_keys::v3::Request>) -> Result<Response<Body>> {
    Pages::new(api, req.auth, req.body.version, None).answer().await
}

async fn keys_of_room(api: Api, req: Client<get_backup_keys_for_room::v3::Request>) -> Result<Response<Body>> {
    Pages::new(api, req.auth, req.body.version, Some(req.body.room_id)).answer().await
}

async fn key(
    api: Api,
    req: Client<get_backup_keys_for_session::v3::Request>,
) -> Result<get_backup_keys_for_session::v3::Response> {
    let body = &req.body;
    let key = api.key_backups.key(&req.auth, &body.version, &body.room_id, &body.session_id).await?;
    let data = to_raw_value(&KeyData::of(&key)?).map_err(Error::internal)?;
    Ok(get_backup_keys_for_session::v3::Response::new(Raw::from_json(data)))
}

async fn delete_keys(
    api: Api,
    req: Client<delete_backup_keys::v3::Request>,
) -> Result<delete_backup_keys::v3::Response> {
    let Left { count, etag } = api.key_backups.delete_keys(&req.auth, &req.body.version, &Which::All).await?;
    Ok(delete_backup_keys::v3::Response::new(etag, count))
}

async fn delete_keys_of_room(
    api: Api,
    req: Client<delete_backup_keys_for_room::v3::Request>,
) -> Result<delete_backup_keys_for_room::v3::Response> {
    let which = Which::Room(req.body.room_id.to_string());
    let Left { count, etag } = api.key_backups.delete_keys(&req.auth, &req.body.version, &which).await?;
    Ok(delete_backup_keys_for_room::v3::Response::new(etag, count))
}

async fn delete_key(
    api: Api,
    req: Client<delete_backup_keys_for_session::v3::Request>,
) -> Result<delete_backup_keys_for_session::v3::Response> {
    let which = Which::One(req.body.room_id.to_string(), req.body.session_id);
    let Left { count, etag } = api.key_backups.delete_keys(&req.auth, &req.body.version, &which).await?;
    Ok(delete_backup_keys_for_session::v3::Response::new(etag, count))
}
