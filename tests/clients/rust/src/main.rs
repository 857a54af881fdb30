//! Every story with matrix-sdk, one after another, on one server. What goes wrong in one does not keep the next away.

// The SDK's futures are deep.
#![recursion_limit = "256"]

mod encrypted;
mod kit;
mod notified;
mod people;
mod recovery;
mod rooms;
mod talk;

use std::{pin::Pin, process::ExitCode};

use anyhow::Result;

type Story = Pin<Box<dyn Future<Output = Result<()>>>>;

fn main() -> Result<ExitCode> {
    // Without optimisation they need more of a stack than a thread has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(32 << 20).build()?;
    let failed = runtime.block_on(async {
        let stories: [(&str, Story); 5] = [
            ("talk", Box::pin(talk::talk())),
            ("rooms", Box::pin(rooms::rooms())),
            ("encrypted", Box::pin(encrypted::encrypted())),
            ("recovery", Box::pin(recovery::recovery())),
            ("notified", Box::pin(notified::notified())),
        ];
        let mut failed = false;
        for (name, story) in stories {
            if let Err(error) = story.await {
                eprintln!("{name}: {error:?}");
                failed = true;
            }
        }
        failed
    });
    // Whatever still runs in the background is not waited for.
    runtime.shutdown_background();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
