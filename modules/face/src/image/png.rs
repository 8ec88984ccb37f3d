//! PNG, row by row: memory stays at a few rows whatever the image's height.

use std::io::Cursor;

use png::{ColorType, Decoder, Limits, Transformations};

use super::{DecodeError, Fit, Orientation, PIXELS_MAX, Picture, WHOLE_PIXELS_MAX, exif};

/// Most bytes that the decoder may hold for one row and for side data.
const SIDE_DATA_BYTES_MAX: usize = 8 << 20;

pub(super) fn decode(file: &[u8]) -> Result<Picture, DecodeError> {
    let limits = Limits {
        bytes: SIDE_DATA_BYTES_MAX,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), limits);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);

    let header = decoder.read_header_info()?;
    let size = (as_usize(header.width), as_usize(header.height));
    let interlaced = header.interlaced;
    let pixels_max = if interlaced {
        WHOLE_PIXELS_MAX
    } else {
        PIXELS_MAX
    };
    Fit::new(size, pixels_max, Orientation::UPRIGHT)?;

    let mut reader = decoder.read_info()?;
    let turned = reader
        .info()
        .exif_metadata
        .as_deref()
        .map(exif::orientation);
    let mut fit = Fit::new(size, pixels_max, turned.unwrap_or(Orientation::UPRIGHT))?;
    let color = reader.output_color_type().0;
    let mut rgb = Vec::new();
    if interlaced {
        let len = reader.output_buffer_size().unwrap_or_default();
        let mut whole = vec![0; len];
        let frame = reader.next_frame(&mut whole)?;
        for row in whole.chunks_exact(frame.line_size) {
            fit.row(to_rgb(row, color, &mut rgb));
        }
    } else {
        while let Some(row) = reader.next_row()? {
            fit.row(to_rgb(row.data(), color, &mut rgb));
        }
    }
    Ok(fit.finish())
}

/// A row as red, green and blue, in `rgb` unless it is so already.
fn to_rgb<'a>(row: &'a [u8], color: ColorType, rgb: &'a mut Vec<u8>) -> &'a [u8] {
    rgb.clear();
    match color {
        ColorType::Rgb => return row,
        ColorType::Grayscale | ColorType::Indexed => {
            rgb.extend(row.iter().flat_map(|grey| [*grey; 3]))
        }
        ColorType::GrayscaleAlpha => {
            rgb.extend(
                row.as_chunks::<2>()
                    .0
                    .iter()
                    .flat_map(|[grey, _]| [*grey; 3]),
            );
        }
        ColorType::Rgba => {
            rgb.extend(
                row.as_chunks::<4>()
                    .0
                    .iter()
                    .flat_map(|[red, green, blue, _]| [*red, *green, *blue]),
            );
        }
    }
    rgb
}

fn as_usize(side: u32) -> usize {
    usize::try_from(side).unwrap_or(usize::MAX)
}
