//! <https://www.w3.org/TR/png-3/#5DataRep>

use super::{Header, big32};

/// Chunks before the pixels are few.
const CHUNKS: usize = 1000;

pub(super) fn header(source: &[u8]) -> Option<Header> {
    if source.get(12..16)? != b"IHDR" {
        return None;
    }
    let size = (big32(source, 16)?, big32(source, 20)?);
    Some(Header { size, frames: frames(source).unwrap_or_default(), lossless: 0 })
}

/// As many as are announced before the first pixels.
fn frames(source: &[u8]) -> Option<u64> {
    let mut at: usize = 8;
    for _ in 0..CHUNKS {
        let length = usize::try_from(big32(source, at)?).ok()?;
        match source.get(at + 4..at + 8)? {
            b"acTL" => return big32(source, at + 8).map(u64::from),
            b"IDAT" => return None,
            // A length, a name and a check sum stand around what is in it.
            _ => at = at.checked_add(length)?.checked_add(12)?,
        }
    }
    None
}
