"""Trains the digit classifier of the examples, and writes digits.onnx and samples.json beside itself.

Needs onnx, onnxruntime and scikit-learn. The data are the test set of the UCI machine learning
repository's "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; CC BY 4.0), which
comes with scikit-learn: 1797 images of 8 x 8 pixels.
"""

import json
import pathlib

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

FOLDER = pathlib.Path(__file__).parent
SAMPLES = 10

pixels, digits = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(pixels / 16, digits, random_state=1)
model = LogisticRegression(C=0.5, max_iter=1000).fit(train_x, train_y)
print(f"{model.score(test_x, test_y):.3f} of the test images are right")

graph = helper.make_graph(
    [
        helper.make_node("Gemm", ["pixels", "weights", "biases"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ],
    "digits",
    [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 64])],
    [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])],
    [
        numpy_helper.from_array(model.coef_.T.astype(numpy.float32), "weights"),
        numpy_helper.from_array(model.intercept_.astype(numpy.float32), "biases"),
    ],
)
onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(onnx_model)
onnx.save(onnx_model, FOLDER / "digits.onnx")

session = onnxruntime.InferenceSession(FOLDER / "digits.onnx")
samples = []
for image, digit in zip(test_x[:SAMPLES], test_y[:SAMPLES]):
    # Requests carry grey levels of 0 to 255, as pictures do.
    grey = numpy.rint(image * 255).astype(numpy.uint8)
    scaled = (grey.astype(numpy.float32) / numpy.float32(255)).reshape(1, 64)
    (probabilities,) = session.run(None, {"pixels": scaled})
    samples.append(
        {
            "image": grey.tolist(),
            "written": int(digit),
            "digit": int(probabilities.argmax()),
            "score": float(probabilities.max()),
        }
    )
lines = ",\n".join(json.dumps(sample) for sample in samples)
(FOLDER / "samples.json").write_text(f"[\n{lines}\n]\n")
