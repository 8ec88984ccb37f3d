//! Graphs of one node, as a file and a request give them.

use prost::Message;
use tidegate_graph::{Graph, GraphError, GraphLimits, RunError};
use tidegate_inference::{Dtype, Shape, Tensor};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Axis};
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Kind};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
};

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped;

/// Largest tensor that a graph here makes.
pub(crate) const TENSOR_BYTES_MAX: usize = 1 << 24;

/// Why a graph gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It cannot be used at all.
    #[error("{0}: {source:?}", source = std::error::Error::source(.0).map(ToString::to_string))]
    Read(#[from] GraphError),
    /// Not with these inputs.
    #[error("{0}")]
    Run(#[from] RunError<Stopped>),
}

/// A graph of one node, built up input by input.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) node: NodeProto,
    pub(crate) graph: GraphProto,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) opset: i64,
}

impl Case {
    pub(crate) fn new(operator: &str) -> Self {
        Self {
            node: NodeProto {
                op_type: operator.to_owned(),
                name: "node".to_owned(),
                ..NodeProto::default()
            },
            graph: GraphProto::default(),
            inputs: vec![],
            opset: 27,
        }
    }

    pub(crate) fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    pub(crate) fn attribute(
        mut self,
        name: &str,
        kind: AttributeType,
        set: impl Fn(&mut AttributeProto),
    ) -> Self {
        let mut attribute = AttributeProto {
            name: name.to_owned(),
            r#type: kind.into(),
            ..AttributeProto::default()
        };
        set(&mut attribute);
        self.node.attribute.push(attribute);
        self
    }

    pub(crate) fn int(self, name: &str, value: i64) -> Self {
        self.attribute(name, AttributeType::Int, |attribute| attribute.i = value)
    }

    pub(crate) fn ints(self, name: &str, values: &[i64]) -> Self {
        self.attribute(name, AttributeType::Ints, |attribute| {
            attribute.ints = values.to_vec()
        })
    }

    pub(crate) fn float(self, name: &str, value: f32) -> Self {
        self.attribute(name, AttributeType::Float, |attribute| attribute.f = value)
    }

    pub(crate) fn floats_of(self, name: &str, values: &[f32]) -> Self {
        self.attribute(name, AttributeType::Floats, |attribute| {
            attribute.floats = values.to_vec();
        })
    }

    pub(crate) fn string(self, name: &str, value: &str) -> Self {
        self.attribute(name, AttributeType::String, |attribute| {
            attribute.s = value.into()
        })
    }

    pub(crate) fn strings(self, name: &str, values: &[&str]) -> Self {
        self.attribute(name, AttributeType::Strings, |attribute| {
            attribute.strings = values.iter().map(|value| (*value).into()).collect();
        })
    }

    pub(crate) fn graph(self, name: &str, graph: &GraphProto) -> Self {
        self.attribute(name, AttributeType::Graph, |attribute| {
            attribute.g = Some(graph.clone())
        })
    }

    pub(crate) fn input(mut self, data_type: DataType, tensor: Tensor) -> Self {
        let name = format!("in_{}", self.node.input.len());
        self.graph
            .input
            .push(value(&name, data_type, tensor.shape()));
        self.node.input.push(name);
        self.inputs.push(tensor);
        self
    }

    pub(crate) fn floats(self, shape: &[usize]) -> Self {
        let numbers: Vec<f32> = (0_u8..=255)
            .cycle()
            .map(f32::from)
            .take(shape.iter().product())
            .collect();
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        self.input(DataType::Float, tensor(Dtype::Fp32, shape, bytes))
    }

    pub(crate) fn integers(self, shape: &[usize], numbers: &[i64]) -> Self {
        let bytes = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        self.input(DataType::Int64, tensor(Dtype::Int64, shape, bytes))
    }

    pub(crate) fn texts(self, shape: &[usize], texts: &[&str]) -> Self {
        let flat = Tensor::from_byte_elements(texts);
        let tensor = tensor(Dtype::Bytes, shape, flat.data().to_vec());
        self.input(DataType::String, tensor)
    }

    /// An input that is left out.
    pub(crate) fn absent(mut self) -> Self {
        self.node.input.push(String::new());
        self
    }

    /// An input that is a constant of the graph.
    pub(crate) fn constant(self, numbers: &[i64]) -> Self {
        self.constant_of(&[numbers.len()], numbers)
    }

    /// The same, without axes.
    pub(crate) fn scalar(self, number: i64) -> Self {
        self.constant_of(&[], &[number])
    }

    pub(crate) fn constant_of(self, shape: &[usize], numbers: &[i64]) -> Self {
        let bytes = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        self.constant_tensor(DataType::Int64, &tensor(Dtype::Int64, shape, bytes))
    }

    pub(crate) fn constant_tensor(mut self, data_type: DataType, tensor: &Tensor) -> Self {
        let name = format!("in_{}", self.node.input.len());
        let extent = |extent: &usize| i64::try_from(*extent).unwrap();
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: tensor.shape().iter().map(extent).collect(),
            data_type: data_type.into(),
            raw_data: tensor.data().to_vec(),
            ..TensorProto::default()
        });
        self.node.input.push(name);
        self
    }

    /// Runs it: its outputs, or why there are none.
    pub(crate) fn outcome(self) -> Result<Vec<Tensor>, Refused> {
        let (graph, inputs) = self.read()?;
        Ok(graph.run(&inputs, || Ok(()))?)
    }

    /// The graph, and the inputs that were given.
    pub(crate) fn read(mut self) -> Result<(Graph, Vec<Tensor>), GraphError> {
        self.node.output = vec!["out".to_owned()];
        self.graph.output.push(ValueInfoProto {
            name: "out".to_owned(),
            ..ValueInfoProto::default()
        });
        self.graph.node.push(self.node);
        let model = ModelProto {
            ir_version: 10,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: self.opset,
            }],
            graph: Some(self.graph),
            ..ModelProto::default()
        };
        let limits = GraphLimits {
            tensor_bytes_max: TENSOR_BYTES_MAX,
            plans_max: 1,
        };
        let graph = Graph::read(&model.encode_to_vec(), limits)?;
        Ok((graph, self.inputs))
    }

    /// Runs it: its outputs, or what the error says.
    pub(crate) fn run(self) -> Result<Vec<Tensor>, String> {
        self.outcome().map_err(|error| error.to_string())
    }

    pub(crate) fn must_be_refused(self, reason: &str) {
        let error = self.run().expect_err("it runs");
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

pub(crate) fn value(name: &str, data_type: DataType, shape: &[usize]) -> ValueInfoProto {
    let axis = |extent: &usize| Dimension {
        value: Some(Axis::DimValue(i64::try_from(*extent).unwrap())),
        ..Dimension::default()
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(Kind::TensorType(TensorType {
                elem_type: data_type.into(),
                shape: Some(TensorShapeProto {
                    dim: shape.iter().map(axis).collect(),
                }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

pub(crate) fn tensor(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor::new(dtype, Shape::from_slice(shape), bytes.into()).unwrap()
}
