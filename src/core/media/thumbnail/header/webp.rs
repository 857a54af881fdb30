//! <https://developers.google.com/speed/webp/docs/riff_container>
//!
//! The decoder believes a frame about its own size, decodes it, and only then compares that with what the file said. So all
//! frames are looked at here.

use std::iter;

use super::{Header, broken, little16, little32};
use crate::media::thumbnail::Failure;

pub(super) fn header(source: &[u8]) -> Result<Header, Failure> {
    let first = Chunk::at(source, 12).ok_or_else(|| broken("its header ends early"))?;
    if first.name != b"VP8X" {
        let size = first.size().ok_or_else(|| broken("it doesn't say how large it is"))?;
        return Ok(Header { size, frames: 1, lossless: first.lossless() });
    }
    let canvas = little24(first.data, 4).zip(little24(first.data, 7)).ok_or_else(|| broken("its header ends early"))?;
    let size = (canvas.0 + 1, canvas.1 + 1);
    let (mut frames, mut lossless) = (0, 0);
    for chunk in Chunk::all(source, first.end) {
        if chunk.name == b"ANMF" {
            frames += 1;
            lossless = lossless.max(check_frame(&chunk)?);
        } else {
            chunk.check(size)?;
            lossless = lossless.max(chunk.lossless());
        }
    }
    Ok(Header { size, frames, lossless })
}

/// A frame of an animation: where it stands, how large it is, and the picture, which may have its transparency before it.
/// Says how much of it is written without loss.
fn check_frame(frame: &Chunk<'_>) -> Result<usize, Failure> {
    // The decoder would look for the next one where this says that it ends, and we a byte behind.
    if frame.length % 2 == 1 {
        return Err(broken("a frame has an odd length"));
    }
    // What is cut off isn't decoded.
    let Some((width, height)) = little24(frame.data, 6).zip(little24(frame.data, 9)) else { return Ok(0) };
    let mut lossless = 0;
    for (n, chunk) in Chunk::all(frame.data, 16).enumerate() {
        // The decoder takes for a picture whatever stands behind transparency.
        let is_expected = chunk.is_picture() || n > 1 || n == 0 && chunk.name == b"ALPH";
        if !is_expected {
            return Err(broken("a frame has no picture"));
        }
        chunk.check((width + 1, height + 1))?;
        lossless = lossless.max(chunk.lossless());
    }
    Ok(lossless)
}

struct Chunk<'a> {
    name: &'a [u8],
    /// What there is of it.
    data: &'a [u8],
    /// What it says that there is.
    length: usize,
    end: usize,
}

impl<'a> Chunk<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let name = bytes.get(at..at + 4)?;
        let length = usize::try_from(little32(bytes, at + 4)?).ok()?;
        let data = &bytes[at + 8..];
        let data = &data[..length.min(data.len())];
        Some(Self { name, data, length, end: (at + 8).checked_add(length)?.checked_add(length % 2)? })
    }

    fn all(bytes: &'a [u8], at: usize) -> impl Iterator<Item = Self> {
        iter::successors(Self::at(bytes, at), |chunk| Self::at(bytes, chunk.end))
    }

    fn is_picture(&self) -> bool {
        self.name == b"VP8 " || self.name == b"VP8L"
    }

    /// The size of the picture in it.
    fn size(&self) -> Option<(u32, u32)> {
        match self.name {
            b"VP8 " => Some((little16(self.data, 6)? & 0x3FFF, little16(self.data, 8)? & 0x3FFF)),
            b"VP8L" => {
                let packed = little32(self.data, 1)?;
                Some(((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1))
            }
            _ => None,
        }
    }

    fn lossless(&self) -> usize {
        let is_lossless = match self.name {
            b"VP8L" => true,
            // How it is packed, if it is.
            b"ALPH" => self.data.first().is_some_and(|info| info & 3 != 0),
            _ => false,
        };
        if is_lossless { self.data.len() } else { 0 }
    }

    fn check(&self, expected: (u32, u32)) -> Result<(), Failure> {
        match self.size() {
            Some(size) if size != expected => Err(broken("a frame is of another size than it should be")),
            _ => Ok(()),
        }
    }
}

fn little24(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 3)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]))
}
