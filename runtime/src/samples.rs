//! Inputs with the outputs that the author saw, and whether a model reproduces them here.
//!
//! A module can carry samples, so that every host proves after preparing a graph on its own processor that it
//! computes what the author saw. Each sample is a request of its own: models with state take it as
//! tensors, so no sample depends on another, and their shapes may differ where the model's axes are free.
//!
//! Outputs must have the dtype and shape of the reference. Integers, booleans and strings must be the same.
//! A float agrees if its difference from the reference is at most `absolute`, or at most `relative`
//! times the reference; NaN agrees with NaN alone, and an infinity with itself alone.

mod codec;
mod compare;

use std::time::{Duration, Instant};

use tidegate_inference::{Dtype, Failure, NamedTensor, Shape};

pub use self::codec::{SamplesError, decode, encode};
pub use self::compare::{Difference, compare};
use crate::budget::Budget;
use crate::model::Model;
use crate::module::Manifest;

/// Most samples of a module.
pub const SAMPLES_MAX: usize = 64;

/// Most bytes of all samples of a module: a dozen images of 640 x 480 as 32-bit floats.
pub const SAMPLES_BYTES_MAX: usize = 64 << 20;

/// Longest run of one sample, if the runtime's limits allow as much.
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(60);

/// Inputs of a model, and what it gave to its author for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Every input of the model.
    pub inputs: Vec<NamedTensor>,
    /// Reference outputs: every output, or those that matter.
    pub outputs: Vec<NamedTensor>,
}

/// How far a float may be from its reference. Both are at least zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Part of the reference's magnitude.
    pub relative: f64,
    /// Whatever the reference is.
    pub absolute: f64,
}

impl Default for Tolerance {
    /// Room for another order of summation in 32-bit floats, not for another result.
    fn default() -> Self {
        Self {
            relative: 1e-3,
            absolute: 1e-4,
        }
    }
}

/// How the samples of a model came out.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleReport {
    /// The tolerance that was applied.
    pub tolerance: Tolerance,
    /// Each sample in order, at least one.
    pub samples: Vec<SampleOutcome>,
}

/// How one sample came out.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleOutcome {
    /// Its outputs in the order of the reference, or why the model gave none.
    pub outputs: Result<Vec<OutputOutcome>, Failure>,
    /// How long the run took, preparing the graph for its shapes included.
    pub took: Duration,
}

/// How one output compares with its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputOutcome {
    /// Its name.
    pub name: String,
    /// The reference's dtype.
    pub dtype: Dtype,
    /// The reference's shape.
    pub shape: Shape,
    /// What differs, and how much.
    pub difference: Difference,
}

/// Why nothing was checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckSamplesError {
    /// There is nothing to compare with.
    #[error("the module carries no samples")]
    NoSamples,
}

impl OutputOutcome {
    /// Whether it is what the author saw.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.difference.agrees()
    }
}

impl SampleOutcome {
    /// Whether every output is what the author saw.
    #[must_use]
    pub fn agrees(&self) -> bool {
        match &self.outputs {
            Ok(outputs) => outputs.iter().all(OutputOutcome::agrees),
            Err(_) => false,
        }
    }
}

impl SampleReport {
    /// Whether every output of every sample is what the author saw.
    #[must_use]
    pub fn agrees(&self) -> bool {
        !self.samples.is_empty() && self.samples.iter().all(SampleOutcome::agrees)
    }

    /// The first disagreement in one line, for a log.
    #[must_use]
    pub fn first_disagreement(&self) -> Option<String> {
        for (index, sample) in self.samples.iter().enumerate() {
            match &sample.outputs {
                Err(failure) => return Some(format!("sample {index} failed: {failure}")),
                Ok(outputs) => {
                    if let Some(output) = outputs.iter().find(|output| !output.agrees()) {
                        let OutputOutcome {
                            name, difference, ..
                        } = output;
                        return Some(format!("sample {index}, output {name:?}: {difference}"));
                    }
                }
            }
        }
        None
    }
}

impl Model {
    /// Runs the samples that the module carries and compares its outputs with the author's.
    ///
    /// Runs on this thread, one sample after the other, each for at most 60 s or the runtime's limit.
    /// Disagreements and failures of single samples are in the report.
    pub fn check_samples(&self, tolerance: Tolerance) -> Result<SampleReport, CheckSamplesError> {
        self.check_against(self.module.samples(), tolerance)
    }

    /// As [`Model::check_samples`], with other samples than the module's own.
    pub fn check_against(
        &self,
        samples: &[Sample],
        tolerance: Tolerance,
    ) -> Result<SampleReport, CheckSamplesError> {
        if samples.is_empty() {
            return Err(CheckSamplesError::NoSamples);
        }
        let run = |sample: &Sample| {
            let started = Instant::now();
            let budget = Budget::until(started + SAMPLE_TIME_MAX);
            let got = self.infer(sample.inputs.clone(), &budget);
            let outputs = got.map(|got| compare_all(&sample.outputs, &got, tolerance));
            let took = started.elapsed();
            SampleOutcome { outputs, took }
        };
        let samples = samples.iter().map(run).collect();
        Ok(SampleReport { tolerance, samples })
    }
}

/// Checks that samples are of the model that a manifest describes: every input, and outputs that it gives.
pub(crate) fn check_fit(manifest: &Manifest, samples: &[Sample]) -> Result<(), SamplesError> {
    let metadata = manifest.metadata("");
    for (index, sample) in samples.iter().enumerate() {
        let refuse = |reason: String| SamplesError::Fit { index, reason };
        let inputs = metadata.check_inputs(&sample.inputs);
        inputs.map_err(|failure| refuse(failure.message))?;
        if sample.outputs.is_empty() {
            return Err(refuse("it has no reference outputs".to_owned()));
        }
        for (place, NamedTensor { name, tensor }) in sample.outputs.iter().enumerate() {
            let spec = metadata.outputs.iter().find(|spec| spec.name == *name);
            let Some(spec) = spec else {
                return Err(refuse(format!("the model has no output {name:?}")));
            };
            if sample.outputs[..place]
                .iter()
                .any(|earlier| earlier.name == *name)
            {
                return Err(refuse(format!("output {name:?} is given twice")));
            }
            if !spec.accepts(tensor.dtype(), tensor.shape()) {
                return Err(refuse(format!(
                    "output {name:?} is {} of shape {:?}, got {tensor:?}",
                    spec.dtype, spec.shape
                )));
            }
        }
    }
    Ok(())
}

fn compare_all(
    wanted: &[NamedTensor],
    got: &[NamedTensor],
    tolerance: Tolerance,
) -> Vec<OutputOutcome> {
    let outcome = |wanted: &NamedTensor| {
        let got = got.iter().find(|got| got.name == wanted.name);
        OutputOutcome {
            name: wanted.name.clone(),
            dtype: wanted.tensor.dtype(),
            shape: Shape::from_slice(wanted.tensor.shape()),
            difference: match got {
                Some(got) => compare(&wanted.tensor, &got.tensor, tolerance),
                None => Difference::Missing,
            },
        }
    };
    wanted.iter().map(outcome).collect()
}
