//! The client-server API, a file a feature.

use super::Routes;

mod capabilities;
mod versions;
mod well_known;

/// All endpoints that clients use.
pub fn routes(r: Routes) -> Routes {
    let r = versions::routes(r);
    let r = well_known::routes(r);
    capabilities::routes(r)
}
