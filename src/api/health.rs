//! Is this process alive, and should it be sent requests?

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use futures_util::future::{BoxFuture, join_all};
use http::{Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

use super::{Api, Routes, respond};

/// Something that has to be in order before this process should be sent requests: the database, the migrations, a worker.
pub trait Ready: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// The error says what is missing, in words that may be shown to anybody.
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// A check that takes longer has failed: who asks wants to know now.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn routes(r: Routes) -> Routes {
    r.plain("/health", alive).plain("/health/ready", ready)
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    checks: BTreeMap<&'static str, String>,
}

async fn alive(_: Api) -> Response<Body> {
    respond::json(StatusCode::OK, &Health { status: "ok", checks: BTreeMap::new() })
}

async fn ready(api: Api) -> Response<Body> {
    let mut all_well = true;
    let mut checks = BTreeMap::new();
    // A load balancer should look elsewhere before the listener is gone.
    if api.shutdown.is_said() {
        all_well = false;
        checks.insert("server", "stopping".to_owned());
    }
    let outcomes = join_all(api.ready.iter().map(|check| timeout(PATIENCE, check.check()))).await;
    for (check, outcome) in api.ready.iter().zip(outcomes) {
        let text = match outcome {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        all_well &= text == "ok";
        checks.insert(check.name(), text);
    }
    let (status, word) = if all_well { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    respond::json(status, &Health { status: word, checks })
}
