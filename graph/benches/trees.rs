//! What do a hundred trees cost for one row, and for a thousand?
//!
//! `cargo bench -p tidegate-graph --bench trees`. Against ONNX Runtime, in one run and on one thread each:
//! `python graph/benches/ratio.py MODEL...`.

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use prost::Message;
use tidegate_graph::{Graph, GraphLimits};
use tidegate_inference::{Dtype, Shape, Tensor};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Axis;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Kind};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

const TREES: usize = 100;
const DEPTH: u32 = 8;
const FEATURES: usize = 26;

/// Uniform numbers in [0, 1), from a seed.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0 >> 33
    }

    fn real(&mut self) -> f32 {
        self.bits() as f32 / (1_u64 << 31) as f32
    }
}

/// Full trees of [`DEPTH`] comparisons that are true for half of all rows.
fn forest() -> Vec<u8> {
    let inner = (1 << DEPTH) - 1;
    let count = 2 * inner + 1;
    let mut random = Random(1);
    let mut ints: Vec<(&str, Vec<i64>)> = [
        "nodes_treeids",
        "nodes_nodeids",
        "nodes_featureids",
        "nodes_truenodeids",
        "nodes_falsenodeids",
        "class_treeids",
        "class_nodeids",
        "class_ids",
    ]
    .map(|name| (name, Vec::new()))
    .into();
    let (mut values, mut weights, mut modes) = (Vec::new(), Vec::new(), Vec::new());
    for tree in 0..TREES as i64 {
        for node in 0..count {
            let is_leaf = node >= inner;
            let feature = (random.bits() % FEATURES as u64) as i64;
            let (left, right) = if is_leaf {
                (0, 0)
            } else {
                (2 * node + 1, 2 * node + 2)
            };
            let node_ints = [tree, node, feature, left, right];
            ints.iter_mut()
                .zip(node_ints)
                .for_each(|(list, value)| list.1.push(value));
            values.push(random.real());
            modes.push(if is_leaf {
                b"LEAF".to_vec()
            } else {
                b"BRANCH_LEQ".to_vec()
            });
            if is_leaf {
                let leaf_ints = [tree, node, 0];
                ints[5..]
                    .iter_mut()
                    .zip(leaf_ints)
                    .for_each(|(list, value)| list.1.push(value));
                weights.push(random.real() / TREES as f32);
            }
        }
    }
    ints.push(("classlabels_int64s", vec![0, 1]));
    let attribute = |name: &str, kind: AttributeType| AttributeProto {
        name: name.to_owned(),
        r#type: kind.into(),
        ..AttributeProto::default()
    };
    let mut attributes: Vec<AttributeProto> = ints
        .into_iter()
        .map(|(name, ints)| AttributeProto {
            ints,
            ..attribute(name, AttributeType::Ints)
        })
        .collect();
    for (name, floats) in [("nodes_values", values), ("class_weights", weights)] {
        attributes.push(AttributeProto {
            floats,
            ..attribute(name, AttributeType::Floats)
        });
    }
    attributes.push(AttributeProto {
        strings: modes,
        ..attribute("nodes_modes", AttributeType::Strings)
    });
    model(attributes)
}

fn model(attribute: Vec<AttributeProto>) -> Vec<u8> {
    let node = NodeProto {
        op_type: "TreeEnsembleClassifier".to_owned(),
        domain: "ai.onnx.ml".to_owned(),
        input: vec!["x".to_owned()],
        output: vec!["label".to_owned(), "scores".to_owned()],
        attribute,
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node],
        input: vec![value("x", 1, &[None, Some(FEATURES as i64)])],
        output: vec![
            value("label", 7, &[None]),
            value("scores", 1, &[None, Some(2)]),
        ],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: "ai.onnx.ml".to_owned(),
            version: 1,
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

fn value(name: &str, elem_type: i32, shape: &[Option<i64>]) -> ValueInfoProto {
    let axis = |extent: &Option<i64>| Dimension {
        value: extent.map(Axis::DimValue),
        ..Dimension::default()
    };
    let dim = shape.iter().map(axis).collect();
    let kind = Kind::TensorType(TensorType {
        elem_type,
        shape: Some(TensorShapeProto { dim }),
    });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(kind),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn trees(criterion: &mut Criterion) {
    let limits = GraphLimits {
        tensor_bytes_max: 1 << 28,
        plans_max: 4,
    };
    let graph = Graph::read(&forest(), limits).expect("the forest is well-formed");
    let mut random = Random(2);
    for rows in [1, 8, 1000] {
        let shape = Shape::from_slice(&[rows, FEATURES]);
        // Other rows each time, so that nothing learns the way through the trees.
        let mut input = || {
            let values = (0..rows * FEATURES).flat_map(|_| random.real().to_le_bytes());
            let data: Vec<u8> = values.collect();
            Tensor::new(Dtype::Fp32, shape.clone(), data.into()).expect("the size fits")
        };
        let plan = graph.plan(&[input()]).expect("the shape fits");
        criterion.bench_function(&format!("trees/{rows} rows"), |bencher| {
            bencher.iter_batched(
                &mut input,
                |input| plan.run(black_box(&[input]), || Ok::<(), Infallible>(())),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, trees);
criterion_main!(benches);
