//! What was acknowledged is on the disk: seen by the calls that the server makes to the kernel.

use std::{path::Path, process::Stdio, time::Duration};

use super::PNG;
use crate::support::{
    each_backend,
    people::{LONG, Person},
    program::Program,
};

/// The place in the log of the first call after `from` of which all of this is true.
fn find(calls: &[String], from: usize, what: &[&str]) -> usize {
    let found = calls[from..].iter().position(|call| what.iter().all(|part| call.contains(part)));
    from + found.unwrap_or_else(|| panic!("no call with {what:?} after\n{}", calls[from..].join("\n")))
}

/// The calls of a process while something happens in it.
async fn calls_of<T>(pid: u32, log: &Path, work: impl Future<Output = T>) -> (T, Vec<String>) {
    let calls = "trace=rename,renameat2,fsync,fdatasync,write,writev,sendto,sendmsg,mkdir";
    let mut tracer = tokio::process::Command::new("strace")
        .args(["-f", "-y", "-s", "64", "-e", calls, "-p", &pid.to_string(), "-o"])
        .arg(log)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("strace is installed");
    // It says so when it has taken hold.
    let mut said = tokio::io::BufReader::new(tracer.stderr.take().expect("what it says"));
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut said, &mut line).await.expect("a line");
    assert!(line.contains("attached"), "{line}");
    // Its other threads are taken hold of one after another.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let result = work.await;
    let tracer_pid = tracer.id().expect("it runs").to_string();
    tokio::process::Command::new("kill").args(["-INT", &tracer_pid]).status().await.expect("a signal");
    tokio::time::timeout(LONG, tracer.wait()).await.expect("it ends").expect("an end");
    let log = std::fs::read_to_string(log).expect("a log");
    (result, log.lines().map(str::to_owned).collect())
}

each_backend! {
    async fn an_upload_is_on_the_disk_before_it_is_acknowledged(given: Given) {
        let folder = given.dir().join("files");
        let path = format!("media.path=\"{}\"", folder.display());
        let server = Program::start_with(given, &[&path]).await;
        let alice = Person::registers(&server.http, "alice").await;
        let (uri, calls) = calls_of(server.pid(), &given.dir().join("calls"), alice.shares(PNG, "image/png")).await;
        let spooled = format!("{}/incoming/", folder.display());
        // Its bytes, then its place, then the folder that says so and those above it, and only then the answer.
        let bytes = find(&calls, 0, &["fsync(", &spooled]);
        let place = find(&calls, bytes, &["rename", &spooled]);
        let inner = find(&calls, place, &["fsync(", folder.to_str().expect("a path")]);
        let outer = find(&calls, inner + 1, &["fsync(", folder.to_str().expect("a path")]);
        let root = find(&calls, outer + 1, &["fsync(", &format!("{}>", folder.display())]);
        find(&calls, root, &["HTTP/1.1 200 OK"]);
        alice.downloads(&uri).await.is(200, PNG);
        server.dies().await;
    }
}
