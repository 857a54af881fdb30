//! <https://www.w3.org/Graphics/GIF/spec-gif89a.txt>

use super::{Header, little16};

pub(super) fn header(source: &[u8]) -> Option<Header> {
    let size = (little16(source, 6)?, little16(source, 8)?);
    let mut frames = 0;
    // One that is cut off has as many frames as begin.
    count(source, &mut frames);
    Some(Header { size, frames, lossless: 0 })
}

fn count(source: &[u8], frames: &mut u64) -> Option<()> {
    let mut at = 13 + palette(*source.get(10)?);
    loop {
        match *source.get(at)? {
            // An extension, by its label.
            0x21 => at += 2,
            // A frame: where it is, its own palette, the width of its codes.
            0x2C => {
                *frames += 1;
                at += 11 + palette(*source.get(at + 9)?);
            }
            _ => return Some(()),
        }
        // What is in them comes in pieces, of which the last is empty.
        loop {
            let length = usize::from(*source.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

/// How many bytes it takes, by the byte that says whether there is one.
fn palette(packed: u8) -> usize {
    if packed & 0x80 == 0 { 0 } else { 3 << ((packed & 7) + 1) }
}
