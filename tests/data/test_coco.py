from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from kpose.data import read_coco
from kpose.data.coco import write_coco
from kpose.errors import KposeError
from kpose.skeletons import COCO_17, LSP_14, Skeleton

Make = Callable[..., tuple[Path, Path]]
Change = Callable[[dict[str, Any]], None]


def person(content: dict[str, Any], position: int = 0) -> dict[str, Any]:
    return content["annotations"][position]


def test_a_person_is_read_with_its_box_cut_as_the_reference_does(make_dataset: Make, cross: Skeleton) -> None:
    instances = read_coco(*make_dataset(), cross, for_training=True)
    assert len(instances) == 6
    np.testing.assert_allclose(instances.boxes[0], [25, 15, 89, 124])
    assert instances.ids.tolist() == [101, 102, 103, 104, 105, 106]
    assert instances.image_sizes[0].tolist() == [153, 140]
    assert instances.areas[0] == 9000
    assert instances.box_scores.tolist() == [1.0] * 6


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ([25.0, 15.0, 90.0, 125.0], [25, 15, 89, 124]),
        ([-10.0, -20.0, 60.0, 70.0], [0, 0, 59, 69]),  # the reference keeps the size, moves the corner
        ([100.0, 100.0, 90.0, 90.0], [100, 100, 39, 52]),  # cut at the last pixel
    ],
)
def test_boxes_are_cut_to_the_picture(make_dataset: Make, cross: Skeleton, box: list[float], cut: list[float]) -> None:
    def change(content: dict[str, Any]) -> None:
        person(content)["bbox"] = box

    instances = read_coco(*make_dataset(1, change=change), cross, for_training=True)
    np.testing.assert_allclose(instances.boxes[0], cut)


@pytest.mark.parametrize("for_training", [True, False])
@pytest.mark.parametrize(
    ("update", "note"),
    [
        ({"iscrowd": 1}, None),
        ({"num_keypoints": 0}, "1 people left out: no keypoint"),
        ({"keypoints": [0] * 15}, "1 people left out: no keypoint"),
        ({"keypoints": [5, 5, 0] * 5}, "1 people left out: no keypoint"),
        ({"bbox": [20, 20, 0, 50]}, "1 people left out: their box has no area"),
        ({"bbox": [20, 20, 50, -1]}, "1 people left out: their box has no area"),
        ({"bbox": [500, 20, 50, 50]}, "1 people left out: their box has no area"),
        ({"area": 0}, "1 people left out: their box has no area"),
        ({"category_id": 2}, None),
        ({"image_id": 77}, "1 people left out: their image is not listed"),
    ],
)
def test_people_who_cannot_take_part_are_left_out_and_counted(
    make_dataset: Make, cross: Skeleton, update: dict[str, Any], note: str | None, for_training: bool
) -> None:
    instances = read_coco(*make_dataset(3, change=lambda content: person(content, 1).update(update)), cross, for_training=for_training)
    assert instances.ids.tolist() == [101, 103]
    assert len(instances.image_files) == (2 if for_training else 3)
    assert [note in text for text in instances.notes] == ([True] if note else [])
    assert instances.image_ids[instances.image_index].tolist() == [1, 3]


def test_keypoints_outside_of_the_picture_are_kept_and_counted(make_dataset: Make, cross: Skeleton) -> None:
    def change(content: dict[str, Any]) -> None:
        person(content)["keypoints"][:2] = [-5.0, 400.0]

    instances = read_coco(*make_dataset(2, change=change), cross, for_training=True)
    assert instances.keypoints[0, 0].tolist() == [-5, 400, 2]
    assert "1 keypoints lie outside" in instances.notes[0]


def test_images_are_chosen_by_a_field(make_dataset: Make, cross: Skeleton) -> None:
    paths = make_dataset()
    kept = read_coco(*paths, cross, include={"take": ["take_0"]}, for_training=False)
    others = read_coco(*paths, cross, exclude={"take": ["take_0"]}, for_training=False)
    assert kept.image_ids.tolist() == [2, 4, 6]
    assert others.image_ids.tolist() == [1, 3, 5]
    assert others.notes == ()


def test_numbers_in_a_filter_match_text_in_the_file(make_dataset: Make, cross: Skeleton) -> None:
    assert len(read_coco(*make_dataset(), cross, include={"id": ["3"]}, for_training=False)) == 1


def test_gzipped_annotations_are_read(make_dataset: Make, cross: Skeleton) -> None:
    annotations, images = make_dataset()
    packed = annotations.with_suffix(".json.gz")
    packed.write_bytes(gzip.compress(annotations.read_bytes()))
    assert len(read_coco(packed, images, cross, for_training=True)) == 6


def test_a_category_without_joint_names_is_taken_in_the_order_of_the_skeleton(make_dataset: Make, cross: Skeleton) -> None:
    paths = make_dataset(change=lambda content: content["categories"][0].pop("keypoints"))
    assert len(read_coco(*paths, cross, for_training=True)) == 6


def put(*path: Any) -> Callable[[Any], Change]:
    """A change that sets the value at a path of the JSON."""

    def to(value: Any) -> Change:
        def change(content: dict[str, Any]) -> None:
            target: Any = content
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value

        return change

    return to


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("categories", 0, "keypoints")(["top", "left_hand"]), "annotates 2 joints, the skeleton 'cross_5' has 5"),
        (
            put("categories", 0, "keypoints")(["top", "right_hand", "left_hand", "left_foot", "right_foot"]),
            "in another order: joint 1 is 'right_hand', the skeleton 'cross_5' has 'left_hand'",
        ),
        (put("categories", 0, "keypoints")(["a", "b", "c", "d", "e"]), "under other names: joint 0 is 'a'"),
        (put("categories")([]), "'categories' is empty"),
        (put("annotations", 0, "keypoints")([1, 2, 2] * 4), "annotation 101 has 4 joints (12 numbers), the skeleton 'cross_5' has 5"),
        (put("annotations", 0, "keypoints", 0)(float("nan")), "annotation 101 has nan in 'keypoints'"),
        (put("annotations", 0, "keypoints", 0)(1e12), "annotation 101 has 1000000000000.0 in 'keypoints'"),
        (put("annotations", 0, "keypoints", 0)("7"), "annotation 101 has '7' in 'keypoints'"),
        (put("annotations", 0, "bbox")([1, 2, 3]), "annotation 101 has 'bbox' 3 numbers, expected 4"),
        (put("annotations", 0, "bbox", 2)(float("inf")), "annotation 101 has inf in 'bbox'"),
        (put("annotations", 0, "area")("big"), "annotation 101 has the area 'big'"),
        (put("annotations", 0, "id")(10**30), "annotation 1000000000000000000000000000000 has 'id'"),
        (put("annotations", 0)({"id": 1}), "annotation 1 has 'category_id' missing"),
        (put("annotations", 0)(7), "entry 0 of 'annotations' is 7, expected an object"),
        (put("images")("none"), "'images' is a text"),
        (put("images", 1, "id")(1), "two images have the id 1"),
        (put("images", 0, "file_name")("../secret.jpg"), "'../secret.jpg', which leaves the image folder"),
        (put("images", 0, "file_name")("/etc/passwd"), "leaves the image folder"),
        (put("images", 0, "file_name")("..\\secret.jpg"), "leaves the image folder"),
        (put("images", 0, "file_name")(None), "image 1 has 'file_name' None"),
        (put("images", 0, "height")(10**7), "image 1 has the height 10000000, expected 1 to 65535"),
        (put("images", 0, "width")(0), "image 1 has the width 0"),
        (put("images", 0, "file_name")("elsewhere.jpg"), "1 image that it lists is missing, first"),
    ],
)
def test_bad_annotations_are_refused_in_one_line(make_dataset: Make, cross: Skeleton, change: Change, message: str) -> None:
    with pytest.raises(KposeError) as error:
        read_coco(*make_dataset(change=change), cross, for_training=True)
    assert message in str(error.value)
    assert "people.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "expected an object with images"), ("{}", "'images' is missing"), ("[" * 100000, "not valid JSON")],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, cross: Skeleton, text: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(KposeError, match=message):
        read_coco(path, tmp_path, cross, for_training=True)


def test_missing_paths_are_named(make_dataset: Make, tmp_path: Path, cross: Skeleton) -> None:
    annotations, images = make_dataset()
    with pytest.raises(KposeError, match="nowhere.json"):
        read_coco(tmp_path / "nowhere.json", images, cross, for_training=True)
    with pytest.raises(KposeError, match=r"6 images that it lists are missing, first .*000000000001.png; check that 'images'"):
        read_coco(annotations, tmp_path / "nowhere", cross, for_training=True)


def test_an_unknown_filter_field_is_named(make_dataset: Make, cross: Skeleton) -> None:
    with pytest.raises(KposeError, match="no image has the field 'tkae'.*take"):
        read_coco(*make_dataset(), cross, exclude={"tkae": ["x"]}, for_training=True)


def test_people_are_chosen_by_their_place_in_the_file(make_dataset: Make, cross: Skeleton) -> None:
    paths = make_dataset(change=lambda content: person(content, 2).update(num_keypoints=0))
    for for_training in (True, False):
        some = read_coco(*paths, cross, people=(1, 4), for_training=for_training)
        assert some.ids.tolist() == [102, 104]  # who was left out has its place all the same
        assert some.image_ids.tolist() == [2, 4]
    with pytest.raises(KposeError, match=r"has 6 people: 'people' is \[2, 7\], which must lie within \[0, 6\]"):
        read_coco(*paths, cross, people=(2, 7), for_training=True)
    with pytest.raises(KposeError, match="'people' chooses among the annotated"):
        read_coco(*paths, cross, people=(0, 1), detections="boxes.json", for_training=False)


def test_missing_pictures_are_left_out_on_demand(make_dataset: Make, cross: Skeleton) -> None:
    annotations, images = make_dataset()
    (images / "000000000002.png").unlink()
    found = read_coco(annotations, images, cross, partial=True, for_training=True)
    assert found.ids.tolist() == [101, 103, 104, 105, 106]
    assert found.notes[-1].endswith("1 people left out: 1 of 6 images are missing")


@pytest.mark.parametrize(
    ("names", "aliases"),
    [
        (["Top", "Left Hand", "Right hand", "left foot", "right_foot"], {}),
        (["Head", "left_hand", "right_hand", "left_foot", "right_foot"], {"head": "top"}),
    ],
)
def test_joints_may_be_spelt_otherwise(make_dataset: Make, cross: Skeleton, names: list[str], aliases: dict[str, str]) -> None:
    paths = make_dataset(change=put("categories", 0, "keypoints")(names))
    assert len(read_coco(*paths, cross, joint_aliases=aliases, for_training=True)) == 6


def test_an_area_that_is_not_given_is_a_share_of_the_box(make_dataset: Make, cross: Skeleton) -> None:
    paths = make_dataset(2, change=lambda content: person(content).pop("area"))
    assert read_coco(*paths, cross, for_training=True).areas.tolist() == [90 * 125, 9000]
    assert read_coco(*paths, cross, box_area_share=0.5, for_training=True).areas.tolist() == [90 * 125 / 2, 9000]


def detection(**update: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 40], "score": 0.9} | update


def test_detections_replace_the_annotated_people(make_dataset: Make, tmp_path: Path, cross: Skeleton) -> None:
    path = tmp_path / "boxes.json"
    found = [
        detection(bbox=[-3.5, 10, 30, 400]),
        detection(category_id=3),
        detection(image_id=2, score=0.2),
        detection(image_id=99),
        detection(bbox=[1, 1, 0, 5]),
    ]
    path.write_text(json.dumps(found))
    instances = read_coco(*make_dataset(2), cross, detections=path, minimum_box_score=0.5, for_training=False)
    assert instances.boxes.tolist() == [[-3.5, 10, 30, 400]]  # as given
    assert instances.ids.tolist() == [0]
    assert instances.box_scores.tolist() == [pytest.approx(0.9)]
    assert not instances.keypoints.any()
    assert [note.split(": ", 1)[1] for note in instances.notes] == [
        "1 boxes left out: their image is not in the annotation file",
        "1 boxes left out: their score is below 0.5",
        "1 boxes left out: they have no area",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boxes": []}, "expected a list of detections"),
        ([detection(score="high")], "detection 0 has 'score' 'high'"),
        ([detection(bbox=[1, 2, 3, None])], "detection 0 has None in 'bbox'"),
        ([detection(), 5], "detection 1 is 5"),
    ],
)
def test_bad_detections_are_refused(make_dataset: Make, tmp_path: Path, cross: Skeleton, content: Any, message: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(KposeError) as error:
        read_coco(*make_dataset(1), cross, detections=path, for_training=False)
    assert message in str(error.value)


def test_detections_cannot_train(make_dataset: Make, tmp_path: Path, cross: Skeleton) -> None:
    with pytest.raises(KposeError, match="detections carry no keypoints"):
        read_coco(*make_dataset(1), cross, detections=tmp_path / "boxes.json", for_training=True)


@pytest.mark.parametrize(
    ("annotations", "images", "people", "pictures"),
    [
        ("coco/annotations/person_keypoints_train2017.json", "coco/train2017", 139, 45),
        ("coco/annotations/person_keypoints_val2017.json", "coco/val2017", 153, 48),
        ("fashion/coco_keypoints.json", "fashion/images", 1257, 1257),
        ("fencing/coco_keypoints.json", "fencing/images", 895, 895),
    ],
)
def test_real_datasets_have_the_people_that_they_are_known_to_have(
    shared_data: Path, annotations: str, images: str, people: int, pictures: int
) -> None:
    instances = read_coco(shared_data / annotations, shared_data / images, COCO_17, for_training=True)
    assert (len(instances), len(instances.image_files)) == (people, pictures)


def test_official_detections_of_real_pictures(shared_data: Path) -> None:
    folder = shared_data / "format_samples/coco"
    boxes = folder / "test_coco_det_AP_H_56.json"
    instances = read_coco(folder / "test_coco.json", folder, COCO_17, detections=boxes, for_training=False)
    expected = [entry for entry in json.loads(boxes.read_text()) if entry["category_id"] == 1]
    assert len(instances) == len(expected) == 118
    np.testing.assert_allclose(instances.boxes, [entry["bbox"] for entry in expected], rtol=1e-6)
    with pytest.raises(KposeError, match="annotates 17 joints, the skeleton 'lsp_14' has 14"):
        read_coco(folder / "test_coco.json", folder, LSP_14, for_training=False)


@pytest.mark.parametrize("sizes_known", [True, False])
def test_what_is_written_is_read_again(make_dataset: Make, cross: Skeleton, tmp_path: Path, sizes_known: bool) -> None:
    def change(content: dict[str, Any]) -> None:
        person(content, 1)["keypoints"][3:6] = [0, 0, 0]
        person(content, 2)["image_id"] = 6  # two in one picture, and a picture of nobody
        if not sizes_known:
            content["images"] = [{key: entry[key] for key in ("id", "file_name")} for entry in content["images"]]

    annotations, images = make_dataset(change=change)
    people = read_coco(annotations, images, cross, for_training=False)
    path = write_coco(people, images, tmp_path / "new/people.json", "five joints")
    again = read_coco(path, images, cross, for_training=False)
    assert again.image_ids.tolist() == [1, 2, 4, 5, 6]
    assert [again.image_files[image] for image in again.image_index] == [people.image_files[image] for image in people.image_index]
    np.testing.assert_allclose(again.keypoints, people.keypoints, atol=0.0051)
    # The reader takes a pixel off, as for every file.
    np.testing.assert_allclose(again.boxes, people.boxes - np.array([0, 0, 1, 1]))
    for column in ("ids", "areas"):
        np.testing.assert_array_equal(getattr(again, column), getattr(people, column))
    np.testing.assert_array_equal(again.image_sizes, people.image_sizes[[0, 1, 3, 4, 5]])
    content = json.loads(path.read_text())
    assert content["info"] == {"description": "five joints"}
    assert content["annotations"][1]["num_keypoints"] == 4 and content["annotations"][1]["keypoints"][3:6] == [0, 0, 0]
    assert content["categories"][0]["skeleton"] == [[1, 2], [1, 3], [2, 4], [3, 5]]
    assert COCO(str(path)).getAnnIds(imgIds=[6]) == [103, 106]


def test_people_whose_pictures_lie_elsewhere_are_not_written(make_dataset: Make, cross: Skeleton, tmp_path: Path) -> None:
    annotations, images = make_dataset()
    people = read_coco(annotations, images, cross, for_training=True)
    with pytest.raises(KposeError, match="000000000001.png does not lie in .*other"):
        write_coco(people, tmp_path / "other", tmp_path / "new.json", "")
    assert not (tmp_path / "new.json").exists()


def test_a_sample_of_ochuman_is_read(shared_data: Path) -> None:
    folder = shared_data / "format_samples/ochuman"
    instances = read_coco(folder / "test_ochuman.json", folder, COCO_17, for_training=False)
    assert (len(instances), len(instances.image_files)) == (5, 3)
    assert (instances.keypoints[..., 2] > 0).sum(axis=1).tolist() == [17, 16, 13, 12, 15]
    assert instances.areas[0] == 356725


def test_a_sample_of_posetrack_is_read_with_a_skeleton_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "format_samples/posetrack18"
    annotations = folder / "annotations/test_posetrack18_val.json"
    path = tmp_path / "posetrack.yaml"
    sides = [f"{side}_{joint}" for joint in ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")]
    path.write_text(
        f"name: posetrack_17\njoint_names: [nose, head_bottom, head_top, {', '.join(sides)}]\n"
        f"left_right_pairs: [{', '.join(f'[{left}, {right}]' for left, right in zip(sides[::2], sides[1::2], strict=True))}]\n"
        "limbs: [[head_bottom, head_top], [left_hip, left_knee]]\n"
    )
    instances = read_coco(annotations, folder, Skeleton.from_yaml(path), for_training=True)
    assert (len(instances), len(instances.image_files)) == (14, 3)
    assert not instances.keypoints[:, 3:5, 2].any()  # PoseTrack names ears, and annotates none
    with pytest.raises(KposeError, match="joint 1 is 'head_bottom', the skeleton 'coco_17' has 'left_eye'"):
        read_coco(annotations, folder, COCO_17, for_training=True)
