//! `tidegate verify`: says who signed which parts of a file, and whether that is enough.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tidegate_registry::signature::{Part, Report, SIGNATURE_BYTES_MAX, VerifyError, verify};
use tidegate_runtime::module::FILE_BYTES_MAX;

use crate::keys::{self, ReadKeyError};

/// Verify who signed a module.
///
/// Succeeds only if enough of the keys signed every part of the file, to its last byte.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The module, or any other WebAssembly file.
    #[arg(value_name = "MODULE.wasm")]
    module: PathBuf,
    /// A public key: a file, or the line `ssh-ed25519 ...` itself. Can be given more than once.
    #[arg(short, long = "key", value_name = "KEY.pub", required = true)]
    keys: Vec<String>,
    /// How many of the keys must have signed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: usize,
    /// Take the signatures from this file, not from the module.
    #[arg(long, value_name = "MODULE.sig")]
    detached: Option<PathBuf>,
}

/// Why a module is not verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyModuleError {
    /// A key cannot be used.
    #[error("cannot verify")]
    Key(#[from] ReadKeyError),
    /// The threshold can never be met, or always is.
    #[error("--threshold is {threshold}, must be 1 to {keys}, the number of different keys")]
    Threshold {
        /// The threshold.
        threshold: usize,
        /// How many different keys there are.
        keys: usize,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The signatures are missing, malformed, or not enough.
    #[error("{} is not verified", path.display())]
    Verify {
        /// The module.
        path: PathBuf,
        /// Why not.
        source: VerifyError,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

impl VerifyModuleError {
    /// Whether the caller can mend it by other arguments, with the same files.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Threshold { .. } => true,
            Self::Key(_) | Self::Read { .. } | Self::Verify { .. } | Self::Print(_) => false,
        }
    }
}

/// Verifies, and lists parts and signatures if enough keys signed.
pub(crate) fn run(args: &Args) -> Result<(), VerifyModuleError> {
    let mut keys = Vec::new();
    for argument in &args.keys {
        let key = keys::public(argument)?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let threshold = args.threshold;
    if !(1..=keys.len()).contains(&threshold) {
        let keys = keys.len();
        return Err(VerifyModuleError::Threshold { threshold, keys });
    }
    let module = read(&args.module, FILE_BYTES_MAX)?;
    let detached = args.detached.as_ref();
    let detached = detached
        .map(|path| read(path, SIGNATURE_BYTES_MAX))
        .transpose()?;
    let refuse = |source| VerifyModuleError::Verify {
        path: args.module.clone(),
        source,
    };
    let report = verify(&module, detached.as_deref(), &keys).map_err(refuse)?;
    let signers = report.require(threshold).map_err(refuse)?.len();
    let out = &mut io::stdout().lock();
    writeln!(
        out,
        "{}: verified, {signers} of {} keys signed all of it",
        args.module.display(),
        keys.len()
    )
    .and_then(|()| print(&report, out))
    .map_err(VerifyModuleError::Print)
}

/// Lists the parts of a file and what each signature says.
fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for (index, part) in report.parts.iter().enumerate() {
        writeln!(out, "part      {}: {}", index + 1, describe_part(part))?;
    }
    for statement in &report.statements {
        writeln!(out, "signature {statement}")?;
    }
    Ok(())
}

/// Size, hash and sections of a part.
pub(crate) fn describe_part(part: &Part) -> String {
    let named = if part.sections.is_empty() {
        String::new()
    } else {
        format!(", {}", part.sections.join(", "))
    };
    format!(
        "{} bytes, {} up to its end{named}",
        part.range.len(),
        part.hash
    )
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, VerifyModuleError> {
    tidegate_store::read_regular(path, bytes_max).map_err(|source| VerifyModuleError::Read {
        path: path.to_owned(),
        source,
    })
}
