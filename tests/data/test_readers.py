from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kpose.config import DatasetConfig
from kpose.data import read_dataset
from kpose.data.readers import FORMAT_SKELETONS, dataset_skeleton
from kpose.errors import KposeError
from kpose.skeletons import COCO_17, LSP_14, Skeleton

Make = Callable[..., tuple[Path, Path]]

# People whom each format has among the real samples: annotation, pictures, how many.
SAMPLES = {
    "coco": ("coco/annotations/person_keypoints_val2017.json", "coco/val2017", 153),
    "mpii": ("format_samples/mpii/test_mpii.json", "format_samples/mpii", 5),
    "lspet": ("lspet/joints.mat", "lspet/images", 9500),
    "aic": ("format_samples/aic/test_aic.json", "format_samples/aic", 9),
    "crowdpose": ("format_samples/crowdpose/test_crowdpose.json", "format_samples/crowdpose", 4),
}


@pytest.mark.parametrize("form", SAMPLES)
@pytest.mark.parametrize("for_training", [True, False])
def test_every_format_is_read_in_its_own_joints(shared_data: Path, form: Any, for_training: bool) -> None:
    annotations, images, people = SAMPLES[form]
    dataset = DatasetConfig(format=form, annotations=shared_data / annotations, images=shared_data / images)
    found = read_dataset(dataset, COCO_17, for_training)
    assert len(found) == people
    assert found.skeleton == FORMAT_SKELETONS.get(form, COCO_17)
    assert np.isfinite(found.boxes).all() and (found.boxes[:, 2:] > 0).all()


def test_some_people_of_a_dataset(shared_data: Path) -> None:
    annotations, images, _ = SAMPLES["lspet"]
    dataset = DatasetConfig(format="lspet", annotations=shared_data / annotations, images=shared_data / images, people=(9000, 9500))
    assert read_dataset(dataset, COCO_17, for_training=False).ids.tolist() == list(range(9001, 9501))


def test_coco_takes_its_own_skeleton_or_that_of_the_experiment(make_dataset: Make, cross: Skeleton, tmp_path: Path) -> None:
    annotations, images = make_dataset()
    path = tmp_path / "cross.yaml"
    path.write_text(json.dumps(cross.to_dict()))
    assert read_dataset(DatasetConfig(annotations=annotations, images=images), cross, for_training=True).skeleton is cross
    own = DatasetConfig(annotations=annotations, images=images, skeleton=str(path))
    assert read_dataset(own, COCO_17, for_training=True).skeleton == cross


def test_the_joints_of_a_format_cannot_be_others() -> None:
    assert dataset_skeleton(DatasetConfig(format="lspet", skeleton="lsp_14"), COCO_17) == LSP_14
    with pytest.raises(KposeError, match="the joints of 'aic_14', not of 'lsp_14'; leave out their 'skeleton'"):
        dataset_skeleton(DatasetConfig(format="aic", skeleton="lsp_14"), COCO_17)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"format": "lsp", "detections": "boxes.json"},
            "'detections' does not apply to datasets of format 'lsp' (to coco and crowd",
        ),
        ({"format": "mpii", "include": {"take": [1]}}, "'include' does not apply to datasets of format 'mpii'"),
        ({"format": "aic", "minimum_box_score": 0.5}, "'minimum_box_score' does not apply to datasets of format 'aic'"),
        ({"format": "coco", "head_boxes": "gt_valid.mat"}, "'head_boxes' does not apply to datasets of format 'coco' (to mpii alone)"),
        ({"format": "coco", "records": "x-*.tfrecord"}, "'records' does not apply to datasets of format 'coco' (to tfrecord alone)"),
        ({"format": "crowdpose", "annotations": "x.json"}, "a dataset of format 'crowdpose' needs 'images'"),
        ({"format": "lspet", "images": "images"}, "a dataset of format 'lspet' needs 'annotations'"),
        ({"format": "tfrecord", "records": "x-*.tfrecord"}, "a dataset of format 'tfrecord' has no annotation of people to read"),
    ],
)
def test_settings_that_do_not_fit_the_format_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(KposeError) as error:
        read_dataset(DatasetConfig(**settings), COCO_17, for_training=False)
    assert message in str(error.value)


def test_detections_in_training_are_refused(make_dataset: Make, cross: Skeleton) -> None:
    annotations, images = make_dataset()
    dataset = DatasetConfig(annotations=annotations, images=images, detections=Path("boxes.json"))
    with pytest.raises(KposeError, match="boxes.json: detections carry no keypoints"):
        read_dataset(dataset, cross, for_training=True)


def test_an_empty_dataset_is_refused_with_its_reasons(make_dataset: Make, cross: Skeleton) -> None:
    def change(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["num_keypoints"] = 0

    annotations, images = make_dataset(change=change)
    with pytest.raises(KposeError, match=r"people.json has no usable person \(6 people left out: no keypoint is annotated\)"):
        read_dataset(DatasetConfig(annotations=annotations, images=images), cross, for_training=True)
