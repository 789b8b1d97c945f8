"""A trained network as a SavedModel for TensorFlow Serving: `export_saved_model`.

export_saved_model("best.keras", "models/pose")     # models/pose/1, the next time models/pose/2
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpose.checkpoint import ModelCard, load_model
from kpose.data.synthetic.scene import compose_scene
from kpose.errors import KposeError
from kpose.export.inference_network import inference_network
from kpose.export.runner import in_bytes
from kpose.export.serving_graph import BOXES, CROPS, IMAGES, KEYPOINTS, ServingGraph
from kpose.files import new_folder
from kpose.inference.predictor import PoseEstimator
from kpose.inference.test_time import preparation_from_card

SIGNATURES = ("serving_default", "crops", "heatmaps")
# TensorFlow's place for files that are not part of the graph, and the name that TensorFlow Serving looks for there.
EXTRA_FOLDER, WARM_UP = "assets.extra", "tf_serving_warmup_requests"
CARD = "kpose_card.json"
# Decoded, turned and cut it takes four times its bytes: 300 MB. What phones take by default has 12.
LARGEST_PIXELS = 25_000_000
# Of the drawn picture that warms a server up, and that the export is compared with Keras on.
_HEIGHT, _WIDTH = 480, 640


@dataclass(frozen=True)
class ServingExport:
    """What `export_saved_model` wrote.

    Attributes:
        path: the folder of the version.
        version: its number.
        size: bytes, of all files together.
        largest_difference: between the keypoints of the SavedModel and those of `PoseEstimator` for a drawn picture, in its pixels.
    """

    path: Path
    version: int
    size: int
    largest_difference: float

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{self.path}: version {self.version}, {self.size / 1e6:.1f} MB, signatures {', '.join(SIGNATURES)}; "
            f"keypoints within {self.largest_difference:.1e} px of Keras'"
        )


def export_saved_model(
    source: keras.Model | str | Path,
    folder: str | Path,
    version: int | None = None,
    *,
    card: ModelCard | None = None,
    flip: bool = True,
    shift_heatmap: bool = True,
    keypoint_threshold: float = 0.2,
    batch_size: int = 32,
    largest_pixels: int = LARGEST_PIXELS,
    warm_up: bool = True,
) -> ServingExport:
    """Write a network as a version of a served model: `FOLDER/VERSION/`, whole or not at all.

    TensorFlow Serving, told to look into the folder, takes a new version up as soon as it is there. Signatures (see `ServingGraph`):

    * `serving_default`: `images` `(I,)` JPEG or PNG files and `boxes` `(I, N, 4)` -> `keypoints` `(I, N, K, 3)` in the picture, `scores`
      `(I, N)`;
    * `crops`: `crops` `(B, H, W, 3)` uint8 -> `keypoints` `(B, K, 3)` in the crop, `scores` `(B,)`;
    * `heatmaps`: `crops` likewise -> `heatmaps` `(B, h, w, K)`.

    Beside the graph lie the network's card, `assets.extra/kpose_card.json`, and requests that warm a server up.

    Args:
        source: the trained network, or its checkpoint, or the name of one that comes with kpose.
        folder: of the served model; its subfolders are versions.
        version: number of the new one, which must not be there yet; by default 1 more than the greatest.
        card: of the network, where it has none of its own.
        flip: average with the mirrored crop's answer, as `PoseEstimator` does.
        shift_heatmap: as of `PoseEstimator`.
        keypoint_threshold: as of `PoseEstimator`.
        batch_size: crops that go through the network at once, at most; what a request asks for more is answered in several batches.
        largest_pixels: a picture that claims more is refused before it is decoded.
        warm_up: write the requests that warm a server up; they need the extra `serving`.

    Raises:
        KposeError: when the network, a value or the version is refused, tensorflow-serving-api is missing, or the folder cannot be written.
    """
    for name, number in (("batch_size", batch_size), ("largest_pixels", largest_pixels), ("version", version)):
        if number is not None and number < 1:
            raise KposeError(f"{name} must be at least 1, found {number}")
    messages = _messages() if warm_up else None
    version = next_version(folder) if version is None else version
    model = source if isinstance(source, keras.Model) else load_model(source)
    card = card or getattr(model, "card", None)
    if card is None:
        raise KposeError(f"network {model.name!r} has no card that says what it expects; load it with kpose.load_model, or give 'card'")
    skeleton = card.make_skeleton()
    graph = ServingGraph(
        inference_network(model, card, batch_size=None),
        in_bytes(preparation_from_card(model, card, skeleton)),
        np.asarray(skeleton.flip_permutation),
        flip,
        shift_heatmap,
        keypoint_threshold,
        batch_size,
        largest_pixels,
    )
    image, box = _drawn_picture(largest_pixels)
    with new_folder(Path(folder) / str(version)) as partial:
        _write(graph, partial)
        extra = partial / EXTRA_FOLDER
        extra.mkdir()
        (extra / CARD).write_text(card.model_dump_json(indent=2), encoding="utf-8")
        content = tf.io.encode_png(image).numpy()
        if messages is not None:
            _write_warm_up(messages, extra / WARM_UP, content, box, graph)
        serve = tf.saved_model.load(str(partial)).signatures[SIGNATURES[0]]
        found = serve(**{IMAGES: tf.constant([content]), BOXES: tf.constant(box[None, None])})[KEYPOINTS][0, 0]
        size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    estimator = PoseEstimator(model, card, flip=flip, shift_heatmap=shift_heatmap, batch_size=1)
    difference = np.abs(found.numpy() - estimator(image, box[None])[0][0].keypoints)[:, :2].max()
    return ServingExport(Path(folder) / str(version), version, size, float(difference))


def next_version(folder: str | Path) -> int:
    """1 more than the greatest version of a served model; 1 where there is none."""
    return max(versions(folder), default=0) + 1


def versions(folder: str | Path) -> list[int]:
    """The versions of a served model, in order: its subfolders whose names are numbers."""
    folder = Path(folder)
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"\d{1,18}", name, re.ASCII))


def latest_version(folder: str | Path) -> Path:
    """The folder of the greatest version of a served model.

    Raises:
        KposeError: when there is none.
    """
    found = versions(folder)
    if not found:
        raise KposeError(f"there is no version in {folder}; write one: kpose export CHECKPOINT {folder}")
    return next(path for path in Path(folder).iterdir() if path.name.isdigit() and int(path.name) == found[-1])


def _write(graph: ServingGraph, folder: Path) -> None:
    height, width = graph.preparation.codec.input_size
    crops = [tf.TensorSpec((None, height, width, 3), tf.uint8, CROPS)]
    encoded = [tf.TensorSpec((None,), tf.string, IMAGES), tf.TensorSpec((None, None, 4), tf.float32, BOXES)]
    functions = (graph.people, graph.crops, graph.heatmaps)
    # Not `keras.export.ExportArchive`, which writes each weight twice: as Keras' variable and as TensorFlow's within.
    module = tf.Module()
    module.weights = [weight.value for weight in graph.network.weights]
    signatures = {
        name: tf.function(function, specification, autograph=False, jit_compile=False).get_concrete_function()
        for name, function, specification in zip(SIGNATURES, functions, (encoded, crops, crops), strict=True)
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _drawn_picture(largest_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture `(height, width, 3)` uint8 of one person, within the limit, and their box `(4,)`."""
    scale = min(1.0, (largest_pixels / (_HEIGHT * _WIDTH)) ** 0.5)
    height, width = max(1, int(_HEIGHT * scale)), max(1, int(_WIDTH * scale))
    scene = compose_scene(np.random.default_rng(0), height, width, num_people=1)
    return scene.image, np.array([0, 0, width, height], np.float32)


def _messages() -> Any:
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise KposeError(
            "warm-up requests need tensorflow-serving-api, which is not installed; "
            "run: pip install 'kpose[serving]', or export without them"
        ) from error
    return predict_pb2, prediction_log_pb2


def _write_warm_up(messages: Any, path: Path, content: bytes, box: np.ndarray, graph: ServingGraph) -> None:
    """Requests of one person and of a whole batch, which go different ways in TensorFlow's kernels, to every signature."""
    predict, log = messages
    crop = np.zeros((1, *graph.preparation.codec.input_size, 3), np.uint8)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for people in dict.fromkeys((1, graph.people_at_once)):
            for signature in SIGNATURES:
                inputs = {CROPS: np.repeat(crop, people, axis=0)}
                if signature == SIGNATURES[0]:
                    inputs = {IMAGES: np.array([content], object), BOXES: np.repeat(box[None, None], people, axis=1)}
                request = predict.PredictRequest()
                # TensorFlow Serving puts in the name that it knows the model by.
                request.model_spec.signature_name = signature
                for name, values in inputs.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
                writer.write(log.PredictionLog(predict_log=log.PredictLog(request=request)).SerializeToString())
