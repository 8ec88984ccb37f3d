//! `tidegate publish`: puts a module into a registry, where every OCI client finds it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidegate_registry::{MODULE_BYTES_MAX, ParseReferenceError, Reference, TransferError};
use tidegate_runtime::module::ModuleFile;

use crate::registry::{RegistryArgs, Shown, tell};

/// Put a module into a registry, and print the reference that pins it.
///
/// The registry has it as a Wasm OCI artifact, which other tools pull too. Credentials are those of `docker
/// login`. Plain HTTP is spoken to this machine only.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The module.
    #[arg(value_name = "MODULE.wasm")]
    module: PathBuf,
    /// Where to: registry/name:tag.
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// What the manifest says beside the module's name, version and licence; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Why a module is not in the registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// The reference is none.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// An annotation without a key or a value.
    #[error("{0:?} is not of the form KEY=VALUE")]
    Annotation(String),
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file has more than [`MODULE_BYTES_MAX`].
    #[error("{0} has more than {MODULE_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    /// The registry does not take it.
    #[error("cannot publish to {reference}")]
    Publish {
        /// Where to.
        reference: String,
        /// The cause.
        source: Box<TransferError>,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

impl PublishError {
    /// Whether other arguments would help.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Reference(_) | Self::Annotation(_) => true,
            Self::Publish { source, .. } => matches!(**source, TransferError::NoTag(_)),
            Self::Read { .. } | Self::TooLarge(_) | Self::Print(_) => false,
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<(), PublishError> {
    let reference: Reference = args.reference.parse()?;
    let mut given = BTreeMap::new();
    for annotation in &args.annotation {
        let pair = annotation
            .split_once('=')
            .filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| PublishError::Annotation(annotation.clone()))?;
        given.insert(key.to_owned(), value.to_owned());
    }
    let wasm = read(&args.module)?;
    let mut annotations = describe(&wasm);
    annotations.extend(given);
    let publish_error = |source| PublishError::Publish {
        reference: reference.to_string(),
        source: Box::new(source),
    };
    let registries = args.registry.registries().map_err(publish_error)?;
    let shown = Shown::new("publishing");
    let watch = shown.watch();
    let published = registries.publish(&reference, wasm, annotations, &watch);
    let version = published.await.map_err(publish_error)?;
    drop(shown);
    tell(&format!(
        "published {} bytes, module {}",
        version.bytes, version.module
    ));
    let pin = reference.pinned(version.manifest.unwrap_or(version.module));
    writeln!(io::stdout(), "{pin}").map_err(PublishError::Print)
}

fn read(path: &Path) -> Result<Bytes, PublishError> {
    let read_error = |source| PublishError::Read {
        path: path.to_owned(),
        source,
    };
    let file = tidegate_store::open_regular(path).map_err(read_error)?;
    if file.metadata().map_err(read_error)?.len() > MODULE_BYTES_MAX {
        return Err(PublishError::TooLarge(path.to_owned()));
    }
    let bytes_max = usize::try_from(MODULE_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = tidegate_store::read_at_most(file, bytes_max);
    Ok(bytes.map_err(read_error)?.into())
}

/// What registries show of a module, as far as it says it itself. Other WebAssembly says nothing.
fn describe(wasm: &Bytes) -> BTreeMap<String, String> {
    let Ok(module) = ModuleFile::parse(wasm.clone()) else {
        return BTreeMap::new();
    };
    let manifest = module.manifest();
    let key = |name: &str| format!("org.opencontainers.image.{name}");
    let mut annotations = BTreeMap::from([
        (key("title"), manifest.name.clone()),
        (key("version"), manifest.version.to_string()),
    ]);
    if let Some(licence) = &manifest.licence {
        annotations.insert(key("licenses"), licence.clone());
    }
    annotations
}
