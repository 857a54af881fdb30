//! Up, and down again.

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::{PNG, gets};
use crate::support::{
    Given, each_store,
    people::{Person, open_server},
    server::Server,
};

/// Bytes that say where they are.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise: Vec<u8> = (0..=bytes / 8).flat_map(|n| (n as u64 ^ bytes as u64).to_le_bytes()).collect();
    noise.truncate(bytes);
    noise
}

async fn small_server(given: &Given, bytes: usize) -> Server {
    given
        .server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.http.max_request_size = bytes;
        })
        .await
}

each_store! {
    async fn what_somebody_uploads_others_download(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let uri = alice.shares_as(PNG, "image/png", "?filename=cat.png").await;
        assert!(uri.starts_with("test.example/"), "{uri}");
        let got = bob.downloads(&uri).await;
        got.is(200, PNG);
        assert_eq!(got.header("content-type"), "image/png");
        assert_eq!(got.header("content-disposition"), "inline; filename=cat.png");
        assert_eq!(got.header("content-length"), PNG.len().to_string());
        // By another name.
        let got = bob.downloads(&format!("{uri}/dog.png")).await;
        assert_eq!(got.is(200, PNG).header("content-disposition"), "inline; filename=dog.png");
        // Nobody else's id, and nobody else's server.
        bob.downloads("test.example/nothing").await.reply.refused(404, "M_NOT_FOUND");
        bob.downloads(&uri.replace("test.example", "elsewhere.example")).await.reply.refused(404, "M_NOT_FOUND");
        // Without a token, neither.
        server.get(&format!("/_matrix/client/v1/media/download/{uri}")).await.refused(401, "M_MISSING_TOKEN");
        let request = server.request(reqwest::Method::POST, "/_matrix/media/v3/upload").body(PNG);
        server.send(request).await.refused(401, "M_MISSING_TOKEN");
    }

    async fn files_of_any_size_are_the_same_afterwards(given: Given) {
        let server = small_server(given, 40 << 20).await;
        let alice = Person::registers(&server, "alice").await;
        for size in [0, 1, 65_536, (5 << 20) + 1, (16 << 20) + 1, (33 << 20) - 7] {
            let bytes = noise(size);
            let uri = alice.shares(bytes.clone(), "application/octet-stream").await;
            alice.downloads(&uri).await.is(200, &bytes);
            if size > 100 {
                let got = gets(&server, alice.downloading(&uri).header("range", format!("bytes={}-", size - 100))).await;
                got.is(206, &bytes[size - 100..]);
                assert_eq!(got.header("content-range"), format!("bytes {}-{}/{size}", size - 100, size - 1));
            }
        }
    }

    async fn parts_are_sent_as_they_are_asked_for(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let uri = alice.shares("0123456789", "text/plain").await;
        let asks = async |name: &str, value: &str| gets(&server, alice.downloading(&uri).header(name, value)).await;
        let got = asks("range", "bytes=2-4").await;
        assert_eq!(got.is(206, b"234").header("content-range"), "bytes 2-4/10");
        assert_eq!(asks("range", "bytes=-3").await.is(206, b"789").header("content-length"), "3");
        let got = asks("range", "bytes=10-").await;
        assert_eq!((got.reply.status, got.header("content-range")), (416, "bytes */10"));
        let all = asks("range", "bytes=0-1,4-5").await;
        let tag = all.is(200, b"0123456789").header("etag");
        assert_eq!(all.header("accept-ranges"), "bytes");
        asks("if-none-match", tag).await.is(304, b"");
        asks("if-none-match", "\"another\"").await.is(200, b"0123456789");
        let head = server.request(reqwest::Method::HEAD, &format!("/_matrix/client/v1/media/download/{uri}"));
        let head = gets(&server, head.bearer_auth(&alice.token)).await;
        assert_eq!(head.is(200, b"").header("content-length"), "10");
    }

    async fn a_file_outlives_the_server(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let uri = alice.shares(PNG, "image/png").await;
        server.stop().await;
        let server = open_server(given).await;
        alice.turns_to(&server).downloads(&uri).await.is(200, PNG);
    }

    async fn the_same_content_is_kept_once(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let (one, two) = (alice.shares(PNG, "image/png").await, bob.shares_as(PNG, "text/plain", "?filename=a").await);
        assert_ne!(one, two);
        let (one, two) = (bob.downloads(&one).await, bob.downloads(&two).await);
        assert_eq!(one.is(200, PNG).header("content-type"), "image/png");
        assert_eq!(two.is(200, PNG).header("content-disposition"), "attachment; filename=a");
        assert_eq!(given.stored_files().await, 1);
    }

    async fn cve_2024_52805_an_upload_is_so_large_and_no_larger(given: Given) {
        let server = small_server(given, 100_000).await;
        let alice = Person::registers(&server, "alice").await;
        let config = alice.http().request(reqwest::Method::GET, "/_matrix/client/v1/media/config").bearer_auth(&alice.token);
        assert_eq!(server.send(config).await.ok(), json!({ "m.upload.size": 100_000 }));
        let uri = alice.shares(noise(100_000), "a/b").await;
        assert_eq!(alice.downloads(&uri).await.bytes.len(), 100_000);
        // By its word, and by what comes without a word of how much it will be.
        server.send(alice.uploading(noise(100_001), "a/b", "")).await.refused(413, "M_TOO_LARGE");
        let pieces = stream::iter(0..101).map(|_| Ok::<_, std::io::Error>(noise(1_000)));
        let streamed = alice.uploading(reqwest::Body::wrap_stream(pieces), "a/b", "");
        server.send(streamed).await.refused(413, "M_TOO_LARGE");
        assert_eq!(given.stored_files().await, 1);
        assert_eq!(given.waiting_uploads(), 0, "nothing of them is left");
    }

    async fn cve_2024_37302_nobody_fills_the_server_with_files(given: Given) {
        let server = given.server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.media.media.user_quota = Some(1_000);
            config.media.media.user_quota_info = Some("https://test.example/storage".to_owned());
        }).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        alice.shares(noise(600), "a/b").await;
        let refused = server.send(alice.uploading(noise(401), "a/b", "")).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(refused["info_uri"], "https://test.example/storage");
        // Also where it doesn't say how much it will be, and where the server has it already.
        let unsaid = reqwest::Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>(noise(401))]));
        server.send(alice.uploading(unsaid, "a/b", "")).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        server.send(alice.uploading(noise(600), "a/b", "")).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        alice.shares(noise(400), "a/b").await;
        server.send(alice.uploading("1", "a/b", "")).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        // What was refused never came to the store.
        assert_eq!(given.stored_files().await, 2);
        bob.shares("1", "a/b").await;
        assert_eq!(given.waiting_uploads(), 0);
    }

    async fn an_upload_that_breaks_off_leaves_nothing(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let broken = stream::iter([Ok(noise(1_000)), Err(std::io::Error::other("the tunnel"))]);
        let request = alice.uploading(reqwest::Body::wrap_stream(broken), "a/b", "").build().expect("a request");
        reqwest::Client::new().execute(request).await.expect_err("the client itself has broken it off");
        // The next is whole.
        let uri = alice.shares(PNG, "image/png").await;
        alice.downloads(&uri).await.is(200, PNG);
        while given.waiting_uploads() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(given.stored_files().await, 1);
    }
}
