//! The one field of EXIF data that matters here: the orientation.
//!
//! EXIF data is a TIFF file: a byte order, the offset of a directory, and in it entries of twelve
//! bytes. Anything that does not parse means "displayed as stored", as viewers do.

use super::Orientation;

const ORIENTATION_TAG: u16 = 0x0112;

/// Most directory entries that are looked at; cameras write about a dozen.
const ENTRIES_MAX: usize = 256;

/// The orientation in EXIF data, with or without the `Exif` marker in front.
pub(super) fn orientation(exif: &[u8]) -> Orientation {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    orientation_number(tiff).map_or(Orientation::UPRIGHT, Orientation::from_exif)
}

fn orientation_number(tiff: &[u8]) -> Option<u16> {
    let order = match tiff.get(..4)? {
        b"II*\0" => u16::from_le_bytes,
        b"MM\0*" => u16::from_be_bytes,
        _ => return None,
    };
    let short = |at: usize| tiff.get(at..at.checked_add(2)?)?.try_into().ok().map(order);
    let is_little_endian = tiff[0] == b'I';
    let (low, high) = if is_little_endian { (4, 6) } else { (6, 4) };
    let directory = usize::from(short(high)?) << 16 | usize::from(short(low)?);
    let entries = usize::from(short(directory)?).min(ENTRIES_MAX);
    let entry = (0..entries)
        .map(|index| directory + 2 + 12 * index)
        .find(|entry| short(*entry) == Some(ORIENTATION_TAG))?;
    short(entry + 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_byte_orders_are_read() {
        let little = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        for exif in [little.as_slice(), big.as_slice()] {
            assert_eq!(orientation(exif), Orientation::from_exif(6));
            for len in 0..exif.len() - 8 {
                assert_eq!(orientation(&exif[..len]), Orientation::UPRIGHT, "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), big: bool) {
            orientation(&bytes);
            bytes.splice(..4.min(bytes.len()), *if big { b"MM\0*" } else { b"II*\0" });
            orientation(&bytes);
        }
    }
}
