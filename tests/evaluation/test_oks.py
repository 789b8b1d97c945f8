"""The fast matching against pycocotools' own: equal to the last digit, in every table that the score is read from."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kpose.benchmark.scoring import synthetic_results
from kpose.evaluation import oks
from kpose.evaluation.coco import read_for_oks
from kpose.skeletons import COCO_17

TABLES = ("precision", "recall", "scores")


def official(annotations: dict, results: list[dict], image_ids: list[int] | None = None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def ours(annotations: dict, results: list[dict], image_ids: list[int] | None = None) -> oks.OksEvaluation:
    truth, found, images = read_for_oks(results, annotations, COCO_17, image_ids)
    evaluation = oks.OksEvaluation(truth.people, found, np.array(COCO_17.oks_sigmas), images)
    evaluation.run()
    return evaluation


def assert_equal(annotations: dict, results: list[dict], image_ids: list[int] | None = None) -> COCOeval:
    expected, found = official(annotations, results, image_ids), ours(annotations, results, image_ids)
    for table in TABLES:
        np.testing.assert_array_equal(found.eval[table], expected.eval[table], err_msg=table)
    np.testing.assert_array_equal(found.stats, expected.stats)
    return expected


def scene(seed: int) -> tuple[dict, list[dict]]:
    """Whatever an evaluation may meet: crowds, people without keypoints, twins, equal scores, many results, nobody."""
    random = np.random.default_rng(seed)
    people, results = [], []
    images = int(random.integers(1, 7))

    def add_result(image: int, keypoints: np.ndarray) -> None:
        score = float(random.choice([0.1, 0.5, 0.9, random.random()]))
        results.append({"image_id": image, "category_id": 1, "keypoints": keypoints.ravel().tolist(), "score": score})

    for image in range(images):
        for _ in range(random.integers(0, 7)):
            size = float(random.choice([20, 60, 150, 400]))
            corner = random.uniform(0, 300, 2)
            keypoints = np.zeros((17, 3))
            keypoints[:, :2] = (corner + random.uniform(0, size, (17, 2))).round(int(random.choice([0, 2])))
            keypoints[:, 2] = random.choice([0, 1, 2], 17, p=[0.3, 0.2, 0.5])
            if random.random() < 0.2:
                keypoints[:, 2] = 0
            keypoints[keypoints[:, 2] == 0] = 0
            person = {
                "id": len(people) + 1,
                "image_id": image,
                "category_id": 1,
                "bbox": [*corner.tolist(), size, 1.5 * size],
                "area": size * size * float(random.uniform(0.3, 1)),
                "iscrowd": int(random.random() < 0.15),
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": int((keypoints[:, 2] > 0).sum() * (random.random() > 0.1)),
            }
            people.append(person)
            if random.random() < 0.15:
                people.append(person | {"id": len(people) + 1})
            for _ in range(random.choice([0, 1, 2, 5, 9])):
                noise = random.normal(size=(17, 2)) * size * random.choice([0, 0.02, 0.05, 0.1, 0.3])
                add_result(image, keypoints + np.pad(noise, ((0, 0), (0, 1))))
        for _ in range(random.integers(0, 3)):
            add_result(image, random.uniform(0, 500, (17, 3)))
    # At least one of both.
    standing = np.stack([np.linspace(0, 90, 17), np.linspace(0, 190, 17), np.full(17, 2)], axis=-1)
    person = {"id": len(people) + 1, "image_id": 0, "category_id": 1, "bbox": [0.0, 0.0, 90.0, 190.0], "area": 9000.0, "iscrowd": 0}
    people.append(person | {"keypoints": standing.ravel().tolist(), "num_keypoints": 17})
    add_result(0, standing)
    shuffled = [results[position] for position in random.permutation(len(results))]
    return {"images": [{"id": image} for image in range(images)], "annotations": people, "categories": [{"id": 1}]}, shuffled


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_equals_pycocotools_whatever_it_meets(seed):
    assert_equal(*scene(seed))


def test_equals_pycocotools_on_real_annotations_with_many_results(shared_data):
    with gzip.open(shared_data / "coco" / "annotations" / "person_keypoints_val2017_512images.json.gz") as file:
        annotations = json.load(file)
    # More images than are matched at once, crowds and people without keypoints among them.
    images = {image["id"] for image in annotations["images"][: oks._IMAGES_AT_ONCE + 10]}
    annotations["images"] = [image for image in annotations["images"] if image["id"] in images]
    annotations["annotations"] = [person for person in annotations["annotations"] if person["image_id"] in images]
    assert any(person["iscrowd"] for person in annotations["annotations"])
    assert any(not person["num_keypoints"] for person in annotations["annotations"])
    expected = assert_equal(annotations, synthetic_results(annotations, 22))
    assert 0.05 < expected.stats[0] < 0.95
    some = sorted(images)[::3]
    assert_equal(annotations, synthetic_results(annotations, 3), some)


@pytest.mark.parametrize("at_once", [1, 5])
def test_how_many_are_taken_at_once_does_not_matter(monkeypatch, at_once):
    annotations, results = scene(12)
    expected = ours(annotations, results)
    monkeypatch.setattr(oks, "_IMAGES_AT_ONCE", at_once)
    monkeypatch.setattr(oks, "_PAIRS_AT_ONCE", at_once)
    found = ours(annotations, results)
    for table in TABLES:
        np.testing.assert_array_equal(found.eval[table], expected.eval[table])
