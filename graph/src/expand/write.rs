//! Writes nodes in the place of one, with names of their own.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

/// The nodes that replace one. Names begin with that of the first output, which no other node has.
#[derive(Debug)]
pub(super) struct Writer {
    prefix: String,
    opset: i64,
    /// Names given so far.
    names: usize,
    nodes: Vec<NodeProto>,
}

impl Writer {
    pub(super) fn new(node: &NodeProto, opset: i64) -> Self {
        let output = node.output.iter().find(|name| !name.is_empty());
        Self {
            prefix: output.unwrap_or(&node.name).clone(),
            opset,
            names: 0,
            nodes: Vec::new(),
        }
    }

    pub(super) fn into_nodes(self) -> Vec<NodeProto> {
        self.nodes
    }

    pub(super) fn opset(&self) -> i64 {
        self.opset
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("{}/tidegate.{}", self.prefix, self.names)
    }

    /// A node of one output. Gives the output's name.
    pub(super) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let name = self.name();
        self.node_to(operator, inputs, attributes, &name);
        name
    }

    /// A node that makes `output`.
    pub(super) fn node_to(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
        output: &str,
    ) {
        self.nodes.push(NodeProto {
            name: format!("{}/{operator}.{}", self.prefix, self.nodes.len()),
            op_type: operator.to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    /// A one-dimensional constant.
    pub(super) fn integers(&mut self, values: &[i64]) -> String {
        self.constant(TensorProto {
            dims: vec![i64::try_from(values.len()).unwrap_or(i64::MAX)],
            data_type: DataType::Int64.into(),
            int64_data: values.to_vec(),
            ..TensorProto::default()
        })
    }

    /// A scalar constant.
    pub(super) fn integer(&mut self, value: i64) -> String {
        self.constant(TensorProto {
            data_type: DataType::Int64.into(),
            int64_data: vec![value],
            ..TensorProto::default()
        })
    }

    /// A scalar constant of the type of `like`.
    pub(super) fn float_like(&mut self, value: f32, like: &str) -> String {
        let constant = self.constant(TensorProto {
            data_type: DataType::Float.into(),
            float_data: vec![value],
            ..TensorProto::default()
        });
        self.node("CastLike", &[&constant, like], vec![])
    }

    fn constant(&mut self, tensor: TensorProto) -> String {
        let value = AttributeProto {
            name: "value".to_owned(),
            r#type: AttributeType::Tensor.into(),
            t: Some(tensor),
            ..AttributeProto::default()
        };
        self.node("Constant", &[], vec![value])
    }

    /// `values` with these extents, where 0 keeps one and -1 takes what is left.
    pub(super) fn reshape(&mut self, values: &str, extents: &[i64]) -> String {
        let shape = self.integers(extents);
        self.node("Reshape", &[values, &shape], vec![])
    }

    /// A node as it is.
    pub(super) fn push(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// `values` with the order along one axis turned round.
    pub(super) fn reverse(&mut self, values: &str, axis: i64) -> String {
        let output = self.name();
        self.reverse_to(values, axis, &output);
        output
    }

    /// The same, as `output`.
    pub(super) fn reverse_to(&mut self, values: &str, axis: i64, output: &str) {
        let (last, before_first) = (self.integers(&[-1]), self.integers(&[i64::MIN + 1]));
        let (axes, steps) = (self.integers(&[axis]), self.integers(&[-1]));
        let inputs = [values, &last, &before_first, &axes, &steps];
        self.node_to("Slice", &inputs, vec![], output);
    }

    /// A reduction over one axis, which stays with extent one.
    pub(super) fn reduce(&mut self, operator: &str, values: &str, axis: i64) -> String {
        let takes_axes = self.opset >= if operator == "ReduceSum" { 13 } else { 18 };
        if takes_axes {
            let axes = self.integers(&[axis]);
            self.node(operator, &[values, &axes], vec![])
        } else {
            self.node(operator, &[values], vec![integers("axes", &[axis])])
        }
    }
}

/// An attribute of one integer.
pub(super) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int.into(),
        i: value,
        ..AttributeProto::default()
    }
}

/// An attribute of many integers.
pub(super) fn integers(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints.into(),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}
