//! Why an ONNX file cannot be used, in words that name what and where.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_inference::TensorError;
use tract_onnx::prelude::{TractError, TractResult};

use super::{DECISIVE_LEN_MAX, NODES_MAX, ONNX_BYTES_MAX, panic_text, shorten, shorten_name};

/// Why an ONNX file cannot be described, read or prepared.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// More than [`ONNX_BYTES_MAX`].
    #[error("the ONNX file has more than {ONNX_BYTES_MAX} bytes")]
    TooLarge,
    /// Not a serialised `ModelProto`.
    #[error("not an ONNX file")]
    NotOnnx {
        /// Where decoding failed.
        source: prost::DecodeError,
    },
    /// A `ModelProto` without a graph: empty, or something else that happens to decode.
    #[error("not an ONNX file: it holds no graph")]
    NoGraph,
    /// More than [`NODES_MAX`] nodes.
    #[error("the graph has {got} nodes, at most {NODES_MAX} are allowed")]
    Nodes {
        /// Nodes given.
        got: usize,
    },
    /// It decodes, and is no graph all the same.
    #[error("the graph is malformed: {reason}")]
    Malformed {
        /// What and where.
        reason: String,
    },
    /// A tensor whose data lies in another file. No other file is ever read.
    #[error("tensor {tensor:?} has its data in another file: save the graph with its data inside")]
    ExternalData {
        /// The tensor.
        tensor: String,
    },
    /// An input or output that cannot be served.
    #[error("{place} {name:?}: {reason}")]
    Value {
        /// `input` or `output`.
        place: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Operators that the engine does not have.
    #[error("operators {operators:?} are not implemented")]
    Operators {
        /// Each once.
        operators: Vec<String>,
    },
    /// An input decides shapes by its values, and is too large for that.
    #[error(
        "input {name:?} has {got} elements, and decides shapes: at most {DECISIVE_LEN_MAX} are allowed ({reason})"
    )]
    Decisive {
        /// The input.
        name: String,
        /// Its elements.
        got: usize,
        /// What tract says without its values.
        reason: String,
    },
    /// The engine refuses the graph.
    #[error("the graph cannot be prepared: {reason}")]
    Prepare {
        /// What tract says, causes included.
        reason: String,
    },
    /// A shape, or a value that is part of the graph or decides shapes, is one that a node cannot take.
    #[error("the graph gives a node what it cannot take: {reason}")]
    Operand {
        /// Which node, and what is wrong.
        reason: String,
    },
    /// The system gave no thread to prepare the graph on.
    #[error("there is no thread to prepare the graph on: {reason}")]
    Thread {
        /// What the system says.
        reason: String,
    },
    /// A tensor inside the graph would be larger than a limit.
    #[error("node {node:?} makes a tensor of {bytes} bytes, at most {limit} are allowed")]
    NodeTooLarge {
        /// The node.
        node: String,
        /// Bytes of its output.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The tensors that a run holds at once would be larger than a limit.
    #[error(
        "node {node:?} makes the tensors held at once {held} bytes, at most {limit} are allowed"
    )]
    RunTooLarge {
        /// The node.
        node: String,
        /// Bytes of all tensors with its outputs.
        held: usize,
        /// The limit.
        limit: usize,
    },
    /// Nobody waits for it any more.
    #[error("the graph was being prepared when the time was over")]
    Stopped,
    /// A tensor that the graph gives cannot be passed on.
    #[error("a tensor of the graph cannot be passed on")]
    Tensor(#[from] TensorError),
}

impl GraphError {
    pub(super) fn prepare(error: &TractError) -> Self {
        if let Some(refused) = error.chain().find_map(|cause| cause.downcast_ref::<Self>()) {
            return refused.clone();
        }
        match NodeError::of(error) {
            Some(node) if node.is_of_operand => Self::Operand {
                reason: node.to_string(),
            },
            Some(node) => Self::Prepare {
                reason: node.to_string(),
            },
            None => Self::Prepare {
                reason: said(error),
            },
        }
    }
}

/// A node that cannot be computed, in words that name it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("node {node:?} ({operator}): {reason}")]
pub(crate) struct NodeError {
    node: String,
    operator: String,
    reason: String,
    /// Whether a value that it takes is what is wrong.
    pub(super) is_of_operand: bool,
}

impl NodeError {
    /// A node that takes a value that it must not.
    pub(super) fn operand(node: &str, operator: &str, reason: String) -> Self {
        Self {
            node: shorten_name(node),
            operator: shorten_name(operator),
            reason,
            is_of_operand: true,
        }
    }

    /// The error that a node inside named itself with, if one did.
    pub(super) fn of(error: &TractError) -> Option<&Self> {
        error.chain().find_map(|cause| cause.downcast_ref::<Self>())
    }

    /// Does a step of a node, and names the node where it fails, by an error or a panic.
    pub(super) fn naming<T>(
        node: &str,
        operator: &str,
        step: impl FnOnce() -> TractResult<T>,
    ) -> TractResult<T> {
        let named = |reason: String, is_of_operand: bool| Self {
            node: shorten_name(node),
            operator: shorten_name(operator),
            reason,
            is_of_operand,
        };
        let error = match catch_unwind(AssertUnwindSafe(step)) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(panic) => return Err(named(panic_text(&*panic), false).into()),
        };
        if is_ours(&error) {
            return Err(error);
        }
        if let Some(TooLarge { bytes, limit }) = error.root_cause().downcast_ref() {
            let (node, bytes, limit) = (shorten_name(node), *bytes, *limit);
            return Err(GraphError::NodeTooLarge { node, bytes, limit }.into());
        }
        let is_of_operand = error.downcast_ref::<OfOperand>().is_some();
        Err(named(said(&error), is_of_operand).into())
    }
}

/// A tensor that an operator of ours would make.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a tensor of {bytes} bytes, at most {limit} are allowed")]
pub(crate) struct TooLarge {
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
}

/// Around why an operator of ours refuses the values that it was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OfOperand(pub(crate) String);

/// Whether an error says already what and where.
fn is_ours(error: &TractError) -> bool {
    let is_ours = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<GraphError>() || cause.is::<NodeError>()
    };
    error.chain().any(is_ours)
}

/// What the engine says, causes included. Each is cut by itself: the outer ones may print a whole node
/// or graph, and the innermost tells most.
pub(super) fn said(error: &TractError) -> String {
    const CAUSES_MAX: usize = 8;
    let causes: Vec<String> = error
        .chain()
        .map(|cause| shorten(&cause.to_string()))
        .collect();
    match causes.split_at_checked(CAUSES_MAX) {
        Some((outer, [.., innermost])) => format!("{}: ...: {innermost}", outer.join(": ")),
        Some((_, [])) | None => causes.join(": "),
    }
}
