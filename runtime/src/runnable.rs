//! A graph that a module runs: on the host, or inside a sandbox of its own.

use std::sync::Arc;

use tidegate_graph::message::Fault;
use tidegate_graph::{Graph, GraphError, RunError};
use tidegate_inference::{Tensor, TensorSpec};

use crate::budget::{Budget, Stop};
use crate::strict::{StrictError, StrictGraph};

/// A graph, prepared.
#[derive(Clone, Debug)]
pub(crate) enum RunnableGraph {
    /// The engine runs it in this process.
    Host(Arc<Graph>),
    /// The engine runs it as a guest.
    Strict(Arc<StrictGraph>),
}

/// Why a graph gave no outputs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunGraphError {
    /// The engine on the host.
    #[error(transparent)]
    Host(RunError<Stop>),
    /// The graph's sandbox, or the engine in it.
    #[error(transparent)]
    Strict(StrictError),
}

/// Whose fault that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Nobody's: the time is over.
    Time,
    /// The guest's: an input that the graph's description already excludes.
    Guest,
    /// The caller's or the guest's: an input, or a shape that somebody chose.
    Inputs,
    /// As [`Blame::Inputs`], by its size.
    Size,
    /// The module's.
    Graph,
    /// This process's.
    Host,
}

impl RunnableGraph {
    /// What it takes, in the order in which a run wants it.
    pub(crate) fn inputs(&self) -> &[TensorSpec] {
        match self {
            Self::Host(graph) => graph.inputs(),
            Self::Strict(graph) => graph.inputs(),
        }
    }

    /// The names of what it gives.
    pub(crate) fn outputs(&self) -> &[String] {
        match self {
            Self::Host(graph) => graph.outputs(),
            Self::Strict(graph) => graph.outputs(),
        }
    }

    /// Whether the caller chooses a shape.
    fn has_free_axes(&self) -> bool {
        match self {
            Self::Host(graph) => graph.has_free_axes(),
            Self::Strict(graph) => graph.has_free_axes(),
        }
    }

    /// Runs it on inputs in its order.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        budget: &Budget,
    ) -> Result<Vec<Tensor>, RunGraphError> {
        match self {
            Self::Host(graph) => {
                let budget = budget.clone();
                let check = move || budget.check();
                graph.run(inputs, check).map_err(RunGraphError::Host)
            }
            Self::Strict(graph) => graph.run(inputs, budget).map_err(RunGraphError::Strict),
        }
    }

    /// Brings declared outputs in line with what it gives, where that is known here.
    pub(crate) fn reconcile(&self, outputs: &mut [TensorSpec]) -> Result<Vec<String>, GraphError> {
        match self {
            Self::Host(graph) => graph.reconcile(outputs),
            Self::Strict(_) => Ok(Vec::new()),
        }
    }

    /// Whose fault a failure is. A graph without free axes was prepared when its module was loaded, so
    /// what fails otherwise is a shape that somebody chose, which the engine may find out only in the run.
    pub(crate) fn blame(&self, error: &RunGraphError) -> Blame {
        let of_graph = if self.has_free_axes() {
            Blame::Inputs
        } else {
            Blame::Graph
        };
        let error = match error {
            RunGraphError::Host(error) => error,
            RunGraphError::Strict(StrictError::Stopped(_)) => return Blame::Time,
            RunGraphError::Strict(StrictError::Refused(refusal)) => {
                return match refusal.fault {
                    Fault::Inputs => Blame::Guest,
                    Fault::Values => Blame::Inputs,
                    Fault::TooLarge => Blame::Size,
                    Fault::Graph => of_graph,
                };
            }
            RunGraphError::Strict(
                StrictError::Plans { .. } | StrictError::Failed { .. } | StrictError::Answer { .. },
            ) => return of_graph,
        };
        match error {
            RunError::Stopped(_) => Blame::Time,
            RunError::Input { .. } => Blame::Guest,
            RunError::Operand { .. } | RunError::Plan(GraphError::Operand { .. }) => Blame::Inputs,
            RunError::TooLarge(_)
            | RunError::Plan(GraphError::NodeTooLarge { .. } | GraphError::RunTooLarge { .. }) => {
                Blame::Size
            }
            RunError::Plan(GraphError::Thread { .. }) => Blame::Host,
            RunError::Plan(_) | RunError::Failed { .. } => of_graph,
        }
    }
}
