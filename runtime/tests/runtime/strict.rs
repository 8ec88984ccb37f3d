//! Graphs that run inside the sandbox give what the host's give, and harm nobody.
//!
//! The engine's guest is `target/modules/tract-guest.wasm`, which `cargo xtask test` makes first.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tidegate_inference::{Failure, FailureKind, Isolation, NamedTensor};
use tidegate_runtime::{
    Budget, CacheConfig, Limits, LoadError, Model, ModuleFile, Runtime, RuntimeConfig,
};
use tract_onnx::pb::tensor_proto::DataType;

use crate::fixture::{
    attribute, budget, floats, identity, integers, load, neighbour_answers, node, onnx, packed,
    value,
};

/// More than the compiler takes beside whatever else a machine does.
const AMPLE: Duration = Duration::from_secs(1200);

fn tract_guest() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = package.join("../target/modules/tract-guest.wasm");
    assert!(
        path.exists(),
        "{} is missing: `cargo xtask modules` makes it",
        path.display()
    );
    path
}

fn start(limits: Limits) -> Arc<Runtime> {
    Runtime::start(RuntimeConfig {
        limits,
        tract_guest: Some(tract_guest()),
        ..RuntimeConfig::new(4)
    })
    .unwrap()
}

/// One runtime for all tests of good graphs: compiling the engine takes seconds.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    RUNTIME.get_or_init(|| start(Limits::default()))
}

fn strict(runtime: &Runtime, module: &ModuleFile) -> Result<Arc<Model>, LoadError> {
    runtime.load_module(module.clone(), Isolation::Strict)
}

/// `y = x + x` for any number of rows of two floats.
fn doubling() -> Vec<u8> {
    onnx(
        vec![value("x", DataType::Float, vec!["rows".into(), 2.into()])],
        vec![],
        vec![node("Add", &["x", "x"], "y")],
        vec![value("y", DataType::Float, vec!["rows".into(), 2.into()])],
    )
}

fn infer(model: &Model, input: NamedTensor) -> Result<Vec<NamedTensor>, Failure> {
    model.infer(vec![input], &budget())
}

#[test]
fn a_graph_in_the_sandbox_gives_what_the_hosts_gives_to_each_request_its_own() {
    let module = packed(&doubling());
    let on_host = load(runtime(), &module);
    let in_sandbox = strict(runtime(), &module).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2_u8 {
            let (on_host, in_sandbox) = (&on_host, &in_sandbox);
            scope.spawn(move || {
                for round in 0..20 {
                    let value = f32::from(100 * thread + round);
                    let rows = if round % 2 == 0 { 1 } else { 3 };
                    let input = floats("x", &[rows, 2], &[value, -value].repeat(rows));
                    let wanted = infer(on_host, input.clone()).unwrap();
                    assert_eq!(infer(in_sandbox, input).unwrap(), wanted);
                }
            });
        }
    });
    let over = Budget::until(Instant::now() - Duration::from_secs(1));
    let failure = in_sandbox
        .infer(vec![floats("x", &[1, 2], &[1.0, 2.0])], &over)
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
}

#[test]
fn a_module_that_asks_for_it_is_isolated_wherever_it_runs() {
    let mut manifest = packed(&identity()).manifest().clone();
    manifest.isolation = Isolation::Strict;
    let component = tidegate_runtime::module::pass_through("g").unwrap();
    let module = ModuleFile::assemble(&component, manifest, &[("g", &identity())]).unwrap();
    neighbour_answers(&load(runtime(), &module));

    let without = Runtime::start(RuntimeConfig::new(1)).unwrap();
    let error = without.load(module.file().clone()).unwrap_err();
    assert!(matches!(error, LoadError::NoTractGuest), "{error}");
}

#[test]
fn what_is_no_graph_is_refused_by_the_sandbox() {
    let module = packed(&identity());
    let file = module.file().to_vec();
    for (name, graph) in [
        (
            "an operator that nobody has",
            onnx(
                vec![value("x", DataType::Float, vec![2.into()])],
                vec![],
                vec![node("Frobnicate", &["x"], "y")],
                vec![value("y", DataType::Float, vec![2.into()])],
            ),
        ),
        (
            "a tensor without end",
            onnx(
                vec![value("x", DataType::Float, vec![2.into()])],
                vec![integers("shape", &[1 << 40])],
                vec![node("Expand", &["x", "shape"], "y")],
                vec![value("y", DataType::Float, vec!["n".into()])],
            ),
        ),
    ] {
        let error = strict(runtime(), &packed(&graph)).unwrap_err();
        assert!(
            matches!(error, LoadError::Strict { .. }),
            "{name}: {error:?}"
        );
    }
    neighbour_answers(&load(runtime(), &ModuleFile::parse(file.into()).unwrap()));
}

/// Compiled code that is kept, with what tells one file from another.
fn core_entries(state: &Path) -> Vec<(PathBuf, u64, i64)> {
    let listing = std::fs::read_dir(state.join("code")).unwrap();
    let mut entries: Vec<_> = listing
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("core-"))
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            (entry.path(), metadata.ino(), metadata.mtime_nsec())
        })
        .collect();
    entries.sort();
    entries
}

#[test]
fn what_was_compiled_for_the_sandbox_is_kept_and_used_only_as_it_was() {
    let state = tempfile::tempdir().unwrap();
    let start = || {
        let cache = CacheConfig {
            folder: state.path().to_owned(),
            bytes_max: 1 << 30,
        };
        Runtime::start(RuntimeConfig {
            cache: Some(cache),
            tract_guest: Some(tract_guest()),
            ..RuntimeConfig::new(1)
        })
        .unwrap()
    };
    let serves = || neighbour_answers(&strict(&start(), &packed(&identity())).unwrap());
    serves();
    // The engine, and the engine with the graph.
    let first = core_entries(state.path());
    assert_eq!(first.len(), 2, "{first:?}");
    serves();
    assert_eq!(core_entries(state.path()), first);
    let (changed, ..) = &first[0];
    let mut bytes = std::fs::read(changed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(changed, bytes).unwrap();
    serves();
    let again = core_entries(state.path());
    assert_ne!(again[0], first[0], "it is made anew");
    assert_eq!(again[1], first[1]);
    // What a caller chose is not kept: it could push out what others need.
    let model = strict(&start(), &packed(&doubling())).unwrap();
    infer(&model, floats("x", &[1, 2], &[1.0, 2.0])).unwrap();
    assert_eq!(core_entries(state.path()), again);
}

#[test]
fn who_chooses_shapes_has_only_so_many_planned() {
    let runtime = start(Limits {
        plans_max: 1,
        run_time_max: AMPLE,
        ..Limits::default()
    });
    let model = strict(&runtime, &packed(&doubling())).unwrap();
    let infer = |rows: usize, within: Duration| {
        let input = floats("x", &[rows, 2], &[1.0, 2.0].repeat(rows));
        model.infer(vec![input], &Budget::until(Instant::now() + within))
    };
    // Nobody waits longer than it may, and what was begun is there for the next.
    let failure = infer(1, Duration::from_millis(10)).unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    infer(1, AMPLE).unwrap();
    let failure = infer(2, AMPLE).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    let message = failure.to_string();
    assert!(
        message.contains("at most 1 new sets of input shapes"),
        "{message}"
    );
    infer(1, AMPLE).unwrap();
}

#[test]
fn a_graph_that_is_too_large_for_its_sandbox_is_refused() {
    let runtime = start(Limits {
        strict_memory_bytes_max: 48 << 20,
        ..Limits::default()
    });
    let mut weights = integers("w", &[0]);
    weights.dims = vec![8 << 20];
    weights.data_type = DataType::Float.into();
    weights.int64_data.clear();
    weights.raw_data = vec![1; 32 << 20];
    let graph = onnx(
        vec![value("x", DataType::Float, vec![1.into()])],
        vec![],
        vec![
            {
                let mut constant = node("Constant", &[], "c");
                constant.attribute.push(attribute("value", weights));
                constant
            },
            node("Add", &["x", "c"], "y"),
        ],
        vec![value("y", DataType::Float, vec![(8 << 20).into()])],
    );
    let error = strict(&runtime, &packed(&graph)).unwrap_err();
    let LoadError::Strict { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("memory"), "{source}");
}
