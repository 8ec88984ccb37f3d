//! Values of inputs that decide shapes: what cannot be is refused, and nothing is cut or made up.

use tidegate_inference::{Dtype, Failure, FailureKind, NamedTensor};
use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use crate::fixture::{as_floats, budget, floats, load, node, onnx, packed, runtime, tensor, value};

fn numbers(name: &str, values: &[i64]) -> NamedTensor {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    tensor(name, Dtype::Int64, &[values.len()], bytes)
}

/// Runs an operator of one output on four floats and a list of numbers.
fn run(operator: &str, list: &[i64]) -> Result<Vec<f32>, FailureKind> {
    let mut operator = node(operator, &["x", "n"], "y");
    if operator.op_type == "TopK" {
        operator.output.push("places".to_owned());
    }
    let len = i64::try_from(list.len()).unwrap();
    let model = onnx(
        vec![
            value("x", DataType::Float, vec![4.into()]),
            value("n", DataType::Int64, vec![len.into()]),
        ],
        vec![],
        vec![operator],
        vec![value("y", DataType::Float, vec!["m".into()])],
    );
    let model = load(&runtime(), &packed(&model));
    let inputs = vec![floats("x", &[4], &[1.0, 2.0, 3.0, 4.0]), numbers("n", list)];
    let outputs = model
        .infer(inputs, &budget())
        .map_err(|failure| failure.kind)?;
    Ok(as_floats(&outputs[0].tensor))
}

#[test]
fn a_value_is_never_cut_to_fewer_bits() {
    assert_eq!(run("Tile", &[1]), Ok(vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(run("Reshape", &[4]), Ok(vec![1.0, 2.0, 3.0, 4.0]));
    for operator in ["Tile", "Expand", "Reshape"] {
        for wrong in [(1 << 32) + 1, (1 << 32) + 4, 1 << 40, i64::MAX, i64::MIN] {
            assert_eq!(
                run(operator, &[wrong]),
                Err(FailureKind::Invalid),
                "{operator} {wrong}"
            );
        }
    }
}

#[test]
fn no_more_of_the_largest_elements_come_than_there_are() {
    assert_eq!(run("TopK", &[2]), Ok(vec![4.0, 3.0]));
    for wrong in [5, 200_000, -1] {
        assert_eq!(run("TopK", &[wrong]), Err(FailureKind::Invalid), "{wrong}");
    }
}

#[test]
fn an_axis_is_split_whole_or_not_at_all() {
    let run = |parts: &[i64]| {
        let mut split = node("Split", &["x", "n"], "a");
        split.output.push("b".to_owned());
        let model = onnx(
            vec![
                value("x", DataType::Float, vec![4.into()]),
                value("n", DataType::Int64, vec![2.into()]),
            ],
            vec![],
            vec![split],
            vec![
                value("a", DataType::Float, vec!["m".into()]),
                value("b", DataType::Float, vec!["k".into()]),
            ],
        );
        let model = load(&runtime(), &packed(&model));
        let inputs = vec![
            floats("x", &[4], &[1.0, 2.0, 3.0, 4.0]),
            numbers("n", parts),
        ];
        let outputs = model
            .infer(inputs, &budget())
            .map_err(|failure| failure.kind)?;
        Ok(outputs
            .iter()
            .map(|output| as_floats(&output.tensor))
            .collect())
    };
    assert_eq!(run(&[1, 3]), Ok(vec![vec![1.0], vec![2.0, 3.0, 4.0]]));
    for wrong in [[2, 1], [4, 4], [-1, 5]] {
        assert_eq!(run(&wrong), Err(FailureKind::Invalid), "{wrong:?}");
    }
}

/// What a request of four floats and another input gets from an operator without free axes.
fn refused(operator: NodeProto, other: NamedTensor, elements: DataType) -> Failure {
    let extents = other.tensor.shape().iter();
    let extents = extents.map(|extent| i64::try_from(*extent).unwrap().into());
    let model = onnx(
        vec![
            value("x", DataType::Float, vec![4.into()]),
            value(&other.name, elements, extents.collect()),
        ],
        vec![],
        vec![operator],
        vec![value("y", DataType::Float, vec!["m".into()])],
    );
    let x = floats("x", &[4], &[1.0, 2.0, 3.0, 4.0]);
    let model = load(&runtime(), &packed(&model));
    model.infer(vec![x, other], &budget()).unwrap_err()
}

#[test]
fn a_value_that_a_node_cannot_take_is_the_caller_s_fault_and_names_the_node() {
    let mut gather = node("Gather", &["x", "n"], "y");
    gather.name = "pick".to_owned();
    let failure = refused(gather, numbers("n", &[0, 4]), DataType::Int64);
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    let told = "node \"pick\" (Gather): index 4 is outside an axis of 4";
    assert!(failure.message.contains(told), "{failure}");

    let mut resize = node("Resize", &["x", "", "s"], "y");
    resize.name = "grow".to_owned();
    let failure = refused(resize, floats("s", &[1], &[0.0]), DataType::Float);
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    let told = "node \"grow\" (Resize): a scale is 0";
    assert!(failure.message.contains(told), "{failure}");
}
