//! Pictures to make thumbnails of.

use std::io::Cursor;

use image::{
    Delay, DynamicImage, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::gif::{GifEncoder, Repeat},
};

pub(crate) const RED: Rgb<u8> = Rgb([220, 20, 20]);
pub(crate) const GREEN: Rgb<u8> = Rgb([20, 200, 20]);
pub(crate) const BLUE: Rgb<u8> = Rgb([20, 20, 220]);
pub(crate) const WHITE: Rgb<u8> = Rgb([240, 240, 240]);

/// Red and green above, blue and white below.
pub(crate) fn quarters(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => RED,
        (false, true) => GREEN,
        (true, false) => BLUE,
        (false, false) => WHITE,
    })
    .into()
}

/// What is to be seen in the middle of each quarter.
pub(crate) fn corners(image: &DynamicImage) -> [Rgb<u8>; 4] {
    let image = image.to_rgb8();
    let (right, bottom) = (image.width() * 3 / 4, image.height() * 3 / 4);
    let (left, top) = (image.width() / 4, image.height() / 4);
    [(left, top), (right, top), (left, bottom), (right, bottom)].map(|(x, y)| nearest(*image.get_pixel(x, y)))
}

pub(crate) fn nearest(seen: Rgb<u8>) -> Rgb<u8> {
    let is_near = |colour: &Rgb<u8>| seen.0.iter().zip(colour.0).all(|(a, b)| a.abs_diff(b) < 30);
    [RED, GREEN, BLUE, WHITE].into_iter().find(is_near).unwrap_or(seen)
}

pub(crate) fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, format).unwrap();
    file.into_inner()
}

pub(crate) fn decoded(file: &[u8]) -> DynamicImage {
    image::load_from_memory(file).unwrap()
}

/// A photo that says how the camera was held, and where.
pub(crate) fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
    exif.extend_from_slice(b"at home");
    let mut file = jpeg[..2].to_vec();
    file.extend_from_slice(&[0xFF, 0xE1, 0, exif.len() as u8 + 2]);
    file.extend_from_slice(&exif);
    file.extend_from_slice(&jpeg[2..]);
    file
}

/// A square in each colour.
pub(crate) fn scenes(width: u32, height: u32) -> Vec<RgbaImage> {
    [RED, GREEN, BLUE].map(|Rgb([r, g, b])| RgbaImage::from_pixel(width, height, Rgba([r, g, b, 255]))).into()
}

pub(crate) fn gif(scenes: &[RgbaImage], delays: &[u32]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = GifEncoder::new(&mut file);
    encoder.set_repeat(Repeat::Finite(3)).unwrap();
    for (scene, delay) in scenes.iter().zip(delays) {
        encoder.encode_frame(Frame::from_parts(scene.clone(), 0, 0, Delay::from_numer_denom_ms(*delay, 1))).unwrap();
    }
    drop(encoder);
    file
}

pub(crate) fn apng(scenes: &[RgbaImage], delays: &[u16]) -> Vec<u8> {
    let (width, height) = scenes[0].dimensions();
    let mut file = png_header(width, height);
    file.extend(png_chunk(b"acTL", &[(scenes.len() as u32).to_be_bytes(), [0; 4]].concat()));
    let mut sequence = 0u32..;
    let mut next = || sequence.next().unwrap().to_be_bytes();
    for (n, (scene, delay)) in scenes.iter().zip(delays).enumerate() {
        let [width, height] = [width, height].map(u32::to_be_bytes);
        let control = [next(), width, height, [0; 4], [0; 4]].concat();
        let control = [&control[..], &delay.to_be_bytes(), &1000u16.to_be_bytes(), &[0, 0]].concat();
        file.extend(png_chunk(b"fcTL", &control));
        let pixels = png_pixels(&encoded(&scene.clone().into(), ImageFormat::Png));
        match n {
            0 => file.extend(png_chunk(b"IDAT", &pixels)),
            _ => file.extend(png_chunk(b"fdAT", &[&next()[..], &pixels].concat())),
        }
    }
    file.extend(png_chunk(b"IEND", b""));
    file
}

/// The beginning of a PNG with four channels of eight bits.
pub(crate) fn png_header(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n", &png_chunk(b"IHDR", &header)[..]].concat()
}

fn png_pixels(file: &[u8]) -> Vec<u8> {
    let (mut at, mut pixels) = (8, Vec::new());
    while at < file.len() {
        let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        if &file[at + 4..at + 8] == b"IDAT" {
            pixels.extend_from_slice(&file[at + 8..at + 8 + length]);
        }
        at += length + 12;
    }
    pixels
}

/// With check sums that are right, as far as its chunks are whole.
pub(crate) fn mended(png: &[u8]) -> Vec<u8> {
    let mut file = png[..8].to_vec();
    let mut rest = &png[8..];
    while let [a, b, c, d, name @ ..] = rest
        && let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize
        && name.len() >= length.saturating_add(8)
    {
        file.extend(png_chunk(name[..4].try_into().unwrap(), &name[4..4 + length]));
        rest = &rest[length + 12..];
    }
    [file, rest.to_vec()].concat()
}

pub(crate) fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&name[..], data].concat();
    let sum = body.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 })
    });
    [&(data.len() as u32).to_be_bytes()[..], &body, &(!sum).to_be_bytes()].concat()
}

/// Chunks of a WebP.
pub(crate) fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = [b"WEBP", &chunks.concat()[..]].concat();
    webp_chunk(b"RIFF", &body)
}

pub(crate) fn webp_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = [&name[..], &(data.len() as u32).to_le_bytes(), data].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}
