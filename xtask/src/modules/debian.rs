//! Debian's compiler, for machines where rustup cannot fetch a target.
//!
//! Its packages hold the source of the standard library, which is built along with the guest. The
//! linker is the one that comes with every toolchain of rustup.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process::{apt_install, exists, read};

/// Compiler, Cargo and the standard library's source; installed beside rustup's.
pub(super) const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const LIBRARY: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Installs the packages unless they are there.
pub(super) fn install() -> Result<()> {
    if exists(RUSTC) && exists(CARGO) && Path::new(LIBRARY).exists() {
        return Ok(());
    }
    apt_install(&PACKAGES)
}

/// Debian's Cargo, told to build the standard library too, and free of what rustup's Cargo put into
/// the environment of this task.
pub(super) fn cargo(folder: &Path) -> Result<Command> {
    let rustup = |what| {
        read(
            Command::new("rustc")
                .args(["--print", what])
                .current_dir(folder),
        )
    };
    let (sysroot, host) = (rustup("sysroot")?, rustup("host-tuple")?);
    let linker = Path::new(&sysroot)
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld");
    let linker = linker
        .to_str()
        .context("the toolchain's path is not UTF-8")?;
    ensure!(
        Path::new(linker).exists(),
        "there is no linker for WebAssembly at {linker}"
    );

    let flags = [
        &format!("-Clinker={linker}"),
        "-Clinker-flavor=wasm-ld",
        "-Clink-self-contained=no",
        "-Ctarget-feature=+simd128",
        "--cfg=getrandom_backend=\"unsupported\"",
    ];
    let mut cargo = Command::new(CARGO);
    cargo
        .current_dir(folder)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS");
    cargo.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.arg("-Zbuild-std=std,panic_abort");
    Ok(cargo)
}
