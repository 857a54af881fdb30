//! The image's first process. Complement says the server's name in `SERVER_NAME`, the server reads `CONDUIT_SERVER_NAME`,
//! and there is no shell in the image to say the one for the other. Everything else stands in the image's `conduit.toml`.
//!
//! Alone it *becomes* the server, so that the server is process 1 and gets the signals of `docker stop`. With the argument
//! `postgres` it stays process 1 and has two children: a PostgreSQL, and the server on it.

mod postgres;

use std::{
    env,
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let Some(name) = env::var_os("SERVER_NAME") else {
        eprintln!("SERVER_NAME is not set: this image is made for Complement");
        return ExitCode::FAILURE;
    };
    let outcome = match env::args().nth(1).as_deref() {
        None => Err(become_server(name)),
        Some("postgres") => postgres::supervise(name),
        Some(other) => Err(io::Error::other(format!("no database '{other}'"))),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("entrypoint: {error}");
        ExitCode::FAILURE
    })
}

fn server(name: OsString) -> Command {
    let mut server = Command::new("/hearth");
    server.env("CONDUIT_SERVER_NAME", name).env("CONDUIT_CONFIG", "/conduit.toml");
    server
}

/// Comes back only if that was not possible.
fn become_server(name: OsString) -> io::Error {
    server(name).exec()
}
