//! The interfaces that a module may import: this list, and nothing else.

use wasmtime::Engine;
use wasmtime::component::Linker;

use super::{Sandbox, nn, tensors, wasi};

/// What a module may import, with the versions that count as the same.
const ALLOWED: [&str; 10] = [
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
    "tidegate:model/tensors@1.",
    "wasi:cli/stderr@0.2.",
    "wasi:io/error@0.2.",
    "wasi:io/streams@0.2.",
    "wasi:clocks/monotonic-clock@0.2.",
    "wasi:random/random@0.2.",
];

/// Whether a module may import the interface of this name.
pub(crate) fn is_allowed(import: &str) -> bool {
    ALLOWED
        .iter()
        .any(|allowed| match allowed.strip_suffix('.') {
            // A prefix ends in the dot before the part of a version that may differ.
            Some(_) => import.starts_with(allowed),
            None => import == *allowed,
        })
}

/// Everything that a module may import, implemented on [`Sandbox`].
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Sandbox>> {
    let mut linker = Linker::new(engine);
    nn::add_to_linker(&mut linker)?;
    tensors::add_to_linker(&mut linker)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn only_the_listed_interfaces_pass() {
        for name in [
            "wasi:nn/graph@0.2.0-rc-2024-10-28",
            "wasi:cli/stderr@0.2.6",
            "tidegate:model/tensors@1.0.0",
        ] {
            assert!(is_allowed(name), "{name}");
        }
        for name in [
            "wasi:nn/graph@0.2.0-rc-2024-10-280",
            "wasi:nn/graph",
            "wasi:cli/stderr@0.3.0",
            "wasi:cli/stderr",
            "wasi:cli/environment@0.2.0",
            "wasi:sockets/tcp@0.2.0",
            "wasi:filesystem/types@0.2.0",
            "wasi:io/poll@0.2.0",
            "stderr",
            "",
        ] {
            assert!(!is_allowed(name), "{name}");
        }
    }
}
