//! The command line: a subcommand a file.

mod admin;
mod config;
mod media;
mod serve;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Sources, Weight};

/// A Matrix homeserver.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where settings come from, besides the environment.
#[derive(Args)]
struct Settings {
    /// A configuration file; several win one over the other in their order
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Vec<PathBuf>,
    /// One setting, the value in TOML
    #[arg(short = 'O', long = "option", value_name = "KEY=VALUE", global = true)]
    option: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server; so does no command at all
    Serve,
    /// Administer the server, whether it runs or not
    #[command(subcommand)]
    Admin(admin::Command),
    /// The files that people share
    #[command(subcommand)]
    Media(media::Command),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let sources = arguments.settings.sources();
    match arguments.command {
        None | Some(Command::Serve) => serve::run(&sources),
        Some(Command::Admin(command)) => admin::run(&command, &sources),
        Some(Command::Media(command)) => media::run(&command, &sources),
        Some(Command::Config(command)) => config::run(&command, &sources),
    }
}

/// Does something that ends by itself, and prints what came of it.
fn do_once(sources: &Sources, work: impl AsyncFnOnce(Arc<Config>) -> Result<String, String>) -> ExitCode {
    let loaded = sources.load();
    if loaded.heaviest() == Some(Weight::Wrong) {
        for finding in &loaded.findings {
            eprintln!("{finding}");
        }
        return ExitCode::FAILURE;
    }
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work(Arc::new(loaded.config))),
        Err(e) => Err(e.to_string()),
    };
    match outcome {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

impl Settings {
    fn sources(self) -> Sources {
        // What is not Unicode can be no setting of ours.
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Sources::new(environment.collect(), self.config, self.option)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
