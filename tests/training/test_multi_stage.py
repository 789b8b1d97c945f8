"""Networks of several outputs: a loss and targets for each, and Multi-Stage HRNet from training to poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kpose.training.fit
from kpose.checkpoint import load_model
from kpose.config import Config, parse_config
from kpose.data import training_data
from kpose.errors import KposeError
from kpose.inference import PoseEstimator
from kpose.losses import HeatmapMeanSquaredError, HeatmapWeightingLoss, OffsetLoss
from kpose.models.hrnet import Recipe, Stage
from kpose.models.multi_stage_hrnet import multi_stage_hrnet
from kpose.training import make_loss, train

SHALLOW = Recipe(1, 8, (Stage(1, 1), Stage(1, 1), Stage(1, 1)))
OFFSET = {"codec": {"name": "offset"}, "loss": {"name": "offset"}}


def stages(count: int, channels: int = 17) -> keras.Model:
    inputs = keras.Input((64, 64, 3))
    outputs = [keras.layers.Conv2D(channels, 3, strides=4, padding="same", name=f"stage_{number}")(inputs) for number in range(count)]
    return keras.Model(inputs, outputs if count > 1 else outputs[0], name="stages")


def make_config(people: Path, output: Path, **sections: Any) -> Config:
    def part(split: str) -> dict[str, Any]:
        return {"annotations": f"{people}/annotations/person_keypoints_{split}.json", "images": f"{people}/{split}"}

    return parse_config(
        {
            "model": {"input_size": [64, 64]},
            "data": {"train": [part("train2017")], "validation": [part("val2017")]},
            "training": {"epochs": 2, "batch_size": 4, "steps_per_epoch": 1, "warmup_steps": 0, "learning_rate": 1e-3},
            "output": str(output),
            **sections,
        }
    )


# Losses.


@pytest.mark.parametrize(
    ("settings", "kind", "attributes"),
    [
        ({}, HeatmapWeightingLoss, {"weighting": "x"}),
        ({"loss": {"weighting": "e^x", "hard_keypoints": 8}}, HeatmapWeightingLoss, {"weighting": "e^x", "hard_keypoints": 8}),
        ({"loss": {"name": "mean_squared_error"}}, HeatmapMeanSquaredError, {"hard_keypoints": None, "factor": 1.0}),
        (OFFSET, OffsetLoss, {"offset_error": "squared"}),
        (OFFSET | {"loss": {"name": "offset", "offset_error": "smooth_l1"}}, OffsetLoss, {"offset_error": "smooth_l1"}),
    ],
)
def test_a_configuration_makes_its_loss(settings, kind, attributes):
    config = parse_config(settings)
    for loss in (make_loss(config), make_loss(config, stages(1, 51 if kind is OffsetLoss else 17))):
        assert type(loss) is kind
        assert {name: getattr(loss, name) for name in attributes} == attributes


def test_each_output_has_a_weighted_loss_and_the_last_one_mines():
    losses = make_loss(parse_config({"loss": {"hard_keypoints": 8, "stage_weights": [0.5, 0, 2]}}), stages(3))
    assert [loss.factor for loss in losses] == [0.5, 0, 2]
    assert [loss.hard_keypoints for loss in losses] == [None, None, 8]
    assert [loss.factor for loss in make_loss(parse_config({}), stages(2))] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({"codec": {"name": "offset"}}, None, "loss.name=heatmap_weighting does not fit codec.name=offset: set both to offset, or neither"),
        ({"loss": {"name": "offset"}}, None, "loss.name=offset does not fit codec.name=gaussian"),
        ({"loss": {"hard_keypoints": 18}}, None, "loss.hard_keypoints is 18, but skeleton 'coco_17' has 17 joints"),
        ({"loss": {"stage_weights": [1, 1]}}, None, "loss.stage_weights has 2 values, but the network 1 outputs; give one value for each"),
        ({"loss": {"stage_weights": [1]}}, stages(2), "loss.stage_weights has 1 values, but the network 2 outputs"),
        (OFFSET, stages(1), "gives 17 maps, but skeleton 'coco_17' has 17 joints with 3 in codec 'offset'"),
        ({}, stages(1, 51), "gives 51 maps"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_line(settings, model, message):
    with pytest.raises(KposeError, match=message) as refusal:
        make_loss(parse_config(settings), model)
    assert "\n" not in str(refusal.value)


# Targets.


@pytest.mark.parametrize("codec", [{}, {"name": "offset"}])
def test_coarse_outputs_are_taught_wider_targets(people, tmp_path, codec):
    config = make_config(people, tmp_path, codec={**codec, "stage_spread": [2.0, 1.0]})
    each = 3 if codec else 1
    model = stages(2, 17 * each)
    _, (coarse, fine), (_, weights) = training_data(config, model).dataset.as_numpy_iterator().next()
    assert coarse.shape == fine.shape == (4, 16, 16, 17 * each) and weights.shape == (4, 17)
    heatmaps = [maps[..., ::each].sum(axis=(1, 2))[weights > 0] for maps in (coarse, fine)]
    assert (heatmaps[0] > 1.5 * heatmaps[1]).all()
    # What is decoded is the last one.
    alone = training_data(config).dataset.as_numpy_iterator().next()
    np.testing.assert_array_equal(alone[1], fine)
    np.testing.assert_array_equal(alone[2], weights)


def test_a_spread_for_another_number_of_outputs_is_refused(people, tmp_path):
    config = make_config(people, tmp_path, codec={"stage_spread": [2.0, 1.5, 1.0]})
    with pytest.raises(KposeError, match=r"codec.stage_spread has 3 values, but the network 2 outputs"):
        training_data(config, stages(2))


def test_the_weights_of_the_outputs_reach_the_gradient(people, tmp_path):
    config = make_config(people, tmp_path, loss={"stage_weights": [0, 1]}, training={"batch_size": 4})
    model = stages(2)
    before = [weight.numpy() for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(1.0), make_loss(config, model), jit_compile=False)
    model.fit(training_data(config, model).dataset, steps_per_epoch=1, verbose=0)
    changed = {weight.path.split("/")[0]: bool((weight.numpy() != old).any()) for weight, old in zip(model.weights, before, strict=True)}
    assert changed == {"stage_0": False, "stage_1": True}


# Multi-Stage HRNet.


@pytest.mark.parametrize(
    ("build", "number"),
    [
        (lambda number: stages(number, 51), 2),  # stands for the network, whose tracing takes half a minute
        pytest.param(lambda number: multi_stage_hrnet("tiny", 4, 17, (64, 64), number, SHALLOW), 1, marks=pytest.mark.slow),
        pytest.param(lambda number: multi_stage_hrnet("tiny", 4, 17, (64, 64), number, SHALLOW), 2, marks=pytest.mark.slow),
    ],
    ids=["stand-in", "1 stage", "2 stages"],
)
def test_heatmaps_and_offsets_from_training_to_poses(people, tmp_path, monkeypatch, build, number):
    """Trains, is scored, resumes, is loaded again and finds poses."""
    monkeypatch.setattr(kpose.training.fit, "build_model", lambda *_, **__: build(number))
    loss = {"name": "offset", "offset_error": "smooth_l1", "hard_keypoints": 8, "stage_weights": [0.5, 1.0][-number:]}
    codec = {"name": "offset", "stage_spread": [1.5, 1.0][-number:]}
    config = make_config(people, tmp_path, codec=codec, loss=loss)
    first = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 1})})
    assert "AP" in train(first).metrics
    result = train(config, resume=True)
    assert "AP" in result.metrics
    model = load_model(result.folder / "last.keras")
    assert "AP" in model.card.score
    assert not [name for name in model.card.score if "loss" in name], "losses of the outputs are no scores"
    poses = PoseEstimator(model)(np.zeros((120, 100, 3), np.uint8), [[10, 10, 60, 90], [0, 0, 50, 50]])[0]
    assert [pose.keypoints.shape for pose in poses] == [(17, 3)] * 2
    assert all(np.isfinite(pose.keypoints).all() for pose in poses)
