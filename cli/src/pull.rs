//! `tidegate pull`: gets a module from a registry, verified against its digest.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tidegate_daemon::state::StateConfig;
use tidegate_registry::signature::{VerifyError, verify};
use tidegate_registry::{ModuleStore, ParseReferenceError, Reference, TransferError};
use tidegate_store::FolderError;

use crate::keys::{self, ReadKeyError};
use crate::registry::{RegistryArgs, Shown, tell};

/// Get a module from a registry, and print the reference that pins it.
///
/// It lies in the store of the state folder then, where agents and relays of this user find it, and in OUT
/// if one is named. A download that is cut goes on where it was, also in another run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which: registry/name:tag, or registry/name@sha256:DIGEST.
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Write the module here too; replaced if it is there.
    #[arg(short, long, value_name = "OUT.wasm")]
    out: Option<PathBuf>,
    /// Take the module only if this public key signed all of it: a file, or the line `ssh-ed25519 ...` itself.
    /// Of several, one is enough.
    #[arg(short, long = "key", value_name = "KEY.pub")]
    keys: Vec<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// The reference is none.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// A key cannot be used.
    #[error("cannot verify")]
    Key(#[from] ReadKeyError),
    /// The signatures are missing, malformed, or by others.
    #[error("{reference} is not verified, and not written")]
    Verify {
        /// Which module.
        reference: String,
        /// Why not.
        source: VerifyError,
    },
    /// There is no state folder, and nowhere else to put it.
    #[error(
        "there is no state folder to keep the module in; name a file with --out, or set STATE_DIRECTORY"
    )]
    NoFolder,
    /// The store is of no use.
    #[error("cannot open the module store")]
    Store(#[source] FolderError),
    /// No temporary folder for the download.
    #[error("cannot make a temporary folder beside {path}")]
    Temporary {
        /// What is to be written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The registry does not give it.
    #[error("cannot pull {reference}")]
    Pull {
        /// Which module.
        reference: String,
        /// The cause.
        source: Box<TransferError>,
    },
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

impl PullError {
    /// Whether other arguments would help.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Reference(_) | Self::NoFolder => true,
            Self::Key(_)
            | Self::Verify { .. }
            | Self::Store(_)
            | Self::Temporary { .. }
            | Self::Pull { .. }
            | Self::Write { .. }
            | Self::Print(_) => false,
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<(), PullError> {
    let reference: Reference = args.reference.parse()?;
    let pull_error = |source| PullError::Pull {
        reference: reference.to_string(),
        source: Box::new(source),
    };
    let keys: Vec<_> = args
        .keys
        .iter()
        .map(|key| keys::public(key))
        .collect::<Result<_, _>>()?;
    let registries = args.registry.registries().map_err(pull_error)?;
    let (store, _temporary) = open_store(args.out.as_deref())?;
    let version = registries
        .resolve(&reference, &store)
        .await
        .map_err(pull_error)?;
    let shown = Shown::new("pulling");
    let watch = shown.watch();
    let fetched = registries.fetch(&reference, &version, &store, &watch).await;
    let module = fetched.map_err(pull_error)?;
    drop(shown);
    if !keys.is_empty() {
        let verified =
            verify(module.bytes(), None, &keys).and_then(|report| report.require(1).map(|_| ()));
        verified.map_err(|source| PullError::Verify {
            reference: reference.to_string(),
            source,
        })?;
    }
    if let Some(out) = &args.out {
        let written = tidegate_store::write_whole(out, module.bytes());
        written.map_err(|source| PullError::Write {
            path: out.clone(),
            source,
        })?;
    }
    tell(&format!(
        "pulled {} bytes, module {}",
        version.bytes, version.module
    ));
    let pin = reference.pinned(version.manifest.unwrap_or(version.module));
    writeln!(io::stdout(), "{pin}").map_err(PullError::Print)
}

/// The store of the state folder. Where there is none, one that lasts as long as this command.
fn open_store(out: Option<&Path>) -> Result<(ModuleStore, Option<tempfile::TempDir>), PullError> {
    if let Some(state) = StateConfig::default().open() {
        let store = ModuleStore::open(state.modules(), state.modules_bytes_max());
        return Ok((store.map_err(PullError::Store)?, None));
    }
    let out = out.ok_or(PullError::NoFolder)?;
    let folder = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".tidegate-")
        .tempdir_in(folder);
    let temporary = temporary.map_err(|source| PullError::Temporary {
        path: out.to_owned(),
        source,
    })?;
    let bytes_max = tidegate_registry::MODULE_BYTES_MAX;
    let store = ModuleStore::open(temporary.path(), bytes_max).map_err(PullError::Store)?;
    Ok((store, Some(temporary)))
}
