//! Makes arbitrary host calls from a module.
//!
//! They are those of `wasi:nn`, `tidegate:model/tensors` and the part of WASI that a module gets. Run with `cargo +nightly fuzz run component_abi corpus/component_abi seeds/component_abi`.
//!
//! Nothing may panic or be blamed on the host, and the next request finds a sandbox that works.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tidegate_inference::{Dtype, FailureKind, NamedTensor, Shape, Tensor, TensorSpec};
use tidegate_runtime::{Budget, Limits, Manifest, Model, ModuleFile, Runtime, RuntimeConfig};
use tidegate_runtime_fuzz::{Call, call, imports, interpreter};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

const TENSOR: &str = "wasi:nn/tensor@0.2.0-rc-2024-10-28";
const GRAPH: &str = "wasi:nn/graph@0.2.0-rc-2024-10-28";
const INFERENCE: &str = "wasi:nn/inference@0.2.0-rc-2024-10-28";
const ERRORS: &str = "wasi:nn/errors@0.2.0-rc-2024-10-28";
const TENSORS: &str = "tidegate:model/tensors@1.0.0";
const STREAMS: &str = "wasi:io/streams@0.2.3";

const CALLS: &[Call] = &[
    call(TENSOR, "[constructor]tensor", "iiiii", "i"),
    call(TENSOR, "[method]tensor.dimensions", "ii", ""),
    call(TENSOR, "[method]tensor.ty", "i", "i"),
    call(TENSOR, "[method]tensor.data", "ii", ""),
    call(TENSOR, "[resource-drop]tensor", "i", ""),
    call(GRAPH, "load", "iiiii", ""),
    call(GRAPH, "load-by-name", "iii", ""),
    call(GRAPH, "[method]graph.init-execution-context", "ii", ""),
    call(GRAPH, "[resource-drop]graph", "i", ""),
    call(
        INFERENCE,
        "[method]graph-execution-context.compute",
        "iiii",
        "",
    ),
    call(INFERENCE, "[resource-drop]graph-execution-context", "i", ""),
    call(ERRORS, "[method]error.code", "i", "i"),
    call(ERRORS, "[method]error.data", "ii", ""),
    call(ERRORS, "[resource-drop]error", "i", ""),
    call(TENSORS, "dtype-of", "i", "i"),
    call(TENSORS, "byte-len", "i", "l"),
    call(TENSORS, "make", "iiiiii", ""),
    call(TENSORS, "read", "ilii", ""),
    call(TENSORS, "strings", "ii", ""),
    call(TENSORS, "from-strings", "iiiii", ""),
    call("wasi:cli/stderr@0.2.3", "get-stderr", "", "i"),
    call(STREAMS, "[method]output-stream.check-write", "ii", ""),
    call(STREAMS, "[method]output-stream.write", "iiii", ""),
    call(
        STREAMS,
        "[method]output-stream.blocking-write-and-flush",
        "iiii",
        "",
    ),
    call(STREAMS, "[method]output-stream.flush", "ii", ""),
    call("wasi:clocks/monotonic-clock@0.2.3", "now", "", "l"),
    call("wasi:random/random@0.2.3", "get-random-bytes", "li", ""),
    call("wasi:random/random@0.2.3", "get-random-u64", "", "l"),
];

/// Where the guest has data from the start: names at 768, dimensions at 776, elements at 800, two parts of a
/// list at 832, and in the words 60 to 62 an input whose tensor is still missing.
const DATA: &str = r#"
    (data (i32.const 752) "\04\03\00\00\01\00\00\00")
    (data (i32.const 768) "g   x")
    (data (i32.const 776) "\02\00\00\00\01\00\00\00\02\00\00\00")
    (data (i32.const 800) "\00\00\c0\3f\00\00\00\c0")
    (data (i32.const 832) "\00\03\00\00\05\00\00\00\20\03\00\00\08\00\00\00")"#;

fn component() -> Vec<u8> {
    let mut resolve = Resolve::default();
    let mut push = |name: &str, text: &str| {
        resolve
            .push_source(name, text)
            .expect("the interfaces are well-formed")
    };
    push(
        "nn.wit",
        include_str!("../../../modules/wit/deps/wasi-nn/nn.wit"),
    );
    let model = push("model.wit", include_str!("../../../modules/wit/model.wit"));
    let wasi = push("wasi.wit", include_str!("../../tests/runtime/wasi.wit"));
    let world = resolve
        .select_world(&[model], Some("module"))
        .expect("there is a world of a module");
    let extra = resolve
        .select_world(&[wasi], Some("guest"))
        .expect("there is a world of WASI");
    resolve
        .merge_worlds(extra, world, &mut Default::default())
        .expect("the worlds have nothing in common");
    // The request's first tensor is the script, and goes back as the only output.
    let text = format!(
        "(module {}
            (memory (export \"memory\") 8)
            (global $heap (mut i32) (i32.const 65536))
            {DATA}
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
                global.get $heap
                (global.set $heap (i32.and (i32.const -8)
                    (i32.add (i32.const 7) (i32.add (global.get $heap) (local.get 3))))))
            {}
            (func (export \"infer\") (param $inputs i32) (param $len i32) (result i32)
                (call $call3 (i32.load offset=8 (local.get $inputs)) (i32.const 4080))
                (call $run (i32.load (i32.const 4080))
                    (i32.add (i32.load (i32.const 4080)) (i32.load (i32.const 4084))))
                (i32.store8 (i32.const 4080) (i32.const 0))
                (i32.store (i32.const 4084) (local.get $inputs))
                (i32.store (i32.const 4088) (local.get $len))
                (i32.const 4080)))",
        imports(CALLS),
        interpreter(CALLS),
    );
    let mut core = wat::parse_str(text).expect("the text is well-formed");
    wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)
        .expect("the world can be embedded");
    ComponentEncoder::default()
        .validate(true)
        .module(&core)
        .and_then(|mut encoder| encoder.encode())
        .expect("the guest makes a component")
}

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let limits = Limits {
        memory_bytes_max: 4 << 20,
        handles_max: 64,
        tensor_bytes_max: 1 << 20,
        graph_tensor_bytes_max: 1 << 20,
        run_time_max: Duration::from_secs(2),
        ..Limits::default()
    };
    let runtime = Runtime::start(RuntimeConfig {
        limits,
        ..RuntimeConfig::new(1)
    });
    let script = vec![TensorSpec {
        name: "script".to_owned(),
        dtype: Dtype::Uint8,
        shape: vec![-1],
    }];
    let manifest = Manifest::new("script", "1.0.0", script.clone(), script);
    let graph = tidegate_runtime_fuzz::identity();
    let module = ModuleFile::assemble(&component(), manifest, &[("g", &graph)]);
    runtime
        .expect("the engine starts")
        .load(module.expect("the parts fit").file().clone())
        .expect("the module loads")
});

fn ask(script: &[u8]) -> Result<Vec<NamedTensor>, tidegate_inference::Failure> {
    let data = script.to_vec().into();
    let tensor = Tensor::new(Dtype::Uint8, Shape::from_slice(&[script.len()]), data);
    let input = NamedTensor {
        name: "script".to_owned(),
        tensor: tensor.expect("bytes make a tensor"),
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    MODEL.infer(vec![input], &Budget::until(deadline))
}

fuzz_target!(|script: &[u8]| {
    if let Err(failure) = ask(script) {
        assert_ne!(failure.kind, FailureKind::Internal, "{failure}");
    }
    let nothing = ask(&[]).expect("the next request is answered");
    assert!(nothing[0].tensor.is_empty());
});
