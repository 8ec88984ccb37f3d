//! Compiled code: found by the code that it was compiled from, and by what compiled it.
//!
//! The code of a module is its file without the custom sections around it: manifest, graphs, samples and
//! signature. That alone is compiled, so a new version with new weights finds the code of the old one.
//! Beside it lie the engine of graphs that runs as a guest, and what it has prepared: core modules.
//!
//! An entry belongs to the exact engine: its version, its settings and the features of the processor
//! that it compiles for are part of the entry's name.

use std::hash::{Hash as _, Hasher};

use ring::digest::{Context, SHA256};
use tidegate_inference::Digest;
use wasmparser::BinaryReader;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::{Authentic, Cache, EntryName, Kind};
use crate::engine::compiling;
use crate::module::sha256;

/// Bytes before the first section: the magic number and the version.
const PREAMBLE_BYTES: usize = 8;

/// Number of a custom section.
const CUSTOM_SECTION: u8 = 0;

/// More code than a module may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeTooLarge {
    /// Bytes of code.
    pub(crate) got: usize,
}

/// The code of a component that has been read before: the file without its outermost custom sections.
/// At most `bytes_max` bytes are copied.
pub(crate) fn code_of(file: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodeTooLarge> {
    let parts = parts_of(file);
    let got = parts.iter().map(|part| part.len()).sum();
    if got > bytes_max {
        return Err(CodeTooLarge { got });
    }
    let mut code = Vec::with_capacity(got);
    for part in parts {
        code.extend_from_slice(part);
    }
    Ok(code)
}

/// The preamble and each section that is not custom. What cannot be read as a section is left to the
/// compiler to refuse.
fn parts_of(file: &[u8]) -> Vec<&[u8]> {
    let (preamble, mut rest) = file.split_at(PREAMBLE_BYTES.min(file.len()));
    let mut parts = vec![preamble];
    while !rest.is_empty() {
        let mut reader = BinaryReader::new(rest, 0);
        let header = reader
            .read_u8()
            .and_then(|id| Ok((id, reader.read_var_u32()?)));
        let Ok((id, len)) = header else {
            parts.push(rest);
            break;
        };
        let end = usize::try_from(len)
            .unwrap_or(usize::MAX)
            .saturating_add(reader.original_position());
        let (section, after) = rest.split_at(end.min(rest.len()));
        if id != CUSTOM_SECTION {
            parts.push(section);
        }
        rest = after;
    }
    parts
}

/// What compiles: version, settings and processor features of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineId(Digest);

impl EngineId {
    pub(crate) fn of(engine: &Engine) -> Self {
        let mut hasher = Sha256Hasher(Context::new(&SHA256));
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let digest = hasher.0.finish();
        let bytes = digest.as_ref().try_into();
        Self(Digest(bytes.expect("a SHA-256 digest has 32 bytes")))
    }
}

/// Takes all that an engine hashes of itself, where 64 bits would be too few to tell engines apart.
struct Sha256Hasher(Context);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nothing: the digest is taken from the context.
    fn finish(&self) -> u64 {
        0
    }
}

/// WebAssembly of one sort as an engine compiled it.
pub(crate) trait Compiled: Sized {
    /// Under what it is kept. No other sort has the same.
    const KIND: Kind;

    fn compile(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self>;

    /// What [`Compiled::deserialize`] takes.
    fn serialize(&self) -> wasmtime::Result<Vec<u8>>;

    /// What was serialized into an entry of this kind, by this engine.
    fn deserialize(engine: &Engine, entry: &Authentic) -> wasmtime::Result<Self>;
}

impl Cache {
    /// What `engine` makes of `wasm`: from the cache, else compiled, and then kept.
    pub(crate) fn compiled<C: Compiled>(
        &self,
        engine: &Engine,
        id: EngineId,
        wasm: &[u8],
    ) -> wasmtime::Result<C> {
        let name = EntryName::new(C::KIND, &[&id.0.0, &sha256(wasm).0]);
        if let Some(entry) = self.get(&name) {
            match C::deserialize(engine, &entry) {
                Ok(compiled) => return Ok(compiled),
                Err(error) => self.discard(&name, &format!("{error:#}")),
            }
        }
        let compiled = C::compile(engine, wasm)?;
        match compiled.serialize() {
            Ok(bytes) => self.put(&name, &bytes),
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(reason, "compiled code cannot be kept");
            }
        }
        Ok(compiled)
    }
}

impl Compiled for Component {
    const KIND: Kind = Kind::Code;

    fn compile(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self> {
        compiling(|| Self::from_binary(engine, wasm))
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        self.serialize()
    }

    #[expect(
        unsafe_code,
        reason = "compiled code is run as it is; only here and below is it let in"
    )]
    fn deserialize(engine: &Engine, entry: &Authentic) -> wasmtime::Result<Self> {
        // SAFETY: `Component::deserialize` wants bytes that `Component::serialize` gave, unmodified.
        // - An `Authentic` exists only after its tag was found right under the device's key, for the name by
        //   which it was looked up. `Cache::put` alone makes tags under that key, which lies in a file that
        //   only the owner of this process may read, in a folder that only that owner may write; who is that
        //   owner can change this program, too.
        // - Names of kind `Code` are given to `put` by `Cache::compiled` alone, with what `serialize` of this
        //   type gave, and are looked up by it alone. Names of other kinds begin otherwise, and the tag covers
        //   the name, so no other payload passes.
        // - The name holds the hash of the engine's version, settings and processor features, so the bytes are
        //   of an engine that compiles as this one does. `deserialize` checks that again.
        // - The bytes are in memory of this process, which nobody changes between the check and the use.
        unsafe { Self::deserialize(engine, entry.payload()) }
    }
}

impl Compiled for Module {
    const KIND: Kind = Kind::CoreCode;

    fn compile(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self> {
        compiling(|| Self::from_binary(engine, wasm))
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        self.serialize()
    }

    #[expect(
        unsafe_code,
        reason = "compiled code is run as it is; only here and above is it let in"
    )]
    fn deserialize(engine: &Engine, entry: &Authentic) -> wasmtime::Result<Self> {
        // SAFETY: As for components, with `Module::serialize` and names of kind `CoreCode`.
        unsafe { Self::deserialize(engine, entry.payload()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREAMBLE: [u8; 8] = *b"\0asm\x0d\0\x01\0";

    fn section(id: u8, data: &[u8]) -> Vec<u8> {
        let len = u8::try_from(data.len()).unwrap();
        [&[id, len], data].concat()
    }

    #[test]
    fn code_is_all_but_the_outermost_custom_sections() {
        let code = [
            PREAMBLE.to_vec(),
            section(1, b"a module"),
            section(7, b"types"),
        ]
        .concat();
        let whole = [
            PREAMBLE.to_vec(),
            section(0, b"\x09signature"),
            section(1, b"a module"),
            section(0, b"\x04nameand what it names"),
            section(7, b"types"),
            section(0, b"\x01g"),
        ]
        .concat();
        assert_eq!(code_of(&whole, 1 << 20).unwrap(), code);
        assert_eq!(code_of(&code, code.len()).unwrap(), code);
        let got = code.len();
        assert_eq!(code_of(&whole, got - 1), Err(CodeTooLarge { got }));
    }

    #[test]
    fn an_engine_of_other_settings_is_another_engine() {
        let id = |epoch_interruption: bool| {
            let mut config = wasmtime::Config::new();
            config.epoch_interruption(epoch_interruption);
            EngineId::of(&Engine::new(&config).unwrap())
        };
        assert_eq!(id(true), id(true));
        assert_ne!(id(true), id(false));
    }

    #[test]
    fn what_is_no_section_is_kept_for_the_compiler_to_refuse() {
        let good = [PREAMBLE.to_vec(), section(1, b"m")].concat();
        for tail in [
            &b"\x01"[..],
            b"\x01\x80",
            b"\x01\xff\xff\xff\xff\x0f",
            b"\x05\x7fshort",
        ] {
            let file = [&good, tail].concat();
            assert_eq!(code_of(&file, 1 << 20).unwrap(), file, "{tail:?}");
        }
        assert_eq!(code_of(b"", 0).unwrap(), b"");
        assert_eq!(code_of(b"\0as", 9).unwrap(), b"\0as");
        // A custom section that is cut off takes the rest of the file with it.
        let cut = [&good[..], b"\x00\x7fshort"].concat();
        assert_eq!(code_of(&cut, 1 << 20).unwrap(), good);
    }
}
