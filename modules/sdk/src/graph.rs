//! The ONNX graphs that a module carries, run by the host.

use crate::bindings::wasi::nn::errors;
use crate::bindings::wasi::nn::graph;
use crate::bindings::wasi::nn::inference::GraphExecutionContext;
use crate::{Inputs, Result, Tensor};

/// A graph that is ready to run.
#[derive(Debug)]
pub struct Graph {
    name: String,
    context: GraphExecutionContext,
}

impl Graph {
    /// The graph of this name in the module's manifest. The host prepared it when it loaded the
    /// module, so this costs microseconds.
    pub fn load(name: &str) -> Result<Self> {
        let failed = |error| explain("load", name, &error);
        let context = graph::load_by_name(name)
            .and_then(|graph| graph.init_execution_context())
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            context,
        })
    }

    /// Runs the graph on tensors by the names of its inputs; gives them by those of its outputs.
    /// May be called many times.
    pub fn run<'a>(&self, inputs: impl IntoIterator<Item = (&'a str, Tensor)>) -> Result<Inputs> {
        let named = inputs
            .into_iter()
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .collect();
        self.context
            .compute(named)
            .map(Inputs::from)
            .map_err(|error| explain("run", &self.name, &error))
    }
}

fn explain(action: &str, graph: &str, error: &errors::Error) -> String {
    format!(
        "failed to {action} graph {graph:?}: {:?}: {}",
        error.code(),
        error.data()
    )
}
