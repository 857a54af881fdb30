//! `hearth media …`

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use crate::{
    app::{self, Deps},
    config::{Config, MediaBackend, Sources},
    service::media::copy::{Copied, copy},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Copy what the one store has and the other lacks, whether the server runs or not; nothing is removed
    Copy {
        /// Where files are
        #[arg(long)]
        from: Place,
        /// Where they are wanted
        #[arg(long)]
        to: Place,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Place {
    Filesystem,
    S3,
}

impl Place {
    fn backend(self) -> MediaBackend {
        match self {
            Self::Filesystem => MediaBackend::Filesystem,
            Self::S3 => MediaBackend::S3,
        }
    }
}

pub(super) fn run(command: &Command, sources: &Sources) -> ExitCode {
    let Command::Copy { from, to } = *command;
    super::do_once(sources, async |config| copy_all(&config, from, to).await)
}

async fn copy_all(config: &Config, from: Place, to: Place) -> Result<String, String> {
    if from == to {
        return Err("these are the same store".to_owned());
    }
    let open = |place: Place| app::media_store(config, place.backend()).map_err(|e| e.to_string());
    let (from, to, spool) = (open(from)?, open(to)?, app::media_spool(config));
    let offline = app::offline(config, &Deps::default()).await.map_err(|e| e.to_string())?;
    let outcome = copy(&*offline.storage, &*from, &*to, &spool, |key, why| eprintln!("{key}: {why}")).await;
    offline.storage.close().await.map_err(|e| e.to_string())?;
    let Copied { copied, bytes, there, failed } = outcome.map_err(|e| e.to_string())?;
    let said = format!("{copied} files of {bytes} bytes were copied, {there} were there already");
    if failed > 0 { Err(format!("{said}; {failed} could not be copied")) } else { Ok(said) }
}
