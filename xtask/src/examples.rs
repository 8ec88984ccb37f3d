//! The example guests in other languages, and the programs in C that tests run as others' are run.
//!
//! Each is built as its README says. Guests become `target/modules/digits-LANGUAGE.wasm`, programs
//! `target/programs/NAME.wasm`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{apt_install, exists, run};
use crate::workspace::{Profile, Workspace};

/// Compiler, linker and C library for WebAssembly, as Debian has them.
const PACKAGES: [&str; 3] = ["clang", "lld", "wasi-libc"];

/// Where Debian's C library for WASI is.
const LIBRARY: &str = "/usr/lib/wasm32-wasi";

/// The programs in `tests/programs`.
const PROGRAMS: [&str; 1] = ["classify"];

/// The languages of the example guests.
const LANGUAGES: [&str; 2] = ["c", "python"];

/// Builds guests and programs. Python's compiler is in `target/venv`.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let linker = ["wasm-ld", "wasm-ld-14"].into_iter().any(exists);
    if !exists("clang") || !linker || !Path::new(LIBRARY).exists() {
        apt_install(&PACKAGES)?;
    }
    let guests = workspace.target().join("guests");
    std::fs::create_dir_all(&guests)?;
    let examples = workspace.modules().join("examples");
    run(Command::new("clang")
        .args([
            "--target=wasm32",
            "-std=c17",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
        ])
        .args(["-nostdlib", "-mbulk-memory", "-Wl,--no-entry", "-o"])
        .arg(guests.join("digits-c.wasm"))
        .arg(examples.join("c/digits.c")))?;
    run(Command::new(examples.join("python/build.sh"))
        .arg(guests.join("digits-python.wasm"))
        .env("PATH", path_with_venv(workspace)?))?;
    let programs = workspace.target().join("programs");
    std::fs::create_dir_all(&programs)?;
    for name in PROGRAMS {
        run(Command::new("clang")
            .args([
                "--target=wasm32-wasi",
                "-std=c17",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
            ])
            .args(["-isystem", "/usr/include/wasm32-wasi", "-nostdlib", "-o"])
            .arg(programs.join(format!("{name}.wasm")))
            .arg(format!("{LIBRARY}/crt1-command.o"))
            .arg(workspace.root().join(format!("tests/programs/{name}.c")))
            .arg(format!("-L{LIBRARY}"))
            .arg("-lc"))?;
    }
    Ok(())
}

/// The path of programs, with those of `target/venv` first.
fn path_with_venv(workspace: &Workspace) -> Result<OsString> {
    let venv = workspace.target().join("venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(venv).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}

/// Packs the guests with the `tidegate` binary of the profile.
pub(crate) fn pack(workspace: &Workspace, profile: Profile) -> Result<()> {
    let digits = workspace.modules().join("examples/digits");
    let modules = workspace.target().join("modules");
    std::fs::create_dir_all(&modules)?;
    for language in LANGUAGES {
        let name = format!("digits-{language}");
        let guest = workspace.target().join(format!("guests/{name}.wasm"));
        let mut pack = Command::new(workspace.binary(profile, "tidegate"));
        pack.arg("pack").arg(digits.join("digits.onnx"));
        pack.arg("--out").arg(modules.join(format!("{name}.wasm")));
        pack.arg("--guest").arg(guest);
        pack.arg("--manifest").arg(digits.join("manifest.json"));
        pack.args(["--name", &name, "--graph-name", "digits"]);
        run(&mut pack)?;
    }
    Ok(())
}
