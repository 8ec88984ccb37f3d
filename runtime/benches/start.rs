//! How long from the start of a runtime to the first answer of a model, with nothing kept and all kept?
//!
//! As in a daemon: `cold` compiles the code and prepares the graph in a child first; `warm` finds the code and
//! the child's verdict in the state folder, as every start after the first does, and prepares the graph.
//! `graph` is the part of both that is the graph's.
//! The model is the face detector, `target/modules/face.wasm`, which `cargo xtask modules` makes.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, criterion_group};
use tidegate_graph::{Graph, GraphLimits};
use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor};
use tidegate_runtime::vet::vet_graph_if_asked;
use tidegate_runtime::{Budget, CacheConfig, Limits, ModuleFile, Runtime, RuntimeConfig, Vetting};

fn checkout() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the workspace")
}

/// From nothing to the first answer.
fn answer(module: &Path, picture: &Bytes, cache: Option<CacheConfig>) {
    let runtime = Runtime::start(RuntimeConfig {
        cache,
        vetting: Some(Vetting::by_this_program()),
        ..RuntimeConfig::new(1)
    })
    .expect("the engine starts");
    let model = runtime.load_file(module).expect("the module loads");
    let element: &[u8] = picture;
    let tensor = Tensor::from_byte_elements(&[element]);
    let data = tensor.data().clone();
    let input = NamedTensor {
        name: "image".to_owned(),
        tensor: Tensor::new(Dtype::Bytes, Shape::from_slice(&[1]), data).expect("one element"),
    };
    let budget = Budget::until(Instant::now() + Duration::from_secs(60));
    black_box(model.infer(vec![input], &budget).expect("it answers"));
}

fn start(criterion: &mut Criterion) {
    let module: PathBuf = checkout().join("target/modules/face.wasm");
    if !module.exists() {
        eprintln!(
            "{} is missing: `cargo xtask modules` makes it",
            module.display()
        );
        return;
    }
    let picture = checkout().join("modules/face/images/astronaut.png");
    let picture = Bytes::from(std::fs::read(picture).expect("the picture ships"));
    let state = tempfile::tempdir().expect("a folder");
    let cache = CacheConfig {
        folder: state.path().to_owned(),
        bytes_max: 1 << 30,
    };
    let file = ModuleFile::read(&module).expect("a module");
    let limits = Limits::default();
    let limits = GraphLimits {
        tensor_bytes_max: limits.graph_tensor_bytes_max,
        plans_max: limits.plans_max,
    };
    let mut group = criterion.benchmark_group("start");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.bench_function("cold", |bencher| {
        bencher.iter(|| answer(&module, &picture, None));
    });
    answer(&module, &picture, Some(cache.clone()));
    group.bench_function("warm", |bencher| {
        bencher.iter(|| answer(&module, &picture, Some(cache.clone())));
    });
    group.bench_function("graph", |bencher| {
        bencher.iter(|| Graph::read(&file.graphs()[0].onnx, limits).expect("it is good"));
    });
    group.finish();
}

criterion_group!(benches, start);

fn main() -> ExitCode {
    if let Some(ended) = vet_graph_if_asked() {
        return ended;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    ExitCode::SUCCESS
}
