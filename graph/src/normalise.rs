//! Brings an ONNX graph into the form that the engine takes.
//!
//! Exporters write what the engine does not read, or reads wrongly without a word: functions, operators
//! of domains that it takes for its own, names that are used twice, 16-bit brain floats, operators that
//! are sums of others. Here all that becomes plainer nodes or a typed refusal, before the engine sees it.

use std::collections::HashSet;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::{
    GraphError, NODES_MAX, bf16, expand, functions, nibbles, seal, sequences, shorten_name,
};

/// Deepest nesting of graphs in graphs: loops in conditions in loops, as exporters write them. What is inside
/// is inferred several times for each time that what is around it is.
const GRAPHS_DEEP_MAX: usize = 8;

/// Attributes that name axes, and the farthest that one can be from either end.
const AXES: [&str; 6] = [
    "axes",
    "axis",
    "batch_axis",
    "batch_dims",
    "perm",
    "time_axis",
];
const AXIS_MAX: u64 = 64;

/// Operators that other domains share with the engine, which looks at the name alone.
const CONTRIBUTED: [&str; 14] = [
    "BiasGelu",
    "FastGelu",
    "Gelu",
    "GatherBlockQuantized",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Trilu",
    "FusedMatMul",
];

/// Rewrites `proto` into what the engine takes. Nothing that it computes changes.
pub(super) fn normalise(proto: &mut ModelProto) -> Result<(), GraphError> {
    functions::inline(proto)?;
    let opset = opset(proto);
    let Some(graph) = &mut proto.graph else {
        return Err(GraphError::NoGraph);
    };
    let mut counted = 0;
    check_graph(graph, 0, &mut counted)?;
    trim(graph);
    fill_defaults(graph);
    nibbles::widen(graph)?;
    sequences::unfold(graph, opset)?;
    expand::expand(graph, opset)?;
    seal::seal(graph);
    check_names(graph)?;
    bf16::widen(graph);
    Ok(())
}

/// The version of the default operator set.
fn opset(proto: &ModelProto) -> i64 {
    let imports = &mut proto.opset_import.iter();
    let default = imports.find(|import| import.domain.is_empty() || import.domain == "ai.onnx");
    default.map_or(1, |import| import.version)
}

/// Refuses operators that nobody here knows, too many nodes and too deep a nesting.
fn check_graph(graph: &GraphProto, depth: usize, counted: &mut usize) -> Result<(), GraphError> {
    if depth > GRAPHS_DEEP_MAX {
        return Err(GraphError::Malformed {
            reason: format!("graphs are nested more than {GRAPHS_DEEP_MAX} deep"),
        });
    }
    *counted += graph.node.len();
    if *counted > NODES_MAX {
        return Err(GraphError::Nodes { got: *counted });
    }
    let unknown: Vec<String> = graph
        .node
        .iter()
        .filter(|node| !is_known_domain(node))
        .map(|node| shorten_name(&format!("{}::{}", node.domain, node.op_type)))
        .take(16)
        .collect();
    if !unknown.is_empty() {
        return Err(GraphError::Operators { operators: unknown });
    }
    graph.node.iter().try_for_each(check_axes)?;
    graph.node.iter().try_for_each(check_meaning)?;
    // The engine makes lists as long as this says before it looks at anything else.
    let scans = graph.node.iter().filter(|node| node.op_type == "Scan");
    for node in scans {
        let scanned = node
            .attribute
            .iter()
            .find(|found| found.name == "num_scan_inputs");
        let scanned = scanned.map_or(0, |found| found.i);
        if usize::try_from(scanned).map_or(true, |scanned| scanned > node.input.len()) {
            let (name, inputs) = (shorten_name(&node.name), node.input.len());
            return Err(GraphError::Malformed {
                reason: format!("Scan {name:?} scans {scanned} of its {inputs} inputs"),
            });
        }
    }
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        for inner in attribute.g.iter().chain(&attribute.graphs) {
            check_graph(inner, depth + 1, counted)?;
        }
    }
    Ok(())
}

/// Refuses axes that no tensor has: the engine counts up to some of them before it looks at a rank.
fn check_axes(node: &NodeProto) -> Result<(), GraphError> {
    let named = |attribute: &&AttributeProto| AXES.contains(&attribute.name.as_str());
    for attribute in node.attribute.iter().filter(named) {
        let axes = attribute.ints.iter().chain([&attribute.i]);
        if let Some(axis) = axes.into_iter().find(|axis| axis.unsigned_abs() > AXIS_MAX) {
            let (node, operator) = (shorten_name(&node.name), shorten_name(&node.op_type));
            let name = &attribute.name;
            let reason = format!("{name} of {operator} {node:?} is {axis}, which no tensor has");
            return Err(GraphError::Malformed { reason });
        }
    }
    Ok(())
}

/// Refuses what the engine would compute otherwise than ONNX says, without a word.
fn check_meaning(node: &NodeProto) -> Result<(), GraphError> {
    let text = |name: &str| {
        let found = node.attribute.iter().find(|found| found.name == name);
        found
            .map(|found| String::from_utf8_lossy(&found.s))
            .unwrap_or_default()
    };
    let limit = node.input.get(2);
    let wrong = match node.op_type.as_str() {
        "Einsum" if sums_alone(&text("equation")) => "a sum of one operand's axes to a number",
        "NonMaxSuppression" if limit.is_none_or(String::is_empty) => "no limit of boxes, so none",
        _ => return Ok(()),
    };
    let (node, operator) = (shorten_name(&node.name), shorten_name(&node.op_type));
    let reason = format!("{operator} {node:?} has {wrong}, which is not implemented");
    Err(GraphError::Malformed { reason })
}

/// Whether an equation gives a number, and an axis of its operands is in one of them alone.
fn sums_alone(equation: &str) -> bool {
    let Some(operands) = equation.trim_end().strip_suffix("->") else {
        return false;
    };
    let mut letters = operands.chars().filter(char::is_ascii_alphabetic);
    letters.any(|letter| operands.matches(letter).count() == 1)
}

fn is_known_domain(node: &NodeProto) -> bool {
    match node.domain.as_str() {
        "" | "ai.onnx" | "ai.onnx.ml" => true,
        "ai.onnx.preview" => node.op_type == "FlexAttention",
        "com.microsoft" => CONTRIBUTED.contains(&node.op_type.as_str()),
        _ => false,
    }
}

/// Drops what says nothing: absent operands at the end, and nodes that make nothing.
fn trim(graph: &mut GraphProto) {
    for node in &mut graph.node {
        for names in [&mut node.input, &mut node.output] {
            while names.last().is_some_and(String::is_empty) {
                names.pop();
            }
        }
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                trim(inner);
            }
        }
    }
}

/// Writes defaults that the engine takes for something else.
fn fill_defaults(graph: &mut GraphProto) {
    for node in &mut graph.node {
        // What is filled with zeros is of 32-bit floats; the engine takes 64.
        if node.op_type == "ConstantOfShape" && node.attribute.is_empty() {
            node.attribute.push(AttributeProto {
                name: "value".to_owned(),
                r#type: AttributeType::Tensor.into(),
                t: Some(TensorProto {
                    dims: vec![1],
                    data_type: DataType::Float.into(),
                    float_data: vec![0.0],
                    ..TensorProto::default()
                }),
                ..AttributeProto::default()
            });
        }
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                fill_defaults(inner);
            }
        }
    }
}

/// Refuses names that two values have, and outputs that nothing makes.
fn check_names(graph: &GraphProto) -> Result<(), GraphError> {
    let malformed = |what: &str, name: &str| GraphError::Malformed {
        reason: format!("{what} {:?}", shorten_name(name)),
    };
    let mut names: HashSet<&str> = HashSet::new();
    for input in &graph.input {
        if !names.insert(&input.name) {
            return Err(malformed("two inputs have the name", &input.name));
        }
    }
    // An initialiser may give an input its default.
    let mut initializers: HashSet<&str> = HashSet::new();
    for tensor in &graph.initializer {
        if !initializers.insert(&tensor.name) {
            return Err(malformed("two initialisers have the name", &tensor.name));
        }
    }
    names.extend(initializers);
    for name in graph.node.iter().flat_map(|node| &node.output) {
        if !name.is_empty() && !names.insert(name) {
            return Err(malformed("two values have the name", name));
        }
    }
    for output in &graph.output {
        if !names.contains(output.name.as_str()) {
            return Err(malformed("nothing makes the output", &output.name));
        }
    }
    Ok(())
}
