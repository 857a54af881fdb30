//! `hearth admin …`

use std::{process::ExitCode, sync::Arc};

use clap::Subcommand;

use crate::{
    app::{self, Deps},
    config::{Config, Sources, Weight},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Users
    #[command(subcommand)]
    User(User),
}

#[derive(Subcommand)]
pub(super) enum User {
    /// Make an account and print its password, which is made up
    Create {
        /// The name before the colon
        localpart: String,
        /// May use the administration API
        #[arg(long)]
        admin: bool,
    },
}

pub(super) fn run(command: &Command, sources: &Sources) -> ExitCode {
    let loaded = sources.load();
    if loaded.heaviest() == Some(Weight::Wrong) {
        for finding in &loaded.findings {
            eprintln!("{finding}");
        }
        return ExitCode::FAILURE;
    }
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(administer(command, &Arc::new(loaded.config))),
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

async fn administer(command: &Command, config: &Arc<Config>) -> Result<String, String> {
    let (accounts, storage) = app::offline(config, &Deps::default()).await.map_err(|e| e.to_string())?;
    let said = match command {
        Command::User(User::Create { localpart, admin }) => accounts
            .create_with_password(localpart, *admin)
            .await
            .map(|(user_id, password)| format!("{user_id} can log in with the password {password}"))
            .map_err(|e| e.to_string()),
    };
    storage.close().await.map_err(|e| e.to_string())?;
    said
}
