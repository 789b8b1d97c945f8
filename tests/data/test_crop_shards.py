"""Crop shards: what is written comes back, fits the photos, and nothing damaged is taken for good."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpose import geometry
from kpose.config import Config, parse_config
from kpose.data import crop_shards
from kpose.data.crop_shards import MANIFEST, CropShards, describe, jpeg_decoder, read_crop_shards, regions, write_crop_shards
from kpose.data.datasets import training_instances
from kpose.errors import KposeError


@pytest.fixture
def config(make_dataset: Any, tmp_path: Path, cross: Any) -> Config:
    """Six people of 150 pixels and more in small JPEGs (share 3), four in PNGs (share 1)."""
    skeleton = tmp_path / "cross.yaml"
    skeleton.write_text(json.dumps(cross.to_dict()))
    entries = []
    for name, extension, images, weight in (("first", "jpg", 6, 3), ("second", "png", 4, 1)):
        annotations, folder = make_dataset(images, extension, name=name)
        entries.append({"name": name, "annotations": str(annotations), "images": str(folder), "weight": weight})
    return parse_config({"skeleton": str(skeleton), "model": {"input_size": [64, 48]}, "data": {"train": entries}})


@pytest.fixture
def folder(config: Config, tmp_path: Path) -> Path:
    write_crop_shards(config, tmp_path / "crops")
    return tmp_path / "crops"


def test_people_come_back_in_the_frame_of_their_region(config: Config, folder: Path) -> None:
    crops, people = read_crop_shards(folder), training_instances(config)
    assert [(entry.name, entry.people, entry.weight) for entry in crops.datasets] == [("first", 6, 3.0), ("second", 4, 1.0)]
    assert crops.settings == config.model_dump(mode="json")
    assert describe(crops) == "10 people: 6 of first (75.0%), 4 of second (25.0%)"
    sizes = people.image_sizes[people.image_index]
    offset = regions(people.boxes, sizes, (64, 48), 1.25)[:, :2]
    np.testing.assert_allclose(crops.keypoints[..., :2], people.keypoints[..., :2] - offset[:, None], atol=1e-4)
    np.testing.assert_array_equal(crops.keypoints[..., 2], people.keypoints[..., 2])
    np.testing.assert_allclose(crops.boxes[:, :2], people.boxes[:, :2] - offset, atol=1e-4)
    np.testing.assert_array_equal(crops.boxes[:, 2:], people.boxes[:, 2:])


def test_a_joint_is_where_it_was_also_in_shrunk_crops(config: Config, tmp_path: Path, cross: Any) -> None:
    crops = write_crop_shards(config, tmp_path / "crops", side=90)
    pixels = crops.decode()
    assert (crops.sizes.max(axis=1) == 90).all()
    assert (crops.shrink < 1).all()
    for person, keypoints in enumerate(crops.keypoints):
        x, y = ((keypoints[:, :2] + 0.5) * crops.shrink[person] - 0.5).round().astype(int).T
        found = pixels.picture(person)[y, x]
        # The colour of the dot of each joint, see conftest.py.
        expected = np.array([(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])
        assert np.abs(found.astype(int) - expected).max() < 90  # JPEG blurs colours; a wrong place is black or of another colour


def test_a_whole_small_photo_is_stored_as_its_own_file(config: Config, folder: Path) -> None:
    crops, people = read_crop_shards(folder), training_instances(config)
    for person in range(6):
        content = crops.jpegs[crops.shard[person]][crops.begin[person] : crops.end[person]]
        assert content.tobytes() == Path(people.image_files[people.image_index[person]]).read_bytes()


@given(
    box=st.tuples(*[st.floats(-50, 400)] * 2, *[st.floats(1, 400)] * 2),
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    turn=st.floats(-180, 180),
)
def test_a_region_lies_in_the_photo_and_shows_what_an_upright_crop_shows(
    box: tuple[float, ...], size: tuple[int, int], turn: float
) -> None:
    boxes, sizes = np.array([box]), np.array([size])
    x, y, width, height = regions(boxes, sizes, (64, 48), 1.25)[0]
    assert min(x, y) >= 0 and x + max(width, 0) <= max(size[1], x) and y + max(height, 0) <= max(size[0], y)
    # A crop of scale 1.25, however it is turned, asks for nothing of the photo beyond: its diagonal is 1.25 times its height.
    center, extent = geometry.fit_box_to_aspect(boxes, (64, 48), 1.25 * 1.25)
    matrix = geometry.crop_matrix(center, extent, (64, 48), turn)[0]
    corners = geometry.transform_points(np.array([[0.0, 0], [47, 0], [0, 63], [47, 63]]), geometry.invert_affine(matrix))
    inside = (corners >= 0).all(axis=1) & (corners <= np.array(size[::-1]) - 1).all(axis=1)
    assert (corners[inside] >= [x, y]).all() and (corners[inside] <= [x + width - 1, y + height - 1]).all()


def test_shards_are_no_larger_than_asked(config: Config, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 500, 3), np.uint8)
    for entry in config.data.train:
        for path in Path(str(entry.images)).iterdir():
            cv2.imwrite(str(path), noise)
    crops = write_crop_shards(config, tmp_path / "crops", quality=100, shard_bytes=250_000)
    sizes = [path.stat().st_size for path in (tmp_path / "crops").glob("*.npz")]
    assert len(sizes) > 1 and max(sizes) <= 250_000
    assert len(crops) == 10


@pytest.mark.parametrize("hidden", [(), ("cv2",), ("cv2", "PIL")], ids=["opencv", "pillow", "torchvision"])
def test_decoders_agree(hidden: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if len(hidden) == 2:
        pytest.importorskip("torchvision", reason="needs torchvision")
    crops = read_crop_shards(folder)
    expected = crops.decode(threads=2)
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    found = crops.decode(threads=2)
    assert np.abs(found.pixels.astype(int) - expected.pixels.astype(int)).max() <= 4
    assert jpeg_decoder()(np.frombuffer(b"\xff\xd8\xffno picture", np.uint8)) is None


def test_without_any_decoder_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cv2", "PIL", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(KposeError, match="install opencv-python-headless, pillow or torchvision"):
        jpeg_decoder()


def test_broken_pictures_are_left_out_and_counted(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted(Path(str(config.data.train[0].images)).iterdir())[:2]
    first.write_bytes(b"no picture")
    second.write_bytes(b"")
    assert len(write_crop_shards(config, tmp_path / "crops")) == 8
    assert "2 left out because their picture cannot be read" in capsys.readouterr().out


def test_repeated_datasets_have_their_share(config: Config, tmp_path: Path) -> None:
    values = config.model_dump(mode="json")
    for entry, repeat in zip(values["data"]["train"], (1, 3), strict=True):
        entry |= {"weight": None, "repeat": repeat}
    crops = write_crop_shards(parse_config(values), tmp_path / "crops")
    assert [(entry.people, entry.weight) for entry in crops.datasets] == [(6, 6.0), (4, 12.0)]


def test_a_folder_is_not_written_twice(config: Config, folder: Path) -> None:
    with pytest.raises(KposeError, match="already holds crops"):
        write_crop_shards(config, folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"side": 8}, "side is 8"), ({"quality": 101}, "quality is 101"), ({"shard_bytes": 1 << 30}, "64 KiB to 60 MiB")],
)
def test_settings_out_of_range_are_refused(config: Config, tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(KposeError, match=message):
        write_crop_shards(config, tmp_path / "crops", **settings)
    assert not (tmp_path / "crops").exists()


def change_manifest(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | values))


def shard_entry(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change_manifest(folder, shards=[manifest["shards"][0] | values])


DAMAGE = {
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "crops.json is missing"),
    "other format": (lambda folder: change_manifest(folder, format="kpose crops 99"), "no manifest of the format"),
    "no skeleton": (lambda folder: change_manifest(folder, skeleton=None), "damaged"),
    "share": (lambda folder: change_manifest(folder, datasets=[{"name": "a", "people": 10, "weight": -1}]), "a share that is none"),
    "path": (lambda folder: shard_entry(folder, file="../crops/crops-000.npz"), "no .npz file of its folder"),
    "missing": (lambda folder: (folder / "crops-000.npz").unlink(), "is missing"),
    "cut off": (lambda folder: (folder / "crops-000.npz").write_bytes((folder / "crops-000.npz").read_bytes()[:-9]), "SHA-256"),
    "counts": (lambda folder: shard_entry(folder, people=9), "other columns than a shard of 9 people"),
    "too large": (lambda folder: None, "larger than 0 MiB"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folders_are_refused_in_one_line(damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, message = DAMAGE[damage]
    spoil(folder)
    if damage == "too large":
        monkeypatch.setattr(crop_shards, "LARGEST_SHARD_BYTES", 1000)
    with pytest.raises(KposeError, match=message) as error:
        read_crop_shards(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [("offsets", 10**9), ("sizes", 0), ("sizes", 10**6), ("dataset", 2), ("dataset", -1), ("shrink", 0.0), ("boxes", np.nan)],
)
def test_values_out_of_range_are_refused(column: str, value: float, folder: Path) -> None:
    path = folder / "crops-000.npz"
    with np.load(path) as shard:
        columns = dict(shard)
    columns[column].reshape(-1)[3] = value
    np.savez(path, **columns)
    shard_entry(folder, sha256=crop_shards.hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(KposeError, match="values out of range"):
        read_crop_shards(folder)


def test_a_picture_of_another_size_than_it_claims_is_refused(folder: Path) -> None:
    path = folder / "crops-000.npz"
    with np.load(path) as shard:
        columns = dict(shard)
    columns["sizes"][3, 0] += 1
    np.savez(path, **columns)
    shard_entry(folder, sha256=crop_shards.hashlib.sha256(path.read_bytes()).hexdigest())
    crops: CropShards = read_crop_shards(folder)
    with pytest.raises(KposeError, match="the crop of person 3 is damaged"):
        crops.decode()
