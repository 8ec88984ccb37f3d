"""Copies the models that the onnx package carries as PyTorch's exporters wrote them, opset 6 and later.

Usage: exported.py FOLDER. Each case becomes FOLDER/CASE/{model.onnx, test_data_set_K/{input,output}_I.pb}.
"""

import pathlib
import shutil
import sys

from onnx.backend.test.loader import load_model_tests


def main(folder):
    for kind in ("pytorch-converted", "pytorch-operator", "simple"):
        for case in load_model_tests(kind=kind):
            source = pathlib.Path(case.model_dir)
            shutil.copytree(source, folder / f"{kind}-{case.name.removeprefix('test_')}")


main(pathlib.Path(sys.argv[1]))
