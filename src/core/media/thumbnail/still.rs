//! Thumbnails that don't move.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageEncoder as _, Limits,
    codecs::{
        gif::GifDecoder,
        jpeg::{JpegDecoder, JpegEncoder},
        png::{CompressionType, FilterType, PngDecoder, PngEncoder},
        webp::WebPDecoder,
    },
    metadata::Orientation,
};

use super::{Bounds, Failure, Format, Thumbnail, Wish, resize::shrink};

/// Of a hundred. More is hardly seen in a small picture.
const QUALITY: u8 = 80;

pub(super) fn make(format: Format, source: &[u8], wish: Wish, bounds: &Bounds) -> Result<Thumbnail, Failure> {
    let mut decoder = decoder(format, source, bounds)?;
    let size = decoder.dimensions();
    bounds.check(size)?;
    // Sixteen bits a colour count for two pixels of eight.
    if decoder.total_bytes() / 4 > bounds.pixels {
        return Err(Failure::TooLarge("pixels"));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let small = shrink(&DynamicImage::from_decoder(decoder)?, orientation, wish)?;
    // A drawing that is as small as is wished is shown as it is.
    let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let is_exact = format == Format::Png && area((small.width(), small.height())) == area(size);
    encode(small, is_exact)
}

/// A decoder that has read the header, and knows how much memory it may take.
pub(super) fn decoder<'a>(
    format: Format,
    source: &'a [u8],
    bounds: &Bounds,
) -> Result<Box<dyn ImageDecoder + 'a>, Failure> {
    let limits = limits(bounds);
    let source = Cursor::new(source);
    let mut decoder: Box<dyn ImageDecoder + 'a> = match format {
        Format::Gif => Box::new(GifDecoder::new(source)?),
        Format::Jpeg => Box::new(JpegDecoder::new(source)?),
        Format::Png => Box::new(PngDecoder::with_limits(source, limits.clone())?),
        Format::WebP => Box::new(WebPDecoder::new(source)?),
    };
    decoder.set_limits(limits)?;
    Ok(decoder)
}

pub(super) fn limits(bounds: &Bounds) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bounds.pixels.saturating_mul(4).saturating_add(1 << 20));
    limits
}

/// What one can see through stays so. All else is taken for a photo, except what is to be exact.
fn encode(image: DynamicImage, is_exact: bool) -> Result<Thumbnail, Failure> {
    let (width, height) = (image.width(), image.height());
    let is_clear = image.color().has_alpha() && image.to_rgba8().pixels().any(|pixel| pixel.0[3] < 255);
    let mut bytes = Vec::new();
    let content_type = if is_clear || is_exact {
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive).write_image(
            image.as_bytes(),
            width,
            height,
            image.color().into(),
        )?;
        "image/png"
    } else {
        let image = match image.color().has_color() {
            true => DynamicImage::from(image.into_rgb8()),
            false => DynamicImage::from(image.into_luma8()),
        };
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
        encoder.encode(image.as_bytes(), width, height, image.color().into())?;
        "image/jpeg"
    };
    Ok(Thumbnail { bytes, content_type, width, height, animated: false })
}
