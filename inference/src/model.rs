//! What a model says of itself: the names, dtypes and shapes of its inputs and outputs.

use serde::{Deserialize, Serialize};

use crate::{Dtype, Failure, FailureKind, NamedTensor};

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Its name, at most [`crate::NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Type of its elements.
    #[serde(rename = "datatype")]
    pub dtype: Dtype,
    /// Extents, `-1` for an axis that each request chooses.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a tensor of this dtype and shape fits. A free axis takes any extent.
    #[must_use]
    pub fn accepts(&self, dtype: Dtype, shape: &[usize]) -> bool {
        let fits = |(want, got): (&i64, &usize)| *want == -1 || i64::try_from(*got) == Ok(*want);
        self.dtype == dtype
            && self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(fits)
    }
}

/// A served model, as the metadata endpoint reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMetadata {
    /// The name that requests give.
    pub name: String,
    /// The module's version.
    pub version: String,
    /// What runs it.
    pub platform: &'static str,
    /// What it takes.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
}

impl ModelMetadata {
    /// Checks `inputs` against what the model takes: each input once, by name, dtype and shape.
    ///
    /// Fails as the caller's fault, naming the input and both sides of the difference.
    pub fn check_inputs(&self, inputs: &[NamedTensor]) -> Result<(), Failure> {
        let invalid = |message| Err(Failure::new(FailureKind::Invalid, message));
        for (index, input) in inputs.iter().enumerate() {
            let name = &input.name;
            let Some(spec) = self.inputs.iter().find(|spec| spec.name == *name) else {
                let known: Vec<_> = self.inputs.iter().map(|spec| spec.name.as_str()).collect();
                let message = format!(
                    "model {:?} has no input {name:?}; its inputs are {known:?}",
                    self.name
                );
                return invalid(message);
            };
            if inputs[..index].iter().any(|earlier| earlier.name == *name) {
                return invalid(format!("input {name:?} is given twice"));
            }
            if !spec.accepts(input.tensor.dtype(), input.tensor.shape()) {
                return invalid(format!(
                    "input {name:?} takes {} of shape {:?}, got {} of shape {:?}",
                    spec.dtype,
                    spec.shape,
                    input.tensor.dtype(),
                    input.tensor.shape()
                ));
            }
        }
        match self
            .inputs
            .iter()
            .find(|spec| inputs.iter().all(|input| input.name != spec.name))
        {
            Some(missing) => invalid(format!("input {:?} is missing", missing.name)),
            None => Ok(()),
        }
    }
}
