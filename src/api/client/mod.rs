//! The client-server API, a file a feature.

use super::Routes;

mod versions;

/// All endpoints that clients use.
pub fn routes(r: Routes) -> Routes {
    versions::routes(r)
}
