from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kpose.errors import KposeError
from kpose.evaluation import coco_ap, coco_results, write_results
from kpose.skeletons import COCO_17, CROWDPOSE_14, MPII_16

NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def official_scores(annotations: dict, results: list[dict]) -> dict[str, float]:
    truth = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats.tolist(), strict=True))


def noisy_results(annotations: dict, noise: float, seed: int = 0) -> list[dict]:
    """People of the annotations with their joints moved, some twice, some missed, with random scores."""
    random = np.random.default_rng(seed)
    results = []
    for person in annotations["annotations"]:
        if not person["num_keypoints"]:
            continue
        for _ in range(random.choice([0, 1, 1, 1, 2])):
            keypoints = np.array(person["keypoints"], np.float64).reshape(-1, 3)
            keypoints[:, :2] += random.normal(size=(len(keypoints), 2)) * noise * random.random() * math.sqrt(person["area"])
            results.append(
                {"image_id": person["image_id"], "category_id": 1, "keypoints": keypoints.ravel().tolist(), "score": random.random()}
            )
    return results


def small_truth(joints: int = 17, **person) -> dict:
    keypoints = np.stack([np.linspace(110, 290, joints), np.linspace(120, 380, joints), np.full(joints, 2)], axis=-1)
    annotation = {"id": 7, "image_id": 5, "category_id": 1, "bbox": [100, 100, 200, 300], "area": 30000.0, "iscrowd": 0}
    annotation |= {"keypoints": keypoints.ravel().tolist(), "num_keypoints": joints} | person
    return {"images": [{"id": 5}, {"id": 6}], "categories": [{"id": 1, "name": "person"}], "annotations": [annotation]}


def perfect_result(truth: dict, **changes) -> dict:
    person = truth["annotations"][0]
    return {"image_id": 5, "category_id": 1, "keypoints": person["keypoints"], "score": 1.0} | changes


@pytest.fixture(scope="module")
def official_annotations(shared_data) -> dict:
    with gzip.open(shared_data / "coco" / "annotations" / "person_keypoints_val2017_512images.json.gz") as file:
        annotations = json.load(file)
    images = {image["id"] for image in annotations["images"][:150]}
    return annotations | {
        "images": [image for image in annotations["images"] if image["id"] in images],
        "annotations": [person for person in annotations["annotations"] if person["image_id"] in images],
    }


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
def test_equals_the_official_evaluation_of_every_area_range(official_annotations, noise):
    results = noisy_results(official_annotations, noise)
    unchanged = copy.deepcopy(official_annotations)
    ours = coco_ap(results, official_annotations)
    assert ours == pytest.approx(official_scores(official_annotations, results), abs=1e-12)
    assert 0.01 < ours["AP"] < 0.99
    assert ours["APM"] != ours["APL"]
    assert official_annotations == unchanged


def test_reads_plain_and_compressed_files(official_annotations, tmp_path):
    results = noisy_results(official_annotations, 0.05)
    truth_file, results_file = tmp_path / "truth.json.gz", tmp_path / "deep" / "results.json"
    with gzip.open(truth_file, "wt") as file:
        json.dump(official_annotations, file)
    write_results(results, results_file)
    assert coco_ap(results_file, truth_file) == coco_ap(results, official_annotations)


def test_scores_chosen_images_alone(official_annotations):
    results = noisy_results(official_annotations, 0.1)
    chosen = {image["id"] for image in official_annotations["images"][::2]}
    part = official_annotations | {
        "images": [image for image in official_annotations["images"] if image["id"] in chosen],
        "annotations": [person for person in official_annotations["annotations"] if person["image_id"] in chosen],
    }
    expected = official_scores(part, [result for result in results if result["image_id"] in chosen])
    assert coco_ap(results, official_annotations, image_ids=np.array(sorted(chosen))) == pytest.approx(expected, abs=1e-12)


def test_prints_nothing(capsys):
    truth = small_truth()
    coco_ap([perfect_result(truth)], truth)
    assert capsys.readouterr() == ("", "")


def test_sizes_of_which_there_is_nobody_are_nan():
    truth = small_truth()
    scores = coco_ap([perfect_result(truth)], truth)
    assert [scores["AP"], scores["APL"], scores["AR"]] == pytest.approx([1, 1, 1])
    assert math.isnan(scores["APM"])
    assert math.isnan(scores["ARM"])


def test_no_result_scores_zero_with_a_warning():
    with pytest.warns(UserWarning, match="no result to score"):
        scores = coco_ap([], small_truth())
    assert scores["AP"] == scores["AR"] == 0.0


@pytest.mark.parametrize("number", [0, 1])
def test_any_annotation_number_can_be_matched(number):
    truth = small_truth(id=number)
    assert coco_ap([perfect_result(truth)], truth)["AP"] == pytest.approx(1)


def test_a_missing_area_is_taken_from_the_box():
    truth = small_truth()
    del truth["annotations"][0]["area"]
    del truth["annotations"][0]["num_keypoints"]
    assert coco_ap([perfect_result(truth)], truth)["APL"] == pytest.approx(1)


def test_any_skeleton_with_sigmas_is_scored_by_them():
    truth = small_truth(joints=14)
    keypoints = np.array(truth["annotations"][0]["keypoints"]).reshape(-1, 3)
    keypoints[:, 0] += 20.0
    similarity = np.exp(-(20.0**2) / (2 * np.array(CROWDPOSE_14.oks_sigmas)) ** 2 / 30000.0 / 2).mean()
    scores = coco_ap([perfect_result(truth, keypoints=keypoints.ravel().tolist())], truth, CROWDPOSE_14)
    assert scores["AP"] == pytest.approx(np.mean(np.arange(0.5, 1.0, 0.05) <= similarity))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": [1.0] * 42}, r"result number 0: 'keypoints': expected 51 numbers .*17 joints.*'coco_17'.*found 42, 14 joints"),
        ({"keypoints": None}, "'keypoints': expected 51 numbers .*found NoneType"),
        ({"keypoints": [float("nan")] * 51}, "NaN or infinity"),
        ({"keypoints": ["left"] * 51}, "expected numbers"),
        ({"score": None}, "'score': expected a number"),
        ({"score": float("inf")}, "NaN or infinity"),
        ({"image_id": 99}, "image 99, which is not in annotations"),
        ({"image_id": [5]}, r"image \[5\], which is not in annotations"),
        ({"category_id": 2}, "category 2, but people are category 1"),
    ],
)
def test_results_that_do_not_fit_are_refused_in_one_line(changes, message):
    truth = small_truth()
    with pytest.raises(KposeError, match=message) as refusal:
        coco_ap([perfect_result(truth, **changes)], truth)
    assert "\n" not in str(refusal.value)


def test_the_one_of_many_that_does_not_fit_is_named():
    truth = small_truth()
    results = [perfect_result(truth) for _ in range(50)]
    results[37] = perfect_result(truth, keypoints=[1.0] * 48)
    with pytest.raises(KposeError, match=r"result number 37: 'keypoints': expected 51 numbers .*found 48, 16 joints"):
        coco_ap(results, truth)


def test_a_box_beside_the_keypoints_is_not_looked_at():
    truth = small_truth()
    far = perfect_result(truth, keypoints=[float(value) for value in range(51)], score=0.5)
    expected = coco_ap([perfect_result(truth), far], truth)
    assert coco_ap([perfect_result(truth, bbox=[0, 0, 1, 1]), far | {"bbox": [0, 0, 1e4, 1e4]}], truth) == pytest.approx(
        expected, nan_ok=True
    )


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({}, "no list 'images'"),
        (small_truth() | {"images": [{"id": 2**63}]}, "an entry of 'images' is no mapping with an integer 'id'"),
        (small_truth(num_keypoints=0), "no person with keypoints in the 2 images"),
        (small_truth(iscrowd=1), "no person with keypoints"),
        (small_truth(joints=14), "annotation 7: 'keypoints': expected 51 numbers .*found 42, 14 joints"),
        (small_truth(image_id=8), "annotation 7 belongs to image 8, which is not listed"),
        (small_truth(bbox=[0, 0, float("nan"), 1]), "'bbox' holds NaN"),
        (small_truth(num_keypoints="many"), "annotation 7: 'num_keypoints': expected a number"),
        (small_truth(num_keypoints=0, keypoints=None), "no person with keypoints in the 2 images"),
        (small_truth() | {"categories": []}, "no list 'categories'"),
        (small_truth() | {"categories": [{"id": 1, "keypoints": ["nose"]}, {"id": 2, "keypoints": ["nose"]}]}, "2 categories"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(truth, message):
    with pytest.raises(KposeError, match=message):
        coco_ap([], truth)


def test_a_skeleton_without_sigmas_is_refused_with_the_remedy():
    with pytest.raises(KposeError, match=r"'mpii_16' has no 'oks_sigmas'.*add one number per joint"):
        coco_ap([], small_truth(), MPII_16)


def test_unknown_image_numbers_are_refused():
    with pytest.raises(KposeError, match="image 77 is not in annotations"):
        coco_ap([], small_truth(), image_ids=[5, 77])


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"{}", b"\xff\xfe"])
def test_a_damaged_result_file_is_refused(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(KposeError, match="results.json"):
        coco_ap(path, small_truth())


def test_a_truncated_compressed_file_is_refused(tmp_path):
    path = tmp_path / "truth.json.gz"
    path.write_bytes(gzip.compress(json.dumps(small_truth()).encode())[:60])
    with pytest.raises(KposeError, match="cannot read"):
        coco_ap([], path)


def test_a_failed_write_leaves_the_former_results(tmp_path):
    path = write_results([{"image_id": 1}], tmp_path / "results.json")
    with pytest.raises(ValueError, match="JSON"):
        write_results([{"score": float("nan")}], path)
    assert json.loads(path.read_text()) == [{"image_id": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_result_list_has_the_official_form():
    keypoints = np.arange(2 * 17 * 3, dtype=np.float32).reshape(2, 17, 3) / 3
    first, second = coco_results(np.array([5, 6]), keypoints, np.array([0.5, 0.25], np.float32))
    assert first["image_id"] == 5
    assert (second["category_id"], second["score"]) == (1, 0.25)
    assert second["keypoints"] == pytest.approx(keypoints[1].ravel().tolist(), abs=5e-4)
    json.dumps([first, second])
    assert len(first["keypoints"]) == 3 * COCO_17.num_joints
