//! What a browser is told of files.

use super::{PNG, gets};
use crate::support::{
    each_backend,
    people::{Person, open_server},
};

each_backend! {
    async fn tuwunel_1_9_0_nothing_in_a_file_runs(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
        let html = "<!DOCTYPE html><script>alert(1)</script>";
        for (bytes, content_type, disposition) in [
            (PNG.to_vec(), "image/png", "inline"),
            (PNG.to_vec(), "IMAGE/PNG", "inline"),
            (b"hello".to_vec(), "text/plain; charset=utf-8", "inline"),
            (svg.into(), "image/svg+xml", "attachment"),
            (svg.into(), "IMAGE/SVG+XML", "attachment"),
            (svg.into(), "image/png", "attachment"),
            (html.into(), "text/html", "attachment"),
            (html.into(), "Text/Html; charset=utf-7", "attachment"),
            (html.into(), "text/plain", "attachment"),
            (format!("\u{feff}\n {html}").into(), "text/css", "attachment"),
            (b"%PDF-1.7".to_vec(), "application/pdf", "attachment"),
            (b"%PDF-1.7".to_vec(), "image/png", "attachment"),
            (PNG.to_vec(), "application/octet-stream", "attachment"),
            (PNG.to_vec(), "application/xhtml+xml", "attachment"),
            (b"alert(1)".to_vec(), "Text/JavaScript", "attachment"),
        ] {
            let uri = alice.shares(bytes.clone(), content_type).await;
            let got = alice.downloads(&uri).await;
            got.is(200, &bytes);
            assert_eq!(got.header("content-disposition"), disposition, "{content_type}");
            // A page that names it as its script is told that it is none.
            let told = if content_type == "Text/JavaScript" { "application/octet-stream" } else { content_type };
            assert_eq!(got.header("content-type"), told);
            for policy in ["sandbox;", "default-src 'none'", "script-src 'none'"] {
                assert!(got.header("content-security-policy").contains(policy), "{content_type}");
            }
            assert_eq!(got.header("x-content-type-options"), "nosniff");
            assert_eq!(got.header("cross-origin-resource-policy"), "cross-origin");
            assert_eq!(got.header("cache-control"), "private, max-age=31536000, immutable");
        }
    }

    async fn names_and_types_are_said_so_that_they_harm_nobody(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        for (query, disposition) in [
            ("?filename=K%C3%A4se%20%F0%9F%90%95.png", "inline; filename*=utf-8''K%C3%A4se%20%F0%9F%90%95.png"),
            ("?filename=a%20b.png", "inline; filename=\"a b.png\""),
            ("?filename=a%0D%0ASet-Cookie%3A%20b", "inline; filename=\"aSet-Cookie: b\""),
            ("?filename=..%2F..%2Fetc%2Fpasswd", "inline; filename=passwd"),
            ("?filename=", "inline"),
        ] {
            let uri = alice.shares_as(PNG, "image/png", query).await;
            assert_eq!(alice.downloads(&uri).await.header("content-disposition"), disposition, "{query}");
        }
        let uri = alice.shares(PNG, "nonsense").await;
        let got = alice.downloads(&uri).await;
        assert_eq!((got.header("content-type"), got.header("content-disposition")), ("application/octet-stream", "attachment"));
        let got = alice.downloads(&format!("{uri}/%0D%0Aa%22b")).await;
        assert_eq!(got.header("content-disposition"), "attachment; filename*=utf-8''a%22b");
    }

    async fn cve_2021_41281_an_id_is_no_path(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let uri = alice.shares(PNG, "image/png").await;
        let id = uri.split('/').nth(1).expect("an id");
        for bad in ["..%2F..%2Fhearth.db", "%2e%2e", "%2Fetc%2Fpasswd", "a%00b", "a.b", &format!("..%2F{id}"), &"a".repeat(300)] {
            let got = alice.downloads(&format!("test.example/{bad}")).await;
            assert!([400, 404].contains(&got.reply.status), "{bad}: {}", got.reply.text);
        }
        alice.downloads(&format!("..%2F..%2Fetc/{id}")).await.reply.refused(400, "M_INVALID_PARAM");
    }

    async fn cve_2024_37303_files_are_for_users_unless_the_operator_says_otherwise(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let uri = alice.shares(PNG, "image/png").await;
        for version in ["v3", "r0", "v1"] {
            for path in [format!("download/{uri}"), format!("download/{uri}/a.png"), format!("thumbnail/{uri}?width=9&height=9")] {
                server.get(&format!("/_matrix/media/{version}/{path}")).await.refused(404, "M_UNRECOGNIZED");
            }
        }
        server.stop().await;
        let server = given.server_with(|config| config.media.allow_legacy_media = true).await;
        for path in [format!("v3/download/{uri}"), format!("r0/download/{uri}/a.png")] {
            let got = gets(&server, server.request(reqwest::Method::GET, &format!("/_matrix/media/{path}"))).await;
            assert_eq!(got.is(200, PNG).header("cache-control"), "public, max-age=31536000, immutable");
        }
    }
}
