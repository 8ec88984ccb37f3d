//! What the engine would compute otherwise if it moved one node past another, with ONNX Runtime's results.

use tidegate_graph::GraphError;
use tract_onnx::pb::NodeProto;

use crate::case::{Case, Refused};

fn before(case: &mut Case, operator: &str, inputs: &[&str], output: &str) {
    case.graph.node.push(NodeProto {
        op_type: operator.to_owned(),
        name: output.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    });
}

#[track_caller]
fn gives(case: Case, expected: &[f32]) {
    let outputs = case.outcome().unwrap();
    let (words, _) = outputs[0].data().as_chunks::<4>();
    let given: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let is_close = |(one, other): (&f32, &f32)| (one - other).abs() < 1e-5;
    assert!(
        given.len() == expected.len() && given.iter().zip(expected).all(is_close),
        "{given:?} is not {expected:?}"
    );
}

#[test]
fn a_product_sums_over_an_axis_that_was_made_longer() {
    for (operator, numbers) in [("Expand", [2, 3]), ("Tile", [1, 3])] {
        // [[0], [1]] becomes [[0, 0, 0], [1, 1, 1]], times [[0, 1], [2, 3], [4, 5]].
        let mut case = Case::new("MatMul").floats(&[2, 1]);
        case = case.constant(&numbers).floats(&[3, 2]);
        before(&mut case, operator, &["in_0", "in_1"], "long");
        case.node.input = vec!["long".to_owned(), "in_2".to_owned()];
        gives(case, &[0.0, 0.0, 6.0, 9.0]);
    }
}

#[test]
fn a_slice_with_a_step_is_of_what_was_computed() {
    // Softmax of 0, 1, 2, 3, of which the first and the third are taken.
    let mut case = Case::new("Slice").floats(&[1, 4]);
    for number in [0, 4, 1, 2] {
        case = case.constant(&[number]);
    }
    before(&mut case, "Softmax", &["in_0"], "soft");
    case.node.input[0] = "soft".to_owned();
    gives(case, &[0.032_058_604, 0.236_882_82]);
}

#[test]
fn what_would_be_computed_otherwise_is_refused() {
    let boxes = || {
        Case::new("NonMaxSuppression")
            .floats(&[1, 2, 4])
            .floats(&[1, 1, 2])
    };
    let einsum = Case::new("Einsum").string("equation", "i->").floats(&[3]);
    for case in [boxes(), boxes().constant(&[0]), einsum] {
        let refusal = case.outcome().expect_err("it runs");
        assert!(
            matches!(
                refusal,
                Refused::Read(GraphError::Malformed { .. } | GraphError::Operand { .. })
            ),
            "{refusal:?}"
        );
    }
}
