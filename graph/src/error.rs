//! Why an ONNX file cannot be used, in words that name what and where.

use tidegate_inference::TensorError;
use tract_onnx::prelude::TractError;

use super::{DECISIVE_LEN_MAX, NODES_MAX, ONNX_BYTES_MAX, shorten};

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
    /// A tensor that the graph gives cannot be passed on.
    #[error("a tensor of the graph cannot be passed on")]
    Tensor(#[from] TensorError),
}

impl GraphError {
    pub(super) fn prepare(error: &TractError) -> Self {
        if let Some(refused) = error.chain().find_map(|cause| cause.downcast_ref::<Self>()) {
            return refused.clone();
        }
        let reason = said(error);
        Self::Prepare { reason }
    }
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
