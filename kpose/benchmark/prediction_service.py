"""A stand-in for TensorFlow Serving, where that cannot be had: its gRPC and REST calls of `Predict`, answered in Python.

It serves one version of one model, for tests and load tests: what is measured with it are the exported graph and the messages, not
TensorFlow Serving's own scheduling. It needs the extra `serving`.

with PredictionService("models/pose", "pose") as service:
    print(service.grpc_address, service.rest_address)
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from kpose.errors import KposeError
from kpose.export.saved_model import EXTRA_FOLDER, WARM_UP, latest_version

DEFAULT_SIGNATURE = "serving_default"
# Of a message, either way, as TensorFlow Serving's own limit is.
LARGEST_MESSAGE_BYTES = (1 << 31) - 1


class RefusedRequest(ValueError):
    """A request that names no model, signature or input of this service; the message is the answer."""


class ServedModel:
    """The signatures of a SavedModel, called by names and arrays.

    Args:
        folder: of the served model; its greatest version is loaded, and warmed up.
        name: that clients call it by.

    Raises:
        KposeError: when there is no version, or it cannot be loaded.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self.name, self.path = name, latest_version(folder)
        self.version = int(self.path.name)
        try:
            self._loaded = tf.saved_model.load(str(self.path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise KposeError(f"{self.path} cannot be loaded, it is damaged: {str(error).splitlines()[0][:160]}") from error
        self.warm_up_requests = self._warm_up()

    def predict(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What a signature makes of its inputs.

        Args:
            signature: its name; empty for the default one.
            inputs: by name an array, or nested lists.

        Raises:
            RefusedRequest: when there is no such signature, or the inputs are not its own.
            tf.errors.OpError: from the graph.
        """
        name = signature or DEFAULT_SIGNATURE
        function = self.signature(name)
        wanted = function.structured_input_signature[1]
        if set(inputs) != set(wanted):
            raise RefusedRequest(f"input size does not match signature: inputs are {sorted(inputs)}, signature {name} has {sorted(wanted)}")
        tensors = {}
        for key, spec in wanted.items():
            try:
                tensor = tf.constant(inputs[key], spec.dtype)
            except (TypeError, ValueError) as error:
                raise RefusedRequest(f"input {key} is not of type {spec.dtype.name}: {str(error).splitlines()[0][:160]}") from error
            if not spec.shape.is_compatible_with(tensor.shape):
                raise RefusedRequest(f"input {key} has shape {tensor.shape}, signature {name} has {spec.shape}")
            tensors[key] = tensor
        return {key: value.numpy() for key, value in function(**tensors).items()}

    def signature(self, name: str) -> Any:
        """The function of a signature.

        Raises:
            RefusedRequest: when there is none of this name.
        """
        if name not in self._loaded.signatures:
            raise RefusedRequest(f'Serving signature name: "{name}" not found in signature def')
        return self._loaded.signatures[name]

    def _warm_up(self) -> int:
        """Answer the requests that lie beside the graph; how many there are."""
        from tensorflow_serving.apis import prediction_log_pb2

        path = self.path / EXTRA_FOLDER / WARM_UP
        if not path.is_file():
            return 0
        records = [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        for record in records:
            request = record.predict_log.request
            self.predict(request.model_spec.signature_name, {key: tf.make_ndarray(value) for key, value in request.inputs.items()})
        return len(records)


class PredictionService:
    """Answers gRPC and REST requests from threads until it is closed.

    Args:
        folder: of the served model.
        name: of the model, in requests.
        threads: that answer gRPC requests at the same time.
        waiting: gRPC requests that may wait for one of them; more are refused at once (RESOURCE_EXHAUSTED), so that memory stays bounded.
        host: that it is reached at.
        grpc_port, rest_port: 0 takes a free one.

    Attributes:
        model: what is served.
        grpc_address: host and port.
        rest_address: URL.

    Raises:
        KposeError: when tensorflow-serving-api is not installed, or see `ServedModel`.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str = "pose",
        threads: int = 4,
        waiting: int = 1000,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        rest_port: int = 0,
    ) -> None:
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise KposeError("serving needs tensorflow-serving-api, which is not installed; run: pip install 'kpose[serving]'") from error
        self.model = ServedModel(folder, name)
        sizes = [(f"grpc.max_{way}_message_length", LARGEST_MESSAGE_BYTES) for way in ("receive", "send")]
        self._grpc = grpc.server(futures.ThreadPoolExecutor(threads, "grpc"), options=sizes, maximum_concurrent_rpcs=threads + waiting)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_servicer(self.model), self._grpc)
        port = self._grpc.add_insecure_port(f"{host}:{grpc_port}")
        self._rest = ThreadingHTTPServer((host, rest_port), _rest_handler(self.model))
        self.grpc_address = f"{host}:{port}"
        self.rest_address = f"http://{host}:{self._rest.server_address[1]}"
        self._grpc.start()
        threading.Thread(target=self._rest.serve_forever, name="rest", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; requests under way are ended."""
        self._grpc.stop(grace=None).wait()
        self._rest.shutdown()
        self._rest.server_close()


def message_of(error: tf.errors.OpError) -> str:
    """What TensorFlow Serving would say: the error of the operation, without the loader's own words around it."""
    lines = [line.strip() for line in str(error.message).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Graph execution error", "Detected at node", "<stack traces"))]
    return (told or lines or ["unknown error"])[0].split(" [Op:")[0]


def _servicer(model: ServedModel) -> Any:
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    codes = {code.value[0]: code for code in grpc.StatusCode}

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:
            if request.model_spec.name != model.name:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({request.model_spec.name})")
            try:
                inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
                outputs = model.predict(request.model_spec.signature_name, inputs)
            except (RefusedRequest, TypeError, ValueError) as error:  # make_ndarray
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error).splitlines()[0])
            except tf.errors.OpError as error:
                context.abort(codes.get(error.error_code, grpc.StatusCode.UNKNOWN), message_of(error))
            response = predict_pb2.PredictResponse()
            response.model_spec.CopyFrom(request.model_spec)
            response.model_spec.version.value = model.version
            for key, values in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(values))
            return response

    return Servicer()


def answer_rest(model: ServedModel, body: bytes) -> dict[str, Any]:
    """The answer to the body of a REST `:predict` call, in row format (`instances`) or columnar format (`inputs`).

    Raises:
        RefusedRequest: when the body is of neither form.
        tf.errors.OpError: from the graph.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedRequest(f"JSON Parse error: {error}") from error
    if not isinstance(content, dict) or ("instances" in content) == ("inputs" in content):
        raise RefusedRequest("Request must have either 'instances' or 'inputs' (not both)")
    signature = content.get("signature_name", "")
    if not isinstance(signature, str):
        raise RefusedRequest("'signature_name' must be a string")
    if "inputs" in content:
        outputs = model.predict(signature, _named(_bytes_of(content["inputs"]), signature))
        columns: dict[str, Any] = {key: value.tolist() for key, value in outputs.items()}
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    rows = _bytes_of(content["instances"])
    if not isinstance(rows, list) or not rows:
        raise RefusedRequest("'instances' must be a list of at least one value")
    named = [_named(row, signature) for row in rows]
    if any(set(row) != set(named[0]) for row in named):
        raise RefusedRequest("every one of 'instances' must have the same inputs")
    outputs = model.predict(signature, {key: [row[key] for row in named] for key in named[0]})
    answers = [{key: value[place].tolist() for key, value in outputs.items()} for place in range(len(rows))]
    return {"predictions": [one if len(one) > 1 else next(iter(one.values())) for one in answers]}


def _named(values: Any, signature: str) -> dict[str, Any]:
    """Inputs by name; a signature of one input may leave it out."""
    return values if isinstance(values, dict) else {"crops" if signature in ("crops", "heatmaps") else "images": values}


def _bytes_of(value: Any) -> Any:
    """JSON with the bytes in place of every `{"b64": ...}`."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (TypeError, ValueError) as error:
            raise RefusedRequest("Unable to base64 decode") from error
    if isinstance(value, dict):
        return {key: _bytes_of(one) for key, one in value.items()}
    return [_bytes_of(one) for one in value] if isinstance(value, list) else value


def _rest_handler(model: ServedModel) -> type[BaseHTTPRequestHandler]:
    paths = [f"/v1/models/{model.name}{version}" for version in ("", f"/versions/{model.version}")]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in paths:
                return self._answer(404, {"error": f"Malformed request: GET {self.path}"})
            status = {"version": str(model.version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            return self._answer(200, {"model_version_status": [status]})

        def do_POST(self) -> None:
            if self.path not in [f"{path}:predict" for path in paths]:
                return self._answer(404, {"error": f"Malformed request: POST {self.path}"})
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return self._answer(*_answered(lambda: answer_rest(model, body)))

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a load test asks thousands of times."""

    return Handler


def _answered(call: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    try:
        return 200, call()
    except RefusedRequest as error:
        return 400, {"error": str(error)}
    except tf.errors.OpError as error:
        return 400 if isinstance(error, tf.errors.InvalidArgumentError) else 500, {"error": message_of(error)}
