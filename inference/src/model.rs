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

/// Where a model's graphs run, the weaker first: of two wishes the greater holds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// The guest runs in the sandbox, its graphs on the host: fast, for graphs of authors one trusts.
    #[default]
    Host,
    /// The graphs run in the sandbox too.
    Strict,
}

impl Isolation {
    /// `host` or `strict`, as manifests and configurations have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Strict => "strict",
        }
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

    /// Checks that the model gives every output in `names`.
    ///
    /// Fails as the caller's fault, naming the first that it does not.
    pub fn check_outputs(&self, names: &[String]) -> Result<(), Failure> {
        let unknown = names
            .iter()
            .find(|name| self.outputs.iter().all(|spec| spec.name != **name));
        match unknown {
            Some(name) => {
                let known: Vec<_> = self.outputs.iter().map(|spec| spec.name.as_str()).collect();
                let message = format!(
                    "model {:?} has no output {name:?}; its outputs are {known:?}",
                    self.name
                );
                Err(Failure::new(FailureKind::Invalid, message))
            }
            None => Ok(()),
        }
    }
}

/// Those of `outputs` that a request asked for by `names`, in the model's order; all if it named none.
#[must_use]
pub fn select_outputs(mut outputs: Vec<NamedTensor>, names: &[String]) -> Vec<NamedTensor> {
    if !names.is_empty() {
        outputs.retain(|output| names.contains(&output.name));
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn spec(name: &str) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            dtype: Dtype::Bytes,
            shape: vec![-1],
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn outputs_are_those_asked_for_in_the_models_order() {
        let metadata = ModelMetadata {
            name: "m".to_owned(),
            version: "1".to_owned(),
            platform: "test",
            inputs: Vec::new(),
            outputs: ["a", "b", "c"].map(spec).into(),
        };
        let check = |asked: &[&str], wanted: &[&str]| {
            let asked = names(asked);
            assert_eq!(metadata.check_outputs(&asked), Ok(()));
            let all = metadata.outputs.iter().map(|spec| NamedTensor {
                name: spec.name.clone(),
                tensor: Tensor::from_byte_elements(&["value"]),
            });
            let got: Vec<_> = select_outputs(all.collect(), &asked)
                .into_iter()
                .map(|output| output.name)
                .collect();
            assert_eq!(got, wanted, "{asked:?}");
        };
        check(&[], &["a", "b", "c"]);
        check(&["c", "a"], &["a", "c"]);
        check(&["b", "b"], &["b"]);
        let failure = metadata.check_outputs(&names(&["a", "x"])).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains("\"x\""), "{failure}");
    }
}
