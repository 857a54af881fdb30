//! What the server does over HTTP, a file a feature.

mod support;

mod accounts;
mod cluster;
mod discovery;
mod frame;
mod graph;
mod process;
mod rooms;
mod secrets;
mod sync;
