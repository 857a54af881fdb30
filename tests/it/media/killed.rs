//! An S3 server that dies and comes back while people upload.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use hearth::config::{Config, MediaBackend, Secret};

use super::gets;
use crate::support::{
    each_backend,
    people::{LONG, Person},
    server::Server,
};

/// A server of the test's own.
struct S3 {
    folder: PathBuf,
    port: String,
    url: String,
}

impl S3 {
    fn script() -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/s3"));
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    fn run(folder: &Path, port: Option<&str>) -> String {
        let output = Self::script().arg("start").arg(folder).args(port).output().expect("a script");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a URL").trim().to_owned()
    }

    fn start(folder: &Path) -> Self {
        let url = Self::run(folder, None);
        let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port").to_owned();
        Self { folder: folder.to_owned(), port, url }
    }

    fn dies(&self) {
        let pid = std::fs::read_to_string(self.folder.join("pid")).expect("a pid");
        let killed = Command::new("kill").args(["-9", pid.trim()]).status().expect("a signal");
        assert!(killed.success());
    }

    /// On what it had.
    fn comes_back(&self) {
        Self::run(&self.folder, Some(&self.port));
    }

    fn configure(&self, config: &mut Config) {
        config.registration.allow_registration = true;
        config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
        config.http.max_request_size = 64 << 20;
        let media = &mut config.media.media;
        media.backend = MediaBackend::S3;
        media.s3_endpoint = Some(format!("http://127.0.0.1:{}", self.port));
        media.s3_bucket = Some("media".to_owned());
        let who = self.url.strip_prefix("http://").and_then(|rest| rest.split('@').next()?.split_once(':'));
        let (key, secret) = who.expect("a key and a secret");
        media.s3_access_key_id = Some(key.to_owned());
        media.s3_secret_access_key = Some(Secret::new(secret));
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = Self::script().arg("stop").arg(&self.folder).status();
    }
}

/// Different for each number.
fn content(number: u32) -> Vec<u8> {
    // Every fifth goes up in parts.
    let size = if number.is_multiple_of(5) { 17 << 20 } else { 10_000 };
    number.to_le_bytes().repeat(size / 4)
}

/// Uploads until told to stop; what was acknowledged, by its number.
async fn uploads(who: &Person, numbers: &AtomicU32, stop: &AtomicBool, refused: &AtomicU32) -> Vec<(u32, String)> {
    let mut done = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let reply = who.http().send(who.uploading(content(number), "a/b", "")).await;
        if reply.status == 200 {
            done.push((number, super::uri(&reply.json())));
        } else {
            let why = reply.refused(503, "M_UNKNOWN");
            assert!(why["error"].as_str().is_some_and(|why| why.contains("try again")), "{why}");
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    done
}

async fn wait_for(what: impl Fn() -> bool) {
    let there = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(3 * LONG, there).await.expect("it happens");
}

async fn is_all_there(server: &Server, who: &Person, done: &[(u32, String)]) {
    for (number, uri) in done {
        gets(server, who.downloading(uri)).await.is(200, &content(*number));
    }
}

each_backend! {
    async fn what_was_acknowledged_is_there_after_the_bucket_died(given: Given) {
        let s3 = S3::start(&given.dir().join("s3"));
        let server = given.server_with(|config| s3.configure(config)).await;
        let alice = Person::registers(&server, "alice").await;
        let (numbers, stop, refused) = (AtomicU32::new(1), AtomicBool::new(false), AtomicU32::new(0));
        let writers = futures_util::future::join_all((0..4).map(|_| uploads(&alice, &numbers, &stop, &refused)));
        let killer = async {
            for round in 1..=3 {
                let seen = numbers.load(Ordering::Relaxed);
                wait_for(|| numbers.load(Ordering::Relaxed) >= seen + 12).await;
                s3.dies();
                let before = refused.load(Ordering::Relaxed);
                wait_for(|| refused.load(Ordering::Relaxed) > before).await;
                s3.comes_back();
                assert!(refused.load(Ordering::Relaxed) >= round);
            }
            let seen = numbers.load(Ordering::Relaxed);
            wait_for(|| numbers.load(Ordering::Relaxed) >= seen + 12).await;
            stop.store(true, Ordering::Relaxed);
        };
        let (done, ()) = futures_util::future::join(writers, killer).await;
        let done = done.concat();
        assert!(done.len() >= 20, "{} were acknowledged", done.len());
        is_all_there(&server, &alice, &done).await;
        assert_eq!(given.waiting_uploads(), 0);

        // While it is away, what is known of files is still told, and their bytes are not.
        s3.dies();
        alice.downloads(&done[0].1).await.reply.refused(503, "M_UNKNOWN");
        alice.downloads("test.example/nothing").await.reply.refused(404, "M_NOT_FOUND");
        s3.comes_back();
        // Tidying up takes nothing of what was acknowledged.
        server.clock.advance(2 * 24 * 60 * 60 * 1000);
        server.tidies_media().await;
        is_all_there(&server, &alice, &done).await;
    }
}
