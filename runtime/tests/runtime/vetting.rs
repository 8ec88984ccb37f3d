//! Graphs that would take a process down end a child instead, and say how; everybody else goes on.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_inference::{Dtype, FailureKind};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::vet::{VET_ARGUMENT, vet_graph};
use tidegate_runtime::{
    CacheConfig, LoadError, Manifest, ModuleFile, Runtime, RuntimeConfig, VetError, Vetting,
};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto};

use crate::fixture::{
    as_floats, attribute, budget, floats, identity, integers, load, neighbour_answers, node, onnx,
    packed, spec, value,
};

/// Memory of a child in these tests: several times what a small graph takes.
const MEMORY_BYTES: u64 = 400 << 20;

/// What this program does when it is started to misbehave.
const MISBEHAVE: &str = "misbehave";

/// This program again, which then runs one test of this file only.
fn again(test: &str, what: &[&str]) -> Vec<OsString> {
    let name = format!("vetting::{test}");
    ["--exact", &name, "--nocapture", "--test-threads=1"]
        .iter()
        .chain(what)
        .map(Into::into)
        .collect()
}

fn vetting() -> Vetting {
    Vetting {
        program: std::env::current_exe().unwrap(),
        arguments: again("this_program_prepares_a_graph_when_asked", &[VET_ARGUMENT]),
        memory_bytes_max: MEMORY_BYTES,
        cpu_time_max: Duration::from_secs(20),
    }
}

fn misbehaving(how: &str) -> Vetting {
    Vetting {
        arguments: again("this_program_misbehaves_when_asked", &[MISBEHAVE, how]),
        cpu_time_max: Duration::from_secs(1),
        ..vetting()
    }
}

fn start(vetting: Vetting) -> Arc<Runtime> {
    Runtime::start(RuntimeConfig {
        vetting: Some(vetting),
        ..RuntimeConfig::new(2)
    })
    .unwrap()
}

/// A module around a file that need not be a graph.
fn around(onnx: &[u8]) -> ModuleFile {
    let floats = |name: &str| vec![spec(name, Dtype::Fp32, &[2])];
    let manifest = Manifest::new("m", "1.0.0", floats("x"), floats("y"));
    ModuleFile::assemble(&pass_through("g").unwrap(), manifest, &[("g", onnx)]).unwrap()
}

/// How loading this graph fails, while a neighbour in this process answers all the time.
#[track_caller]
fn refused(vetting: Vetting, onnx: &[u8]) -> VetError {
    let good = start(self::vetting());
    let neighbour = load(&good, &packed(&identity()));
    let runtime = start(vetting);
    let is_over = AtomicBool::new(false);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                neighbour_answers(&neighbour);
            }
        });
        let error = runtime.load(around(onnx).file().clone());
        is_over.store(true, Ordering::Relaxed);
        error.unwrap_err()
    });
    // A runtime that met such a graph takes the next good one.
    neighbour_answers(&neighbour);
    let LoadError::Vet { name, source } = error else {
        panic!("refused, but not by the child: {error}");
    };
    assert_eq!(name, "g");
    source
}

/// A test by name only: the process in which graphs are prepared.
#[test]
fn this_program_prepares_a_graph_when_asked() {
    let mut arguments = std::env::args().skip_while(|argument| argument != VET_ARGUMENT);
    if arguments.next().is_some() {
        let _ = vet_graph(&arguments.next().unwrap());
    }
}

/// A test by name only: a process that does not do what it was started for.
#[expect(
    clippy::disallowed_methods,
    clippy::zombie_processes,
    reason = "it misbehaves on purpose"
)]
#[test]
fn this_program_misbehaves_when_asked() {
    let mut arguments = std::env::args().skip_while(|argument| argument != MISBEHAVE);
    let how = arguments.nth(1);
    match how.as_deref() {
        None => {}
        Some("abort") => std::process::abort(),
        Some("abort at plans") => {
            let task = arguments.next().unwrap();
            assert!(task.contains("\"plan\":"), "{task}");
            if !task.contains("\"plan\":null") {
                std::process::abort();
            }
            let _ = vet_graph(&task);
        }
        Some("panic") => panic!("on purpose"),
        Some("say nothing") => std::process::exit(0),
        Some("lie") => println!("\ntidegate-graph {{\"Good\":7}}"),
        Some("die with a report") => {
            println!("\ntidegate-graph {{\"Good\":{{\"peak_bytes\":1,\"cpu_micros\":1}}}}");
            std::process::abort();
        }
        Some("wait") => std::thread::sleep(Duration::from_secs(600)),
        Some("flood") => loop {
            println!("{}", "x".repeat(4096));
            eprintln!("{}", "x".repeat(4096));
        },
        Some("leave a child behind") => {
            let mut sleep = Command::new("/bin/sleep");
            let _ = rustix::process::setsid();
            sleep.arg("30").stdin(Stdio::null()).spawn().unwrap();
        }
        Some(other) => panic!("{other:?} is no misbehaviour"),
    }
}

#[test]
fn a_good_graph_is_prepared_here_after_the_child_was_through() {
    neighbour_answers(&load(&start(vetting()), &packed(&identity())));
}

#[test]
fn a_graph_that_cannot_run_is_refused_for_its_own_reason() {
    let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
    let nodes = vec![node("NoSuchOperator", &["x"], "y")];
    let bytes = onnx(vec![float("x")], vec![], nodes, vec![float("y")]);
    let error = refused(vetting(), &bytes);
    assert!(matches!(error, VetError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("NoSuchOperator"), "{text}");
    let error = refused(vetting(), b"no graph");
    assert!(error.to_string().contains("not an ONNX file"), "{error}");
}

/// Two bytes a node, and hundreds of bytes of memory: eight megabytes of file become over a gigabyte.
#[test]
fn a_file_that_decodes_to_more_than_memory_is_refused() {
    let nodes = [0x0a, 0x00].repeat(4 << 20);
    let mut bytes = vec![0x3a];
    let mut len = nodes.len();
    while len >= 0x80 {
        bytes.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    bytes.push(u8::try_from(len).unwrap());
    bytes.extend_from_slice(&nodes);
    let error = refused(vetting(), &bytes);
    assert!(
        matches!(
            error,
            VetError::Memory {
                bytes_max: MEMORY_BYTES
            }
        ),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("wanted more than 419430400 bytes"), "{text}");
}

/// The axis of an inner graph, whose name the engine reads as an expression, recursively.
#[test]
fn an_expression_deeper_than_the_stack_is_refused() {
    let deep = "(".repeat(2 << 20);
    let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
    let body = GraphProto {
        name: "body".to_owned(),
        input: vec![value("s", DataType::Float, vec![deep.as_str().into()])],
        node: vec![node("Identity", &["s"], "t")],
        output: vec![value("t", DataType::Float, vec![])],
        ..GraphProto::default()
    };
    let graph = AttributeProto {
        name: "body".to_owned(),
        r#type: attribute_proto::AttributeType::Graph.into(),
        g: Some(body),
        ..AttributeProto::default()
    };
    let inputs = AttributeProto {
        name: "num_scan_inputs".to_owned(),
        r#type: attribute_proto::AttributeType::Int.into(),
        i: 1,
        ..AttributeProto::default()
    };
    let scan = NodeProto {
        attribute: vec![graph, inputs],
        ..node("Scan", &["x"], "y")
    };
    let bytes = onnx(vec![float("x")], vec![], vec![scan], vec![float("y")]);
    let error = refused(vetting(), &bytes);
    assert!(matches!(error, VetError::Stack), "{error:?}");
}

/// Constants whose products take hours, each a few kilobytes.
#[test]
fn a_graph_that_is_folded_for_hours_is_refused() {
    const LONG: i64 = 256 << 10;
    let filled = |name: &str, shape: &str| NodeProto {
        attribute: vec![attribute(
            "value",
            TensorProto {
                dims: vec![1],
                data_type: DataType::Float.into(),
                float_data: vec![1.0],
                ..TensorProto::default()
            },
        )],
        ..node("ConstantOfShape", &[shape], name)
    };
    let mut nodes = vec![filled("a", "wide"), filled("b", "tall")];
    let mut last = "b".to_owned();
    for step in 0..4000 {
        // Each product depends on the one before, so that none is made once for all.
        let (scaled, product) = (format!("s{step}"), format!("p{step}"));
        nodes.push(node("MatMul", &["a", &last], &product));
        nodes.push(node("MatMul", &["b", &product], &scaled));
        last = scaled;
    }
    nodes.push(node("Identity", &["x"], "y"));
    let total = node("ReduceSum", &[&last], "z");
    nodes.push(total);
    let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
    let shapes = vec![integers("wide", &[64, LONG]), integers("tall", &[LONG, 64])];
    let outputs = vec![float("y"), value("z", DataType::Float, vec![])];
    let bytes = onnx(vec![float("x")], shapes, nodes, outputs);
    let vetting = Vetting {
        cpu_time_max: Duration::from_secs(2),
        memory_bytes_max: 8 << 30,
        ..vetting()
    };
    let began = Instant::now();
    let error = refused(vetting, &bytes);
    assert!(matches!(error, VetError::Time { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_graph_that_makes_the_engine_panic_is_refused() {
    // Strings as raw bytes, which the standard forbids.
    let text = TensorProto {
        name: "w".to_owned(),
        dims: vec![1],
        data_type: DataType::String.into(),
        raw_data: b"raw".to_vec(),
        ..TensorProto::default()
    };
    let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
    let nodes = vec![node("Identity", &["x"], "y")];
    let bytes = onnx(vec![float("x")], vec![text], nodes, vec![float("y")]);
    let error = refused(vetting(), &bytes);
    assert!(matches!(error, VetError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn a_program_that_misbehaves_is_no_danger() {
    let check = |how: &str, words: &str| {
        let began = Instant::now();
        let error = refused(misbehaving(how), &identity());
        assert!(error.to_string().contains(words), "{how}: {error}");
        assert!(began.elapsed() < Duration::from_secs(60), "{how}");
        error
    };
    for (how, words) in [
        ("abort", "signal"),
        ("panic", "without an answer"),
        ("say nothing", "without an answer"),
        ("lie", "without an answer"),
        ("die with a report", "signal"),
    ] {
        let error = check(how, words);
        assert!(matches!(error, VetError::Died { .. }), "{how}: {error:?}");
    }
    for how in ["wait", "flood"] {
        let error = check(how, "took more than");
        assert!(matches!(error, VetError::Time { .. }), "{how}: {error:?}");
    }
    check("leave a child behind", "without an answer");
}

#[test]
fn without_a_program_nothing_is_prepared() {
    let vetting = Vetting {
        program: PathBuf::from("/nonexistent/vet"),
        ..vetting()
    };
    let error = refused(vetting, &identity());
    assert!(matches!(error, VetError::Start { .. }), "{error:?}");
    assert!(error.to_string().contains("/nonexistent/vet"), "{error}");
}

#[test]
fn a_good_graph_is_not_asked_about_again() {
    let state = tempfile::tempdir().unwrap();
    let module = packed(&identity());
    let start = |vetting: Vetting| {
        let cache = CacheConfig {
            folder: state.path().to_owned(),
            bytes_max: 1 << 30,
        };
        Runtime::start(RuntimeConfig {
            cache: Some(cache),
            vetting: Some(vetting),
            ..RuntimeConfig::new(1)
        })
        .unwrap()
    };
    let asks = |vetting: Vetting| start(vetting).load(module.file().clone()).is_err();
    assert!(asks(misbehaving("abort")), "nothing is known yet");
    neighbour_answers(&load(&start(vetting()), &module));
    // The program is the same, and would fail if it were started.
    neighbour_answers(&load(&start(misbehaving("abort")), &module));
    let small = Vetting {
        memory_bytes_max: 1 << 20,
        ..misbehaving("abort")
    };
    assert!(asks(small), "it took more than a mebibyte");
    let verdict = std::fs::read_dir(state.path().join("code"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("graph-")
        })
        .unwrap();
    let mut bytes = std::fs::read(&verdict).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&verdict, bytes).unwrap();
    assert!(asks(misbehaving("abort")), "a changed verdict is none");
}

#[test]
fn a_plan_for_the_shapes_of_a_request_is_made_in_a_child_first() {
    let axes = || vec!["n".into()];
    let free = onnx(
        vec![value("x", DataType::Float, axes())],
        vec![],
        vec![node("Identity", &["x"], "y")],
        vec![value("y", DataType::Float, axes())],
    );
    let ask = |runtime: &Runtime, len: usize| {
        let model = load(runtime, &packed(&free));
        model.infer(vec![floats("x", &[len], &vec![1.5; len])], &budget())
    };
    let good = start(vetting());
    for len in [2, 3, 2] {
        assert_eq!(
            as_floats(&ask(&good, len).unwrap()[0].tensor),
            vec![1.5; len]
        );
    }
    let bad = start(misbehaving("abort at plans"));
    for len in [2, 3, 2] {
        let failure = ask(&bad, len).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
        assert!(
            failure.message.contains("ended without an answer"),
            "{failure}"
        );
    }
}
