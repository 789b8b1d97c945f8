"""Synthetic people: the figures stand as they should, the ground truth says what is drawn, the files are a COCO dataset."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from kpose.data.synthetic import dataset, write_synthetic_people
from kpose.data.synthetic.figure import ArmAngles, Camera, Figure, LegAngles, Pose, Proportions, build_figure, rotation, sample_pose
from kpose.data.synthetic.outfit import Outfit
from kpose.data.synthetic.painter import Canvas, paint_figure
from kpose.data.synthetic.scene import compose_scene
from kpose.errors import KposeError
from kpose.skeletons import COCO_17

LEVELS = (["left_eye", "right_eye"], ["left_shoulder", "right_shoulder"], ["left_hip", "right_hip"], ["left_ankle", "right_ankle"])

STANDING = Pose(ArmAngles(0, 20, 0, 5), ArmAngles(0, 20, 0, 5), LegAngles(0, 5, 0, 0), LegAngles(0, 5, 0, 0))


def standing_figure(yaw: float = 0.0, pose: Pose = STANDING) -> Figure:
    return build_figure(Proportions.sample(np.random.default_rng(1)), pose).turned(rotation(y=yaw))


def painted(figure: Figure, origin: tuple[float, float] = (120.0, 150.0)) -> tuple[np.ndarray, Canvas]:
    """Keypoints and canvas of a figure 240 pixels tall, alone on a grey image of 320 x 240, lit evenly."""
    canvas = Canvas(np.full((3, 320, 240), 128, np.float32), np.array([0.0, 0.0, 1.0]), ambient=0.9)
    camera = Camera(240.0, origin, distance=6.0)
    return paint_figure(canvas, figure, camera, Outfit.sample(np.random.default_rng(2))), canvas


def joint(keypoints: np.ndarray, name: str) -> np.ndarray:
    return keypoints[COCO_17.index(name)]


# --- the figure ---


def test_left_of_somebody_facing_the_camera_is_right_in_the_image():
    keypoints, _ = painted(standing_figure())
    for left, right in COCO_17.left_right_pairs:
        assert joint(keypoints, left)[0] > joint(keypoints, right)[0], left


def test_left_of_somebody_facing_away_is_left_in_the_image_and_the_face_is_hidden():
    keypoints, _ = painted(standing_figure(yaw=180))
    for left, right in COCO_17.left_right_pairs:
        assert joint(keypoints, left)[0] < joint(keypoints, right)[0], left
    assert [joint(keypoints, name)[2] for name in ("nose", "left_eye", "right_eye")] == [1, 1, 1]
    assert joint(keypoints, "left_shoulder")[2] == 2


@pytest.mark.parametrize(("yaw", "near", "far"), [(90, "right", "left"), (-90, "left", "right")])
def test_from_the_side_the_body_hides_its_far_half(yaw, near, far):
    reaching = ArmAngles(60, 0, 0, 5)
    keypoints, _ = painted(standing_figure(yaw, replace(STANDING, left_arm=reaching, right_arm=reaching)))
    for name in ("shoulder", "hip", "ear"):
        assert joint(keypoints, f"{near}_{name}")[2] == 2, name
        assert joint(keypoints, f"{far}_{name}")[2] == 1, name


def test_a_person_stands_upright_and_bends_forwards():
    upright, bent = standing_figure(), standing_figure(pose=replace(STANDING, bend=60.0))
    heights = [upright.points[name][1] for name in ("nose", "left_shoulder", "left_hip", "left_knee", "left_ankle")]
    assert heights == sorted(heights, reverse=True)
    assert bent.points["nose"][2] > upright.points["nose"][2] + 0.2
    assert bent.points["left_ankle"] == pytest.approx(upright.points["left_ankle"], abs=0.03)


def test_knees_bend_backwards_and_elbows_forwards():
    pose = Pose(ArmAngles(0, 0, 0, 90), ArmAngles(0, 0, 0, 90), LegAngles(0, 0, 0, 90), LegAngles(0, 0, 0, 90))
    points = build_figure(Proportions.sample(np.random.default_rng(0)), pose).points
    for side in ("left", "right"):
        assert points[f"{side}_wrist"][2] > points[f"{side}_elbow"][2] + 0.1
        assert points[f"{side}_ankle"][2] < points[f"{side}_knee"][2] - 0.1


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_bones_keep_their_lengths_in_every_pose(seed):
    rng = np.random.default_rng(seed)
    size, pose = Proportions.sample(rng), sample_pose(rng)
    points = build_figure(size, pose).turned(rotation(*rng.uniform(-180, 180, 3))).points
    for side in ("left", "right"):
        for a, b, length in (
            ("shoulder", "elbow", size.upper_arm),
            ("elbow", "wrist", size.forearm),
            ("hip", "knee", size.thigh),
            ("knee", "ankle", size.shank),
        ):
            assert np.linalg.norm(points[f"{side}_{a}"] - points[f"{side}_{b}"]) == pytest.approx(length)


# --- the painter ---


def test_painting_follows_the_keypoints_to_a_fraction_of_a_pixel():
    """The centre of what is drawn moves exactly as far as the figure does: pixel centres are at integers, nothing is rounded."""
    centres = []
    for shift in (0.0, 0.25, 0.5, 0.75):
        _, canvas = painted(standing_figure(), origin=(120.0 + shift, 150.0 - shift))
        rows, columns = np.indices(canvas.coverage.shape)
        weight = canvas.coverage / canvas.coverage.sum()
        centres.append(((columns * weight).sum() - shift, (rows * weight).sum() + shift))
    assert np.ptp(centres, axis=0) == pytest.approx((0, 0), abs=0.06)


def test_a_symmetric_figure_is_painted_symmetrically_about_its_axis():
    _, canvas = painted(standing_figure(), origin=(120.0, 150.0))
    assert canvas.coverage[:, 20:221] == pytest.approx(canvas.coverage[:, 220:19:-1], abs=0.02)


def test_a_joint_outside_the_image_is_absent():
    keypoints, _ = painted(standing_figure(), origin=(120.0, 250.0))
    assert np.all(joint(keypoints, "left_ankle") == 0)
    assert joint(keypoints, "left_hip")[2] == 2


# --- the scene ---


@pytest.mark.parametrize("seed", range(12))
def test_box_and_area_fit_the_annotated_joints_of_a_lone_person(seed):
    scene = compose_scene(np.random.default_rng(seed), 256, 224, num_people=1)
    assert scene.image.shape == (256, 224, 3) and scene.image.dtype == np.uint8
    for person in scene.people:
        x, y, width, height = person.box
        assert x >= 0 and y >= 0 and x + width <= 224 and y + height <= 256
        assert 0 < person.area <= width * height
        present = person.keypoints[person.keypoints[:, 2] > 0]
        margin = 0.1 * max(width, height) + 1
        assert np.all(present[:, 0] >= x - margin) and np.all(present[:, 0] <= x + width + margin)
        assert np.all(present[:, 1] >= y - margin) and np.all(present[:, 1] <= y + height + margin)
        assert np.all(person.keypoints[person.keypoints[:, 2] == 0] == 0)


def test_people_in_front_hide_joints_of_those_behind():
    hidden = visible = 0
    for seed in range(15):
        for person in compose_scene(np.random.default_rng(seed), 128, 128, num_people=4).people:
            hidden += int((person.keypoints[:, 2] == 1).sum())
            visible += int((person.keypoints[:, 2] == 2).sum())
    alone = [compose_scene(np.random.default_rng(seed), 128, 128, num_people=1).people for seed in range(15)]
    joints = np.concatenate([person.keypoints[:, 2] for people in alone for person in people])
    assert hidden / (hidden + visible) > (joints == 1).sum() / (joints > 0).sum() + 0.05


# --- the dataset ---


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic_people(folder, 24, split="val2017", seed=5, image_size=((96, 128), (80, 160)), processes=1, progress=False)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_pycocotools_reads_the_dataset(small):
    coco = COCO(str(small / "annotations" / "person_keypoints_val2017.json"))
    assert len(coco.imgs) == 24
    assert coco.loadCats(1)[0]["keypoints"] == list(COCO_17.joint_names)
    assert {coco.imgs[each["image_id"]]["id"] for each in coco.anns.values()} == set(coco.imgs)
    for image in coco.imgs.values():
        picture = cv2.imread(str(small / "val2017" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        assert 96 <= image["height"] <= 128 and 80 <= image["width"] <= 160
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        keypoints = np.array(annotation["keypoints"]).reshape(17, 3)
        present = keypoints[:, 2] > 0
        assert set(keypoints[:, 2]) <= {0, 1, 2}
        assert annotation["num_keypoints"] == present.sum()
        assert np.all(keypoints[:, :2] >= 0) and np.all(keypoints[:, :2] <= (image["width"] - 1, image["height"] - 1))
        assert annotation["iscrowd"] == 0 and 0 < annotation["area"] <= annotation["bbox"][2] * annotation["bbox"][3]


def test_the_same_seed_gives_the_same_bytes_with_one_process_and_with_two(small, tmp_path):
    summary = write_synthetic_people(tmp_path, 24, split="val2017", seed=5, image_size=((96, 128), (80, 160)), processes=2, progress=False)
    assert content(tmp_path) == content(small)
    assert summary.num_people == len(json.loads(summary.annotation_file.read_text())["annotations"])
    assert not multiprocessing.active_children()


def test_another_seed_gives_other_pictures_and_fewer_are_the_first_of_many(small, tmp_path):
    arguments = {"split": "val2017", "image_size": ((96, 128), (80, 160)), "processes": 1, "progress": False}
    write_synthetic_people(tmp_path / "fewer", 2, seed=5, **arguments)
    write_synthetic_people(tmp_path / "other", 2, seed=6, **arguments)
    first = "val2017/000000000001.jpg"
    assert content(tmp_path / "fewer")[first] == content(small)[first] != content(tmp_path / "other")[first]


def test_a_whole_set_is_reused_and_anything_else_is_written_again(tmp_path, capsys):
    def write(num_images: int = 3, seed: int = 0) -> bool:
        return write_synthetic_people(tmp_path, num_images, seed=seed, image_size=(64, 64), processes=1).reused

    assert not write()
    assert write()
    assert "3 synthetic images" in capsys.readouterr().out
    (tmp_path / "train2017" / "000000000002.jpg").unlink()
    assert not write()
    assert not write(seed=1)
    assert not write(num_images=2)
    assert sorted(path.name for path in (tmp_path / "train2017").iterdir()) == ["000000000001.jpg", "000000000002.jpg"]


def test_the_folder_of_another_dataset_is_left_alone(tmp_path):
    (tmp_path / "train2017").mkdir()
    photo = tmp_path / "train2017" / "000000000001.jpg"
    photo.write_bytes(b"a photo")
    with pytest.raises(KposeError, match="not synthetic"):
        write_synthetic_people(tmp_path, 1, progress=False)
    assert photo.read_bytes() == b"a photo"


def test_an_interrupt_leaves_no_annotation_file_and_no_half_picture(tmp_path, monkeypatch):
    drawn = itertools.count()

    def interrupted(*arguments, **options):
        if next(drawn) == 2:
            raise KeyboardInterrupt
        return compose_scene(*arguments, **options)

    write_synthetic_people(tmp_path, 2, image_size=(64, 64), progress=False)
    monkeypatch.setattr(dataset, "compose_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic_people(tmp_path, 5, image_size=(64, 64), processes=1, progress=False)
    assert not list((tmp_path / "annotations").iterdir())
    assert not list(tmp_path.rglob("*.partial*"))
    monkeypatch.undo()
    assert not write_synthetic_people(tmp_path, 5, image_size=(64, 64), processes=1, progress=False).reused


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_images": 0}, "num_images"),
        ({"num_images": 2.5}, "num_images"),
        ({"seed": -1}, "seed"),
        ({"processes": 0}, "processes"),
        ({"split": "../elsewhere"}, "split"),
        ({"split": "annotations"}, "split"),
        ({"image_size": (8, 8)}, "image_size"),
        ({"image_size": ((200, 100), (64, 64))}, "image_size"),
        ({"image_size": "large"}, "image_size"),
        ({"image_size": 256}, "image_size"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, named):
    with pytest.raises(KposeError, match=named):
        write_synthetic_people(tmp_path, **{"num_images": 1, "progress": False, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("something")
    with pytest.raises(KposeError, match=r"cannot write synthetic people to .*file"):
        write_synthetic_people(file, 1, progress=False)
    assert file.read_text() == "something"


def test_simple_scenes_show_one_upright_person_facing_the_camera() -> None:
    facing = 0
    for seed in range(12):
        (person,) = compose_scene(np.random.default_rng(seed), 200, 200, simple=True).people
        x, y = person.keypoints[:, 0], person.keypoints[:, 1]
        annotated = person.keypoints[:, 2] > 0
        rows = ([joint for joint in COCO_17.indices(level) if annotated[joint]] for level in LEVELS)
        heights = [y[row].mean() for row in rows if row]
        assert heights == sorted(heights), "the head is above the shoulders, these above the hips, and so on"
        facing += x[COCO_17.index("left_shoulder")] > x[COCO_17.index("right_shoulder")]
    assert facing >= 11
