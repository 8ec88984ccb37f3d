//! `tidegate sign`: adds a signature to a WebAssembly file, or beside it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tidegate_registry::signature::{
    Layout, LayoutError, SIGNATURE_BYTES_MAX, SignError, sign, sign_detached,
};
use tidegate_runtime::module::FILE_BYTES_MAX;

use crate::keys::{self, ReadKeyError};

/// Sign a module: every part of it, beside the signatures that are there.
///
/// Signs any WebAssembly file by WebAssembly's tool convention, as wasmsign2 does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The module.
    #[arg(value_name = "MODULE.wasm")]
    module: PathBuf,
    /// The secret key: as `tidegate keygen`, wasmsign2, OpenSSL or OpenSSH write it.
    #[arg(short, long, value_name = "KEY.key")]
    key: PathBuf,
    /// The signed module to write [default: MODULE.wasm itself].
    #[arg(short, long, value_name = "OUT.wasm", conflicts_with = "detached")]
    out: Option<PathBuf>,
    /// Leave the module as it is, and write or add to its signatures in this file.
    #[arg(long, value_name = "MODULE.sig")]
    detached: Option<PathBuf>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignModuleError {
    /// The key cannot be used.
    #[error("cannot sign")]
    Key(#[from] ReadKeyError),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The module cannot be signed.
    #[error("cannot sign {}", path.display())]
    Sign {
        /// The module.
        path: PathBuf,
        /// Why not.
        source: SignError,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

/// Signs and says what was signed.
pub(crate) fn run(args: &Args) -> Result<(), SignModuleError> {
    let key = keys::secret(&args.key)?;
    let module = read(&args.module, FILE_BYTES_MAX)?;
    let refuse = |source| SignModuleError::Sign {
        path: args.module.clone(),
        source,
    };
    let parts = |layout: Result<Layout, LayoutError>| {
        layout
            .map(|layout| layout.parts().len())
            .map_err(|error| refuse(error.into()))
    };
    let (path, parts) = match &args.detached {
        Some(path) => {
            let before = match path.try_exists() {
                Ok(false) => None,
                Ok(true) | Err(_) => Some(read(path, SIGNATURE_BYTES_MAX)?),
            };
            let signature = sign_detached(&module, before.as_deref(), &key).map_err(refuse)?;
            write(path, &signature)?;
            (path, parts(Layout::of(&module))?)
        }
        None => {
            let path = args.out.as_ref().unwrap_or(&args.module);
            let signed = sign(&module, &key).map_err(refuse)?;
            write(path, &signed.file)?;
            (path, parts(Layout::of(&signed.file))?)
        }
    };
    let id = key.public().id();
    writeln!(
        io::stdout(),
        "{}: key {id} signed {} of {}",
        path.display(),
        if parts == 1 {
            "all".to_owned()
        } else {
            format!("all {parts} parts")
        },
        args.module.display()
    )
    .map_err(SignModuleError::Print)
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, SignModuleError> {
    tidegate_store::read_regular(path, bytes_max).map_err(|source| SignModuleError::Read {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SignModuleError> {
    tidegate_store::write_whole(path, bytes).map_err(|source| SignModuleError::Write {
        path: path.to_owned(),
        source,
    })
}
