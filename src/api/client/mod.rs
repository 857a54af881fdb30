//! The client-server API, a file a feature.

use super::Routes;

mod account;
mod account_data;
mod capabilities;
mod devices;
mod filters;
mod login;
mod profile;
mod push_rules;
mod shared_secret;
mod versions;
mod well_known;

/// All endpoints that clients use.
pub fn routes(r: Routes) -> Routes {
    let r = versions::routes(r);
    let r = well_known::routes(r);
    let r = capabilities::routes(r);
    let r = account::routes(r);
    let r = login::routes(r);
    let r = devices::routes(r);
    let r = profile::routes(r);
    let r = filters::routes(r);
    let r = account_data::routes(r);
    let r = push_rules::routes(r);
    shared_secret::routes(r)
}
