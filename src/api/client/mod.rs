//! The client-server API, a file a feature.

use hearth_core::{Result, token::Token};

use super::Routes;
use crate::service::{session::Session, shape::Reader};

mod account;
mod account_data;
mod capabilities;
mod dehydrated;
mod devices;
mod directory;
mod filters;
mod key_backup;
mod keys;
mod lenient;
mod login;
mod media;
mod messages;
mod notifications;
mod presence;
mod previews;
mod profile;
mod push_rules;
mod pushers;
mod relations;
mod reports;
mod rooms;
mod shared_secret;
mod sliding;
mod spaces;
mod subscriptions;
mod sync;
mod tags;
mod to_device;
mod user_directory;
mod versions;
mod voip;
mod well_known;

/// All endpoints that clients use.
pub fn routes(r: Routes) -> Routes {
    let r = versions::routes(r);
    let r = well_known::routes(r);
    let r = capabilities::routes(r);
    let r = account::routes(r);
    let r = login::routes(r);
    let r = devices::routes(r);
    let r = keys::routes(r);
    let r = dehydrated::routes(r);
    let r = profile::routes(r);
    let r = presence::routes(r);
    let r = previews::routes(r);
    let r = spaces::routes(r);
    let r = tags::routes(r);
    let r = user_directory::routes(r);
    let r = filters::routes(r);
    let r = account_data::routes(r);
    let r = push_rules::routes(r);
    let r = pushers::routes(r);
    let r = notifications::routes(r);
    let r = rooms::routes(r);
    let r = reports::routes(r);
    let r = directory::routes(r);
    let r = messages::routes(r);
    let r = relations::routes(r);
    let r = subscriptions::routes(r);
    let r = sync::routes(r);
    let r = sliding::routes(r);
    let r = to_device::routes(r);
    let r = media::routes(r);
    let r = voip::routes(r);
    let r = key_backup::routes(r);
    shared_secret::routes(r)
}

/// Who reads, by their session.
fn reader(session: &Session) -> Reader<'_> {
    Reader { user: &session.user_id, device: session.device_id.as_str() }
}

/// A token that may be left out. An empty one counts as none.
fn optional_token(token: Option<&str>) -> Result<Option<Token>> {
    token.filter(|t| !t.is_empty()).map(str::parse).transpose()
}
