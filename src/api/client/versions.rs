//! What the server can do.

use hearth_core::Result;
use ruma::api::client::discovery::get_supported_versions;

use crate::api::{Api, Public, Routes};

pub fn routes(r: Routes) -> Routes {
    r.public(versions)
}

async fn versions(_: Api, _: Public<get_supported_versions::Request>) -> Result<get_supported_versions::Response> {
    Ok(get_supported_versions::Response::new(vec!["v1.1".into()]))
}
