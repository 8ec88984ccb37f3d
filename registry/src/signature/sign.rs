//! Adds a signature to a file, or to a signature beside it.

use std::ops::Range;

use super::data::{ALGORITHM_ED25519, Signature, SignatureData, SignedHashes, put_len, put_slice};
use super::layout::{HEADER_BYTES, Section};
use super::{Layout, SIGNATURE_SECTION, SecretKey, SignError};

/// A file with a signature in it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The whole file.
    pub file: Vec<u8>,
    /// Whether the signature is new; a key that signs the same content twice changes nothing.
    pub is_new: bool,
}

/// Signs every part of a file. Signatures that are there stay.
///
/// `wasmsign2` rewrites what it signs and, for parts, what it verifies, with every length in its shortest
/// form; so a file that nobody has signed is given that form.
pub fn sign(wasm: &[u8], key: &SecretKey) -> Result<Signed, SignError> {
    let mut layout = Layout::of(wasm)?;
    let rewritten;
    let mut wasm = wasm;
    if layout.signature.is_none()
        && let Some(shortest) = shorten(wasm, &layout.sections)
    {
        rewritten = shortest;
        wasm = &rewritten;
        layout = Layout::of(wasm)?;
    }
    let before = layout.signature().map(|range| &wasm[range]);
    let (data, is_new) = add(before, &layout, key)?;
    let mut contents = Vec::new();
    put_slice(&mut contents, SIGNATURE_SECTION.as_bytes());
    contents.extend(data);
    let signed_from = match &layout.signature_section {
        Some(section) => section.end,
        None => HEADER_BYTES,
    };
    let mut file = Vec::with_capacity(wasm.len() + contents.len() + 8);
    file.extend(&wasm[..HEADER_BYTES]);
    file.push(0);
    put_slice(&mut file, &contents);
    file.extend(&wasm[signed_from..]);
    Ok(Signed { file, is_new })
}

/// Signs every part of a file, adding to the detached signatures `before`, and gives them all.
pub fn sign_detached(
    wasm: &[u8],
    before: Option<&[u8]>,
    key: &SecretKey,
) -> Result<Vec<u8>, SignError> {
    let layout = Layout::of(wasm)?;
    add(before, &layout, key).map(|(data, _)| data)
}

fn add(
    before: Option<&[u8]>,
    layout: &Layout,
    key: &SecretKey,
) -> Result<(Vec<u8>, bool), SignError> {
    let mut data = match before {
        Some(bytes) => SignatureData::decode(bytes).map_err(SignError::Existing)?,
        None => SignatureData::default(),
    };
    let hashes: Vec<_> = layout.parts().iter().map(|part| part.hash).collect();
    let at = match data.lists.iter().position(|list| list.hashes == hashes) {
        Some(at) => at,
        None => {
            let signatures = Vec::new();
            data.lists.push(SignedHashes { hashes, signatures });
            data.lists.len() - 1
        }
    };
    let list = &mut data.lists[at];
    let public = key.public();
    let is_new = !list.is_signed_by(&public);
    if is_new {
        let bytes = key.sign(&list.message());
        list.signatures.push(Signature {
            key_id: public.id().0.to_vec(),
            algorithm: ALGORITHM_ED25519,
            bytes,
        });
    }
    let bytes = data.encode();
    SignatureData::decode(&bytes).map_err(SignError::Full)?;
    Ok((bytes, is_new))
}

/// The file with every length at its outermost level in its shortest form, if one is not.
fn shorten(wasm: &[u8], sections: &[Section]) -> Option<Vec<u8>> {
    if sections.iter().all(Section::is_shortest) {
        return None;
    }
    let mut file = Vec::with_capacity(wasm.len());
    file.extend(&wasm[..HEADER_BYTES]);
    for section in sections {
        let name = section.name.clone().map(|name| &wasm[name]);
        let body = &wasm[section.body()];
        file.push(section.id);
        let name_len = name.map_or(0, |name| len_bytes(name.len()) + name.len());
        put_len(&mut file, name_len + body.len());
        if let Some(name) = name {
            put_slice(&mut file, name);
        }
        file.extend(body);
    }
    Some(file)
}

impl Section {
    /// What follows its name.
    fn body(&self) -> Range<usize> {
        let start = match &self.name {
            Some(name) => name.end,
            None => self.contents.start,
        };
        start..self.contents.end
    }

    fn is_shortest(&self) -> bool {
        let name_is =
            |name: &Range<usize>| name.start - self.contents.start == len_bytes(name.len());
        self.contents.start - self.whole.start == 1 + len_bytes(self.contents.len())
            && self.name.as_ref().is_none_or(name_is)
    }
}

/// Bytes that a number takes in its shortest form.
fn len_bytes(len: usize) -> usize {
    let bits = usize::BITS - len.leading_zeros();
    usize::try_from(bits.div_ceil(7).max(1)).expect("at most ten")
}
