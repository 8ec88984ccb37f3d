//! `tidegate check`: whether a module computes here what its author saw.
//!
//! The JSON, whose fields stay: `module`, `version` and `digest`; `tolerance` with `relative` and `absolute`;
//! `agrees`; and `samples`, each with `sample` (its place, from 0), `agrees`, `took_ms`, `failure` (text or
//! null) and `outputs`. An output has `name`, `datatype`, `shape`, `agrees`, `max_relative_difference` (a
//! number; null where the elements are no floats, or where it is infinite) and `difference` (text or null).

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use tidegate_runtime::samples::{
    CheckSamplesError, OutputOutcome, SampleOutcome, SampleReport, Tolerance,
};
use tidegate_runtime::{LoadError, Manifest, Model, ModuleError, ModuleFile, StartError};

use crate::engine;
use crate::samples::{self, ReadSamplesError};

/// Check that a module computes on this machine what its author saw.
///
/// Runs the samples that the module carries, or those of a folder. Succeeds only if every output agrees:
/// the same datatype and shape; integers, booleans and strings the same; floats within a tolerance.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The module.
    #[arg(value_name = "MODULE.wasm")]
    module: PathBuf,
    /// Take the samples from here, not from the module: files in_K_I.npy and out_K_J.npy, input I and
    /// output J of sample K.
    #[arg(long, value_name = "DIR")]
    samples: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How far a float may be from its reference, as a part of the reference.
    #[arg(long, value_name = "PART", default_value_t = Tolerance::default().relative, value_parser = tolerance)]
    rtol: f64,
    /// How far a float may be from its reference, whatever the reference.
    #[arg(long, value_name = "DISTANCE", default_value_t = Tolerance::default().absolute, value_parser = tolerance)]
    atol: f64,
}

/// Why a module was not checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// The file is not a model module.
    #[error("cannot read {} as a model module", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ModuleError,
    },
    /// The folder gives no samples.
    #[error("cannot use the samples")]
    Samples(#[from] ReadSamplesError),
    /// The engine does not start.
    #[error("cannot start the engine")]
    Engine(#[source] StartError),
    /// No agent would load the module.
    #[error("cannot load {}", path.display())]
    Load {
        /// The module.
        path: PathBuf,
        /// Why not.
        source: Box<LoadError>,
    },
    /// There is nothing to check.
    #[error("cannot check {}: give --samples, or pack it with samples", path.display())]
    Check {
        /// The module.
        path: PathBuf,
        /// Why not.
        source: CheckSamplesError,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if f64::is_finite(number) && number >= 0.0 => Ok(number),
        Ok(_) | Err(_) => Err("must be a number, zero or more".to_owned()),
    }
}

/// Runs every sample and prints how it came out; fails without a word more if one does not agree.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CheckError> {
    let path = || args.module.clone();
    let module = ModuleFile::read(&args.module).map_err(|source| CheckError::Module {
        path: path(),
        source,
    })?;
    let own = module.samples();
    let given = match &args.samples {
        Some(folder) => Some(samples::read(folder, module.manifest())?),
        None => None,
    };
    let samples = given.as_deref().unwrap_or(own);
    let refuse = |source| CheckError::Check {
        path: path(),
        source,
    };
    if samples.is_empty() {
        return Err(refuse(CheckSamplesError::NoSamples));
    }
    let model = engine::start(1)
        .map_err(CheckError::Engine)?
        .load(module.file().clone())
        .map_err(|source| CheckError::Load {
            path: path(),
            source: Box::new(source),
        })?;
    let tolerance = Tolerance {
        relative: args.rtol,
        absolute: args.atol,
    };
    let report = model.check_against(samples, tolerance).map_err(refuse)?;
    let out = &mut io::stdout().lock();
    let printed = if args.json {
        serde_json::to_writer_pretty(&mut *out, &describe(&model, &report))
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(model.manifest(), &report, out)
    };
    printed.map_err(CheckError::Print)?;
    Ok(if report.agrees() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(model: &Model, report: &SampleReport) -> Value {
    let Tolerance { relative, absolute } = report.tolerance;
    let output = |output: &OutputOutcome| {
        json!({
            "name": output.name,
            "datatype": output.dtype.name(),
            "shape": &output.shape[..],
            "agrees": output.agrees(),
            "max_relative_difference": output.difference.relative_max(),
            "difference": (!output.agrees()).then(|| output.difference.to_string()),
        })
    };
    let sample = |(index, sample): (usize, &SampleOutcome)| {
        let outputs = sample.outputs.as_ref().ok();
        json!({
            "sample": index,
            "agrees": sample.agrees(),
            "took_ms": sample.took.as_secs_f64() * 1e3,
            "failure": sample.outputs.as_ref().err().map(ToString::to_string),
            "outputs": outputs.map_or_else(Vec::new, |outputs| outputs.iter().map(output).collect()),
        })
    };
    json!({
        "module": model.manifest().name,
        "version": model.manifest().version,
        "digest": model.digest().to_string(),
        "tolerance": {"relative": relative, "absolute": absolute},
        "agrees": report.agrees(),
        "samples": report.samples.iter().enumerate().map(sample).collect::<Vec<_>>(),
    })
}

fn print(manifest: &Manifest, report: &SampleReport, out: &mut impl Write) -> io::Result<()> {
    let width = manifest
        .outputs
        .iter()
        .map(|output| output.name.chars().count());
    let width = width.max().unwrap_or_default().max("output".len());
    writeln!(
        out,
        "sample  {:<width$}  max relative difference  verdict",
        "output"
    )?;
    for (index, sample) in report.samples.iter().enumerate() {
        match &sample.outputs {
            Err(failure) => writeln!(
                out,
                "{index:<6}  {:<width$}  {:<23}  failed: {failure}",
                "-", "-"
            )?,
            Ok(outputs) => {
                for output in outputs {
                    print_output(index, output, width, out)?;
                }
            }
        }
    }
    let total = report.samples.len();
    let agreeing = report
        .samples
        .iter()
        .filter(|sample| sample.agrees())
        .count();
    let Tolerance { relative, absolute } = report.tolerance;
    writeln!(
        out,
        "{} {}: {agreeing} of {total} samples agree within {relative} of the reference, or {absolute}",
        manifest.name, manifest.version
    )
}

fn print_output(
    sample: usize,
    output: &OutputOutcome,
    width: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let relative = match output.difference.relative_max() {
        Some(relative) => format!("{relative:.1e}"),
        None => "-".to_owned(),
    };
    let verdict = if output.agrees() {
        "agrees".to_owned()
    } else {
        format!("differs: {}", output.difference)
    };
    writeln!(
        out,
        "{sample:<6}  {:<width$}  {relative:<23}  {verdict}",
        output.name
    )
}
