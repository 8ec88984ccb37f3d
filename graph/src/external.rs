//! Refuses graphs whose tensors lie in other files: a module carries all of its weights.
//!
//! The engine would look for such a file only if it were told a folder, which it never is. It would
//! take inline bytes where a tensor has both, so the mark alone is refused, wherever a tensor can be.

use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto};

use super::{GraphError, shorten_name};

/// Refuses the first tensor of external data, those of inner graphs included. A tensor without a name
/// goes by that of its node.
pub(super) fn check(graph: &GraphProto) -> Result<(), GraphError> {
    let mut initializers = graph.initializer.iter();
    initializers.try_for_each(|found| tensor(found, "an initialiser"))?;
    let mut all_sparse = graph.sparse_initializer.iter();
    all_sparse.try_for_each(|found| sparse(found, "an initialiser"))?;
    graph.node.iter().try_for_each(|node| {
        let mut attributes = node.attribute.iter();
        attributes.try_for_each(|found| attribute(found, node))
    })
}

fn attribute(attribute: &AttributeProto, node: &NodeProto) -> Result<(), GraphError> {
    let mut tensors = attribute.t.iter().chain(&attribute.tensors);
    tensors.try_for_each(|found| tensor(found, &node.name))?;
    let mut all_sparse = attribute
        .sparse_tensor
        .iter()
        .chain(&attribute.sparse_tensors);
    all_sparse.try_for_each(|found| sparse(found, &node.name))?;
    attribute
        .g
        .iter()
        .chain(&attribute.graphs)
        .try_for_each(check)
}

fn sparse(sparse: &SparseTensorProto, place: &str) -> Result<(), GraphError> {
    let mut parts = sparse.values.iter().chain(&sparse.indices);
    parts.try_for_each(|part| tensor(part, place))
}

fn tensor(tensor: &TensorProto, place: &str) -> Result<(), GraphError> {
    if tensor.data_location() == DataLocation::Default {
        return Ok(());
    }
    let name = match tensor.name.as_str() {
        "" => place,
        name => name,
    };
    let tensor = shorten_name(name);
    Err(GraphError::ExternalData { tensor })
}
