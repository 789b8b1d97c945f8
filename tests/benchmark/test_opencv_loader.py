"""The OpenCV loader does the same work as the pipeline that it is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kpose.benchmark.opencv_loader import OpenCVLoader
from kpose.codecs import GaussianCodec
from kpose.config import AugmentationConfig
from kpose.data.coco import read_coco
from kpose.data.crops import Preparation
from kpose.data.instances import Instances
from kpose.data.pipeline import NO_AUGMENTATION, training_dataset
from kpose.data.synthetic import write_synthetic_people
from kpose.errors import KposeError
from kpose.skeletons import COCO_17

PREPARATION = Preparation(GaussianCodec((128, 96), (32, 24)))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Instances:
    folder = tmp_path_factory.mktemp("people")
    write_synthetic_people(folder, 6, seed=3, split="train2017", image_size=(160, 200), processes=1, progress=False)
    return read_coco(folder / "annotations/person_keypoints_train2017.json", folder / "train2017", COCO_17, for_training=True)


def of_the_pipeline(people: Instances, augmentation: AugmentationConfig) -> list[np.ndarray]:
    """Everybody once, as sets: both loaders draw their own order."""
    batch = next(iter(training_dataset(people, PREPARATION, augmentation, batch_size=len(people))))
    return [part.numpy() for part in batch]


def of_opencv(people: Instances, augmentation: AugmentationConfig) -> list[np.ndarray]:
    return list(next(iter(OpenCVLoader(people, PREPARATION, augmentation, len(people)))))


def matched(ours: list[np.ndarray], theirs: list[np.ndarray]) -> list[int]:
    """For each of our samples the one of theirs whose heatmaps are the nearest."""
    return [int(np.argmin([np.abs(one - other).sum() for other in theirs[1]])) for one in ours[1]]


# Mirroring everybody is the one change that is not random in its strength.
@pytest.mark.parametrize("flip", [0.0, 1.0], ids=["as it is", "mirrored"])
def test_its_batches_are_those_of_the_pipeline(people: Instances, flip: float):
    augmentation = NO_AUGMENTATION.model_copy(update={"flip_probability": flip})
    ours, theirs = of_the_pipeline(people, augmentation), of_opencv(people, augmentation)
    order = matched(ours, theirs)
    assert sorted(order) == list(range(len(people)))
    images, heatmaps, weights = (part[order] for part in theirs)
    np.testing.assert_allclose(heatmaps, ours[1], atol=1e-5)
    np.testing.assert_array_equal(weights, ours[2])
    # OpenCV rounds to whole grey levels and places in 1/32 of a pixel; edges of drawn people are sharp.
    assert np.abs(images - ours[0]).mean() < 0.02
    assert images.shape == ours[0].shape and images.dtype == np.float32


def test_turned_crops_show_their_joints_where_the_heatmaps_say(people: Instances):
    """The map that warps is the map that moves the joints: a crop that is turned back shows the same joints."""
    loader = OpenCVLoader(people, PREPARATION, NO_AUGMENTATION, 1)
    upright = loader.sample(0)
    loader._draw = lambda box, keypoints: (*OpenCVLoader._draw(loader, box, keypoints)[:2], 180.0, False)  # type: ignore[method-assign]
    turned = loader.sample(0)
    # About the centre of the crop pixel x goes to width - x: one pixel further than reversing the columns takes it.
    back = turned[0][::-1, ::-1]
    assert np.abs(back[:-1, :-1] - upright[0][1:, 1:]).mean() < 0.02
    assert turned[1].sum() > 0 and not np.allclose(turned[1], upright[1])


def test_changes_are_those_of_the_configuration(people: Instances):
    augmentation = AugmentationConfig(half_body_probability=1.0, half_body_minimum_joints=0)
    loader = OpenCVLoader(people, PREPARATION, augmentation, 1)
    box, keypoints = people.boxes[0], people.keypoints[0]
    drawn = [loader._draw(box, keypoints) for _ in range(2000)]
    rotations = np.array([rotation for _, _, rotation, _ in drawn])
    assert np.mean(rotations != 0) == pytest.approx(0.6, abs=0.05) and np.abs(rotations).max() <= 90
    assert np.mean([mirrored for *_, mirrored in drawn]) == pytest.approx(0.5, abs=0.05)
    centers = {tuple(np.round(center, 3)) for center, *_ in drawn}
    assert len(centers) == 2, "the upper body or the lower one"


def test_other_codecs_are_refused(people: Instances):
    unbiased = Preparation(GaussianCodec((128, 96), (32, 24), alignment="unbiased"))
    with pytest.raises(KposeError, match="classic alignment"):
        OpenCVLoader(people, unbiased, NO_AUGMENTATION, 1)


def test_a_missing_picture_is_named(people: Instances, tmp_path: Path):
    lost = replace(people, image_files=tuple(str(tmp_path / "lost.jpg") for _ in people.image_files))
    with pytest.raises(KposeError, match="lost.jpg"):
        OpenCVLoader(lost, PREPARATION, NO_AUGMENTATION, 1).sample(0)
