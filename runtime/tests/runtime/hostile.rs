//! Guests that misbehave: each fails with the right blame, and a neighbour never notices.

mod floods;
mod imports;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_inference::{Dtype, FailureKind};
use tidegate_runtime::{
    Budget, Limits, LoadError, Manifest, Model, ModuleFile, Runtime, RuntimeConfig,
};

use crate::fixture::{
    ECHO, budget, guest, identity, load, module, neighbour_answers, packed, run, runtime,
    runtime_with, spec,
};

const TENSOR: &str = "wasi:nn/tensor@0.2.0-rc-2024-10-28";
const GRAPH: &str = "wasi:nn/graph@0.2.0-rc-2024-10-28";
const INFERENCE: &str = "wasi:nn/inference@0.2.0-rc-2024-10-28";
const ERRORS: &str = "wasi:nn/errors@0.2.0-rc-2024-10-28";

/// Loads a guest, runs it, and checks how it fails and that a neighbour still answers.
#[track_caller]
fn check(imports: &str, items: &str, body: &str, kind: FailureKind, message: &str) {
    let runtime = runtime();
    let neighbour = load(&runtime, &packed(&identity()));
    let model = load(&runtime, &module(&guest(imports, items, body)));
    fails(&model, &budget(), kind, message);
    neighbour_answers(&neighbour);
    // The instance went back to the pool in a state that the next one can use.
    fails(&model, &budget(), kind, message);
    neighbour_answers(&neighbour);
}

#[track_caller]
fn fails(model: &Model, budget: &Budget, kind: FailureKind, message: &str) {
    let failure = run(model, budget).unwrap_err();
    assert_eq!(failure.kind, kind, "{failure}");
    assert!(failure.message.contains(message), "{failure}");
}

const LOOP: &str = "(loop $forever (br $forever)) unreachable";
const START_LOOP: &str = "(func $begin (loop $forever (br $forever))) (start $begin)";

#[test]
fn a_loop_ends_with_the_deadline() {
    let runtime = runtime();
    let neighbour = load(&runtime, &packed(&identity()));
    for (items, body) in [("", LOOP), (START_LOOP, ECHO)] {
        let model = load(&runtime, &module(&guest("", items, body)));
        let soon = Budget::until(Instant::now() + Duration::from_millis(30));
        fails(&model, &soon, FailureKind::DeadlineExceeded, "deadline");
        neighbour_answers(&neighbour);
    }
}

#[test]
fn a_loop_ends_when_the_caller_goes_away() {
    let runtime = runtime();
    let model = load(&runtime, &module(&guest("", "", LOOP)));
    let cancelled = Arc::new(AtomicBool::new(false));
    let budget = Budget {
        cancelled: Arc::clone(&cancelled),
        ..budget()
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&model, &budget).unwrap_err());
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(running.join().unwrap().kind, FailureKind::Cancelled);
    });
}

#[test]
fn a_loop_without_a_deadline_is_the_module_s_fault() {
    let runtime = runtime_with(Limits {
        run_time_max: Duration::from_millis(30),
        ..Limits::default()
    });
    for (items, body) in [("", LOOP), (START_LOOP, ECHO)] {
        let model = load(&runtime, &module(&guest("", items, body)));
        fails(&model, &budget(), FailureKind::Module, "longer than it may");
    }
}

#[test]
fn the_manifest_may_lower_limits() {
    let runtime = runtime();
    let floats = vec![spec("x", Dtype::Fp32, &[2])];
    let mut manifest = Manifest::new("small", "1.0.0", floats.clone(), floats);
    manifest.limits.compute_ms = Some(20);
    let looping = ModuleFile::assemble(&guest("", "", LOOP), manifest.clone(), &[]).unwrap();
    let model = load(&runtime, &looping);
    fails(&model, &budget(), FailureKind::Module, "longer than it may");

    manifest.limits.memory_bytes = Some(65536);
    let large = ModuleFile::assemble(&guest("", "", ECHO), manifest, &[]).unwrap();
    let error = runtime.load(large.file().clone()).unwrap_err();
    assert!(
        matches!(error, LoadError::Memory { limit: 65536, .. }),
        "{error}"
    );
}

#[test]
fn recursion_ends_at_the_stack() {
    let items = "(func $deeper (param i32) (result i32)
        (i32.add (local.get 0) (call $deeper (i32.add (local.get 0) (i32.const 1)))))";
    let body = "(call $deeper (i32.const 0))";
    check("", items, body, FailureKind::Module, "exhausted its stack");
}

#[test]
fn traps_are_named() {
    let module = FailureKind::Module;
    check("", "", "unreachable", module, "unreachable");
    check(
        "",
        "",
        "(i32.div_u (i32.const 1) (i32.const 0))",
        module,
        "divide by zero",
    );
    check("", "", "(i32.load (i32.const -4))", module, "out of bounds");
    check(
        "",
        "(func $s unreachable) (start $s)",
        ECHO,
        module,
        "unreachable",
    );
}

#[test]
fn results_that_point_nowhere_are_refused() {
    let module = FailureKind::Module;
    check("", "", "(i32.const -16)", module, "failed");
    check("", "", "(i32.const 3)", module, "failed");
    let discriminant = "(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)";
    check("", "", discriminant, module, "failed");
    let list = "(i32.store (i32.const 1028) (i32.const -8))
        (i32.store (i32.const 1032) (i32.const 1000000)) (i32.const 1024)";
    check("", "", list, module, "failed");
}

#[test]
fn handles_that_are_not_there_are_refused() {
    let import = format!(
        "(import \"{GRAPH}\" \"[method]graph.init-execution-context\" (func $init (param i32 i32)))"
    );
    let body = "(call $init (i32.const 12345) (i32.const 1024)) (i32.const 1024)";
    check(&import, "", body, FailureKind::Module, "failed");

    // The same tensor given back twice.
    let body = "(i32.store (i32.const 1100) (i32.load (local.get $inputs)))
        (i32.store (i32.const 1104) (i32.load offset=4 (local.get $inputs)))
        (i32.store (i32.const 1108) (i32.load offset=8 (local.get $inputs)))
        (i32.store (i32.const 1112) (i32.load (local.get $inputs)))
        (i32.store (i32.const 1116) (i32.load offset=4 (local.get $inputs)))
        (i32.store (i32.const 1120) (i32.load offset=8 (local.get $inputs)))
        (i32.store (i32.const 1028) (i32.const 1100))
        (i32.store (i32.const 1032) (i32.const 2))
        (i32.const 1024)";
    check("", "", body, FailureKind::Module, "failed");
}

#[test]
fn a_guest_brings_no_graph_of_its_own() {
    let imports = format!(
        "(import \"{GRAPH}\" \"load\" (func $load (param i32 i32 i32 i32 i32)))
        (import \"{ERRORS}\" \"[method]error.data\" (func $data (param i32 i32)))"
    );
    let body =
        "(call $load (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1024))
        (call $data (i32.load (i32.const 1028)) (i32.const 1028))
        (i32.const 1024)";
    check(&imports, "", body, FailureKind::Invalid, "brings no others");
}

#[test]
fn a_graph_by_another_name_is_not_found() {
    let imports = format!(
        "(import \"{GRAPH}\" \"load-by-name\" (func $load (param i32 i32 i32)))
        (import \"{ERRORS}\" \"[method]error.data\" (func $data (param i32 i32)))"
    );
    let items = "(data (i32.const 16) \"../../etc/passwd\")";
    let body = "(call $load (i32.const 16) (i32.const 16) (i32.const 1024))
        (call $data (i32.load (i32.const 1028)) (i32.const 1028))
        (i32.const 1024)";
    check(
        &imports,
        items,
        body,
        FailureKind::Invalid,
        "no graph \"../../etc/passwd\"",
    );
}

#[test]
fn inputs_that_the_graph_does_not_take_come_back_as_an_error() {
    let imports = format!(
        "(import \"{GRAPH}\" \"load-by-name\" (func $load (param i32 i32 i32)))
        (import \"{GRAPH}\" \"[method]graph.init-execution-context\" (func $init (param i32 i32)))
        (import \"{INFERENCE}\" \"[method]graph-execution-context.compute\"
            (func $compute (param i32 i32 i32 i32)))
        (import \"{ERRORS}\" \"[method]error.data\" (func $data (param i32 i32)))"
    );
    let items = "(data (i32.const 16) \"g\")";
    let body = "(call $load (i32.const 16) (i32.const 1) (i32.const 1024))
        (call $init (i32.load (i32.const 1028)) (i32.const 1024))
        (call $compute (i32.load (i32.const 1028)) (i32.const 0) (i32.const 0) (i32.const 1024))
        (call $data (i32.load (i32.const 1028)) (i32.const 1028))
        (i32.const 1024)";
    check(
        &imports,
        items,
        body,
        FailureKind::Invalid,
        "input \"x\" is missing",
    );
}

#[test]
fn outputs_must_be_those_of_the_manifest() {
    let runtime = runtime();
    #[track_caller]
    fn check(runtime: &Runtime, outputs: &[(&str, Dtype, &[i64])], message: &str) {
        let outputs = outputs
            .iter()
            .map(|(name, dtype, shape)| spec(name, *dtype, shape));
        let inputs = vec![spec("x", Dtype::Fp32, &[2])];
        let manifest = Manifest::new("liar", "1.0.0", inputs, outputs.collect());
        let file = ModuleFile::assemble(&guest("", "", ECHO), manifest, &[]).unwrap();
        fails(
            &load(runtime, &file),
            &budget(),
            FailureKind::Module,
            message,
        );
    }
    check(
        &runtime,
        &[("y", Dtype::Fp32, &[2])],
        "did not give output \"y\"",
    );
    check(
        &runtime,
        &[("x", Dtype::Int32, &[2])],
        "its manifest says INT32",
    );
    check(&runtime, &[("x", Dtype::Fp32, &[3])], "of shape [3]");
    let two: [(&str, Dtype, &[i64]); 2] = [("x", Dtype::Fp32, &[2]), ("y", Dtype::Fp32, &[2])];
    check(&runtime, &two, "did not give output \"y\"");
}

#[test]
fn the_text_of_a_guest_is_cut_and_cleaned() {
    let body = "(i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1028) (i32.const 0))
        (i32.store (i32.const 1032) (i32.const 65536))
        (i32.const 1024)";
    let runtime = runtime();
    let model = load(&runtime, &module(&guest("", "", body)));
    let failure = run(&model, &budget()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert_eq!(failure.message.chars().count(), 1024);
    assert!(!failure.message.contains(char::is_control));
}

#[test]
fn more_requests_than_slots_are_overload_and_not_a_fault() {
    let runtime = Runtime::start(RuntimeConfig::new(1)).unwrap();
    let model = load(&runtime, &module(&guest("", "", LOOP)));
    let neighbour = load(&runtime, &packed(&identity()));
    let cancelled = Arc::new(AtomicBool::new(false));
    let budget = Budget {
        cancelled: Arc::clone(&cancelled),
        ..budget()
    };
    std::thread::scope(|scope| {
        // The neighbour may hold the only instance when this starts.
        let running = scope.spawn(|| {
            loop {
                let failure = run(&model, &budget).unwrap_err();
                if failure.kind != FailureKind::Overloaded {
                    break failure;
                }
            }
        });
        let overloaded = loop {
            match run(&neighbour, &crate::fixture::budget()) {
                Ok(_) => std::thread::yield_now(),
                Err(failure) => break failure,
            }
        };
        assert_eq!(overloaded.kind, FailureKind::Overloaded, "{overloaded}");
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(running.join().unwrap().kind, FailureKind::Cancelled);
    });
    neighbour_answers(&neighbour);
}
