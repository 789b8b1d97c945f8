"""From networks and a set of people to their keypoints in the photos."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from kpose.checkpoint import ModelCard, load_model, read_card
from kpose.codecs import decoded_size
from kpose.config import Config
from kpose.data import Instances, Preparation, evaluation_batches, preparation_from_config
from kpose.errors import KposeError
from kpose.inference.test_time import (
    Forward,
    Member,
    PoseTest,
    common_skeleton,
    compile_forward,
    preparation_from_card,
)
from kpose.skeletons import get_skeleton

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Predictions:
    """What a test said about N people.

    Attributes:
        keypoints: `(N, K, 3)` float32 x, y, score in the image frame; the joints are the networks'.
        areas: `(N,)` square image pixels that the crop shows, the scale of OKS suppression.
    """

    keypoints: np.ndarray
    areas: np.ndarray


def load_networks(config: Config, weights: Sequence[str | Path]) -> list[keras.Model]:
    """The networks of checkpoints that are to be tested, together where there are several.

    Args:
        config: the experiment; the first network must fit it, the others have its joints.
        weights: the `.keras` files.

    Raises:
        KposeError: when there is none, one cannot be read, or one does not fit.
    """
    cards = [read_card(file) for file in weights]
    if cards:
        cards[0].require_match(config, weights[0])
    common_skeleton(cards, weights)
    return [load_model(file) for file in weights]


def pose_test(config: Config, models: keras.Model | Sequence[keras.Model]) -> PoseTest:
    """The test that a configuration asks for, its networks compiled.

    Args:
        config: skeleton, crops, codec and `evaluation`.
        models: one network, which sees crops as the configuration says; or an ensemble, of which each but the first sees them as its own
            card says (another input size, normalisation or codec). All are decoded in the configuration's way.

    Raises:
        KposeError: when a network has not as many maps as the skeleton and its codec ask for, or has other joints; or see `PoseTest`.
    """
    models = tuple(models) if isinstance(models, Sequence) else (models,)
    skeleton, evaluation = get_skeleton(config.skeleton), config.evaluation
    preparations = [preparation_from_config(config, decoded_size(model, skeleton, config.codec)) for model in models[:1]]
    preparations += [_own_preparation(model, config) for model in models[1:]]
    test = PoseTest(
        tuple(map(Member, models, preparations)),
        skeleton,
        evaluation.flip,
        evaluation.shift_heatmap,
        tuple(evaluation.rotations),
        tuple(evaluation.scales),
        evaluation.ensemble,
    )
    forwards = _compile_once(models, test.crops_at_once(evaluation.batch_size))
    return replace(test, members=tuple(map(Member, forwards, preparations)))


def view_batches(test: PoseTest, instances: Instances, batch_size: int) -> Iterator[tuple[dict[str, np.ndarray], ...]]:
    """What a test is to see of people, read from their pictures.

    Args:
        test: says which crops.
        instances: the people.
        batch_size: crops per batch, at most; all views of a person are in one.

    Returns:
        Batches, each a tuple with the crops for each of `test.preparations`, see `kpose.data.evaluation_dataset`.

    Raises:
        KposeError: when a picture cannot be read, naming it.
    """
    people = test.people_at_once(batch_size)
    kinds = [evaluation_batches(instances, preparation, people, test.rotations, test.scales) for preparation in test.preparations]
    return zip(*kinds, strict=True)


def predict_instances(
    test: PoseTest, instances: Instances, batches: Iterable[Sequence[dict[str, Any]]], progress: bool = True
) -> Predictions:
    """Keypoints of all people, in their photos.

    Args:
        test: the networks, and how they are asked.
        instances: the people, of any skeleton: their boxes count.
        batches: see `view_batches`; in any order. For each of `test.preparations` a dictionary: `image` `(B * V, H, W, 3)` normalised
            crops, the V views of a person one after the other, `matrix` `(B * V, 2, 3)` from image to crop, `index` `(B * V,)`
            positions in `instances`.
        progress: show a bar.

    Returns:
        Of the people in the order of `instances`.

    Raises:
        KposeError: when the batches leave somebody out: a score would be too high without a word.
    """
    people, joints = len(instances), test.skeleton.num_joints
    keypoints, areas, present = np.zeros((people, joints, 3), np.float32), np.zeros(people), np.zeros(people, bool)
    with tqdm(total=people, desc="predicting", unit=" people", disable=not progress, leave=False) as bar:
        for batch in batches:
            images, matrices = ([kind[name] for kind in batch] for name in ("image", "matrix"))
            index = np.asarray(batch[0]["index"])[:: test.views]
            keypoints[index] = test.keypoints(images, matrices)
            areas[index] = test.areas(matrices)
            present[index] = True
            bar.update(len(index))
    if not present.all():
        raise KposeError(f"{np.count_nonzero(~present)} of {people} people came in no batch, so they cannot be scored")
    return Predictions(keypoints, areas)


@functools.lru_cache(maxsize=1)
def _compile_once(models: tuple[keras.Model, ...], batch_size: int) -> tuple[Forward, ...]:
    """A training scores the same network every few epochs, and to trace it takes seconds."""
    return tuple(compile_forward(model, batch_size) for model in models)


def _own_preparation(model: keras.Model, config: Config) -> Preparation:
    """The crops that a further network of an ensemble wants."""
    card: ModelCard | None = getattr(model, "card", None)
    if card is None:
        raise KposeError("a further network of an ensemble needs a card that says what it expects; load it with kpose.load_model")
    card = card.model_copy(update={"codec": card.codec.model_copy(update={"decoding": config.codec.decoding})})
    wanted = ModelCard.from_config(config)
    return preparation_from_card(model, card, common_skeleton([wanted, card], ["the configuration", model.name]))
