//! `hearth config …`

use std::process::ExitCode;

use clap::Subcommand;

use crate::config::{EXAMPLE, Sources, Weight};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong with the configuration; fails if anything is
    Check,
    /// Print every key with its default and what it does
    Example,
}

pub(super) fn run(command: &Command, sources: &Sources) -> ExitCode {
    match command {
        Command::Example => {
            print!("{EXAMPLE}");
            ExitCode::SUCCESS
        }
        Command::Check => {
            let loaded = sources.load();
            for finding in &loaded.findings {
                println!("{finding}");
            }
            if loaded.heaviest() >= Some(Weight::Unknown) {
                return ExitCode::FAILURE;
            }
            println!("The configuration of {} is good.", loaded.config.server.server_name);
            ExitCode::SUCCESS
        }
    }
}
