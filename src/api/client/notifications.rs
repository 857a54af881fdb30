//! What the user was told of.

use hearth_core::{Error, Result};
use ruma::api::client::push::get_notifications;

use super::reader;
use crate::{
    api::{Api, Client, Routes},
    service::notifications::{Found, Wish},
};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(page)
}

async fn page(api: Api, req: Client<get_notifications::v3::Request>) -> Result<get_notifications::v3::Response> {
    let body = &req.body;
    let highlights_only = match body.only.as_deref() {
        None | Some("") => false,
        Some("highlight") => true,
        Some(_) => return Err(Error::invalid_param("`only` is `highlight`, or left out")),
    };
    let wish = Wish {
        from: body.from.as_deref().filter(|from| !from.is_empty()),
        limit: body.limit.map(Into::into),
        highlights_only,
    };
    let Found { notifications, next } = api.notifications.page(reader(&req.auth), wish).await?;
    let mut response = get_notifications::v3::Response::new(notifications);
    response.next_token = next;
    Ok(response)
}
