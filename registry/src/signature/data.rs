//! What a signature section holds: lists of hashes, and who signed each list.
//!
//! The convention's text and `wasmsign2` differ: the tool puts a length before each list and each
//! signature, the text does not. The tool's form is written, both are read.

use tidegate_inference::Digest;

use super::PARTS_MAX;

/// Most bytes of all signatures of a file: [`SIGNATURES_MAX`] Ed25519 signatures over lists of
/// [`PARTS_MAX`] hashes each take some 140 KiB.
pub const SIGNATURE_BYTES_MAX: usize = 256 << 10;

/// Most signatures of a file, and most lists of hashes. Each may have to be tried against each key.
pub const SIGNATURES_MAX: usize = 64;

/// Version of the convention.
const VERSION: u8 = 1;

/// The content is a WebAssembly file.
const CONTENT_WASM: u8 = 1;

/// The hashes are SHA-256.
const HASH_SHA256: u8 = 1;

/// The signature is Ed25519.
pub(super) const ALGORITHM_ED25519: u8 = 1;

/// Why bytes are not signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end within a field.
    #[error("the signature is cut off")]
    CutOff,
    /// A number has more than 32 bits.
    #[error("a number in the signature has more than 32 bits")]
    Number,
    /// They go on behind the last field.
    #[error("the signature has trailing bytes")]
    Trailing,
    /// Another version of the convention, kind of content, or hash.
    #[error("the signature has {what} {got}, only 1 is known")]
    Unknown {
        /// Of which field.
        what: &'static str,
        /// Its value.
        got: u8,
    },
    /// More of something than a limit allows.
    #[error("the signature has more than {limit} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// All signatures of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SignatureData {
    pub(super) lists: Vec<SignedHashes>,
}

/// A list of hashes, each of the file's beginning up to some delimiter, and its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedHashes {
    pub(super) hashes: Vec<Digest>,
    pub(super) signatures: Vec<Signature>,
}

/// One signature of a list of hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// A hint at the key; may be empty.
    pub(super) key_id: Vec<u8>,
    pub(super) algorithm: u8,
    pub(super) bytes: Vec<u8>,
}

/// Whether each list and each signature stands behind its length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Lengths,
    Plain,
}

impl SignedHashes {
    /// What is signed.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = b"wasmsig".to_vec();
        message.extend([VERSION, CONTENT_WASM, HASH_SHA256]);
        for Digest(hash) in &self.hashes {
            message.extend(hash);
        }
        message
    }
}

impl SignatureData {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > SIGNATURE_BYTES_MAX {
            let (what, limit) = ("bytes", SIGNATURE_BYTES_MAX);
            return Err(DecodeError::TooMany { what, limit });
        }
        Self::decode_as(bytes, Framing::Lengths)
            .or_else(|error| Self::decode_as(bytes, Framing::Plain).map_err(|_| error))
    }

    fn decode_as(bytes: &[u8], framing: Framing) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        for (what, known) in [
            ("version", VERSION),
            ("content type", CONTENT_WASM),
            ("hash function", HASH_SHA256),
        ] {
            let got = reader.byte()?;
            if got != known {
                return Err(DecodeError::Unknown { what, got });
            }
        }
        let count = reader.count("lists of hashes", SIGNATURES_MAX)?;
        let mut data = Self::default();
        let mut signatures = 0;
        for _ in 0..count {
            let list = reader.framed(framing, |list| {
                let hashes = list.count("hashes in a list", PARTS_MAX)?;
                let hashes = (0..hashes)
                    .map(|_| list.digest())
                    .collect::<Result<_, _>>()?;
                let (what, limit) = ("signatures", SIGNATURES_MAX);
                let count = list.count(what, limit)?;
                signatures += count;
                if signatures > limit {
                    return Err(DecodeError::TooMany { what, limit });
                }
                let signature = |_| list.framed(framing, read_signature);
                let signatures = (0..count).map(signature).collect::<Result<_, _>>()?;
                Ok(SignedHashes { hashes, signatures })
            })?;
            data.lists.push(list);
        }
        if reader.is_at_end() {
            Ok(data)
        } else {
            Err(DecodeError::Trailing)
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, CONTENT_WASM, HASH_SHA256];
        put_len(&mut bytes, self.lists.len());
        for list in &self.lists {
            let mut inner = Vec::new();
            put_len(&mut inner, list.hashes.len());
            for Digest(hash) in &list.hashes {
                inner.extend(hash);
            }
            put_len(&mut inner, list.signatures.len());
            for signature in &list.signatures {
                let mut innermost = Vec::new();
                put_slice(&mut innermost, &signature.key_id);
                innermost.push(signature.algorithm);
                put_slice(&mut innermost, &signature.bytes);
                put_slice(&mut inner, &innermost);
            }
            put_slice(&mut bytes, &inner);
        }
        bytes
    }
}

fn read_signature(reader: &mut Reader<'_>) -> Result<Signature, DecodeError> {
    Ok(Signature {
        key_id: reader.slice()?.to_vec(),
        algorithm: reader.byte()?,
        bytes: reader.slice()?.to_vec(),
    })
}

/// Appends a number as WebAssembly writes it, in its shortest form.
pub(super) fn put_len(to: &mut Vec<u8>, len: usize) {
    let mut rest = u32::try_from(len).expect("a module's sections are below 4 GiB");
    loop {
        let low = rest.to_le_bytes()[0] & 0x7f;
        rest >>= 7;
        if rest == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

pub(super) fn put_slice(to: &mut Vec<u8>, bytes: &[u8]) {
    put_len(to, bytes.len());
    to.extend(bytes);
}

/// Reads fields from the front of some bytes.
pub(super) struct Reader<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            all: bytes,
            rest: bytes,
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::CutOff)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned number of 32 bits, in at most five bytes.
    pub(super) fn len(&mut self) -> Result<usize, DecodeError> {
        let mut number = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let number = u32::try_from(number).map_err(|_| DecodeError::Number)?;
                return usize::try_from(number).map_err(|_| DecodeError::Number);
            }
        }
        Err(DecodeError::Number)
    }

    fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let count = self.len()?;
        if count > limit {
            return Err(DecodeError::TooMany { what, limit });
        }
        Ok(count)
    }

    fn slice(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.len()?;
        self.take(len)
    }

    fn digest(&mut self) -> Result<Digest, DecodeError> {
        let bytes = self.take(32)?;
        Ok(Digest(bytes.try_into().expect("as many as were taken")))
    }

    fn framed<T>(
        &mut self,
        framing: Framing,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        match framing {
            Framing::Plain => read(self),
            Framing::Lengths => {
                let mut inner = Reader::new(self.slice()?);
                let value = read(&mut inner)?;
                if inner.is_at_end() {
                    Ok(value)
                } else {
                    Err(DecodeError::Trailing)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data() -> SignatureData {
        let signature = |id: &[u8]| Signature {
            key_id: id.to_vec(),
            algorithm: ALGORITHM_ED25519,
            bytes: vec![7; 64],
        };
        SignatureData {
            lists: vec![
                SignedHashes {
                    hashes: vec![Digest([1; 32]), Digest([2; 32])],
                    signatures: vec![signature(b"first"), signature(b"")],
                },
                SignedHashes {
                    hashes: vec![Digest([3; 32])],
                    signatures: vec![],
                },
            ],
        }
    }

    /// As the convention's tables have it, without lengths.
    fn plain(data: &SignatureData) -> Vec<u8> {
        let mut bytes = vec![1, 1, 1];
        put_len(&mut bytes, data.lists.len());
        for list in &data.lists {
            put_len(&mut bytes, list.hashes.len());
            list.hashes
                .iter()
                .for_each(|Digest(hash)| bytes.extend(hash));
            put_len(&mut bytes, list.signatures.len());
            for signature in &list.signatures {
                put_slice(&mut bytes, &signature.key_id);
                bytes.push(signature.algorithm);
                put_slice(&mut bytes, &signature.bytes);
            }
        }
        bytes
    }

    #[test]
    fn both_forms_read_back() {
        assert_eq!(SignatureData::decode(&data().encode()), Ok(data()));
        assert_eq!(SignatureData::decode(&plain(&data())), Ok(data()));
    }

    #[test]
    fn a_cut_or_longer_signature_is_refused() {
        let whole = data().encode();
        for len in 0..whole.len() {
            assert!(SignatureData::decode(&whole[..len]).is_err(), "{len}");
        }
        let longer = [&whole[..], b"\0"].concat();
        assert_eq!(SignatureData::decode(&longer), Err(DecodeError::Trailing));
    }

    #[test]
    fn huge_counts_are_refused_before_anything_is_allocated() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let check = |parts: &[&[u8]], what: &str| {
            let error = SignatureData::decode(&parts.concat()).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        };
        check(&[&[1, 1, 1], &huge], "64 lists");
        check(&[&[1, 1, 1, 1, 6], &huge, &[0]], "64 hashes");
        check(&[&[1, 1, 1, 1, 7, 0], &huge, &[0]], "64 signatures");
        check(&[&[1, 1, 1, 1], &huge], "cut off");
        check(&[&[1, 1, 1], &[0xff; 5]], "32 bits");
        check(&[&[1, 1, 1], &[0x80; 6]], "32 bits");
        check(&[&[2, 1, 1, 0]], "version 2");
        check(&[&[1, 2, 1, 0]], "content type 2");
        check(&[&[1, 1, 3, 0]], "hash function 3");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = SignatureData::decode(&bytes);
            if let Ok(data) = SignatureData::decode(&[&[1, 1, 1], &bytes[..]].concat()) {
                prop_assert_eq!(SignatureData::decode(&data.encode()), Ok(data));
            }
        }

        #[test]
        fn numbers_read_back(number: u32) {
            let len = usize::try_from(number).unwrap();
            let mut bytes = Vec::new();
            put_len(&mut bytes, len);
            prop_assert!(bytes.len() <= 5);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.len(), Ok(len));
            prop_assert!(reader.is_at_end());
        }
    }
}
