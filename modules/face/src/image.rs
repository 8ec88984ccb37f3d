//! From an encoded image to the network's input, within limits on time and memory.
//!
//! The format is told by the file's first bytes, never by a name. A file says how large its image is
//! before any pixel comes: that is checked first, so a small file that claims to be huge costs
//! nothing. Grey, palette, 16-bit and CMYK images become 8-bit RGB; transparency is ignored. The
//! EXIF orientation is applied, since a face on its side is not found.

mod exif;
mod jpeg;
mod orientation;
mod png;

use crate::detect::{INPUT_HEIGHT, INPUT_WIDTH};
use crate::resize::{Pixel, Resize};
use orientation::Orientation;

/// Longest side, in pixels. Bounds the memory for one row.
pub const SIDE_MAX: usize = 16_384;

/// Most pixels of an image that is decoded row by row: a bound on time, not on memory.
pub const PIXELS_MAX: usize = 40_000_000;

/// Most pixels of an image that must be decoded as a whole (JPEG, interlaced PNG): a photo of 12
/// megapixels, which takes 36 MB, and thrice as much if it is progressive.
pub const WHOLE_PIXELS_MAX: usize = 12_500_000;

const _: () = assert!(WHOLE_PIXELS_MAX <= PIXELS_MAX && SIDE_MAX < u16::MAX as usize);

/// An image, ready for the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Width as displayed, in pixels.
    pub width: usize,
    /// Height as displayed, in pixels.
    pub height: usize,
    /// Stretched to the network's input: planes of red, green and blue, each value `(x - 127) / 128`.
    pub normalised: Vec<f32>,
}

/// Why a file is not an image that this module takes.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing was given.
    #[error("the image is empty")]
    Empty,
    /// Another format, or no image.
    #[error("neither a PNG nor a JPEG image: it begins with {begin:02x?}")]
    Format {
        /// The first bytes, at most 8.
        begin: Vec<u8>,
    },
    /// A side is 0 or too long, or there are too many pixels.
    #[error(
        "{width} x {height} pixels are outside the limits ({SIDE_MAX} a side, {pixels_max} in all)"
    )]
    Size {
        /// As the file says.
        width: usize,
        /// As the file says.
        height: usize,
        /// The limit for this way of coding.
        pixels_max: usize,
    },
    /// A PNG that is cut short, damaged or not as the standard says.
    #[error("not a sound PNG image: {0}")]
    Png(#[from] ::png::DecodingError),
    /// A JPEG that is cut short, damaged or of a kind that is not supported.
    #[error("not a sound JPEG image: {0:?}")]
    Jpeg(zune_jpeg::errors::DecodeErrors),
}

/// Decodes a PNG or JPEG file and fits it to the network's input.
pub fn decode(file: &[u8]) -> Result<Picture, DecodeError> {
    match file {
        [] => Err(DecodeError::Empty),
        [0x89, b'P', b'N', b'G', ..] => png::decode(file),
        [0xff, 0xd8, ..] => jpeg::decode(file),
        _ => Err(DecodeError::Format {
            begin: file[..file.len().min(8)].to_vec(),
        }),
    }
}

/// An image on its way to the network's input, fed with rows as they are stored.
struct Fit {
    stored: (usize, usize),
    resize: Resize,
    orientation: Orientation,
}

impl Fit {
    /// Checks the size that a file's header claims, before anything of that size is allocated.
    fn new(
        (width, height): (usize, usize),
        pixels_max: usize,
        orientation: Orientation,
    ) -> Result<Self, DecodeError> {
        let sides = 1..=SIDE_MAX;
        let fits = sides.contains(&width) && sides.contains(&height);
        if !fits || width * height > pixels_max {
            return Err(DecodeError::Size {
                width,
                height,
                pixels_max,
            });
        }
        let to = orientation.sides((INPUT_WIDTH, INPUT_HEIGHT));
        Ok(Self {
            stored: (width, height),
            resize: Resize::new((width, height), to),
            orientation,
        })
    }

    fn row(&mut self, rgb: &[u8]) {
        self.resize.push(rgb);
    }

    fn finish(self) -> Picture {
        let (width, height) = self.orientation.sides(self.stored);
        let stored_width = self.orientation.sides((INPUT_WIDTH, INPUT_HEIGHT)).0;
        let pixels = self.resize.finish();
        let mut normalised = Vec::with_capacity(3 * pixels.len());
        for channel in 0..3 {
            for y in 0..INPUT_HEIGHT {
                for x in 0..INPUT_WIDTH {
                    let (x, y) = self.orientation.stored((x, y), (INPUT_WIDTH, INPUT_HEIGHT));
                    let pixel: &Pixel = &pixels[y * stored_width + x];
                    normalised.push((pixel[channel] - 127.0) / 128.0);
                }
            }
        }
        Picture {
            width,
            height,
            normalised,
        }
    }
}
