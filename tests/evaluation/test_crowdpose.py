"""CrowdPose's score: the published steps on real annotations, and constructed cases with known answers."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kpose.errors import KposeError
from kpose.evaluation import coco_ap, crowdpose_ap
from kpose.skeletons import COCO_17, CROWDPOSE_14

NAMES = ("AP", "AP50", "AP75", "AR", "AR50", "AR75")
SPLITS = ("AP_easy", "AP_medium", "AP_hard")


def published_scores(annotations: dict, results: list[dict]) -> dict[str, float]:
    """pycocotools with the published differences: 0.53 times the box as area, CrowdPose's sigmas, splits by crowd index at 0.2 and 0.8."""
    annotations = copy.deepcopy(annotations)
    for person in annotations["annotations"]:
        person["area"] = person["bbox"][3] * person["bbox"][2] * 0.53

    def stats(images: list[int]) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = annotations
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
            evaluation.params.kpt_oks_sigmas = (
                np.array([0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79]) / 10.0
            )
            evaluation.params.imgIds = images
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [value if value >= 0 else math.nan for value in evaluation.stats]

    def split(low: float, high: float) -> float:
        images = [image["id"] for image in annotations["images"] if low <= image["crowdIndex"] < high]
        return stats(images)[0] if images else math.nan

    everything = stats([image["id"] for image in annotations["images"]])
    overall = dict(zip(NAMES, [everything[position] for position in (0, 1, 2, 5, 6, 7)], strict=True))
    return overall | dict(zip(SPLITS, (split(0, 0.2), split(0.2, 0.8), split(0.8, math.inf)), strict=True))


def noisy_results(annotations: dict, noise: float, seed: int = 0) -> list[dict]:
    random = np.random.default_rng(seed)
    results = []
    for person in annotations["annotations"]:
        for _ in range(random.integers(0, 4)):
            keypoints = np.array(person["keypoints"], np.float64).reshape(-1, 3)
            extent = math.sqrt(person["bbox"][2] * person["bbox"][3])
            keypoints[:, :2] += random.normal(size=(14, 2)) * noise * random.random() * extent
            results.append(
                {"image_id": person["image_id"], "category_id": 1, "keypoints": keypoints.ravel().tolist(), "score": random.random()}
            )
    return results


def crowd(crowd_indices=(0.1, 0.5, 0.9), people: int = 6, seed: int = 0) -> dict:
    """Images of that many people close together."""
    random = np.random.default_rng(seed)
    annotations = []
    for image in range(len(crowd_indices)):
        for _ in range(people):
            corner, size = random.uniform(0, 150, 2), random.uniform(60, 120, 2)
            keypoints = np.concatenate([corner + random.random((14, 2)) * size, random.integers(0, 3, (14, 1))], axis=-1)
            keypoints[0, 2] = 2
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": 1,
                    "bbox": [*corner.tolist(), *size.tolist()],
                    "iscrowd": 0,
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                }
            )
    images = [{"id": position + 1, "crowdIndex": index} for position, index in enumerate(crowd_indices)]
    return {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}


def perfect_results(annotations: dict) -> list[dict]:
    return [
        {"image_id": person["image_id"], "category_id": 1, "keypoints": person["keypoints"], "score": 1.0}
        for person in annotations["annotations"]
        if person["num_keypoints"]
    ]


@pytest.fixture
def real_annotations(shared_data) -> dict:
    """Two images of CrowdPose, five people, in its own format."""
    return json.loads((shared_data / "format_samples" / "crowdpose" / "test_crowdpose.json").read_text())


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_equals_the_published_steps_on_real_annotations(real_annotations, noise):
    unchanged = copy.deepcopy(real_annotations)
    results = noisy_results(real_annotations, noise)
    scores = crowdpose_ap(results, real_annotations)
    assert scores == pytest.approx(published_scores(real_annotations, results), abs=1e-12, nan_ok=True)
    # Their crowd indices are 0.33 and 0.39.
    assert scores["AP_medium"] == scores["AP"]
    assert math.isnan(scores["AP_easy"]) and math.isnan(scores["AP_hard"])
    assert real_annotations == unchanged


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_published_steps_in_crowds(seed):
    annotations = crowd((0.0, 0.19, 0.2, 0.5, 0.79, 0.8, 1.0), seed=seed)
    results = noisy_results(annotations, 0.2, seed)
    scores = crowdpose_ap(results, annotations)
    assert scores == pytest.approx(published_scores(annotations, results), abs=1e-12)
    assert len({scores[name] for name in ("AP", *SPLITS)}) == 4


def test_real_annotations_score_one_as_their_own_prediction(real_annotations):
    scores = crowdpose_ap(perfect_results(real_annotations), real_annotations)
    assert [scores[name] for name in (*NAMES, "AP_medium")] == pytest.approx([1.0] * 7)


@pytest.mark.parametrize(
    ("index", "split"),
    [(0.0, "AP_easy"), (0.19, "AP_easy"), (0.2, "AP_medium"), (0.79, "AP_medium"), (0.8, "AP_hard"), (1, "AP_hard")],
)
def test_images_are_split_by_their_crowd_index(index, split):
    annotations = crowd((index,))
    scores = crowdpose_ap(perfect_results(annotations), annotations)
    assert scores[split] == pytest.approx(1)
    assert all(math.isnan(scores[other]) for other in SPLITS if other != split)


def test_each_split_has_a_score_of_its_own():
    annotations = crowd((0.1, 0.5, 0.9))
    results = [result for result in perfect_results(annotations) if result["image_id"] != 2]
    scores = crowdpose_ap(results, annotations)
    assert (scores["AP_easy"], scores["AP_medium"], scores["AP_hard"]) == pytest.approx((1, 0, 1))
    assert scores["AR"] == pytest.approx(2 / 3)


def test_the_area_is_that_of_the_box_whatever_the_annotation_says():
    annotations = crowd((0.5,), people=1)
    person = annotations["annotations"][0]
    keypoints = np.array(person["keypoints"]).reshape(-1, 3)
    person["num_keypoints"] = 14
    keypoints[:, 2] = 2
    person["keypoints"] = keypoints.ravel().tolist()
    moved = keypoints + np.array([6.0, 0.0, 0.0])
    result = {"image_id": 1, "category_id": 1, "keypoints": moved.ravel().tolist(), "score": 1.0}
    area = 0.53 * person["bbox"][2] * person["bbox"][3]
    similarity = np.exp(-(6.0**2) / (2 * np.array(CROWDPOSE_14.oks_sigmas)) ** 2 / area / 2).mean()
    expected = np.mean(np.linspace(0.5, 0.95, 10) <= similarity)
    assert 0 < expected < 1
    for given in (None, 1.0, 1e6):
        person.pop("area", None)
        if given:
            person["area"] = given
        assert crowdpose_ap([result], annotations)["AP"] == pytest.approx(expected)
    assert coco_ap([result], annotations, CROWDPOSE_14)["AP"] == pytest.approx(1), "COCO's score believes the annotation"


def test_only_the_twenty_best_of_an_image_count():
    annotations = crowd((0.5,), people=1)
    good = perfect_results(annotations)[0]
    far = good | {"keypoints": [5000.0] * 42}
    for better, expected in ((19, 1.0), (20, 0.0)):
        scores = crowdpose_ap([far | {"score": 0.9}] * better + [good | {"score": 0.1}], annotations)
        assert scores["AR"] == pytest.approx(expected)


def test_images_may_be_chosen():
    annotations = crowd((0.1, 0.5))
    results = [result for result in perfect_results(annotations) if result["image_id"] == 1]
    assert crowdpose_ap(results, annotations, image_ids=[1])["AP"] == pytest.approx(1)
    assert crowdpose_ap(results, annotations)["AR"] == pytest.approx(0.5)


@pytest.mark.parametrize("value", [None, "0.3", -0.1, 1.5, math.nan, True])
def test_an_image_without_a_crowd_index_is_refused(value):
    annotations = crowd((0.5, value))
    with pytest.raises(KposeError, match=r"annotations: image 2 has crowdIndex .*; is it a CrowdPose file\?"):
        crowdpose_ap(perfect_results(annotations), annotations)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [1.0] * 51}, r"result number 0: 'keypoints': expected 42 numbers .*14 joints.*'crowdpose_14'.*found 51, 17 joints"),
        ({"image_id": 99}, "image 99, which is not in annotations"),
        ({"score": math.nan}, "'score' holds NaN"),
    ],
)
def test_results_that_do_not_fit_are_refused(change, message):
    annotations = crowd()
    with pytest.raises(KposeError, match=message):
        crowdpose_ap([perfect_results(annotations)[0] | change], annotations)


def test_annotations_of_other_joints_are_refused():
    with pytest.raises(KposeError, match=r"annotation 1: 'keypoints': expected 51 numbers .*found 42, 14 joints"):
        crowdpose_ap([], crowd(), COCO_17)
