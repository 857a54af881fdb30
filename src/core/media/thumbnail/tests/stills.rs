use image::{GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, Rgba, RgbaImage};

use super::{pictures::*, *};

const FORMATS: [ImageFormat; 4] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP];

#[test]
fn all_of_the_list_are_made_small() {
    for format in FORMATS {
        let source = encoded(&quarters(400, 300), format);
        assert_eq!(dimensions(&source), Some((400, 300)), "{format:?}");
        let small = thumbnail(&source, SCALED);
        assert_eq!((small.width, small.height, small.content_type), (320, 240, "image/jpeg"), "{format:?}");
        assert!(!small.animated);
        let seen = decoded(&small.bytes);
        assert_eq!((seen.width(), seen.height()), (320, 240));
        assert_eq!(corners(&seen), [RED, GREEN, BLUE, WHITE], "{format:?}");
    }
}

#[test]
fn a_picture_keeps_its_shape_unless_it_is_cropped_and_never_grows() {
    for (size, scaled, cropped) in [
        ((640, 480), (320, 240), (96, 96)),
        ((1000, 100), (320, 32), (96, 96)),
        ((100, 1000), (24, 240), (96, 96)),
        ((320, 240), (320, 240), (96, 96)),
        ((200, 50), (200, 50), (50, 50)),
        ((40, 90), (40, 90), (40, 40)),
        ((97, 96), (97, 96), (96, 96)),
        ((4000, 1), (320, 1), (1, 1)),
        ((1, 4000), (1, 240), (1, 1)),
        ((1, 1), (1, 1), (1, 1)),
    ] {
        let source = encoded(&quarters(size.0, size.1), ImageFormat::Png);
        for (wish, expected) in [(SCALED, scaled), (CROPPED, cropped)] {
            let small = thumbnail(&source, wish);
            assert_eq!((small.width, small.height), expected, "{size:?} {wish:?}");
            assert_eq!(dimensions(&small.bytes), Some(expected));
        }
    }
}

#[test]
fn the_middle_is_left_when_it_is_cropped() {
    let stripes = |x: u32, _| if (200..400).contains(&x) { GREEN } else { RED };
    let source = encoded(&image::RgbImage::from_fn(600, 200, stripes).into(), ImageFormat::Png);
    let seen = decoded(&thumbnail(&source, CROPPED).bytes).to_rgb8();
    // Where red begins is between the outermost pixels and what was cut off.
    assert!(seen.enumerate_pixels().all(|(x, _, pixel)| !(2..94).contains(&x) || nearest(*pixel) == GREEN));
}

#[test]
fn a_photo_is_shown_as_the_camera_was_held() {
    let photo = encoded(&quarters(400, 200), ImageFormat::Jpeg);
    for (orientation, seen) in [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
        // No such thing.
        (9, [RED, GREEN, BLUE, WHITE]),
    ] {
        let is_turned = (5..9).contains(&orientation);
        let source = with_exif(&photo, orientation);
        let small = thumbnail(&source, SCALED);
        assert_eq!((small.width, small.height), if is_turned { (120, 240) } else { (320, 160) }, "{orientation}");
        assert_eq!(dimensions(&source), Some(if is_turned { (200, 400) } else { (400, 200) }), "{orientation}");
        assert_eq!(corners(&decoded(&small.bytes)), seen, "{orientation}");
        let cropped = thumbnail(&source, CROPPED);
        assert_eq!(corners(&decoded(&cropped.bytes)), seen, "{orientation}");
    }
}

#[test]
fn what_is_transparent_stays_so_and_its_colour_does_not_shine_through() {
    let glass = |x: u32, _| if x < 333 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 255, 0, 0]) };
    let source = encoded(&RgbaImage::from_fn(800, 600, glass).into(), ImageFormat::Png);
    let small = thumbnail(&source, SCALED);
    assert_eq!(small.content_type, "image/png");
    let seen = decoded(&small.bytes).to_rgba8();
    assert_eq!(*seen.get_pixel(10, 10), Rgba([255, 0, 0, 255]));
    assert_eq!(seen.get_pixel(300, 10).0[3], 0);
    assert!(seen.pixels().all(|pixel| pixel.0[1] == 0 || pixel.0[3] == 0));
    assert!(seen.pixels().any(|pixel| (1..255).contains(&pixel.0[3])), "its edge is smooth");

    // A picture that could be transparent and isn't is a photo like others.
    let source = encoded(&RgbaImage::from_pixel(800, 600, Rgba([255, 0, 0, 255])).into(), ImageFormat::WebP);
    assert_eq!(thumbnail(&source, SCALED).content_type, "image/jpeg");
}

#[test]
fn all_depths_of_colour_are_shown() {
    let gray = GrayImage::from_fn(400, 300, |x, _| Luma([if x < 200 { 10 } else { 240 }]));
    let deep_gray = ImageBuffer::from_fn(400, 300, |x, _| Luma([if x < 200 { 10 << 8 } else { 240u16 << 8 }]));
    let deep = ImageBuffer::from_pixel(400, 300, Rgb([220u16 << 8, 20 << 8, 20 << 8]));
    let deep_glass = ImageBuffer::from_pixel(400, 300, Rgba([220u16 << 8, 20 << 8, 20 << 8, 128 << 8]));
    for (picture, format) in [
        (gray.clone().into(), ImageFormat::Png),
        (gray.into(), ImageFormat::Jpeg),
        (deep_gray.into(), ImageFormat::Png),
    ] {
        let seen = decoded(&thumbnail(&encoded(&picture, format), SCALED).bytes);
        assert!(!seen.color().has_color());
        let seen = seen.to_luma8();
        assert!(seen.get_pixel(10, 10).0[0].abs_diff(10) < 5 && seen.get_pixel(310, 10).0[0].abs_diff(240) < 5);
    }
    let small = thumbnail(&encoded(&deep.into(), ImageFormat::Png), SCALED);
    assert_eq!(corners(&decoded(&small.bytes)), [RED; 4]);
    let small = thumbnail(&encoded(&deep_glass.into(), ImageFormat::Png), SCALED);
    let Rgba([r, g, b, alpha]) = *decoded(&small.bytes).to_rgba8().get_pixel(9, 9);
    assert_eq!((nearest(Rgb([r, g, b])), alpha), (RED, 128));
}

#[test]
fn what_is_small_and_exact_stays_exact() {
    let noise = RgbaImage::from_fn(60, 40, |x, y| Rgba([(x * 97 + y * 31) as u8, (x * y) as u8, (y * 57) as u8, 255]));
    let small = thumbnail(&encoded(&noise.clone().into(), ImageFormat::Png), SCALED);
    assert_eq!(small.content_type, "image/png");
    assert_eq!(decoded(&small.bytes).to_rgba8(), noise);
}

#[test]
fn nothing_that_was_written_beside_the_pixels_is_left() {
    let photo = with_exif(&encoded(&quarters(400, 300), ImageFormat::Jpeg), 6);
    let mut drawing = png_header(2, 1);
    let pixels = encoded(&RgbaImage::from_pixel(2, 1, Rgba([1, 2, 3, 4])).into(), ImageFormat::Png);
    drawing.extend(png_chunk(b"tEXt", b"Comment\0at home"));
    drawing.extend(&pixels[33..]);
    drawing.extend(b"at home");
    let tells =
        |file: &[u8]| file.windows(7).any(|word| word == b"at home") || file.windows(4).any(|word| word == b"Exif");
    for source in [photo, drawing] {
        assert!(tells(&source));
        for wish in Wish::all() {
            assert!(!tells(&thumbnail(&source, wish).bytes));
        }
    }
}
