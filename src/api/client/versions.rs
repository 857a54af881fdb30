//! Which versions of the specification the server speaks.

use hearth_core::Result;
use ruma::api::client::discovery::get_supported_versions::{Request, Response};

use crate::api::{Api, Public, Routes};

pub fn routes(r: Routes) -> Routes {
    r.public(versions)
}

/// Clients switch features on by these, so a version is named once everything that they do then works: from v1.4 on
/// they count on threads and private receipts, from v1.6 on on moments by their time, from v1.7 on on ids of media that are
/// filled later, from v1.11 on on media for users only. Old programs want one of r0.
const VERSIONS: [&str; 15] = [
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
    "v1.11", "v1.12",
];

/// What works, but belongs to versions that are not named yet, or had another name at first.
const UNSTABLE: [&str; 13] = [
    // Cross-signing.
    "org.matrix.e2e_cross_signing",
    // Threads, their list, and relations that are read forwards.
    "org.matrix.msc3440.stable",
    "org.matrix.msc3856.stable",
    "org.matrix.msc3715.stable",
    // Receipts for threads, and what is unread in them.
    "org.matrix.msc3771",
    "org.matrix.msc3773",
    // What relates to what relates.
    "org.matrix.msc3981",
    // Receipts that only their sender sees.
    "org.matrix.msc2285.stable",
    // Mentions in a field of their own. Clients judge by the old rules, too, unless they are told of it.
    "org.matrix.msc3952_intentional_mentions",
    // The reader's membership on events.
    "org.matrix.msc4115.membership_on_events",
    // The state after a timeline.
    "org.matrix.msc4222",
    // Sliding sync.
    "org.matrix.simplified_msc3575",
    // Threads that one follows: kept, and told by sliding sync. Which rules there are for them, push rules say.
    "org.matrix.msc4306",
];

async fn versions(_: Api, _: Public<Request>) -> Result<Response> {
    let mut response = Response::new(VERSIONS.map(str::to_owned).into());
    response.unstable_features = UNSTABLE.iter().map(|name| ((*name).to_owned(), true)).collect();
    Ok(response)
}
