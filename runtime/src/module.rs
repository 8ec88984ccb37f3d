//! The module format: one WebAssembly component that carries its graphs.
//!
//! A model module is a component with custom sections of its own at the outermost level:
//! [`MANIFEST_SECTION`] holds the [`Manifest`] as JSON, each `tidegate:graph:NAME` holds one ONNX file, and
//! [`SAMPLES_SECTION`] may hold samples. The manifest comes first and names the SHA-256 of every graph, so
//! a graph that was cut or changed is refused. Sections of other names are left alone.
//!
//! Sections `signature_delimiter` divide a file into parts that can be signed, verified and fetched apart: the
//! code with the manifest, the graphs, the samples. The convention wants random delimiters, so that a
//! part that was taken away cannot be guessed from its hash; nothing here is secret, and a delimiter is
//! made of the manifest instead, so that the same inputs give the same file.
//!
//! Reading copies no bytes: graphs are slices of the file. It does not compile the code, and
//! [`ModuleFile::parse`] takes bytes from anywhere: everything is bounded by a constant here.

mod guest;
mod manifest;
mod outline;
mod pass_through;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidegate_inference::Digest;
use wasm_encoder::Encode;

pub use self::guest::{GuestError, component_from_guest};
pub use self::manifest::{
    GraphEncoding, GraphEntry, LABELS_MAX, Manifest, ManifestError, ModuleLimits, TENSORS_MAX,
};
use self::outline::Outline;
pub use self::pass_through::{PassThroughError, pass_through};
use crate::samples::{self, Sample, SamplesError};

/// Name of the section that holds the manifest.
pub const MANIFEST_SECTION: &str = "tidegate:manifest";

/// What the names of the sections that hold graphs begin with.
pub const GRAPH_SECTION_PREFIX: &str = "tidegate:graph:";

/// Name of the section that holds samples.
pub const SAMPLES_SECTION: &str = "tidegate:samples";

/// Name of the sections that end a part, in WebAssembly's tool convention for signatures.
pub const DELIMITER_SECTION: &str = "signature_delimiter";

/// Length of a delimiter's contents.
const DELIMITER_BYTES: usize = 16;

/// Largest module file: a graph may take all of it.
pub const FILE_BYTES_MAX: usize = tidegate_graph::ONNX_BYTES_MAX;

/// Largest manifest: room for every tensor, graph and label at its longest.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// Most graphs in a module.
pub const GRAPHS_MAX: usize = 16;

/// Most sections at the outermost level; wit-component writes some thirty.
pub const SECTIONS_MAX: usize = 4096;

/// Most imports of a component; the world of a module has five.
pub const IMPORTS_MAX: usize = 64;

/// Why bytes are not a model module, or cannot be made one.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The file cannot be read.
    #[error("failed to read module {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// More than [`FILE_BYTES_MAX`].
    #[error("the module has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Not WebAssembly, cut off, or malformed.
    #[error("not a WebAssembly component")]
    Malformed {
        /// What the parser says, with the offset.
        source: wasmparser::BinaryReaderError,
    },
    /// A core module, which has no typed imports and exports.
    #[error("a core WebAssembly module, not a component; `tidegate pack --guest` makes one of it")]
    CoreModule,
    /// More of something than a limit allows.
    #[error("the module has more than {limit} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A component without [`MANIFEST_SECTION`].
    #[error("the component has no {MANIFEST_SECTION} section, so it is not a model module")]
    NoManifest,
    /// Two sections of one name.
    #[error("section {name:?} occurs twice")]
    DuplicateSection {
        /// The name.
        name: String,
    },
    /// The manifest says something that cannot be.
    #[error("the manifest is not valid")]
    Manifest {
        /// What and where.
        source: ManifestError,
    },
    /// The manifest names a graph that no section holds.
    #[error("graph {name:?} is in the manifest, but its section is missing")]
    MissingGraph {
        /// The graph.
        name: String,
    },
    /// A section holds a graph that the manifest does not name.
    #[error("graph {name:?} has a section, but is not in the manifest")]
    UnlistedGraph {
        /// The graph.
        name: String,
    },
    /// A graph is not the one that the manifest pins.
    #[error("graph {name:?} is {got}, the manifest says {wanted}")]
    GraphDigest {
        /// The graph.
        name: String,
        /// The digest of the section.
        got: Digest,
        /// The digest in the manifest.
        wanted: Digest,
    },
    /// The samples are malformed, or of another model.
    #[error("the samples are not valid")]
    Samples {
        /// What and where.
        source: Box<SamplesError>,
    },
}

impl ModuleError {
    fn samples(source: SamplesError) -> Self {
        Self::Samples {
            source: Box::new(source),
        }
    }
}

/// A graph as it lies in a module.
#[derive(Clone, Debug)]
pub struct GraphSection {
    /// The name by which the guest loads it.
    pub name: String,
    /// SHA-256 of `onnx`.
    pub digest: Digest,
    /// The ONNX file, a slice of the module.
    pub onnx: Bytes,
}

/// One outermost section, for a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name of a custom section, or what another section holds.
    pub name: String,
    /// Length of its contents.
    pub bytes: usize,
}

/// A module file that has been read and checked. Its code has not been looked at.
#[derive(Clone, Debug)]
pub struct ModuleFile {
    file: Bytes,
    digest: Digest,
    manifest: Manifest,
    graphs: Vec<GraphSection>,
    samples: Vec<Sample>,
    imports: Vec<String>,
    sections: Vec<Section>,
}

impl ModuleFile {
    /// Reads a module from a regular file of at most [`FILE_BYTES_MAX`].
    pub fn read(path: &Path) -> Result<Self, ModuleError> {
        let read = tidegate_store::read_regular(path, FILE_BYTES_MAX);
        let bytes = read.map_err(|source| ModuleError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(bytes.into())
    }

    /// Reads a module. The graphs keep `file` alive.
    pub fn parse(file: Bytes) -> Result<Self, ModuleError> {
        if file.len() > FILE_BYTES_MAX {
            return Err(ModuleError::TooLarge);
        }
        let outline = Outline::of(&file)?;
        let json = outline.manifest.ok_or(ModuleError::NoManifest)?;
        let manifest =
            Manifest::parse(&file[json]).map_err(|source| ModuleError::Manifest { source })?;
        let mut graphs = Vec::with_capacity(manifest.graphs.len());
        for entry in &manifest.graphs {
            let name = entry.name.clone();
            let Some((_, range)) = outline.graphs.iter().find(|(found, _)| *found == name) else {
                return Err(ModuleError::MissingGraph { name });
            };
            let onnx = file.slice(range.clone());
            let got = sha256(&onnx);
            if got != entry.sha256 {
                let wanted = entry.sha256;
                return Err(ModuleError::GraphDigest { name, got, wanted });
            }
            graphs.push(GraphSection {
                name,
                digest: got,
                onnx,
            });
        }
        if let Some((name, _)) = outline
            .graphs
            .iter()
            .find(|(name, _)| graphs.iter().all(|graph| graph.name != *name))
        {
            let name = name.clone();
            return Err(ModuleError::UnlistedGraph { name });
        }
        let mut samples = Vec::new();
        if let Some(range) = outline.samples {
            samples = samples::decode(&file.slice(range))
                .and_then(|samples| samples::check_fit(&manifest, &samples).map(|()| samples))
                .map_err(ModuleError::samples)?;
        }
        Ok(Self {
            digest: sha256(&file),
            file,
            manifest,
            graphs,
            samples,
            imports: outline.imports,
            sections: outline.sections,
        })
    }

    /// Makes a module of a component, what it says of itself, and its graphs as (name, ONNX file).
    ///
    /// The manifest's list of graphs is written anew from `graphs`. The result has been read back, so
    /// nothing is made that [`ModuleFile::parse`] would refuse.
    pub fn assemble(
        component: &[u8],
        manifest: Manifest,
        graphs: &[(&str, &[u8])],
    ) -> Result<Self, ModuleError> {
        Self::assemble_with_samples(component, manifest, graphs, &[])
    }

    /// As [`ModuleFile::assemble`], with samples, which must fit the manifest but have not been run.
    pub fn assemble_with_samples(
        component: &[u8],
        mut manifest: Manifest,
        graphs: &[(&str, &[u8])],
        samples: &[Sample],
    ) -> Result<Self, ModuleError> {
        let samples = if samples.is_empty() {
            None
        } else {
            Some(samples::encode(samples).map_err(ModuleError::samples)?)
        };
        let weights: usize = graphs.iter().map(|(_, onnx)| onnx.len()).sum();
        let carried = weights + samples.as_ref().map_or(0, Vec::len);
        if component.len() + carried > FILE_BYTES_MAX {
            return Err(ModuleError::TooLarge);
        }
        manifest.graphs = graphs
            .iter()
            .map(|(name, onnx)| GraphEntry {
                name: (*name).to_owned(),
                encoding: GraphEncoding::Onnx,
                sha256: sha256(onnx),
            })
            .collect();
        let json = manifest.to_json();
        let mut file = Vec::with_capacity(component.len() + carried + json.len() + 4096);
        file.extend_from_slice(component);
        append_section(&mut file, MANIFEST_SECTION, &json);
        end_part(&mut file, "code", &json);
        for (name, onnx) in graphs {
            append_section(&mut file, &format!("{GRAPH_SECTION_PREFIX}{name}"), onnx);
        }
        if !graphs.is_empty() {
            end_part(&mut file, "graphs", &json);
        }
        if let Some(samples) = samples {
            append_section(&mut file, SAMPLES_SECTION, &samples);
            end_part(&mut file, "samples", &json);
        }
        Self::parse(file.into())
    }

    /// The whole file.
    #[must_use]
    pub fn file(&self) -> &Bytes {
        &self.file
    }

    /// SHA-256 of the whole file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the module says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The graphs, in the manifest's order.
    #[must_use]
    pub fn graphs(&self) -> &[GraphSection] {
        &self.graphs
    }

    /// The samples that the module carries, which may be none.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// What the component imports beside names for types, such as `wasi:nn/graph@0.2.0-rc-2024-10-28`.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// The outermost sections in the file's order, with their sizes.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Digest(
        digest
            .as_ref()
            .try_into()
            .expect("a SHA-256 digest has 32 bytes"),
    )
}

/// Ends a part of the file: what comes next is signed apart.
fn end_part(file: &mut Vec<u8>, part: &str, manifest: &[u8]) {
    let Digest(content) = sha256(&[part.as_bytes(), b"\n", manifest].concat());
    append_section(file, DELIMITER_SECTION, &content[..DELIMITER_BYTES]);
}

/// Appends a custom section to a component or a core module.
fn append_section(file: &mut Vec<u8>, name: &str, data: &[u8]) {
    let section = wasm_encoder::CustomSection {
        name: name.into(),
        data: data.into(),
    };
    file.push(0);
    section.encode(file);
}
