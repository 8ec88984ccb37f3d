//! What does it cost that a graph runs inside the sandbox?
//!
//! `host` and `strict` run the face detector's graph (`modules/face/model.onnx`) behind the generated
//! component, in turn on one thread; their ratio is the price of strict isolation. The guest is
//! `target/modules/tract-guest.wasm`, which `cargo xtask modules` makes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_inference::{Isolation, NamedTensor, Shape, Tensor};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Budget, Manifest, ModuleFile, Runtime, RuntimeConfig};

fn checkout() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the workspace")
}

fn strict(criterion: &mut Criterion) {
    let guest: PathBuf = checkout().join("target/modules/tract-guest.wasm");
    if !guest.exists() {
        eprintln!(
            "{} is missing: `cargo xtask modules` makes it",
            guest.display()
        );
        return;
    }
    let onnx = std::fs::read(checkout().join("modules/face/model.onnx")).expect("the graph ships");
    let (inputs, outputs) = tidegate_graph::describe(&onnx).expect("the graph is an ONNX file");
    let request: Vec<NamedTensor> = inputs
        .iter()
        .map(|spec| {
            let extents = spec.shape.iter().map(|extent| usize::try_from(*extent));
            let shape: Shape = extents.collect::<Result<_, _>>().expect("no axis is free");
            let bytes = shape.iter().product::<usize>() * spec.dtype.size().expect("a number");
            let tensor = Tensor::new(spec.dtype, shape, vec![0; bytes].into());
            NamedTensor {
                name: spec.name.clone(),
                tensor: tensor.expect("zeros fill the shape"),
            }
        })
        .collect();
    let manifest = Manifest::new("face-graph", "1.0.0", inputs, outputs);
    let component = pass_through("g").expect("the component is generated");
    let module = ModuleFile::assemble(&component, manifest, &[("g", &onnx)]).expect("a module");
    let runtime = Runtime::start(RuntimeConfig {
        tract_guest: Some(guest),
        ..RuntimeConfig::new(1)
    })
    .expect("the engine starts");
    let budget = Budget::until(Instant::now() + Duration::from_secs(3600));
    let mut group = criterion.benchmark_group("isolation");
    for (name, isolation) in [("host", Isolation::Host), ("strict", Isolation::Strict)] {
        let model = runtime
            .load_module(module.clone(), isolation)
            .expect("the module loads");
        group.bench_function(name, |bencher| {
            bencher.iter(|| model.infer(request.clone(), &budget).expect("it answers"));
        });
    }
    group.finish();
}

criterion_group!(benches, strict);
criterion_main!(benches);
