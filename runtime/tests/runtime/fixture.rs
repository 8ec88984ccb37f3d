//! Modules made on the spot: ONNX files node by node, guests in WebAssembly text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tidegate_inference::{Dtype, Failure, NamedTensor, Shape, Tensor, TensorSpec};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Budget, Limits, Manifest, Model, ModuleFile, Runtime, RuntimeConfig};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto, type_proto,
};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{PackageId, Resolve, WorldId};

/// Time enough for any good request on a busy machine.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

pub(crate) fn budget() -> Budget {
    Budget::until(Instant::now() + AMPLE)
}

pub(crate) fn runtime() -> Arc<Runtime> {
    runtime_with(Limits::default())
}

pub(crate) fn runtime_with(limits: Limits) -> Arc<Runtime> {
    Runtime::start(RuntimeConfig {
        limits,
        ..RuntimeConfig::new(4)
    })
    .unwrap()
}

pub(crate) fn spec(name: &str, dtype: Dtype, shape: &[i64]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    }
}

pub(crate) fn tensor(
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    data: impl Into<Bytes>,
) -> NamedTensor {
    NamedTensor {
        name: name.to_owned(),
        tensor: Tensor::new(dtype, Shape::from_slice(shape), data.into()).unwrap(),
    }
}

pub(crate) fn floats(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    tensor(name, Dtype::Fp32, shape, bytes)
}

pub(crate) fn as_floats(tensor: &Tensor) -> Vec<f32> {
    let (chunks, rest) = tensor.data().as_chunks::<4>();
    assert!(rest.is_empty() && tensor.dtype() == Dtype::Fp32);
    chunks
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk))
        .collect()
}

/// An axis of an ONNX value.
pub(crate) enum Axis {
    Fixed(i64),
    Named(String),
}

impl From<i64> for Axis {
    fn from(extent: i64) -> Self {
        Self::Fixed(extent)
    }
}

impl From<&str> for Axis {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

pub(crate) fn value(name: &str, elements: DataType, shape: Vec<Axis>) -> ValueInfoProto {
    let dim = shape.into_iter().map(|axis| Dimension {
        value: Some(match axis {
            Axis::Fixed(extent) => dimension::Value::DimValue(extent),
            Axis::Named(name) => dimension::Value::DimParam(name),
        }),
        ..Dimension::default()
    });
    let shape = TensorShapeProto { dim: dim.collect() };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: elements.into(),
                shape: Some(shape),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: format!("{operator}-{output}"),
        op_type: operator.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

pub(crate) fn attribute(name: &str, tensor: TensorProto) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: attribute_proto::AttributeType::Tensor.into(),
        t: Some(tensor),
        ..AttributeProto::default()
    }
}

pub(crate) fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: vec![i64::try_from(values.len()).unwrap()],
        data_type: DataType::Int64.into(),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

pub(crate) fn onnx(
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    outputs: Vec<ValueInfoProto>,
) -> Vec<u8> {
    let graph = GraphProto {
        name: "g".to_owned(),
        input: inputs,
        initializer: constants,
        node: nodes,
        output: outputs,
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto {
        version: 17,
        ..OperatorSetIdProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![opset],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// `y = x` for two 32-bit floats.
pub(crate) fn identity() -> Vec<u8> {
    onnx(
        vec![value("x", DataType::Float, vec![2.into()])],
        vec![],
        vec![node("Identity", &["x"], "y")],
        vec![value("y", DataType::Float, vec![2.into()])],
    )
}

/// A module that only runs its graph, with the manifest that `tidegate pack` would write.
pub(crate) fn packed(onnx: &[u8]) -> ModuleFile {
    let (inputs, outputs) = tidegate_graph::describe(onnx).unwrap();
    let manifest = Manifest::new("model", "1.0.0", inputs, outputs);
    ModuleFile::assemble(&pass_through("g").unwrap(), manifest, &[("g", onnx)]).unwrap()
}

pub(crate) fn load(runtime: &Runtime, module: &ModuleFile) -> Arc<Model> {
    runtime.load(module.file().clone()).unwrap()
}

/// Checks that a good model on this runtime still answers.
#[track_caller]
pub(crate) fn neighbour_answers(neighbour: &Model) {
    let outputs = neighbour
        .infer(vec![floats("x", &[2], &[1.5, -2.0])], &budget())
        .unwrap();
    assert_eq!(as_floats(&outputs[0].tensor), [1.5, -2.0]);
}

pub(crate) const NN_WIT: &str = include_str!("../../../modules/wit/deps/wasi-nn/nn.wit");
pub(crate) const MODEL_WIT: &str = include_str!("../../../modules/wit/model.wit");

/// The world of a module.
pub(crate) fn world() -> (Resolve, PackageId, WorldId) {
    let mut resolve = Resolve::default();
    resolve.push_source("nn.wit", NN_WIT).unwrap();
    let package = resolve.push_source("model.wit", MODEL_WIT).unwrap();
    let world = resolve.select_world(&[package], Some("module")).unwrap();
    (resolve, package, world)
}

/// A component of a guest written as a core module: `imports` and further `items` in text, and the
/// `body` of `infer`, which gets `$inputs` and `$len` and leaves the place of its result.
pub(crate) fn guest(imports: &str, items: &str, body: &str) -> Vec<u8> {
    let (mut resolve, _, world) = world();
    let wasi = resolve
        .push_source("wasi.wit", include_str!("wasi.wit"))
        .unwrap();
    let extra = resolve.select_world(&[wasi], Some("guest")).unwrap();
    resolve
        .merge_worlds(extra, world, &mut Default::default())
        .unwrap();
    let text = format!(
        "(module {imports}
            (memory (export \"memory\") 2)
            (global $heap (mut i32) (i32.const 65536))
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
                global.get $heap
                global.get $heap
                local.get 3
                i32.add
                i32.const 7
                i32.add
                i32.const -8
                i32.and
                global.set $heap)
            {items}
            (func (export \"infer\") (param $inputs i32) (param $len i32) (result i32) (local $i i32)
                {body}))"
    );
    let mut core = wat::parse_str(text).unwrap();
    wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)
        .unwrap();
    let encoder = ComponentEncoder::default().validate(true);
    encoder.module(&core).unwrap().encode().unwrap()
}

/// Text that gives the inputs back as they came.
pub(crate) const ECHO: &str = "
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1028) (local.get $inputs))
    (i32.store (i32.const 1032) (local.get $len))
    (i32.const 1024)";

/// A module of a guest that takes two floats `x` and promises two floats `x`, with the identity graph.
pub(crate) fn module(component: &[u8]) -> ModuleFile {
    let floats = vec![spec("x", Dtype::Fp32, &[2])];
    let manifest = Manifest::new("hostile", "1.0.0", floats.clone(), floats);
    ModuleFile::assemble(component, manifest, &[("g", &identity())]).unwrap()
}

/// Runs a request of two floats on a guest.
pub(crate) fn run(model: &Model, budget: &Budget) -> Result<Vec<NamedTensor>, Failure> {
    model.infer(vec![floats("x", &[2], &[1.0, 2.0])], budget)
}
