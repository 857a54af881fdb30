use image::{
    AnimationDecoder as _, DynamicImage, ImageFormat, Rgba, RgbaImage,
    codecs::{gif::GifDecoder, webp::WebPDecoder},
    metadata::LoopCount,
};

use super::{pictures::*, *};

/// What is in the middle of each frame, and how long it stays.
fn shown(small: &Thumbnail) -> Vec<(Rgba<u8>, u32)> {
    assert_eq!((small.content_type, small.animated), ("image/webp", true));
    let decoder = WebPDecoder::new(std::io::Cursor::new(&small.bytes)).unwrap();
    assert!(matches!(decoder.loop_count(), LoopCount::Infinite));
    let frames = decoder.into_frames().collect_frames().unwrap();
    let middle = |frame: &image::Frame| *frame.buffer().get_pixel(small.width / 2, small.height / 2);
    frames.iter().map(|frame| (middle(frame), frame.delay().numer_denom_ms().0)).collect()
}

fn solid(Rgba([r, g, b, _]): Rgba<u8>, delay: u32) -> (image::Rgb<u8>, u32) {
    (nearest(image::Rgb([r, g, b])), delay)
}

#[test]
fn what_moves_goes_on_moving_if_that_is_wished() {
    let scenes = scenes(400, 400);
    let gif = gif(&scenes, &[100, 20, 1000]);
    let apng = apng(&scenes, &[100, 20, 1000]);
    let webp = thumbnail(&gif, Wish { width: 640, height: 640, ..MOVING }).bytes;
    for source in [gif, apng, webp] {
        let small = thumbnail(&source, MOVING);
        assert_eq!((small.width, small.height), (240, 240));
        let shown: Vec<_> = shown(&small).into_iter().map(|(colour, delay)| solid(colour, delay)).collect();
        assert_eq!(shown, [(RED, 100), (GREEN, 20), (BLUE, 1000)]);

        let still = thumbnail(&source, SCALED);
        assert!(!still.animated && still.content_type == "image/jpeg");
        assert_eq!(corners(&decoded(&still.bytes)), [RED; 4], "the first of them");
        let cropped = thumbnail(&source, Wish { animated: true, ..CROPPED });
        assert_eq!((cropped.width, cropped.height, cropped.animated), (96, 96, true));
    }
}

#[test]
fn only_what_changes_is_written_and_all_is_seen() {
    // A square goes over glass, and rests for a frame.
    let scene = |at: u32| {
        let is_in = move |x: u32| (at..at + 31).contains(&x);
        RgbaImage::from_fn(101, 77, |x, y| {
            if is_in(x) && is_in(y) { Rgba([200, x as u8, y as u8, 255]) } else { Rgba([0; 4]) }
        })
    };
    let scenes = [0, 5, 5, 17, 46].map(scene);
    let source = apng(&scenes, &[10, 20, 30, 40, 50]);
    let small = thumbnail(&source, MOVING);
    let decoder = WebPDecoder::new(std::io::Cursor::new(&small.bytes)).unwrap();
    let frames = decoder.into_frames().collect_frames().unwrap();
    let delays: Vec<u32> = frames.iter().map(|frame| frame.delay().numer_denom_ms().0).collect();
    assert_eq!(delays, [10, 50, 40, 50]);
    for (frame, scene) in frames.iter().zip([&scenes[0], &scenes[1], &scenes[3], &scenes[4]]) {
        assert!(frame.buffer() == scene);
    }
}

#[test]
fn what_does_not_move_is_a_still() {
    let single = gif(&scenes(400, 300)[..1], &[100]);
    let same = gif(&[scenes(400, 300)[0].clone(), scenes(400, 300)[0].clone()], &[100, 100]);
    let png = encoded(&quarters(400, 300), ImageFormat::Png);
    let jpeg = encoded(&quarters(400, 300), ImageFormat::Jpeg);
    for source in [single, same, png, jpeg] {
        let small = thumbnail(&source, MOVING);
        assert_eq!((small.content_type, small.animated, small.width), ("image/jpeg", false, 320));
    }
}

#[test]
fn what_moves_too_much_is_a_still() {
    let source = gif(&scenes(400, 300), &[100; 3]);
    let pixels = 400 * 300;
    let generous = Bounds { pixels: pixels * 8, frames: 3, total_pixels: pixels * 3, bytes: source.len() };
    assert!(make(&source, MOVING, &generous).unwrap().animated);
    for bounds in [
        Bounds { pixels: generous.pixels - 1, ..generous },
        Bounds { frames: 2, ..generous },
        Bounds { total_pixels: pixels * 3 - 1, ..generous },
    ] {
        let small = make(&source, MOVING, &bounds).unwrap();
        assert_eq!((small.content_type, small.animated, small.width), ("image/jpeg", false, 320), "{bounds:?}");
    }
}

#[test]
fn a_film_that_is_cut_off_ends_there() {
    let source = gif(&scenes(400, 300), &[100; 3]);
    let short = thumbnail(&source[..source.len() * 3 / 4], MOVING);
    assert_eq!(shown(&short).len(), 2);
    let shorter = thumbnail(&source[..source.len() / 2], MOVING);
    assert!(!shorter.animated);
}

#[test]
fn a_frame_may_not_be_larger_than_the_picture() {
    let mut source = gif(&scenes(40, 30), &[100; 3]);
    let frames = |source: &[u8]| {
        let decoder = GifDecoder::new(std::io::Cursor::new(source.to_vec())).unwrap();
        decoder.into_frames().filter_map(Result::ok).count()
    };
    assert_eq!(frames(&source), 3);
    // The picture gets smaller than its frames.
    source[6..10].copy_from_slice(&[20, 0, 20, 0]);
    assert_eq!(frames(&source), 3);
    let small = thumbnail(&source, MOVING);
    assert_eq!((small.animated, small.width, small.height), (false, 20, 20));
}

#[test]
fn an_animation_is_turned_like_a_photo() {
    let picture = |second: bool| -> DynamicImage {
        let mut picture = quarters(64, 32);
        if second {
            image::imageops::rotate180_in_place(&mut picture);
        }
        picture
    };
    let scenes = [picture(false).to_rgba8(), picture(true).to_rgba8()];
    let mut source = apng(&scenes, &[10, 10]);
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    source.splice(33..33, png_chunk(b"eXIf", exif));
    assert_eq!(dimensions(&source), Some((32, 64)));
    let small = thumbnail(&source, MOVING);
    assert!(small.animated);
    assert_eq!((small.width, small.height), (32, 64));
    assert_eq!(corners(&decoded(&small.bytes)), [BLUE, RED, WHITE, GREEN]);
}
