"""Reads a handwritten digit: grey levels of 0 to 255 in, the digit and how sure the model is out."""

import struct

from componentize_py_types import Err
from wit_world import WitWorld as World
from wit_world.imports import errors, graph
from wit_world.imports.tensor import Tensor, TensorType

PIXELS = 64


class WitWorld(World):
    def infer(self, inputs: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
        ((_, image),) = inputs
        grey = image.data()
        pixels = struct.pack(f"<{PIXELS}f", *(level / 255 for level in grey))
        try:
            context = graph.load_by_name("digits").init_execution_context()
            ((_, output),) = context.compute(
                [("pixels", Tensor([1, PIXELS], TensorType.FP32, pixels))]
            )
        except Err as error:
            # What an error of `wasi:nn` says goes to the caller as text.
            reason = error.value
            raise Err(reason.data() if isinstance(reason, errors.Error) else str(reason)) from None
        probabilities = struct.unpack("<10f", output.data())
        digit = max(range(10), key=probabilities.__getitem__)
        return [
            ("digit", Tensor([1], TensorType.I64, struct.pack("<q", digit))),
            ("score", Tensor([1], TensorType.FP32, struct.pack("<f", probabilities[digit]))),
        ]
