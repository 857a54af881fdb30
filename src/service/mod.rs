//! What the server does. Nothing here knows HTTP.

pub mod account_data;
pub mod accounts;
mod administration;
mod devices;
pub mod directory;
pub mod erased;
pub mod filters;
mod login;
mod passwords;
pub mod profiles;
pub mod push;
pub mod push_rules;
pub mod rate_limit;
pub mod receipts;
mod registration_tokens;
pub mod rooms;
pub mod session;
pub mod sessions;
pub mod shape;
pub mod shared_secret;
pub mod timeline;
pub mod typing;
mod uia;
