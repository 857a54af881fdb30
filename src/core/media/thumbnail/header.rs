//! What a picture says of itself before any of it is decoded.

mod gif;
mod jpeg;
mod png;
mod webp;

use super::{Failure, Format};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Width and height as they are stored: it may be turned.
    pub size: (u32, u32),
    /// How many it has; none or one if it doesn't move.
    pub frames: u64,
    /// The bytes of the largest piece of a WebP that is written without loss.
    pub lossless: usize,
}

pub(super) fn read(format: Format, source: &[u8]) -> Result<Header, Failure> {
    let header = match format {
        Format::Gif => gif::header(source),
        Format::Jpeg => return jpeg::header(source),
        Format::Png => png::header(source),
        Format::WebP => return webp::header(source),
    };
    header.ok_or_else(|| broken("its header ends early"))
}

fn broken(why: &str) -> Failure {
    Failure::Broken(why.to_owned())
}

/// Numbers of two bytes stand in these at some offset, the more significant first or last.
fn big16(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes).map(u32::from)
}

fn little16(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes).map(u32::from)
}

fn big32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn little32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
