//! Filters that a client leaves here.

use hearth_core::Result;
use ruma::api::client::filter::{create_filter, get_filter};

use crate::api::{Api, Client, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(create).client(get)
}

async fn create(api: Api, req: Client<create_filter::v3::Request>) -> Result<create_filter::v3::Response> {
    let id = api.filters.put(&req.auth, &req.body.user_id, &req.body.filter).await?;
    Ok(create_filter::v3::Response::new(id))
}

async fn get(api: Api, req: Client<get_filter::v3::Request>) -> Result<get_filter::v3::Response> {
    let filter = api.filters.get(&req.auth, &req.body.user_id, &req.body.filter_id).await?;
    Ok(get_filter::v3::Response::new(filter))
}
