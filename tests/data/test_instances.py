from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpose.data.instances import Instances
from kpose.errors import KposeError
from kpose.skeletons import COCO_17, MPII_16

COLUMNS = ("image_index", "ids", "boxes", "keypoints", "areas", "box_scores")


def make_instances(people=4, images=3, skeleton=COCO_17, first_image_id=100, **changes):
    """People whose numbers tell them apart."""
    number = np.arange(people)
    columns = {
        "skeleton": skeleton,
        "image_files": tuple(f"{first_image_id + image}.jpg" for image in range(images)),
        "image_ids": np.arange(first_image_id, first_image_id + images, dtype=np.int64),
        "image_sizes": np.full((images, 2), (480, 640), np.int32),
        "image_index": (number % images if images else number).astype(np.int32),
        "ids": (1000 + number).astype(np.int64),
        "boxes": np.stack([number, number, number + 10, number + 20], axis=1).astype(np.float32),
        "keypoints": np.broadcast_to(number[:, None, None], (people, skeleton.num_joints, 3)).astype(np.float32),
        "areas": (number * 100).astype(np.float32),
        "box_scores": np.ones(people, np.float32),
    }
    return Instances(**{**columns, **changes})


def test_the_length_is_the_number_of_people():
    assert len(make_instances(people=5)) == 5
    assert len(make_instances(people=0, images=0)) == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("boxes", np.zeros((4, 5), np.float32)),
        ("boxes", np.zeros((3, 4), np.float32)),
        ("keypoints", np.zeros((4, 16, 3), np.float32)),
        ("keypoints", np.zeros((4, 17, 2), np.float32)),
        ("ids", np.zeros((4, 1), np.int64)),
        ("areas", np.zeros(5, np.float32)),
        ("box_scores", np.zeros(3, np.float32)),
        ("image_ids", np.zeros(4, np.int64)),
        ("image_sizes", np.zeros((3, 3), np.int32)),
        ("image_index", np.zeros((4, 1), np.int32)),
    ],
)
def test_a_column_of_the_wrong_shape_is_named(column, value):
    with pytest.raises(KposeError, match=f"instances: {column} has shape .* expected .*coco_17"):
        make_instances(**{column: value})


@pytest.mark.parametrize("position", [-1, 3])
def test_a_person_without_an_image_is_refused(position):
    with pytest.raises(KposeError, match=f"image_index {position} is no position in 3 image files"):
        make_instances(image_index=np.array([0, 1, position, 2], np.int32))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (np.array([True, False, False, True]), [0, 3]),
        (np.array([2, 0, 2]), [2, 0, 2]),
        (np.zeros(4, bool), []),
        (np.array([], np.int64), []),
    ],
)
def test_select_takes_people_and_keeps_the_images(chosen, expected):
    everyone = make_instances(notes=("one note",), annotation_file=Path("people.json"))
    some = everyone.select(chosen)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(some, name), getattr(everyone, name)[expected])
        assert getattr(some, name).dtype == getattr(everyone, name).dtype
    assert some.image_files == everyone.image_files
    assert some.notes == everyone.notes
    assert some.annotation_file == everyone.annotation_file
    assert len(everyone) == 4


def test_concatenated_people_keep_their_own_image():
    first, second = make_instances(people=4, images=3), make_instances(people=2, images=2, first_image_id=500, notes=("a note",))
    empty = make_instances(people=0, images=1, first_image_id=900)
    joined = Instances.concatenate([first, empty, second])
    assert len(joined) == 6
    assert joined.image_index.dtype == np.int32
    assert joined.notes == ("a note",)
    own = [part.image_files[position] for part in (first, second) for position in part.image_index]
    assert [joined.image_files[position] for position in joined.image_index] == own
    assert [f"{joined.image_ids[position]}.jpg" for position in joined.image_index] == own
    np.testing.assert_array_equal(joined.ids, np.concatenate([first.ids, second.ids]))
    np.testing.assert_array_equal(joined.keypoints, np.concatenate([first.keypoints, second.keypoints]))


def test_the_annotation_file_stays_with_a_single_dataset_alone():
    # Image numbers of two files may clash: neither can score the whole.
    with_file = make_instances(annotation_file=Path("people.json"))
    assert Instances.concatenate([with_file]).annotation_file == Path("people.json")
    assert Instances.concatenate([with_file, make_instances()]).annotation_file is None


def test_datasets_of_two_skeletons_are_not_joined():
    with pytest.raises(KposeError, match="datasets of skeletons 'coco_17' and 'mpii_16' cannot be joined"):
        Instances.concatenate([make_instances(), make_instances(skeleton=MPII_16)])


def test_no_dataset_at_all_is_refused():
    with pytest.raises(KposeError, match="no dataset given"):
        Instances.concatenate([])
