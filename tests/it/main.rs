//! What the server does over HTTP, a file a feature.

mod support;

mod accounts;
mod admin;
mod cluster;
mod creation;
mod directory;
mod discovery;
mod doors;
mod e2ee;
mod economy;
mod erased;
mod frame;
mod graph;
mod guards;
mod key_backup;
mod lenient;
mod limits;
mod limits_of_events;
mod model;
mod presence;
mod process;
mod promises;
mod refresh;
mod reports;
mod rooms;
mod secrets;
mod sliding;
mod spaces;
mod sync;
mod sync_filters;
mod sync_members;
mod to_device;
mod told;
mod unread;
mod upgrade;
