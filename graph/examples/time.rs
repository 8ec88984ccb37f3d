//! Times a graph on one thread: `time MODEL ROWS REPEATS < ROWS_OF_FLOATS`.
//!
//! Standard input holds 32-bit floats for the graph's only input, any number of batches of `ROWS` rows.
//! Each batch is run in turn, `REPEATS` times in all; the median and the 99th percentile are printed in
//! microseconds. `graph/benches/ratio.py` sets them against ONNX Runtime's.

use std::convert::Infallible;
use std::io::Read;
use std::time::{Duration, Instant};

use tidegate_graph::{Graph, GraphLimits};
use tidegate_inference::{Dtype, Shape, Tensor};

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rows, repeats] = arguments.as_slice() else {
        return Err("time MODEL ROWS REPEATS < ROWS_OF_FLOATS".into());
    };
    let (rows, repeats) = (rows.parse::<usize>()?, repeats.parse::<usize>()?);
    let limits = GraphLimits {
        tensor_bytes_max: 1 << 30,
        plans_max: 1,
    };
    let graph = Graph::read(&std::fs::read(path)?, limits)?;
    let [input] = graph.inputs() else {
        return Err("the graph has not one input".into());
    };
    let inner = input.shape[1..]
        .iter()
        .map(|extent| usize::try_from(*extent));
    let mut shape = Shape::from_slice(&[rows]);
    shape.extend(inner.collect::<Result<Vec<_>, _>>()?);
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let batch_bytes = shape.iter().product::<usize>() * 4;
    let batches = bytes
        .chunks_exact(batch_bytes)
        .map(|batch| Tensor::new(Dtype::Fp32, shape.clone(), batch.to_vec().into()))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = batches.first() else {
        return Err("standard input holds no batch".into());
    };
    let plan = graph.plan(std::slice::from_ref(first))?;
    let mut times = Vec::with_capacity(repeats);
    for input in batches.iter().cycle().take(repeats) {
        let begin = Instant::now();
        plan.run(std::slice::from_ref(input), || Ok::<(), Infallible>(()))?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let (median, p99) = (times[repeats / 2], times[repeats * 99 / 100]);
    println!("{:.2} {:.2}", microseconds(median), microseconds(p99));
    Ok(())
}
