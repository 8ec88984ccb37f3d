//! Reads arbitrary bytes as an ONNX file, prepares it and runs it. Run with
//! `cargo +nightly fuzz run graph corpus/graph`, and small models in `corpus/graph` to begin with.
//!
//! What tract panics over must come back as an error, as it does in production. Our own code may not panic,
//! and nothing may abort, run for seconds or exceed the limits on memory.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use tidegate_graph::{Graph, GraphLimits, describe};
use tidegate_inference::{Dtype, Shape, Tensor, TensorSpec};

mod graph {
    pub mod mutate;
}

const LIMITS: GraphLimits = GraphLimits {
    tensor_bytes_max: 1 << 20,
    plans_max: 2,
};

/// Aborts where our own code panics, which libfuzzer-sys would do for every panic.
fn mind_our_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        drop(std::panic::take_hook());
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let file = panic.location().map_or("", |location| location.file());
            let is_ours = ["graph/src/", "inference/src/", "runtime/fuzz/"]
                .iter()
                .any(|folder| file.contains(folder) && !file.contains(".cargo"));
            if is_ours {
                default(panic);
                std::process::abort();
            }
        }));
    });
}

/// Zeros of the declared shape, with 2 where an axis is free; none if it is too large to be of use.
fn zeros(spec: &TensorSpec) -> Option<Tensor> {
    let shape: Option<Shape> = spec
        .shape
        .iter()
        .map(|extent| match extent {
            -1 => Some(2),
            extent => usize::try_from(*extent).ok(),
        })
        .collect();
    let shape = shape?;
    let len = shape
        .iter()
        .try_fold(1_usize, |len, extent| len.checked_mul(*extent))?;
    // An empty string has but its length.
    let size = match spec.dtype {
        Dtype::Bytes => 4,
        dtype => dtype.size()?,
    };
    let bytes = len.checked_mul(size).filter(|bytes| *bytes <= 1 << 16)?;
    Tensor::new(spec.dtype, shape, vec![0; bytes].into()).ok()
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("enough")]
struct Enough;

fuzz_target!(|bytes: &[u8]| {
    mind_our_panics();
    drop(describe(bytes));
    let Ok(graph) = Graph::read(bytes, LIMITS) else {
        return;
    };
    let inputs: Option<Vec<Tensor>> = graph.inputs().iter().map(zeros).collect();
    if let Some(inputs) = inputs {
        drop(graph.run(&inputs, || Ok::<(), Enough>(())));
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    graph::mutate::mutate(data, size, max_size, seed)
});
