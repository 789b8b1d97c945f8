from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kpose import geometry
from kpose.codecs import GaussianCodec
from kpose.data import Instances, Preparation, read_coco
from kpose.data.synthetic import write_synthetic_people
from kpose.inference import Member, PoseTest
from kpose.skeletons import COCO_17


def perfect_test(codec: GaussianCodec) -> PoseTest:
    """A test, without flip, of a network that returns what it is given: the heatmaps of `crops_of_truth`."""
    return PoseTest((Member(lambda heatmaps: heatmaps, Preparation(codec)),), COCO_17, flip=False)


def crops_of_truth(instances: Instances, codec: GaussianCodec, padding: float = 1.25, batch_size: int = 64) -> Iterator[tuple[dict]]:
    """Evaluation batches that hold the annotated heatmaps where a loader gives images: what a perfect network would answer."""
    centers, sizes = geometry.fit_box_to_aspect(instances.boxes, codec.input_size, padding)
    matrices = geometry.crop_matrix(centers, sizes, codec.input_size, alignment=codec.alignment)
    for start in range(0, len(instances), batch_size):
        index = np.arange(start, min(start + batch_size, len(instances)))
        heatmaps, _ = codec.encode(geometry.transform_points(instances.keypoints[index], matrices[index]))
        yield ({"image": heatmaps.numpy(), "matrix": matrices[index], "index": index},)


@pytest.fixture(scope="session")
def coco_val(shared_data) -> Instances:
    """The annotated people of 48 photos of COCO val2017."""
    coco = shared_data / "coco"
    return read_coco(coco / "annotations" / "person_keypoints_val2017.json", coco / "val2017", COCO_17, for_training=False, progress=False)


@pytest.fixture(scope="session")
def coco_val_512(shared_data, tmp_path_factory) -> Instances:
    """The annotated people of 512 photos of COCO val2017; of the photos there is nothing but the name."""
    annotations = shared_data / "coco" / "annotations" / "person_keypoints_val2017_512images.json.gz"
    folder = tmp_path_factory.mktemp("without-photos")
    with gzip.open(annotations) as file:
        for image in json.load(file)["images"]:
            (folder / image["file_name"]).touch()
    return read_coco(annotations, folder, COCO_17, for_training=False, progress=False)


@pytest.fixture(scope="session")
def drawn_people(tmp_path_factory) -> Instances:
    """The people of 24 drawn photos."""
    folder = tmp_path_factory.mktemp("drawn-people")
    drawn = write_synthetic_people(folder, 24, split="val2017", image_size=(240, 240), processes=1, progress=False)
    return read_coco(drawn.annotation_file, drawn.image_folder, COCO_17, for_training=False, progress=False)


@pytest.fixture
def small_coco(tmp_path) -> Path:
    """A COCO-style folder: two people in one grey photo, none in another; `truth.json`, `detections.json` and `images`."""
    import cv2

    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((240, 320, 3), 128, np.uint8))
    people = []
    for number, left in ((1, 20.0), (2, 180.0)):
        keypoints = np.stack([np.linspace(left + 10, left + 90, 17), np.linspace(30, 210, 17), np.full(17, 2.0)], axis=-1)
        people.append(
            {"id": number, "image_id": 1, "category_id": 1, "bbox": [left, 20.0, 100.0, 200.0], "area": 12000.0, "iscrowd": 0}
            | {"keypoints": keypoints.ravel().tolist(), "num_keypoints": 17}
        )
    images = [{"id": number, "file_name": name, "height": 240, "width": 320} for number, name in ((1, "a.jpg"), (2, "b.jpg"))]
    category = {"id": 1, "name": "person", "keypoints": list(COCO_17.joint_names)}
    (tmp_path / "truth.json").write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    boxes = [(1, [20.0, 20.0, 100.0, 200.0], 0.9), (1, [21.0, 21.0, 100.0, 199.0], 0.8), (1, [180.0, 20.0, 100.0, 200.0], 0.7)]
    detections = [{"image_id": image, "category_id": 1, "bbox": box, "score": score} for image, box, score in boxes]
    (tmp_path / "detections.json").write_text(json.dumps(detections))
    return tmp_path
