//! Operators of our own, given attributes and inputs that nobody means well: each is refused by name,
//! and none takes the process down, loops for ever or fills memory.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use prost::Message;
use tidegate_graph::{Graph, GraphLimits};
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
struct Stopped;

/// A graph of one node, built up input by input.
struct Case {
    node: NodeProto,
    graph: GraphProto,
    inputs: Vec<Tensor>,
    opset: i64,
}

impl Case {
    fn new(operator: &str) -> Self {
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

    fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    fn attribute(
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

    fn int(self, name: &str, value: i64) -> Self {
        self.attribute(name, AttributeType::Int, |attribute| attribute.i = value)
    }

    fn ints(self, name: &str, values: &[i64]) -> Self {
        self.attribute(name, AttributeType::Ints, |attribute| {
            attribute.ints = values.to_vec()
        })
    }

    fn string(self, name: &str, value: &str) -> Self {
        self.attribute(name, AttributeType::String, |attribute| {
            attribute.s = value.into()
        })
    }

    fn strings(self, name: &str, values: &[&str]) -> Self {
        self.attribute(name, AttributeType::Strings, |attribute| {
            attribute.strings = values.iter().map(|value| (*value).into()).collect();
        })
    }

    fn graph(self, name: &str, graph: &GraphProto) -> Self {
        self.attribute(name, AttributeType::Graph, |attribute| {
            attribute.g = Some(graph.clone())
        })
    }

    fn input(mut self, data_type: DataType, tensor: Tensor) -> Self {
        let name = format!("in_{}", self.node.input.len());
        self.graph
            .input
            .push(value(&name, data_type, tensor.shape()));
        self.node.input.push(name);
        self.inputs.push(tensor);
        self
    }

    fn floats(self, shape: &[usize]) -> Self {
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

    fn integers(self, shape: &[usize], numbers: &[i64]) -> Self {
        let bytes = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        self.input(DataType::Int64, tensor(Dtype::Int64, shape, bytes))
    }

    fn texts(self, shape: &[usize], texts: &[&str]) -> Self {
        let flat = Tensor::from_byte_elements(texts);
        let tensor = tensor(Dtype::Bytes, shape, flat.data().to_vec());
        self.input(DataType::String, tensor)
    }

    /// An input that is a constant of the graph.
    fn constant(mut self, numbers: &[i64]) -> Self {
        let name = format!("in_{}", self.node.input.len());
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: vec![i64::try_from(numbers.len()).unwrap()],
            data_type: DataType::Int64.into(),
            int64_data: numbers.to_vec(),
            ..TensorProto::default()
        });
        self.node.input.push(name);
        self
    }

    /// Runs it: its outputs, or what the error says.
    fn run(mut self) -> Result<Vec<Tensor>, String> {
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
            tensor_bytes_max: 1 << 24,
            plans_max: 1,
        };
        let whole = |error: &dyn std::error::Error| match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        let graph = Graph::read(&model.encode_to_vec(), limits).map_err(|error| whole(&error))?;
        graph
            .run(&self.inputs, || Ok::<(), Stopped>(()))
            .map_err(|error| whole(&error))
    }

    fn must_be_refused(self, reason: &str) {
        let error = self.run().expect_err("it runs");
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

fn value(name: &str, data_type: DataType, shape: &[usize]) -> ValueInfoProto {
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

fn tensor(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor::new(dtype, Shape::from_slice(shape), bytes.into()).unwrap()
}

#[test]
fn windows_have_extents_that_can_be_counted() {
    let pool = || Case::new("LpPool").floats(&[1, 1, 4, 4]);
    pool().must_be_refused("kernel_shape is missing");
    pool()
        .ints("kernel_shape", &[2, 0])
        .must_be_refused("kernel_shape holds 0");
    pool()
        .ints("kernel_shape", &[i64::MAX, 2])
        .must_be_refused("kernel_shape holds");
    pool()
        .ints("kernel_shape", &[1 << 20, 1 << 20])
        .must_be_refused("elements are allowed");
    pool()
        .ints("kernel_shape", &[2, 2, 2])
        .must_be_refused("3 axes for 2");
    pool()
        .ints("kernel_shape", &[5, 5])
        .must_be_refused("reaches 5");
    let pool = || pool().ints("kernel_shape", &[2, 2]);
    pool()
        .ints("strides", &[0, 1])
        .must_be_refused("strides holds 0");
    pool()
        .ints("pads", &[-1, 0, 0, 0])
        .must_be_refused("pads holds -1");
    pool()
        .ints("pads", &[1])
        .must_be_refused("numbers for 4 places");
    pool()
        .ints("pads", &[1 << 31, 1 << 31, 1 << 31, 1 << 31])
        .must_be_refused("allowed");
    pool().int("p", 0).must_be_refused("p is 0");
    assert!(pool().run().is_ok());
}

#[test]
fn places_that_an_input_names_are_inside() {
    let unpool = |place| {
        Case::new("MaxUnpool")
            .ints("kernel_shape", &[2, 2])
            .ints("strides", &[2, 2])
            .floats(&[1, 1, 1, 1])
            .integers(&[1, 1, 1, 1], &[place])
    };
    unpool(4).must_be_refused("index 4 lies outside");
    unpool(-1).must_be_refused("index -1 lies outside");
    assert!(unpool(3).run().is_ok());
    let align = |place| {
        Case::new("RoiAlign")
            .floats(&[1, 1, 4, 4])
            .floats(&[1, 4])
            .integers(&[1], &[place])
    };
    align(1).must_be_refused("outside the batch");
    assert!(align(0).run().is_ok());
    let scatter = |place| {
        Case::new("TensorScatter")
            .floats(&[1, 1, 4, 2])
            .floats(&[1, 1, 2, 2])
            .integers(&[1], &[place])
    };
    scatter(3).must_be_refused("pass the end");
    scatter(-1).must_be_refused("-1");
    assert!(scatter(2).run().is_ok());
    let reverse = |length| {
        Case::new("ReverseSequence")
            .int("batch_axis", 0)
            .int("time_axis", 1)
            .floats(&[1, 3])
            .integers(&[1], &[length])
    };
    reverse(4).must_be_refused("4 steps");
    assert!(reverse(3).run().is_ok());
}

#[test]
fn shapes_that_an_input_names_are_bounded() {
    let huge = i64::MAX;
    let crop = |shape: &[i64]| Case::new("CenterCropPad").floats(&[2, 2]).constant(shape);
    crop(&[huge, huge]).must_be_refused("");
    crop(&[1 << 20, 1 << 20]).must_be_refused("");
    crop(&[-1, 2]).must_be_refused("a size is -1");
    crop(&[2]).must_be_refused("1 sizes for 2 axes");
    let crop = Case::new("CenterCropPad").floats(&[2, 2]);
    crop.integers(&[2], &[1 << 20, 1 << 20]).must_be_refused("");
    let columns = |image: &[i64]| {
        Case::new("Col2Im")
            .floats(&[1, 4, 4])
            .constant(image)
            .constant(&[2, 2])
    };
    columns(&[3, 4]).must_be_refused("do not make an image");
    columns(&[huge, huge]).must_be_refused("an extent is");
    columns(&[0, 3]).must_be_refused("an extent is 0");
    assert!(columns(&[3, 3]).run().is_ok());
    let grid = |size: &[i64]| Case::new("AffineGrid").floats(&[1, 2, 3]).constant(size);
    grid(&[1, 1, 1 << 20, 1 << 20]).must_be_refused("");
    grid(&[1, 1, -1, 2]).must_be_refused("an extent is -1");
    assert!(grid(&[1, 1, 2, 2]).run().is_ok());
}

#[test]
fn text_grows_no_further_than_memory() {
    let split = Case::new("StringSplit").string("delimiter", ",");
    let long = ",".repeat(1 << 16);
    let mut texts = vec![""; 1 << 12];
    texts[0] = &long;
    split
        .texts(&[1 << 12], &texts)
        .must_be_refused("larger than");
    Case::new("RegexFullMatch")
        .string("pattern", "(a{1000}){1000}")
        .texts(&[1], &["a"])
        .must_be_refused("the pattern cannot be used");
    Case::new("RegexFullMatch")
        .string("pattern", "(")
        .texts(&[1], &["a"])
        .must_be_refused("the pattern cannot be used");
    // What takes others exponential time takes this one linear time.
    let attack = "a".repeat(1 << 16);
    let slow = Case::new("RegexFullMatch").string("pattern", "(a*)*b");
    assert!(slow.texts(&[1], &[&attack]).run().is_ok());
}

#[test]
fn pools_of_n_grams_are_consistent() {
    let vectorizer = |counts: &[i64], indexes: &[i64]| {
        Case::new("TfIdfVectorizer")
            .opset(9)
            .string("mode", "TF")
            .int("min_gram_length", 1)
            .int("max_gram_length", 2)
            .int("max_skip_count", i64::MAX)
            .ints("ngram_counts", counts)
            .ints("ngram_indexes", indexes)
            .strings("pool_strings", &["a", "b", "a", "b"])
            .texts(&[3], &["a", "b", "c"])
    };
    assert!(vectorizer(&[0, 2], &[0, 1, 2]).run().is_ok());
    vectorizer(&[0, 9], &[0, 1, 2]).must_be_refused("ngram_counts reach");
    vectorizer(&[3, 1], &[0, 1, 2]).must_be_refused("ngram_counts reach");
    vectorizer(&[0, 3], &[0, 1, 2]).must_be_refused("no whole number");
    vectorizer(&[0, 2], &[0, 1]).must_be_refused("too few");
    vectorizer(&[0, 2], &[0, 1, i64::MAX]).must_be_refused("");
    vectorizer(&[0, 2], &[0, -1, 1]).must_be_refused("ngram_indexes");
}

#[test]
fn attention_takes_heads_that_divide() {
    let attention = |query: &[usize], key: &[usize]| {
        Case::new("Attention").floats(query).floats(key).floats(key)
    };
    attention(&[1, 2, 8], &[1, 3, 8]).must_be_refused("q_num_heads");
    let heads = |query, key| {
        attention(&[1, 2, 8], &[1, 3, 8])
            .int("q_num_heads", query)
            .int("kv_num_heads", key)
    };
    heads(0, 1).must_be_refused("q_num_heads is zero");
    heads(-1, 1).must_be_refused("q_num_heads");
    heads(3, 1).must_be_refused("no multiples");
    heads(2, 4).must_be_refused("heads");
    assert!(heads(2, 2).run().is_ok());
    attention(&[1, 3, 2, 4], &[1, 2, 2, 4]).must_be_refused("no multiple of 2 key heads");
    attention(&[1, 0, 2, 4], &[1, 0, 2, 4]).must_be_refused("0 key heads");
    assert!(attention(&[1, 2, 2, 0], &[1, 2, 2, 0]).run().is_ok());
}

/// A body that hands its condition on, and its only value doubled in length.
fn doubling() -> GraphProto {
    GraphProto {
        node: vec![
            NodeProto {
                op_type: "Identity".to_owned(),
                input: vec!["condition".to_owned()],
                output: vec!["goes_on".to_owned()],
                ..NodeProto::default()
            },
            NodeProto {
                op_type: "Concat".to_owned(),
                input: vec!["value".to_owned(), "value".to_owned()],
                output: vec!["twice".to_owned()],
                attribute: vec![AttributeProto {
                    name: "axis".to_owned(),
                    r#type: AttributeType::Int.into(),
                    ..AttributeProto::default()
                }],
                ..NodeProto::default()
            },
        ],
        input: vec![
            value("round", DataType::Int64, &[]),
            value("condition", DataType::Bool, &[]),
            ValueInfoProto {
                name: "value".to_owned(),
                r#type: Some(TypeProto {
                    value: Some(Kind::TensorType(TensorType {
                        elem_type: DataType::Float.into(),
                        shape: None,
                    })),
                    ..TypeProto::default()
                }),
                ..ValueInfoProto::default()
            },
        ],
        output: ["goes_on", "twice"]
            .map(|name| ValueInfoProto {
                name: name.to_owned(),
                ..ValueInfoProto::default()
            })
            .to_vec(),
        ..GraphProto::default()
    }
}

#[test]
fn loops_end() {
    let repeat = |rounds: i64| {
        let mut case = Case::new("Loop").integers(&[], &[rounds]);
        case.node.input.push(String::new());
        case.floats(&[1]).graph("body", &doubling())
    };
    let outputs = repeat(3).run().unwrap();
    assert_eq!(outputs[0].shape(), [8]);
    let outputs = repeat(0).run().unwrap();
    assert_eq!(outputs[0].shape(), [1]);
    repeat(i32::MAX.into()).must_be_refused("at most 16384 are allowed");
}
