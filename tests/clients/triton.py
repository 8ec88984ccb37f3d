"""Drives an agent with Triton's HTTP client, as its documentation shows.

Usage: triton.py HOST:PORT FACE_IMAGE. Expects the models doubler, echo and face.
Prints `all well` last, or fails with a traceback.
"""

import sys

import numpy
import tritonclient.http as http
from tritonclient.utils import InferenceServerException


def check_server(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "tidegate", metadata
    assert "binary_tensor_data" in metadata["extensions"], metadata
    index = client.get_model_repository_index()
    assert {entry["name"] for entry in index} == {"doubler", "echo", "face"}, index
    assert all(entry["state"] == "READY" for entry in index), index


def check_model(client):
    assert client.is_model_ready("doubler")
    assert client.is_model_ready("doubler", "1.0.0")
    assert not client.is_model_ready("nobody")
    metadata = client.get_model_metadata("doubler")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], metadata


def check_every_form(client):
    values = numpy.array([[1, 2.5, -3, 0], [1e30, 7, numpy.nan, numpy.inf]], dtype=numpy.float32)
    for binary_in in (False, True):
        for binary_out in (False, True, None):
            for algorithm in (None, "gzip", "deflate"):
                given = http.InferInput("x", [2, 4], "FP32")
                if not binary_in and not numpy.isfinite(values).all():
                    data = numpy.nan_to_num(values, nan=4.0, posinf=5.0)
                else:
                    data = values
                given.set_data_from_numpy(data, binary_data=binary_in)
                outputs = None
                if binary_out is not None:
                    outputs = [http.InferRequestedOutput("y", binary_data=binary_out)]
                result = client.infer(
                    "doubler",
                    [given],
                    model_version="1.0.0",
                    outputs=outputs,
                    request_id="my request",
                    priority=1,
                    timeout=20_000_000,
                    parameters={"mine": 42},
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                numpy.testing.assert_array_equal(result.as_numpy("y"), data * 2)
                response = result.get_response()
                assert response["id"] == "my request", response
                assert response["parameters"]["tidegate_placement"] == "local", response


def check_large(client):
    values = numpy.arange(400_000, dtype=numpy.float32).reshape(-1, 4)
    for binary in (False, True):
        given = http.InferInput("x", list(values.shape), "FP32")
        given.set_data_from_numpy(values, binary_data=binary)
        wanted = http.InferRequestedOutput("y", binary_data=binary)
        result = client.infer("doubler", [given], outputs=[wanted])
        numpy.testing.assert_array_equal(result.as_numpy("y"), values * 2)


def check_many_at_once(client):
    pending = []
    for number in range(32):
        given = http.InferInput("x", [1], "INT32")
        given.set_data_from_numpy(numpy.array([number], dtype=numpy.int32))
        pending.append(client.async_infer("echo", [given], request_id=str(number)))
    for number, request in enumerate(pending):
        result = request.get_result()
        assert result.as_numpy("x").tolist() == [number]
        assert result.get_response()["id"] == str(number)


def check_face(client, path):
    with open(path, "rb") as file:
        image = file.read()
    given = http.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(numpy.array([image], dtype=object))
    result = client.infer("face", [given])
    boxes, scores = result.as_numpy("boxes"), result.as_numpy("scores")
    assert boxes.shape == (1, 4) and scores.shape == (1,), (boxes, scores)
    assert scores[0] > 0.7, scores


def check_refusals(client):
    def refused(status, expected, call):
        try:
            call()
        except InferenceServerException as error:
            assert str(status) in str(error.status()), error.status()
            assert expected in error.message(), error.message()
        else:
            raise AssertionError(f"{expected} was not refused")

    wrong = http.InferInput("x", [1, 4], "FP64")
    wrong.set_data_from_numpy(numpy.zeros((1, 4)))
    right = http.InferInput("x", [1, 4], "FP32")
    right.set_data_from_numpy(numpy.zeros((1, 4), dtype=numpy.float32))
    refused(400, "FP64", lambda: client.infer("doubler", [wrong]))
    refused(404, "nobody", lambda: client.infer("nobody", [right]))
    output = http.InferRequestedOutput("z")
    refused(400, "z", lambda: client.infer("doubler", [right], outputs=[output]))
    refused(404, "nobody", lambda: client.get_model_metadata("nobody"))


def main(address, image):
    client = http.InferenceServerClient(address, concurrency=8, network_timeout=60)
    check_server(client)
    check_model(client)
    check_every_form(client)
    check_large(client)
    check_many_at_once(client)
    check_face(client, image)
    check_refusals(client)
    client.close()
    print("all well")


main(*sys.argv[1:])
