//! End-to-end encryption: keys that devices publish, and that others ask for.

use std::collections::BTreeMap;

use hearth_core::{Result, token::SyncToken};
use ruma::{
    OneTimeKeyAlgorithm, OwnedUserId, UInt,
    api::client::keys::{claim_keys, get_key_changes, get_keys, upload_keys, upload_signatures, upload_signing_keys},
};
use serde::Serialize;

use crate::{
    api::{Api, Client, Json, Routes, respond},
    service::keys::NewCrossSigning,
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(upload).client(query).client(claim).client(changes).client(cross_signing).client_as(signatures)
}

async fn upload(api: Api, req: Client<upload_keys::v3::Request>) -> Result<upload_keys::v3::Response> {
    let counts = api.keys.upload(&req.auth, req.body).await?;
    // Who has none left is told so.
    let none = std::iter::once((OneTimeKeyAlgorithm::SignedCurve25519, UInt::MIN));
    let left = counts.one_time.iter().map(|(name, n)| (name.as_str().into(), UInt::try_from(*n).unwrap_or_default()));
    Ok(upload_keys::v3::Response::new(none.chain(left).collect()))
}

async fn query(api: Api, req: Client<get_keys::v3::Request>) -> Result<get_keys::v3::Response> {
    api.keys.query(&req.auth, req.body.device_keys).await
}

async fn claim(api: Api, req: Client<claim_keys::v3::Request>) -> Result<claim_keys::v3::Response> {
    api.keys.claim(req.body.one_time_keys).await
}

/// Up to now, whatever the token `to` says: a list that changed after it has changed.
async fn changes(api: Api, req: Client<get_key_changes::v3::Request>) -> Result<get_key_changes::v3::Response> {
    let (from, _): (SyncToken, SyncToken) = (req.body.from.parse()?, req.body.to.parse()?);
    let lists = api.keys.changes(&req.auth, from.pos).await?;
    let ids = |users: Vec<String>| -> Result<Vec<OwnedUserId>> {
        users.into_iter().map(|user| user.try_into().map_err(hearth_core::Error::internal)).collect()
    };
    Ok(get_key_changes::v3::Response::new(ids(lists.changed)?, ids(lists.left)?))
}

async fn cross_signing(
    api: Api,
    req: Client<upload_signing_keys::v3::Request>,
) -> Result<upload_signing_keys::v3::Response> {
    let body = req.body;
    let new = NewCrossSigning {
        master: body.master_key.map(|key| key.json().get().to_owned()),
        self_signing: body.self_signing_key.map(|key| key.json().get().to_owned()),
        user_signing: body.user_signing_key.map(|key| key.json().get().to_owned()),
    };
    api.keys.set_cross_signing(&req.auth, new, body.auth.as_ref()).await?;
    Ok(upload_signing_keys::v3::Response::new())
}

/// Ruma's failures can't be made.
#[derive(Serialize)]
struct Signed {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failures: BTreeMap<OwnedUserId, BTreeMap<String, Failure>>,
}

#[derive(Serialize)]
struct Failure {
    errcode: &'static str,
    error: String,
}

async fn signatures(api: Api, req: Client<upload_signatures::v3::Request>) -> Result<Json<Signed>> {
    let failures = api.keys.add_signatures(&req.auth, &req.body.signed_keys).await?;
    let failure = |(key, error): (String, hearth_core::Error)| {
        let (errcode, error) = respond::in_words(&error);
        (key, Failure { errcode, error })
    };
    let of_user = |(user, keys): (_, BTreeMap<_, _>)| (user, keys.into_iter().map(failure).collect());
    Ok(Json(Signed { failures: failures.into_iter().map(of_user).collect() }))
}
