//! Where the things under test are: binaries, modules, images and the Python clients.
//!
//! Everything lies where `cargo xtask test` puts it. What is missing fails the test that wants it and
//! says how to get it: a skipped test looks like one that passed.

use std::path::{Path, PathBuf};

/// A binary of this workspace, built with the same profile as the tests.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    wanted(profile().join(name))
}

/// Where everything under test keeps its state, so that nobody's own is touched.
#[must_use]
pub fn state() -> PathBuf {
    target().join("tmp/state")
}

/// The face detection module, packed.
#[must_use]
pub fn face_module() -> PathBuf {
    wanted(target().join("modules/face.wasm"))
}

/// An image that ships with the face detection module.
#[must_use]
pub fn face_image(name: &str) -> PathBuf {
    wanted(root().join("modules/face/images").join(name))
}

/// The example guest in a language, packed.
#[must_use]
pub fn digits_module(language: &str) -> PathBuf {
    wanted(target().join(format!("modules/digits-{language}.wasm")))
}

/// The graph of the example guests.
#[must_use]
pub fn digits_graph() -> PathBuf {
    wanted(root().join("modules/examples/digits/digits.onnx"))
}

/// Images for the example guests, with what ONNX Runtime makes of them.
#[must_use]
pub fn digits_samples() -> PathBuf {
    wanted(root().join("modules/examples/digits/samples.json"))
}

/// A program of this package in WebAssembly.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    wanted(target().join(format!("programs/{name}.wasm")))
}

/// The Python that has the third-party clients.
#[must_use]
pub fn python() -> PathBuf {
    wanted(target().join("venv/bin/python"))
}

/// A Python program of this package.
#[must_use]
pub fn client(name: &str) -> PathBuf {
    wanted(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("clients")
            .join(name),
    )
}

fn wanted(path: PathBuf) -> PathBuf {
    let missing = path.display();
    assert!(
        path.exists(),
        "{missing} is missing: `cargo xtask test` makes all that the tests need"
    );
    path
}

fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the workspace")
}

/// `target/debug` of `target/debug/deps/e2e-1234`.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("the test program has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("cargo puts tests two folders down");
    profile.to_owned()
}

fn target() -> PathBuf {
    let profile = profile();
    profile
        .parent()
        .expect("profiles lie in the target folder")
        .to_owned()
}
