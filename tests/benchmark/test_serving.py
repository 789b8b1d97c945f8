"""The export behind TensorFlow Serving's interfaces: gRPC, REST, the guide's clients, many at a time."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow as tf
import yaml

grpc = pytest.importorskip("grpc", reason="needs grpcio, of the extra `serving`")
pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api, of the extra `serving`")

from kpose import PoseEstimator  # noqa: E402
from kpose.benchmark import benchmark_serving  # noqa: E402
from kpose.benchmark.prediction_service import PredictionService  # noqa: E402
from kpose.benchmark.serving import predict_request  # noqa: E402
from kpose.data.synthetic.scene import compose_scene  # noqa: E402
from kpose.errors import KposeError  # noqa: E402
from kpose.export import export_saved_model  # noqa: E402
from tests.inference.conftest import card_of, tiny_network  # noqa: E402

BOXES = np.array([[[40, 30, 120, 300], [10, 5, 200, 350]]], np.float32)


@pytest.fixture(scope="module")
def network():
    model = tiny_network()
    model.card = card_of()
    return model


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    path.write_bytes(cv2.imencode(".jpg", compose_scene(np.random.default_rng(0), 400, 300, num_people=1).image)[1].tobytes())
    return path


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pose"
    export_saved_model(network, folder, 3)
    return folder


@pytest.fixture(scope="module")
def service(folder) -> Iterator[PredictionService]:
    with PredictionService(folder) as service:
        yield service


@pytest.fixture(scope="module")
def expected(network, photo) -> np.ndarray:
    return np.stack([pose.keypoints for pose in PoseEstimator(network)(photo, BOXES[0])[0]])


def ask(service: PredictionService, content: bytes, boxes: np.ndarray = BOXES, name: str = "pose") -> Any:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(service.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(predict_request(name, content, np.asarray(boxes, np.float32)), 60)


def rest(service: PredictionService, body: Any, path: str = "/v1/models/pose:predict") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(service.rest_address + path, data)) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_answer_by_grpc_is_that_of_poseestimator(service, photo, expected):
    assert service.model.warm_up_requests == 6
    response = ask(service, photo.read_bytes())
    assert response.model_spec.version.value == 3
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["keypoints"])[0], expected, atol=1e-3)
    assert tf.make_ndarray(response.outputs["scores"]).shape == (1, 2)


def test_rest_in_rows_and_in_columns(service, photo, expected, network):
    image = {"b64": base64.b64encode(photo.read_bytes()).decode()}
    status, rows = rest(service, {"instances": [{"images": image, "boxes": BOXES[0].tolist()}] * 2})
    assert status == 200 and len(rows["predictions"]) == 2
    np.testing.assert_allclose(rows["predictions"][1]["keypoints"], expected, atol=1e-3)
    status, columns = rest(service, {"inputs": {"images": [image], "boxes": BOXES.tolist()}}, "/v1/models/pose/versions/3:predict")
    assert status == 200 and np.shape(columns["outputs"]["scores"]) == (1, 2)
    np.testing.assert_allclose(columns["outputs"]["keypoints"][0], expected, atol=1e-3)


def test_rest_leaves_out_the_name_of_a_single_input_and_output(service):
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3)).tolist()
    _, rows = rest(service, {"signature_name": "heatmaps", "instances": crops})
    _, columns = rest(service, {"signature_name": "heatmaps", "inputs": crops})
    assert np.shape(rows["predictions"]) == np.shape(columns["outputs"]) == (2, 16, 12, 17)
    _, named = rest(service, {"signature_name": "crops", "instances": [{"crops": crop} for crop in crops]})
    assert [sorted(row) for row in named["predictions"]] == [["keypoints", "scores"]] * 2


def huge(content: bytes) -> bytes:
    """A file that claims a hundred megapixels."""
    frame = content.index(b"\xff\xc0") + 5
    return content[:frame] + struct.pack(">HH", 10_000, 10_000) + content[frame + 4 :]


def test_bad_requests_are_told_what_is_wrong_both_ways(service, photo):
    content = photo.read_bytes()
    for image, boxes, message in (
        (content[:2000], BOXES, "Invalid JPEG data"),
        (b"broken", BOXES, "picture 0 is neither a JPEG nor a PNG file"),
        (huge(content), BOXES, "picture 0 claims 10000 x 10000 pixels"),
        (content, [[[0, 0, 0, 5]]], "has no area"),
        (content, [[[0, 0, 5]]], "boxes has shape"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            ask(service, image, boxes)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and message in refused.value.details()
        encoded = {"b64": base64.b64encode(image).decode()}
        status, answer = rest(service, {"instances": [{"images": encoded, "boxes": np.asarray(boxes).tolist()[0]}]})
        assert status == 400 and message in answer["error"]
    with pytest.raises(grpc.RpcError) as unknown:
        ask(service, content, name="other")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "JSON Parse error"),
        ([], "either 'instances' or 'inputs'"),
        ({"inputs": [], "instances": []}, "either 'instances' or 'inputs'"),
        ({"instances": []}, "at least one value"),
        ({"instances": [{"images": {"b64": "@"}, "boxes": []}]}, "base64"),
        ({"instances": [{"images": "x"}]}, "signature serving_default has ['boxes', 'images']"),
        ({"instances": [{"images": 3, "boxes": [[1, 2, 3, 4]]}]}, "input images is not of type string"),
        ({"instances": [{"images": "a", "boxes": []}, {"images": "a"}]}, "the same inputs"),
        ({"signature_name": "other", "inputs": {}}, 'Serving signature name: "other" not found'),
        ({"signature_name": 3, "inputs": {}}, "must be a string"),
    ],
)
def test_rest_bodies_of_another_form_are_refused(service, body, message):
    status, answer = rest(service, body)
    assert status == 400 and message in answer["error"]


def test_rest_tells_that_the_model_is_there(service):
    with urllib.request.urlopen(f"{service.rest_address}/v1/models/pose") as answer:
        assert json.loads(answer.read())["model_version_status"][0]["state"] == "AVAILABLE"
    assert rest(service, {}, "/v1/models/other:predict")[0] == 404


def test_many_clients_at_a_time_each_get_their_own_answer(service, photo, expected):
    content = photo.read_bytes()

    def client(number: int) -> np.ndarray | None:
        if number % 5 == 0:
            with pytest.raises(grpc.RpcError, match="neither a JPEG"):
                ask(service, b"broken")
            return None
        return tf.make_ndarray(ask(service, content, BOXES[:, [number % 2]]).outputs["keypoints"])

    with ThreadPoolExecutor(12) as clients:
        for number, found in enumerate(clients.map(client, range(60))):
            assert (found is None) == (number % 5 == 0)
            if found is not None:
                np.testing.assert_allclose(found[0, 0], expected[number % 2], atol=1e-3)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(KposeError, match="there is no version in"):
        PredictionService(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(KposeError, match="cannot be loaded, it is damaged"):
        PredictionService(tmp_path)


@pytest.fixture(scope="module")
def guide(repository) -> str:
    return (repository / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")


def test_the_python_of_the_guide_runs(guide, service, photo, expected, monkeypatch):
    stand_in, program = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    assert program.count("localhost:8500") == 1
    monkeypatch.chdir(photo.parent)
    names: dict[str, Any] = {}
    exec(program.replace("localhost:8500", service.grpc_address), names)
    np.testing.assert_allclose(names["keypoints"][0, 0], expected[0], atol=1e-3)
    # Such as it is started without a container: here on free ports, and ended at once.
    for port in ("8500", "8501"):
        stand_in = stand_in.replace(f"_port={port}", "_port=0")
    said: list[str] = []
    monkeypatch.chdir(service.model.path.parents[1])
    exec(stand_in.replace('"models/pose"', repr(service.model.path.parent.name)), {"input": said.append})
    assert re.fullmatch(r"127.0.0.1:\d+, http://127.0.0.1:\d+; Enter ends it", said[0])


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("base64"), reason="needs curl and base64")
def test_the_curl_of_the_guide_runs(guide, service, photo, expected):
    (command,) = re.findall(r"^    (printf .*\n.*curl .*)$", guide, flags=re.MULTILINE)
    command = command.replace("http://localhost:8501", service.rest_address)
    done = subprocess.run(["bash", "-c", command], cwd=photo.parent, capture_output=True, timeout=60, check=True)
    np.testing.assert_allclose(json.loads(done.stdout)["predictions"][0]["keypoints"][0], expected[0], atol=1e-3)


def test_the_container_serves_what_the_guide_exports(repository, guide):
    (server,) = yaml.safe_load((repository / "serving" / "docker-compose.yml").read_text())["services"].values()
    assert server["environment"]["MODEL_NAME"] == "pose" and "v1/models/pose:predict" in guide
    (mount,) = server["volumes"]
    source, target, mode = mount.split(":")
    # Compose resolves it from its own folder; the guide's commands run in the root.
    assert (Path("serving") / source).as_posix() == "serving/../models/pose" and "models/pose " in guide
    assert target == "/models/pose" and mode == "ro"
    assert [port.rsplit(":", 1)[1] for port in server["ports"]] == ["8500", "8501"]


@pytest.mark.slow
def test_a_load_is_measured(folder, photo, capsys):
    """The server runs in a process of its own."""
    (load,) = benchmark_serving(folder, photo.parent, clients=[8], people=2, seconds=3.0)
    assert load.latencies and not load.errors and load.refused == load.broken
    assert load.peak_bytes >= load.idle_bytes > 0 and load.network_alone > 0 and load.decode_alone > 0
    assert "| 8 | 2 |" in " ".join(capsys.readouterr().out.split())


def test_a_load_without_pictures_or_clients_is_refused(folder, tmp_path):
    with pytest.raises(KposeError, match="there is no JPEG picture in"):
        benchmark_serving(folder, tmp_path)
    with pytest.raises(KposeError, match="must be greater than 0"):
        benchmark_serving(folder, tmp_path, clients=[0])
