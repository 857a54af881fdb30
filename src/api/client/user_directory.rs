//! The directory of users.

use hearth_core::Result;
use ruma::api::client::user_directory::search_users;

use crate::api::{Api, Client, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(search)
}

async fn search(api: Api, req: Client<search_users::v3::Request>) -> Result<search_users::v3::Response> {
    let found = api.profiles.search(&req.auth, &req.body.search_term, req.body.limit.into()).await?;
    let people = found.people.into_iter().map(|person| {
        let mut user = search_users::v3::User::new(person.user_id);
        user.display_name = person.display_name;
        user.avatar_url = person.avatar_url;
        user
    });
    Ok(search_users::v3::Response::new(people.collect(), found.limited))
}
