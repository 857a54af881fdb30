//! Writes what moves, as WebP.
//!
//! <https://developers.google.com/speed/webp/docs/riff_container#animation>

use image::{ExtendedColorType, RgbaImage, codecs::webp::WebPEncoder, imageops};

use super::{Failure, Thumbnail};

/// The longest that a frame can stay, in milliseconds.
const LONGEST: u32 = (1 << 24) - 1;
/// A frame takes the place of what was there, and stays when the next comes.
const REPLACES: u8 = 0b10;
const HAS_ALPHA: u8 = 0b1_0000;
const MOVES: u8 = 0b10;
/// Where a chunk of a frame says how long it stays.
const DELAY: usize = 20;

pub(super) struct Film {
    size: (u32, u32),
    /// The chunks of all frames.
    frames: Vec<u8>,
    count: usize,
    is_clear: bool,
    last: Option<Last>,
}

struct Last {
    image: RgbaImage,
    /// Where its chunk begins.
    at: usize,
    delay: u32,
}

impl Film {
    pub fn new(size: (u32, u32)) -> Self {
        Self { size, frames: Vec::new(), count: 0, is_clear: false, last: None }
    }

    /// So many bytes were written.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// A frame that stays for so many milliseconds.
    pub fn push(&mut self, image: RgbaImage, delay: u32) -> Result<(), Failure> {
        let part = match &mut self.last {
            None => Part { left: 0, top: 0, width: image.width(), height: image.height() },
            Some(last) => match Part::changed(&last.image, &image) {
                Some(part) => part,
                // What stays the same stays longer.
                None => {
                    last.delay = last.delay.saturating_add(delay).min(LONGEST);
                    let delay = last.delay;
                    self.frames[last.at + DELAY..][..3].copy_from_slice(&little24(delay));
                    return Ok(());
                }
            },
        };
        let at = self.frames.len();
        let delay = delay.min(LONGEST);
        self.write(&image, part, delay)?;
        self.is_clear |= image.pixels().any(|pixel| pixel.0[3] < 255);
        self.last = Some(Last { image, at, delay });
        self.count += 1;
        Ok(())
    }

    fn write(&mut self, image: &RgbaImage, part: Part, delay: u32) -> Result<(), Failure> {
        let Part { left, top, width, height } = part;
        let pixels = imageops::crop_imm(image, left, top, width, height).to_image();
        let mut file = Vec::new();
        WebPEncoder::new_lossless(&mut file).encode(pixels.as_raw(), width, height, ExtendedColorType::Rgba8)?;
        // The chunk of a frame holds that of a picture, without the frame of its file.
        let picture = &file[12..];
        self.frames.extend_from_slice(b"ANMF");
        self.frames.extend_from_slice(&little32(16 + picture.len()));
        for number in [left / 2, top / 2, width - 1, height - 1, delay] {
            self.frames.extend_from_slice(&little24(number));
        }
        self.frames.push(REPLACES);
        self.frames.extend_from_slice(picture);
        Ok(())
    }

    /// Nothing, if it never moved.
    pub fn finish(self) -> Option<Thumbnail> {
        if self.count < 2 {
            return None;
        }
        let (width, height) = self.size;
        let mut bytes = b"RIFF".to_vec();
        bytes.extend_from_slice(&little32(4 + 18 + 14 + self.frames.len()));
        bytes.extend_from_slice(b"WEBPVP8X");
        bytes.extend_from_slice(&little32(10));
        bytes.extend_from_slice(&[MOVES | if self.is_clear { HAS_ALPHA } else { 0 }, 0, 0, 0]);
        bytes.extend_from_slice(&little24(width - 1));
        bytes.extend_from_slice(&little24(height - 1));
        bytes.extend_from_slice(b"ANIM");
        bytes.extend_from_slice(&little32(6));
        // No colour behind it, and it goes on for ever.
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&self.frames);
        Some(Thumbnail { bytes, content_type: "image/webp", width, height, animated: true })
    }
}

#[derive(Clone, Copy)]
struct Part {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Part {
    /// All that differs between two pictures of a size. It begins at an even place: others cannot be written.
    fn changed(old: &RgbaImage, new: &RgbaImage) -> Option<Self> {
        let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
        for ((x, y, pixel), other) in new.enumerate_pixels().zip(old.pixels()) {
            if pixel != other {
                (left, right) = (left.min(x), right.max(x + 1));
                (top, bottom) = (top.min(y), bottom.max(y + 1));
            }
        }
        if right == 0 {
            return None;
        }
        (left, top) = (left & !1, top & !1);
        Some(Self { left, top, width: right - left, height: bottom - top })
    }
}

fn little24(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}

/// The lengths of what is small.
fn little32(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}
