//! NumPy's file format, as far as models take what it can hold.
//!
//! Booleans, integers, floats and strings (`U` and `S`) in either byte order and either order of axes. Arrays
//! of Python objects are pickles, which only Python can read, and are refused.

use bytes::Bytes;
use tidegate_inference::{Dtype, RANK_MAX, Shape, Tensor, TensorError};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header that NumPy itself reads without being told to trust the file is 10,000 bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Why bytes are not an array that a model can take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NpyError {
    /// Not NumPy's format.
    #[error("not a NumPy file")]
    NotNpy,
    /// A version that is not known.
    #[error("version {0} of NumPy's format is not known")]
    Version(u8),
    /// The header is cut off, or says something else than NumPy writes.
    #[error("its header has no valid {0}")]
    Header(&'static str),
    /// Elements that are Python objects.
    #[error("it holds Python objects: save text as `array.astype(\"U\")`")]
    Objects,
    /// Elements that no model takes.
    #[error("its elements have type {0:?}, which no model takes")]
    Type(String),
    /// Not as many bytes as type and shape take.
    #[error("type and shape take {wanted} bytes, it has {got}")]
    Length {
        /// Bytes that type and shape take.
        wanted: usize,
        /// Bytes behind the header.
        got: usize,
    },
    /// A string with a number that is no character.
    #[error("string {index} is not Unicode")]
    Unicode {
        /// Its place in row-major order.
        index: usize,
    },
    /// The array is no tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// What an element is, and how many bytes it takes in the file.
enum Elements {
    Plain(Dtype, usize),
    /// Characters of four bytes.
    Unicode(usize),
    /// Strings of bytes.
    Strings(usize),
}

impl Elements {
    fn parse(kind: &str) -> Option<Self> {
        let mut chars = kind.chars();
        let letter = chars.next()?;
        let size: usize = chars.as_str().parse().ok()?;
        let dtype = match (letter, size) {
            ('b', 1) => Dtype::Bool,
            ('u', 1) => Dtype::Uint8,
            ('u', 2) => Dtype::Uint16,
            ('u', 4) => Dtype::Uint32,
            ('u', 8) => Dtype::Uint64,
            ('i', 1) => Dtype::Int8,
            ('i', 2) => Dtype::Int16,
            ('i', 4) => Dtype::Int32,
            ('i', 8) => Dtype::Int64,
            ('f', 2) => Dtype::Fp16,
            ('f', 4) => Dtype::Fp32,
            ('f', 8) => Dtype::Fp64,
            ('U' | 'S', 0) => return None,
            ('U', _) => return Some(Self::Unicode(size.checked_mul(4)?)),
            ('S', _) => return Some(Self::Strings(size)),
            _ => return None,
        };
        Some(Self::Plain(dtype, size))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Plain(_, bytes) | Self::Unicode(bytes) | Self::Strings(bytes) => *bytes,
        }
    }

    /// Bytes of what a byte order applies to.
    fn word(&self) -> usize {
        match self {
            Self::Plain(_, bytes) => *bytes,
            Self::Unicode(_) => 4,
            Self::Strings(_) => 1,
        }
    }
}

/// The array in a file, without a copy if it is laid out as tensors are.
pub(crate) fn read(file: Bytes) -> Result<Tensor, NpyError> {
    let rest = file.strip_prefix(MAGIC).ok_or(NpyError::NotNpy)?;
    let cut = || NpyError::Header("length");
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (header_len, rest) = match version[0] {
        1 => {
            let (len, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| cut())?;
            (len, rest)
        }
        version => return Err(NpyError::Version(version)),
    };
    let (header, data) = rest.split_at_checked(header_len).ok_or_else(cut)?;
    if header_len > HEADER_BYTES_MAX {
        return Err(cut());
    }
    let header = std::str::from_utf8(header).map_err(|_| NpyError::Header("text"))?;
    let (big_endian, elements) = elements(header)?;
    let shape = shape(header)?;
    let wanted = shape
        .iter()
        .try_fold(elements.bytes(), |bytes, extent| bytes.checked_mul(*extent))
        .ok_or(TensorError::Overflow)?;
    if data.len() != wanted {
        let got = data.len();
        return Err(NpyError::Length { wanted, got });
    }
    let mut data = file.slice(file.len() - data.len()..);
    if is_fortran(header)? && shape.len() > 1 {
        data = row_major(&data, &shape, elements.bytes()).into();
    }
    if big_endian && elements.word() > 1 {
        let mut swapped = data.to_vec();
        for word in swapped.chunks_exact_mut(elements.word()) {
            word.reverse();
        }
        data = swapped.into();
    }
    let tensor = match elements {
        Elements::Plain(dtype, _) => Tensor::new(dtype, shape, data)?,
        Elements::Unicode(bytes) => strings(shape, &unicode(&data, bytes)?)?,
        Elements::Strings(bytes) => {
            let count = shape.iter().product();
            let elements: Vec<_> = split(&data, bytes, count).map(trimmed).collect();
            strings(shape, &elements)?
        }
    };
    Ok(tensor)
}

/// What follows `'key':` in a header.
fn field<'a>(header: &'a str, key: &'static str) -> Result<&'a str, NpyError> {
    let quoted = |quote: char| header.split_once(&format!("{quote}{key}{quote}"));
    let (_, rest) = quoted('\'')
        .or_else(|| quoted('"'))
        .ok_or(NpyError::Header(key))?;
    let rest = rest.trim_start().strip_prefix(':');
    Ok(rest.ok_or(NpyError::Header(key))?.trim_start())
}

fn elements(header: &str) -> Result<(bool, Elements), NpyError> {
    let text = field(header, "descr")?;
    if text.starts_with('[') || text.starts_with('(') {
        return Err(NpyError::Type("record".to_owned()));
    }
    let quote = text.chars().next().filter(|quote| "'\"".contains(*quote));
    let quote = quote.ok_or(NpyError::Header("descr"))?;
    let (descr, _) = text[1..]
        .split_once(quote)
        .ok_or(NpyError::Header("descr"))?;
    let kind = descr.trim_start_matches(['<', '>', '|', '=']);
    if kind.starts_with('O') {
        return Err(NpyError::Objects);
    }
    let shown = || NpyError::Type(descr.chars().take(32).collect());
    let elements = Elements::parse(kind).ok_or_else(shown)?;
    Ok((descr.starts_with('>'), elements))
}

fn is_fortran(header: &str) -> Result<bool, NpyError> {
    let text = field(header, "fortran_order")?;
    if text.starts_with("True") {
        Ok(true)
    } else if text.starts_with("False") {
        Ok(false)
    } else {
        Err(NpyError::Header("fortran_order"))
    }
}

fn shape(header: &str) -> Result<Shape, NpyError> {
    let bad = || NpyError::Header("shape");
    let text = field(header, "shape")?.strip_prefix('(').ok_or_else(bad)?;
    let (text, _) = text.split_once(')').ok_or_else(bad)?;
    let mut shape = Shape::new();
    for extent in text.split(',').map(str::trim) {
        if extent.is_empty() {
            continue;
        }
        let extent = extent.trim_end_matches('L').parse().map_err(|_| bad())?;
        if shape.len() == RANK_MAX {
            let rank = shape.len() + 1;
            return Err(TensorError::Rank { rank }.into());
        }
        shape.push(extent);
    }
    Ok(shape)
}

/// Elements of `size` bytes, the first axis fastest, put so that the last is.
fn row_major(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut ordered = Vec::with_capacity(data.len());
    let mut at = vec![0_usize; shape.len()];
    for _ in 0..shape.iter().product() {
        let place = at
            .iter()
            .zip(shape)
            .rev()
            .fold(0, |place, (index, extent)| place * extent + index);
        ordered.extend(&data[place * size..][..size]);
        for (index, extent) in at.iter_mut().zip(shape).rev() {
            *index += 1;
            if *index < *extent {
                break;
            }
            *index = 0;
        }
    }
    ordered
}

/// `count` pieces of `bytes` bytes, which may be none.
fn split(data: &[u8], bytes: usize, count: usize) -> impl Iterator<Item = &[u8]> {
    (0..count).map(move |index| &data[index * bytes..][..bytes])
}

fn unicode(data: &[u8], bytes: usize) -> Result<Vec<String>, NpyError> {
    let count = data.len() / bytes;
    let string = |(index, piece): (usize, &[u8])| {
        let numbers = piece.as_chunks::<4>().0.iter();
        let text: Option<String> = numbers
            .map(|number| char::from_u32(u32::from_le_bytes(*number)))
            .collect();
        let text = text.ok_or(NpyError::Unicode { index })?;
        Ok(text.trim_end_matches('\0').to_owned())
    };
    split(data, bytes, count).enumerate().map(string).collect()
}

/// A string without the zeros that fill its place.
fn trimmed(string: &[u8]) -> &[u8] {
    let last = string.iter().rposition(|byte| *byte != 0);
    &string[..last.map_or(0, |last| last + 1)]
}

fn strings<E: AsRef<[u8]>>(shape: Shape, elements: &[E]) -> Result<Tensor, TensorError> {
    let flat = Tensor::from_byte_elements(elements);
    Tensor::new(Dtype::Bytes, shape, flat.data().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of version 1, as NumPy writes it.
    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Bytes {
        let header =
            format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let len = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &len, header.as_bytes(), data]
            .concat()
            .into()
    }

    #[track_caller]
    fn check(file: Bytes, dtype: Dtype, shape: &[usize], data: &[u8]) {
        let tensor = read(file).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape));
        assert_eq!(&tensor.data()[..], data);
    }

    #[test]
    fn every_type_of_numpy_that_a_model_takes_is_read() {
        for (descr, dtype) in [
            ("'|b1'", Dtype::Bool),
            ("'|u1'", Dtype::Uint8),
            ("'<u2'", Dtype::Uint16),
            ("'<u4'", Dtype::Uint32),
            ("'<u8'", Dtype::Uint64),
            ("'|i1'", Dtype::Int8),
            ("'<i2'", Dtype::Int16),
            ("'<i4'", Dtype::Int32),
            ("'<i8'", Dtype::Int64),
            ("'<f2'", Dtype::Fp16),
            ("'<f4'", Dtype::Fp32),
            ("\"<f8\"", Dtype::Fp64),
        ] {
            let data = vec![1; 2 * dtype.size().unwrap()];
            check(npy(descr, "False", "(2,)", &data), dtype, &[2], &data);
        }
        check(
            npy("'<i8'", "False", "()", &[7; 8]),
            Dtype::Int64,
            &[],
            &[7; 8],
        );
        check(
            npy("'<f4'", "False", "(3, 0)", &[]),
            Dtype::Fp32,
            &[3, 0],
            &[],
        );
    }

    #[test]
    fn strings_lose_what_fills_their_places() {
        let characters = |text: &str| {
            text.chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect::<Vec<_>>()
        };
        let wanted = Tensor::from_byte_elements(&["né", "", "abc"]);
        let file = npy("'<U3'", "False", "(3,)", &characters("né\0\0\0\0abc"));
        check(file, Dtype::Bytes, &[3], wanted.data());
        let wanted = Tensor::from_byte_elements(&["a", "bc"]);
        check(
            npy("'|S2'", "False", "(1, 2)", b"a\0bc"),
            Dtype::Bytes,
            &[1, 2],
            wanted.data(),
        );
        let bad = npy("'<U1'", "False", "(2,)", &[0, 0, 0, 0, 0, 0xd8, 0, 0]);
        assert_eq!(read(bad), Err(NpyError::Unicode { index: 1 }));
    }

    #[test]
    fn other_orders_become_ours() {
        check(
            npy("'>i2'", "False", "(2,)", &[1, 2, 3, 4]),
            Dtype::Int16,
            &[2],
            &[2, 1, 4, 3],
        );
        check(
            npy("'>U1'", "False", "(1,)", &[0, 0, 0, b'a']),
            Dtype::Bytes,
            &[1],
            b"\x01\0\0\0a",
        );
        let columns = [0, 3, 1, 4, 2, 5];
        check(
            npy("'|u1'", "True", "(2, 3)", &columns),
            Dtype::Uint8,
            &[2, 3],
            &[0, 1, 2, 3, 4, 5],
        );
        let deep: Vec<u8> = vec![0, 4, 2, 6, 1, 5, 3, 7];
        check(
            npy("'|u1'", "True", "(2, 2, 2)", &deep),
            Dtype::Uint8,
            &[2, 2, 2],
            &[0, 1, 2, 3, 4, 5, 6, 7],
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let check = |file: Bytes, words: &str| {
            let error = read(file).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(Bytes::from_static(b"PK"), "not a NumPy file");
        check(Bytes::from_static(b"\x93NUMPY\x09\0"), "version 9");
        check(Bytes::from_static(b"\x93NUMPY\x01\0\xff\xff{"), "length");
        check(
            Bytes::from_static(b"\x93NUMPY\x02\0\xff\xff\xff\xff{"),
            "length",
        );
        check(npy("'|O'", "False", "(1,)", b""), "Python objects");
        check(npy("'<c8'", "False", "(1,)", &[0; 8]), "\"<c8\"");
        check(npy("'<M8[ns]'", "False", "(1,)", &[0; 8]), "M8[ns]");
        check(npy("[('a', '<f4')]", "False", "(1,)", &[0; 4]), "record");
        check(npy("'<U0'", "False", "(9999999999999999,)", b""), "<U0");
        check(
            npy("'<f4'", "False", "(2,)", &[0; 4]),
            "take 8 bytes, it has 4",
        );
        check(
            npy("'<f4'", "False", "(9999999999999999999,)", b""),
            "addressed",
        );
        check(
            npy("'<f4'", "False", "(99999999999999999999,)", b""),
            "shape",
        );
        check(
            npy("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)", &[0; 4]),
            "rank 9",
        );
        check(npy("'<f4'", "False", "(-1,)", b""), "shape");
        check(npy("'<f4'", "maybe", "(1,)", &[0; 4]), "fortran_order");
        check(npy("'|b1'", "False", "(1,)", &[2]), "BOOL element 0 is 2");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            descr in "'[<>|]?[buifUSO][0-9]{0,3}'", order in "True|False", shape in "\\(([0-9]{0,3},){0,4}\\)",
            data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), at in 0..200_usize, byte: u8,
        ) {
            let mut file = npy(&descr, &order, &shape, &data).to_vec();
            let _ = read(file.clone().into());
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            let _ = read(file.into());
        }
    }
}
