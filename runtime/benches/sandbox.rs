//! What does a request cost inside the runtime, around an empty graph?
//!
//! `empty-graph` is a whole request: a fresh instance, the pass-through guest, the identity graph, and
//! the instance's end. `graph-alone` is the engine without a sandbox, `slot` adds queue and threads.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message;
use tidegate_inference::{Dtype, NamedTensor, Priority, Shape, Tensor};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Budget, Manifest, Model, ModuleFile, Runtime, RuntimeConfig, Slots};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoTValue, RunnableModel, tvec};

/// Elements of the tensor: 1 KiB.
const LEN: usize = 256;

fn identity() -> Vec<u8> {
    let value = |name: &str| {
        let dim = Dimension {
            value: Some(dimension::Value::DimValue(LEN as i64)),
            ..Dimension::default()
        };
        let tensor = type_proto::Tensor {
            elem_type: DataType::Float.into(),
            shape: Some(TensorShapeProto { dim: vec![dim] }),
        };
        ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        }
    };
    let node = NodeProto {
        op_type: "Identity".to_owned(),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        input: vec![value("x")],
        node: vec![node],
        output: vec![value("y")],
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

fn model(runtime: &Runtime) -> Arc<Model> {
    let onnx = identity();
    let (inputs, outputs) = tidegate_graph::describe(&onnx).expect("the graph is an ONNX file");
    let manifest = Manifest::new("identity", "1.0.0", inputs, outputs);
    let guest = pass_through("g").expect("the name fits");
    let file = ModuleFile::assemble(&guest, manifest, &[("g", &onnx)]).expect("it reads back");
    runtime
        .load(file.file().clone())
        .expect("it is a good module")
}

fn inputs() -> Vec<NamedTensor> {
    let data = Bytes::from(vec![0; LEN * 4]);
    let tensor = Tensor::new(Dtype::Fp32, Shape::from_slice(&[LEN]), data);
    vec![NamedTensor {
        name: "x".to_owned(),
        tensor: tensor.expect("the length fits"),
    }]
}

fn sandbox(criterion: &mut Criterion) {
    let runtime = Runtime::start(RuntimeConfig::new(2)).expect("the pool fits");
    let model = model(&runtime);
    let deadline = Instant::now() + Duration::from_secs(3600);
    let budget = Budget::until(deadline);
    let inputs = inputs();
    let mut group = criterion.benchmark_group("sandbox");
    group.bench_function("empty-graph", |bencher| {
        bencher.iter(|| black_box(model.infer(inputs.clone(), &budget).expect("it answers")));
    });
    group.bench_function("graph-alone", |bencher| {
        let plan = tract_onnx::onnx()
            .model_for_read(&mut &identity()[..])
            .and_then(InferenceModelExt::into_optimized)
            .and_then(RunnableModel::new)
            .expect("the graph is good");
        let input = tract_onnx::prelude::Tensor::zero::<f32>(&[LEN]).expect("it fits");
        bencher.iter(|| {
            let input = input.clone().into_tvalue();
            black_box(plan.run(tvec!(input)).expect("it runs"))
        });
    });
    let slots = Slots::new(1, 4).expect("there are threads");
    let executor = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("an executor starts");
    group.bench_function("slot", |bencher| {
        bencher.iter(|| {
            let job = slots.submit(
                Arc::clone(&model),
                inputs.clone(),
                Priority::Normal,
                deadline,
            );
            let completed = executor.block_on(job.expect("there is a place"));
            black_box(completed.expect("it answers"))
        });
    });
    group.finish();
}

criterion_group!(benches, sandbox);
criterion_main!(benches);
