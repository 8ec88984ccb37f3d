"""Reference cases of the domain ai.onnx.ml: each operator, option and type, and whole pipelines.

    python ml.py FOLDER

writes FOLDER/CASE/model.onnx and FOLDER/CASE/test_data_set_0/{input_I,output_J}.pb, with the outputs
of ONNX Runtime. A case that ONNX Runtime refuses ends the run: it would test nothing.
"""

import itertools
import os
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "int16": TensorProto.INT16,
    "object": TensorProto.STRING,
}
FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
NAN = float("nan")
TRANSFORMS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]


def main(folder):
    suite = Suite(folder)
    scaling(suite)
    encoders(suite)
    features(suite)
    linear(suite)
    machines(suite)
    trees(suite)
    numbered_trees(suite)
    pipelines(suite)


class Suite:
    """Writes cases into a folder."""

    def __init__(self, folder):
        self.folder = folder

    def operator(self, name, operator, inputs, output_types, version=1, **attributes):
        """One operator alone. The first axis of its first input is free."""
        names = [f"x{index}" for index in range(len(inputs))]
        outputs = [f"y{index}" for index in range(len(output_types))]
        node = helper.make_node(operator, names, outputs, domain="ai.onnx.ml", **attributes)
        graph = helper.make_graph(
            [node],
            name,
            [
                helper.make_tensor_value_info(name, TYPES[value.dtype.name], [None] * value.ndim)
                for name, value in zip(names, inputs)
            ],
            [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, output_types)],
        )
        model = helper.make_model(
            graph,
            ir_version=10,
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)],
        )
        self.model(name, model, inputs)

    def model(self, name, model, inputs):
        """A whole model with its inputs in order."""
        folder = os.path.join(self.folder, name)
        data = os.path.join(folder, "test_data_set_0")
        os.makedirs(data, exist_ok=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options)
            names = [value.name for value in session.get_inputs()]
            outputs = session.run(None, dict(zip(names, inputs)))
        except Exception as error:
            raise RuntimeError(f"{name}: ONNX Runtime refuses it: {error}") from error
        for declared, value in zip(model.graph.output, outputs):
            kind = declared.type.tensor_type
            if isinstance(value, np.ndarray) and not kind.HasField("shape"):
                # Without this none would be declared at all, not even that there are no axes.
                kind.shape.SetInParent()
                for _ in value.shape:
                    kind.shape.dim.add()
        onnx.save(model, os.path.join(folder, "model.onnx"))
        for kind, values in (("input", inputs), ("output", outputs)):
            for index, value in enumerate(values):
                value = table(value)
                with open(os.path.join(data, f"{kind}_{index}.pb"), "wb") as file:
                    file.write(numpy_helper.from_array(value).SerializeToString())


def table(value):
    """The maps that ZipMap makes, as rows of their values in the order of the labels."""
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value], dtype=np.float32)
    return value


def numbers(kind, shape, seed=0, scale=3):
    values = np.random.default_rng(seed).normal(size=shape) * scale
    return values.astype(kind)


def scaling(suite):
    for kind in ["float32", "float64", "int32", "int64"]:
        x = numbers(kind, (4, 3))
        suite.operator(f"scaler_{kind}", "Scaler", [x], [FLOAT], offset=[0.5, -1.0, 2.0], scale=[2.0, 0.25, -3.0])
        suite.operator(f"scaler_one_{kind}", "Scaler", [x], [FLOAT], offset=[0.5], scale=[2.0])
        for norm in ["MAX", "L1", "L2"]:
            zero = np.vstack([x, np.zeros((1, 3), kind)])
            suite.operator(f"normalizer_{norm}_{kind}".lower(), "Normalizer", [zero], [FLOAT], norm=norm)
    x = numbers("float32", 3)
    suite.operator("scaler_vector", "Scaler", [x], [FLOAT], offset=[1.0, 2.0, 3.0], scale=[1.0, 2.0, 3.0])
    suite.operator("scaler_no_rows", "Scaler", [x[:0].reshape(0, 3)], [FLOAT], offset=[1.0], scale=[2.0])
    suite.operator("normalizer_vector", "Normalizer", [x], [FLOAT], norm="L2")
    suite.operator("normalizer_default", "Normalizer", [-np.abs(x)], [FLOAT])
    suite.operator("binarizer", "Binarizer", [numbers("float32", (3, 4))], [FLOAT], threshold=0.5)
    suite.operator("binarizer_default", "Binarizer", [numbers("float32", 5)], [FLOAT])
    holes = numbers("float32", (3, 2))
    holes[0, 1] = holes[2, 0] = NAN
    for name, values in (("each", [7.0, 8.0]), ("one", [9.0]), ("odd", [4.0, 5.0, 6.0])):
        suite.operator(
            f"imputer_nan_{name}", "Imputer", [holes], [FLOAT], imputed_value_floats=values, replaced_value_float=NAN
        )
    x = np.array([[0.0, 1.0], [-0.0, 2.0]], np.float32)
    suite.operator("imputer_zero", "Imputer", [x], [FLOAT], imputed_value_floats=[3.0], replaced_value_float=0.0)
    x = np.array([[1, -1], [-1, 5]], np.int64)
    suite.operator("imputer_int64", "Imputer", [x], [INT64], imputed_value_int64s=[10, 20], replaced_value_int64=-1)
    suite.operator("imputer_int64_default", "Imputer", [x * 0], [INT64], imputed_value_int64s=[10])


LISTS = {
    "string": (STRING, "strings", ["b", "a", "c", "a"], "object"),
    "int64": (INT64, "int64s", [3, -1, 7, -1], "int64"),
    "float": (FLOAT, "floats", [0.5, NAN, -0.0, 0.5], "float32"),
}
PROBES = {
    "string": np.array([["a", "b", "z"], ["", "c", "a"]], object),
    "int64": np.array([[3, 7, 0], [-1, 8, 3]], np.int64),
    "float": np.array([[0.5, NAN, 0.0], [-0.0, 9.0, 0.5]], np.float32),
}


def encoders(suite):
    for version, (key, value) in itertools.product([2, 4], itertools.product(LISTS, LISTS)):
        _, keys_name, keys, _ = LISTS[key]
        kind, values_name, _, _ = LISTS[value]
        values = {"string": ["p", "q", "r", "s"], "int64": [10, 20, 30, 40], "float": [0.1, 0.2, 0.3, 0.4]}[value]
        default = {"string": "other", "int64": 99, "float": 9.5}[value]
        lists = {f"keys_{keys_name}": keys, f"values_{values_name}": values}
        suite.operator(f"label_encoder_{version}_{key}_{value}", "LabelEncoder", [PROBES[key]], [kind], version, **lists)
        lists[f"default_{value}"] = default
        suite.operator(
            f"label_encoder_{version}_{key}_{value}_default", "LabelEncoder", [PROBES[key]], [kind], version, **lists
        )
    strings = helper.make_tensor("k", STRING, [3], [b"a", b"b", b"c"])
    for name, kind, element in (("int16", TensorProto.INT16, 5), ("double", DOUBLE, 5.5), ("int64", INT64, 5)):
        values = helper.make_tensor("v", kind, [3], [1, 2, 3])
        default = helper.make_tensor("d", kind, [1], [element])
        suite.operator(
            f"label_encoder_tensor_string_{name}",
            "LabelEncoder",
            [PROBES["string"]],
            [kind],
            4,
            keys_tensor=strings,
            values_tensor=values,
            default_tensor=default,
        )
    doubles = helper.make_tensor("k", DOUBLE, [3], [0.1, NAN, 2.0])
    values = helper.make_tensor("v", DOUBLE, [3], [1.0, 2.0, 3.0])
    x = np.array([0.1, NAN, 2.0, 3.0])
    suite.operator(
        "label_encoder_tensor_double_double", "LabelEncoder", [x], [DOUBLE], 4, keys_tensor=doubles, values_tensor=values
    )
    for name, probe, kind in (("string", PROBES["string"], INT64), ("int64", np.array([0, 2, 5, -1]), STRING)):
        suite.operator(f"label_encoder_1_{name}", "LabelEncoder", [probe], [kind], classes_strings=["c", "a", "b"])
        suite.operator(
            f"category_mapper_{name}",
            "CategoryMapper",
            [probe],
            [kind],
            cats_strings=["a", "b", "c", "a"],
            cats_int64s=[0, 2, 4, 5],
            default_int64=-7,
            default_string="none",
        )
    for kind in ["float32", "float64", "int64"]:
        x = np.array([[1.0, 2.9], [3.0, 9.0]]).astype(kind)
        suite.operator(f"one_hot_{kind}", "OneHotEncoder", [x], [FLOAT], cats_int64s=[3, 1, 2])
    suite.operator("one_hot_vector", "OneHotEncoder", [np.array([1, 1, 2])], [FLOAT], cats_int64s=[1, 2], zeros=0)
    suite.operator("one_hot_string", "OneHotEncoder", [PROBES["string"]], [FLOAT], cats_strings=["c", "a", "b"])


def features(suite):
    index = np.array([2, 0], np.int64)
    for kind in ["float32", "float64", "int32", "int64"]:
        suite.operator(
            f"extractor_{kind}", "ArrayFeatureExtractor", [numbers(kind, (3, 4)), index], [TYPES[np.dtype(kind).name]]
        )
    texts = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
    suite.operator("extractor_string", "ArrayFeatureExtractor", [texts, index], [STRING])
    suite.operator("extractor_vector", "ArrayFeatureExtractor", [numbers("float32", 5), index], [FLOAT])
    suite.operator("extractor_cube", "ArrayFeatureExtractor", [numbers("float32", (2, 3, 4)), index[None]], [FLOAT])
    for kind in ["float32", "float64", "int32", "int64"]:
        inputs = [numbers(kind, (3, width), width) for width in (2, 3, 1)]
        suite.operator(f"vectorizer_{kind}", "FeatureVectorizer", inputs, [FLOAT], inputdimensions=[2, 3, 1])
    suite.operator("vectorizer_cut", "FeatureVectorizer", inputs, [FLOAT], inputdimensions=[3, 2, 1])
    suite.operator("vectorizer_vectors", "FeatureVectorizer", [numbers("float32", 2)], [FLOAT], inputdimensions=[2])


def linear(suite):
    for transform, kind in itertools.product(TRANSFORMS, ["float32", "float64", "int32", "int64"]):
        if transform != "NONE" and kind != "float32":
            continue
        name = f"{transform}_{kind}".lower()
        x = numbers(kind, (5, 3))
        many = dict(coefficients=[0.1, -0.2, 0.3, 0.05, 0.1, -0.1, -0.3, 0.1, 0.2], intercepts=[0.1, 0.2, 0.3])
        many["post_transform"] = transform
        suite.operator(
            f"linear_classifier_{name}", "LinearClassifier", [x], [INT64, FLOAT], classlabels_ints=[5, 3, 9], **many
        )
        two = dict(coefficients=[0.1, -0.2, 0.3, -0.1, 0.2, -0.3], intercepts=[0.1, -0.1], post_transform=transform)
        suite.operator(
            f"linear_classifier_two_{name}", "LinearClassifier", [x], [INT64, FLOAT], classlabels_ints=[0, 1], **two
        )
        if transform != "PROBIT":
            one = dict(coefficients=[0.1, -0.2, 0.3], intercepts=[0.1], post_transform=transform)
            suite.operator(
                f"linear_classifier_one_{name}", "LinearClassifier", [x], [INT64, FLOAT], classlabels_ints=[4, 6], **one
            )
        if kind == "float32":
            for targets in (1, 3):
                suite.operator(
                    f"linear_regressor_{targets}_{name}",
                    "LinearRegressor",
                    [np.abs(x) * 0.1],
                    [FLOAT],
                    targets=targets,
                    coefficients=[0.1, 0.2, 0.3, 0.05, 0.1, 0.1, 0.3, 0.1, 0.2][: 3 * targets],
                    intercepts=[0.1, 0.2, 0.15][:targets],
                    post_transform=transform,
                )
    x = numbers("float32", (5, 3))
    texts = dict(coefficients=[0.1, -0.2, 0.3], intercepts=[0.1], classlabels_strings=["no", "yes"])
    suite.operator("linear_classifier_one_text", "LinearClassifier", [x], [STRING, FLOAT], **texts)
    suite.operator("linear_classifier_vector", "LinearClassifier", [x[0]], [STRING, FLOAT], **texts)
    suite.operator("linear_classifier_no_rows", "LinearClassifier", [x[:0]], [STRING, FLOAT], **texts)
    texts["coefficients"], texts["intercepts"] = [0.1, -0.2, 0.3, -0.1, 0.2, 0.1], [0.1, 0.0]
    suite.operator("linear_classifier_two_text", "LinearClassifier", [x], [STRING, FLOAT], **texts)
    suite.operator("linear_regressor_bare", "LinearRegressor", [x], [FLOAT], coefficients=[0.1, -0.2, 0.3])
    suite.operator("linear_regressor_vector", "LinearRegressor", [x[0]], [FLOAT], coefficients=[0.1, -0.2, 0.3])


def machines(suite):
    rng = np.random.default_rng(3)
    kernels = {"LINEAR": [0.0, 0.0, 0.0], "POLY": [0.1, 0.5, 3.0], "RBF": [0.2, 0.0, 0.0], "SIGMOID": [0.05, 0.1, 0.0]}
    kernels["POLY_2"], kernels["POLY_4"] = [0.1, 0.5, 2.0], [0.1, 0.5, 4.0]
    x = numbers("float32", (6, 4), 5, 1)
    for (kernel, params), classes, proba in itertools.product(kernels.items(), (2, 3, 5), (False, True)):
        by_class = [3, 2, 4, 1, 2][:classes]
        vectors, pairs = sum(by_class), classes * (classes - 1) // 2
        common = dict(
            kernel_type=kernel.split("_")[0],
            kernel_params=params,
            vectors_per_class=by_class,
            support_vectors=rng.normal(size=vectors * 4).tolist(),
            coefficients=rng.normal(size=vectors * (classes - 1)).tolist(),
            rho=rng.normal(size=pairs).tolist(),
        )
        if proba:
            common["prob_a"] = (-np.abs(rng.normal(size=pairs))).tolist()
            common["prob_b"] = rng.normal(size=pairs).tolist()
        name = f"svm_{kernel}_{classes}{'_proba' if proba else ''}".lower()
        suite.operator(name, "SVMClassifier", [x], [INT64, FLOAT], classlabels_ints=list(range(10, 10 + classes)), **common)
        if kernel != "RBF":
            continue
        labels = ["a", "b", "c", "d", "e"][:classes]
        suite.operator(f"{name}_text", "SVMClassifier", [x], [STRING, FLOAT], classlabels_strings=labels, **common)
        for transform in TRANSFORMS[1:4]:
            suite.operator(
                f"{name}_{transform}".lower(),
                "SVMClassifier",
                [x],
                [INT64, FLOAT],
                classlabels_ints=list(range(classes)),
                post_transform=transform,
                **common,
            )
        for kind in ["float64", "int32", "int64"]:
            suite.operator(
                f"{name}_{kind}",
                "SVMClassifier",
                [numbers(kind, (4, 4))],
                [INT64, FLOAT],
                classlabels_ints=list(range(classes)),
                **common,
            )
    for classes, sign in itertools.product((2, 3), (1, -1)):
        weights = (np.abs(rng.normal(size=classes * 4)) * np.where(np.arange(classes * 4) % 2, sign, 1)).tolist()
        suite.operator(
            f"svm_classes_{classes}_{'positive' if sign > 0 else 'mixed'}",
            "SVMClassifier",
            [x],
            [INT64, FLOAT],
            classlabels_ints=list(range(5, 5 + classes)),
            coefficients=weights,
            rho=[-0.2],
            kernel_params=[0.0, 0.0, 0.0],
        )
    for (kernel, params), one_class in itertools.product(kernels.items(), (0, 1)):
        suite.operator(
            f"svr_{kernel}_{one_class}".lower(),
            "SVMRegressor",
            [x],
            [FLOAT],
            kernel_type=kernel.split("_")[0],
            kernel_params=params,
            n_supports=5,
            one_class=one_class,
            support_vectors=rng.normal(size=20).tolist(),
            coefficients=rng.normal(size=5).tolist(),
            rho=[0.3],
        )
    suite.operator(
        "svr_no_vectors",
        "SVMRegressor",
        [x],
        [FLOAT],
        kernel_params=[0.0, 0.0, 0.0],
        n_supports=0,
        coefficients=[0.1, 0.2, -0.3, 0.4],
        rho=[0.3],
    )


MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def forest(count, depth, seed, modes, features=4):
    """Full trees over small whole numbers, so that equality happens too."""
    rng = np.random.default_rng(seed)
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")}
    leaves = []
    inner = 2**depth - 1
    for tree in range(count):
        for node in range(2 * inner + 1):
            is_leaf = node >= inner
            nodes["treeids"].append(tree)
            nodes["nodeids"].append(node)
            nodes["featureids"].append(0 if is_leaf else int(rng.integers(features)))
            nodes["values"].append(0.0 if is_leaf else float(rng.integers(-3, 4)))
            nodes["modes"].append("LEAF" if is_leaf else modes[int(rng.integers(len(modes)))])
            nodes["truenodeids"].append(0 if is_leaf else 2 * node + 1)
            nodes["falsenodeids"].append(0 if is_leaf else 2 * node + 2)
            if is_leaf:
                leaves.append((tree, node))
    return {f"nodes_{key}": value for key, value in nodes.items()}, leaves, rng


def probes(kind, rows=11, features=4, seed=7):
    return np.random.default_rng(seed).integers(-4, 5, size=(rows, features)).astype(kind)


def weighted(leaves, rng, prefix, ids, positive=False, scale=0.1):
    """A weight for each of `ids` at each leaf."""
    pairs = list(itertools.product(leaves, ids))
    weights = rng.normal(size=len(pairs)) * scale
    return {
        f"{prefix}_treeids": [tree for (tree, _), _ in pairs],
        f"{prefix}_nodeids": [node for (_, node), _ in pairs],
        f"{prefix}_ids": [target for _, target in pairs],
        f"{prefix}_weights": (np.abs(weights) if positive else weights).tolist(),
    }


def trees(suite):
    for mode, missing in itertools.product([*MODES, "MIXED"], (False, True)):
        nodes, leaves, rng = forest(5, 4, 1, MODES if mode == "MIXED" else [mode])
        x = probes("float32")
        if missing:
            tracks = rng.integers(0, 2, size=len(nodes["nodes_nodeids"])).tolist()
            nodes["nodes_missing_value_tracks_true"] = tracks
        x[1, :] = NAN
        x[3, 2] = x[4, 0] = NAN
        weights = weighted(leaves, rng, "target", [0])
        name = f"tree_{mode}{'_missing' if missing else ''}".lower()
        suite.operator(name, "TreeEnsembleRegressor", [x], [FLOAT], n_targets=1, **nodes, **weights)
    for kind in ["float32", "float64"]:
        for aggregate, targets, base in itertools.product(["SUM", "AVERAGE", "MIN", "MAX"], (1, 3), (False, True)):
            nodes, leaves, rng = forest(6, 3, 2, ["BRANCH_LEQ"])
            weights = weighted(leaves, rng, "target", range(targets))
            if base:
                weights["base_values"] = [0.25, -0.5, 0.125][:targets]
            suite.operator(
                f"regressor_{aggregate}_{targets}{'_base' if base else ''}_{kind}".lower(),
                "TreeEnsembleRegressor",
                [probes(kind)],
                [FLOAT],
                n_targets=targets,
                aggregate_function=aggregate,
                **nodes,
                **weights,
            )
    for transform, targets in itertools.product(TRANSFORMS, (1, 2, 3)):
        nodes, leaves, rng = forest(2, 2, 3, ["BRANCH_LT"])
        weights = weighted(leaves, rng, "target", range(targets), positive=True)
        suite.operator(
            f"regressor_{transform}_{targets}".lower(),
            "TreeEnsembleRegressor",
            [probes("float32")],
            [FLOAT],
            n_targets=targets,
            post_transform=transform,
            **nodes,
            **weights,
        )
    nodes, leaves, rng = forest(3, 3, 4, ["BRANCH_LEQ"])
    sparse = weighted(leaves[::2], rng, "target", [0])
    other = weighted(leaves[1::2], rng, "target", [2, 1])
    sparse = {key: sparse[key] + other[key] for key in sparse}
    for aggregate, rows in itertools.product(["SUM", "MIN", "MAX"], (1, 11, 300)):
        suite.operator(
            f"regressor_sparse_{aggregate}_{rows}".lower(),
            "TreeEnsembleRegressor",
            [probes("float32", rows)],
            [FLOAT],
            n_targets=3,
            aggregate_function=aggregate,
            **nodes,
            **sparse,
        )
    for aggregate in ["SUM", "AVERAGE", "MIN", "MAX"]:
        suite.operator(
            f"regressor_sparse_base_{aggregate}".lower(),
            "TreeEnsembleRegressor",
            [probes("float32")],
            [FLOAT],
            n_targets=3,
            aggregate_function=aggregate,
            base_values=[0.5, 0.25, 0.125],
            **nodes,
            **sparse,
        )
    suite.operator(
        "regressor_no_rows", "TreeEnsembleRegressor", [probes("float32", 0)], [FLOAT], n_targets=3, **nodes, **sparse
    )
    shared_children(suite)
    as_tensors(suite)
    classifiers(suite)


def shared_children(suite):
    """As LightGBM's categories: a chain of equalities whose true branches meet."""
    suite.operator(
        "tree_shared_children",
        "TreeEnsembleRegressor",
        [np.array([[0.0], [1.0], [2.0], [3.0], [NAN]], np.float32)],
        [FLOAT],
        n_targets=1,
        nodes_treeids=[0] * 5,
        nodes_nodeids=[0, 1, 2, 3, 4],
        nodes_featureids=[0] * 5,
        nodes_values=[1.0, 3.0, 5.0, 0.0, 0.0],
        nodes_modes=["BRANCH_EQ"] * 3 + ["LEAF"] * 2,
        nodes_truenodeids=[3, 3, 3, 0, 0],
        nodes_falsenodeids=[1, 2, 4, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[3, 4],
        target_ids=[0, 0],
        target_weights=[1.5, -2.5],
    )


def as_tensors(suite):
    """The attributes of version 3 that hold doubles."""
    for operator, prefix, ids in (
        ("TreeEnsembleRegressor", "target", [0]),
        ("TreeEnsembleRegressor", "target", [0, 1]),
        ("TreeEnsembleClassifier", "class", [0]),
        ("TreeEnsembleClassifier", "class", [0, 1, 2]),
    ):
        nodes, leaves, rng = forest(4, 3, 6, ["BRANCH_LEQ"])
        weights = weighted(leaves, rng, prefix, ids)
        split = np.array(nodes.pop("nodes_values")) + 1e-9
        nodes["nodes_values_as_tensor"] = numpy_helper.from_array(split)
        value = np.array(weights.pop(f"{prefix}_weights"))
        weights[f"{prefix}_weights_as_tensor"] = numpy_helper.from_array(value)
        weights["base_values_as_tensor"] = numpy_helper.from_array(np.linspace(0.1, 0.3, len(ids)))
        outputs, extra = [FLOAT], dict(n_targets=len(ids))
        if prefix == "class":
            outputs, extra = [INT64, FLOAT], dict(classlabels_int64s=list(range(max(2, len(ids)))))
        x = probes("float64") + 1e-9
        suite.operator(f"tensors_{prefix}_{len(ids)}", operator, [x], outputs, 3, **nodes, **weights, **extra)


def classifiers(suite):
    grid = itertools.product(TRANSFORMS, (2, 3), ("one", "all"), (False, True), (0, 1, 2, 3))
    for transform, classes, given, positive, base in grid:
        if base not in ((0, 1, 2) if classes == 2 else (0, 3)) or (transform == "PROBIT" and not positive):
            continue
        # Here ONNX Runtime leaves the second score as it finds it.
        if transform == "PROBIT" and given == "one" and classes == 2 and base < 2:
            continue
        nodes, leaves, rng = forest(3, 3, 8, ["BRANCH_LEQ"])
        ids = {"one": [classes - 1], "all": range(classes)}[given]
        # Where the inverse of the normal distribution is near zero, so is what rounding leaves of it.
        scale = 0.03 if transform == "PROBIT" else 0.1
        weights = weighted(leaves, rng, "class", ids, positive, scale)
        if base:
            weights["base_values"] = [0.05, 0.125, 0.1][:base]
        name = f"classifier_{transform}_{classes}_{given}_{'positive' if positive else 'mixed'}_{base}".lower()
        suite.operator(
            name,
            "TreeEnsembleClassifier",
            [probes("float32")],
            [INT64, FLOAT],
            classlabels_int64s=[7, 3, 5][:classes],
            post_transform=transform,
            **nodes,
            **weights,
        )
        if transform == "LOGISTIC":
            suite.operator(
                f"{name}_text",
                "TreeEnsembleClassifier",
                [probes("float32")],
                [STRING, FLOAT],
                classlabels_strings=["x", "y", "z"][:classes],
                post_transform=transform,
                **nodes,
                **weights,
            )
    for kind, rows in itertools.product(["float64", "int32", "int64"], (1, 20)):
        for ids, classes in (([0], 2), (range(3), 3)):
            nodes, leaves, rng = forest(9, 3, 9, ["BRANCH_LEQ"])
            suite.operator(
                f"classifier_{classes}_{kind}_{rows}",
                "TreeEnsembleClassifier",
                [probes(kind, rows)],
                [INT64, FLOAT],
                classlabels_int64s=list(range(classes)),
                **nodes,
                **weighted(leaves, rng, "class", ids),
            )
    nodes, leaves, rng = forest(3, 3, 10, ["BRANCH_LEQ"])
    for half in (0, 1):
        # Which classes have a score depends on the leaves that a row ends in.
        first = weighted(leaves[half::2], rng, "class", [0])
        second = weighted(leaves[1 - half :: 2], rng, "class", [1])
        mixed = {key: first[key] + second[key] for key in first}
        for base in (0, 2):
            if base:
                mixed["base_values"] = [0.05, -0.1]
            suite.operator(
                f"classifier_two_sparse_{half}_{base}",
                "TreeEnsembleClassifier",
                [probes("float32", 40)],
                [INT64, FLOAT],
                classlabels_int64s=[0, 1],
                **nodes,
                **mixed,
            )


def numbered_trees(suite):
    """TreeEnsemble of version 5."""
    for kind, aggregate in itertools.product(["float32", "float64"], range(4)):
        suite.operator(
            f"tree_ensemble_{aggregate}_{kind}",
            "TreeEnsemble",
            [np.array([[1.2, 3.4], [-0.12, 1.66], [4.14, 1.77], [NAN, 2.0], [3.14, 3.0]], kind)],
            [TYPES[kind]],
            5,
            n_targets=2,
            aggregate_function=aggregate,
            tree_roots=[0, 2],
            nodes_modes=numpy_helper.from_array(np.array([0, 1, 6], np.uint8)),
            nodes_featureids=[0, 0, 1],
            nodes_splits=numpy_helper.from_array(np.array([3.14, 1.2, 0.0], kind)),
            nodes_truenodeids=[1, 0, 3],
            nodes_trueleafs=[0, 1, 1],
            nodes_falsenodeids=[2, 1, 0],
            nodes_falseleafs=[1, 1, 1],
            leaf_targetids=[0, 1, 0, 1],
            leaf_weights=numpy_helper.from_array(np.array([5.23, 12.12, -12.23, 7.21], kind)),
            membership_values=numpy_helper.from_array(np.array([3.4, 2.0, 1.77, NAN], kind)),
        )


def pipelines(suite):
    """Exports of scikit-learn, as its users make them."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn import compose, ensemble, impute, linear_model, multiclass, naive_bayes, neighbors, neural_network
    from sklearn import pipeline, preprocessing, svm, tree

    warnings.filterwarnings("ignore")
    # onnx takes no booleans for numbers any more; skl2onnx still gives some.
    make_attribute = helper.make_attribute
    helper.make_attribute = lambda key, value: make_attribute(key, without_bools(value))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    raw = x[:, 0] - x[:, 1] * x[:, 2]
    two = (raw > 0).astype(np.int64)
    three = np.digitize(raw, [-0.7, 0.7]).astype(np.int64)
    names = np.array(["low", "middle", "high"])[three]
    scaler = preprocessing.StandardScaler

    def export(name, model, target, inputs=None, values=None, options=None):
        data = x if values is None else values
        model.fit(data, target)
        inputs = inputs or [("x", FloatTensorType([None, 5]))]
        proto = skl2onnx.to_onnx(
            model, initial_types=inputs, target_opset={"": 17, "ai.onnx.ml": 3}, options=options
        )
        given = [data[:16]] if values is None else [column(values, at, kind) for at, (_, kind) in enumerate(inputs)]
        suite.model(f"sklearn_{name}", proto, given)

    def column(values, at, kind):
        dtype = {"StringTensorType": object, "Int64TensorType": np.int64}.get(type(kind).__name__, np.float32)
        return values[:16, [at]].astype(dtype)

    classifiers = {
        "forest": lambda: ensemble.RandomForestClassifier(20, max_depth=6, random_state=0),
        "extra_trees": lambda: ensemble.ExtraTreesClassifier(20, max_depth=6, random_state=0),
        "tree": lambda: tree.DecisionTreeClassifier(max_depth=5, random_state=0),
        "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0),
        "histogram": lambda: ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0),
        "logistic": lambda: linear_model.LogisticRegression(),
        "ridge": lambda: linear_model.RidgeClassifier(),
        "sgd": lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0),
        "svc": lambda: svm.SVC(random_state=0),
        "svc_poly_proba": lambda: svm.SVC(kernel="poly", probability=True, random_state=0),
        "svc_rbf_proba": lambda: svm.SVC(probability=True, random_state=0),
        "mlp": lambda: neural_network.MLPClassifier(hidden_layer_sizes=(8,), max_iter=50, random_state=0),
        "neighbours": lambda: neighbors.KNeighborsClassifier(5),
        "bayes": lambda: naive_bayes.GaussianNB(),
    }
    for (name, model), (kind, target) in itertools.product(
        classifiers.items(), (("two", two), ("three", three), ("text", names))
    ):
        export(f"{name}_{kind}", pipeline.make_pipeline(scaler(), model()), target)
        if name in ("forest", "logistic"):
            final = model()
            export(f"{name}_{kind}_table", final, target, options={id(final): {"zipmap": False}})
    export("logistic_ovr", multiclass.OneVsRestClassifier(linear_model.LogisticRegression()), three)

    regressors = {
        "forest": ensemble.RandomForestRegressor(20, max_depth=6, random_state=0),
        "boosting": ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0),
        "histogram": ensemble.HistGradientBoostingRegressor(max_iter=10, random_state=0),
        "ridge": linear_model.Ridge(),
        "svr": svm.SVR(),
        "linear_svr": svm.LinearSVR(random_state=0),
        "mlp": neural_network.MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, random_state=0),
        "neighbours": neighbors.KNeighborsRegressor(5),
    }
    for name, model in regressors.items():
        export(f"{name}_number", pipeline.make_pipeline(scaler(), model), raw)
    export("forest_numbers", ensemble.RandomForestRegressor(10, max_depth=5, random_state=0), x[:, :2] * 2)
    for norm in ("l1", "l2", "max"):
        steps = pipeline.make_pipeline(preprocessing.Normalizer(norm=norm), linear_model.LogisticRegression())
        export(f"normalizer_{norm}", steps, two)
    steps = pipeline.make_pipeline(preprocessing.Binarizer(threshold=0.2), linear_model.LogisticRegression())
    export("binarizer", steps, two)
    holes = x.copy()
    holes[::7, 1] = NAN
    steps = pipeline.make_pipeline(impute.SimpleImputer(), ensemble.RandomForestClassifier(5, random_state=0))
    steps.fit(holes, two)
    proto = skl2onnx.to_onnx(steps, holes[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    suite.model("sklearn_imputer", proto, [holes[:16]])
    columns(export, x, two, compose, impute, linear_model, pipeline, preprocessing, ensemble)


def without_bools(value):
    if isinstance(value, (list, np.ndarray)) and any(isinstance(element, (bool, np.bool_)) for element in value):
        return [int(element) for element in value]
    return value


def columns(export, x, target, compose, impute, linear_model, pipeline, preprocessing, ensemble):
    """A table of text, whole numbers and reals, an input for each column."""
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    values = np.empty((len(x), 4), object)
    values[:, 0] = x[:, 0]
    values[:, 1] = (np.abs(x[:, 1]) * 20).astype(np.int64)
    values[:, 2] = np.array(["clerk", "smith", "baker"], object)[np.arange(len(x)) % 3]
    values[:, 3] = np.array(["rent", "own"], object)[(x[:, 2] > 0).astype(int)]
    inputs = [
        ("income", FloatTensorType([None, 1])),
        ("age", Int64TensorType([None, 1])),
        ("job", StringTensorType([None, 1])),
        ("home", StringTensorType([None, 1])),
    ]
    for name, encoder in (
        ("one_hot", preprocessing.OneHotEncoder(handle_unknown="ignore")),
        ("ordinal", preprocessing.OrdinalEncoder()),
    ):
        steps = pipeline.make_pipeline(
            compose.ColumnTransformer(
                [
                    ("numbers", pipeline.make_pipeline(preprocessing.StandardScaler()), [0, 1]),
                    ("names", encoder, [2, 3]),
                ]
            ),
            ensemble.RandomForestClassifier(10, max_depth=4, random_state=0)
            if name == "ordinal"
            else linear_model.LogisticRegression(),
        )
        export(f"columns_{name}", steps, target, inputs, values)


if __name__ == "__main__":
    main(sys.argv[1])
