from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from kpose.data.mpii import read_mpii
from kpose.errors import KposeError
from kpose.geometry import fit_box_to_aspect
from kpose.skeletons import MPII_16

JOINTS = MPII_16.num_joints


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with empty files in place of pictures: readers look no further than the name."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (folder / name).touch()
    return folder


def joints_of(seed: int) -> np.ndarray:
    """`(16, 2)`, counted from 1."""
    return np.random.default_rng(seed).integers(50, 400, (JOINTS, 2)).astype(float)


# --- train.json, valid.json ----------------------------------------------------------------------------------------------------------


def listed(seed: int, image: str = "a.jpg", **update: Any) -> dict[str, Any]:
    person = {"image": image, "center": [200.0, 150.0], "scale": 1.5, "joints": joints_of(seed).tolist(), "joints_vis": [1] * JOINTS}
    return person | update


def write_list(folder: Path, people: Any) -> Path:
    path = folder / "valid.json"
    path.write_text(json.dumps(people))
    return path


def write_head_boxes(folder: Path, people: list[dict[str, Any]], **update: Any) -> Path:
    """`gt_valid.mat` of the people of a list; head boxes of 30 x 40, whose diagonal is 50."""
    count = len(people)
    boxes = np.zeros((2, 2, count))
    boxes[1] = np.array([30.0, 40.0])[:, None]
    names = ["rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head"]
    names += ["rwri", "relb", "rsho", "lsho", "lelb", "lwri"]
    content = {
        "pos_gt_src": np.array([person["joints"] for person in people]).transpose(1, 2, 0),
        "jnt_missing": 1.0 - np.array([person["joints_vis"] for person in people]).T,
        "headboxes_src": boxes,
        "dataset_joints": np.array(names, object)[None],
    }
    path = folder / "gt_valid.mat"
    scipy.io.savemat(path, content | update)
    return path


def test_the_box_is_the_square_that_the_published_networks_are_shown(tmp_path: Path, pictures: Path) -> None:
    path = write_list(tmp_path, [listed(1)])
    people = read_mpii(path, pictures, for_training=True)
    # HRNet's data loader: center[1] += 15 * scale; scale *= 1.25; center -= 1; the crop is 200 * scale wide.
    center, size = fit_box_to_aspect(people.boxes, (256, 256), padding=1.25)
    np.testing.assert_allclose(center, [[199, 150 + 15 * 1.5 - 1]])
    np.testing.assert_allclose(size, [[200 * 1.5 * 1.25] * 2])
    np.testing.assert_allclose(people.keypoints[0, :, :2], joints_of(1) - 1)
    assert people.areas.tolist() == [300.0**2]
    assert people.skeleton == MPII_16


def test_joints_of_a_list_are_there_or_not(tmp_path: Path, pictures: Path) -> None:
    person = listed(1, joints_vis=[0, *[1] * 15])
    person["joints"][0] = [-1.0, -1.0]
    people = read_mpii(write_list(tmp_path, [person]), pictures, for_training=True)
    assert people.keypoints[0, 0].tolist() == [0, 0, 0]
    assert people.keypoints[0, 1:, 2].tolist() == [2.0] * 15
    assert np.isnan(people.head_sizes).all()


def test_head_sizes_come_from_the_boxes_of_the_same_people(tmp_path: Path, pictures: Path) -> None:
    people = [listed(1), listed(2, "b.jpg", joints_vis=[0] * 3 + [1] * 13), listed(3, "a.jpg")]
    found = read_mpii(write_list(tmp_path, people), pictures, write_head_boxes(tmp_path, people), for_training=False)
    np.testing.assert_allclose(found.head_sizes, 0.6 * 50)
    assert found.image_index.tolist() == [0, 1, 0]
    assert found.image_ids.tolist() == [1, 2]
    one = read_mpii(write_list(tmp_path, people[:1]), pictures, write_head_boxes(tmp_path, people[:1]), for_training=False)
    assert one.head_sizes.tolist() == [pytest.approx(30)]


def test_some_people_are_chosen_by_their_place(tmp_path: Path, pictures: Path) -> None:
    people = [listed(1), listed(2, "b.jpg"), listed(3, "gone.jpg"), listed(4, "c.jpg")]
    path = write_list(tmp_path, people)
    found = read_mpii(path, pictures, write_head_boxes(tmp_path, people), people=(0, 2), for_training=True)
    assert (found.ids.tolist(), [Path(file).name for file in found.image_files]) == ([1, 2], ["a.jpg", "b.jpg"])
    with pytest.raises(KposeError, match="1 image that it lists is missing, first .*gone.jpg"):
        read_mpii(path, pictures, for_training=True)
    found = read_mpii(path, pictures, partial=True, for_training=True)
    assert found.ids.tolist() == [1, 2, 4]
    assert "1 people left out: 1 of 4 images are missing" in found.notes[0]


def test_people_who_cannot_take_part_are_left_out_and_counted(tmp_path: Path, pictures: Path) -> None:
    people = [listed(1, joints_vis=[0] * JOINTS), listed(2, center=[-1.0, -1.0], scale=-1.0), listed(3)]
    found = read_mpii(write_list(tmp_path, people), pictures, for_training=True)
    assert found.ids.tolist() == [3]
    assert [note.split(": ", 1)[1] for note in found.notes] == [
        "1 people left out: no joint is annotated",
        "1 people left out: they have no centre or scale",
    ]


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ({"annolist": []}, "expected a list of people with image, center, scale"),
        ([7], "entry 0 of the list is 7, expected an object"),
        ([listed(1), listed(1, center=[1])], "person 1 has 'center' 1 numbers, expected 2 numbers"),
        ([listed(1, scale="big")], "person 0 has 'big' in 'scale'"),
        ([{key: value for key, value in listed(1).items() if key != "joints_vis"}], "person 0 has no 'joints_vis'"),
        ([{key: value for key, value in listed(1).items() if key != "scale"}], "person 0 has None in 'scale'"),
        ([listed(1, joints=joints_of(1).tolist()[:15])], "person 0 has 15 joints, expected 16"),
        ([listed(1, joints=[[1, 2, 3]] * 16)], "person 0 has 'joint' 3 numbers, expected 2 numbers"),
        ([listed(1, joints_vis=[2] * 16)], "person 0 has the flag 2 in 'joints_vis', expected 0 or 1"),
        ([listed(1, joints=[[float("nan"), 1]] * 16)], "person 0 has nan in 'joint'"),
        ([listed(1, scale=1e5)], "person 0 has a joint, centre or scale that is no number within 1e+06"),
        ([listed(1, image="../a.jpg")], "person 0 has the file name '../a.jpg', which leaves the image folder"),
        ([listed(1, image=None)], "person 0 has 'image' None, expected a file name"),
    ],
)
def test_bad_lists_are_refused_in_one_line(tmp_path: Path, pictures: Path, people: Any, message: str) -> None:
    with pytest.raises(KposeError) as error:
        read_mpii(write_list(tmp_path, people), pictures, for_training=True)
    assert message in str(error.value) and "valid.json" in str(error.value)
    assert "\n" not in str(error.value)


def of_others(people: list[dict[str, Any]]) -> dict[str, Any]:
    joints = np.array([person["joints"] for person in people]).transpose(1, 2, 0).copy()
    joints[..., 1] += 90
    return {"pos_gt_src": joints}


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda people: {"pos_gt_src": np.zeros((JOINTS, 2, 3))}, "'pos_gt_src' is of 3 people, .*valid.json has 2"),
        (lambda people: {"jnt_missing": np.zeros((2, JOINTS))}, "'jnt_missing' is 2x16, expected 16xN"),
        (lambda people: {"headboxes_src": np.zeros((2, 2, 2))}, "the head box of person 0 has no size"),
        (of_others, "person 1 is another one than in .*valid.json"),
        (lambda people: {"dataset_joints": np.array(["lank"] * 16, object)[None]}, "'dataset_joints' is .*expected rank rkne"),
    ],
)
def test_head_boxes_of_others_are_refused(
    tmp_path: Path, pictures: Path, update: Callable[[list[dict[str, Any]]], dict[str, Any]], message: str
) -> None:
    people = [listed(1), listed(2)]
    boxes = write_head_boxes(tmp_path, people, **update(people))
    with pytest.raises(KposeError, match=message):
        read_mpii(write_list(tmp_path, people), pictures, boxes, for_training=False)


# --- valid.h5 ------------------------------------------------------------------------------------------------------------------------


def write_h5(folder: Path, **update: Any) -> Path:
    content: dict[str, Any] = {
        "imgname": np.array([b"a.jpg", b"b.jpg"]),
        "center": np.array([[200.0, 150.0 + 15 * 1.5], [100.0, 100.0 + 15]]),
        "scale": np.array([1.5, 1.0]) * 1.25,
        "part": np.stack([joints_of(1), joints_of(2)]),
        "visible": np.ones((2, JOINTS)),
        "normalize": np.array([30.0, 40.0]),
    }
    content["part"][1, :2] = 0
    content["visible"][1, :3] = 0
    path = folder / "valid.h5"
    with h5py.File(path, "w") as file:
        for name, value in (content | update).items():
            if value is not None:
                file[name] = value
    return path


def test_a_list_in_hdf5_gives_what_json_gives_and_hidden_joints(tmp_path: Path, pictures: Path) -> None:
    found = read_mpii(write_h5(tmp_path), pictures, for_training=False)
    same = read_mpii(write_list(tmp_path, [listed(1), listed(2, "b.jpg", center=[100, 100], scale=1)]), pictures, for_training=False)
    np.testing.assert_allclose(found.boxes, same.boxes, rtol=1e-5)
    np.testing.assert_allclose(found.keypoints[0], same.keypoints[0])
    assert found.keypoints[1, :4, 2].tolist() == [0, 0, 1, 2]
    assert found.head_sizes.tolist() == [30, 40]
    assert found.image_files == same.image_files


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"part": None}, "has no dataset 'part'; expected MPII's valid.h5 with imgname, center"),
        ({"part": np.zeros((2, 16, 3))}, "'part' has the lengths 2, 16, 3, expected N, 16, 2"),
        ({"scale": np.ones(3)}, "'scale' has 3 people, 'imgname' 2"),
        ({"scale": np.array([b"x", b"y"])}, "'scale' is of type .S1, expected numbers"),
        ({"imgname": np.zeros(2)}, "'imgname' is of type float64, expected texts"),
        ({"visible": np.full((2, 16), 3)}, "'visible' has a flag that is neither 0 nor 1"),
        ({"part": h5py.ExternalLink("other.h5", "part")}, "has no dataset 'part'"),
        ({"part": h5py.SoftLink("/scale")}, "has no dataset 'part'"),
        ({"center": np.full((2, 2), np.nan)}, "person 0 has a joint, centre or scale that is no number"),
    ],
)
def test_bad_hdf5_is_refused_in_one_line(tmp_path: Path, pictures: Path, update: dict[str, Any], message: str) -> None:
    with pytest.raises(KposeError, match=message) as error:
        read_mpii(write_h5(tmp_path, **update), pictures, for_training=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 100, 2000])
def test_hdf5_that_is_cut_off_is_refused(tmp_path: Path, pictures: Path, kept: int) -> None:
    path = write_h5(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(KposeError, match="cannot read .*valid.h5"):
        read_mpii(path, pictures, for_training=False)


def test_only_the_json_takes_head_boxes(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(KposeError, match="brings its own head sizes"):
        read_mpii(write_h5(tmp_path), pictures, tmp_path / "gt_valid.mat", for_training=False)
    with pytest.raises(KposeError, match="is none of MPII's files"):
        read_mpii(tmp_path / "valid.csv", pictures, for_training=False)


# --- the release ---------------------------------------------------------------------------------------------------------------------

EMPTY = np.zeros((0, 0))


def structures(rows: list[dict[str, Any]]) -> np.ndarray:
    """A structure array as MATLAB writes it: 1 x N, all with the same fields."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for position, row in enumerate(rows):
        array[0, position] = tuple(row.values())
    return array


def point(joint: int, visible: Any, place: tuple[float, float] = (11.0, 21.0)) -> dict[str, Any]:
    return {"x": place[0], "y": place[1], "id": float(joint), "is_visible": visible}


def rectangle(points: list[dict[str, Any]] | None, **update: Any) -> dict[str, Any]:
    person = {
        **dict(zip(("x1", "y1", "x2", "y2"), (10.0, 20.0, 40.0, 60.0), strict=True)),
        "annopoints": EMPTY if points is None else structures([{"point": structures(points)}]),
        "scale": 1.5,
        "objpos": structures([{"x": 200.0, "y": 150.0}]),
    }
    return person | update


ALL_POINTS = [point(joint, EMPTY if joint in (8, 9) else 1.0, (joint + 1.0, 2.0 * joint + 1)) for joint in range(JOINTS)]


def image(name: str, people: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {"image": structures([{"name": name}]), "annorect": EMPTY if people is None else structures(people)}


def write_release(folder: Path, images: list[dict[str, Any]], train: list[float], single: list[Any], **update: Any) -> Path:
    cells = np.empty((len(single), 1), object)
    for position, numbers in enumerate(single):
        cells[position, 0] = np.array(numbers, float).reshape(-1, 1) if numbers else EMPTY
    release = {"annolist": structures(images), "img_train": np.array([train]), "single_person": cells, "version": "12"} | update
    path = folder / "mpii_human_pose_v1_u12_1.mat"
    scipy.io.savemat(path, {"RELEASE": {key: value for key, value in release.items() if value is not None}}, do_compression=True)
    return path


def test_the_release_is_read_with_its_quirks(tmp_path: Path, pictures: Path) -> None:
    images = [
        image("a.jpg", [rectangle(ALL_POINTS), rectangle([point(0, "0"), point(2, 0.0), point(3, "1"), point(9, EMPTY)])]),
        image("secret.jpg", [rectangle(ALL_POINTS)]),  # of the test set
        image("b.jpg", None),
        image("c.jpg", [rectangle(None), rectangle([point(15, EMPTY)])]),
        image("d.jpg", [rectangle(ALL_POINTS, scale=EMPTY), rectangle(ALL_POINTS, objpos=EMPTY)]),
    ]
    path = write_release(tmp_path, images, [1, 0, 1, 1, 1], [[1, 2], [1], [], [1], []])
    people = read_mpii(path, pictures, for_training=True)
    assert [Path(people.image_files[position]).name for position in people.image_index] == ["a.jpg", "a.jpg", "c.jpg"]
    assert people.keypoints[0, :, :2].tolist() == [[joint, 2 * joint] for joint in range(JOINTS)]
    assert people.keypoints[0, :, 2].tolist() == [2.0] * JOINTS
    assert people.keypoints[1, :, 2].tolist() == [1, 0, 1, 2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(people.boxes[0], [200 - 150 - 1, 150 + 22.5 - 150 - 1, 300, 300])
    np.testing.assert_allclose(people.head_sizes, 0.6 * 50)
    assert "2 people left out: they have no centre or scale" in people.notes[0]


def test_only_people_apart_from_others_are_scored(tmp_path: Path, pictures: Path) -> None:
    images = [image("a.jpg", [rectangle(ALL_POINTS), rectangle(ALL_POINTS)]), image("b.jpg", [rectangle(ALL_POINTS)])]
    path = write_release(tmp_path, images, [1, 1], [[2], []])
    assert len(read_mpii(path, pictures, for_training=True)) == 3
    assert read_mpii(path, pictures, for_training=False).image_index.tolist() == [0]


@pytest.mark.parametrize(
    ("person", "message"),
    [
        (rectangle([point(16, 1.0)]), "person 1 of image 1 has a joint of the number 16, expected 0 to 15"),
        (rectangle([point(1, 2.0)]), "person 1 of image 1 has is_visible 2.0, expected 0, 1 or nothing"),
        (rectangle([point(1, "yes")]), "person 1 of image 1 has is_visible 'yes'"),
        (rectangle([point(1, 1.0) | {"x": EMPTY}]), "person 1 of image 1 has 'x' missing, expected a number"),
        (rectangle([point(1, 1.0) | {"y": "low"}]), "person 1 of image 1 has 'y' 'low', expected a number"),
        (rectangle([point(1, 1.0, (float("inf"), 1.0))]), "person 0 has a joint, centre or scale that is no number"),
    ],
)
def test_bad_people_of_the_release_are_refused(tmp_path: Path, pictures: Path, person: dict[str, Any], message: str) -> None:
    path = write_release(tmp_path, [image("a.jpg", [person])], [1], [[1]])
    with pytest.raises(KposeError) as error:
        read_mpii(path, pictures, for_training=True)
    assert message in str(error.value) and path.name in str(error.value)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"annolist": None}, "'RELEASE' has no 'annolist'"),
        ({"img_train": np.ones((1, 3))}, "'img_train' has 3 entries, 'annolist' 1"),
        ({"single_person": None}, "'single_person' has 0 entries"),
    ],
)
def test_a_release_without_its_parts_is_refused(tmp_path: Path, pictures: Path, update: dict[str, Any], message: str) -> None:
    path = write_release(tmp_path, [image("a.jpg", [rectangle(ALL_POINTS)])], [1], [[1]], **update)
    with pytest.raises(KposeError, match=message):
        read_mpii(path, pictures, for_training=True)
    scipy.io.savemat(tmp_path / "other.mat", {"joints": np.ones(3)})
    with pytest.raises(KposeError, match="has no variable 'RELEASE'; it holds joints"):
        read_mpii(tmp_path / "other.mat", pictures, for_training=True)


# --- real files ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def all_pictures(shared_data: Path, tmp_path: Path) -> Path:
    """Empty files by the names of all pictures of the validation set, which are not at hand."""
    folder = tmp_path / "all"
    folder.mkdir()
    with h5py.File(shared_data / "mpii/valid.h5") as file:
        for name in {name.decode() for name in file["imgname"][()]}:
            (folder / name).touch()
    return folder


def test_the_validation_set_in_hdf5_is_that_of_the_published_scores(shared_data: Path, all_pictures: Path) -> None:
    people = read_mpii(shared_data / "mpii/valid.h5", all_pictures, for_training=False)
    scored = scipy.io.loadmat(shared_data / "mpii/detections_our_format.mat")
    assert (len(people), len(people.image_files)) == (2958, 2729)
    missing = scored["jnt_missing"].T == 1
    np.testing.assert_array_equal(people.keypoints[..., 2] == 0, missing)
    # The score's coordinates count from 1. HDF5 holds whole pixels, cut for neck and head; 13 joints of the score are damaged.
    apart = people.keypoints[..., :2] + 1 - scored["pos_gt_src"].transpose(2, 0, 1)
    far = (np.abs(apart) > 1.001).any(axis=-1) & ~missing
    assert far.sum() == 13
    exact = np.delete(np.arange(JOINTS), [MPII_16.index("upper_neck"), MPII_16.index("head_top")])
    assert np.abs(apart[:, exact][~missing[:, exact] & ~far[:, exact]]).max() < 1e-3
    boxes = scored["headboxes_src"]
    np.testing.assert_allclose(people.head_sizes, 0.6 * np.hypot(*(boxes[1] - boxes[0])), atol=1e-4)


def test_head_boxes_of_the_published_scores_fit_a_list_of_their_people(shared_data: Path, all_pictures: Path, tmp_path: Path) -> None:
    lists = read_mpii(shared_data / "mpii/valid.h5", all_pictures, for_training=False)
    people = [
        {
            "image": Path(lists.image_files[image]).name,
            "center": [100, 100],
            "scale": 1,
            "joints": (keypoints[:, :2] + 1).tolist(),
            "joints_vis": (keypoints[:, 2] > 0).astype(int).tolist(),
        }
        for image, keypoints in zip(lists.image_index, lists.keypoints, strict=True)
    ]
    boxes = shared_data / "mpii/detections_our_format.mat"
    found = read_mpii(write_list(tmp_path, people), all_pictures, boxes, for_training=False)
    np.testing.assert_allclose(found.head_sizes, lists.head_sizes, atol=1e-4)
    with pytest.raises(KposeError, match="person 0 is another one"):
        read_mpii(write_list(tmp_path, [people[1], people[0], *people[2:]]), all_pictures, boxes, for_training=False)


def test_a_published_list_agrees_with_hdf5(shared_data: Path, all_pictures: Path) -> None:
    folder = shared_data / "format_samples/mpii"
    people = read_mpii(folder / "test_mpii.json", folder, for_training=False)
    same = read_mpii(shared_data / "mpii/valid.h5", all_pictures, people=(0, 5), for_training=False)
    assert [Path(file).name for file in people.image_files] == [Path(file).name for file in same.image_files]
    np.testing.assert_allclose(people.boxes, same.boxes, atol=1e-2)
    np.testing.assert_array_equal(people.keypoints[..., 2] > 0, same.keypoints[..., 2] > 0)
    np.testing.assert_allclose(people.keypoints[..., :2], same.keypoints[..., :2], atol=1)
