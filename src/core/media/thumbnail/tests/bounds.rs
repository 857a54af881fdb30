use image::{ImageFormat, RgbaImage};

use super::{pictures::*, *};

const PIXELS: Failure = Failure::TooLarge("pixels");

#[test]
fn cve_2024_53863_only_formats_on_the_list_are_decoded() {
    for odd in [
        &b""[..],
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"<?xml version='1.0'?><svg/>",
        b"<!DOCTYPE html><html></html>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0",
        b"\0\0\x01\0\x01\0\x10\x10",
        b"P6\n1 1\n255\nabc",
        b"8BPS\0\x01",
        b"qoif\0\0\0\x01\0\0\0\x01\x04\0",
        b"\0\0\0\x0CjP  \r\n\x87\n",
        b"\xFF\x0A\0\0",
        b"\0\0\0\x1CftypavifAAAA",
        b"\0\0\0\x18ftypmp42AAAA",
        b"\x1A\x45\xDF\xA3webm",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"GIF88a",
        b"\x89PNG\n\x1a\n",
        b" \x89PNG\r\n\x1a\n",
    ] {
        assert_eq!(dimensions(odd), None, "{odd:?}");
        for wish in Wish::all() {
            assert_eq!(failure(odd, wish), Failure::Unsupported, "{odd:?}");
        }
    }
    // A picture on the list behind the first bytes of another is no picture.
    let hidden = [&b"GIF89a"[..], &encoded(&quarters(8, 8), ImageFormat::Png)].concat();
    assert!(make(&hidden, SCALED, &Bounds::default()).is_err());
}

/// Those who say that they are large, with next to nothing behind it.
fn giants() -> [(&'static str, Vec<u8>); 8] {
    let canvas = |side: u32| {
        let side = (side - 1).to_le_bytes();
        webp_chunk(b"VP8X", &[&[2, 0, 0, 0], &side[..3], &side[..3]].concat())
    };
    let lossy = webp_chunk(b"VP8 ", &[0x10, 0, 0, 0x9D, 1, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F]);
    let lossless = webp_chunk(b"VP8L", &[0x2F, 0xFF, 0xFF, 0xFF, 0x0F]);
    let jpeg = encoded(&quarters(8, 8), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    let mut huge_jpeg = jpeg.clone();
    huge_jpeg[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
    [
        ("a PNG that ends there", png_header(60_000, 60_000)),
        ("a PNG with pixels", [png_header(60_000, 60_000), png_chunk(b"IDAT", &[0; 100])].concat()),
        ("the largest PNG", png_header(u32::MAX, u32::MAX)),
        ("a GIF", [b"GIF89a\xFF\xFF\xFF\xFF\0\0\0", &b"\x2C\0\0\0\0\xFF\xFF\xFF\xFF\0\x02\0;"[..]].concat()),
        ("a JPEG", huge_jpeg),
        ("a lossy WebP", webp(&[lossy])),
        ("a lossless WebP", webp(&[lossless])),
        ("the canvas of a WebP", webp(&[canvas(1 << 14)])),
    ]
}

#[test]
fn a_bomb_is_refused_by_what_it_says_of_itself() {
    for (what, source) in giants() {
        assert!(source.len() < 1000);
        for wish in Wish::all() {
            assert_eq!(failure(&source, wish), PIXELS, "{what}");
        }
    }
    assert_eq!(dimensions(&png_header(60_000, 60_000)), Some((60_000, 60_000)));
}

#[test]
fn a_frame_that_is_larger_than_its_file_says_is_not_decoded() {
    let small = encoded(&quarters(16, 16), ImageFormat::WebP);
    let picture = small[12..].to_vec();
    let giant = webp_chunk(b"VP8 ", &[0x10, 0, 0, 0x9D, 1, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F]);
    let canvas = |flags: u8| webp_chunk(b"VP8X", &[flags, 0, 0, 0, 15, 0, 0, 15, 0, 0]);
    let anim = webp_chunk(b"ANIM", &[0; 6]);
    let frame = |picture: &[u8]| {
        webp_chunk(b"ANMF", &[&[0, 0, 0, 0, 0, 0, 15, 0, 0, 15, 0, 0, 10, 0, 0, 2][..], picture].concat())
    };
    assert!(make(&webp(&[canvas(0), picture.clone()]), SCALED, &Bounds::default()).is_ok());
    let good = webp(&[canvas(2), anim.clone(), frame(&picture), frame(&picture)]);
    assert!(make(&good, MOVING, &Bounds::default()).is_ok());
    let behind_alpha = [webp_chunk(b"ALPH", &[0; 5]), giant.clone()].concat();
    for (what, source) in [
        ("a picture", webp(&[canvas(0), giant.clone()])),
        ("a first frame", webp(&[canvas(2), anim.clone(), frame(&giant), frame(&picture)])),
        ("a second frame", webp(&[canvas(2), anim.clone(), frame(&picture), frame(&giant)])),
        ("a frame with transparency", webp(&[canvas(2), anim.clone(), frame(&picture), frame(&behind_alpha)])),
        ("an odd frame", webp(&[canvas(2), anim, frame(&[&picture[..], &[0]].concat()), frame(&picture)])),
    ] {
        for wish in [SCALED, MOVING] {
            assert!(matches!(failure(&source, wish), Failure::Broken(_)), "{what}");
        }
    }
}

#[test]
fn the_bounds_are_the_operators() {
    let source = encoded(&quarters(100, 100), ImageFormat::Png);
    let bounds = Bounds { pixels: 10_000, bytes: source.len(), ..Bounds::default() };
    assert!(make(&source, SCALED, &bounds).is_ok());
    let tight = Bounds { pixels: 9_999, ..bounds };
    assert_eq!(make(&source, SCALED, &tight).unwrap_err(), PIXELS);
    let tight = Bounds { bytes: source.len() - 1, ..bounds };
    assert_eq!(make(&source, SCALED, &tight).unwrap_err(), Failure::TooLarge("bytes"));
    // A pixel of twice as many bits counts twice.
    let deep = encoded(&quarters(100, 100).to_rgba16().into(), ImageFormat::Png);
    let bounds = Bounds { bytes: deep.len(), ..bounds };
    assert_eq!(make(&deep, SCALED, &bounds).unwrap_err(), PIXELS);
    assert!(make(&deep, SCALED, &Bounds { pixels: 20_000, ..bounds }).is_ok());
    assert_eq!(failure(&png_header(0, 10), SCALED), Failure::Broken("it has no pixels".to_owned()));
    assert_eq!(dimensions(&png_header(0, 10)), None);
}

#[test]
fn a_picture_is_not_a_line() {
    for (width, height) in [(1 << 16, 1), (1, 1 << 16)] {
        assert_eq!(failure(&png_header(width, height), SCALED), PIXELS);
        assert_eq!(dimensions(&png_header(width, height)), Some((width, height)));
    }
    let source = encoded(&quarters(65_535, 2), ImageFormat::Png);
    assert_eq!(thumbnail(&source, SCALED).width, 320);
}

#[test]
fn what_is_written_without_loss_is_bounded() {
    let noise =
        RgbaImage::from_fn(30, 20, |x, y| image::Rgba([x as u8 * 7, y as u8 * 11, (x * y) as u8, (x + y) as u8]));
    let still = encoded(&noise.into(), ImageFormat::WebP);
    let picture = still[12..].to_vec();
    let packed = (picture.len() - 8) as u64;
    let canvas = webp_chunk(b"VP8X", &[2, 0, 0, 0, 29, 0, 0, 19, 0, 0]);
    let place = [0, 0, 0, 0, 0, 0, 29, 0, 0, 19, 0, 0, 10, 0, 0, 2];
    let frame = |picture: &[u8]| webp_chunk(b"ANMF", &[&place[..], picture].concat());
    let alpha = webp_chunk(b"ALPH", &[&[1][..], &picture[9..]].concat());
    let lossy = webp_chunk(b"VP8 ", &[0x10, 0, 0, 0x9D, 1, 0x2A, 30, 0, 20, 0]);
    let anim = webp_chunk(b"ANIM", &[0; 6]);
    let film = webp(&[canvas.clone(), anim.clone(), frame(&picture)]);
    let behind = webp(&[canvas, anim, frame(&[alpha, lossy].concat())]);
    for source in [still.clone(), film.clone(), behind] {
        let tight = Bounds { pixels: packed * 32 - 1, ..Bounds::default() };
        for wish in Wish::all() {
            assert_eq!(make(&source, wish, &tight).unwrap_err(), Failure::TooLarge("bytes without loss"));
        }
    }
    for source in [still, film] {
        assert!(make(&source, SCALED, &Bounds { pixels: packed * 32, ..Bounds::default() }).is_ok());
    }
}

#[test]
fn a_photo_does_not_come_in_a_thousand_passes() {
    let source = encoded(&quarters(64, 64), ImageFormat::Jpeg);
    let scan = source.windows(2).position(|marker| marker == [0xFF, 0xDA]).unwrap();
    let header = &source[scan..scan + 14];
    let with = |passes: usize| [&source[..scan], &header.repeat(passes), &source[scan..]].concat();
    assert!(make(&with(0), SCALED, &Bounds::default()).is_ok());
    assert_eq!(failure(&with(1000), SCALED), Failure::TooLarge("scans"));
    // What is behind the end of the picture is none of it.
    let followed = [&source[..], &source[2..].repeat(100)].concat();
    assert!(make(&followed, SCALED, &Bounds::default()).is_ok());
}

#[test]
fn what_is_cut_off_is_broken_or_shown_as_far_as_it_goes() {
    let glass = RgbaImage::from_fn(60, 50, |x, y| image::Rgba([x as u8, y as u8, (x * y) as u8, x as u8]));
    let png = encoded(&glass.clone().into(), ImageFormat::Png);
    let jpeg = with_exif(&encoded(&quarters(60, 50), ImageFormat::Jpeg), 6);
    let webp = encoded(&glass.into(), ImageFormat::WebP);
    let film = thumbnail(&gif(&scenes(60, 50), &[10; 3]), MOVING).bytes;
    for source in [png.clone(), jpeg, webp, gif(&scenes(60, 50), &[10; 3]), apng(&scenes(60, 50), &[10; 3]), film] {
        for length in (0..source.len()).step_by(7) {
            for wish in [MOVING, CROPPED] {
                if let Ok(small) = make(&source[..length], wish, &Bounds::default()) {
                    assert!(image::load_from_memory(&small.bytes).is_ok());
                }
            }
        }
    }
    for length in [30, png.len() / 2, png.len() - 20] {
        assert!(matches!(failure(&png[..length], SCALED), Failure::Broken(_)), "{length}");
    }
}
