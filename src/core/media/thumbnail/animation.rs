//! Thumbnails that move.
//!
//! They are written as WebP: it has all colours and smooth edges where GIF has 256 colours and none, the specification
//! prefers it, and it is made in a tenth of the time. A frame is decoded, made small and written before the next is looked
//! at, and only the part of it is written that differs from the one before.

use std::io::Cursor;

use image::{
    AnimationDecoder as _, Frames, ImageDecoder as _, Rgba, RgbaImage,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};

use super::{Bounds, Failure, Format, Thumbnail, Wish, film::Film, header::Header, resize::shrink, still::limits};

/// A frame is held this many times over while the next is laid upon it.
const HELD: u64 = 8;
/// What moves and is larger than this is no small picture.
const LARGEST: usize = 8 << 20;

/// Whether it moves, and is small enough to be decoded to its end.
pub(super) fn is_within(header: &Header, bounds: &Bounds) -> bool {
    let pixels = u64::from(header.size.0) * u64::from(header.size.1);
    (2..=bounds.frames).contains(&header.frames)
        && pixels.saturating_mul(HELD) <= bounds.pixels
        && pixels.saturating_mul(header.frames) <= bounds.total_pixels
}

/// Nothing, if it doesn't move after all.
pub(super) fn make(format: Format, source: &[u8], wish: Wish, bounds: &Bounds) -> Result<Option<Thumbnail>, Failure> {
    let Some((frames, orientation)) = frames(format, source, bounds)? else { return Ok(None) };
    let mut film = None;
    // One that is cut off is shown up to there.
    for frame in frames.map_while(Result::ok).take(usize::try_from(bounds.frames).unwrap_or(usize::MAX)) {
        let (delay, parts) = frame.delay().numer_denom_ms();
        let whole = frame.into_buffer();
        let pixels = whole.len();
        let mut small = shrink(&whole.into(), orientation, wish)?.into_rgba8();
        if small.len() < pixels {
            coarsen(&mut small);
        }
        let film = film.get_or_insert_with(|| Film::new(small.dimensions()));
        film.push(small, delay / parts.max(1))?;
        if film.len() > LARGEST {
            return Ok(None);
        }
    }
    Ok(film.and_then(Film::finish))
}

/// With two bits less a colour it takes half as many bytes, about as many as a GIF. A frame that was blended from a larger one
/// has no exact colours to lose.
fn coarsen(frame: &mut RgbaImage) {
    for Rgba([colours @ .., alpha]) in frame.pixels_mut() {
        for colour in colours {
            // The lightest stays the lightest.
            *colour = if *alpha == 0 { 0 } else { *colour & !3 | *colour >> 6 };
        }
    }
}

/// The frames one after another, each of them whole.
fn frames<'a>(format: Format, source: &'a [u8], bounds: &Bounds) -> Result<Option<(Frames<'a>, Orientation)>, Failure> {
    let limits = limits(bounds);
    let source = Cursor::new(source);
    Ok(match format {
        Format::Gif => {
            let mut decoder = GifDecoder::new(source)?;
            // A frame may not be larger than all of it.
            let (width, height) = decoder.dimensions();
            let mut limits = limits;
            (limits.max_image_width, limits.max_image_height) = (Some(width), Some(height));
            decoder.set_limits(limits)?;
            Some((decoder.into_frames(), Orientation::NoTransforms))
        }
        Format::Jpeg => None,
        Format::Png => {
            let mut decoder = PngDecoder::with_limits(source, limits)?;
            let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
            decoder.is_apng()?.then(|| decoder.apng()).transpose()?.map(|decoder| (decoder.into_frames(), orientation))
        }
        Format::WebP => {
            let mut decoder = WebPDecoder::new(source)?;
            if !decoder.has_animation() {
                return Ok(None);
            }
            // What a frame leaves behind is nothing; else it would stay.
            decoder.set_background_color(Rgba([0; 4]))?;
            let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
            Some((decoder.into_frames(), orientation))
        }
    })
}
