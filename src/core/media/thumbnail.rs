//! Small pictures of the pictures that strangers sent.
//!
//! Decoders are large programs, and a picture of a few bytes may unfold to gigabytes. So a picture is refused by what its
//! header says of it, read by hand, before a decoder is made; what decodes it is chosen by its first bytes alone, from a
//! short list; and a decoder is told its limits. What comes out is encoded anew from pixels: nothing else of the original
//! gets into it, neither where a photo was taken nor what somebody hid behind it. Colour profiles are left out, too: a
//! photo in wide colours looks a little paler as a thumbnail.

mod animation;
mod film;
mod header;
mod resize;
mod still;

use image::{ImageError, metadata::Orientation};

/// How a picture is made to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The middle of it, in the shape that was asked for.
    Crop,
    /// The whole of it, in its own shape.
    Scale,
}

/// What a client gets: one of a few sizes, since each is made once and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    pub width: u32,
    pub height: u32,
    pub method: Method,
    /// Moving, if the picture does.
    pub animated: bool,
}

/// The longest side that a JPEG can have. To make a much longer one short takes more memory than its pixels.
const LONGEST_SIDE: u32 = u16::MAX as u32;
/// Codes for lossless WebP unfold in the decoder's memory to four hundred times their size: so a piece of it may have this
/// part of the pixels that are allowed as bytes, and takes no more than the pixels of another.
const LOSSLESS_PART: u64 = 32;

/// By method from small to large. The specification names 32x32 and 96x96 to crop, and all those to scale; it also forbids
/// less than what was asked, and screens have become finer since: avatars are asked for with up to 640 pixels.
///
/// <https://spec.matrix.org/v1.18/client-server-api/#thumbnails>
const SIZES: [(Method, u32, u32); 7] = [
    (Method::Crop, 32, 32),
    (Method::Crop, 96, 96),
    (Method::Crop, 320, 320),
    (Method::Crop, 640, 640),
    (Method::Scale, 320, 240),
    (Method::Scale, 640, 480),
    (Method::Scale, 800, 600),
];

impl Wish {
    /// What somebody gets who asks for these numbers: the smallest that is as large in both, or the largest that there is.
    pub fn standard(width: u64, height: u64, method: Method, animated: bool) -> Option<Self> {
        // Who asks for more than a picture has doesn't ask for a thumbnail.
        let sides = 1..=u64::from(LONGEST_SIDE);
        if !sides.contains(&width) || !sides.contains(&height) {
            return None;
        }
        let mut sizes = SIZES.into_iter().filter(|size| size.0 == method);
        let largest = sizes.clone().next_back()?;
        let covers = |size: &(Method, u32, u32)| width <= size.1.into() && height <= size.2.into();
        let (method, width, height) = sizes.find(covers).unwrap_or(largest);
        Some(Self { width, height, method, animated })
    }

    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let both = |(method, width, height)| [false, true].map(|animated| Self { width, height, method, animated });
        SIZES.into_iter().flat_map(both)
    }
}

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of the picture, or of one frame of it. Each takes up to four bytes while it is decoded, and some kinds of pictures
    /// are held two or three times over.
    pub pixels: u64,
    /// What has more doesn't move in its thumbnail.
    pub frames: u64,
    /// Of all frames together. What has more doesn't move in its thumbnail.
    pub total_pixels: u64,
    /// Of the file.
    pub bytes: usize,
}

impl Default for Bounds {
    /// A photo of 32 megapixels; ten seconds of a small film.
    fn default() -> Self {
        Self { pixels: 32 << 20, frames: 300, total_pixels: 48 << 20, bytes: 64 << 20 }
    }
}

impl Bounds {
    fn check(&self, (width, height): (u32, u32)) -> Result<(), Failure> {
        match u64::from(width) * u64::from(height) {
            0 => Err(Failure::Broken("it has no pixels".to_owned())),
            many if many > self.pixels || width.max(height) > LONGEST_SIDE => Err(Failure::TooLarge("pixels")),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
pub struct Thumbnail {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
    pub width: u32,
    pub height: u32,
    pub animated: bool,
}

/// Why there is no thumbnail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("thumbnails are not made of this kind of file")]
    Unsupported,
    #[error("the picture is broken: {0}")]
    Broken(String),
    /// Says of what it has too much.
    #[error("the picture is too large: too many {0}")]
    TooLarge(&'static str),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Unsupported(_) => Self::Unsupported,
            ImageError::Limits(_) => Self::TooLarge("bytes of memory"),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// What is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gif,
    Jpeg,
    Png,
    WebP,
}

impl Format {
    /// By the first bytes, whatever was said of the file: a decoder gets what it was made for, and nobody can choose it.
    fn of(source: &[u8]) -> Option<Self> {
        match source {
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            _ => None,
        }
    }
}

/// The thumbnail of a picture. It is never larger than the picture, and moves only if that was wished and the picture moves
/// within the bounds.
pub fn make(source: &[u8], wish: Wish, bounds: &Bounds) -> Result<Thumbnail, Failure> {
    if source.len() > bounds.bytes {
        return Err(Failure::TooLarge("bytes"));
    }
    let format = Format::of(source).ok_or(Failure::Unsupported)?;
    let header = header::read(format, source)?;
    bounds.check(header.size)?;
    if header.lossless as u64 > bounds.pixels / LOSSLESS_PART {
        return Err(Failure::TooLarge("bytes without loss"));
    }
    if wish.animated
        && animation::is_within(&header, bounds)
        && let Some(moving) = animation::make(format, source, wish, bounds)?
    {
        return Ok(moving);
    }
    still::make(format, source, wish, bounds)
}

/// Width and height of a picture as it is seen, by its header.
pub fn dimensions(source: &[u8]) -> Option<(u32, u32)> {
    let format = Format::of(source)?;
    let (width, height) = header::read(format, source).ok()?.size;
    if width == 0 || height == 0 {
        return None;
    }
    // Nothing is decoded, so there is little that a decoder could want.
    let bounds = Bounds { pixels: 1 << 20, ..Bounds::default() };
    let orientation = still::decoder(format, source, &bounds).and_then(|mut decoder| Ok(decoder.orientation()?));
    match orientation {
        Ok(orientation) if is_turned(orientation) => Some((height, width)),
        _ => Some((width, height)),
    }
}

/// Whether what is stored as width is seen as height.
fn is_turned(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

#[cfg(test)]
pub(crate) mod tests;
