"""Reference cases for operators of the default domain, computed by ONNX Runtime.

ONNX's own cases show each operator once or twice. These vary the options that they leave out: how text is
normalised, how n-grams are weighted, how windows are rounded, how an image is resized.
Takes the folder to write to; see `xtask test`.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 20


def value_info(name, array):
    if array.dtype == object:
        return helper.make_tensor_value_info(name, TensorProto.STRING, array.shape)
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
    )


class Suite:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.random = np.random.default_rng(7)

    def floats(self, *shape):
        return self.random.standard_normal(shape).astype(np.float32)

    def case(self, name, operator, inputs, constants=(), outputs=1, opset=OPSET, **attributes):
        """Writes one node with its inputs, constants (by place) and what ONNX Runtime makes of them."""
        constants = dict(constants)
        count = len(inputs) + len(constants)
        values = iter(inputs)
        given, initializers, names = {}, [], []
        for place in range(count):
            label = f"in_{place}"
            if place not in constants:
                given[label] = next(values)
            elif constants[place] is not None:
                initializers.append(numpy_helper.from_array(constants[place], label))
            names.append("" if place in constants and constants[place] is None else label)
        labels = [f"out_{place}" for place in range(outputs)]
        node = helper.make_node(operator, names, labels, name=name, **attributes)
        graph = helper.make_graph(
            [node],
            name,
            [value_info(label, array) for label, array in given.items()],
            [onnx.ValueInfoProto(name=label) for label in labels],
            initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9
        )
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        results = session.run(None, given)
        for place, result in enumerate(results):
            graph_output = model.graph.output[place]
            kind = value_info(labels[place], np.asarray(result))
            graph_output.CopyFrom(kind)
        data = self.folder / name / "test_data_set_0"
        data.mkdir(parents=True, exist_ok=True)
        (self.folder / name / "model.onnx").write_bytes(model.SerializeToString())
        arrays = [("input", given.items()), ("output", zip(labels, results))]
        for kind, pairs in arrays:
            for place, (label, array) in enumerate(pairs):
                proto = numpy_helper.from_array(np.asarray(array), label)
                (data / f"{kind}_{place}.pb").write_bytes(proto.SerializeToString())


def text(suite):
    words = np.array(["Monday", "tuesday", "", "MONDAY", "Äpfel", "tuesday "], dtype=object)
    cases = itertools.product(["NONE", "LOWER", "UPPER"], [0, 1], [[], ["monday", "tuesday"]])
    for number, (action, sensitive, stopwords) in enumerate(cases):
        attributes = {"stopwords": stopwords} if stopwords else {}
        for shape in [(6,), (1, 6)]:
            suite.case(
                f"string_normalizer_{number}_{len(shape)}d",
                "StringNormalizer",
                [words.reshape(shape)],
                case_change_action=action,
                is_case_sensitive=sensitive,
                locale="C.UTF-8",
                **attributes,
            )
    pool = ["a", "b", "c", "a", "b", "b", "c", "c", "a"]
    tokens = np.array([["a", "b", "c", "a"], ["b", "b", "x", "c"]], dtype=object)
    weights = [0.5, 2.0, 3.0, 1.5, 0.25, 4.0]
    for mode, skips, weighted in itertools.product(["TF", "IDF", "TFIDF"], [0, 1, 3], [0, 1]):
        suite.case(
            f"tf_idf_{mode.lower()}_{skips}_{weighted}",
            "TfIdfVectorizer",
            [tokens],
            mode=mode,
            min_gram_length=1,
            max_gram_length=2,
            max_skip_count=skips,
            ngram_counts=[0, 3],
            ngram_indexes=[2, 0, 1, 5, 3, 4],
            pool_strings=pool,
            **({"weights": weights} if weighted else {}),
        )


def distinct(suite):
    numbers = suite.random.integers(0, 3, (4, 5))
    arrays = {
        "float": numbers.astype(np.float32),
        "long": numbers.astype(np.int64),
        "byte": numbers.astype(np.int8),
        "text": numbers.astype(str).astype(object),
    }
    for (kind, array), axis, in_order in itertools.product(
        arrays.items(), [None, 0, 1, -1], [0, 1]
    ):
        attributes = {} if axis is None else {"axis": axis}
        suite.case(
            f"unique_{kind}_{axis}_{in_order}".replace("-", "last"),
            "Unique",
            [array],
            outputs=4,
            sorted=in_order,
            **attributes,
        )


def windows(suite):
    image = suite.floats(2, 3, 9, 10)
    for p, ceil, stride, dilation in itertools.product([1, 2, 3], [0, 1], [1, 3], [1, 2]):
        suite.case(
            f"lp_pool_{p}_{ceil}_{stride}_{dilation}",
            "LpPool",
            [image],
            p=p,
            ceil_mode=ceil,
            kernel_shape=[3, 2],
            strides=[stride, 2],
            dilations=[dilation, 1],
            pads=[1, 0, 1, 1],
        )
    for auto_pad in ["SAME_UPPER", "SAME_LOWER", "VALID"]:
        suite.case(
            f"lp_pool_{auto_pad.lower()}",
            "LpPool",
            [image],
            kernel_shape=[3, 4],
            strides=[2, 3],
            auto_pad=auto_pad,
        )
    for stride, dilation, pad in itertools.product([1, 2], [1, 2], [0, 1]):
        blocks = [(7 + 2 * pad - dilation * 2 - 1) // stride + 1, 8 + 2 * pad - 1]
        columns = suite.floats(2, 3 * 6, blocks[0] * blocks[1])
        suite.case(
            f"col2im_{stride}_{dilation}_{pad}",
            "Col2Im",
            [columns],
            constants={1: np.array([7, 8]), 2: np.array([3, 2])},
            strides=[stride, 1],
            dilations=[dilation, 1],
            pads=[pad] * 4,
        )
    for shape, axes in itertools.product([[5, 12], [9, 3], [10, 11]], [[2, 3], [-2, -1]]):
        suite.case(
            f"center_crop_pad_{shape[0]}_{axes[0]}".replace("-", "last"),
            "CenterCropPad",
            [image],
            constants={1: np.array(shape)},
            axes=axes,
        )
    regions = np.array([[0.5, 1, 7, 6.5], [2, 2, 2.2, 9], [-3, 0, 12, 8]], np.float32)
    for mode, transform, ratio in itertools.product(
        ["avg", "max"], ["half_pixel", "output_half_pixel"], [0, 2]
    ):
        suite.case(
            f"roi_align_{mode}_{transform}_{ratio}",
            "RoiAlign",
            [image, regions, np.array([0, 1, 1])],
            mode=mode,
            coordinate_transformation_mode=transform,
            sampling_ratio=ratio,
            output_height=3,
            output_width=2,
            spatial_scale=0.75,
        )


def sampling(suite):
    image = suite.floats(1, 2, 5, 6)
    transforms = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    scales = [(1.7, 2.0), (0.6, 0.5), (0.45, 1.9)]
    whole = [(1.6, 2.0), (0.6, 0.5), (0.4, 1.5)]
    for mode, transform, place in itertools.product(
        ["nearest", "linear", "cubic"], transforms, range(3)
    ):
        # Corners of an image whose extents are no whole numbers lie elsewhere in ONNX's own cases.
        high, wide = (whole if transform == "align_corners" else scales)[place]
        suite.case(
            f"resize_{mode}_{transform}_{high}_{wide}",
            "Resize",
            [image],
            constants={1: None, 2: np.array([1, 1, high, wide], np.float32)},
            mode=mode,
            coordinate_transformation_mode=transform,
        )
    for rounding in ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]:
        suite.case(
            f"resize_nearest_{rounding}",
            "Resize",
            [image],
            constants={1: None, 2: None, 3: np.array([1, 2, 8, 9])},
            mode="nearest",
            nearest_mode=rounding,
        )
    for mode, (high, wide) in itertools.product(["linear", "cubic"], [(0.6, 0.5), (0.45, 1.9)]):
        suite.case(
            f"resize_{mode}_antialias_{high}_{wide}",
            "Resize",
            [image],
            constants={1: None, 2: np.array([1, 1, high, wide], np.float32)},
            mode=mode,
            antialias=1,
        )
    grid = suite.random.uniform(-1.4, 1.4, (1, 4, 3, 2)).astype(np.float32)
    for mode, padding, corners in itertools.product(
        ["linear", "nearest", "cubic"], ["zeros", "border", "reflection"], [0, 1]
    ):
        suite.case(
            f"grid_sample_{mode}_{padding}_{corners}",
            "GridSample",
            [image, grid],
            mode=mode,
            padding_mode=padding,
            align_corners=corners,
        )


def spectra(suite):
    for axis, inverse, width in itertools.product([0, 1, 2], [0, 1], [1, 2]):
        suite.case(
            f"dft_{axis}_{inverse}_{width}",
            "DFT",
            [suite.floats(3, 6, 5, width)],
            constants={1: None, 2: np.array(axis)},
            inverse=inverse,
        )
    for length in [4, 9]:
        suite.case(
            f"dft_length_{length}",
            "DFT",
            [suite.floats(2, 6, 1)],
            constants={1: np.array(length)},
            onesided=1,
        )


def main():
    suite = Suite(sys.argv[1])
    for family in [text, distinct, windows, sampling, spectra]:
        family(suite)


if __name__ == "__main__":
    main()
