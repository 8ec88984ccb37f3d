//! WebAssembly files made of sections, byte by byte.

use tidegate_registry::signature::{DELIMITER_SECTION, SIGNATURE_SECTION, SecretKey, sign};

/// A file's header: a component, or a core module.
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
pub(crate) const CORE: &[u8] = b"\0asm\x01\0\0\0";

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn len(len: usize) -> Vec<u8> {
    let len = u16::try_from(len).unwrap();
    let low = u8::try_from(len & 0x7f).unwrap();
    match u8::try_from(len >> 7).unwrap() {
        0 => vec![low],
        high => vec![low | 0x80, high],
    }
}

/// A section of any kind.
pub(crate) fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    [&[id], &len(contents.len())[..], contents].concat()
}

pub(crate) fn custom(name: &str, data: &[u8]) -> Vec<u8> {
    section(0, &[&len(name.len()), name.as_bytes(), data].concat())
}

pub(crate) fn delimiter(content: u8) -> Vec<u8> {
    custom(DELIMITER_SECTION, &[content; 16])
}

pub(crate) fn code() -> Vec<u8> {
    [custom("tidegate:manifest", b"{}"), section(7, b"\0")].concat()
}

pub(crate) fn weights() -> Vec<u8> {
    custom("tidegate:graph:model", &[7; 300])
}

pub(crate) fn samples() -> Vec<u8> {
    custom("tidegate:samples", b"in and out")
}

/// The sections of a module of three parts, as `tidegate pack` writes it, without its header.
pub(crate) fn parts() -> [Vec<u8>; 6] {
    [
        code(),
        delimiter(1),
        weights(),
        delimiter(2),
        samples(),
        delimiter(3),
    ]
}

pub(crate) fn module() -> Vec<u8> {
    [COMPONENT, &parts().concat()].concat()
}

/// The module signed by the keys of these seeds.
pub(crate) fn signed(seeds: &[u8]) -> Vec<u8> {
    let mut file = module();
    for seed in seeds {
        file = sign(&file, &key(*seed)).unwrap().file;
    }
    file
}

/// The whole signature section of a signed file.
pub(crate) fn signature_of(file: &[u8]) -> Vec<u8> {
    let unsigned = parts().concat();
    let section = file[COMPONENT.len()..].strip_suffix(&unsigned[..]).unwrap();
    assert!(
        section
            .windows(9)
            .any(|window| window == SIGNATURE_SECTION.as_bytes())
    );
    section.to_vec()
}

/// A component of these sections.
pub(crate) fn file(sections: &[&[u8]]) -> Vec<u8> {
    [COMPONENT, &sections.concat()].concat()
}
