"""Every dataset under its own protocol."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from kpose.config import DatasetConfig, EvaluationConfig
from kpose.data import Instances, JointMapping, ValidationSet
from kpose.errors import KposeError
from kpose.evaluation import Predictions, score_predictions
from kpose.evaluation.metrics import metric_of, truth_of
from kpose.skeletons import AIC_14, COCO_17, CROWDPOSE_14, LSP_14, MPII_16, Skeleton

SKELETON_OF = {"coco": COCO_17, "mpii": MPII_16, "lsp": LSP_14, "lspet": LSP_14, "aic": AIC_14, "crowdpose": CROWDPOSE_14}
MAIN_METRIC = {"coco": "AP", "mpii": "PCKh", "lsp": "PCK", "lspet": "PCK", "aic": "AP", "crowdpose": "AP"}
PEOPLE = 6


def people_of(skeleton: Skeleton, annotation_file) -> Instances:
    random = np.random.default_rng(3)
    keypoints = np.full((PEOPLE, skeleton.num_joints, 3), 2, np.float32)
    keypoints[..., :2] = random.uniform(10, 150, (*keypoints.shape[:2], 2))
    return Instances(
        skeleton=skeleton,
        image_files=tuple(f"{number}.jpg" for number in range(PEOPLE)),
        image_ids=np.arange(100, 100 + PEOPLE),
        image_sizes=np.full((PEOPLE, 2), 160, np.int32),
        image_index=np.arange(PEOPLE, dtype=np.int32),
        ids=np.arange(1, PEOPLE + 1),
        boxes=np.tile(np.float32([5, 5, 150, 150]), (PEOPLE, 1)),
        keypoints=keypoints,
        areas=np.full(PEOPLE, 150.0**2, np.float32),
        box_scores=np.ones(PEOPLE, np.float32),
        head_sizes=np.full(PEOPLE, 20, np.float32),
        annotation_file=annotation_file,
    )


@pytest.fixture
def make_set(tmp_path):
    """A validation set of a format, with an annotation file of the same people where the format is COCO's."""

    def make(dataset_format: str, target: Skeleton | None = None, instances: Instances | None = None, **settings) -> ValidationSet:
        skeleton = SKELETON_OF[dataset_format]
        path = tmp_path / f"{dataset_format}.json"
        instances = instances or people_of(skeleton, path)
        dataset = DatasetConfig(format=dataset_format, annotations=path, **settings)
        own = ValidationSet(dataset_format, dataset, instances, JointMapping(instances.skeleton, target or instances.skeleton))
        lonely = replace(own, dataset=DatasetConfig(format="mpii"))  # whose truth is made of the people themselves
        content = truth_of(replace(lonely, mapping=JointMapping(instances.skeleton, instances.skeleton)))
        for image in content["images"]:
            image["crowdIndex"] = 0.1
        path.write_text(json.dumps(content))
        return own

    return make


def perfect(validation: ValidationSet) -> Predictions:
    keypoints = validation.mapping.to_target(validation.instances.keypoints)
    keypoints[..., 2] = 0.9
    return Predictions(keypoints, validation.instances.areas.astype(np.float64))


@pytest.mark.parametrize("dataset_format", SKELETON_OF)
def test_perfect_predictions_reach_the_top_of_the_datasets_own_protocol(make_set, dataset_format):
    validation = make_set(dataset_format)
    metric = metric_of(validation.dataset)
    metric.require(validation)
    score = score_predictions(perfect(validation), validation, EvaluationConfig()).metrics
    assert metric.logged[0] == MAIN_METRIC[dataset_format]
    assert set(metric.logged) <= set(score)
    assert score[metric.logged[0]] == pytest.approx(1 if MAIN_METRIC[dataset_format] == "AP" else 100)


@pytest.mark.parametrize("dataset_format", SKELETON_OF)
def test_a_joint_far_off_costs(make_set, dataset_format):
    validation = make_set(dataset_format)
    spoilt = perfect(validation)
    spoilt.keypoints[:, validation.mapping.target.index("left_knee"), :2] += 500
    main = MAIN_METRIC[dataset_format]
    assert score_predictions(spoilt, validation, EvaluationConfig()).metrics[main] < 0.96 * (1 if main == "AP" else 100)


@pytest.mark.parametrize("dataset_format", [name for name in SKELETON_OF if name != "coco"])
def test_joints_that_the_network_does_not_have_take_no_part(make_set, dataset_format):
    """A network of COCO's joints has neither neck nor head top."""
    validation = make_set(dataset_format, target=COCO_17)
    assert "head_top" in validation.mapping.unused
    found = perfect(validation)
    score = score_predictions(found, validation, EvaluationConfig())
    assert score.metrics[MAIN_METRIC[dataset_format]] == pytest.approx(1 if MAIN_METRIC[dataset_format] == "AP" else 100)
    if MAIN_METRIC[dataset_format] != "AP":
        assert np.isnan(score.metrics["head_top"])


def test_a_range_of_people_is_scored_against_itself(make_set):
    whole = make_set("coco")
    half = replace(
        whole, dataset=whole.dataset.model_copy(update={"people": (0, 3)}), instances=whole.instances.select(np.arange(PEOPLE) < 3)
    )
    assert len(truth_of(whole)["annotations"]) == PEOPLE
    assert len(truth_of(half)["annotations"]) == 3
    assert score_predictions(perfect(half), half, EvaluationConfig()).metrics["AP"] == pytest.approx(1)


def test_the_boxs_longer_side_is_the_unit_where_a_skeleton_has_neither_sigmas_nor_torso(make_set):
    fish = Skeleton("fish", ("mouth", "fin", "tail"))
    validation = make_set("coco", instances=people_of(fish, annotation_file="fish.json"), protocol="pck_box")
    metric = metric_of(validation.dataset)
    metric.require(validation)
    found = perfect(validation).keypoints
    found[:, 0, 0] += 29.9  # a fifth of 150 is 30
    found[:, 1, 1] += 30.1
    score = metric.compute(found, [], {}, validation)
    assert score["PCK"] == pytest.approx(200 / 3)
    assert (score["mouth"], score["fin"], score["tail"]) == (100, 0, 100)


@pytest.mark.parametrize(
    ("dataset_format", "protocol", "change", "message"),
    [
        ("coco", None, {"skeleton": Skeleton("bare", COCO_17.joint_names)}, r"'bare' has no 'oks_sigmas'.*pck_box"),
        ("mpii", None, {"head_sizes": np.full(PEOPLE, np.nan, np.float32)}, r"head size of 6 of 6 people is unknown.*gt_valid\.mat"),
        ("lsp", "pckh", {}, r"PCKh is for the joints of 'mpii_16', these are 'lsp_14'"),
        ("lsp", "pck", {"skeleton": Skeleton("odd", tuple(f"joint_{i}" for i in range(14)))}, r"lacks left_shoulder or right_hip.*pck_box"),
    ],
)
def test_what_a_protocol_needs_is_asked_for_before_anything_runs(make_set, dataset_format, protocol, change, message):
    instances = replace(people_of(SKELETON_OF[dataset_format], "people.json"), **change)
    validation = make_set(dataset_format, instances=instances, protocol=protocol)
    with pytest.raises(KposeError, match=message) as refusal:
        metric_of(validation.dataset).require(validation)
    assert "\n" not in str(refusal.value)
