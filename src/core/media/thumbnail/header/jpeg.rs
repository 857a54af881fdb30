//! <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>, annex B

use super::{Header, big16, broken};
use crate::media::thumbnail::Failure;

/// A picture that comes in passes has about ten. Each may be a few bytes and be work for all pixels.
const SCANS: usize = 32;

/// Goes from marker to marker, through to the last pass.
pub(super) fn header(source: &[u8]) -> Result<Header, Failure> {
    let mut size = None;
    let mut scans = 0;
    let mut at = 2;
    while let Some(marker) = next_marker(source, &mut at) {
        match marker {
            // Behind its end there may be another picture, or a film.
            0xD9 if scans > 0 => break,
            // What stands alone: the beginning, the end, and where decoders may start anew.
            0x01 | 0xD0..=0xD9 => continue,
            0xDA => scans += 1,
            // A frame: its precision, its height, its width. Those left out are tables that stand among them.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) && size.is_none() => {
                size = big16(source, at + 5).zip(big16(source, at + 3));
            }
            _ => {}
        }
        if scans > SCANS {
            return Err(Failure::TooLarge("scans"));
        }
        let Some(length) = big16(source, at) else { break };
        at += length as usize;
    }
    let size = size.ok_or_else(|| broken("it doesn't say how large it is"))?;
    Ok(Header { size, frames: 1, lossless: 0 })
}

/// The marker that comes next, and where it ends. Among pixels a byte that looks like the beginning of one has a zero behind
/// it.
fn next_marker(source: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        *at += source.get(*at..)?.iter().position(|byte| *byte == 0xFF)? + 1;
        match *source.get(*at)? {
            0 | 0xFF => {}
            marker => {
                *at += 1;
                return Some(marker);
            }
        }
    }
}
