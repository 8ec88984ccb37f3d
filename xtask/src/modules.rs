//! `cargo xtask modules`: builds the guests and packs them with their graphs.
//!
//! A guest needs a compiler with the target `wasm32-unknown-unknown`. Rustup fetches it in seconds;
//! where it cannot, Debian's compiler and the source of the standard library do.

mod debian;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{cargo, run as run_command, run_within};
use crate::workspace::{Profile, Workspace};

/// The guests' target: no system interface, so that a guest imports only what its world has.
const TARGET: &str = "wasm32-unknown-unknown";

/// Enough for rustup to fetch 20 MB on a slow line.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// The modules that ship: the guest's folder, and the name by which it loads its graph.
const MODULES: [(&str, &str); 1] = [("face", "ultraface320")];

/// The engine of graphs as a guest, for strict isolation: its package, and the name of its file.
pub(crate) const TRACT_GUEST: (&str, &str) = ("tidegate-tract-guest", "tract-guest.wasm");

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Pack with the release build of `tidegate`.
    #[arg(long)]
    release: bool,
    /// Where the guests' compiler comes from.
    #[arg(long, value_enum, default_value_t = Toolchain::Auto)]
    toolchain: Toolchain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Toolchain {
    /// Rustup's, or Debian's where rustup cannot fetch the target.
    Auto,
    /// The target that rustup fetches.
    Rustup,
    /// The packages rustc-web, cargo-web and rust-web-src.
    Debian,
}

/// Guests, built and not yet packed.
pub(crate) struct Guests {
    folder: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let profile = if arguments.release {
        Profile::Release
    } else {
        Profile::Dev
    };
    let guests = build(workspace, arguments.toolchain)?;
    let mut tidegate = cargo(workspace.root());
    tidegate
        .args(["build", "--package", "tidegate"])
        .args(profile.cargo_flags());
    run_command(&mut tidegate)?;
    pack(workspace, profile, &guests)
}

/// Builds all guests with the given compiler, after fetching what it lacks.
pub(crate) fn build(workspace: &Workspace, toolchain: Toolchain) -> Result<Guests> {
    match toolchain {
        Toolchain::Rustup => add_target(workspace).and_then(|()| build_by_rustup(workspace)),
        Toolchain::Debian => build_by_debian(workspace),
        Toolchain::Auto => match add_target(workspace) {
            Ok(()) => build_by_rustup(workspace),
            Err(error) => {
                eprintln!("rustup cannot fetch {TARGET} ({error:#}): trying Debian's compiler");
                build_by_debian(workspace).with_context(|| {
                    format!(
                        "no compiler for {TARGET}: neither `rustup target add {TARGET}` nor \
                         Debian's packages {} work here",
                        debian::PACKAGES.join(" ")
                    )
                })
            }
        },
    }
}

/// Makes `target/modules/NAME.wasm` of each guest, with the `tidegate` binary of the profile.
pub(crate) fn pack(workspace: &Workspace, profile: Profile, guests: &Guests) -> Result<()> {
    let modules = workspace.target().join("modules");
    std::fs::create_dir_all(&modules)?;
    for (name, graph) in MODULES {
        let source = workspace.modules().join(name);
        let guest = guests.folder.join(format!("tidegate_module_{name}.wasm"));
        let mut pack = Command::new(workspace.binary(profile, "tidegate"));
        pack.arg("pack").arg(source.join("model.onnx"));
        pack.arg("--out").arg(modules.join(format!("{name}.wasm")));
        pack.arg("--guest").arg(guest);
        pack.arg("--manifest").arg(source.join("manifest.json"));
        pack.args(["--graph-name", graph]);
        run_command(&mut pack)?;
    }
    let (package, file) = TRACT_GUEST;
    let built = guests
        .folder
        .join(format!("{}.wasm", package.replace('-', "_")));
    std::fs::copy(&built, modules.join(file))
        .with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(())
}

fn add_target(workspace: &Workspace) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", TARGET])
        .current_dir(workspace.modules());
    run_within(RUSTUP_LIMIT, &mut rustup)
}

fn build_by_rustup(workspace: &Workspace) -> Result<Guests> {
    let target = workspace.guests_target();
    let mut build = cargo(&workspace.modules());
    build
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(package_flags());
    run_command(build.env("CARGO_TARGET_DIR", &target))?;
    Ok(Guests {
        folder: target.join(TARGET).join("release"),
    })
}

fn build_by_debian(workspace: &Workspace) -> Result<Guests> {
    debian::install()?;
    let target = workspace.guests_target().join("debian");
    let mut build = debian::cargo(&workspace.modules())?;
    build
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(package_flags());
    run_command(build.env("CARGO_TARGET_DIR", &target))?;
    Ok(Guests {
        folder: target.join(TARGET).join("release"),
    })
}

fn package_flags() -> impl Iterator<Item = String> {
    let modules = MODULES
        .into_iter()
        .map(|(name, _)| format!("tidegate-module-{name}"));
    modules
        .chain([TRACT_GUEST.0.to_owned()])
        .map(|package| format!("--package={package}"))
}
