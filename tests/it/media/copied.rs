//! From folders to a bucket, and back.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use super::PNG;
use crate::support::{
    Given,
    people::Person,
    program::{Program, hearth},
};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The settings of the bucket, as options.
fn options(given: &Given, backend: &str) -> Vec<String> {
    let bucket = given.bucket().expect("a bucket").options().into_iter();
    let settings = bucket.filter(|(key, _)| *key != "media.backend");
    let settings =
        settings.chain([("media.backend", backend.to_owned()), ("media.path", folder(given).display().to_string())]);
    settings.map(|(key, value)| format!("{key}=\"{value}\"")).collect()
}

async fn copies(given: &Given, from: &str, to: &str) -> Output {
    copies_with(given, from, to, &[]).await
}

async fn copies_with(given: &Given, from: &str, to: &str, more: &[&str]) -> Output {
    let options = options(given, from);
    let options = options.iter().map(String::as_str).chain(more.iter().copied());
    let mut arguments: Vec<&str> = options.flat_map(|option| ["-O", option]).collect();
    arguments.extend(["media", "copy", "--from", from, "--to", to]);
    hearth(given, &arguments).await
}

/// Changes a byte of a file.
fn breaks_a_file(given: &Given) {
    let entries = |path: &Path| std::fs::read_dir(path).expect("a folder").map(|e| e.expect("an entry").path());
    let root = folder(given);
    let outer = entries(&root).find(|path| !path.ends_with("incoming")).expect("a folder");
    let inner = entries(&outer).next().expect("a folder");
    let file = entries(&inner).next().expect("a file");
    let mut bytes = std::fs::read(&file).expect("its bytes");
    bytes[0] ^= 1;
    std::fs::write(file, bytes).expect("other bytes");
}

fn folder(given: &Given) -> PathBuf {
    given.dir().join("db/media")
}

async fn server_on(given: &Given, backend: &str) -> Program {
    let options = options(given, backend);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Program::start_with(given, &options).await
}

async fn story(given: &Given) {
    let server = server_on(given, "filesystem").await;
    let alice = Person::registers(&server.http, "alice").await;
    let (cat, text) = (alice.shares(PNG, "image/png").await, alice.shares("text", "text/plain").await);
    // Beside the server at work.
    let first = copies(given, "filesystem", "s3").await;
    assert!(first.status.success() && said(&first).contains("2 files of"), "{}", said(&first));
    let late = alice.shares("late", "text/plain").await;
    let second = copies(given, "filesystem", "s3").await;
    assert!(said(&second).contains("1 files of 4 bytes were copied, 2 were there already"), "{}", said(&second));
    server.dies().await;

    // What was copied is all that there is.
    std::fs::remove_dir_all(folder(given)).expect("the folders are removed");
    let server = server_on(given, "s3").await;
    let alice = alice.turns_to(&server.http);
    alice.downloads(&cat).await.is(200, PNG);
    alice.downloads(&text).await.is(200, b"text");
    alice.downloads(&late).await.is(200, b"late");
    server.dies().await;

    let back = copies(given, "s3", "filesystem").await;
    assert!(back.status.success() && said(&back).contains("3 files of"), "{}", said(&back));
    let server = server_on(given, "filesystem").await;
    alice.turns_to(&server.http).downloads(&cat).await.is(200, PNG);
    server.dies().await;

    // A file that is not what it was is told, and the others are copied all the same.
    breaks_a_file(given);
    let output = copies_with(given, "filesystem", "s3", &["media.s3_prefix=\"anew/\""]).await;
    let told = said(&output);
    assert!(
        !output.status.success() && told.contains("2 files of") && told.contains("1 could not be copied"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_move_to_a_bucket_and_back_sqlite() {
    story(&Given::sqlite().with_bucket()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_move_to_a_bucket_and_back_postgres() {
    let given = Given::postgres().await.with_bucket();
    story(&given).await;
    given.clean_up().await;
}
