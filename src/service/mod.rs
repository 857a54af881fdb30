//! What the server does. Nothing here knows HTTP.

pub mod account_data;
pub mod accounts;
pub mod filters;
mod passwords;
pub mod profiles;
pub mod push_rules;
pub mod session;
pub mod sessions;
pub mod shared_secret;
mod uia;
