//! Tensors by name: of a request, of a graph, and of an answer.

use crate::Result;
use crate::bindings::NamedTensor;
use crate::bindings::wasi::nn::tensor::Tensor;

/// Tensors to take from: a request's inputs or a graph's outputs.
#[derive(Debug)]
pub struct Inputs(Vec<NamedTensor>);

impl Inputs {
    /// Takes the tensor of this name out. Fails, naming those that are left, if there is none.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        let Some(index) = self.0.iter().position(|(have, _)| have == name) else {
            let have: Vec<_> = self.0.iter().map(|(name, _)| name).collect();
            return Err(format!("there is no tensor {name:?}; there are {have:?}"));
        };
        Ok(self.0.swap_remove(index).1)
    }

    /// The tensors that have not been taken, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

impl From<Vec<NamedTensor>> for Inputs {
    fn from(tensors: Vec<NamedTensor>) -> Self {
        Self(tensors)
    }
}

/// Answers everything that is left: a module that only passes on copies no element.
impl From<Inputs> for Outputs {
    fn from(inputs: Inputs) -> Self {
        Self(inputs.0)
    }
}

/// The answer to a request.
#[derive(Debug, Default)]
pub struct Outputs(Vec<NamedTensor>);

impl Outputs {
    /// No output yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor under the name that the manifest declares.
    #[must_use]
    pub fn with(mut self, name: &str, tensor: Tensor) -> Self {
        self.0.push((name.to_owned(), tensor));
        self
    }
}

impl From<Outputs> for Vec<NamedTensor> {
    fn from(outputs: Outputs) -> Self {
        outputs.0
    }
}
