//! Thumbnails of pictures.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use super::{Got, PNG, gets};
use crate::support::{
    each_store,
    people::{Person, open_server},
};

/// A picture whose left half is red and whose right half is blue.
fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let image =
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).expect("a picture");
    bytes.into_inner()
}

async fn sees(who: &Person, uri: &str, query: &str) -> Got {
    let path = format!("/_matrix/client/v1/media/thumbnail/{uri}?{query}");
    gets(who.http(), who.http().request(reqwest::Method::GET, &path).bearer_auth(&who.token)).await
}

fn size(got: &Got) -> (u32, u32) {
    assert_eq!(got.reply.status, 200, "{}", got.reply.text);
    let image = image::load_from_memory(&got.bytes).expect("a picture");
    (image.width(), image.height())
}

each_store! {
    async fn a_picture_is_seen_small(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let uri = alice.shares(picture(1000, 500, ImageFormat::Jpeg), "image/jpeg").await;
        let scaled = sees(&bob, &uri, "width=320&height=240&method=scale").await;
        assert_eq!(size(&scaled), (320, 160));
        assert_eq!(scaled.header("content-type"), "image/jpeg");
        assert_eq!(scaled.header("content-disposition"), "inline; filename=thumbnail.jpg");
        assert!(scaled.header("content-security-policy").starts_with("sandbox;"));
        assert_eq!(size(&sees(&bob, &uri, "width=32&height=32&method=crop").await), (32, 32));
        // Made once: the same bytes, and no more files than there were.
        let files = given.stored_files().await;
        assert_eq!(files, 3);
        assert_eq!(sees(&alice, &uri, "width=320&height=240").await.bytes, scaled.bytes);
        assert_eq!(given.stored_files().await, files);
        let tag = scaled.header("etag").to_owned();
        let path = format!("/_matrix/client/v1/media/thumbnail/{uri}?width=320&height=240");
        let again = server.request(reqwest::Method::GET, &path).bearer_auth(&bob.token).header("if-none-match", tag);
        gets(&server, again).await.is(304, b"");
        // Another server knows of it, too.
        server.stop().await;
        let server = open_server(given).await;
        assert_eq!(sees(&alice.turns_to(&server), &uri, "width=320&height=240").await.bytes, scaled.bytes);
        assert_eq!(given.stored_files().await, files);
    }

    async fn many_who_ask_at_once_get_one_thumbnail(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let uri = alice.shares(picture(600, 600, ImageFormat::Png), "image/png").await;
        let asking = (0..20).map(|_| sees(&alice, &uri, "width=96&height=96&method=crop"));
        for got in futures_util::future::join_all(asking).await {
            assert_eq!(size(&got), (96, 96));
        }
        assert_eq!(given.stored_files().await, 2);
    }

    async fn cve_2024_53863_what_is_no_picture_has_no_thumbnail(given: Given) {
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let svg = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>";
        let mut broken = picture(100, 100, ImageFormat::Png);
        broken.truncate(60);
        for (bytes, content_type) in [
            (svg.as_bytes().to_vec(), "image/png"),
            (b"%PDF-1.7".to_vec(), "image/jpeg"),
            (b"II*\0\x08\0\0\0".to_vec(), "image/tiff"),
            (b"%!PS-Adobe-3.0 EPSF-3.0".to_vec(), "image/png"),
            (b"hello".to_vec(), "text/plain"),
            (Vec::new(), "image/png"),
            (broken, "image/png"),
        ] {
            let uri = alice.shares(bytes, content_type).await;
            let got = sees(&alice, &uri, "width=32&height=32").await;
            got.reply.refused(400, "M_UNKNOWN");
        }
        // What its uploader says counts for nothing, either way.
        let uri = alice.shares(picture(100, 100, ImageFormat::Png), "text/plain").await;
        assert_eq!(size(&sees(&alice, &uri, "width=32&height=32&method=crop").await), (32, 32));
        for query in ["width=0&height=9", "width=9&height=0", "width=-1&height=9", "width=a&height=9", "width=9", "width=99999999&height=9"] {
            assert_eq!(sees(&alice, &uri, query).await.reply.status, 400, "{query}");
        }
        sees(&alice, "test.example/nothing", "width=9&height=9").await.reply.refused(404, "M_NOT_FOUND");
    }

    async fn a_picture_that_unfolds_to_gigabytes_is_refused_by_its_header(given: Given) {
        let server = given.server_with(|config| {
            config.registration.allow_registration = true;
            config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
            config.media.media_thumbnail_max_pixels = 1 << 20;
        }).await;
        let alice = Person::registers(&server, "alice").await;
        let mut bomb = PNG.to_vec();
        bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let uri = alice.shares(bomb, "image/png").await;
        sees(&alice, &uri, "width=32&height=32").await.reply.refused(413, "M_TOO_LARGE");
        let uri = alice.shares(picture(1025, 1024, ImageFormat::Png), "image/png").await;
        sees(&alice, &uri, "width=32&height=32").await.reply.refused(413, "M_TOO_LARGE");
        let uri = alice.shares(picture(1024, 1024, ImageFormat::Png), "image/png").await;
        size(&sees(&alice, &uri, "width=32&height=32").await);
    }
}
