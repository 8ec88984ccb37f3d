//! JPEG, baseline and progressive, of any colour space.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{DecodeError, Fit, Orientation, Picture, SIDE_MAX, WHOLE_PIXELS_MAX, exif};

/// Most scans of a progressive image: encoders write about ten, and each walks all pixels.
const SCANS_MAX: usize = 32;

pub(super) fn decode(file: &[u8]) -> Result<Picture, DecodeError> {
    // A strict decoder refuses an image that is cut short; the other one fills it with grey.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(SIDE_MAX)
        .set_max_height(SIDE_MAX)
        .jpeg_set_max_scans(SCANS_MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(DecodeError::Jpeg)?;
    let size = decoder.dimensions().unwrap_or_default();
    let turned = decoder.exif().map(|exif| exif::orientation(exif));
    let mut fit = Fit::new(
        size,
        WHOLE_PIXELS_MAX,
        turned.unwrap_or(Orientation::UPRIGHT),
    )?;
    let pixels = decoder.decode().map_err(DecodeError::Jpeg)?;
    for row in pixels.chunks_exact(3 * size.0) {
        fit.row(row);
    }
    Ok(fit.finish())
}
