//! Operators of `ai.onnx.ml` whose attributes nobody can mean are refused with the reason; what a file
//! may well say, however odd, is computed. Agreement with ONNX Runtime is shown by the reference cases.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::convert::Infallible;

use prost::Message;
use tidegate_graph::{Graph, GraphLimits, describe};
use tidegate_inference::{Dtype, Shape, Tensor};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Axis;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Kind};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// A graph of one operator on a table of floats of any number of rows.
#[derive(Clone)]
struct Operator {
    node: NodeProto,
    columns: i64,
    output_types: Vec<i32>,
}

impl Operator {
    fn new(op_type: &str, columns: i64, output_types: &[i32]) -> Self {
        let names = (0..output_types.len()).map(|index| format!("y{index}"));
        Self {
            node: NodeProto {
                op_type: op_type.to_owned(),
                domain: "ai.onnx.ml".to_owned(),
                input: vec!["x".to_owned()],
                output: names.collect(),
                ..NodeProto::default()
            },
            columns,
            output_types: output_types.to_vec(),
        }
    }

    fn with(mut self, name: &str, kind: AttributeType, fill: impl Fn(&mut AttributeProto)) -> Self {
        let mut attribute = AttributeProto {
            name: name.to_owned(),
            r#type: kind.into(),
            ..AttributeProto::default()
        };
        fill(&mut attribute);
        self.node.attribute.retain(|other| other.name != name);
        self.node.attribute.push(attribute);
        self
    }

    fn ints(self, name: &str, values: &[i64]) -> Self {
        self.with(name, AttributeType::Ints, |found| {
            found.ints = values.to_vec()
        })
    }

    fn floats(self, name: &str, values: &[f32]) -> Self {
        self.with(name, AttributeType::Floats, |found| {
            found.floats = values.to_vec()
        })
    }

    fn texts(self, name: &str, values: &[&str]) -> Self {
        self.with(name, AttributeType::Strings, |found| {
            found.strings = values.iter().map(|text| text.as_bytes().to_vec()).collect();
        })
    }

    fn int(self, name: &str, value: i64) -> Self {
        self.with(name, AttributeType::Int, |found| found.i = value)
    }

    fn onnx(&self) -> Vec<u8> {
        let outputs = self.node.output.iter().zip(&self.output_types);
        let outputs = outputs.filter(|(name, _)| !name.is_empty());
        let domain = |domain: &str, version| OperatorSetIdProto {
            domain: domain.to_owned(),
            version,
        };
        let graph = GraphProto {
            name: "g".to_owned(),
            node: vec![self.node.clone()],
            input: vec![value("x", FLOAT, &[None, Some(self.columns)])],
            output: outputs
                .map(|(name, kind)| value(name, *kind, &[None, None]))
                .collect(),
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![domain("", 17), domain("ai.onnx.ml", 3)],
            graph: Some(graph),
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }

    /// The outputs for a table, or what stands in the way.
    fn run(&self, rows: &[f32]) -> Result<Vec<Tensor>, String> {
        let limits = GraphLimits {
            tensor_bytes_max: 1 << 24,
            plans_max: 2,
        };
        let columns = usize::try_from(self.columns).unwrap();
        let shape = Shape::from_slice(&[rows.len() / columns, columns]);
        let data: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        let input = [Tensor::new(Dtype::Fp32, shape, data.into()).unwrap()];
        let graph = Graph::read(&self.onnx(), limits).map_err(|error| error.to_string())?;
        let plan = graph.plan(&input).map_err(|error| error.to_string())?;
        let go_on = || Ok::<(), Infallible>(());
        plan.run(&input, go_on).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn is_refused(&self, reason: &str) {
        let columns = usize::try_from(self.columns).unwrap();
        let error = self.run(&vec![1.0; columns]).unwrap_err();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }

    #[track_caller]
    fn gives(&self, rows: &[f32], wanted: &[f32]) {
        assert_eq!(floats(self.run(rows).unwrap().last().unwrap()), wanted);
    }
}

fn value(name: &str, elem_type: i32, shape: &[Option<i64>]) -> ValueInfoProto {
    let axis = |extent: &Option<i64>| Dimension {
        value: extent.map(Axis::DimValue),
        ..Dimension::default()
    };
    let kind = Kind::TensorType(TensorType {
        elem_type,
        shape: Some(TensorShapeProto {
            dim: shape.iter().map(axis).collect(),
        }),
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

fn floats(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), Dtype::Fp32);
    let (chunks, _) = tensor.data().as_chunks::<4>();
    chunks
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk))
        .collect()
}

/// One comparison of the only feature with 0.5, and two leaves.
fn stump() -> Operator {
    Operator::new("TreeEnsembleRegressor", 1, &[FLOAT])
        .int("n_targets", 1)
        .ints("nodes_treeids", &[0, 0, 0])
        .ints("nodes_nodeids", &[0, 1, 2])
        .ints("nodes_featureids", &[0, 0, 0])
        .floats("nodes_values", &[0.5, 0.0, 0.0])
        .texts("nodes_modes", &["BRANCH_LEQ", "LEAF", "LEAF"])
        .ints("nodes_truenodeids", &[1, 0, 0])
        .ints("nodes_falsenodeids", &[2, 0, 0])
        .ints("target_treeids", &[0, 0])
        .ints("target_nodeids", &[1, 2])
        .ints("target_ids", &[0, 0])
        .floats("target_weights", &[-1.0, 1.0])
}

#[test]
fn a_tree_compares_and_takes_what_is_no_number_to_the_right() {
    stump().gives(&[0.0, 0.5, 1.0, f32::NAN], &[-1.0, -1.0, 1.0, 1.0]);
}

#[test]
fn no_rows_give_no_scores() {
    stump().gives(&[], &[]);
}

#[test]
fn a_threshold_that_is_no_number_is_below_nothing() {
    let tree = stump().floats("nodes_values", &[f32::NAN, 0.0, 0.0]);
    tree.gives(&[0.0, f32::INFINITY], &[1.0, 1.0]);
}

#[test]
fn cycles_of_nodes_are_refused() {
    let tree = stump().ints("nodes_truenodeids", &[0, 0, 0]);
    tree.is_refused("is its own child");
    let tree = stump()
        .texts("nodes_modes", &["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"])
        .ints("nodes_truenodeids", &[1, 0, 0])
        .ints("nodes_falsenodeids", &[2, 2, 0]);
    tree.is_refused("can be reached from itself");
}

#[test]
fn children_that_are_not_there_are_refused() {
    for child in [3, -1, i64::MAX] {
        let tree = stump().ints("nodes_falsenodeids", &[child, 0, 0]);
        tree.is_refused("is a child, but not there");
    }
}

#[test]
fn trees_that_meet_again_are_walked() {
    let tree = stump().ints("nodes_falsenodeids", &[1, 0, 0]);
    tree.gives(&[0.0, 1.0], &[-1.0, -1.0]);
}

#[test]
fn deep_trees_are_walked_to_the_end() {
    const DEPTH: i64 = 20_000;
    let nodes: Vec<i64> = (0..=2 * DEPTH).collect();
    let of_all = |value: i64| vec![value; nodes.len()];
    let modes: Vec<&str> = nodes
        .iter()
        .map(|node| if *node < DEPTH { "BRANCH_LEQ" } else { "LEAF" })
        .collect();
    let values: Vec<f32> = nodes.iter().map(|node| -(*node as f32)).collect();
    let leaves: Vec<i64> = (DEPTH..=2 * DEPTH).collect();
    let weights: Vec<f32> = leaves.iter().map(|leaf| (*leaf - DEPTH) as f32).collect();
    let next = |node: &i64| if *node < DEPTH - 1 { node + 1 } else { DEPTH };
    let exit = |node: &i64| (DEPTH + 1 + node).min(2 * DEPTH);
    let tree = stump()
        .ints("nodes_treeids", &of_all(0))
        .ints("nodes_nodeids", &nodes)
        .ints("nodes_featureids", &of_all(0))
        .floats("nodes_values", &values)
        .texts("nodes_modes", &modes)
        .ints(
            "nodes_truenodeids",
            &nodes.iter().map(next).collect::<Vec<_>>(),
        )
        .ints(
            "nodes_falsenodeids",
            &nodes.iter().map(exit).collect::<Vec<_>>(),
        )
        .ints("target_treeids", &vec![0; leaves.len()])
        .ints("target_nodeids", &leaves)
        .ints("target_ids", &vec![0; leaves.len()])
        .floats("target_weights", &weights);
    tree.gives(&[1.0, -5.5, f32::NEG_INFINITY], &[1.0, 7.0, 0.0]);
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let ints = [
        "nodes_treeids",
        "nodes_featureids",
        "nodes_truenodeids",
        "nodes_falsenodeids",
    ];
    for name in ints {
        stump()
            .ints(name, &[0, 0])
            .is_refused("elements where 3 are wanted");
    }
    for name in ["target_treeids", "target_nodeids", "target_ids"] {
        stump()
            .ints(name, &[1])
            .is_refused("elements where 2 are wanted");
    }
    let tree = stump().floats("nodes_values", &[0.5]);
    tree.is_refused("\"nodes_values\" has 1 elements where 3 are wanted");
    let tree = stump().texts("nodes_modes", &[]);
    tree.is_refused("\"nodes_modes\" has 0 elements where 3 are wanted");
    let tree = stump().floats("base_values", &[0.0, 0.0]);
    tree.is_refused("there are 2 base_values for 1 targets");
}

#[test]
fn attributes_that_name_nothing_are_refused() {
    let modes = ["BRANCH_MAYBE", "LEAF", "LEAF"];
    stump()
        .texts("nodes_modes", &modes)
        .is_refused("no mode \"BRANCH_MAYBE\"");
    stump()
        .ints("nodes_featureids", &[-1, 0, 0])
        .is_refused("asks for a feature");
    stump()
        .ints("nodes_featureids", &[1 << 40, 0, 0])
        .is_refused("asks for a feature");
    stump()
        .ints("nodes_featureids", &[7, 0, 0])
        .is_refused("the trees use 8 features");
    stump()
        .ints("target_ids", &[0, 1])
        .is_refused("adds to target 1, there are 1");
    stump()
        .ints("target_ids", &[0, -1])
        .is_refused("a weight is for target -1");
    stump()
        .ints("target_nodeids", &[1, 9])
        .is_refused("node 9 of tree 0, which is not there");
    stump()
        .ints("target_nodeids", &[1, 1])
        .is_refused("leaf 2 has no weight");
    stump()
        .ints("nodes_nodeids", &[0, 1, 1])
        .is_refused("is there twice");
    stump()
        .ints("nodes_treeids", &[0, 1, 0])
        .is_refused("do not follow one another");
    stump()
        .floats("nodes_treeids", &[0.0])
        .is_refused("nodes_treeids");
}

#[test]
fn counts_that_ask_for_much_memory_are_refused() {
    for targets in [0, -1, 1 << 30, i64::MAX] {
        stump()
            .int("n_targets", targets)
            .is_refused("not 1 to 65536");
    }
    let join = Operator::new("FeatureVectorizer", 1, &[FLOAT]);
    for width in [-1, 1 << 30, i64::MAX] {
        let join = join.clone().ints("inputdimensions", &[width]);
        join.is_refused("at most 16777216 are allowed");
    }
    let linear = Operator::new("LinearRegressor", 1, &[FLOAT]).floats("coefficients", &[1.0]);
    linear.int("targets", i64::MAX).is_refused("not 1 to 65536");
}

#[test]
fn an_ensemble_without_trees_is_refused() {
    let tree = stump().ints("nodes_nodeids", &[]);
    tree.is_refused("there are no trees");
}

#[test]
fn a_row_that_could_take_too_many_steps_is_refused() {
    let bytes = |name: &str, data_type: i32, count: usize, raw_data: Vec<u8>| {
        let tensor = tract_onnx::pb::TensorProto {
            name: name.to_owned(),
            dims: vec![i64::try_from(count).unwrap()],
            data_type,
            raw_data,
            ..tract_onnx::pb::TensorProto::default()
        };
        move |found: &mut AttributeProto| found.t = Some(tensor.clone())
    };
    const DEPTH: usize = 10_000;
    let next: Vec<i64> = (1..DEPTH as i64).chain([0]).collect();
    let mut is_leaf = vec![0; DEPTH];
    is_leaf[DEPTH - 1] = 1;
    let zeros = || vec![0; DEPTH * 4];
    let trees = |roots: usize| {
        Operator::new("TreeEnsemble", 1, &[FLOAT])
            .int("n_targets", 1)
            .ints("tree_roots", &vec![0; roots])
            .ints("nodes_featureids", &[0; DEPTH])
            .ints("nodes_truenodeids", &next)
            .ints("nodes_trueleafs", &is_leaf)
            .ints("nodes_falsenodeids", &next)
            .ints("nodes_falseleafs", &is_leaf)
            .with(
                "nodes_splits",
                AttributeType::Tensor,
                bytes("s", FLOAT, DEPTH, zeros()),
            )
            .with(
                "nodes_modes",
                AttributeType::Tensor,
                bytes("m", 2, DEPTH, vec![0; DEPTH]),
            )
            .ints("leaf_targetids", &[0])
            .with(
                "leaf_weights",
                AttributeType::Tensor,
                bytes("w", FLOAT, 1, vec![0, 0, 128, 63]),
            )
    };
    trees(10).gives(&[0.0], &[10.0]);
    trees(100_000).is_refused("a row may pass through");
    trees(1)
        .ints("tree_roots", &[-1])
        .is_refused("a tree begins at node -1");
    let member = bytes("m", 2, DEPTH, vec![6; DEPTH]);
    let member = trees(1).with("nodes_modes", AttributeType::Tensor, member);
    member.is_refused("membership of an empty set");
}

#[test]
fn machines_whose_lists_do_not_fit_are_refused() {
    let machine = Operator::new("SVMClassifier", 2, &[INT64, FLOAT])
        .ints("classlabels_ints", &[0, 1])
        .ints("vectors_per_class", &[1, 1])
        .floats("support_vectors", &[1.0, 0.0, 0.0, 1.0])
        .floats("coefficients", &[1.0, -1.0])
        .floats("rho", &[0.0])
        .floats("kernel_params", &[1.0, 0.0, 3.0]);
    machine.gives(&[1.0, 0.0], &[-1.0, 1.0]);
    let broken = [
        (
            machine.clone().ints("vectors_per_class", &[1]),
            "has 1 values for 2 labels",
        ),
        (
            machine.clone().ints("vectors_per_class", &[-1, 2]),
            "\"vectors_per_class\" has -1",
        ),
        (
            machine.clone().ints("vectors_per_class", &[i64::MAX; 2]),
            "has 9223372036854775807",
        ),
        (
            machine.clone().floats("coefficients", &[1.0]),
            "there are 1 coefficients for 2 vectors",
        ),
        (machine.clone().floats("rho", &[]), "\"rho\" is empty"),
        (
            machine.clone().floats("support_vectors", &[1.0]),
            "1 values for 2 vectors",
        ),
        (
            machine.clone().floats("support_vectors", &[1.0; 2]),
            "the vectors have 1",
        ),
        (
            machine.clone().floats("kernel_params", &[1.0]),
            "has 1 values, not 3",
        ),
        (machine.clone().floats("prob_a", &[1.0]), "differ in length"),
        (machine.ints("classlabels_ints", &[]), "has a label"),
    ];
    for (machine, reason) in broken {
        machine.is_refused(reason);
    }
}

#[test]
fn linear_models_whose_lists_do_not_fit_are_refused() {
    let model = Operator::new("LinearClassifier", 2, &[INT64, FLOAT])
        .ints("classlabels_ints", &[0, 1, 2])
        .floats("coefficients", &[1.0; 6])
        .floats("intercepts", &[0.0; 3]);
    model.gives(&[0.0, 0.0], &[0.0; 3]);
    let broken = model.clone().floats("coefficients", &[1.0; 5]);
    broken.is_refused("5 coefficients do not divide among 3 targets");
    let broken = model.clone().floats("coefficients", &[1.0; 3]);
    broken.is_refused("the model has 1 features");
    let broken = model.ints("classlabels_ints", &[0, 1]);
    broken.is_refused("there are 3 intercepts and 2 labels");
}

#[test]
fn encoders_refuse_what_is_in_no_list() {
    let encoder = Operator::new("OneHotEncoder", 1, &[FLOAT]).ints("cats_int64s", &[4]);
    encoder
        .clone()
        .int("zeros", 0)
        .is_refused("element 0 of the input is no category");
    encoder
        .texts("cats_strings", &["a"])
        .is_refused("must have categories");
    let encoder = Operator::new("LabelEncoder", 1, &[INT64]).floats("keys_floats", &[1.0]);
    encoder.is_refused("attributes values_*: one is wanted");
    let encoder = encoder.ints("values_int64s", &[1, 2]);
    encoder.is_refused("there are 1 keys and 2 values");
    let scaler = Operator::new("Scaler", 2, &[FLOAT]).floats("scale", &[1.0; 3]);
    scaler.is_refused("\"scale\" has 3 values and \"offset\" 0");
    scaler
        .floats("offset", &[1.0; 3])
        .is_refused("there are 3 scales for 2 columns");
}

#[test]
fn the_same_name_in_another_domain_is_not_ours() {
    let mut scaler = Operator::new("Scaler", 1, &[FLOAT]);
    scaler = scaler.floats("scale", &[2.0]).floats("offset", &[0.0]);
    scaler.gives(&[1.5], &[3.0]);
    scaler.node.domain = "com.example".to_owned();
    scaler.is_refused("com.example::Scaler");
}

#[test]
fn a_classifier_whose_label_goes_nowhere_still_gives_its_scores() {
    let mut model = Operator::new("LinearClassifier", 1, &[INT64, FLOAT])
        .ints("classlabels_ints", &[0, 1])
        .floats("coefficients", &[1.0])
        .floats("intercepts", &[0.0]);
    model.node.output[0].clear();
    model.gives(&[0.25], &[0.75, 0.25]);
}

#[test]
fn a_zip_map_is_served_as_the_table_of_its_scores() {
    let zip = Operator::new("ZipMap", 2, &[FLOAT]).texts("classlabels_strings", &["no", "yes"]);
    let mut proto = ModelProto::decode(&*zip.onnx()).unwrap();
    // What a list of maps looks like to who only knows tensors.
    proto.graph.as_mut().unwrap().output[0].r#type = Some(TypeProto::default());
    let onnx = proto.encode_to_vec();
    let (_, outputs) = describe(&onnx).unwrap();
    assert_eq!(outputs[0].dtype, Dtype::Fp32);
    assert_eq!(outputs[0].shape.as_slice(), [-1, 2]);
    zip.gives(&[0.25, 0.75], &[0.25, 0.75]);
}
