//! What a run may take: memory, of one tensor and of all at once, and time, also inside of a loop; and
//! that a plan is not made which may not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_graph::{GraphError, PlanKey, RunError, VetPlan};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value as Kind;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};

use crate::case::{Case, Refused, Stopped, TENSOR_BYTES_MAX, value};

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: format!("make {output}"),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// `e1 = exp x, e2 = exp e1, ...`, and then the product of all from the last to the first, which are
/// held until then. A last node takes the product.
fn holding(count: usize, elements: usize) -> Case {
    let mut case = Case::new("Neg").floats(&[elements]);
    let mut last = "in_0".to_owned();
    for at in 0..count {
        let next = format!("e{at}");
        case.graph.node.push(node("Exp", &[&last], &next));
        last = next;
    }
    for at in (0..count - 1).rev() {
        let next = format!("p{at}");
        let made = node("Mul", &[&last, &format!("e{at}")], &next);
        case.graph.node.push(made);
        last = next;
    }
    case.node.input = vec![last];
    case
}

#[test]
fn tensors_that_are_held_at_once_are_counted() {
    // Each is a quarter of the largest, and eight quarters may be held.
    let elements = TENSOR_BYTES_MAX / 4 / size_of::<f32>();
    assert!(holding(5, elements).run().is_ok());
    match holding(9, elements).outcome() {
        Err(Refused::Read(GraphError::RunTooLarge { held, limit, .. })) => {
            assert_eq!(limit, 2 * TENSOR_BYTES_MAX);
            assert!(held > limit);
        }
        other => panic!("{:?}", other.map(|_| "it runs")),
    }
}

#[test]
fn tensors_whose_number_only_running_tells_are_counted_too() {
    // As many pairs of places as elements that are not zero, each of 16 bytes.
    let places = |elements: usize, count: usize| {
        let mut case = Case::new("Neg").floats(&[elements]);
        case.graph.node.push(node("NonZero", &["in_0"], "n0"));
        let mut last = "n0".to_owned();
        for at in 0..count {
            let next = format!("n{}", at + 1);
            case.graph.node.push(node("Abs", &[&last], &next));
            last = next;
        }
        for at in (0..count).rev() {
            let next = format!("p{at}");
            let made = node("Add", &[&last, &format!("n{at}")], &next);
            case.graph.node.push(made);
            last = next;
        }
        case.node.input = vec![last];
        case
    };
    let elements = TENSOR_BYTES_MAX / 4 / size_of::<i64>();
    assert!(places(elements, 2).run().is_ok());
    match places(elements, 9).outcome() {
        Err(Refused::Run(RunError::TooLarge(GraphError::RunTooLarge { .. }))) => {}
        other => panic!("{:?}", other.map(|_| "it runs")),
    }
}

/// A loop of `rounds` that hands its value on.
fn turning(rounds: i64) -> Case {
    let named = |name: &str| ValueInfoProto {
        name: name.to_owned(),
        ..ValueInfoProto::default()
    };
    let body = GraphProto {
        node: vec![
            node("Identity", &["condition"], "goes_on"),
            node("Identity", &["value"], "same"),
        ],
        input: vec![
            value("round", DataType::Int64, &[]),
            value("condition", DataType::Bool, &[]),
            value("value", DataType::Float, &[1]),
        ],
        output: vec![named("goes_on"), named("same")],
        ..GraphProto::default()
    };
    let case = Case::new("Loop").integers(&[], &[rounds]).absent();
    case.floats(&[1]).graph("body", &body)
}

/// A check that passes so many times, and how often it was asked.
fn after(
    times: usize,
) -> (
    impl Fn() -> Result<(), Stopped> + Send + Sync,
    Arc<AtomicUsize>,
) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let check = move || match counter.fetch_add(1, Ordering::Relaxed) {
        asked if asked < times => Ok(()),
        _ => Err(Stopped),
    };
    (check, asked)
}

#[test]
fn a_loop_ends_with_the_time() {
    let (graph, inputs) = turning(10_000).read().unwrap();
    graph.plan(&inputs).unwrap();
    let (check, asked) = after(1000);
    let stopped = graph.run(&inputs, check);
    assert!(matches!(stopped, Err(RunError::Stopped(Stopped))));
    assert!(asked.load(Ordering::Relaxed) < 1010);
    assert!(graph.run(&inputs, || Ok::<(), Stopped>(())).is_ok());
}

#[test]
fn a_plan_is_made_for_the_next_when_the_time_is_over() {
    let mut case = holding(1000, 2);
    let kind = case.graph.input[0].r#type.as_mut().unwrap();
    let Some(Kind::TensorType(tensor)) = &mut kind.value else {
        panic!("it is a tensor");
    };
    tensor.shape.as_mut().unwrap().dim[0].value = None;
    let (graph, inputs) = case.read().unwrap();
    // Time enough to begin, and not to make it: nothing is asked of a request before each node of it.
    let (check, asked) = after(3);
    let stopped = graph.run(&inputs, check);
    assert!(matches!(stopped, Err(RunError::Stopped(Stopped))));
    assert!(asked.load(Ordering::Relaxed) < 10);
    assert!(graph.run(&inputs, || Ok::<(), Stopped>(())).is_ok());
}

/// A plan that must not be made, and how often it was looked at.
#[derive(Debug, Default)]
struct Forbidden(AtomicUsize);

impl VetPlan for Forbidden {
    fn vet(&self, key: &PlanKey) -> Result<(), GraphError> {
        assert_eq!(key.shapes[0].as_slice(), [2]);
        self.0.fetch_add(1, Ordering::Relaxed);
        let reason = "it takes too much".to_owned();
        Err(GraphError::Prepare { reason })
    }
}

#[test]
fn a_plan_for_shapes_of_a_request_is_looked_at_first() {
    let mut case = holding(2, 2);
    let kind = case.graph.input[0].r#type.as_mut().unwrap();
    let Some(Kind::TensorType(tensor)) = &mut kind.value else {
        panic!("it is a tensor");
    };
    tensor.shape.as_mut().unwrap().dim[0].value = None;
    let (graph, inputs) = case.read().unwrap();
    let forbidden = Arc::new(Forbidden::default());
    let graph = graph.vetting_plans(forbidden.clone());
    for _ in 0..2 {
        match graph.run(&inputs, || Ok::<(), Stopped>(())) {
            Err(RunError::Plan(GraphError::Prepare { reason })) => {
                assert_eq!(reason, "it takes too much");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(forbidden.0.load(Ordering::Relaxed), 1);
}

#[test]
fn what_a_branch_makes_is_counted() {
    let number = |name: &str, i: i64| AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int.into(),
        i,
        ..AttributeProto::default()
    };
    let largest = |of: &str, output: &str| NodeProto {
        attribute: vec![number("keepdims", 0)],
        ..node("ReduceMax", &[of], output)
    };
    // The square of as many elements as are not zero, and of that one number.
    let branch = |operator: &str| GraphProto {
        node: vec![
            node("NonZero", &["in_0"], &format!("{operator} row")),
            node(
                "Transpose",
                &[&format!("{operator} row")],
                &format!("{operator} column"),
            ),
            node(
                operator,
                &[&format!("{operator} row"), &format!("{operator} column")],
                &format!("{operator} square"),
            ),
            largest(&format!("{operator} square"), operator),
        ],
        output: vec![ValueInfoProto {
            name: operator.to_owned(),
            ..ValueInfoProto::default()
        }],
        ..GraphProto::default()
    };
    let square = |elements: usize| {
        let mut case = Case::new("If").floats(&[elements]);
        let mut condition = node("Cast", &["largest"], "condition");
        condition.attribute = vec![number("to", i64::from(i32::from(DataType::Bool)))];
        case.graph.node = vec![largest("in_0", "largest"), condition];
        case.node.input = vec!["condition".to_owned()];
        case.graph("then_branch", &branch("Mul"))
            .graph("else_branch", &branch("Sub"))
    };
    square(100).run().unwrap();
    match square(2000).outcome() {
        Err(Refused::Run(RunError::TooLarge(GraphError::NodeTooLarge { .. }))) => {}
        other => panic!("{:?}", other.map(|_| "it runs")),
    }
}

#[test]
fn an_extent_of_zero_excuses_no_other() {
    let extents = [3, 0, 1 << 31];
    for operator in ["ReduceMax", "Neg", "Exp"] {
        match Case::new(operator).floats(&extents).outcome() {
            Err(Refused::Read(GraphError::NodeTooLarge { .. })) => {}
            other => panic!("{operator}: {:?}", other.map(|_| "it runs")),
        }
    }
    assert!(Case::new("Exp").floats(&[3, 0, 1 << 10]).run().is_ok());
}
