//! `tidegate inspect`: shows what a model module holds, without running any of it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use tidegate_inference::TensorSpec;
use tidegate_registry::signature::{Report, Signer, Statement, VerifyError, verify};
use tidegate_runtime::module::{ModuleError, ModuleFile};

use crate::verify::describe_part;

/// Show what a model module holds: manifest, sizes, digests, imports, parts, who claims to have signed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The module.
    #[arg(value_name = "MODULE.wasm")]
    module: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// The file is not a model module.
    #[error("cannot read {} as a model module", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ModuleError,
    },
    /// Its signatures are malformed.
    #[error("cannot read the signatures of {}", path.display())]
    Signatures {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: VerifyError,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

/// Reads the module, checks that it is whole, and prints what it holds.
pub(crate) fn run(args: &Args) -> Result<(), InspectError> {
    let module = ModuleFile::read(&args.module).map_err(|source| InspectError::Read {
        path: args.module.clone(),
        source,
    })?;
    // Without keys nothing is verified: what is shown of signatures is what they claim.
    let signed = verify(module.file(), None, &[]).map_err(|source| InspectError::Signatures {
        path: args.module.clone(),
        source,
    })?;
    let out = &mut io::stdout().lock();
    let printed = if args.json {
        serde_json::to_writer_pretty(&mut *out, &describe(&module, &signed))
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(&module, &signed, out)
    };
    printed.map_err(InspectError::Print)
}

fn describe(module: &ModuleFile, signed: &Report) -> Value {
    let graphs: Vec<Value> = module
        .graphs()
        .iter()
        .map(|graph| {
            json!({"name": graph.name, "bytes": graph.onnx.len(), "digest": graph.digest.to_string()})
        })
        .collect();
    let sections: Vec<Value> = module
        .sections()
        .iter()
        .map(|section| json!({"name": section.name, "bytes": section.bytes}))
        .collect();
    let parts: Vec<Value> = signed
        .parts
        .iter()
        .map(|part| {
            json!({"bytes": part.range.len(), "digest": part.hash.to_string(), "sections": part.sections})
        })
        .collect();
    let signatures: Vec<Value> = signed
        .statements
        .iter()
        .map(|statement| json!({"key": key_id(statement), "covers": statement.covered()}))
        .collect();
    json!({
        "bytes": module.file().len(),
        "digest": module.digest().to_string(),
        "manifest": module.manifest(),
        "isolation": module.manifest().isolation.name(),
        "graphs": graphs,
        "samples": module.samples().len(),
        "parts": parts,
        "signatures": signatures,
        "imports": module.imports(),
        "sections": sections,
    })
}

/// What a signature calls its key, in hexadecimal; `None` for other algorithms than Ed25519.
fn key_id(statement: &Statement) -> Option<String> {
    match &statement.signer {
        Signer::Known(key) => Some(key.id().to_string()),
        Signer::Forged(id) => Some(id.to_string()),
        Signer::Unknown { key_id } => {
            Some(key_id.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        Signer::Algorithm(_) => None,
    }
}

fn print(module: &ModuleFile, signed: &Report, out: &mut impl Write) -> io::Result<()> {
    let manifest = module.manifest();
    writeln!(out, "{} {}", manifest.name, manifest.version)?;
    writeln!(
        out,
        "licence   {}",
        manifest.licence.as_deref().unwrap_or("not stated")
    )?;
    writeln!(out, "digest    {}", module.digest())?;
    writeln!(out, "bytes     {}", module.file().len())?;
    writeln!(out, "isolation {}", manifest.isolation.name())?;
    print_tensors("inputs", &manifest.inputs, out)?;
    print_tensors("outputs", &manifest.outputs, out)?;
    if let Some(bytes) = manifest.limits.memory_bytes {
        writeln!(out, "memory    at most {bytes} bytes")?;
    }
    if let Some(milliseconds) = manifest.limits.compute_ms {
        writeln!(out, "compute   at most {milliseconds} ms")?;
    }
    for (name, value) in &manifest.labels {
        writeln!(out, "label     {name}: {value}")?;
    }
    for graph in module.graphs() {
        writeln!(
            out,
            "graph     {}: {} bytes, {}",
            graph.name,
            graph.onnx.len(),
            graph.digest
        )?;
    }
    writeln!(out, "samples   {}", module.samples().len())?;
    for (index, part) in signed.parts.iter().enumerate() {
        writeln!(out, "part      {}: {}", index + 1, describe_part(part))?;
    }
    if signed.statements.is_empty() {
        writeln!(out, "signature none")?;
    }
    for statement in &signed.statements {
        let key = key_id(statement).unwrap_or_else(|| "of another algorithm".to_owned());
        writeln!(
            out,
            "signature key {key}, not verified, claims {}",
            statement.covered()
        )?;
    }
    for import in module.imports() {
        writeln!(out, "import    {import:?}")?;
    }
    // Names of sections are whatever the file says.
    let mut sections = BTreeMap::<&str, (usize, usize)>::new();
    for section in module.sections() {
        let (count, bytes) = sections.entry(&section.name).or_default();
        *count += 1;
        *bytes += section.bytes;
    }
    for (name, (count, bytes)) in sections {
        writeln!(out, "section   {name:?}: {bytes} bytes in {count}")?;
    }
    Ok(())
}

fn print_tensors(title: &str, specs: &[TensorSpec], out: &mut impl Write) -> io::Result<()> {
    let mut title = title;
    for spec in specs {
        writeln!(
            out,
            "{title:<9} {}: {} of shape {:?}",
            spec.name, spec.dtype, spec.shape
        )?;
        title = "";
    }
    Ok(())
}
