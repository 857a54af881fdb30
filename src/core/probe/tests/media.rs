use std::sync::LazyLock;

use image::{DynamicImage, ImageFormat, RgbaImage};
use proptest::prelude::*;

use super::super::media;
use crate::media::thumbnail::tests::pictures::{
    apng, encoded, gif, mended, png_header, quarters, scenes, webp, webp_chunk, with_exif,
};

const TYPES: [&str; 10] = [
    "image/png",
    "image/svg+xml",
    "text/html; charset=utf-8",
    "text/plain",
    "IMAGE/GIF ",
    "video/mp4",
    "image/png,text/html",
    "",
    "a/b\r",
    "\u{e9}/png",
];

/// Pictures of all kinds, and what is none.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let glass = RgbaImage::from_fn(9, 7, |x, y| image::Rgba([x as u8 * 20, y as u8 * 30, 9, x as u8 * 28]));
    let glass = DynamicImage::from(glass);
    let photo = encoded(&quarters(24, 16), ImageFormat::Jpeg);
    let lossless = encoded(&quarters(16, 16), ImageFormat::WebP);
    let canvas = webp_chunk(b"VP8X", &[2, 0, 0, 0, 15, 0, 0, 15, 0, 0]);
    let frame = [&[0, 0, 0, 0, 0, 0, 15, 0, 0, 15, 0, 0, 10, 0, 0, 2][..], &lossless[12..]].concat();
    let frame = webp_chunk(b"ANMF", &frame);
    vec![
        encoded(&glass, ImageFormat::Png),
        encoded(&glass.to_rgba16().into(), ImageFormat::Png),
        encoded(&glass.to_luma8().into(), ImageFormat::Png),
        apng(&scenes(8, 8), &[10, 20, 30]),
        with_exif(&photo, 6),
        photo,
        encoded(&glass.to_luma8().into(), ImageFormat::Jpeg),
        gif(&scenes(8, 8), &[10, 20, 30]),
        encoded(&glass, ImageFormat::Gif),
        encoded(&glass, ImageFormat::WebP),
        webp(&[canvas, webp_chunk(b"ANIM", &[0; 6]), frame.clone(), frame]),
        lossless,
        png_header(60_000, 60_000),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
        b"%PDF-1.7\n".to_vec(),
    ]
});

/// Some of its bytes changed, a piece of it twice or left out, or its end cut off.
fn spoilt(file: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let piece = (any::<prop::sample::Index>(), 0..12usize, 0..4usize);
    (changes, prop::option::weighted(0.2, piece), any::<prop::sample::Index>(), 0..6).prop_map(
        move |(changes, piece, end, cut)| {
            let mut file = file.clone();
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if let Some((at, length, times)) = piece {
                let at = at.index(file.len());
                let piece = file[at..file.len().min(at + length)].to_vec();
                file.splice(at..at + piece.len(), piece.repeat(times));
            }
            if cut == 0 {
                file.truncate(end.index(file.len() + 1));
            }
            // Else nobody would look behind the first byte that was changed.
            if file.starts_with(b"\x89PNG\r\n\x1a\n") { mended(&file) } else { file }
        },
    )
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let file = (0..FILES.len()).prop_flat_map(|n| spoilt(FILES[n].clone()));
    let begun = (0..FILES.len(), 0..40usize, prop::collection::vec(any::<u8>(), 0..200))
        .prop_map(|(n, kept, bytes)| [&FILES[n][..kept.min(FILES[n].len())], &bytes].concat());
    prop_oneof![6 => file, 1 => begun, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn files_are_taken_whatever_they_are(said in prop::sample::select(&TYPES[..]), name in "[^\n]{0,9}", file in any_file()) {
        media(&[said.as_bytes(), b"\n", name.as_bytes(), b"\n", &file].concat());
    }
}

#[test]
fn what_is_fed_to_it_is_looked_at() {
    for file in FILES.iter() {
        media(&[b"image/png\na.png\n", &file[..]].concat());
    }
    let bounds = crate::media::thumbnail::Bounds::default();
    let wish = crate::media::thumbnail::Wish::all().next().unwrap();
    let made = FILES.iter().filter(|file| crate::media::thumbnail::make(file, wish, &bounds).is_ok());
    assert_eq!(made.count(), 12, "all but a bomb, a drawing of markup and a document");
}
