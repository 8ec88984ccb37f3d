"""Writes ONNX's own backend node tests, as the onnx package generates them.

Usage: node.py FOLDER. Each case becomes FOLDER/CASE/{model.onnx, test_data_set_K/{input,output}_I.pb}.
"""

import pathlib
import random
import sys

import numpy
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests


def message(value, info):
    """The protobuf message that holds a value of the declared type."""
    if isinstance(value, onnx.TensorProto):
        return value
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    if kind == "map_type":
        return numpy_helper.from_dict(value, info.name)
    return numpy_helper.from_array(value, info.name)


def main(folder):
    # Some cases draw their inputs: every run must draw the same.
    random.seed(0)
    numpy.random.seed(0)
    for case in load_model_tests(kind="node"):
        place = folder / case.name
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.onnx").write_bytes(case.model.SerializeToString())
        graph = case.model.graph
        for index, (inputs, outputs) in enumerate(case.data_sets):
            data = place / f"test_data_set_{index}"
            data.mkdir()
            for kind, values, infos in (
                ("input", inputs, graph.input),
                ("output", outputs, graph.output),
            ):
                for position, (value, info) in enumerate(zip(values, infos, strict=True)):
                    encoded = message(value, info).SerializeToString()
                    (data / f"{kind}_{position}.pb").write_bytes(encoded)


main(pathlib.Path(sys.argv[1]))
