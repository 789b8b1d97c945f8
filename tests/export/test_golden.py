"""The files in tflite/golden are what the Python code gives today."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.export.golden import (
    CASES,
    DECODINGS,
    PHOTO_SIZES,
    REFUSED_BOXES,
    GoldenNetwork,
    make_golden_vectors,
    pack_crop,
    pack_heatmaps,
    read_index,
    read_photo,
    unpack_heatmaps,
)
from kpose.inference.predictor import check_boxes
from kpose.weights.pretrained import DEFAULT, list_pretrained

BY_NAME = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "tflite" / "golden"


@pytest.fixture(scope="module")
def index(folder):
    return read_index(folder)


@pytest.fixture(scope="module")
def network(repository, index):
    """The network that the heatmaps are of."""
    name, sha256 = index[""]["network"]
    candidates = [repository / "kpose" / "weights" / "released" / name]
    for path in candidates:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return GoldenNetwork(path)
    pytest.skip(f"needs {name}, the network that the golden heatmaps are of")


def numbers(words) -> np.ndarray:
    return np.array(words, np.float64)


def stored_heatmaps(folder, case, joints: int) -> np.ndarray:
    return unpack_heatmaps(np.fromfile(folder / f"{case.name}.heatmaps", "<i2").reshape(*case.heatmap_size, joints))


def test_the_folder_is_small_and_complete(folder, index):
    files = {path.name for path in folder.iterdir()}
    expected = {f"{case.name}{ending}" for case in CASES for ending in (".crop", ".heatmaps")}
    assert files == expected | {f"{name}.rgb" for name in PHOTO_SIZES} | {"golden.txt", "README.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
    assert [name for name in index if name] == [case.name for case in CASES]


@BY_NAME
def test_photo_and_box_give_the_map_and_the_crop(folder, index, case):
    lines = index[case.name]
    assert lines["box"] == [f"{value:g}" for value in case.box] and lines["alignment"] == [case.alignment]
    np.testing.assert_allclose(case.matrix.ravel(), numbers(lines["affine"]), rtol=1e-8, atol=1e-8)
    height, width = -(-case.input_size[0] // 3), -(-case.input_size[1] // 3)
    stored = np.fromfile(folder / f"{case.name}.crop", "<u2").reshape(height, width, 3)
    found = pack_crop(case.crop(read_photo(folder, case.photo)))
    assert np.abs(found.astype(int) - stored).max() <= 8  # 256ths of a grey level: the sum's order may differ from machine to machine


@BY_NAME
@pytest.mark.parametrize("decoding", DECODINGS)
def test_heatmaps_give_the_keypoints(folder, index, case, decoding):
    joints = int(index[""]["joints"][0])
    expected = numbers(index[case.name][decoding]).reshape(joints, 3)
    np.testing.assert_allclose(case.keypoints(stored_heatmaps(folder, case, joints), decoding), expected, atol=1e-3)


def test_the_network_gives_the_heatmaps(folder, index, network):
    for case in CASES:
        if case.source == "network":
            found = network.heatmaps(case.crop(read_photo(folder, case.photo)))
            np.testing.assert_allclose(found, stored_heatmaps(folder, case, found.shape[-1]), atol=1e-3)


def test_the_network_is_the_one_that_comes_with_kpose(index):
    if DEFAULT not in list_pretrained():
        pytest.skip(f"{DEFAULT} is not released yet")
    assert index[""]["network"] == [f"{DEFAULT}.keras", GoldenNetwork(DEFAULT).sha256], "run scripts/make_golden_vectors.py"


def test_drawn_heatmaps_tell_decoders_apart(folder, index):
    """Each decoding moves joints that another leaves, so that none can stand in for another."""
    joints = int(index[""]["joints"][0])
    for case in CASES:
        if case.source == "drawn":
            argmax, quarter, dark = (numbers(index[case.name][decoding]).reshape(joints, 3)[:, :2] for decoding in DECODINGS)
            moved_by_quarter, moved_by_dark = (np.abs(found - argmax).max(axis=1) > 0.01 for found in (quarter, dark))
            assert (moved_by_quarter & moved_by_dark).sum() >= 4 and (moved_by_quarter & ~moved_by_dark).sum() >= 1
            assert (~moved_by_quarter & ~moved_by_dark).sum() >= 4


def test_the_refused_boxes_are_refused(index):
    for name, box in REFUSED_BOXES.items():
        photo, width, height, *written = index[""][f"refused {name}"]
        np.testing.assert_array_equal(numbers(written), box)
        with pytest.raises(KposeError):
            check_boxes([box], (int(height), int(width)), photo)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(KposeError, match="case a hold values beyond 2"):
        pack_heatmaps(np.full((4, 3, 1), 2.5, np.float32), "a")
    with pytest.raises(KposeError, match="case a hold values beyond 2 or not finite"):
        pack_heatmaps(np.full((4, 3, 1), np.nan, np.float32), "a")
    with pytest.raises(KposeError, match="cannot read .*camera.rgb"):
        read_photo(tmp_path, "camera")
    (tmp_path / "camera.rgb").write_bytes(b"12")
    with pytest.raises(KposeError, match="has 2 bytes, expected 128 x 128 x 3"):
        read_photo(tmp_path, "camera")
    with pytest.raises(KposeError, match="there is no checkpoint"):
        make_golden_vectors(tmp_path / "gone.keras", tmp_path)
