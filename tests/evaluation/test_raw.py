from __future__ import annotations

import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.evaluation import RawPredictions, read_raw_predictions, write_raw_predictions

COLUMNS = ("scored_images", "image_ids", "box_scores", "keypoints", "joint_scores", "areas")


def columns(people: int = 3, joints: int = 5, images: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "scored_images": np.arange(10, 10 + images),
        "image_ids": 10 + np.arange(people) % images,
        "box_scores": random.random(people).astype(np.float32),
        "keypoints": random.random((people, joints, 3)).astype(np.float32),
        "joint_scores": random.random((people, joints + 1)).astype(np.float32),
        "areas": random.random(people) * 1000,
    }


@pytest.mark.parametrize("people", [0, 3])
def test_comes_back_as_it_was_to_the_last_digit(tmp_path, people):
    written = RawPredictions(**columns(people))
    path = write_raw_predictions(written, tmp_path / "folder" / "predictions.npz")
    read = read_raw_predictions(path)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_ids", np.array([10, 11, 12]), "a person is in image 12, which is none of the scored ones"),
        ("keypoints", np.zeros((2, 5, 3), np.float32), r"keypoints has shape \(2, 5, 3\), expected \(3, any, 3\)"),
        ("keypoints", np.zeros((3, 5, 2), np.float32), r"keypoints has shape \(3, 5, 2\)"),
        ("areas", np.array([1.0, np.nan, 1.0]), "areas holds NaN or infinity"),
        ("box_scores", np.zeros(4, np.float32), r"box_scores has shape \(4,\)"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, name, value, message):
    with pytest.raises(KposeError, match=message):
        RawPredictions(**columns() | {name: value})
    np.savez(tmp_path / "predictions.npz", **columns() | {name: value})
    with pytest.raises(KposeError, match=rf"predictions\.npz: .*{message}"):
        read_raw_predictions(tmp_path / "predictions.npz")


def test_a_missing_file_is_told_with_the_remedy(tmp_path):
    with pytest.raises(KposeError, match=r"there is no .*predictions\.npz; `kpose evaluate` writes it"):
        read_raw_predictions(tmp_path / "predictions.npz")


def test_another_file_is_refused_with_the_remedy(tmp_path):
    np.savez(tmp_path / "predictions.npz", **columns() | {"areas": np.zeros(3, np.float16)})
    with pytest.raises(KposeError, match=r"holds no raw predictions \(areas of <f8 is missing\); evaluate that checkpoint again"):
        read_raw_predictions(tmp_path / "predictions.npz")


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("kpose.evaluation.raw.LARGEST_BYTES", 100)
    write_raw_predictions(RawPredictions(**columns()), tmp_path / "predictions.npz")
    with pytest.raises(KposeError, match="file refused"):
        read_raw_predictions(tmp_path / "predictions.npz")
