//! How much slower is a model while another's graph is tried that would take all memory?
//!
//! One thread runs the face detector's graph over and over; another loads a module, again and again, whose
//! graph decodes to over a gigabyte and ends its child. Prints the two distributions and their ratio.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor, TensorSpec};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::vet::{GRAPH_MEMORY_BYTES_MIN, vet_graph_if_asked};
use tidegate_runtime::{
    Budget, LoadError, Manifest, Model, ModuleFile, Runtime, RuntimeConfig, VetError, Vetting,
};

/// How long each of the two is measured.
const SPAN: Duration = Duration::from_secs(5);

/// The head of a `ModelProto` whose graph has eight mebibytes, all of them nodes without content.
const HEAD: [u8; 5] = [0x3a, 0x80, 0x80, 0x80, 0x04];
const EMPTY_NODE: [u8; 2] = [0x0a, 0x00];
const EMPTY_NODES: usize = 4 << 20;

fn module(name: &str, onnx: &[u8], specs: (Vec<TensorSpec>, Vec<TensorSpec>)) -> Bytes {
    let manifest = Manifest::new(name, "1.0.0", specs.0, specs.1);
    let guest = pass_through("g").expect("the name fits");
    let file = ModuleFile::assemble(&guest, manifest, &[("g", onnx)]).expect("it reads back");
    file.file().clone()
}

fn bomb() -> Bytes {
    let onnx = [&HEAD[..], &EMPTY_NODE.repeat(EMPTY_NODES)].concat();
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        shape: vec![1],
    };
    module("bomb", &onnx, (vec![spec("x")], vec![spec("y")]))
}

/// The times of all requests that fit into the span, in order of length.
fn times(model: &Model, span: Duration) -> Vec<Duration> {
    let spec = &model.metadata().inputs[0];
    let shape: Shape = spec
        .shape
        .iter()
        .map(|extent| usize::try_from(*extent).expect("its axes are fixed"))
        .collect();
    let bytes = Bytes::from(vec![0; shape.iter().product::<usize>() * 4]);
    let tensor = Tensor::new(Dtype::Fp32, shape, bytes).expect("the length fits");
    let name = spec.name.clone();
    let input = NamedTensor { name, tensor };
    let mut times = Vec::new();
    let end = Instant::now() + span;
    while Instant::now() < end {
        let began = Instant::now();
        let budget = Budget::until(began + Duration::from_secs(60));
        let answer = model.infer(vec![input.clone()], &budget);
        answer.expect("it answers");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times
}

#[expect(clippy::print_stdout, reason = "the figures are this program's output")]
fn main() -> ExitCode {
    if let Some(ended) = vet_graph_if_asked() {
        return ended;
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let onnx = std::fs::read(package.join("../modules/face/model.onnx")).expect("it ships");
    let specs = tidegate_graph::describe(&onnx).expect("it is a graph");
    let runtime = Runtime::start(RuntimeConfig {
        vetting: Some(Vetting {
            memory_bytes_max: GRAPH_MEMORY_BYTES_MIN,
            ..Vetting::by_this_program()
        }),
        ..RuntimeConfig::new(2)
    })
    .expect("the engine starts");
    let model = runtime.load(module("face", &onnx, specs));
    let model = model.expect("it is a good module");
    let bomb = bomb();

    times(&model, SPAN / 5);
    let quiet = times(&model, SPAN);
    let is_over = AtomicBool::new(false);
    let (attacked, attacks) = std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let mut attacks = 0;
            while !is_over.load(Ordering::Relaxed) {
                let refused = runtime.load(bomb.clone());
                let Err(LoadError::Vet { source, .. }) = refused else {
                    panic!("it was not refused by a child: {refused:?}");
                };
                assert!(matches!(source, VetError::Memory { .. }), "{source}");
                attacks += 1;
            }
            attacks
        });
        let attacked = times(&model, SPAN);
        is_over.store(true, Ordering::Relaxed);
        (attacked, attack.join().expect("the attack goes on"))
    });
    let at = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
    println!("               p50          p99");
    for (what, times) in [("quiet", &quiet), ("attacked", &attacked)] {
        println!(
            "{what:<10} {:>8.1?} {:>12.1?}",
            at(times, 50),
            at(times, 99)
        );
    }
    let ratio = at(&attacked, 99).as_secs_f64() / at(&quiet, 99).as_secs_f64();
    println!("{attacks} attacks, ratio at p99 {ratio:.2}");
    ExitCode::SUCCESS
}
