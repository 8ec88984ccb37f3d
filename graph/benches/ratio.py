"""How fast a graph runs here against ONNX Runtime: medians, one thread each, in turns.

    python ratio.py EXAMPLE MODEL...

EXAMPLE is the program that `cargo build --release -p tidegate-graph --example time` makes. A model has one
input, a table of 32-bit floats. Rows are made of a seed: the spread of each column is that of the model's
sample `in_0_0.npy` beside it, or 1.
"""

import os
import subprocess
import sys
import time

import numpy as np
import onnxruntime

TURNS = 5


def main(example, paths):
    print(f"{'model':20} {'rows':>5} {'here us':>10} {'ORT us':>10} {'ratio':>6}")
    for path in paths:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options)
        name, columns = session.get_inputs()[0].name, session.get_inputs()[0].shape[1]
        sample = os.path.join(os.path.dirname(path), "in_0_0.npy")
        spread = np.abs(np.load(sample)[0]) + 1 if os.path.exists(sample) else np.ones(columns)
        for rows, batches, repeats in ((1, 1000, 4000), (1000, 8, 40)):
            shape = (batches, rows, columns)
            values = (np.random.default_rng(0).random(shape) * 2 * spread).astype(np.float32)
            here, there = [], []
            for _ in range(TURNS):
                here.append(run(example, path, rows, repeats, values))
                there.append(ort(session, name, repeats, values))
            here, there = np.median(here), np.median(there)
            model = os.path.basename(os.path.dirname(os.path.abspath(path)))
            print(f"{model:20} {rows:5} {here:10.2f} {there:10.2f} {here / there:6.2f}")


def run(example, path, rows, repeats, values):
    command = [example, path, str(rows), str(repeats)]
    output = subprocess.run(command, input=values.tobytes(), stdout=subprocess.PIPE, check=True).stdout
    return float(output.split()[0])


def ort(session, name, repeats, values):
    times = []
    for turn in range(repeats):
        batch = {name: values[turn % len(values)]}
        begin = time.perf_counter()
        session.run(None, batch)
        times.append(time.perf_counter() - begin)
    return np.median(times) * 1e6


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
