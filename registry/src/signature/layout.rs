//! Finds the parts of a WebAssembly file and hashes them, in one pass and in place.

use std::ops::Range;

use ring::digest::{Context, SHA256};
use tidegate_inference::Digest;

use super::data::Reader;
use super::{DELIMITER_SECTION, SIGNATURE_BYTES_MAX, SIGNATURE_SECTION};

/// Bytes of a file before its first section.
pub(super) const HEADER_BYTES: usize = 8;

const CORE_HEADER: [u8; HEADER_BYTES] = *b"\0asm\x01\0\0\0";
const COMPONENT_HEADER: [u8; HEADER_BYTES] = *b"\0asm\x0d\0\x01\0";

/// Most parts of a file; `wasmsign2` reads no more either.
pub const PARTS_MAX: usize = 64;

/// Most sections of a file at its outermost level. Large components have some hundreds.
pub const SECTIONS_MAX: usize = 1 << 16;

/// Longest name of a section that is read; longer ones are cut in listings.
const NAME_CHARS_MAX: usize = 128;

/// Most names that are kept of a part.
const NAMES_MAX: usize = 32;

/// Why bytes are not a WebAssembly file with parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Neither a core module nor a component.
    #[error("not a WebAssembly module or component")]
    NotWasm,
    /// A section does not end where the file does, or its length is no number.
    #[error("the file is cut off or has trailing bytes: no whole section at offset {offset}")]
    Section {
        /// Where the section begins.
        offset: usize,
    },
    /// More than [`SECTIONS_MAX`].
    #[error("the file has more than {SECTIONS_MAX} sections")]
    TooManySections,
    /// More than [`PARTS_MAX`].
    #[error("the file has more than {PARTS_MAX} parts")]
    TooManyParts,
    /// A signature section behind the first section.
    #[error("section {index} is a signature: only the first section can be one")]
    SignaturePlace {
        /// Its place, counted from 0.
        index: usize,
    },
    /// More than [`SIGNATURE_BYTES_MAX`].
    #[error("the signature section has more than {SIGNATURE_BYTES_MAX} bytes")]
    SignatureTooLarge,
}

/// Sections that are signed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it lies in the file, its delimiter included.
    pub range: Range<usize>,
    /// SHA-256 of everything signed up to its end: what signatures speak of.
    pub hash: Digest,
    /// The names of its custom sections, each once, some thirty at most, cut where they are long.
    pub sections: Vec<String>,
    /// Whether a delimiter ends it. Only the last part can lack one.
    pub is_delimited: bool,
}

/// Where the signature and the parts of a file lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The whole signature section, if there is one.
    pub(super) signature_section: Option<Range<usize>>,
    /// The contents of the signature section.
    pub(super) signature: Option<Range<usize>>,
    /// The sections that are signed.
    pub(super) sections: Vec<Section>,
    parts: Vec<Part>,
}

/// A section, as far as signing needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) id: u8,
    pub(super) whole: Range<usize>,
    /// What its length counts.
    pub(super) contents: Range<usize>,
    /// The name of a custom section.
    pub(super) name: Option<Range<usize>>,
}

impl Layout {
    /// Reads and hashes a file.
    pub fn of(wasm: &[u8]) -> Result<Self, LayoutError> {
        let header = wasm.first_chunk::<HEADER_BYTES>();
        if !header.is_some_and(|header| [CORE_HEADER, COMPONENT_HEADER].contains(header)) {
            return Err(LayoutError::NotWasm);
        }
        let mut layout = Self {
            signature_section: None,
            signature: None,
            sections: Vec::new(),
            parts: Vec::new(),
        };
        let mut builder = Builder::new(HEADER_BYTES);
        let mut offset = HEADER_BYTES;
        let mut index = 0;
        while offset < wasm.len() {
            if index == SECTIONS_MAX {
                return Err(LayoutError::TooManySections);
            }
            let section = read_section(wasm, offset).ok_or(LayoutError::Section { offset })?;
            offset = section.whole.end;
            let name = section.name.clone().map(|name| &wasm[name]);
            if name == Some(SIGNATURE_SECTION.as_bytes()) {
                if index != 0 {
                    return Err(LayoutError::SignaturePlace { index });
                }
                layout.set_signature(&section)?;
                builder = Builder::new(offset);
            } else {
                layout.take(wasm, &section, name, &mut builder)?;
                layout.sections.push(section);
            }
            index += 1;
        }
        if builder.start < offset || layout.parts.is_empty() {
            layout.push(builder.part(offset, false))?;
        }
        Ok(layout)
    }

    /// The parts in the file's order, at least one.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Where the embedded signature's contents lie, if there is one.
    #[must_use]
    pub fn signature(&self) -> Option<Range<usize>> {
        self.signature.clone()
    }

    fn set_signature(&mut self, section: &Section) -> Result<(), LayoutError> {
        let name_end = section.name.as_ref().map_or(0, |name| name.end);
        let contents = name_end..section.whole.end;
        if contents.len() > SIGNATURE_BYTES_MAX {
            return Err(LayoutError::SignatureTooLarge);
        }
        self.signature = Some(contents);
        self.signature_section = Some(section.whole.clone());
        Ok(())
    }

    fn take(
        &mut self,
        wasm: &[u8],
        section: &Section,
        name: Option<&[u8]>,
        builder: &mut Builder,
    ) -> Result<(), LayoutError> {
        builder.hash.update(&wasm[section.whole.clone()]);
        if name == Some(DELIMITER_SECTION.as_bytes()) {
            let end = section.whole.end;
            self.push(builder.part(end, true))?;
            builder.next(end);
        } else if let Some(name) = name {
            builder.list(name);
        }
        Ok(())
    }

    fn push(&mut self, part: Part) -> Result<(), LayoutError> {
        if self.parts.len() == PARTS_MAX {
            return Err(LayoutError::TooManyParts);
        }
        self.parts.push(part);
        Ok(())
    }
}

/// The part that is being read, and the hash of everything so far.
struct Builder {
    start: usize,
    hash: Context,
    sections: Vec<String>,
}

impl Builder {
    fn new(start: usize) -> Self {
        Self {
            start,
            hash: Context::new(&SHA256),
            sections: Vec::new(),
        }
    }

    fn next(&mut self, start: usize) {
        self.start = start;
        self.sections.clear();
    }

    fn part(&self, end: usize, is_delimited: bool) -> Part {
        let hash = self.hash.clone().finish();
        let hash = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Part {
            range: self.start..end,
            hash: Digest(hash),
            sections: self.sections.clone(),
            is_delimited,
        }
    }

    fn list(&mut self, name: &[u8]) {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let name: String = String::from_utf8_lossy(&name[..name.len().min(4 * NAME_CHARS_MAX)])
            .chars()
            .take(NAME_CHARS_MAX)
            .map(printable)
            .collect();
        if self.sections.len() < NAMES_MAX && !self.sections.contains(&name) {
            self.sections.push(name);
        }
    }
}

fn read_section(wasm: &[u8], offset: usize) -> Option<Section> {
    let mut reader = Reader::new(&wasm[offset..]);
    let id = reader.byte().ok()?;
    let len = reader.len().ok()?;
    let start = offset + reader.position();
    let contents = reader.take(len).ok()?;
    let end = offset + reader.position();
    let name = if id == 0 {
        let mut inner = Reader::new(contents);
        let name_len = inner.len().ok()?;
        let name_start = start + inner.position();
        inner.take(name_len).ok()?;
        Some(name_start..name_start + name_len)
    } else {
        None
    };
    Some(Section {
        id,
        whole: offset..end,
        contents: start..end,
        name,
    })
}
