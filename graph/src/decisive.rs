//! Which inputs decide shapes by their values.
//!
//! A graph may take a shape, axes, a number of elements or a scale as an input, and the engine can only
//! plan a graph whose shapes it can tell. Such an input is found from the other end: from the operands
//! that decide shapes, back through the arithmetic that shapes are computed with. What is large cannot
//! be meant, and would make a plan for every request: only the values of small inputs decide.

use std::collections::{HashMap, HashSet};

use tidegate_inference::{Dtype, Tensor, TensorSpec};
use tract_onnx::pb::{GraphProto, NodeProto};

use super::{GraphError, shorten_name};

/// Most elements of an input that decides shapes: more than any shape, axis list or padding has.
pub(super) const DECISIVE_LEN_MAX: usize = 64;

/// Largest magnitude of a value that decides a shape. The engine computes some shapes with 32 bits, and
/// what it would cut would come out as another shape without a word.
const VALUE_MAX: u64 = i32::MAX as u64;

/// Refuses an input whose values are beyond [`VALUE_MAX`].
pub(super) fn check(spec: &TensorSpec, input: &Tensor) -> Result<(), GraphError> {
    if input.dtype() != Dtype::Int64 {
        return Ok(());
    }
    let (values, _) = input.data().as_chunks::<8>();
    let mut values = values.iter().map(|value| i64::from_le_bytes(*value));
    match values.find(|value| value.unsigned_abs() > VALUE_MAX) {
        Some(value) => Err(GraphError::Value {
            place: "input",
            name: shorten_name(&spec.name),
            reason: format!("{value} decides a shape, and is beyond {VALUE_MAX}"),
        }),
        None => Ok(()),
    }
}

/// Positions of the inputs that may decide shapes, going by what they reach, their type and rank.
pub(super) fn inputs(graph: &GraphProto, inputs: &[TensorSpec]) -> Vec<usize> {
    let mut makers: HashMap<&str, &NodeProto> = HashMap::new();
    collect_makers(graph, &mut makers);
    let mut wanted: Vec<&str> = Vec::new();
    collect(graph, &mut wanted);
    let mut reached: HashSet<&str> = HashSet::new();
    while let Some(name) = wanted.pop() {
        if name.is_empty() || !reached.insert(name) {
            continue;
        }
        if let Some(maker) = makers.get(name)
            && carries_shapes(&maker.op_type)
        {
            wanted.extend(maker.input.iter().map(String::as_str));
            let branches = maker.attribute.iter().filter_map(|found| found.g.as_ref());
            let outputs = branches.flat_map(|branch| &branch.output);
            wanted.extend(outputs.map(|output| output.name.as_str()));
        }
    }
    inputs
        .iter()
        .enumerate()
        .filter(|(_, input)| reached.contains(input.name.as_str()) && is_small(input))
        .map(|(index, _)| index)
        .collect()
}

/// The node that makes each value, those of inner graphs included.
fn collect_makers<'a>(graph: &'a GraphProto, makers: &mut HashMap<&'a str, &'a NodeProto>) {
    for node in &graph.node {
        makers.extend(node.output.iter().map(|name| (name.as_str(), node)));
        for attribute in &node.attribute {
            for inner in attribute.g.iter().chain(&attribute.graphs) {
                collect_makers(inner, makers);
            }
        }
    }
}

/// The operands that decide shapes, those of inner graphs included.
fn collect<'a>(graph: &'a GraphProto, wanted: &mut Vec<&'a str>) {
    for node in &graph.node {
        for at in operands(&node.op_type) {
            wanted.extend(node.input.get(*at).map(String::as_str));
        }
        for attribute in &node.attribute {
            for inner in attribute.g.iter().chain(&attribute.graphs) {
                collect(inner, wanted);
            }
        }
    }
}

fn is_small(input: &TensorSpec) -> bool {
    let elements = input.shape.iter().try_fold(1_usize, |elements, extent| {
        elements.checked_mul(usize::try_from(*extent).ok()?)
    });
    input.dtype != Dtype::Bytes
        && elements.map_or(input.shape.len() <= 1, |elements| {
            elements <= DECISIVE_LEN_MAX
        })
}

/// Positions of the operands of an operator whose values the engine must know to plan it.
fn operands(operator: &str) -> &'static [usize] {
    match operator {
        "ConstantOfShape" | "If" | "HannWindow" | "HammingWindow" | "BlackmanWindow" => &[0],
        "Reshape" | "Expand" | "Tile" | "TopK" | "Squeeze" | "Unsqueeze" | "Split" | "CumSum"
        | "CumProd" | "Trilu" | "Upsample" | "Compress" | "CenterCropPad" | "AffineGrid"
        | "SplitToSequence" | "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp"
        | "ReduceMax" | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum"
        | "ReduceSumSquare" => &[1],
        "MaxUnpool" => &[2],
        // Lengths of sequences, which the engine takes only where all are whole.
        "GRU" | "LSTM" | "RNN" => &[4],
        "OneHot" => &[1],
        "Col2Im" | "DFT" | "Dropout" => &[1, 2],
        "Loop" => &[0, 1],
        "Range" => &[0, 1, 2],
        "Resize" | "Pad" | "STFT" => &[1, 2, 3],
        "Slice" => &[1, 2, 3, 4],
        "NonMaxSuppression" => &[2, 3, 4],
        "MelWeightMatrix" => &[0, 1, 2, 3, 4],
        _ => &[],
    }
}

/// Whether shapes are computed with an operator, so that what it takes may decide one.
fn carries_shapes(operator: &str) -> bool {
    matches!(
        operator,
        "Abs"
            | "Add"
            | "And"
            | "Cast"
            | "CastLike"
            | "Ceil"
            | "Concat"
            | "ConstantOfShape"
            | "Div"
            | "Equal"
            | "Expand"
            | "Flatten"
            | "Floor"
            | "Gather"
            | "Greater"
            | "GreaterOrEqual"
            | "Identity"
            | "If"
            | "Less"
            | "LessOrEqual"
            | "Max"
            | "Min"
            | "Mod"
            | "Mul"
            | "Neg"
            | "Not"
            | "Or"
            | "Range"
            | "ReduceMax"
            | "ReduceMin"
            | "ReduceProd"
            | "ReduceSum"
            | "Reshape"
            | "Round"
            | "Slice"
            | "Split"
            | "Squeeze"
            | "Sub"
            | "Sum"
            | "Tile"
            | "Transpose"
            | "Unsqueeze"
            | "Where"
    )
}
