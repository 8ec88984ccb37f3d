//! `tidegate pack`: makes a model module of an ONNX file.
//!
//! No WebAssembly toolchain is needed: without a guest the component is generated, and hands each
//! request's tensors to the graph as they are. A guest adds its own pre- and post-processing.
//!
//! The module is read back and loaded as an agent would load it before anything is written, and it
//! is written whole or not at all. The same inputs give the same bytes.

mod paths;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_graph::{FixError, GraphError};
use tidegate_inference::Isolation;
use tidegate_runtime::module::{
    FILE_BYTES_MAX, GuestError, Manifest, ManifestError, ModuleError, ModuleFile, PassThroughError,
    component_from_guest, pass_through,
};
use tidegate_runtime::samples::{Sample, Tolerance};
use tidegate_runtime::{LoadError, Model, Runtime, StartError, VetError};

use self::paths::{is_same_file, name_from};
use crate::engine;
use crate::registry::tell;
use crate::samples::{self, ReadSamplesError};

/// Version of a module for which nobody chose.
const VERSION_DEFAULT: &str = "1.0.0";

/// Make a model module of an ONNX file.
///
/// The module takes and gives what the graph does, unless a guest with pre- and post-processing of
/// its own and a manifest say otherwise. `tidegate inspect` shows what came out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The graph.
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The module to write; replaced if it is there.
    #[arg(short, long, value_name = "OUT.wasm")]
    out: PathBuf,
    /// Make an input part of the graph, with a value written as JSON: `sr=16000`, `axes=[0, 1]`.
    #[arg(long = "const", value_name = "NAME=VALUE", value_parser = constant)]
    constants: Vec<(String, String)>,
    /// Give the free axes of an input their extents: `x=1,3,224,224`; -1 leaves one free.
    #[arg(long = "shape", value_name = "NAME=EXTENTS", value_parser = shape)]
    shapes: Vec<(String, Vec<i64>)>,
    /// Guest with pre- and post-processing, a component or a core module of world
    /// tidegate:model/module.
    #[arg(long, value_name = "GUEST.wasm")]
    guest: Option<PathBuf>,
    /// What the module says of itself, where the graph does not say it: inputs and outputs of a
    /// guest, labels, limits.
    #[arg(long, value_name = "FILE.json")]
    manifest: Option<PathBuf>,
    /// Samples to carry, of which the model must give the outputs: files in_K_I.npy and out_K_J.npy, input I
    /// and output J of sample K.
    #[arg(long, value_name = "DIR")]
    samples: Option<PathBuf>,
    /// Run even the graph in the sandbox, wherever the module runs.
    #[arg(long)]
    strict: bool,
    /// Name by which requests ask for the model [default: the manifest's, else OUT].
    #[arg(long)]
    name: Option<String>,
    /// Version of the model [default: the manifest's, else 1.0.0].
    #[arg(long)]
    version: Option<String>,
    /// SPDX licence expression of code and weights [default: the manifest's, else none].
    #[arg(long)]
    licence: Option<String>,
    /// Name by which the guest loads the graph.
    #[arg(long, value_name = "NAME", default_value = "model")]
    graph_name: String,
}

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The module would replace what it is made of.
    #[error("{} is an input: choose another file to write", .0.display())]
    OutputIsInput(PathBuf),
    /// The file's name has nothing that a model's name can hold.
    #[error("cannot make a name of {}: give --name", .0.display())]
    Name(PathBuf),
    /// The model is not ONNX, or the engine cannot run it.
    #[error("cannot use {} as a graph", path.display())]
    Graph {
        /// The model.
        path: PathBuf,
        /// Why not.
        source: GraphError,
    },
    /// Preparing the model failed or was stopped in the process that tries it.
    #[error("cannot use {} as a graph", path.display())]
    Vet {
        /// The model.
        path: PathBuf,
        /// Why not.
        source: VetError,
    },
    /// An input cannot be settled as the arguments say.
    #[error("cannot settle an input of {}", path.display())]
    Fix {
        /// The model.
        path: PathBuf,
        /// Which, and why not.
        source: Box<FixError>,
    },
    /// The manifest file is not a manifest.
    #[error("cannot use {} as a manifest", path.display())]
    Manifest {
        /// The manifest file.
        path: PathBuf,
        /// What and where.
        source: ManifestError,
    },
    /// The guest is not WebAssembly, or of another world.
    #[error("cannot use {} as a guest", path.display())]
    Guest {
        /// The guest.
        path: PathBuf,
        /// Why not.
        source: GuestError,
    },
    /// The component cannot be generated.
    #[error("cannot generate the component")]
    PassThrough(#[source] PassThroughError),
    /// The parts do not make a module: a name, a version or a size breaks a rule.
    #[error("cannot make a module of {}", path.display())]
    Assemble {
        /// The model.
        path: PathBuf,
        /// What and where.
        source: ModuleError,
    },
    /// The engine that would check the module does not start.
    #[error("cannot start the engine")]
    Engine(#[source] StartError),
    /// No agent would load the module.
    #[error("a module of {} would not load", path.display())]
    Load {
        /// The guest, or the model where there is none.
        path: PathBuf,
        /// Why not.
        source: Box<LoadError>,
    },
    /// The folder gives no samples.
    #[error("cannot use the samples")]
    Samples(#[from] ReadSamplesError),
    /// The model does not give what its samples say.
    #[error("{} does not reproduce its samples: {reason}", path.display())]
    Check {
        /// The model.
        path: PathBuf,
        /// The first disagreement.
        reason: String,
    },
    /// The module cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The module.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

impl PackError {
    /// Whether the caller can mend it by other arguments, with the same files.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::OutputIsInput(_) | Self::Name(_) => true,
            Self::Fix { source, .. } => !matches!(**source, FixError::Graph(_)),
            Self::Assemble { source, .. } => matches!(source, ModuleError::Manifest { .. }),
            Self::Read { .. }
            | Self::Graph { .. }
            | Self::Vet { .. }
            | Self::Manifest { .. }
            | Self::Guest { .. }
            | Self::PassThrough(_)
            | Self::Engine(_)
            | Self::Load { .. }
            | Self::Samples(_)
            | Self::Check { .. }
            | Self::Write { .. }
            | Self::Print(_) => false,
        }
    }
}

/// `NAME=VALUE`.
fn constant(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("there is no `=`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `NAME=1,3,224,224`.
fn shape(text: &str) -> Result<(String, Vec<i64>), String> {
    let (name, extents) = text.split_once('=').ok_or("there is no `=`")?;
    let extents = extents
        .split(',')
        .filter(|extent| !extent.trim().is_empty());
    let extents = extents.map(|extent| {
        let number: i64 = extent
            .trim()
            .parse()
            .map_err(|_| format!("{extent:?} is no extent"))?;
        match number {
            -1.. => Ok(number),
            _ => Err(format!("{number} is no extent")),
        }
    });
    Ok((name.to_owned(), extents.collect::<Result<_, _>>()?))
}

/// Makes the module and says what it is.
pub(crate) fn run(args: &Args) -> Result<(), PackError> {
    let inputs = [
        Some(&args.model),
        args.guest.as_ref(),
        args.manifest.as_ref(),
    ];
    if inputs
        .into_iter()
        .flatten()
        .any(|input| is_same_file(input, &args.out))
    {
        return Err(PackError::OutputIsInput(args.out.clone()));
    }
    let module = build(args)?;
    tidegate_store::write_whole(&args.out, module.file()).map_err(|source| PackError::Write {
        path: args.out.clone(),
        source,
    })?;
    let Manifest { name, version, .. } = module.manifest();
    let (bytes, digest) = (module.file().len(), module.digest());
    writeln!(
        io::stdout(),
        "{}: {name} {version}, {bytes} bytes, {digest}",
        args.out.display()
    )
    .map_err(PackError::Print)
}

/// The module, read back and loaded.
fn build(args: &Args) -> Result<ModuleFile, PackError> {
    let mut onnx = read(&args.model)?;
    if !args.constants.is_empty() || !args.shapes.is_empty() {
        let fixed = tidegate_graph::fix(&onnx, &args.constants, &args.shapes);
        onnx = fixed
            .map_err(|source| PackError::Fix {
                path: args.model.clone(),
                source: Box::new(source),
            })?
            .into();
    }
    let component = match &args.guest {
        Some(path) => component_from_guest(&read(path)?).map_err(|source| PackError::Guest {
            path: path.clone(),
            source,
        })?,
        None => pass_through(&args.graph_name).map_err(PackError::PassThrough)?,
    };
    let mut manifest = manifest(args, &onnx)?;
    let assemble = |manifest: &Manifest, samples: &[Sample]| {
        let graphs = [(args.graph_name.as_str(), &onnx[..])];
        let module =
            ModuleFile::assemble_with_samples(&component, manifest.clone(), &graphs, samples);
        module.map_err(|source| PackError::Assemble {
            path: args.model.clone(),
            source,
        })
    };
    let mut module = assemble(&manifest, &[])?;
    let runtime = engine::start(1).map_err(PackError::Engine)?;
    let mut model = load(args, &runtime, &module)?;
    let mut changes = Vec::new();
    // What a guest gives is its own.
    if args.guest.is_none() {
        let reconciled = model.reconcile(&args.graph_name, &mut manifest.outputs);
        changes = reconciled.map_err(|source| graph_error(args, source))?;
    }
    for change in &changes {
        tell(&format!("{}: {change}", args.model.display()));
    }
    // Samples are those of the graph, not of what its file says wrongly.
    let samples = match &args.samples {
        Some(folder) => samples::read(folder, &manifest)?,
        None => Vec::new(),
    };
    if !changes.is_empty() || !samples.is_empty() {
        module = assemble(&manifest, &samples)?;
        model = load(args, &runtime, &module)?;
    }
    if !samples.is_empty() {
        let report = model.check_samples(Tolerance::default());
        let disagreement = match report {
            Ok(report) => report.first_disagreement(),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = disagreement {
            let path = args.model.clone();
            return Err(PackError::Check { path, reason });
        }
    }
    Ok(module)
}

fn load(args: &Args, runtime: &Runtime, module: &ModuleFile) -> Result<Arc<Model>, PackError> {
    let loaded = runtime.load(module.file().clone());
    loaded.map_err(|source| match source {
        LoadError::Graph { source, .. } => graph_error(args, source),
        LoadError::Vet { source, .. } => PackError::Vet {
            path: args.model.clone(),
            source,
        },
        source => PackError::Load {
            path: args.guest.as_ref().unwrap_or(&args.model).clone(),
            source: Box::new(source),
        },
    })
}

fn graph_error(args: &Args, source: GraphError) -> PackError {
    PackError::Graph {
        path: args.model.clone(),
        source,
    }
}

/// What the arguments say goes before the manifest file, and that before what the graph says.
fn manifest(args: &Args, onnx: &[u8]) -> Result<Manifest, PackError> {
    let mut manifest = match &args.manifest {
        Some(path) => Manifest::parse(&read(path)?).map_err(|source| PackError::Manifest {
            path: path.clone(),
            source,
        })?,
        None => {
            let (inputs, outputs) =
                tidegate_graph::describe(onnx).map_err(|source| graph_error(args, source))?;
            let name = match &args.name {
                Some(name) => name.clone(),
                None => name_from(&args.out).ok_or_else(|| PackError::Name(args.out.clone()))?,
            };
            Manifest::new(name, VERSION_DEFAULT, inputs, outputs)
        }
    };
    if let Some(name) = &args.name {
        manifest.name.clone_from(name);
    }
    if let Some(version) = &args.version {
        manifest.version.clone_from(version);
    }
    if args.strict {
        manifest.isolation = Isolation::Strict;
    }
    if args.licence.is_some() {
        manifest.licence.clone_from(&args.licence);
    }
    Ok(manifest)
}

fn read(path: &Path) -> Result<Bytes, PackError> {
    let bytes =
        tidegate_store::read_regular(path, FILE_BYTES_MAX).map_err(|source| PackError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes.into())
}
