//! The image's first process. Complement says the server's name in `SERVER_NAME`, the server reads `CONDUIT_SERVER_NAME`,
//! and there is no shell in the image to say the one for the other. Everything else stands in the image's `conduit.toml`.
//!
//! It *becomes* the server, so that the server is process 1 and gets the signals of `docker stop`.

use std::{env, os::unix::process::CommandExt, process::Command, process::ExitCode};

fn main() -> ExitCode {
    let Some(name) = env::var_os("SERVER_NAME") else {
        eprintln!("SERVER_NAME is not set: this image is made for Complement");
        return ExitCode::FAILURE;
    };
    let error = Command::new("/hearth")
        .args(env::args_os().skip(1))
        .env("CONDUIT_SERVER_NAME", name)
        .env("CONDUIT_CONFIG", "/conduit.toml")
        .exec();
    eprintln!("/hearth could not be started: {error}");
    ExitCode::FAILURE
}
