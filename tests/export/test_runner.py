from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from kpose.data import read_coco
from kpose.errors import KposeError
from kpose.evaluation import predict_instances, view_batches
from kpose.export import TFLiteNetwork, TFLiteRunner
from kpose.export.metadata import attach_card
from kpose.inference import PoseEstimator
from kpose.skeletons import COCO_17
from tests.export.conftest import card_of

BOXES = [[10, 10, 60, 90], [70, 20, 80, 80], [-20, -20, 100, 200]]


def picture(seed: int = 0) -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8), (5, 5), 0)


@pytest.mark.parametrize("options", [{"flip": False}, {}, {"rotations": [-20, 0], "scales": [1, 1.1], "batch_size": 3}], ids=str)
def test_finds_what_the_keras_network_finds(files, network, options):
    options = {"refinement": None, **options}
    expected = PoseEstimator(network, **options)([picture(), picture(1)], [BOXES, None])
    found = TFLiteRunner(files["fp32"], threads=1, **options)([picture(), picture(1)], [BOXES, None])
    assert [len(poses) for poses in found] == [3, 1]
    for mine, other in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        np.testing.assert_allclose(mine.keypoints, other.keypoints, atol=1e-2)
        assert mine.score == pytest.approx(other.score, abs=1e-4)


def test_int8_finds_most_of_it_where_it_is(files, network):
    options = {"refinement": None}
    expected = np.stack([pose.keypoints for pose in PoseEstimator(network, **options)(picture(), BOXES)[0]])
    found = np.stack([pose.keypoints for pose in TFLiteRunner(files["int8"], **options)(picture(), BOXES)[0]])
    assert np.median(np.hypot(*(found - expected)[..., :2].reshape(-1, 2).T)) < 4
    assert np.abs(found - expected)[..., 2].max() < 0.1 * np.ptp(expected[..., 2])


def test_several_files_are_an_ensemble(files):
    alone = [TFLiteRunner(files[precision], refinement=None)(picture(), BOXES)[0] for precision in ("fp32", "int8")]
    together = TFLiteRunner([files["fp32"], files["int8"]], refinement=None)(picture(), BOXES)[0]
    for mine, first, second in zip(together, *alone, strict=True):
        np.testing.assert_allclose(mine.keypoints, (first.keypoints + second.keypoints) / 2, atol=1e-3)


def test_is_scored_as_a_keras_network_is(files, network, shared_data):
    """Its `test` goes through the evaluation's own path, to the keypoints of Keras."""
    coco = shared_data / "coco"
    annotations = coco / "annotations" / "person_keypoints_val2017.json"
    people = read_coco(annotations, coco / "val2017", COCO_17, for_training=False, progress=False).select(np.arange(12))
    runner, estimator = TFLiteRunner(files["fp32"]), PoseEstimator(network)
    keypoints = []
    for test in (runner.test, estimator.test):
        keypoints.append(predict_instances(test, people, view_batches(test, people, 8), progress=False).keypoints)
    np.testing.assert_allclose(*keypoints, atol=0.01)


def test_what_cannot_be_run_is_refused(files, tmp_path, shared_models):
    with pytest.raises(KposeError, match="cannot read .*gone"):
        TFLiteRunner(tmp_path / "gone.tflite")
    with pytest.raises(KposeError, match="no network given"):
        TFLiteRunner([])
    with pytest.raises(KposeError, match="threads must be at least 1"):
        TFLiteRunner(files["fp32"], threads=0)
    with pytest.raises(KposeError, match="no card of kpose"):
        TFLiteRunner(shared_models / "movenet_lightning_fp16.tflite")
    with pytest.raises(KposeError, match="no trained network named 'gone'"):
        TFLiteRunner.from_pretrained("gone")


def test_a_card_of_another_network_is_refused(files, tmp_path):
    content, path = files["fp32"].read_bytes(), tmp_path / "other.tflite"
    path.write_bytes(attach_card(content, card_of((96, 96)), ""))
    with pytest.raises(KposeError, match=r"has inputs \[\(1, 64, 48, 3\)\].*\[\(1, 96, 96, 3\)\]"):
        TFLiteNetwork(path)
    path.write_bytes(attach_card(content, card_of(skeleton="mpii_16"), ""))
    with pytest.raises(KposeError, match="gives 17 maps, but skeleton 'mpii_16' has 16 joints"):
        TFLiteRunner(path)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_truncated_file_is_refused(files, tmp_path, precision, kept):
    content, path = files[precision].read_bytes(), tmp_path / "short.tflite"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(KposeError) as refusal:
        TFLiteNetwork(path)
    assert "\n" not in str(refusal.value)


def test_from_pretrained_takes_files(files):
    runner = TFLiteRunner.from_pretrained(files["int8"], threads=1, flip=False)
    assert runner.skeleton == COCO_17 and not runner.test.flip
