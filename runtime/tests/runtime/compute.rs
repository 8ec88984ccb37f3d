//! Graphs give the right values, in every dtype and shape, within their budget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_inference::{Dtype, FailureKind, NamedTensor, Tensor};
use tidegate_runtime::{Budget, Limits, Manifest, ModuleFile};
use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use crate::fixture::{
    ECHO, as_floats, attribute, budget, floats, guest, identity, integers, load, module,
    neighbour_answers, node, onnx, packed, runtime, runtime_with, tensor, value,
};

#[test]
fn a_graph_computes() {
    let float = |name: &str| value(name, DataType::Float, vec![2.into(), 2.into()]);
    let ones = TensorProto {
        name: "c".to_owned(),
        dims: vec![2, 2],
        data_type: DataType::Float.into(),
        float_data: vec![1.0, 2.0, 3.0, 4.0],
        ..TensorProto::default()
    };
    let nodes = vec![
        node("MatMul", &["a", "b"], "p"),
        node("Add", &["p", "c"], "y"),
    ];
    let bytes = onnx(
        vec![float("a"), float("b")],
        vec![ones],
        nodes,
        vec![float("y")],
    );
    let runtime = runtime();
    let model = load(&runtime, &packed(&bytes));
    let a = || floats("a", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let b = || floats("b", &[2, 2], &[0.5, -1.0, 2.0, 0.0]);
    for inputs in [vec![a(), b()], vec![b(), a()]] {
        let outputs = model.infer(inputs, &budget()).unwrap();
        assert_eq!(outputs[0].name, "y");
        assert_eq!(as_floats(&outputs[0].tensor), [5.5, 1.0, 12.5, 1.0]);
    }
}

#[test]
fn every_dtype_passes_a_graph_and_a_guest_unchanged() {
    let runtime = runtime();
    let cases = [
        (Dtype::Bool, DataType::Bool),
        (Dtype::Uint8, DataType::Uint8),
        (Dtype::Uint16, DataType::Uint16),
        (Dtype::Uint32, DataType::Uint32),
        (Dtype::Uint64, DataType::Uint64),
        (Dtype::Int8, DataType::Int8),
        (Dtype::Int16, DataType::Int16),
        (Dtype::Int32, DataType::Int32),
        (Dtype::Int64, DataType::Int64),
        (Dtype::Fp16, DataType::Float16),
        (Dtype::Fp32, DataType::Float),
        (Dtype::Fp64, DataType::Double),
    ];
    for (dtype, elements) in cases {
        let one = |name: &str| value(name, elements, vec![3.into()]);
        let nodes = vec![node("Identity", &["x"], "y")];
        let bytes = onnx(vec![one("x")], vec![], nodes, vec![one("y")]);
        let data: Vec<u8> = match dtype {
            Dtype::Bool => vec![1, 0, 1],
            _ => (0..dtype.size().unwrap() * 3)
                .map(|i| u8::try_from(i * 7 + 1).unwrap())
                .collect(),
        };
        let input = tensor("x", dtype, &[3], data);
        let outputs = load(&runtime, &packed(&bytes))
            .infer(vec![input.clone()], &budget())
            .unwrap();
        assert_eq!(outputs[0].tensor, input.tensor, "{dtype}");
    }
    let strings = Tensor::from_byte_elements(&["a", "", "tide"]);
    let one = |name: &str| value(name, DataType::String, vec![3.into()]);
    let nodes = vec![node("Identity", &["x"], "y")];
    let bytes = onnx(vec![one("x")], vec![], nodes, vec![one("y")]);
    let model = load(&runtime, &packed(&bytes));
    let ask = |tensor| {
        let name = "x".to_owned();
        model.infer(vec![NamedTensor { name, tensor }], &budget())
    };
    assert_eq!(ask(strings.clone()).unwrap()[0].tensor, strings);
    let failure = ask(Tensor::from_byte_elements(&[&b"a"[..], b"\xff", b"b"])).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    assert!(failure.message.contains("UTF-8"), "{failure}");
}

#[test]
fn nan_and_infinity_pass_bit_by_bit() {
    let runtime = runtime();
    let model = load(&runtime, &packed(&identity()));
    let bits = [0x7fc0_1234_u32, 0xff80_0000]
        .map(u32::to_le_bytes)
        .concat();
    let input = tensor("x", Dtype::Fp32, &[2], bits);
    let outputs = model.infer(vec![input.clone()], &budget()).unwrap();
    assert_eq!(outputs[0].tensor, input.tensor);
}

#[test]
fn a_guest_that_forwards_copies_nothing() {
    let runtime = runtime();
    let model = load(&runtime, &module(&guest("", "", ECHO)));
    let input = floats("x", &[2], &[1.0, 2.0]);
    let place = input.tensor.data().as_ptr();
    let outputs = model.infer(vec![input], &budget()).unwrap();
    assert_eq!(outputs[0].tensor.data().as_ptr(), place);
}

#[test]
fn inputs_that_do_not_fit_are_the_caller_s_fault() {
    let runtime = runtime();
    let model = load(&runtime, &packed(&identity()));
    let check = |inputs: Vec<NamedTensor>, message: &str| {
        let failure = model.infer(inputs, &budget()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains(message), "{failure}");
    };
    check(vec![], "\"x\" is missing");
    check(vec![floats("x", &[3], &[0.0; 3])], "of shape [3]");
    check(
        vec![tensor("x", Dtype::Uint8, &[2], vec![0; 2])],
        "got UINT8",
    );
    check(vec![floats("z", &[2], &[0.0; 2])], "no input \"z\"");
    check(
        vec![floats("x", &[2], &[0.0; 2]), floats("x", &[2], &[0.0; 2])],
        "twice",
    );
    neighbour_answers(&model);
}

/// `y = x + x` with a free first axis.
fn free() -> Vec<u8> {
    let float = |name: &str| value(name, DataType::Float, vec!["n".into(), 2.into()]);
    let nodes = vec![node("Add", &["x", "x"], "y")];
    onnx(vec![float("x")], vec![], nodes, vec![float("y")])
}

#[test]
fn a_free_axis_takes_more_shapes_than_plans_are_kept() {
    let runtime = runtime_with(Limits {
        plans_max: 2,
        ..Limits::default()
    });
    let model = load(&runtime, &packed(&free()));
    for rows in [1, 2, 3, 1, 0, 7, 3, 1] {
        let values: Vec<f32> = (0_u8..rows * 2).map(f32::from).collect();
        let rows = usize::from(rows);
        let outputs = model
            .infer(vec![floats("x", &[rows, 2], &values)], &budget())
            .unwrap();
        let twice: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
        assert_eq!(outputs[0].tensor.shape(), [rows, 2]);
        assert_eq!(as_floats(&outputs[0].tensor), twice);
    }
}

/// `y = v0 + a + a + ... + b`, with `a` added so many times; `b` has a free axis of its own.
fn joined(times: usize) -> Vec<u8> {
    let square = |name: &str, axis: &str| value(name, DataType::Float, vec![axis.into(), 2.into()]);
    let mut nodes: Vec<_> = (0..times)
        .map(|i| node("Add", &[&format!("v{i}"), "a"], &format!("v{}", i + 1)))
        .collect();
    let last = format!("v{times}");
    nodes.push(node("Add", &[&last, "b"], "y"));
    let (v0, a, b) = (square("v0", "n"), square("a", "n"), square("b", "m"));
    onnx(vec![v0, a, b], vec![], nodes, vec![square("y", "n")])
}

/// Inputs of [`joined`] with `n` and `m` rows.
fn rows(n: usize, m: usize) -> Vec<NamedTensor> {
    let ones = |name: &str, rows: usize| floats(name, &[rows, 2], &vec![1.0; rows * 2]);
    vec![ones("v0", n), ones("a", n), ones("b", m)]
}

#[test]
fn free_axes_that_contradict_each_other_are_the_caller_s_fault() {
    let runtime = runtime();
    let neighbour = load(&runtime, &packed(&identity()));
    let model = load(&runtime, &packed(&joined(1)));
    for (n, m) in [(3, 4), (2, 5), (3, 4)] {
        let failure = model.infer(rows(n, m), &budget()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
        let message = &failure.message;
        assert!(message.contains("broadcast"), "{message}");
        assert!(message.chars().count() < 2000, "{message}");
        assert_eq!(longest_dump(message), None, "{message}");
        let outputs = model.infer(rows(n, n), &budget()).unwrap();
        assert_eq!(as_floats(&outputs[0].tensor), vec![3.0; n * 2]);
    }
    neighbour_answers(&neighbour);
}

/// A cause of more than 300 characters, which can only be something printed for programmers.
fn longest_dump(message: &str) -> Option<&str> {
    message
        .split(": ")
        .find(|cause| cause.chars().count() > 300)
}

#[test]
fn a_guest_that_traps_when_its_graph_fails_is_not_blamed_for_it() {
    let nn = |interface: &str| format!("wasi:nn/{interface}@0.2.0-rc-2024-10-28");
    let imports = format!(
        "(import \"{}\" \"load-by-name\" (func $load (param i32 i32 i32)))
        (import \"{}\" \"[method]graph.init-execution-context\" (func $init (param i32 i32)))
        (import \"{}\" \"[method]graph-execution-context.compute\"
            (func $compute (param i32 i32 i32 i32)))",
        nn("graph"),
        nn("graph"),
        nn("inference")
    );
    let body = "(call $load (i32.const 16) (i32.const 1) (i32.const 1024))
        (call $init (i32.load (i32.const 1028)) (i32.const 1024))
        (call $compute (i32.load (i32.const 1028)) (local.get $inputs) (local.get $len)
            (i32.const 1024))
        unreachable";
    let component = guest(&imports, "(data (i32.const 16) \"g\")", body);
    let bytes = joined(1);
    let (inputs, outputs) = tidegate_graph::describe(&bytes).unwrap();
    let manifest = Manifest::new("model", "1.0.0", inputs, outputs);
    let file = ModuleFile::assemble(&component, manifest, &[("g", &bytes)]).unwrap();
    let runtime = runtime();
    let model = load(&runtime, &file);
    for (n, m, kind) in [(3, 4, FailureKind::Invalid), (3, 3, FailureKind::Module)] {
        let failure = model.infer(rows(n, m), &budget()).unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
    }
}

#[test]
fn a_shape_that_suits_no_node_is_the_caller_s_fault() {
    let x = value("x", DataType::Float, vec!["n".into()]);
    let y = value("y", DataType::Float, vec![2.into(), 3.into()]);
    let nodes = vec![node("Reshape", &["x", "shape"], "y")];
    let runtime = runtime();
    let bytes = onnx(vec![x], vec![integers("shape", &[2, 3])], nodes, vec![y]);
    let model = load(&runtime, &packed(&bytes));
    let ask = |n: usize| model.infer(vec![floats("x", &[n], &vec![1.0; n])], &budget());
    assert_eq!(ask(6).unwrap()[0].tensor.shape(), [2, 3]);
    let failure = ask(7).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    assert_eq!(longest_dump(&failure.message), None, "{failure}");
}

#[test]
fn a_deadline_that_passes_while_a_graph_is_prepared_is_not_the_caller_s_shape() {
    let runtime = runtime();
    let model = load(&runtime, &packed(&joined(2000)));
    let soon = Budget::until(Instant::now() + Duration::from_millis(2));
    let failure = model.infer(rows(3, 4), &soon).unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded, "{failure}");
    let failure = model.infer(rows(3, 4), &budget()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
}

#[test]
fn many_threads_share_a_model() {
    let runtime = runtime();
    let model = load(&runtime, &packed(&free()));
    std::thread::scope(|scope| {
        for rows in 1..=4_usize {
            let model = Arc::clone(&model);
            scope.spawn(move || {
                for _ in 0..50 {
                    let input = floats("x", &[rows, 2], &vec![1.0; rows * 2]);
                    let outputs = model.infer(vec![input], &budget()).unwrap();
                    assert_eq!(as_floats(&outputs[0].tensor), vec![2.0; rows * 2]);
                }
            });
        }
    });
}

/// A chain of matrix products that takes seconds.
fn slow() -> Vec<u8> {
    let square = |name: &str| value(name, DataType::Float, vec![512.into(), 512.into()]);
    let names: Vec<String> = (0..=400).map(|i| format!("v{i}")).collect();
    let nodes = names
        .windows(2)
        .map(|pair| node("MatMul", &[&pair[0], &pair[0]], &pair[1]))
        .collect();
    onnx(vec![square("v0")], vec![], nodes, vec![square("v400")])
}

#[test]
fn a_graph_ends_with_the_deadline() {
    let runtime = runtime();
    let neighbour = load(&runtime, &packed(&identity()));
    let model = load(&runtime, &packed(&slow()));
    let input = || vec![floats("v0", &[512, 512], &vec![0.0; 512 * 512])];
    let soon = Budget::until(Instant::now() + Duration::from_millis(20));
    let failure = model.infer(input(), &soon).unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded, "{failure}");
    let past = Budget::until(Instant::now());
    let failure = model.infer(input(), &past).unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded, "{failure}");
    neighbour_answers(&neighbour);
}

#[test]
fn a_tensor_that_would_be_too_large_is_never_made() {
    let runtime = runtime_with(Limits {
        graph_tensor_bytes_max: 1 << 20,
        ..Limits::default()
    });
    let neighbour = load(&runtime, &packed(&identity()));
    // Its size is in the file: refused when it is loaded.
    let fill = TensorProto {
        dims: vec![1],
        data_type: DataType::Float.into(),
        float_data: vec![1.0],
        ..TensorProto::default()
    };
    let mut constant = node("ConstantOfShape", &["shape"], "big");
    constant.attribute.push(attribute("value", fill));
    let nodes = vec![constant, node("Add", &["big", "x"], "y")];
    let shape = integers("shape", &[1 << 20, 1 << 20]);
    let x = value("x", DataType::Float, vec![1.into()]);
    let y = value("y", DataType::Float, vec!["a".into(), "b".into()]);
    let bytes = onnx(vec![x], vec![shape], nodes, vec![y]);
    let error = runtime.load(packed(&bytes).file().clone()).unwrap_err();
    let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(text.contains("at most 1048576 are allowed"), "{text}");

    // Its size is in the request: refused when it is run.
    let nodes = vec![node("Range", &["start", "limit", "step"], "y")];
    let limit = value("limit", DataType::Int64, vec![]);
    let scalar = |name: &str, number: i64| TensorProto {
        dims: vec![],
        ..integers(name, &[number])
    };
    let constants = vec![scalar("start", 0), scalar("step", 1)];
    let y = value("y", DataType::Int64, vec!["n".into()]);
    let bytes = onnx(vec![limit], constants, nodes, vec![y]);
    let model = load(&runtime, &packed(&bytes));
    let ask = |limit: i64| {
        let limit = tensor("limit", Dtype::Int64, &[], limit.to_le_bytes().to_vec());
        model.infer(vec![limit], &budget())
    };
    let three = [0, 1, 2].map(i64::to_le_bytes).concat();
    assert_eq!(ask(3).unwrap()[0].tensor.data()[..], three);
    let failure = ask(1 << 30).unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
    assert!(
        failure.message.contains("at most 1048576 are allowed"),
        "{failure}"
    );
    neighbour_answers(&neighbour);
}
