//! Takes sequences apart while the graph is read.
//!
//! Exporters write lists of tensors as sequences: what a model splits, appends to, picks from and joins.
//! Where the file says how many tensors there are and which are meant, a sequence is a list of names, and
//! every node on it becomes one on tensors, or none. A sequence whose length depends on a request is
//! left, and refused by its operator's name.

use std::collections::HashMap;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::{GraphError, NODES_MAX};

/// Most tensors in a sequence; unrolled loops of exporters have some hundreds.
const SEQUENCE_LEN_MAX: usize = 4096;

/// Rewrites the nodes of the outermost graph that work on sequences. `opset` is the file's.
pub(super) fn unfold(graph: &mut GraphProto, opset: i64) -> Result<(), GraphError> {
    if !graph
        .node
        .iter()
        .any(|node| node.op_type.contains("Sequence"))
    {
        return Ok(());
    }
    let mut unfolding = Unfolding {
        opset,
        constants: constants(graph),
        sequences: HashMap::new(),
        nodes: Vec::with_capacity(graph.node.len()),
        names: 0,
    };
    for node in std::mem::take(&mut graph.node) {
        if unfolding.node(&node).is_none() {
            if node
                .input
                .iter()
                .any(|name| unfolding.sequences.contains_key(name))
            {
                let what = "on a sequence at a place or of a length that only a run tells";
                let operators = vec![format!("{} {what}", node.op_type)];
                return Err(GraphError::Operators { operators });
            }
            unfolding.nodes.push(node);
        }
        if unfolding.nodes.len() > NODES_MAX {
            let got = unfolding.nodes.len();
            return Err(GraphError::Nodes { got });
        }
    }
    graph.node = unfolding.nodes;
    Ok(())
}

/// The integers that the file gives outright, by name.
pub(super) fn constants(graph: &GraphProto) -> HashMap<String, Vec<i64>> {
    let initializers = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.clone(), integers(tensor)));
    let nodes = graph.node.iter().filter(|node| node.op_type == "Constant");
    let nodes = nodes.filter_map(|node| {
        let attribute = node.attribute.first()?;
        let values = match attribute.name.as_str() {
            "value" => integers(attribute.t.as_ref()?),
            "value_int" => Some(vec![attribute.i]),
            "value_ints" => Some(attribute.ints.clone()),
            _ => None,
        };
        Some((node.output.first()?.clone(), values))
    });
    initializers
        .chain(nodes)
        .filter_map(|(name, values)| Some((name, values?)))
        .collect()
}

fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    let data_type = DataType::try_from(tensor.data_type).ok()?;
    let (wide, _) = tensor.raw_data.as_chunks::<8>();
    let (narrow, _) = tensor.raw_data.as_chunks::<4>();
    let values: Vec<i64> = match data_type {
        DataType::Int64 if tensor.raw_data.is_empty() => tensor.int64_data.clone(),
        DataType::Int64 => wide
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes))
            .collect(),
        DataType::Int32 if tensor.raw_data.is_empty() => tensor
            .int32_data
            .iter()
            .map(|value| (*value).into())
            .collect(),
        DataType::Int32 => narrow
            .iter()
            .map(|bytes| i32::from_le_bytes(*bytes).into())
            .collect(),
        _ => return None,
    };
    (values.len() <= SEQUENCE_LEN_MAX).then_some(values)
}

struct Unfolding {
    opset: i64,
    constants: HashMap<String, Vec<i64>>,
    /// The tensors of each sequence.
    sequences: HashMap<String, Vec<String>>,
    nodes: Vec<NodeProto>,
    names: usize,
}

impl Unfolding {
    /// Takes a node's part, or leaves it with `None`.
    fn node(&mut self, node: &NodeProto) -> Option<()> {
        let output = node.output.first()?.clone();
        let sequence = |at: usize| self.sequences.get(node.input.get(at)?).cloned();
        match node.op_type.as_str() {
            "SequenceConstruct" => self.keep(output, node.input.clone()),
            "SequenceEmpty" => self.keep(output, Vec::new()),
            "Identity" => {
                let tensors = sequence(0)?;
                self.keep(output, tensors)
            }
            "SequenceInsert" => {
                let mut tensors = sequence(0)?;
                let at = self.position(node.input.get(2), tensors.len(), tensors.len() + 1)?;
                tensors.insert(at, node.input.get(1)?.clone());
                self.keep(output, tensors)
            }
            "SequenceErase" => {
                let mut tensors = sequence(0)?;
                let at = self.position(node.input.get(1), tensors.len(), tensors.len())?;
                tensors.remove(at);
                self.keep(output, tensors)
            }
            "SequenceAt" => {
                let tensors = sequence(0)?;
                let at = self.position(node.input.get(1), tensors.len(), tensors.len())?;
                self.push("Identity", &[&tensors[at]], vec![], &output);
                Some(())
            }
            "SequenceLength" => {
                let len = i64::try_from(sequence(0)?.len()).ok()?;
                self.constant(&[], &[len], &output);
                self.constants.insert(output, vec![len]);
                Some(())
            }
            "ConcatFromSequence" => self.concat(node, &sequence(0)?, &output),
            "SplitToSequence" => self.split(node, output),
            _ => None,
        }
    }

    fn keep(&mut self, name: String, tensors: Vec<String>) -> Option<()> {
        if tensors.len() > SEQUENCE_LEN_MAX {
            return None;
        }
        self.sequences.insert(name, tensors);
        Some(())
    }

    /// One of `places`, counted from the end of `len` tensors where it is negative; the last if none is
    /// given.
    fn position(&self, given: Option<&String>, len: usize, places: usize) -> Option<usize> {
        let Some(given) = given.filter(|name| !name.is_empty()) else {
            return places.checked_sub(1);
        };
        let [at] = self.constants.get(given)?[..] else {
            return None;
        };
        let at = if at < 0 {
            at.checked_add(i64::try_from(len).ok()?)?
        } else {
            at
        };
        usize::try_from(at).ok().filter(|at| *at < places)
    }

    fn concat(&mut self, node: &NodeProto, tensors: &[String], output: &str) -> Option<()> {
        let axis = find(node, "axis")?.i;
        let is_new = find(node, "new_axis").is_some_and(|found| found.i != 0);
        let mut parts = tensors.to_vec();
        if is_new {
            for part in &mut parts {
                *part = self.unsqueeze(part, axis);
            }
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.push("Concat", &parts, vec![integer("axis", axis)], output);
        Some(())
    }

    /// Only where the file lists the lengths of the parts.
    fn split(&mut self, node: &NodeProto, output: String) -> Option<()> {
        let lengths_name = node.input.get(1)?;
        let lengths = self.constants.get(lengths_name)?.clone();
        if lengths.len() < 2 {
            return None;
        }
        let axis = find(node, "axis").map_or(0, |found| found.i);
        let parts: Vec<String> = lengths.iter().map(|_| self.name(&output)).collect();
        let mut split = NodeProto {
            name: format!("{output}/tidegate.split"),
            op_type: "Split".to_owned(),
            input: vec![node.input.first()?.clone()],
            output: parts.clone(),
            attribute: vec![integer("axis", axis)],
            ..NodeProto::default()
        };
        if self.opset < 13 {
            split.attribute.push(integers_attribute("split", &lengths));
        } else {
            split.input.push(lengths_name.clone());
        }
        self.nodes.push(split);
        self.keep(output, parts)
    }

    fn unsqueeze(&mut self, tensor: &str, axis: i64) -> String {
        let output = self.name(tensor);
        if self.opset < 13 {
            self.push(
                "Unsqueeze",
                &[tensor],
                vec![integers_attribute("axes", &[axis])],
                &output,
            );
        } else {
            let axes = self.name(tensor);
            self.constant(&[1], &[axis], &axes);
            self.push("Unsqueeze", &[tensor, &axes], vec![], &output);
        }
        output
    }

    fn name(&mut self, base: &str) -> String {
        self.names += 1;
        format!("{base}/tidegate.sequence.{}", self.names)
    }

    fn push(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        output: &str,
    ) {
        self.nodes.push(NodeProto {
            name: format!("{output}/tidegate.{operator}"),
            op_type: operator.to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
    }

    fn constant(&mut self, dims: &[i64], values: &[i64], output: &str) {
        let value = AttributeProto {
            name: "value".to_owned(),
            r#type: AttributeType::Tensor.into(),
            t: Some(TensorProto {
                dims: dims.to_vec(),
                data_type: DataType::Int64.into(),
                int64_data: values.to_vec(),
                ..TensorProto::default()
            }),
            ..AttributeProto::default()
        };
        self.push("Constant", &[], vec![value], output);
    }
}

fn find<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|found| found.name == name)
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int.into(),
        i: value,
        ..AttributeProto::default()
    }
}

fn integers_attribute(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints.into(),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}
