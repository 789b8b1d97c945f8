from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kpose.data.aic import read_aic
from kpose.errors import KposeError
from kpose.skeletons import AIC_14

KEYPOINTS = [value for joint in range(14) for value in (10 + joint, 20 + 2 * joint, 1 + joint % 3)]


def entry(image: str = "a", **people: Any) -> dict[str, Any]:
    """An image of the dataset's own form; each person a box and keypoints."""
    people = people or {"human1": ([10, 20, 60, 120], KEYPOINTS)}
    return {
        "image_id": image,
        "url": "http://example.org/a.jpg",
        "human_annotations": {name: box for name, (box, _) in people.items()},
        "keypoint_annotations": {name: keypoints for name, (_, keypoints) in people.items()},
    }


def write(folder: Path, content: Any, missing: tuple[str, ...] = ()) -> tuple[Path, Path]:
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for name in {"a", "b", "c"} - set(missing):
        (images / f"{name}.jpg").touch()
    path = folder / "keypoint_train_annotations.json"
    path.write_text(json.dumps(content))
    return path, images


def test_flags_and_boxes_are_translated(tmp_path: Path) -> None:
    people = read_aic(*write(tmp_path, [entry()]), for_training=True)
    # 1 visible, 2 hidden, 3 not there.
    assert people.keypoints[0, :3].tolist() == [[10, 20, 2], [11, 22, 1], [12, 24, 0]]
    # As COCO's boxes are: the far edge is the last pixel.
    assert people.boxes.tolist() == [[10, 20, 49, 99]]
    assert people.areas.tolist() == [50 * 100]
    assert people.skeleton == AIC_14
    assert [Path(file).name for file in people.image_files] == ["a.jpg"]


def test_people_and_pictures_keep_their_order(tmp_path: Path) -> None:
    nobody = [0, 0, 3] * 14
    content = [
        entry("a", human1=([1, 1, 9, 9], KEYPOINTS), human2=([1, 1, 9, 9], nobody)),
        entry("b", human3=([5, 5, 5, 9], KEYPOINTS)),
        entry("c", human1=([2, 2, 8, 8], KEYPOINTS), human10=([3, 3, 8, 8], KEYPOINTS)),
    ]
    people = read_aic(*write(tmp_path, content, missing=("b",)), for_training=True)
    assert people.ids.tolist() == [1, 4, 5]
    assert [Path(people.image_files[position]).stem for position in people.image_index] == ["a", "c", "c"]
    assert [note.split(": ", 1)[1] for note in people.notes] == [
        "1 people left out: no keypoint is annotated",
        "1 people left out: their box has no area within the picture",
    ]
    some = read_aic(*write(tmp_path, content), people=(1, 4), for_training=True)
    assert some.ids.tolist() == [4]
    with pytest.raises(KposeError, match=r"has 5 people: 'people' is \[0, 6\]"):
        read_aic(*write(tmp_path, content), people=(0, 6), for_training=True)


def test_missing_pictures_are_refused_or_left_out(tmp_path: Path) -> None:
    paths = write(tmp_path, [entry("a"), entry("gone")])
    with pytest.raises(KposeError, match="1 image that it lists is missing, first .*gone.jpg"):
        read_aic(*paths, for_training=True)
    assert read_aic(*paths, partial=True, for_training=True).ids.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("none", "expected a list of images with human_annotations, found a text"),
        ([5], "entry 0 of the list is 5"),
        ([{"image_id": "a"}], "image 'a' has 'human_annotations' missing, expected an object of people by name"),
        ([entry("a") | {"keypoint_annotations": [1]}], "image 'a' has 'keypoint_annotations' [1]"),
        ([entry("a") | {"keypoint_annotations": {}}], "image 'a' has no keypoints for 'human1'"),
        ([entry("a") | {"human_annotations": {}}], "image 'a' has no box for 'human1'"),
        ([entry("a", human1=([1, 2, 3], KEYPOINTS))], "image 'a' has 'human1' 3 numbers, expected 4 numbers"),
        ([entry("a", human1=([1, 2, 3, 9], KEYPOINTS[:39]))], "'human1' 39 numbers, expected 42 numbers"),
        (
            [entry("a", human1=([1, 2, 3, 9], [1, 2, 0] * 14))],
            "has the flag 0 in the keypoints of 'human1', expected 1 (visible)",
        ),
        ([entry("a", human1=([1, 2, 3, 9], [1, 2, 1.5] * 14))], "the flag 1.5"),
        ([entry("a", human1=([1, 2, 3, 1e9], KEYPOINTS))], "image 'a' has 1000000000.0 in 'human1'"),
        ([entry("../a")], "image '../a' has the file name '../a', which leaves the image folder"),
        ([entry("a") | {"image_id": 7}], "image 7 has 'image_id' 7, expected a file name"),
    ],
)
def test_bad_annotations_are_refused_in_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(KposeError) as error:
        read_aic(*write(tmp_path, content), for_training=True)
    assert message in str(error.value) and "keypoint_train_annotations.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_both_forms_of_real_annotations_give_the_same_people(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "format_samples/aic"
    people = read_aic(folder / "test_aic.json", folder, for_training=True)
    assert len(people) == 9
    content = json.loads((folder / "test_aic.json").read_text())
    own: dict[int, dict[str, Any]] = {
        image["id"]: {"image_id": Path(image["file_name"]).stem, "human_annotations": {}, "keypoint_annotations": {}}
        for image in content["images"]
    }
    for person in content["annotations"]:
        image = own[person["image_id"]]
        name = f"human{len(image['human_annotations']) + 1}"
        x, y, width, height = person["bbox"]
        image["human_annotations"][name] = [x, y, x + width, y + height]
        keypoints = np.array(person["keypoints"]).reshape(-1, 3)
        keypoints[:, 2] = [{2: 1, 1: 2, 0: 3}[flag] for flag in keypoints[:, 2].tolist()]
        image["keypoint_annotations"][name] = keypoints.ravel().tolist()
    path = tmp_path / "own.json"
    path.write_text(json.dumps(list(own.values())))
    same = read_aic(path, folder, for_training=True)
    assert same.image_files == people.image_files
    for column in ("image_index", "keypoints", "boxes", "areas"):
        np.testing.assert_array_equal(getattr(same, column), getattr(people, column), err_msg=column)
