//! What exporters write and the engine does not take as it is: values that decide shapes, functions,
//! conditions, brain floats, state, names that are used twice.

use std::error::Error;

use prost::Message;
use tidegate_inference::{Dtype, FailureKind, NamedTensor};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Limits, LoadError, Manifest, ModuleFile};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, ValueInfoProto,
};

use crate::fixture::{
    Axis, as_floats, attribute, budget, floats, guest, identity, integers, load, node, onnx,
    packed, runtime, runtime_with, spec, tensor, value,
};

fn numbers(name: &str, values: &[i64]) -> NamedTensor {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    tensor(name, Dtype::Int64, &[values.len()], bytes)
}

fn float(name: &str, shape: Vec<Axis>) -> ValueInfoProto {
    value(name, DataType::Float, shape)
}

fn attribute_graph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Graph.into(),
        g: Some(graph),
        ..AttributeProto::default()
    }
}

/// The same file with local functions.
fn with_functions(onnx: &[u8], functions: Vec<FunctionProto>) -> Vec<u8> {
    let mut proto = ModelProto::decode(onnx).unwrap();
    proto.opset_import.push(OperatorSetIdProto {
        domain: "mine".to_owned(),
        version: 1,
    });
    proto.functions = functions;
    proto.encode_to_vec()
}

fn function(name: &str, inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> FunctionProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("mine".to_owned()),
        input: owned(inputs),
        output: owned(outputs),
        node: nodes,
        ..FunctionProto::default()
    }
}

fn mine(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        domain: "mine".to_owned(),
        ..node(operator, inputs, output)
    }
}

/// Why a graph is refused, causes included.
fn refusal(bytes: &[u8]) -> String {
    let (inputs, outputs) = tidegate_graph::describe(bytes).unwrap();
    let manifest = Manifest::new("model", "1.0.0", inputs, outputs);
    let component = pass_through("g").unwrap();
    let file = ModuleFile::assemble(&component, manifest, &[("g", bytes)]).unwrap();
    let error: LoadError = runtime().load(file.file().clone()).unwrap_err();
    format!("{error}: {}", error.source().unwrap())
}

/// `y = reshape(x, shape)`, with the shape an input.
fn reshape(extents: i64) -> Vec<u8> {
    let shape = value("shape", DataType::Int64, vec![extents.into()]);
    let nodes = vec![node("Reshape", &["x", "shape"], "y")];
    let outputs = vec![float("y", vec!["a".into(), "b".into()])];
    onnx(
        vec![float("x", vec![6.into()]), shape],
        vec![],
        nodes,
        outputs,
    )
}

#[test]
fn a_shape_may_be_an_input() {
    let runtime = runtime_with(Limits {
        plans_max: 2,
        ..Limits::default()
    });
    let model = load(&runtime, &packed(&reshape(2)));
    let x = || floats("x", &[6], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    for (rows, columns) in [(2, 3), (3, 2), (1, 6), (6, 1), (2, 3)] {
        let wanted = [i64::from(rows), i64::from(columns)];
        let outputs = model.infer(vec![x(), numbers("shape", &wanted)], &budget());
        let outputs = outputs.unwrap();
        assert_eq!(outputs[0].tensor.shape(), [rows as usize, columns as usize]);
        assert_eq!(
            as_floats(&outputs[0].tensor),
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        );
    }
    let failure = model.infer(vec![x(), numbers("shape", &[4, 2])], &budget());
    assert_eq!(failure.unwrap_err().kind, FailureKind::Invalid);
}

#[test]
fn a_value_that_decides_shapes_is_small_or_named() {
    let shape = value("shape", DataType::Int64, vec!["n".into()]);
    let nodes = vec![node("Reshape", &["x", "shape"], "y")];
    let outputs = vec![float("y", vec!["a".into(), "b".into()])];
    let bytes = onnx(
        vec![float("x", vec![6.into()]), shape],
        vec![],
        nodes,
        outputs,
    );
    let runtime = runtime();
    let model = load(&runtime, &packed(&bytes));
    let inputs = vec![floats("x", &[6], &[0.0; 6]), numbers("shape", &[1; 100])];
    let failure = model.infer(inputs, &budget()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    for part in ["\"shape\"", "100 elements", "at most 64"] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn a_shape_that_is_computed_from_an_input_is_never_made_real_beyond_the_limit() {
    let n = value("n", DataType::Int64, vec![1.into()]);
    let nodes = vec![
        node("Mul", &["n", "million"], "many"),
        node("Concat", &["many", "many"], "shape"),
        node("ConstantOfShape", &["shape"], "y"),
    ];
    let mut nodes = nodes;
    nodes[1].attribute.push(AttributeProto {
        name: "axis".to_owned(),
        r#type: AttributeType::Int.into(),
        ..AttributeProto::default()
    });
    let outputs = vec![float("y", vec!["a".into(), "b".into()])];
    let million = integers("million", &[1_000_000]);
    let bytes = onnx(
        vec![n],
        vec![million.clone()],
        nodes.clone(),
        outputs.clone(),
    );
    let runtime = runtime();
    let model = load(&runtime, &packed(&bytes));
    let failure = model
        .infer(vec![numbers("n", &[7])], &budget())
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
    let outputs_none = model.infer(vec![numbers("n", &[0])], &budget()).unwrap();
    assert_eq!(outputs_none[0].tensor.shape(), [0, 0]);

    // The same, with everything in the file.
    let constants = vec![million, integers("n", &[7])];
    let text = refusal(&onnx(vec![], constants, nodes, outputs));
    assert!(text.contains("at most 536870912 are allowed"), "{text}");
}

#[test]
fn functions_of_the_file_are_called() {
    let double = function(
        "Double",
        &["a"],
        vec![node("Add", &["a", "a"], "b")],
        &["b"],
    );
    let twice = function(
        "Twice",
        &["b"],
        vec![mine("Double", &["b"], "a"), mine("Double", &["a"], "c")],
        &["c"],
    );
    let nodes = vec![mine("Twice", &["x"], "a"), mine("Double", &["a"], "y")];
    let x = float("x", vec![2.into()]);
    let bytes = onnx(vec![x], vec![], nodes, vec![float("y", vec![2.into()])]);
    let bytes = with_functions(&bytes, vec![double, twice]);
    let runtime = runtime();
    let outputs = load(&runtime, &packed(&bytes))
        .infer(vec![floats("x", &[2], &[1.0, -3.0])], &budget())
        .unwrap();
    assert_eq!(as_floats(&outputs[0].tensor), [8.0, -24.0]);
}

#[test]
fn functions_that_never_end_or_multiply_are_refused() {
    let shape = || vec![Axis::from(2)];
    let calling = |operator: &str, functions: Vec<FunctionProto>| {
        let nodes = vec![mine(operator, &["x"], "y")];
        let (x, y) = (float("x", shape()), float("y", shape()));
        with_functions(&onnx(vec![x], vec![], nodes, vec![y]), functions)
    };
    let own = function("Own", &["a"], vec![mine("Own", &["a"], "b")], &["b"]);
    let text = refusal(&calling("Own", vec![own]));
    assert!(
        text.contains("function \"Own\"") && text.contains("from itself"),
        "{text}"
    );

    // A megabyte that is used ten thousand times.
    let mut constant = node("Constant", &[], "b");
    constant
        .attribute
        .push(attribute("value", integers("", &[0; 1 << 17])));
    let one = function("One", &["a"], vec![constant], &["b"]);
    let calls = (0..10_000).map(|call| mine("One", &["a"], &format!("b{call}")));
    let many = function("Many", &["a"], calls.collect(), &["b0"]);
    let text = refusal(&calling("Many", vec![one, many]));
    assert!(
        text.contains("bytes when they are put where they are called"),
        "{text}"
    );

    // Forty functions of two calls each: a few kilobytes that would be 2^40 nodes.
    let functions = (0..40).map(|level| {
        let next = format!("F{}", level + 1);
        let body = vec![mine(&next, &["a"], "b"), mine(&next, &["b"], "c")];
        function(&format!("F{level}"), &["a"], body, &["c"])
    });
    // What nobody wants costs time all the same.
    let idle = (0..40).map(|level| {
        let next = format!("F{}", level + 1);
        let body = vec![
            mine(&next, &["a"], ""),
            mine(&next, &["a"], ""),
            node("Neg", &["a"], "c"),
        ];
        function(&format!("F{level}"), &["a"], body, &["c"])
    });
    let last = || function("F40", &["a"], vec![node("Neg", &["a"], "b")], &["b"]);
    let bytes = calling("F0", idle.chain([last()]).collect());
    assert!(bytes.len() < 10_000);
    let text = refusal(&bytes);
    assert!(text.contains("more than 50000 times"), "{text}");

    let bytes = calling("F0", functions.chain([last()]).collect());
    assert!(bytes.len() < 10_000);
    let text = refusal(&bytes);
    assert!(text.contains("more than 50000 times"), "{text}");
}

#[test]
fn graphs_in_graphs_end_somewhere() {
    let mut body = GraphProto {
        node: vec![node("Identity", &["x"], "deep")],
        output: vec![float("deep", vec![2.into()])],
        ..GraphProto::default()
    };
    for level in 0..12 {
        let name = format!("v{level}");
        let mut condition = node("If", &["c"], &name);
        condition.attribute = vec![
            attribute_graph("then_branch", body.clone()),
            attribute_graph("else_branch", GraphProto::default()),
        ];
        body = GraphProto {
            node: vec![condition],
            output: vec![float(&name, vec![2.into()])],
            ..GraphProto::default()
        };
    }
    let c = value("c", DataType::Bool, vec![]);
    let inputs = vec![float("x", vec![2.into()]), c];
    let bytes = onnx(inputs, vec![], body.node, body.output);
    let text = refusal(&bytes);
    assert!(text.contains("nested more than 8 deep"), "{text}");
}

#[test]
fn graphs_that_contradict_themselves_are_refused() {
    let x = || vec![float("x", vec![2.into()])];
    let y = || vec![float("y", vec![2.into()])];
    let check = |nodes: Vec<NodeProto>, message: &str| {
        let text = refusal(&onnx(x(), vec![], nodes, y()));
        assert!(text.contains(message), "{text}");
    };
    let twice = vec![node("Neg", &["x"], "y"), node("Abs", &["x"], "y")];
    check(twice, "two values have the name \"y\"");
    check(
        vec![node("Neg", &["x"], "z")],
        "nothing makes the output \"y\"",
    );
    check(vec![mine("Neg", &["x"], "y")], "mine::Neg");
    let circle = vec![
        node("Add", &["x", "b"], "a"),
        node("Neg", &["a"], "b"),
        node("Abs", &["b"], "y"),
    ];
    check(circle, "cannot be prepared");
    let mut reverse = node("LSTM", &["x", "x", "x"], "y");
    reverse.attribute.push(AttributeProto {
        name: "clip".to_owned(),
        f: 1.0,
        ..AttributeProto::default()
    });
    check(vec![reverse], "LSTM with clip");
}

#[test]
fn a_condition_on_a_shape_takes_one_branch() {
    let branch = |operator: &str, name: &str| GraphProto {
        node: vec![node(operator, &["x"], name)],
        output: vec![float(name, vec!["n".into()])],
        ..GraphProto::default()
    };
    let mut condition = node("If", &["is-two"], "y");
    condition.attribute = vec![
        attribute_graph("then_branch", branch("Neg", "t")),
        attribute_graph("else_branch", branch("Abs", "e")),
    ];
    let two = TensorProto {
        dims: vec![],
        ..integers("two", &[2])
    };
    let nodes = vec![
        node("Size", &["x"], "size"),
        node("Equal", &["size", "two"], "is-two"),
        condition,
    ];
    let x = float("x", vec!["n".into()]);
    let bytes = onnx(
        vec![x],
        vec![two],
        nodes,
        vec![float("y", vec!["n".into()])],
    );
    let runtime = runtime();
    let model = load(&runtime, &packed(&bytes));
    let ask = |values: &[f32]| {
        let outputs = model.infer(vec![floats("x", &[values.len()], values)], &budget());
        as_floats(&outputs.unwrap()[0].tensor)
    };
    assert_eq!(ask(&[1.0, -2.0]), [-1.0, 2.0]);
    assert_eq!(ask(&[1.0, -2.0, 3.0]), [1.0, 2.0, 3.0]);
}

#[test]
fn brain_floats_pass_and_are_computed_with() {
    let brain = |name: &str| value(name, DataType::Bfloat16, vec![3.into()]);
    let runtime = runtime();
    let run = |operator: &str, inputs: &[&str], values: [f32; 3]| {
        let nodes = vec![node(operator, inputs, "y")];
        let bytes = onnx(vec![brain("x")], vec![], nodes, vec![brain("y")]);
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| half::bf16::from_f32(*value).to_le_bytes())
            .collect();
        let outputs = load(&runtime, &packed(&bytes))
            .infer(vec![tensor("x", Dtype::Bf16, &[3], data)], &budget())
            .unwrap();
        assert_eq!(outputs[0].tensor.dtype(), Dtype::Bf16);
        let (chunks, _) = outputs[0].tensor.data().as_chunks::<2>();
        let value = |chunk: &[u8; 2]| half::bf16::from_le_bytes(*chunk).to_f32();
        chunks.iter().map(value).collect::<Vec<f32>>()
    };
    assert_eq!(
        run("Identity", &["x"], [1.5, -0.0, f32::INFINITY]),
        [1.5, -0.0, f32::INFINITY]
    );
    assert_eq!(run("Add", &["x", "x"], [1.5, -2.0, 0.25]), [3.0, -4.0, 0.5]);
}

#[test]
fn scalars_and_tensors_of_nothing_pass() {
    let runtime = runtime();
    let nodes = || vec![node("Add", &["x", "x"], "y")];
    let bytes = onnx(
        vec![float("x", vec![])],
        vec![],
        nodes(),
        vec![float("y", vec![])],
    );
    let model = load(&runtime, &packed(&bytes));
    let outputs = model
        .infer(vec![floats("x", &[], &[2.5])], &budget())
        .unwrap();
    assert_eq!(outputs[0].tensor.shape(), [0; 0]);
    assert_eq!(as_floats(&outputs[0].tensor), [5.0]);

    let shape = || vec![Axis::from("n"), Axis::from(3)];
    let bytes = onnx(
        vec![float("x", shape())],
        vec![],
        nodes(),
        vec![float("y", shape())],
    );
    let model = load(&runtime, &packed(&bytes));
    let outputs = model
        .infer(vec![floats("x", &[0, 3], &[])], &budget())
        .unwrap();
    assert_eq!(outputs[0].tensor.shape(), [0, 3]);
}

#[test]
fn state_goes_in_and_comes_out_as_a_tensor() {
    let cell = |name: &str| float(name, vec![2.into()]);
    let nodes = vec![
        node("Add", &["x", "state"], "next"),
        node("Neg", &["next"], "y"),
    ];
    let inputs = vec![cell("x"), cell("state")];
    let bytes = onnx(inputs, vec![], nodes, vec![cell("y"), cell("next")]);
    let runtime = runtime();
    let model = load(&runtime, &packed(&bytes));
    let mut state = floats("state", &[2], &[0.0, 0.0]);
    for step in 1..=4_u8 {
        let x = floats("x", &[2], &[1.0, 2.0]);
        let outputs = model.infer(vec![x, state], &budget()).unwrap();
        let step = f32::from(step);
        assert_eq!(as_floats(&outputs[0].tensor), [-step, -2.0 * step]);
        state = NamedTensor {
            name: "state".to_owned(),
            tensor: outputs[1].tensor.clone(),
        };
    }
}

#[test]
fn a_module_carries_several_graphs() {
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
    let step = |name: u32, result: u32| {
        format!(
            "(call $load (i32.const {name}) (i32.const 1) (i32.const 1024))
            (call $init (i32.load (i32.const 1028)) (i32.const 1024))
            (call $compute (i32.load (i32.const 1028)) (local.get $inputs) (local.get $len)
                (i32.const {result}))
            (local.set $inputs (i32.load (i32.const {})))
            (local.set $len (i32.load (i32.const {})))",
            result + 4,
            result + 8
        )
    };
    let body = format!("{} {} (i32.const 2048)", step(16, 1088), step(17, 2048));
    let component = guest(&imports, "(data (i32.const 16) \"ab\")", &body);
    let first = identity_named("x", "x2", "Neg");
    let second = identity_named("x2", "y", "Exp");
    let inputs = vec![spec("x", Dtype::Fp32, &[2])];
    let outputs = vec![spec("y", Dtype::Fp32, &[2])];
    let manifest = Manifest::new("two", "1.0.0", inputs, outputs);
    let graphs = [("a", &first[..]), ("b", &second[..])];
    let file = ModuleFile::assemble(&component, manifest, &graphs).unwrap();
    let runtime = runtime();
    let outputs = load(&runtime, &file)
        .infer(vec![floats("x", &[2], &[0.0, -1.0])], &budget())
        .unwrap();
    let got = as_floats(&outputs[0].tensor);
    assert!(
        (got[0] - 1.0).abs() < 1e-5 && (got[1] - 1.0_f32.exp()).abs() < 1e-5,
        "{got:?}"
    );
}

/// A graph of one node from one named input to one named output.
fn identity_named(input: &str, output: &str, operator: &str) -> Vec<u8> {
    let cell = |name: &str| float(name, vec![2.into()]);
    let nodes = vec![node(operator, &[input], output)];
    onnx(vec![cell(input)], vec![], nodes, vec![cell(output)])
}

#[test]
fn inputs_are_settled_for_good() {
    let fix = |bytes: &[u8], constants: &[(&str, &str)], shapes: &[(&str, &[i64])]| {
        let constants = constants
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let shapes = shapes
            .iter()
            .map(|(name, shape)| ((*name).into(), shape.to_vec()));
        tidegate_graph::fix(
            bytes,
            &constants.collect::<Vec<_>>(),
            &shapes.collect::<Vec<_>>(),
        )
    };
    let fixed = fix(&reshape(2), &[("shape", "[3, 2]")], &[]).unwrap();
    let (inputs, _) = tidegate_graph::describe(&fixed).unwrap();
    assert_eq!(inputs, [spec("x", Dtype::Fp32, &[6])]);
    let runtime = runtime();
    let outputs = load(&runtime, &packed(&fixed))
        .infer(vec![floats("x", &[6], &[0.0; 6])], &budget())
        .unwrap();
    assert_eq!(outputs[0].tensor.shape(), [3, 2]);

    let free = {
        let shape = || vec![Axis::from("n"), Axis::from("m")];
        let nodes = vec![node("Neg", &["x"], "y")];
        onnx(
            vec![float("x", shape())],
            vec![],
            nodes,
            vec![float("y", shape())],
        )
    };
    let fixed = fix(&free, &[], &[("x", &[4, -1])]).unwrap();
    let (inputs, outputs) = tidegate_graph::describe(&fixed).unwrap();
    assert_eq!(inputs[0].shape, [4, -1]);
    assert_eq!(outputs[0].shape, [4, -1]);

    let says = |result: Result<Vec<u8>, tidegate_graph::FixError>, message: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(message), "{text}");
    };
    says(fix(&free, &[("z", "1")], &[]), "no input \"z\"");
    says(fix(&free, &[], &[("x", &[1, 2, 3])]), "has shape [-1, -1]");
    says(fix(&identity(), &[], &[("x", &[3])]), "has shape [2]");
    says(
        fix(&reshape(2), &[("shape", "[1, 2.5]")], &[]),
        "2.5 is no INT64",
    );
    says(
        fix(&reshape(2), &[("shape", "[1, 2, 3]")], &[]),
        "it has the shape [3]",
    );
    says(
        fix(&reshape(2), &[("shape", "[[1], 2]")], &[]),
        "nested unevenly",
    );
    says(
        fix(&reshape(2), &[("shape", "[1, \"wide\"]")], &[]),
        "\"wide\" is no INT64",
    );
}

#[test]
fn weights_of_four_bits_are_unpacked() {
    let weights = TensorProto {
        name: "w".to_owned(),
        dims: vec![5],
        data_type: DataType::Int4.into(),
        // 1, -1, 7, -8, 3: two in a byte, the first in its lower half.
        raw_data: vec![0xf1, 0x87, 0x03],
        ..TensorProto::default()
    };
    let scale = TensorProto {
        name: "s".to_owned(),
        data_type: DataType::Float.into(),
        float_data: vec![0.5],
        ..TensorProto::default()
    };
    let build = |weights: TensorProto| {
        let nodes = vec![
            node("DequantizeLinear", &["w", "s"], "d"),
            node("Add", &["d", "x"], "y"),
        ];
        let outputs = vec![float("y", vec![5.into()])];
        let inputs = vec![float("x", vec![5.into()])];
        onnx(inputs, vec![weights, scale.clone()], nodes, outputs)
    };
    let runtime = runtime();
    let outputs = load(&runtime, &packed(&build(weights.clone())))
        .infer(vec![floats("x", &[5], &[0.0; 5])], &budget())
        .unwrap();
    assert_eq!(as_floats(&outputs[0].tensor), [0.5, -0.5, 3.5, -4.0, 1.5]);

    let short = TensorProto {
        dims: vec![1 << 40],
        ..weights
    };
    let text = refusal(&build(short));
    assert!(
        text.contains("tensor \"w\" of four bits has 3 bytes"),
        "{text}"
    );
}

#[test]
fn sequences_of_known_length_are_taken_apart() {
    let cell = |name: &str| float(name, vec![2.into()]);
    let scalar = |name: &str, number: i64| TensorProto {
        dims: vec![],
        ..integers(name, &[number])
    };
    let mut join = node("ConcatFromSequence", &["three"], "y");
    let int = |name: &str, i: i64| AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int.into(),
        i,
        ..AttributeProto::default()
    };
    join.attribute = vec![int("axis", 0), int("new_axis", 1)];
    let nodes = vec![
        node("SequenceConstruct", &["a", "b"], "two"),
        node("SequenceAt", &["two", "last"], "again"),
        node("SequenceInsert", &["two", "again", "first"], "three"),
        join,
    ];
    let y = float("y", vec![3.into(), 2.into()]);
    let constants = vec![scalar("last", -1), scalar("first", 0)];
    let bytes = onnx(
        vec![cell("a"), cell("b")],
        constants,
        nodes.clone(),
        vec![y.clone()],
    );
    let runtime = runtime();
    let inputs = vec![
        floats("a", &[2], &[1.0, 2.0]),
        floats("b", &[2], &[3.0, 4.0]),
    ];
    let outputs = load(&runtime, &packed(&bytes))
        .infer(inputs, &budget())
        .unwrap();
    assert_eq!(outputs[0].tensor.shape(), [3, 2]);
    assert_eq!(
        as_floats(&outputs[0].tensor),
        [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]
    );

    let beyond = vec![scalar("last", 2), scalar("first", 0)];
    let text = refusal(&onnx(vec![cell("a"), cell("b")], beyond, nodes, vec![y]));
    assert!(text.contains("SequenceAt"), "{text}");
}
