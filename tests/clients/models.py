"""Asks an agent for the samples of real models, with Triton's HTTP client, and times it beside ONNX Runtime.

Usage: models.py HOST:PORT '["NAME", "FOLDER", ["INPUT=VALUE", ...]]'... A folder has model.onnx, in_K_I.npy and
out_K_J.npy; the inputs with a value are part of the module's graph. Prints one line of JSON a model: `model`,
`failed` (null, "infer" or "compare"), `error` and `relative_max`, and without a failure `agent_us_p50`,
`onnxruntime_us_p50` and `runs`. Agrees means what it means to `tidegate check`.
"""

import json
import pathlib
import statistics
import sys
import time

import numpy
import onnxruntime
import tritonclient.http as http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

RELATIVE, ABSOLUTE = 1e-3, 1e-4

# Runs of a model: as many as fit into the time, but neither fewer than give a median nor more than are of use.
RUNS_MIN, RUNS_MAX, RUNS_SECONDS = 3, 50, 3.0

# The agent's own deadline ends a request before.
NETWORK_SECONDS = 90.0


class Failure(Exception):
    def __init__(self, step, error):
        super().__init__(error)
        self.step = step


def samples(folder):
    """The inputs and outputs of each sample, in the order of the model's."""
    found = []
    while (folder / f"in_{len(found)}_0.npy").exists():
        number = len(found)
        found.append(tuple(series(folder, kind, number) for kind in ("in", "out")))
    return found


def series(folder, kind, number):
    arrays = []
    while (path := folder / f"{kind}_{number}_{len(arrays)}.npy").exists():
        array = numpy.load(path, allow_pickle=False)
        arrays.append(array.astype(object) if array.dtype.kind in "US" else array)
    return arrays


def request(metadata, arrays):
    """The inputs of a request, all of them binary."""
    if len(metadata["inputs"]) != len(arrays):
        raise Failure("infer", f"{len(arrays)} inputs in the sample, the model has {len(metadata['inputs'])}")
    inputs = []
    for spec, array in zip(metadata["inputs"], arrays):
        given = http.InferInput(spec["name"], list(array.shape), np_to_triton_dtype(array.dtype))
        inputs.append(given.set_data_from_numpy(array, binary_data=True))
    outputs = [http.InferRequestedOutput(spec["name"], binary_data=True) for spec in metadata["outputs"]]
    return inputs, outputs


def infer(client, name, prepared):
    inputs, outputs = prepared
    try:
        return client.infer(name, inputs, outputs=outputs)
    except (InferenceServerException, OSError) as error:
        raise Failure("infer", f"{type(error).__name__}: {error}") from error


def relative_differences(wanted, got):
    wanted, got = wanted.astype(numpy.float64), got.astype(numpy.float64)
    with numpy.errstate(invalid="ignore", over="ignore"):
        difference = numpy.abs(got - wanted)
        relative = difference / numpy.maximum(numpy.abs(wanted), ABSOLUTE / RELATIVE)
    relative[~numpy.isfinite(difference)] = numpy.inf
    relative[(wanted == got) | (numpy.isnan(wanted) & numpy.isnan(got))] = 0.0
    # Rounding in the division must not turn agreement into disagreement, or the reverse.
    agrees = (difference <= ABSOLUTE) | (difference <= RELATIVE * numpy.abs(wanted)) | (relative == 0.0)
    above = numpy.nextafter(RELATIVE, numpy.inf)
    return numpy.where(agrees, numpy.minimum(relative, RELATIVE), numpy.maximum(relative, above))


def compare(what, wanted, got):
    """The largest relative difference of an element; None where the elements are no floats."""
    if got is None:
        raise Failure("compare", f"{what} is missing")
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        raise Failure("compare", f"{what} is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}")
    if wanted.dtype.kind == "f":
        relative = relative_differences(wanted, got).ravel()
        if (relative > RELATIVE).any():
            worst = int(relative.argmax())
            pair = f"{got.ravel()[worst]} instead of {wanted.ravel()[worst]}"
            raise Failure("compare", f"{what}: element {worst} is {pair}, {relative[worst]:.1e} away")
        return float(relative.max(initial=0.0))
    if wanted.dtype.kind == "O":
        wanted, got = (numpy.vectorize(text, otypes=[object])(array) for array in (wanted, got))
    different = numpy.flatnonzero((wanted != got).ravel())
    if different.size:
        first = int(different[0])
        pair = f"{got.ravel()[first]} instead of {wanted.ravel()[first]}"
        raise Failure("compare", f"{what}: elements that differ: {different.size}, element {first} is {pair}")
    return None


def text(element):
    return element.decode() if isinstance(element, bytes) else str(element)


def compare_sample(metadata, number, wanted, result):
    if len(metadata["outputs"]) != len(wanted):
        raise Failure("compare", f"{len(wanted)} outputs in the sample, the model has {len(metadata['outputs'])}")
    named = zip(metadata["outputs"], wanted)
    found = [
        compare(f"sample {number}, output {spec['name']}", array, result.as_numpy(spec["name"]))
        for spec, array in named
    ]
    return [difference for difference in found if difference is not None]


def peer(folder, consts):
    """Runs ONNX Runtime, with one thread, on the inputs of a sample."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    settled = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in consts)}
    kinds = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(bool)": "bool"}
    fixed, free = {}, []
    for spec in session.get_inputs():
        if spec.name in settled:
            kind = kinds.get(spec.type, spec.type.removeprefix("tensor(").removesuffix(")"))
            fixed[spec.name] = numpy.array(settled[spec.name], dtype=kind)
        else:
            free.append(spec.name)

    def feed(arrays):
        return fixed | dict(zip(free, arrays, strict=True))

    return session, feed


def measure(client, name, prepared, session, feeds):
    """Requests and runs in turns, so that what else the machine does slows both."""
    agent, own = [], []
    end = time.monotonic() + RUNS_SECONDS
    while len(agent) < RUNS_MIN or (len(agent) < RUNS_MAX and time.monotonic() < end):
        turn = len(agent) % len(prepared)
        result = infer(client, name, prepared[turn])
        agent.append(result.get_response()["parameters"]["tidegate_infer_us"])
        started = time.perf_counter_ns()
        session.run(None, feeds[turn])
        own.append((time.perf_counter_ns() - started) / 1e3)
    return {
        "agent_us_p50": statistics.median(agent),
        "onnxruntime_us_p50": statistics.median(own),
        "runs": len(agent),
    }


def ask(client, name, folder, consts):
    try:
        metadata = client.get_model_metadata(name)
    except (InferenceServerException, OSError) as error:
        raise Failure("infer", f"{type(error).__name__}: {error}") from error
    given = samples(folder)
    if not given:
        raise Failure("infer", f"{folder} has no samples")
    prepared = [request(metadata, inputs) for inputs, _ in given]
    # The first request of each sample warms the agent, the first run ONNX Runtime.
    differences = []
    for number, (_, wanted) in enumerate(given):
        result = infer(client, name, prepared[number])
        differences += compare_sample(metadata, number, wanted, result)
    session, feed = peer(folder, consts)
    feeds = [feed(inputs) for inputs, _ in given]
    for arrays in feeds:
        session.run(None, arrays)
    found = measure(client, name, prepared, session, feeds)
    return found | {"relative_max": max(differences, default=None)}


def main(address, *models):
    client = http.InferenceServerClient(address, network_timeout=NETWORK_SECONDS)
    for model in models:
        name, folder, consts = json.loads(model)
        answer = {"model": name, "failed": None, "error": None, "relative_max": None}
        try:
            answer |= ask(client, name, pathlib.Path(folder), consts)
        except Failure as failure:
            answer |= {"failed": failure.step, "error": str(failure)}
        print(json.dumps(answer), flush=True)
    client.close()


main(*sys.argv[1:])
