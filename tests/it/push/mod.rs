//! Push notifications: pushers, and what their gateways are told.

mod delivery;
mod failures;
mod notifications;
mod pushers;

use hearth::config::Config;

use crate::support::{Given, Server};

/// Anybody may register, and the server may talk to gateways on this machine.
fn pushing(config: &mut Config) {
    config.registration.allow_registration = true;
    config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
    config.outgoing.outgoing_allowlist = vec!["127.0.0.1".parse().expect("an address")];
}

pub(crate) async fn pushing_server(given: &Given) -> Server {
    given.server_with(pushing).await
}
